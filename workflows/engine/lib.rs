//! Durable execution: *flows*, ordinary `async fn`s whose steps are journalled in Postgres.
//!
//! **The promise.** State effects in Postgres happen exactly once; calls to the outside happen at
//! least once, each under its own stable idempotency key. Kill any process at any instant, restart
//! Postgres, deliver a ticket twice or never: every run ends completed, or fully compensated, or
//! parked in plain sight with its reason.
//!
//! How to read it: `flow`, `call` and `wait` have the verbs a flow is written with, and `stop` how they end a turn;
//! under them `cursor` reads the journal back and `work` is what a run has in hand between two commits. `turn` drives
//! one run from claim to rest, `seat`, `carrier` and `cohort` take many through one transaction, `unwind` takes a run
//! back, `commit` is the fenced statement behind all of them, `claim` and `sweep` decide who works on what, `start`,
//! `signal` and [`run`] are how the rest of the house talks to runs.
//!
//! What must not live here: carts, orders, HTTP, or any queue but the ticket table. This crate knows
//! a ticket only as a row it inserts and deletes; the `workers` crate delivers it through apalis.

mod backlog;
mod call;
mod carrier;
mod claim;
mod cohort;
mod commit;
mod cursor;
mod error;
mod exit;
mod fault;
mod flow;
mod forward;
mod group;
mod incarnation;
pub mod inspect;
mod journal;
mod leave;
mod means;
mod outside;
pub mod park;
mod payload;
pub mod pools;
mod registry;
mod rehearse;
pub mod retire;
mod retry;
pub mod run;
mod seat;
mod signal;
pub mod silence;
mod start;
mod status;
mod step;
mod stop;
mod sweep;
pub mod testing;
mod turn;
mod undo;
mod unwind;
mod wait;
mod work;

pub use error::{Failure, StepError, codes};
pub use flow::Flow;
pub use forward::Forward;
pub use outside::Dependency;
pub use payload::legible;
pub use registry::{Registry, Workflow};
pub use retry::RetryPolicy;
pub use signal::{Delivery, cancel, signal};
pub use start::{Start, start, start_all, start_at};
pub use status::RunStatus;
pub use step::{Call, CallContext, Deadline, Nothing, SetResult, SetStep, SetTx, Step, Tx, Undo, Undoing, done};
pub use sweep::{advance_clock, now, sweep};
pub use turn::{Engine, Settings, Turn};

/// What a flow returns: its output, or the failure that makes it unwind.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Limits that protect the engine. Reaching one unwinds the run (or parks it past the point of no
/// return); none is silent.
pub mod limits {
    use std::time::Duration;

    /// Largest input, output or signal, in bytes of JSON, roughly: escapes are not counted.
    pub const PAYLOAD_BYTES: usize = 1024 * 1024;
    /// What the runs of a set were started with, together, in bytes: more do not travel together.
    pub const SET_BYTES: usize = 1024 * 1024;
    /// Longest business key of a run, and longest key of a signal, in bytes: an index must hold it.
    pub const KEY_BYTES: usize = 1_024;
    /// Text of a failure that is kept, in bytes; the rest is cut off.
    pub const TEXT_BYTES: usize = 8 * 1024;
    /// Journal entries a run may write.
    pub const JOURNAL_ENTRIES: i32 = 1_000;
    /// Signals a run may hold, consumed or not.
    pub const SIGNALS: i64 = 1_000;
    /// The longest that a run rests because whom it calls asked for peace, or because it is not its turn.
    pub const PUT_OFF: Duration = Duration::from_secs(60);
}
