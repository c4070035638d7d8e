//! Where a run can be made to fail, die or repeat itself, for tests. An engine without faults (every
//! engine a role of the product builds) answers `None` everywhere.

use crate::{Failure, StepError};

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
    /// The input or a journal entry is about to be read again; the step is then named `run id/entry`, or
    /// `run id/INPUT`.
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

/// How a test stops a step that is about to run.
pub(crate) enum Struck {
    /// The process dies.
    Crash,
    /// The attempt fails.
    Fail(StepError),
}

/// What a test does to a step, an undo or a call before it runs, if it does not stop it: run it once, or twice.
pub(crate) fn before(faults: Option<&dyn Faults>, step: &str) -> Result<bool, Struck> {
    match at(faults, Point::Before, step) {
        None | Some(Fault::Unreadable | Fault::Panic) => Ok(false),
        Some(Fault::Twice) => Ok(true),
        Some(Fault::Crash) => Err(Struck::Crash),
        Some(Fault::Fail(failure)) => Err(Struck::Fail(failure.into())),
        Some(Fault::Retry) => Err(Struck::Fail(StepError::Retry("injected".into()))),
    }
}

/// Whether the process dies at any other point: nothing else can happen there.
pub(crate) fn crashes(faults: Option<&dyn Faults>, point: Point, step: &str) -> bool {
    match at(faults, point, step) {
        Some(Fault::Crash) => true,
        None | Some(Fault::Fail(_) | Fault::Retry | Fault::Twice | Fault::Unreadable | Fault::Panic) => false,
    }
}

/// What a test does to the reading of an entry or an input: why it cannot be read, or a panic.
pub(crate) fn strike_reading(faults: Option<&dyn Faults>, label: &str) -> Result<(), &'static str> {
    match at(faults, Point::Replay, label) {
        None | Some(Fault::Crash | Fault::Fail(_) | Fault::Retry | Fault::Twice) => Ok(()),
        Some(Fault::Unreadable) => Err("injected"),
        Some(Fault::Panic) => panic!("injected"),
    }
}

/// The same for what is read while there is no flow yet that could panic.
pub(crate) fn is_readable(faults: Option<&dyn Faults>, label: &str) -> bool {
    match at(faults, Point::Replay, label) {
        None | Some(Fault::Crash | Fault::Fail(_) | Fault::Retry | Fault::Twice) => true,
        Some(Fault::Unreadable | Fault::Panic) => false,
    }
}

fn at(faults: Option<&dyn Faults>, point: Point, step: &str) -> Option<Fault> {
    faults?.at(point, step)
}
