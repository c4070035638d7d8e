//! The shop as its clients meet it: over HTTP, from the cart to the e-mail.

mod addresses;
mod backlog;
mod cart_rules;
mod carts;
mod checkout;
mod coupons;
mod document;
mod events;
mod fulfilment;
mod gateway;
mod guests;
mod merging;
mod money;
mod people;
mod repeats;
mod returns;
mod rush;
mod schedules;
mod staff;
mod texts;
mod webhooks;
