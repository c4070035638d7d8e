//! One turn of a run: from a claim to the next rest.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    Failure, Flow, Registry, RetryPolicy, StepError, Tx,
    claim::{Claimed, Claimer, Incarnation},
    commit::{self, Fence, Fenced, Rest},
    error::legible,
    fault::{Fault, Faults, Point},
    flow::{Unwritten, Write},
    journal::{Kind, Pending},
    outside::Outside,
    retry,
    silence::heard,
};

/// How the engine behaves. Every field has a limit's default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Adjacent `tx` steps share a commit.
    pub fusion: bool,
    /// An incarnation that has not beaten for so long is dead.
    pub lease: Duration,
    /// How often an incarnation beats.
    pub beat: Duration,
    /// Owners that may die holding a run before it unwinds (past the point of no return: parks).
    pub crash_limit: i32,
    /// How often the sweep looks for due runs and dead workers.
    pub sweep: Duration,
    /// Calls of one queue's runs that may be inside one dependency at the same time: less than the
    /// turns of a queue, so that a silent one never takes them all.
    pub calls_inside: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            fusion: true,
            lease: Duration::from_secs(8),
            beat: Duration::from_secs(2),
            crash_limit: 20,
            sweep: Duration::from_millis(250),
            calls_inside: 8,
        }
    }
}

