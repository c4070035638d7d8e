//! The verbs a flow is written with.

use std::{collections::HashMap, fmt, marker::PhantomData, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

use crate::{
    Failure, Forward, Result, RetryPolicy, Undo,
    claim::Claimed,
    cohort::{Cohorts, Lane},
    error::codes,
    fault::{Fault, Faults, Point, label},
    group::{Carried, Halt, Steps, decode_one},
    journal::{Entry, Kind, Pending, Replay, unreadable},
    outside::Outside,
    payload::{encode, rough_size},
    registry::Workflow,
    seat::Seat,
    silence::heard,
    start::Start,
    turn::Exit,
    undo::Registered,
};

/// What every flow of a process works with.
pub(crate) struct Means {
    pub(crate) pool: PgPool,
    /// One for each transaction that flows may have open at once. Who waits for one waits for others'
    /// statements, not for a database that may be away: that shows at the pool.
    pub(crate) places: Arc<Semaphore>,
    /// Where runs wait that share one, and where those that must not.
    pub(crate) cohorts: Cohorts,
    pub(crate) singles: Cohorts,
    /// Adjacent `tx` steps share a commit.
    pub(crate) fusion: bool,
    /// Journals are only read: a flow goes no further than its own.
    pub(crate) rehearses: bool,
    pub(crate) faults: Option<Arc<dyn Faults>>,
    pub(crate) outside: Arc<Outside>,
}

/// An open transaction, and its place.
pub(crate) struct Open {
    pub(crate) tx: Transaction<'static, Postgres>,
    _place: OwnedSemaphorePermit,
}

impl Open {
    pub(crate) async fn commit(self) -> std::result::Result<(), sqlx::Error> {
        heard(self.tx.commit()).await
    }
}

impl Means {
    pub(crate) fn lane(&self, lane: Lane) -> &Cohorts {
        match lane {
            Lane::Together => &self.cohorts,
            Lane::Alone => &self.singles,
        }
    }

    /// Begins a transaction once there is a place for it.
    pub(crate) async fn begin(&self) -> std::result::Result<Open, sqlx::Error> {
        let place = self.place().await?;
        Ok(Open { tx: heard(self.pool.begin()).await?, _place: place })
    }

    /// The same for a single statement.
    pub(crate) async fn place(&self) -> std::result::Result<OwnedSemaphorePermit, sqlx::Error> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)
    }

    pub(crate) fn fault(&self, point: Point, step: &str) -> Option<Fault> {
        self.faults.as_deref()?.at(point, step)
    }
}

/// A run being carried out. Its verbs journal what they did; on a replay they answer from the journal.
///
/// A step's terminal failure always unwinds the run: an outcome a flow wants to branch on is a value.
pub struct Flow {
    pub(crate) means: Arc<Means>,
    pub(crate) run: Claimed,
    pub(crate) replay: Replay,
    /// Opened by the first `tx` after a commit, closed by the next commit.
    pub(crate) tx: Option<Open>,
    /// The same for steps that are carried out for many; never both.
    pub(crate) seat: Option<Seat>,
    /// What it was started with, in bytes, roughly.
    pub(crate) weight: usize,
    pub(crate) pending: Vec<Pending>,
    pub(crate) starts: Vec<Start<()>>,
    pub(crate) undos: Vec<Registered>,
    pub(crate) next_seq: i32,
    pub(crate) committed_seq: i32,
    pub(crate) occurrences: HashMap<&'static str, u32>,
    pub(crate) failure: Option<Failure>,
    /// Past the point of no return, as far as this turn has come; the row says so once it commits.
    pub(crate) forward: bool,
    pub(crate) cancel: Option<String>,
    /// Adjacent `tx` share a commit; off after a failed attempt, so that what works gets done.
    pub(crate) fused: bool,
    /// Whose slots this run's turns take.
    pub(crate) queue: &'static str,
    /// The flow has come as far as its first verb.
    pub(crate) begun: bool,
    pub(crate) exit: Option<oneshot::Sender<Exit>>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("id", &self.run.id).field("next_seq", &self.next_seq).finish_non_exhaustive()
    }
}

/// A step waiting to be told what undoes it.
#[must_use = "a step does nothing until it is told what undoes it: `.undo(..)`, or `.undo(Nothing)`"]
pub struct Stepping<'f, G, K> {
    flow: &'f mut Flow,
    steps: G,
    marker: PhantomData<fn() -> K>,
}

impl<G, K> fmt::Debug for Stepping<'_, G, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stepping")
    }
}

impl<K, G: Steps<K>> Stepping<'_, G, K> {
    /// Carries the step out, and registers what takes it back should the run fail later.
    pub async fn undo<U: Undo<G::Output>>(self, undo: U) -> Result<G::Output> {
        let Stepping { flow, steps, .. } = self;
        let output =
            flow.carry_out(steps, Kind::Tx, |seq, output| Registered::new::<G::Output, U>(seq, undo, output)).await?;
        flow.after_tx().await?;
        Ok(output)
    }
}

