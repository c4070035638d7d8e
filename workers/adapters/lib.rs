//! The shop's way to the outside: implementations of `domain::ports`, one file each.
//!
//! What lives here: gateways, mailers and Redis. What must not: rules of commerce (they are `domain`'s), retries and journals (the engine's), and knowledge of
//! who calls. An adapter translates, bounds what it waits for, and says honestly whether a failed
//! call may have happened.
//!
//! Every HTTP client is given from outside; the process must have installed a rustls crypto provider
//! before it makes one.

pub mod carts;
pub mod holds;
pub mod notify;
pub mod payments;
pub mod redis;
