//! The verbs a flow is written with.

use std::{collections::HashMap, fmt, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Postgres, Transaction};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    Failure, Result, RetryPolicy, StepError, Tx, Undo,
    claim::Claimed,
    commit::{self, Fence, Fenced, Rest},
    error::is_outage,
    fault::{Fault, Point},
    group::{Ran, Steps, Stopped, decode_one},
    journal::{Entry, Kind, Pending, Replay},
    limits,
    registry::Workflow,
    silence::{SILENCE, heard},
    start::{Start, start_at},
    step::encode,
    turn::{Engine, Exit},
    undo::Registered,
};

/// A run being carried out. Its verbs journal what they did; on a replay they answer from the journal.
///
/// A step's terminal failure always unwinds the run: an outcome a flow wants to branch on is a value.
pub struct Flow {
    pub(crate) engine: Arc<Engine>,
    pub(crate) run: Claimed,
    pub(crate) replay: Replay,
    /// Opened by the first `tx` after a commit, closed by the next commit.
    pub(crate) tx: Option<Transaction<'static, Postgres>>,
    pub(crate) pending: Vec<Pending>,
    starts: Vec<Start<()>>,
    pub(crate) undos: Vec<Registered>,
    next_seq: i32,
    committed_seq: i32,
    pub(crate) occurrences: HashMap<&'static str, u32>,
    pub(crate) failure: Option<Failure>,
    /// Past the point of no return, as far as this turn has come; the row says so once it commits.
    pub(crate) forward: bool,
    pub(crate) cancel: Option<String>,
    /// Each `tx` commits by itself: on after a failed attempt, so that what works gets done.
    pub(crate) fused: bool,
    /// Whose slots this run's turns take.
    pub(crate) queue: &'static str,
    exit: Option<oneshot::Sender<Exit>>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("id", &self.run.id).field("next_seq", &self.next_seq).finish_non_exhaustive()
    }
}

/// A step waiting to be told what undoes it.
#[must_use = "a step does nothing until it is told what undoes it: `.undo(..)`, or `.undo(Nothing)`"]
pub struct Stepping<'f, G> {
    flow: &'f mut Flow,
    steps: G,
}

impl<G> fmt::Debug for Stepping<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stepping")
    }
}

impl<G: Steps> Stepping<'_, G> {
    /// Carries the step out, and registers what takes it back should the run fail later.
    pub async fn undo<U: Undo<G::Output>>(self, undo: U) -> Result<G::Output> {
        let Stepping { flow, steps } = self;
        let (output, json, seq) = flow.carry_out(&steps, None).await?;
        flow.undos.extend(Registered::new::<G::Output, U>(seq, undo, &json));
        flow.after_tx().await?;
        Ok(output)
    }
}

impl Flow {
    pub(crate) fn new(engine: Arc<Engine>, mut run: Claimed, queue: &'static str, exit: oneshot::Sender<Exit>) -> Self {
        let replay = Replay::new(std::mem::take(&mut run.journal));
        Flow {
            next_seq: replay.next_seq,
            committed_seq: replay.next_seq,
            fused: engine.settings.fusion && run.attempt == 0,
            forward: run.forward_only,
            cancel: run.cancel_requested.clone(),
            engine,
            replay,
            run,
            tx: None,
            pending: Vec::new(),
            starts: Vec::new(),
            undos: Vec::new(),
            occurrences: HashMap::new(),
            failure: None,
            queue,
            exit: Some(exit),
        }
    }

    /// The run's id.
    pub fn id(&self) -> Uuid {
        self.run.id
    }

    /// The engine's pool, for calls that keep notes of their own.
    pub fn pool(&self) -> &sqlx::PgPool {
        &self.engine.pool
    }

    /// When the run was started, on the engine's clock.
    pub fn started_at(&self) -> DateTime<Utc> {
        self.run.created_at
    }

    /// Registers what takes back the work of the transaction that started the run: it is the first
    /// thing that happened, so it is undone last, and whatever else never committed.
    pub fn accepted<U: Undo<()>>(&mut self, undo: U) {
        self.undos.extend(Registered::new::<(), U>(-1, undo, &serde_json::Value::Null));
    }

