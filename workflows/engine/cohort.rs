//! Runs that share a transaction: what they and their `carrier` say to each other, and
//! where they wait.
//!
//! A run whose flow comes to a step for many hands in its row and waits. Rows that wait at the same step
//! are taken together by whichever carrier is free: it opens one transaction, carries the step out for all
//! of them, and lets their flows go on, each to its next word. While all of them come to the same step
//! again, the transaction goes on; else everybody commits, in one statement, and boards anew. A run never
//! waits for company: whoever came while the carriers were busy travels together.
//!
//! **Whose fault it is.** A row that is refused is that run's own affair. An error of a statement is
//! everybody's: the transaction rolls back, and its runs are carried again from their journals, in sets of
//! half the size, until the one at fault stands alone and fails as a run by itself does.
//!
//! **Who waits for a stranger's lock** waits with whatever its set has locked. So when one has waited in vain for as
//! long as a lock may take, sets are in a hurry for a while: few travel together, and wait for a lock only a little
//! longer than a set keeps one. Whoever wants the locked row is soon found, and waits for it alone.

use std::{
    any::{Any, TypeId},
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use sqlx::PgPool;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    Failure, SetTx,
    commit::Writing,
    fault::Faults,
    limits::{SET, SET_BYTES},
    pools::Own,
    rows::{Carried, Halt, Rows, Stopped},
};

pub(crate) type Entries = Vec<(&'static str, serde_json::Value)>;
pub(crate) type Erased = Box<dyn Any + Send>;
pub(crate) type Outcome = Result<(Erased, Entries), (&'static str, Failure)>;

/// A step for many whose types are forgotten.
pub(crate) trait Carry: Send + Sync {
    fn name(&self) -> &'static str;

    fn is_hot(&self) -> bool;

    fn carry<'a>(
        &'a self,
        rows: Vec<Erased>,
        tx: &'a mut SetTx<'_>,
        faults: Option<&'a dyn Faults>,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, Stopped>>;
}

pub(crate) struct Of<G>(PhantomData<fn() -> G>);

impl<G: Rows> Of<G> {
    pub(crate) const CARRY: &'static dyn Carry = &Of::<G>(PhantomData);
}

impl<G: Rows> Carry for Of<G> {
    fn name(&self) -> &'static str {
        G::NAME
    }

    fn is_hot(&self) -> bool {
        G::HOT
    }

    fn carry<'a>(
        &'a self,
        rows: Vec<Erased>,
        tx: &'a mut SetTx<'_>,
        faults: Option<&'a dyn Faults>,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, Stopped>> {
        Box::pin(async move {
            // Only rows of one type wait in one room.
            let rows: Vec<G> = rows.into_iter().filter_map(|row| row.downcast::<G>().ok()).map(|row| *row).collect();
            let results = G::run(rows, tx, faults).await?;
            let forget = |Carried { output, entries }| (Box::new(output) as Erased, entries);
            Ok(results.into_iter().map(|result| result.map(forget)).collect())
        })
    }
}

/// What a run says to whoever carries it.
pub(crate) enum Word {
    /// This step is next.
    Step(Asked),
    /// Write this, and commit.
    Commit(Box<Writing>, oneshot::Sender<Answer>),
    /// It has written nothing, and goes by itself.
    Leave,
}

pub(crate) struct Asked {
    /// Which step.
    pub(crate) key: TypeId,
    pub(crate) carry: &'static dyn Carry,
    pub(crate) row: Erased,
    pub(crate) now: DateTime<Utc>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What it is told.
pub(crate) enum Answer {
    /// The step has been carried out, among so many.
    Done { output: Erased, entries: Entries, among: usize },
    /// The step has refused its row, and has written nothing for it.
    Refused { step: &'static str, failure: Failure, among: usize },
    /// It was this run's step that stopped them; it is rolled back.
    Stopped(Halt),
    /// Others go elsewhere: commit, and come again with this row.
    Board(Erased),
    /// It is committed; who asked the run to stop, if anybody.
    Committed { cancel: Option<String> },
    /// Somebody else has the run, or its journal is another: it is rolled back.
    Denied,
    /// Somebody has asked the run to stop, and that came first: it is rolled back.
    Cancelled(String),
    /// It could not be committed, and is rolled back.
    Broken(sqlx::Error),
}

/// A run that waits for a carrier.
pub(crate) struct Boarding {
    pub(crate) passenger: Passenger,
    pub(crate) asked: Asked,
}

pub(crate) struct Passenger {
    pub(crate) said: mpsc::Receiver<Word>,
    /// Travels among so many at most.
    pub(crate) among: usize,
    /// Bytes, roughly.
    pub(crate) weight: usize,
}

impl Passenger {
    /// Its next word; `None` when it has gone without one, or says nothing until then.
    pub(crate) async fn word(&mut self, until: Instant) -> Option<Word> {
        tokio::time::timeout_at(until, self.said.recv()).await.ok().flatten()
    }
}

/// Runs that must travel alone hold up nobody: they may be slow, or wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Together,
    Alone,
}

/// Where the runs of a lane wait, one room a step, and how many carriers are at work.
pub(crate) struct Cohorts {
    lobby: Mutex<Lobby>,
    /// Held from a hot step to the commit, by one set at a time.
    hot: tokio::sync::Mutex<()>,
    hot_wanted: AtomicUsize,
    /// At most so many carriers, when no other pool serves the same queues.
    most: usize,
    /// At most so many now.
    carriers: AtomicUsize,
    /// What a carrier works over.
    own: fn(&PgPool) -> Own,
    /// For tests: a carrier waits a moment for so many. One in the product.
    gathers: usize,
}

#[derive(Default)]
struct Lobby {
    /// Served in turn.
    rooms: VecDeque<(TypeId, VecDeque<Boarding>)>,
    at_work: usize,
    in_a_hurry_until: Option<Instant>,
    /// Connections of carriers that are not at work.
    idle: Vec<Own>,
}

impl fmt::Debug for Cohorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cohorts").field("most", &self.most).finish_non_exhaustive()
    }
}

