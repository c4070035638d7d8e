//! One turn of a run: from a claim to the next rest.

mod leave;
mod unwind;

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::{
    Failure, Flow, Registry, RetryPolicy, RunStatus,
    claim::{self, Claimed, Claimer},
    cohort::Cohorts,
    commit::Write,
    error::{codes, panic_text},
    exit::{Exit, Unwritten},
    fault::Faults,
    fence::Fence,
    incarnation::Incarnation,
    means::Means,
    outside::Outside,
    pools::Own,
    registry::Erased,
    silence::heard,
    undo::Registered,
    work::Work,
};

/// How the engine behaves. Every field has a limit's default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Queues it serves; empty means all of its registry.
    pub queues: Vec<String>,
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
    /// Transactions that turns may have open at the same time: fewer than the pool has connections.
    pub transactions: usize,
    /// Transactions besides, and connections, for steps that are carried out for many runs at once; shared among
    /// the pools that serve the same queues, and one at least. The fewer, the more runs gather for each.
    pub sets: usize,
    /// The same for runs that must travel alone: those that a failed attempt or set makes suspicious.
    pub singles: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            queues: Vec::new(),
            fusion: true,
            lease: Duration::from_secs(8),
            beat: Duration::from_secs(2),
            crash_limit: 20,
            sweep: Duration::from_millis(250),
            calls_inside: 8,
            transactions: 16,
            sets: 2,
            singles: 4,
        }
    }
}

/// One process incarnation's engine: the flows it knows, the pool it works on, the name it claims under.
pub struct Engine {
    pub(crate) means: Arc<Means>,
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    incarnation: Incarnation,
    claimer: Claimer,
    pub(crate) lost: mpsc::UnboundedSender<Fence>,
    /// Moves when what is in hand is worth nothing any more.
    anew: watch::Sender<()>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("registry", &self.registry)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What a turn came to, for whoever watches.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Nothing to do: somebody alive has the run, it is parked, or it has ended.
    Idle,
    /// The run has ended with this status.
    Ended(RunStatus),
    /// It sleeps, backs off, or waits for somebody else.
    Resting,
}

/// A turn that was rolled back for another run's sake goes again, among so many at most.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) among: usize,
}

/// How far a turn has come.
pub(crate) type Came = Result<Turn, Again>;

impl Engine {
    /// An engine for this process. Must be called inside a Tokio runtime.
    pub async fn new(
        pool: PgPool,
        registry: Registry,
        settings: Settings,
        name: &str,
    ) -> Result<Arc<Self>, sqlx::Error> {
        Engine::with_faults(pool, registry, settings, name, None, 1).await
    }

    pub(crate) async fn with_faults(
        pool: PgPool,
        registry: Registry,
        settings: Settings,
        name: &str,
        faults: Option<Arc<dyn Faults>>,
        gathers: usize,
    ) -> Result<Arc<Self>, sqlx::Error> {
        let queues = match settings.queues.as_slice() {
            [] => registry.queues().iter().map(|queue| (*queue).to_owned()).collect(),
            served => served.to_vec(),
        };
        let incarnation = Incarnation::register(&pool, name, queues).await?;
        let (lost, found) = mpsc::unbounded_channel();
        tokio::spawn(leave::give_back(pool.clone(), found));
        let outside = Outside::new(settings.calls_inside);
        let places = Arc::new(Semaphore::new(settings.transactions.clamp(1, Semaphore::MAX_PERMITS)));
        let claimer = Claimer::new(pool.clone(), Arc::clone(&places), incarnation.clone(), settings.lease);
        let means = Arc::new(Means {
            pool,
            places,
            cohorts: Cohorts::new(settings.sets, gathers, Own::in_company),
            singles: Cohorts::new(settings.singles, 1, Own::like),
            fusion: settings.fusion,
            rehearses: false,
            faults,
            outside,
        });
        Ok(Arc::new(Engine { means, registry, settings, incarnation, claimer, lost, anew: watch::Sender::new(()) }))
    }

    /// Beats once, and looks whether the database is still the one this process has worked on. After a
    /// failover or a restore it may have forgotten commits that this process remembers: then all that is in
    /// hand is dropped, and claimed anew by whoever comes first.
    pub async fn beat(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        if self.incarnation.is_on_another_history(pool).await {
            tracing::warn!(worker = %self.incarnation.id(), "the database has another history; dropping what is in hand");
            metrics::counter!("cart_engine_histories_changed_total").increment(1);
            self.anew.send_replace(());
            self.incarnation.begin_anew(pool).await?;
        }
        let pools = self.incarnation.beat(pool, self.settings.lease).await?;
        self.means.cohorts.share(pools);
        Ok(())
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
        &self.means.pool
    }