    /// One step, or a tuple that commits together: SQL and journal in one commit. Adjacent ones may
    /// share a commit; if one fails before it, those never happened.
    pub fn tx<G: Steps>(&mut self, steps: G) -> Stepping<'_, G> {
        Stepping { flow: self, steps }
    }

    /// A `tx` after which the run only goes forward: once it commits nothing is undone, and a step
    /// that keeps failing parks the run. If it fails, the run unwinds.
    pub async fn point_of_no_return<G: Steps>(&mut self, steps: G) -> Result<Forward<'_>> {
        self.carry_out(&steps, Some(Kind::NoReturn)).await?;
        self.forward = true;
        self.after_tx().await?;
        Ok(Forward(self))
    }

    /// Commits what is pending, so that the steps after it get a transaction of their own: for work in
    /// batches, each of which is to hold its locks briefly.
    pub async fn checkpoint(&mut self) -> Result<()> {
        self.safe_point().await?;
        self.flush().await
    }

    /// Reads a value that a replay must see again: the time, a random number, a setting.
    pub async fn value<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &'static str,
        read: impl FnOnce() -> T,
    ) -> Result<T> {
        self.safe_point().await?;
        if let Some(entry) = self.next_entry(Kind::Value, name).await? {
            return decode_one(name, entry.output.unwrap_or_default());
        }
        let value = read();
        let json = encode(name, &value)?;
        self.journal(Kind::Value, name, Some(json)).await?;
        Ok(value)
    }

    /// Starts a child with its own history; it exists once this run's next commit has happened.
    pub async fn start<W: Workflow>(&mut self, start: Result<Start<W>>) -> Result<Uuid> {
        self.safe_point().await?;
        if let Some(entry) = self.next_entry(Kind::Start, W::NAME).await? {
            return decode_one(W::NAME, entry.output.unwrap_or_default());
        }
        let start = match start {
            Ok(start) => start.child_of(self.run.id),
            Err(failure) => return Err(self.fail(failure)),
        };
        let run_id = start.run_id;
        self.journal(Kind::Start, W::NAME, Some(serde_json::json!(run_id))).await?;
        self.starts.push(start.untyped());
        Ok(run_id)
    }

    // --- what the verbs share ---

    /// Runs the steps, or reads what they answered. Also answers their output as one JSON value, and
    /// the position of the last one: by that its undo is known, now and on every replay.
    async fn carry_out<G: Steps>(
        &mut self,
        steps: &G,
        then: Option<Kind>,
    ) -> Result<(G::Output, serde_json::Value, i32)> {
        self.safe_point().await?;
        let names = G::names();
        let kind = then.unwrap_or(Kind::Tx);
        let mut replayed = Vec::with_capacity(names.len());
        let mut seq = 0;
        for name in &names {
            match self.next_entry(kind, name).await? {
                Some(entry) => {
                    seq = entry.seq;
                    replayed.push(entry.output.unwrap_or_default());
                }
                None => break,
            }
        }
        if replayed.len() == names.len() {
            let json = together(replayed.clone());
            return Ok((G::decode(replayed)?, json, seq));
        }
        if !replayed.is_empty() {
            // Steps of one group share a commit, so half a group is another program's journal.
            return Err(self.diverged(names.last().copied().unwrap_or_default(), "half a group").await);
        }
        self.open().await;
        let engine = Arc::clone(&self.engine);
        let mut ran = Ran { faults: engine.faults.as_deref(), outputs: Vec::with_capacity(names.len()) };
        let now = self.now();
        let result = match self.tx.as_mut() {
            Some(transaction) => {
                let mut tx = Tx { conn: &mut *transaction, run_id: self.run.id, now, failure: None };
                // Slow steps are failed attempts, and counted; that the database is away shows when this
                // attempt cannot be written down.
                let ran = tokio::time::timeout(SILENCE, steps.run(&mut tx, &mut ran)).await;
                ran.unwrap_or_else(|elapsed| Err(Stopped::Error(names[0], StepError::Retry(Box::new(elapsed)))))
            }
            None => Err(Stopped::Crash),
        };
        match result {
            Ok(output) => {
                let mut outputs = Vec::with_capacity(names.len());
                for (name, json) in ran.outputs {
                    outputs.push(json.clone());
                    self.journal(kind, name, Some(json)).await?;
                }
                Ok((output, together(outputs), self.next_seq - 1))
            }
            Err(Stopped::Crash) => self.leave(Exit::Crashed).await,
            Err(Stopped::Error(name, error)) => self.step_failed(name, error, &RetryPolicy::default()).await,
        }
    }

    /// A failed step either fails the run or ends this turn.
    pub(crate) async fn step_failed<T>(
        &mut self,
        step: &'static str,
        error: StepError,
        policy: &RetryPolicy,
    ) -> Result<T> {
        if error.is_outage() {
            tracing::warn!(run = %self.run.id, step, %error, "the database is away; the run waits for it");
            self.leave(Exit::Outage).await
        }
        let failed = u32::try_from(self.run.attempt).unwrap_or(u32::MAX).saturating_add(1);
        let failure = match error {
            StepError::Terminal(failure) => failure,
            StepError::Retry(error) if failed >= policy.max_attempts => {
                Failure::new("step-failed", format!("{step} failed {failed} times: {error}"))
            }
            StepError::Retry(error) => {
                let error = error.to_string();
                self.leave(Exit::Retry { step, error, policy: *policy }).await
            }
            StepError::NotYet { why, after } | StepError::Busy { why, after } => {
                let until = self.now() + after;
                self.leave(Exit::PutOff { step, why, until }).await
            }
            // Giving up would leave something undone, or done, that nobody knows of.
            StepError::Unknown(error) => {
                let (error, policy) = (error.to_string(), RetryPolicy { max_attempts: u32::MAX, ..*policy });
                self.leave(Exit::Retry { step, error, policy }).await
            }
        };
        let takes_others_down = self.fused && self.pending.iter().any(|entry| entry.kind.bound_to_transaction());
        if self.forward && (takes_others_down || !self.run.forward_only) {
            // What was promised, if only the point of no return, has not committed yet. Step by step it
            // will, and then this failure parks the run without undoing it.
            self.leave(Exit::Retry { step, error: failure.to_string(), policy: *policy }).await
        }
        Err(self.fail(failure))
    }

    /// From here on every verb answers this failure; what had not committed never happened.
    pub(crate) fn fail(&mut self, failure: Failure) -> Failure {
        self.roll_back();
        self.failure = Some(failure.clone());
        failure
    }

    pub(crate) fn roll_back(&mut self) {
        // Dropping a transaction rolls it back before its connection is used again.
        self.tx = None;
        self.starts.clear();
        let kept = self.pending.iter().position(|p| p.kind.bound_to_transaction()).unwrap_or(self.pending.len());
        self.pending.truncate(kept);
        self.next_seq = self.committed_seq + i32::try_from(kept).unwrap_or(0);
        let committed = self.committed_seq;
        self.undos.retain(|undo| undo.seq < committed);
        self.forward = self.run.forward_only;
    }

    /// Where a run that was asked to stop, or has failed, stops.
    pub(crate) async fn safe_point(&mut self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.replay.entries.is_empty() {
            if let Some(failure) = self.run.failure.clone() {
                return Err(self.fail(failure));
            }
            if let (Some(why), false) = (self.cancel.clone(), self.forward) {
                return Err(self.fail(Failure::cancelled(&why)));
            }
            if self.next_seq >= limits::JOURNAL_ENTRIES {
                return Err(self.fail(Failure::new("journal-full", "the run has written 1,000 journal entries")));
            }
        }
        Ok(())
    }

    /// The next journalled entry, if the replay has one; it must be this one.
    pub(crate) async fn next_entry(&mut self, kind: Kind, name: &str) -> Result<Option<Entry>> {
        match self.replay.entries.front() {
            None => Ok(None),
            Some(entry) if entry.kind == kind && entry.name == name => Ok(self.replay.entries.pop_front()),
            Some(entry) => {
                let found = format!("{} {}", entry.kind.as_str(), entry.name);
                Err(self.diverged(name, &found).await)
            }
        }
    }

    async fn diverged(&mut self, expected: &str, found: &str) -> Failure {
        let detail = format!("the journal has {found} where this program does {expected}");
        self.leave::<Failure>(Exit::Stuck(Failure::new("journal-diverged", detail))).await
    }

    pub(crate) async fn journal(&mut self, kind: Kind, name: &str, output: Option<serde_json::Value>) -> Result<()> {
        self.pending.push(Pending { seq: self.next_seq, kind, name: name.to_owned(), output, error: None });
        self.next_seq += 1;
        Ok(())
    }

    pub(crate) async fn open(&mut self) {
        if self.tx.is_none() {
            match heard(self.engine.pool.begin()).await {
                Ok(tx) => self.tx = Some(tx),
                Err(error) => {
                    tracing::warn!(run = %self.run.id, %error, "no transaction to be had");
                    self.leave(Exit::Outage).await
                }
            }
        }
    }

    async fn after_tx(&mut self) -> Result<()> {
        if !self.fused && self.tx.is_some() {
            self.flush().await?;
        }
        Ok(())
    }

    /// Commits what is pending and goes on.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        if self.tx.is_none() && self.pending.is_empty() && self.starts.is_empty() {
            return Ok(());
        }
        self.commit(Rest::Onward { forward_only: self.forward }).await
    }

    /// The fenced commit, with everything that can come of it.
    pub(crate) async fn commit(&mut self, rest: Rest) -> Result<()> {
        let settles = self.forward != self.run.forward_only || matches!(rest, Rest::Waiting { .. });
        match self.write(Write::Rest(rest), settles).await {
            Ok(()) => {
                self.run.forward_only = self.forward;
                Ok(())
            }
            Err(Unwritten::Cancelled(why)) => Err(self.fail(Failure::cancelled(&why))),
            Err(Unwritten::Exit(exit)) => self.leave(exit).await,
        }
    }

    /// Writes what is pending under the fence. With `settles`, a request to cancel that came first wins.
    pub(crate) async fn write(&mut self, write: Write<'_>, settles: bool) -> std::result::Result<(), Unwritten> {
        let last = self.pending.last().map(|p| p.name.clone()).unwrap_or_default();
        self.fault(Point::BeforeCommit, &last)?;
        let fence = Fence { run_id: self.run.id, epoch: self.run.epoch };
        let now = self.now();
        if self.tx.is_none() && (settles || !self.starts.is_empty()) {
            self.tx = Some(heard(self.engine.pool.begin()).await.map_err(Unwritten::database)?);
        }
        let written = match self.tx.as_mut() {
            Some(tx) => {
                for start in &self.starts {
                    heard(start_at(tx, start, now)).await.map_err(Unwritten::database)?;
                }
                heard(write.execute(tx, fence, &self.pending, now)).await.map_err(Unwritten::database)?
            }
            None => {
                let mut conn = self.engine.pool.acquire().await.map_err(Unwritten::database)?;
                heard(write.execute(&mut conn, fence, &self.pending, now)).await.map_err(Unwritten::database)?
            }
        };
        match written {
            Fenced::Refused => {
                self.tx = None;
                fence.note_refusal();
                return Err(Unwritten::Exit(Exit::Refused));
            }
            Fenced::Written { cancel: Some(why) } if settles && !self.run.forward_only => {
                return Err(Unwritten::Cancelled(why));
            }
            Fenced::Written { cancel } => self.cancel = cancel,
        }
        if let Some(tx) = self.tx.take() {
            heard(tx.commit()).await.map_err(Unwritten::database)?;
        }
        self.starts.clear();
        self.pending.clear();
        self.committed_seq = self.next_seq;
        self.run.attempt = 0;
        self.fault(Point::AfterCommit, &last)
    }

    fn fault(&self, point: Point, step: &str) -> std::result::Result<(), Unwritten> {
        match self.engine.faults.as_deref().and_then(|faults| faults.at(point, step)) {
            Some(Fault::Crash) => Err(Unwritten::Exit(Exit::Crashed)),
            Some(Fault::Fail(_) | Fault::Retry | Fault::Twice) | None => Ok(()),
        }
    }

    /// Ends this turn: the driver drops the flow's future, so nothing after this line runs.
    pub(crate) async fn leave<T>(&mut self, exit: Exit) -> T {
        self.roll_back();
        if let Some(sender) = self.exit.take() {
            // The driver holds the receiver until the future is dropped.
            let _ = sender.send(exit);
        }
        std::future::pending().await
    }

    /// Now, on the engine's clock. Not journalled: for deadlines and timestamps, not for decisions.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.run.clock.now()
    }

    /// Takes note of an entry that was pushed directly.
    pub(crate) fn count_pending(&mut self) {
        self.next_seq += 1;
    }

    pub(crate) fn next_seq(&self) -> i32 {
        self.next_seq
    }
}