/// How long sets are in a hurry. Longer than a run by itself waits for a lock: while some wait in vain, it goes on.
const HURRY: Duration = Duration::from_secs(10);

/// So many travel together then: fewer are found at fault sooner, and keep their locks for less long.
const FEW: usize = 8;

/// So many wait in a lane at most for one who need not be there now.
const QUEUE: usize = 16;

/// How long a test's carrier waits for one more.
const GATHERING: Duration = Duration::from_millis(40);

impl Cohorts {
    /// So many sets may be under way at once.
    pub(crate) fn new(carriers: usize, gathers: usize, own: fn(&PgPool) -> Own) -> Self {
        Cohorts {
            lobby: Mutex::default(),
            hot: Default::default(),
            hot_wanted: Default::default(),
            most: carriers.max(1),
            carriers: AtomicUsize::new(carriers.max(1)),
            own,
            gathers,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lobby> {
        self.lobby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a run wait at its step; with a connection for one carrier more, if there may be one.
    pub(crate) fn admit(&self, boarding: Boarding, pool: &PgPool) -> Option<Own> {
        let mut lobby = self.lock();
        match lobby.rooms.iter_mut().find(|(key, _)| *key == boarding.asked.key) {
            Some((_, room)) => room.push_back(boarding),
            None => lobby.rooms.push_back((boarding.asked.key, VecDeque::from([boarding]))),
        }
        if lobby.at_work >= self.carriers.load(Ordering::Relaxed) {
            return None;
        }
        lobby.at_work += 1;
        Some(lobby.idle.pop().unwrap_or_else(|| (self.own)(pool)))
    }

    /// The next set, the rooms in turn. When nobody waits, or there are carriers enough, its carrier goes home.
    pub(crate) fn next(&self, own: Own) -> Option<(Vec<Boarding>, Own)> {
        let mut lobby = self.lock();
        let is_one_too_many = lobby.at_work > self.carriers.load(Ordering::Relaxed);
        let room = if is_one_too_many { None } else { lobby.rooms.pop_front() };
        let Some((key, mut room)) = room else {
            lobby.at_work -= 1;
            lobby.idle.push(own);
            return None;
        };
        let set = next_set(&mut room, if lobby.is_hurried() { FEW } else { SET });
        if !room.is_empty() {
            lobby.rooms.push_back((key, room));
        }
        Some((set, own))
    }

    /// From now on, and for a while, sets are in a hurry.
    pub(crate) fn hurry(&self) {
        self.lock().in_a_hurry_until = Some(Instant::now() + HURRY);
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.lock().is_hurried()
    }

    /// Whoever can come later should.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().rooms.iter().map(|(_, room)| room.len()).sum::<usize>() >= QUEUE
    }

    /// So many pools share the work: the more sets are under way at once, the fewer runs are in each.
    pub(crate) fn share(&self, pools: usize) {
        self.carriers.store((self.most / pools.max(1)).max(1), Ordering::Relaxed);
    }

    /// A set's turn at what everybody wants. Two sets there would wait for each other's commit in the database,
    /// each with all that it has locked.
    pub(crate) async fn hot_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.hot_wanted.fetch_add(1, Ordering::Relaxed);
        let turn = self.hot.lock().await;
        self.hot_wanted.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    /// Whether another set waits for its turn.
    pub(crate) fn is_hot_wanted(&self) -> bool {
        self.hot_wanted.load(Ordering::Relaxed) > 0
    }

    /// Waits for as many as a test wants to see together; when nobody has come for a moment, whoever is here
    /// goes without the others.
    pub(crate) async fn gathered(&self) {
        let (mut here, mut since) = (0, Instant::now());
        while self.gathers > 1 && since.elapsed() < GATHERING {
            let now = self.lock().rooms.front().map_or(self.gathers, |(_, room)| room.len());
            if now >= self.gathers {
                return;
            }
            if now != here {
                (here, since) = (now, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Lobby {
    fn is_hurried(&self) -> bool {
        self.in_a_hurry_until.is_some_and(|until| Instant::now() < until)
    }
}

/// Takes those from the front that travel together: at most so many, within everybody's limits, and the least of the
/// weight.
fn next_set(room: &mut VecDeque<Boarding>, most: usize) -> Vec<Boarding> {
    let (mut among, mut weight, mut set) = (most, 0, Vec::new());
    while let Some(next) = room.front() {
        if next.asked.answer.is_closed() {
            room.pop_front();
            continue;
        }
        among = among.min(next.passenger.among);
        weight += next.passenger.weight;
        if !set.is_empty() && (set.len() >= among || weight > SET_BYTES) {
            break;
        }
        set.extend(room.pop_front());
    }
    set
}