impl Flow {
    /// # Errors
    /// A journal that this program cannot read.
    pub(crate) fn new(
        means: Arc<Means>,
        mut run: Claimed,
        queue: &'static str,
        exit: oneshot::Sender<Exit>,
    ) -> std::result::Result<Self, Failure> {
        if let Some(unreadable) = run.unreadable.take() {
            return Err(unreadable);
        }
        let run_id = run.id;
        let replay = Replay::new(std::mem::take(&mut run.journal), |entry| {
            !matches!(means.fault(Point::Replay, &entry_label(run_id, entry)), Some(Fault::Unreadable | Fault::Panic))
        })?;
        Ok(Flow {
            next_seq: replay.next_seq,
            committed_seq: replay.next_seq,
            fused: means.fusion && run.attempt == 0,
            forward: run.forward_only,
            cancel: run.cancel_requested.clone(),
            means,
            replay,
            weight: rough_size(&run.input),
            run,
            tx: None,
            seat: None,
            pending: Vec::new(),
            starts: Vec::new(),
            undos: Vec::new(),
            occurrences: HashMap::new(),
            failure: None,
            queue,
            begun: false,
            exit: Some(exit),
        })
    }

    /// The run's id.
    pub fn id(&self) -> Uuid {
        self.run.id
    }

    /// The engine's pool, for calls that keep notes of their own.
    pub fn pool(&self) -> &sqlx::PgPool {
        &self.means.pool
    }

    /// When the run was started, on the engine's clock.
    pub fn started_at(&self) -> DateTime<Utc> {
        self.run.created_at
    }

    /// Registers what takes back the work of the transaction that started the run: it is the first
    /// thing that happened, so it is undone last, and whatever else never committed.
    pub fn accepted<U: Undo<()>>(&mut self, undo: U) {
        self.begun = true;
        self.undos.extend(Registered::new::<(), U>(-1, undo, &serde_json::Value::Null));
    }