fn together(mut outputs: Vec<serde_json::Value>) -> serde_json::Value {
    if outputs.len() == 1 { outputs.remove(0) } else { serde_json::Value::Array(outputs) }
}

/// The two shapes a fenced write has.
pub(crate) enum Write<'a> {
    Rest(Rest),
    Finish { status: &'static str, output: Option<&'a serde_json::Value>, failure: Option<&'a Failure> },
}

impl Write<'_> {
    async fn execute(
        &self,
        conn: &mut sqlx::PgConnection,
        fence: Fence,
        pending: &[Pending],
        now: DateTime<Utc>,
    ) -> Result<Fenced, sqlx::Error> {
        match self {
            Write::Rest(rest) => commit::rest(conn, fence, pending, rest, now).await,
            Write::Finish { status, output, failure } => {
                commit::finish(conn, fence, pending, status, *output, *failure, now).await
            }
        }
    }
}

/// Why a write did not happen.
pub(crate) enum Unwritten {
    Cancelled(String),
    Exit(Exit),
}

impl Unwritten {
    fn database(error: sqlx::Error) -> Self {
        if is_outage(&error) {
            tracing::warn!(%error, "the database went away during a commit; the journal will tell what it kept");
            Unwritten::Exit(Exit::Outage)
        } else {
            Unwritten::Exit(Exit::Retry { step: "commit", error: error.to_string(), policy: RetryPolicy::default() })
        }
    }
}

