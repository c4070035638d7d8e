//! Durable execution: *flows*, ordinary `async fn`s whose steps are journalled in Postgres.
//!
//! **The promise.** State effects in Postgres happen exactly once; calls to the outside happen at
//! least once, each under its own stable idempotency key. Kill any process at any instant, restart
//! Postgres, deliver a ticket twice or never: every run ends completed, or fully compensated, or
//! parked in plain sight with its reason.
//!
//! How to read it: `flow`, `call`, `wait` and `forward` have the verbs a flow is written with, and `flow::stop` how they
//! end a turn; under them `cursor` reads the journal back and `work` is what a run has in hand between two commits.
//! `turn` drives one run from claim to rest, and `turn::unwind` takes it back; `seat`, `carrier` and `cohort` take many
//! through one transaction, and `rows` are what they hand in; `commit` is the fenced statement behind all of them,
//! `claim` and `sweep` decide who works on what, `start`, `signal` and [`run`] are how the rest of the house talks to
//! runs. Modules use each other downwards only: the house's test has their floors.
//!
//! What must not live here: carts, orders, HTTP, or any queue but the ticket table. This crate knows
//! a ticket only as a row it inserts and deletes; the `workers` crate delivers it through apalis.

mod backlog;
mod call;
mod carrier;
mod claim;
mod clock;
mod cohort;
mod commit;
mod cursor;
mod error;
mod exit;
mod fault;
mod fence;
mod flow;
mod forward;
mod group;
mod incarnation;
pub mod inspect;
mod journal;
mod legible;
pub mod limits;
mod means;
mod outside;
pub mod park;
mod payload;
pub mod pools;
mod registry;
mod rehearse;
pub mod retire;
mod retry;
mod rows;
pub mod run;
mod seat;
mod signal;
pub mod silence;
mod start;
mod status;
mod step;
mod sweep;
pub mod testing;
mod ticket;
mod turn;
mod undo;
mod wait;
mod work;

pub use clock::{advance_clock, now};
pub use error::{Failure, Result, StepError, codes};
pub use flow::Flow;
pub use forward::Forward;
pub use legible::legible;
pub use outside::Dependency;
pub use registry::{Registry, Workflow};
pub use retry::RetryPolicy;
pub use start::{Start, start, start_all, start_at};
pub use status::RunStatus;
pub use step::{Call, CallContext, Deadline, Nothing, SetResult, SetStep, SetTx, Step, Tx, Undo, Undoing, done};

/// What carries runs: for worker pools, and whoever plays one.
pub mod worker {
    pub use crate::{
        sweep::{Swept, sweep},
        turn::{Engine, Settings, Turn},
    };
}