    /// One step, or a tuple that commits together: SQL and journal in one commit. Adjacent ones may
    /// share a commit; if one fails before it, those never happened.
    pub fn tx<K, G: Steps<K>>(&mut self, steps: G) -> Stepping<'_, G, K> {
        Stepping { flow: self, steps, marker: PhantomData }
    }

    /// A `tx` after which the run only goes forward: once it commits nothing is undone, and a step
    /// that keeps failing parks the run. If it fails, the run unwinds.
    pub async fn point_of_no_return<K, G: Steps<K>>(&mut self, steps: G) -> Result<Forward<'_>> {
        self.carry_out(steps, Kind::NoReturn, |_, _| None).await?;
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
        if let Some(value) = self.recall(Kind::Value, name).await {
            return Ok(value);
        }
        let value = read();
        match encode(name, &value) {
            Ok(json) => self.journal(Kind::Value, name, Some(json)),
            Err(failure) => return Err(self.fail(failure)),
        }
        Ok(value)
    }

    /// Starts a child with its own history; it exists once this run's next commit has happened.
    pub async fn start<W: Workflow>(&mut self, start: Result<Start<W>>) -> Result<Uuid> {
        self.safe_point().await?;
        if let Some(run_id) = self.recall(Kind::Start, W::NAME).await {
            return Ok(run_id);
        }
        let start = match start {
            Ok(start) => start.child_of(self.run.id),
            Err(failure) => return Err(self.fail(failure)),
        };
        let run_id = start.run_id;
        self.journal(Kind::Start, W::NAME, Some(serde_json::json!(run_id)));
        self.starts.push(start.untyped());
        Ok(run_id)
    }

    // --- what the verbs share ---

    /// Runs the steps, or reads what they returned, and registers what takes them back: it is told the
    /// position of the last one, by which the undo is known on every replay, and what they returned.
    async fn carry_out<K, G: Steps<K>>(
        &mut self,
        steps: G,
        kind: Kind,
        undo: impl FnOnce(i32, &serde_json::Value) -> Option<Registered> + Send,
    ) -> Result<G::Output> {
        self.safe_point().await?;
        let names = G::names();
        let mut recorded = Vec::with_capacity(names.len());
        for name in &names {
            match self.entry(recorded.len(), kind, name).await {
                Some(entry) => recorded.push(entry),
                None => break,
            }
        }
        if recorded.is_empty() {
            return self.carry_out_now(steps, kind, undo).await;
        }
        if recorded.len() < names.len() {
            // Steps of one group share a commit, so half a group is another program's journal.
            self.diverged::<()>(names.last().copied().unwrap_or_default(), "half a group").await;
        }
        let seq = recorded.last().map_or(0, |entry| entry.seq);
        let mut outputs = Vec::with_capacity(recorded.len());
        for entry in recorded {
            self.heed(&entry).await;
            outputs.push(entry.output.unwrap_or_default());
        }
        let json = together(outputs.clone());
        let failure = match G::decode(outputs) {
            Ok(output) => {
                self.undos.extend(undo(seq, &json));
                self.replay.met(names.len());
                return Ok(output);
            }
            Err(failure) => failure,
        };
        self.leave(Exit::Stuck(failure)).await
    }

    async fn carry_out_now<K, G: Steps<K>>(
        &mut self,
        steps: G,
        kind: Kind,
        undo: impl FnOnce(i32, &serde_json::Value) -> Option<Registered> + Send,
    ) -> Result<G::Output> {
        match steps.carry_out(self).await {
            Ok(Carried { output, entries }) => {
                let mut outputs = Vec::with_capacity(entries.len());
                for (name, json) in entries {
                    outputs.push(json.clone());
                    self.journal(kind, name, Some(json));
                }
                self.undos.extend(undo(self.next_seq - 1, &together(outputs)));
                Ok(output)
            }
            Err(halt) => self.halted(halt).await,
        }
    }

    /// What becomes of a run whose steps did not come to their end.
    pub(crate) async fn halted<T>(&mut self, halt: Halt) -> Result<T> {
        match halt {
            Halt::Failed(name, error) => self.step_failed(name, error, &RetryPolicy::default()).await,
            Halt::Crash => self.leave(Exit::Crashed).await,
            Halt::Again(among) => self.leave(self.again(among)).await,
            Halt::Outage => self.leave(Exit::Outage).await,
            Halt::Fails(failure) => Err(failure),
            Halt::Leaves(exit) => self.leave(exit).await,
        }
    }

    // --- reading the journal: what cannot be read parks the run, and stays unread ---

    /// The entry so many after those that were met, if the replay has one; it must be this one. It is met
    /// once its output was read and its undo registered, and whoever reads it says so.
    pub(crate) async fn entry(&mut self, ahead: usize, kind: Kind, name: &str) -> Option<Entry> {
        let found = match self.replay.peek(ahead) {
            None => return None,
            Some(entry) if entry.kind == kind && entry.name == name => return Some(entry.clone()),
            Some(entry) => format!("{} {}", entry.kind.as_str(), entry.name),
        };
        self.diverged(name, &found).await
    }

    /// What a verb without an undo returned then, if the journal says.
    pub(crate) async fn recall<T: DeserializeOwned>(&mut self, kind: Kind, name: &str) -> Option<T> {
        let entry = self.entry(0, kind, name).await?;
        let answer = self.read(&entry).await;
        self.replay.met(1);
        Some(answer)
    }

    /// What an entry holds.
    pub(crate) async fn read<T: DeserializeOwned>(&mut self, entry: &Entry) -> T {
        self.heed(entry).await;
        let failure = match decode_one(&entry.name, entry.output.clone().unwrap_or_default()) {
            Ok(answer) => return answer,
            Err(failure) => failure,
        };
        self.leave(Exit::Stuck(failure)).await
    }

    /// What the run was started with.
    pub(crate) async fn input<T: DeserializeOwned>(&mut self, workflow: &str, input: serde_json::Value) -> T {
        let why = match self.injected(&label(self.run.id, "INPUT")) {
            Some(why) => why.to_owned(),
            None => match serde_json::from_value(input) {
                Ok(input) => return input,
                Err(error) => error.to_string(),
            },
        };
        self.leave(Exit::Stuck(Failure::new(codes::INPUT_UNREADABLE, format!("{workflow}: {why}")))).await
    }

    /// Where a test makes an entry unreadable.
    pub(crate) async fn heed(&mut self, entry: &Entry) {
        if let Some(why) = self.injected(&entry_label(self.run.id, entry)) {
            self.leave(Exit::Stuck(unreadable(&entry.name, why))).await
        }
    }

    fn injected(&self, label: &str) -> Option<&'static str> {
        match self.means.fault(Point::Replay, label) {
            None | Some(Fault::Crash | Fault::Fail(_) | Fault::Retry | Fault::Twice) => None,
            Some(Fault::Unreadable) => Some("injected"),
            Some(Fault::Panic) => panic!("injected"),
        }
    }

    async fn diverged<T>(&mut self, expected: &str, found: &str) -> T {
        let detail = format!("the journal has {found} where this program does {expected}");
        self.leave(Exit::Stuck(Failure::new(codes::JOURNAL_DIVERGED, detail))).await
    }
}

fn entry_label(run_id: Uuid, entry: &Entry) -> String {
    label(run_id, &format!("{} {} {}", entry.seq, entry.kind.as_str(), entry.name))
}

fn together(mut outputs: Vec<serde_json::Value>) -> serde_json::Value {
    if outputs.len() == 1 { outputs.remove(0) } else { serde_json::Value::Array(outputs) }
}
