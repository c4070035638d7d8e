//! The integration crate. `world` is the fixture; every other module is one promise, tested.
//!
//! One private Postgres serves the whole process; each test has a database of its own, copied from a
//! migrated template.

// One crate, no outside: `pub` here only means "for the other modules".
#![allow(unreachable_pub)]

mod accepts;
mod audit;
mod authorisation;
mod cancellation_faults;
mod checkout_faults;
mod checkout_races;
mod clockwork;
mod cohorts;
mod contract;
mod coupon_rush;
mod door;
mod engine_kit;
mod fraud;
mod gateway;
mod gateways;
mod house;
mod http;
mod interleavings;
mod localstripe;
mod logins;
mod lost_answer;
mod mails;
mod misfortune;
mod operations;
mod parcel_mixtures;
mod patience;
mod payment_attempts;
mod processes;
mod provider;
mod rate_limits;
mod redis;
mod redis_server;
mod refunds;
mod refusals;
mod refused_refunds;
mod repeats_in_parallel;
mod return_faults;
mod rules;
mod server;
mod sets;
mod silence;
mod simulation;
mod two_rules;
mod world;
