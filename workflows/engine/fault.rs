//! Where a run can be made to fail, die or repeat itself, for tests. An engine without faults (every
//! engine a role of the product builds) answers `None` everywhere.

use crate::Failure;

/// A place in a run's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// A step (or undo) is about to run.
    Before,
    /// A step (or undo) has run, its transaction still open.
    After,
    /// The commit that carries the step is about to happen.
    BeforeCommit,
    /// The commit that carries the step has happened.
    AfterCommit,
    /// The input or a journal entry is about to be read again; the step is then named `run id/entry`.
    Replay,
}

/// What happens there.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The process dies: nothing more is written, nothing is released.
    Crash,
    /// The step fails for good.
    Fail(Failure),
    /// The step fails, and may be tried again.
    Retry,
    /// The step is carried out, taken back with its savepoint, and carried out again; a call is
    /// simply made twice.
    Twice,
    /// What is about to be read has another shape than this program knows.
    Unreadable,
    /// Reading it panics.
    Panic,
}

/// Decides what goes wrong.
pub trait Faults: Send + Sync {
    /// Asked at every point of every step.
    fn at(&self, point: Point, step: &str) -> Option<Fault>;
}

/// What [`Point::Replay`] calls an entry of a run's journal, or its `INPUT`.
pub(crate) fn label(run_id: uuid::Uuid, what: &str) -> String {
    format!("{run_id}/{what}")
}
