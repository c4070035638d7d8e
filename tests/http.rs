//! The shop as its clients meet it: over HTTP, from the cart to the e-mail.

mod carts;
mod checkout;
mod document;
mod events;
mod gateway;
mod repeats;
mod rush;
mod schedules;
