//! What a flow is made of: steps, calls and their undos.

use std::{fmt, future::Future, ops::DerefMut, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Failure, RetryPolicy, StepError,
    outside::Dependency,
    start::{Start, Started, start_at},
};

/// Something done in Postgres: its SQL and its journal entry commit together.
pub trait Step: Send + Sync {
    /// The name in the journal. A shipped name never changes meaning: rename it instead.
    const NAME: &'static str;
    /// What it returns; journalled, and given back on a replay.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Does it. May run more than once, but only one run ever commits.
    fn run(&self, tx: &mut Tx<'_>) -> impl Future<Output = Result<Self::Output, StepError>> + Send;
}

/// A step for many runs at once: one statement for all of them, one run being the special case. Each run
/// hands in a row, the step as it stands there with all that it needs; the rows of whoever is ready are
/// carried out together, and commit together with their journals.
pub trait SetStep: Sized + Send + Sync + 'static {
    /// The name in the journal. A shipped name never changes meaning: rename it instead.
    const NAME: &'static str;
    /// What it returns to each run; journalled, and given back on a replay.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// It locks what everybody wants, such as the stock of what sells best. In a tuple it is carried out last;
    /// by itself, a crowd commits right after it.
    const HOT: bool = false;

    /// Does it for all rows, and returns one result a row in their order: an output, or why that row alone
    /// is refused, and then nothing has been written for it. May run more than once, but only one run ever
    /// commits.
    ///
    /// # Errors
    /// What stops everybody. Unless there is only one row, each is tried again, in ever smaller sets.
    fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> impl Future<Output = SetResult<Self::Output>> + Send;
}

/// One result a row, or what stops all of them.
pub type SetResult<O> = Result<Vec<Result<O, Failure>>, StepError>;

/// The result of a step that has done what it does for every row, and returns nothing.
///
/// # Errors
/// None.
pub fn done<S>(rows: &[S]) -> SetResult<()> {
    Ok(rows.iter().map(|_| Ok(())).collect())
}

/// Something done outside Postgres: no transaction is open meanwhile, and it may run more than once.
pub trait Call: Send + Sync {
    /// The name in the journal.
    const NAME: &'static str;
    /// What it returns; journalled with the next commit.
    type Output: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    /// How it is retried.
    fn policy(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// What outside it depends on. When that is silent, or enough calls are inside it, the run waits
    /// without a worker and without a failed attempt; a call that names none is always made.
    fn dependency(&self) -> Option<Dependency> {
        None
    }

    /// Whether the dependency was heard of in this output: a call that reports a silence as its result must
    /// not pass for an answer.
    fn heard_in(&self, _: &Self::Output) -> bool {
        true
    }

    /// Until when its answer is worth waiting for; by default for ever.
    fn deadline(&self) -> Option<Deadline> {
        None
    }

    /// Does it, under the key in `context`.
    fn run(&self, context: &CallContext) -> impl Future<Output = Result<Self::Output, StepError>> + Send;
}

/// Until when a run waits for the answer to a call, and how it fails then. What became of the call is
/// for its undo to find out, which is told `None`. It is tried once more at the deadline itself.
#[derive(Debug, Clone)]
pub struct Deadline {
    /// On the engine's clock.
    pub at: DateTime<Utc>,
    /// Why the run unwinds.
    pub failure: Failure,
}

/// What a call is told about itself.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// uuid v5 of (run, step, occurrence): the same for every attempt of this call, ever.
    pub idempotency_key: Uuid,
    /// When the call was first intended: what an idempotency key's age is counted from.
    pub intended_at: DateTime<Utc>,
    /// Now, on the engine's clock.
    pub now: DateTime<Utc>,
    /// An earlier attempt may have reached the outside without anybody living to say so.
    pub redelivered: bool,
}

impl CallContext {
    /// The key under which a run makes a call for the `occurrence`-th time, from 1.
    pub fn key(run_id: Uuid, call: &str, occurrence: u32) -> Uuid {
        Uuid::new_v5(&run_id, format!("{call}/{occurrence}").as_bytes())
    }

    /// How long to leave alone what cannot be done yet: the longer the longer it has been intended.
    pub fn patience(&self) -> Duration {
        let age = (self.now - self.intended_at).to_std().unwrap_or_default();
        (age / 4).clamp(Duration::from_millis(500), Duration::from_secs(60))
    }
}

/// What takes a step back. `O` is what the step returned.
pub trait Undo<O>: Sized + Send + Sync + 'static {
    /// The name in the journal: the step's antonym. `None` means there is nothing to take back.
    const NAME: Option<&'static str>;

    /// Takes it back for all of these runs, one or many, in one transaction with their journal entries.
    ///
    /// # Errors
    /// What stops everybody. Unless there is only one run, each is tried again, in ever smaller sets.
    fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, O>]) -> impl Future<Output = Result<(), StepError>> + Send;
}

/// A run that takes a step back.
#[derive(Debug)]
pub struct Undoing<U, O> {
    /// By what.
    pub undo: Arc<U>,
    /// What the step returned.
    pub output: O,
    /// The run.
    pub run_id: Uuid,
    /// Why it unwinds: an undo may want to say so.
    pub failure: Failure,
}

/// The step changed nothing that would have to be taken back.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl<O: Sync> Undo<O> for Nothing {
    const NAME: Option<&'static str> = None;

    async fn undo(_: &mut SetTx<'_>, _: &[Undoing<Self, O>]) -> Result<(), StepError> {
        Ok(())
    }
}

/// The run's open transaction, as a step sees it.
pub struct Tx<'a> {
    pub(crate) conn: &'a mut PgConnection,
    pub(crate) run_id: Uuid,
    pub(crate) now: DateTime<Utc>,
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Tx<'_> {
    /// The connection; what it executes commits with the step or not at all.
    pub fn conn(&mut self) -> &mut PgConnection {
        self.conn.deref_mut()
    }

    /// The run this step belongs to.
    pub fn run_id(&self) -> Uuid {
        self.run_id
    }

    /// Now, on the engine's clock (which development may move).
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Starts a child in this transaction.
    pub async fn start<W>(&mut self, start: Start<W>) -> Result<Started, StepError> {
        let start = start.child_of(self.run_id);
        start_at(self.conn, &start, self.now).await.map_err(StepError::from)
    }
}

/// The open transaction of many runs, as a step for many sees it.
pub struct SetTx<'a> {
    pub(crate) conn: &'a mut PgConnection,
    pub(crate) now: DateTime<Utc>,
    pub(crate) starts: &'a mut Vec<Start<()>>,
}

impl fmt::Debug for SetTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetTx")
    }
}

impl SetTx<'_> {
    /// The connection; what it executes commits with the rows or not at all.
    pub fn conn(&mut self) -> &mut PgConnection {
        self.conn.deref_mut()
    }

    /// Now, on the engine's clock (which development may move): the same for all rows.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Starts a child of the run `parent`, in the commit of this step.
    pub fn start<W>(&mut self, parent: Uuid, start: Start<W>) {
        self.starts.push(start.child_of(parent).untyped());
    }
}