/// A flow past its point of no return: the same verbs, and nothing to undo.
#[derive(Debug)]
pub struct Forward<'f>(pub(crate) &'f mut Flow);

impl Forward<'_> {
    /// As [`Flow::pool`].
    pub fn pool(&self) -> &sqlx::PgPool {
        self.0.pool()
    }

    /// As [`Flow::tx`]; a step that keeps failing parks the run.
    pub async fn tx<G: Steps>(&mut self, steps: G) -> Result<G::Output> {
        self.0.tx(steps).undo(crate::Nothing).await
    }

    /// As [`Flow::start`].
    pub async fn start<W: Workflow>(&mut self, start: Result<Start<W>>) -> Result<Uuid> {
        self.0.start(start).await
    }

    /// As [`Flow::checkpoint`].
    pub async fn checkpoint(&mut self) -> Result<()> {
        self.0.checkpoint().await
    }

    /// As [`Flow::call`]; one that keeps failing parks the run.
    pub async fn call<C: crate::Call>(&mut self, call: C) -> Result<C::Output> {
        self.0.call(call).undo(crate::Nothing).await
    }

    /// As [`Flow::sleep`].
    pub async fn sleep(&mut self, name: &'static str, duration: std::time::Duration) -> Result<()> {
        self.0.sleep(name, duration).await
    }

    /// As [`Flow::wait_for`].
    pub async fn wait_for<T: DeserializeOwned>(
        &mut self,
        signal: &str,
        timeout: std::time::Duration,
    ) -> Result<Option<T>> {
        self.0.wait_for(signal, timeout).await
    }
}
