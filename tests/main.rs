//! The integration crate. `world` is the fixture; every other module is one promise, tested.
//!
//! One private Postgres serves the whole process; each test has a database of its own, copied from a
//! migrated template.

// One crate, no outside: `pub` here only means "for the other modules".
#![allow(unreachable_pub)]

mod audit;
mod cancellation_faults;
mod checkout_faults;
mod checkout_races;
mod clockwork;
mod coupon_rush;
mod engine_kit;
mod gateway;
mod house;
mod http;
mod interleavings;
mod lost_answer;
mod payment_attempts;
mod processes;
mod redis;
mod refunds;
mod refusals;
mod return_faults;
mod server;
mod simulation;
mod world;
