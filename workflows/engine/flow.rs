//! The verbs a flow is written with.

mod stop;

use std::{fmt, marker::PhantomData, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    Failure, Result, Undo,
    claim::Claimed,
    cursor::Cursor,
    exit::Exit,
    group::Steps,
    journal::Kind,
    means::Means,
    payload::encode,
    rows::Carried,
    start::{Named, Start},
    undo::Registered,
    work::Work,
};

/// A run being carried out. Its verbs journal what they did; on a replay they answer from the journal.
///
/// A step's terminal failure always unwinds the run: an outcome a flow wants to branch on is a value.
pub struct Flow {
    pub(crate) cursor: Cursor,
    pub(crate) work: Work,
    /// What takes back the steps that were met or carried out, in their order, but for those taken back already.
    pub(crate) undos: Vec<Registered>,
    pub(crate) failure: Option<Failure>,
    /// The flow has come as far as its first verb.
    pub(crate) begun: bool,
    /// Whose slots this run's turns take.
    pub(crate) queue: &'static str,
    pub(crate) exit: Option<oneshot::Sender<Exit>>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, next_seq) = (self.id(), self.work.next_seq());
        f.debug_struct("Flow").field("id", &id).field("next_seq", &next_seq).finish_non_exhaustive()
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
        let cursor = Cursor::new(run.id, std::mem::take(&mut run.journal), means.faults.clone())?;
        Ok(Flow {
            work: Work::new(means, run, cursor.next_seq()),
            cursor,
            undos: Vec::new(),
            failure: None,
            begun: false,
            queue,
            exit: Some(exit),
        })
    }

    /// The run's id.
    pub fn id(&self) -> Uuid {
        self.work.run.id
    }

    /// The engine's pool, for calls that keep notes of their own.
    pub fn pool(&self) -> &sqlx::PgPool {
        &self.work.means.pool
    }

    /// When the run was started, on the engine's clock.
    pub fn started_at(&self) -> DateTime<Utc> {
        self.work.run.created_at
    }

    /// Registers what takes back the work of the transaction that started the run: it is the first
    /// thing that happened, so it is undone last, and whatever else never committed.
    pub fn accepted<U: Undo<()>>(&mut self, undo: U) {
        self.begun = true;
        self.register(Registered::new::<(), U>(-1, undo, &Value::Null));
    }

    /// One step, or a tuple that commits together: SQL and journal in one commit. Adjacent ones may
    /// share a commit; if one fails before it, those never happened.
    pub fn tx<K, G: Steps<K>>(&mut self, steps: G) -> Stepping<'_, G, K> {
        Stepping { flow: self, steps, marker: PhantomData }
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
        if let Some((value, _)) = self.recall(Kind::Value, name).await {
            return Ok(value);
        }
        let value = read();
        match encode(name, &value) {
            Ok(json) => self.work.journal(Kind::Value, name, Some(json)),
            Err(failure) => return Err(self.fail(failure)),
        }
        Ok(value)
    }

    /// Starts a child with its own history; it exists once this run's next commit has happened.
    pub async fn start<W: Named>(&mut self, start: Result<Start<W>>) -> Result<Uuid> {
        self.safe_point().await?;
        if let Some((run_id, _)) = self.recall(Kind::Start, W::NAME).await {
            return Ok(run_id);
        }
        let start = match start {
            Ok(start) => start.child_of(self.id()),
            Err(failure) => return Err(self.fail(failure)),
        };
        let run_id = start.run_id;
        self.work.journal(Kind::Start, W::NAME, Some(serde_json::json!(run_id)));
        self.work.start(start.untyped());
        Ok(run_id)
    }

    // --- what the verbs share ---

    /// Runs the steps, or reads what they returned, and registers what takes them back: it is told the
    /// position of the last one, by which the undo is known on every replay, and what they returned.
    pub(crate) async fn carry_out<K, G: Steps<K>>(
        &mut self,
        steps: G,
        kind: Kind,
        undo: impl FnOnce(i32, &Value) -> Option<Registered> + Send,
    ) -> Result<G::Output> {
        self.safe_point().await?;
        let names = G::names();
        let failure = match self.cursor.group(kind, &names) {
            Ok(None) => return self.carry_out_now(steps, kind, undo).await,
            Ok(Some((seq, outputs))) => {
                let json = together(outputs.clone());
                match G::decode(outputs) {
                    Ok(output) => {
                        self.register(undo(seq, &json));
                        self.cursor.met(names.len());
                        return Ok(output);
                    }
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        self.leave(Exit::Stuck(failure)).await
    }

    async fn carry_out_now<K, G: Steps<K>>(
        &mut self,
        steps: G,
        kind: Kind,
        undo: impl FnOnce(i32, &Value) -> Option<Registered> + Send,
    ) -> Result<G::Output> {
        match steps.carry_out(&mut self.work).await {
            Ok(Carried { output, entries }) => {
                let mut outputs = Vec::with_capacity(entries.len());
                for (name, json) in entries {
                    outputs.push(json.clone());
                    self.work.journal(kind, name, Some(json));
                }
                self.register(undo(self.work.next_seq() - 1, &together(outputs)));
                Ok(output)
            }
            Err(halt) => self.halted(halt).await,
        }
    }

    pub(crate) async fn after_tx(&mut self) -> Result<()> {
        if self.work.fused { Ok(()) } else { self.flush().await }
    }

    /// What has been taken back already is not taken back again.
    pub(crate) fn register(&mut self, undo: Option<Registered>) {
        self.undos.extend(undo.filter(|undo| !self.cursor.is_undone(undo.seq)));
    }
}

fn together(mut outputs: Vec<Value>) -> Value {
    if outputs.len() == 1 { outputs.remove(0) } else { Value::Array(outputs) }
}