    /// Answers a ticket: claims the run and carries it as far as it goes. Errors are the database's.
    pub async fn resume(self: &Arc<Self>, run_id: Uuid) -> Result<Turn, Arc<sqlx::Error>> {
        let mut anew = self.anew.subscribe();
        let Some((mut claimed, _held)) = self.claimer.claim(run_id).await? else { return Ok(Turn::Idle) };
        let workflow = claimed.workflow.clone();
        let turn = loop {
            let fence = Fence::of(&claimed);
            let turn = tokio::select! {
                biased;
                turn = self.turn(claimed) => turn,
                // Dropped wherever it stands, as by a crash.
                _ = anew.changed() => Ok(Turn::Resting),
            };
            let Again { among } = match turn {
                Ok(turn) => break turn,
                Err(again) => again,
            };
            // From its journal, as if it had just been claimed.
            claimed = match heard(claim::again(&self.means.pool, fence)).await {
                Ok(Some(claimed)) => Claimed { among, ..claimed },
                gone => {
                    if gone.is_ok() {
                        // Somebody else has it: what was rolled back was a late write.
                        fence.note_refusal();
                    }
                    let _ = self.lost.send(fence);
                    break Turn::Resting;
                }
            };
        };
        if let Turn::Ended(status) = turn {
            metrics::counter!("cart_engine_runs_ended_total", "workflow" => workflow, "status" => status.as_str())
                .increment(1);
        }
        Ok(turn)
    }

    async fn turn(self: &Arc<Self>, claimed: Claimed) -> Came {
        let Some(code) = self.registry.get(&claimed.workflow, claimed.version) else {
            return self.give_back_unknown(&claimed).await;
        };
        let input = claimed.input.clone();
        let (fence, clock) = (Fence::of(&claimed), claimed.clock);
        let (exit, left) = oneshot::channel();
        let mut flow = match Flow::new(Arc::clone(&self.means), claimed, code.queue(), exit) {
            Ok(flow) => flow,
            Err(failure) => return self.park(fence, failure, &[], clock.now()).await,
        };
        let run = &flow.work.run;
        if run.crashes >= self.settings.crash_limit {
            let failure = Failure::new(codes::CRASH_LIMIT, format!("{} workers died carrying this run", run.crashes));
            if flow.work.is_forward() || run.status == RunStatus::Compensating {
                return self.after(flow.work, flow.undos, Exit::Stuck(failure)).await;
            }
            // Written down before anything is tried: should the unwinding kill its worker too, the run parks.
            if let Err(exit) = flow.work.give_up(&failure, true).await {
                return self.after(flow.work, flow.undos, exit).await;
            }
        }
        let played = play(&*code, &mut flow, left, input).await;
        let Flow { work, undos, failure, begun, .. } = flow;
        match played {
            Played::Output(output) if failure.is_none() && work.run.failure.is_none() => {
                self.complete(work, undos, output).await
            }
            // A flow that swallowed a failure still unwinds: the journal says it failed. So does one that
            // has begun to, even if it answers everything from the journal.
            Played::Output(_) => {
                let failure = failure.unwrap_or_else(|| Failure::new(codes::FAILED, "the flow gave up"));
                self.unwind(work, undos, failure).await
            }
            Played::Failed(failure) => self.unwind(work, undos, failure).await,
            Played::Panicked(error) => self.panicked(work, undos, begun, error).await,
            Played::Left(exit) => self.after(work, undos, exit).await,
        }
    }

    async fn panicked(self: &Arc<Self>, mut work: Work, undos: Vec<Registered>, begun: bool, error: String) -> Came {
        tracing::error!(run = %work.run.id, %error, "a flow panicked");
        if !begun {
            // It never said what its accepting transaction would be taken back by.
            return self.after(work, undos, Exit::Stuck(Failure::new(codes::PANICKED, error))).await;
        }
        let policy = RetryPolicy::default();
        if work.failed() < policy.max_attempts {
            return self.after(work, undos, Exit::Retry { step: "flow", error, policy }).await;
        }
        work.roll_back();
        self.unwind(work, undos, Failure::new(codes::PANICKED, error)).await
    }

    async fn complete(self: &Arc<Self>, mut work: Work, undos: Vec<Registered>, output: Value) -> Came {
        let settles = !work.run.forward_only;
        let write = Write::Finish { status: RunStatus::Completed, output: Some(output), failure: None };
        match work.write(write, settles).await {
            Ok(()) => Ok(Turn::Ended(RunStatus::Completed)),
            Err(Unwritten::Cancelled(why)) => self.unwind(work, undos, Failure::cancelled(&why)).await,
            Err(Unwritten::Exit(exit)) => self.after(work, undos, exit).await,
        }
    }
}

/// How the function of a flow came to its end.
pub(crate) enum Played {
    Output(Value),
    Failed(Failure),
    Panicked(String),
    Left(Exit),
}

/// Carries the function of a flow from its first line as far as it goes. One that ends, fails or panics
/// before it has met its whole journal is not the program that wrote it, and what it has not met it would
/// not take back: that is never an end, it parks the run.
pub(crate) async fn play(code: &dyn Erased, flow: &mut Flow, left: oneshot::Receiver<Exit>, input: Value) -> Played {
    let ended = {
        let body = AssertUnwindSafe(code.run(flow, input)).catch_unwind();
        tokio::select! {
            biased;
            ended = body => ended,
            exit = left => return Played::Left(exit.unwrap_or(Exit::Outage)),
        }
    };
    let (played, how) = match ended {
        Ok(Ok(output)) => (Played::Output(output), "ended".to_owned()),
        Ok(Err(failure)) => {
            let how = format!("failed ({failure})");
            (Played::Failed(failure), how)
        }
        Err(panic) => {
            let error = format!("panicked: {}", panic_text(&*panic));
            (Played::Panicked(error.clone()), error)
        }
    };
    match flow.cursor.unread() {
        0 => played,
        unread => {
            let detail = format!("the flow {how} with {unread} journal entries unread");
            Played::Left(Exit::Stuck(Failure::new(codes::JOURNAL_DIVERGED, detail)))
        }
    }
}