/// One process incarnation's engine: the flows it knows, the pool it works on, the name it claims under.
pub struct Engine {
    pub(crate) pool: PgPool,
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    pub(crate) faults: Option<Arc<dyn Faults>>,
    pub(crate) outside: Arc<Outside>,
    incarnation: Incarnation,
    claimer: Claimer,
    lost: mpsc::UnboundedSender<Fence>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("registry", &self.registry)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How a turn ended before the flow did.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Asleep; everything is committed.
    Resting,
    /// An attempt failed.
    Retry { step: &'static str, error: String, policy: RetryPolicy },
    /// A call has to wait. Nothing has failed.
    PutOff { step: &'static str, why: String, until: DateTime<Utc> },
    /// Somebody else has the run.
    Refused,
    /// The database is away; what this turn held must be given back when it returns.
    Outage,
    /// A test has killed this turn.
    Crashed,
    /// An operator must look.
    Stuck(Failure),
}

/// What a turn came to, for whoever watches.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Nothing to do: somebody alive has the run, it is parked, or it has ended.
    Idle,
    /// The run has ended with this status.
    Ended(&'static str),
    /// It sleeps, backs off, or waits for somebody else.
    Resting,
}

impl Engine {
    /// An engine for this process. Must be called inside a Tokio runtime.
    pub async fn new(
        pool: PgPool,
        registry: Registry,
        settings: Settings,
        name: &str,
    ) -> Result<Arc<Self>, sqlx::Error> {
        Engine::with_faults(pool, registry, settings, name, None).await
    }

    pub(crate) async fn with_faults(
        pool: PgPool,
        registry: Registry,
        settings: Settings,
        name: &str,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<Arc<Self>, sqlx::Error> {
        let queues: Vec<String> = registry.queues().iter().map(|queue| (*queue).to_owned()).collect();
        let incarnation = Incarnation::register(&pool, name, &queues).await?;
        let claimer = Claimer::new(pool.clone(), incarnation.clone(), settings.lease);
        let (lost, found) = mpsc::unbounded_channel();
        tokio::spawn(give_back(pool.clone(), found));
        let outside = Outside::new(settings.calls_inside);
        Ok(Arc::new(Engine { pool, registry, settings, faults, outside, incarnation, claimer, lost }))
    }

    /// The incarnation this engine claims under.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// The settings it runs with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pool it works on.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Answers a ticket: claims the run and carries it as far as it goes. Errors are the database's.
    pub async fn resume(self: &Arc<Self>, run_id: Uuid) -> Result<Turn, Arc<sqlx::Error>> {
        match self.claimer.claim(run_id).await? {
            None => Ok(Turn::Idle),
            Some((claimed, _held)) => {
                let workflow = claimed.workflow.clone();
                let turn = self.turn(claimed).await;
                if let Turn::Ended(status) = turn {
                    metrics::counter!("cart_engine_runs_ended_total", "workflow" => workflow, "status" => status)
                        .increment(1);
                }
                Ok(turn)
            }
        }
    }

    async fn turn(self: &Arc<Self>, claimed: Claimed) -> Turn {
        let Some(code) = self.registry.get(&claimed.workflow, claimed.version) else {
            // Another worker of the pool may know it: give it back, slowly.
            let wait = Duration::from_secs(5);
            let fence = Fence { run_id: claimed.id, epoch: claimed.epoch };
            let rest = Rest::Retrying {
                attempt: claimed.attempt,
                wake_at: claimed.clock.now() + wait,
                failure: claimed.failure,
            };
            tracing::warn!(run = %claimed.id, workflow = %claimed.workflow, "this worker does not know the workflow");
            self.leave_at(fence, rest, &[], claimed.clock.now()).await;
            return Turn::Resting;
        };
        let input = claimed.input.clone();
        let crashed_often = claimed.crashes >= self.settings.crash_limit;
        let (exit, left) = oneshot::channel();
        let mut flow = Flow::new(Arc::clone(self), claimed, code.queue(), exit);
        if crashed_often {
            let failure = Failure::new("crash-limit", format!("{} workers died carrying this run", flow.run.crashes));
            if flow.forward || flow.run.status == "COMPENSATING" {
                return self.after(flow, Exit::Stuck(failure)).await;
            }
            // Written down before anything is tried: should the unwinding kill its worker too, the run parks.
            if let Err(exit) = flow.give_up(&failure, true).await {
                return self.after(flow, exit).await;
            }
        }
        let outcome = {
            let body = AssertUnwindSafe(code.run(&mut flow, input)).catch_unwind();
            tokio::select! {
                biased;
                ended = body => Ok(ended),
                exit = left => Err(exit.unwrap_or(Exit::Outage)),
            }
        };
        match outcome {
            Ok(Ok(Ok(output))) if flow.failure.is_none() && flow.run.failure.is_none() => {
                self.complete(flow, output).await
            }
            // A flow that swallowed a failure still unwinds: the journal says it failed. So does one that
            // has begun to, even if it answers everything from the journal.
            Ok(Ok(Ok(_))) => {
                let failure = flow.failure.clone().unwrap_or_else(|| Failure::new("failed", "the flow gave up"));
                self.unwind(flow, failure).await
            }
            Ok(Ok(Err(failure))) => self.unwind(flow, failure).await,
            Ok(Err(panic)) => {
                let error = format!("panicked: {}", panic_text(&*panic));
                tracing::error!(run = %flow.run.id, %error, "a flow panicked");
                let policy = RetryPolicy::default();
                let failed = u32::try_from(flow.run.attempt).unwrap_or(u32::MAX).saturating_add(1);
                if failed < policy.max_attempts {
                    self.after(flow, Exit::Retry { step: "flow", error, policy }).await
                } else {
                    flow.roll_back();
                    self.unwind(flow, Failure::new("panicked", error)).await
                }
            }
            Err(exit) => self.after(flow, exit).await,
        }
    }

    async fn complete(self: &Arc<Self>, mut flow: Flow, output: serde_json::Value) -> Turn {
        if !flow.replay.entries.is_empty() {
            let left = flow.replay.entries.len();
            let failure =
                Failure::new("journal-diverged", format!("the flow ended with {left} journal entries unread"));
            return self.after(flow, Exit::Stuck(failure)).await;
        }
        let settles = !flow.run.forward_only;
        let write = Write::Finish { status: "COMPLETED", output: Some(&output), failure: None };
        match flow.write(write, settles).await {
            Ok(()) => Turn::Ended("COMPLETED"),
            Err(Unwritten::Cancelled(why)) => {
                let failure = flow.fail(Failure::cancelled(&why));
                self.unwind(flow, failure).await
            }
            Err(Unwritten::Exit(exit)) => self.after(flow, exit).await,
        }
    }

    /// Runs the undos of what was committed, in reverse, then ends the run. All in one commit unless
    /// an attempt has failed: then one by one, so that what can be undone is.
    async fn unwind(self: &Arc<Self>, mut flow: Flow, failure: Failure) -> Turn {
        flow.roll_back();
        if flow.run.forward_only {
            return self.after(flow, Exit::Stuck(failure)).await;
        }
        // Cancelling a run that unwinds changes nothing; failing twice keeps the first reason.
        let failure = flow.run.failure.clone().unwrap_or(failure);
        let at_once = !flow.fused;
        if let Err(exit) = flow.give_up(&failure, at_once).await {
            return self.after(flow, exit).await;
        }
        let undos: Vec<_> = std::mem::take(&mut flow.undos)
            .into_iter()
            .rev()
            .filter(|u| !flow.replay.undone.contains(&u.seq))
            .collect();
        for undo in undos {
            if let Err(exit) = self.undo_one(&mut flow, &undo, &failure).await {
                return self.after(flow, exit).await;
            }
        }
        let status = if failure.is_cancelled() { "CANCELLED" } else { "FAILED" };
        match flow.write(Write::Finish { status, output: None, failure: Some(&failure) }, false).await {
            Ok(()) => Turn::Ended(status),
            Err(Unwritten::Cancelled(_)) => Turn::Resting,
            Err(Unwritten::Exit(exit)) => self.after(flow, exit).await,
        }
    }

    async fn undo_one(
        self: &Arc<Self>,
        flow: &mut Flow,
        undo: &crate::undo::Registered,
        failure: &Failure,
    ) -> Result<(), Exit> {
        let fault = |point| self.faults.as_deref().and_then(|faults| faults.at(point, undo.name));
        let mut times = 1;
        match fault(Point::Before) {
            None => {}
            Some(Fault::Crash) => return Err(Exit::Crashed),
            Some(Fault::Fail(failure)) => return Err(Exit::Stuck(failure)),
            Some(Fault::Retry) => {
                return Err(Exit::Retry { step: undo.name, error: "injected".into(), policy: RetryPolicy::default() });
            }
            Some(Fault::Twice) => times = 2,
        }
        if flow.tx.is_none() {
            flow.tx = Some(self.pool.begin().await.map_err(|_| Exit::Outage)?);
        }
        let (run_id, now) = (flow.run.id, flow.now());
        for time in 1..=times {
            let Some(transaction) = flow.tx.as_mut() else { return Err(Exit::Outage) };
            let savepoint = |sql: &'static str| sqlx::query(sql);
            if time < times {
                savepoint("savepoint first").execute(&mut **transaction).await.map_err(|_| Exit::Outage)?;
            }
            let mut tx = Tx { conn: &mut *transaction, run_id, now, failure: Some(failure) };
            // A panic here is a failed attempt: this worker lives, so nobody else would take the run.
            let done = AssertUnwindSafe(undo.undo.undo(&mut tx, undo.output.clone())).catch_unwind().await;
            match done
                .unwrap_or_else(|panic| Err(StepError::Retry(format!("panicked: {}", panic_text(&*panic)).into())))
            {
                Ok(()) => {}
                Err(error) if error.is_outage() => return Err(Exit::Outage),
                Err(StepError::Terminal(why)) => {
                    return Err(Exit::Stuck(
                        failure.clone().with(serde_json::json!({ "undo": undo.name, "error": why })),
                    ));
                }
                Err(
                    error @ (StepError::Retry(_)
                    | StepError::Unknown(_)
                    | StepError::NotYet { .. }
                    | StepError::Busy { .. }),
                ) => {
                    let policy = RetryPolicy::default();
                    return Err(Exit::Retry { step: undo.name, error: error.to_string(), policy });
                }
            }
            if time < times {
                savepoint("rollback to savepoint first").execute(&mut **transaction).await.map_err(|_| Exit::Outage)?;
            }
        }
        if let Some(Fault::Crash) = fault(Point::After) {
            return Err(Exit::Crashed);
        }
        // Infallible: it only pushes.
        let _ = flow.journal(Kind::Undo, undo.name, Some(serde_json::json!({ "undoes": undo.seq }))).await;
        if !flow.fused {
            flow.write_onward(Rest::Compensating { failure: failure.clone() }).await?;
        }
        Ok(())
    }

    /// Leaves the run the way its exit says.
    async fn after(self: &Arc<Self>, mut flow: Flow, exit: Exit) -> Turn {
        let fence = Fence { run_id: flow.run.id, epoch: flow.run.epoch };
        let now = flow.now();
        match exit {
            Exit::Resting | Exit::Refused | Exit::Crashed => {}
            Exit::Outage => {
                flow.tx = None;
                let _ = self.lost.send(fence);
            }
            Exit::Retry { step, error, policy } => {
                flow.roll_back();
                let attempt = flow.run.attempt.saturating_add(1);
                let failed = u32::try_from(attempt).unwrap_or(1);
                if failed >= policy.max_attempts {
                    let failure = Failure::new("step-failed", format!("{step} failed {failed} times: {error}"));
                    let parks = flow.run.forward_only || flow.run.status == "COMPENSATING";
                    return if parks {
                        Box::pin(self.after(flow, Exit::Stuck(failure))).await
                    } else {
                        Box::pin(self.unwind(flow, failure)).await
                    };
                }
                tracing::info!(run = %fence.run_id, step, attempt, %error, "attempt failed; will be tried again");
                let wake_at = now + policy.delay(failed, rand::random());
                let mut entries = std::mem::take(&mut flow.pending);
                if retry::is_journalled(failed) {
                    entries.push(Pending {
                        seq: flow.next_seq(),
                        kind: Kind::Attempt,
                        name: step.to_owned(),
                        output: None,
                        error: Some(serde_json::json!({ "attempt": attempt, "error": legible(error) })),
                    });
                }
                let failure = (flow.run.status == "COMPENSATING").then(|| flow.run.failure.clone()).flatten();
                self.leave_at(fence, Rest::Retrying { attempt, wake_at, failure }, &entries, now).await;
            }
            Exit::PutOff { step, why, until } => {
                flow.roll_back();
                tracing::debug!(run = %fence.run_id, step, why, %until, "put off");
                let rest = Rest::Retrying { attempt: flow.run.attempt, wake_at: until, failure: None };
                let entries = std::mem::take(&mut flow.pending);
                self.leave_at(fence, rest, &entries, now).await;
            }
            Exit::Stuck(failure) => {
                flow.roll_back();
                tracing::error!(run = %fence.run_id, %failure, "parked: an operator must look");
                metrics::counter!("cart_engine_runs_stuck_total").increment(1);
                let entries = std::mem::take(&mut flow.pending);
                self.leave_at(fence, Rest::Stuck { failure }, &entries, now).await;
            }
        }
        Turn::Resting
    }

    async fn leave_at(&self, fence: Fence, rest: Rest, entries: &[Pending], now: DateTime<Utc>) {
        let written = async {
            let mut conn = self.pool.acquire().await?;
            commit::rest(&mut conn, fence, entries, &rest, now).await
        };
        match heard(written).await {
            Ok(Fenced::Written { .. }) => {}
            Ok(Fenced::Refused) => fence.note_refusal(),
            Err(error) => {
                tracing::warn!(run = %fence.run_id, %error, "could not be left in order; will be given back");
                let _ = self.lost.send(fence);
            }
        }
    }
}

impl Flow {
    /// From here on the run takes back what it did. Says so in the journal, once, and `at_once` in its row.
    async fn give_up(&mut self, failure: &Failure, at_once: bool) -> Result<(), Exit> {
        if self.run.status == "COMPENSATING" {
            return Ok(());
        }
        self.run.status = "COMPENSATING".to_owned();
        self.run.failure = Some(failure.clone());
        let error = serde_json::to_value(failure).unwrap_or_default();
        let (seq, name) = (self.next_seq(), failure.code.clone());
        self.pending.push(Pending { seq, kind: Kind::Failed, name, output: None, error: Some(error) });
        self.count_pending();
        if at_once { self.write_onward(Rest::Compensating { failure: failure.clone() }).await } else { Ok(()) }
    }

    pub(crate) async fn write_onward(&mut self, rest: Rest) -> Result<(), Exit> {
        match self.write(Write::Rest(rest), false).await {
            Ok(()) => Ok(()),
            Err(Unwritten::Cancelled(_)) => Err(Exit::Refused),
            Err(Unwritten::Exit(exit)) => Err(exit),
        }
    }
}

/// Gives back the runs an outage tore out of this process' hands, once the database is there again.
/// Until then the runs wait; this process is alive, so nobody else may take them.
async fn give_back(pool: PgPool, mut lost: mpsc::UnboundedReceiver<Fence>) {
    let mut held: Vec<Fence> = Vec::new();
    loop {
        if held.is_empty() {
            match lost.recv().await {
                Some(fence) => held.push(fence),
                None => return,
            }
        }
        while let Ok(fence) = lost.try_recv() {
            held.push(fence);
        }
        let mut kept = Vec::new();
        for fence in held {
            let released = async {
                let mut conn = pool.acquire().await?;
                commit::rest(&mut conn, fence, &[], &Rest::Released, crate::sweep::engine_now(&pool).await?).await
            };
            if heard(released).await.is_err() {
                kept.push(fence);
            }
        }
        held = kept;
        if !held.is_empty() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
