//! Every gateway by the same stories: the product's adapter on one side, a process that speaks as the provider does
//! on the other, and whatever may befall a run in between.

mod account;
mod gone_back;
mod money;
mod other_shops;
mod sale;
mod stories;
mod till;
