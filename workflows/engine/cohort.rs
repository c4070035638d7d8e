//! Runs that share a transaction.
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

use std::{
    any::{Any, TypeId},
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::{FutureExt, future::BoxFuture};
use sqlx::{Connection as _, Postgres, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Failure, Flow, SetTx, Start, StepError,
    commit::{self, Writing},
    error::{is_lock_timeout, is_outage},
    fault::Faults,
    flow::Means,
    group::{Carried, Halt, Rows, Stopped},
    limits,
    pools::Own,
    silence::{ECHO, SILENCE, heard},
    turn::panic_text,
};

/// Runs that travel together at most.
pub(crate) const SET: usize = 64;

type Entries = Vec<(&'static str, serde_json::Value)>;
type Erased = Box<dyn Any + Send>;
type Outcome = Result<(Erased, Entries), (&'static str, Failure)>;

/// A step for many whose types are forgotten.
pub(crate) trait Carry: Send + Sync {
    fn carry<'a>(
        &'a self,
        rows: Vec<Erased>,
        tx: &'a mut SetTx<'_>,
        faults: Option<&'a dyn Faults>,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, Stopped>>;
}

struct Of<G>(PhantomData<fn() -> G>);

impl<G: Rows> Of<G> {
    const CARRY: &'static dyn Carry = &Of::<G>(PhantomData);
}

impl<G: Rows> Carry for Of<G> {
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
enum Word {
    /// This step is next.
    Step(Asked),
    /// Write this, and commit.
    Commit(Box<Writing>, oneshot::Sender<Answer>),
    /// It has written nothing, and goes by itself.
    Leave,
}

struct Asked {
    /// Which step.
    key: TypeId,
    carry: &'static dyn Carry,
    row: Erased,
    now: DateTime<Utc>,
    answer: oneshot::Sender<Answer>,
}

/// What it is told.
enum Answer {
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

/// What came of a commit in company.
pub(crate) enum Sealed {
    Committed { cancel: Option<String> },
    Denied,
    Cancelled(String),
    Broken(sqlx::Error),
    Again(usize),
    Outage,
}

/// A run's place among those that share a transaction. Given up without a word, it takes the transaction
/// along: what it wrote must not be committed without its journal.
pub(crate) struct Seat {
    words: mpsc::Sender<Word>,
    /// How many share the transaction.
    among: usize,
    /// Something has been written for it.
    wrote: bool,
}

impl Seat {
    /// What it wrote can only be taken back with what others wrote.
    pub(crate) fn is_bound(&self) -> bool {
        self.wrote && self.among > 1
    }

    /// Goes, and lets the others go on if it can.
    pub(crate) fn leave(self) {
        if !self.wrote {
            // Should the carrier be gone, there is nothing to leave.
            let _ = self.words.try_send(Word::Leave);
        }
    }

    /// Commits with the others.
    pub(crate) async fn commit(self, writing: Writing) -> Sealed {
        let (answer, told) = oneshot::channel();
        if self.words.send(Word::Commit(Box::new(writing), answer)).await.is_err() {
            return Sealed::Outage;
        }
        match told.await {
            Ok(Answer::Committed { cancel }) => Sealed::Committed { cancel },
            Ok(Answer::Denied) => Sealed::Denied,
            Ok(Answer::Cancelled(why)) => Sealed::Cancelled(why),
            Ok(Answer::Broken(error)) => Sealed::Broken(error),
            Ok(Answer::Stopped(Halt::Again(among))) => Sealed::Again(among),
            Ok(Answer::Stopped(Halt::Failed(..) | Halt::Crash | Halt::Outage | Halt::Fails(_)))
            | Ok(Answer::Done { .. } | Answer::Refused { .. } | Answer::Board(_))
            | Err(_) => Sealed::Outage,
        }
    }
}

impl Flow {
    /// Carries out a step for many, with whoever comes to it now.
    pub(crate) async fn in_set<G: Rows>(&mut self, row: G) -> Result<Carried<G::Output>, Halt> {
        let mut row: Erased = Box::new(row);
        loop {
            if self.tx.is_some() {
                self.flush().await.map_err(Halt::Fails)?;
            }
            let (answer, told) = oneshot::channel();
            let asked = Asked { key: TypeId::of::<G>(), carry: Of::<G>::CARRY, row, now: self.now(), answer };
            match &self.seat {
                Some(seat) => {
                    if seat.words.send(Word::Step(asked)).await.is_err() {
                        self.seat = None;
                        return Err(Halt::Outage);
                    }
                }
                None => {
                    let (words, said) = mpsc::channel(1);
                    let among = if self.fused { self.run.among.min(SET) } else { 1 };
                    let passenger = Passenger { said, among, weight: self.weight };
                    self.seat = Some(Seat { words, among: 1, wrote: false });
                    let lane = if among > 1 { Lane::Together } else { Lane::Alone };
                    board(&self.means, lane, passenger, asked);
                }
            }
            match told.await {
                Ok(Answer::Done { output, entries, among }) => {
                    // A carrier returns what the step of this row returned.
                    let Ok(output) = output.downcast::<G::Output>() else { return Err(Halt::Outage) };
                    self.seated(among, G::has_written(&output));
                    return Ok(Carried { output: *output, entries });
                }
                Ok(Answer::Refused { step, failure, among }) => {
                    self.seated(among, false);
                    return Err(Halt::Failed(step, failure.into()));
                }
                Ok(Answer::Board(back)) => {
                    row = back;
                    self.flush().await.map_err(Halt::Fails)?;
                }
                Ok(Answer::Stopped(halt)) => {
                    self.seat = None;
                    return Err(halt);
                }
                Ok(Answer::Committed { .. } | Answer::Denied | Answer::Cancelled(_) | Answer::Broken(_)) | Err(_) => {
                    self.seat = None;
                    return Err(Halt::Outage);
                }
            }
        }
    }

    fn seated(&mut self, among: usize, wrote: bool) {
        if let Some(seat) = &mut self.seat {
            seat.among = among;
            seat.wrote |= wrote;
        }
    }
}

/// A run that waits for a carrier.
struct Boarding {
    passenger: Passenger,
    asked: Asked,
}

struct Passenger {
    said: mpsc::Receiver<Word>,
    /// Travels among so many at most.
    among: usize,
    /// Bytes, roughly.
    weight: usize,
}

impl Passenger {
    /// Its next word; `None` when it has gone without one.
    async fn word(&mut self) -> Option<Word> {
        tokio::time::timeout(SILENCE, self.said.recv()).await.ok().flatten()
    }
}

/// Runs that must travel alone hold up nobody: they may be slow, or wait for a lock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lane {
    Together,
    Alone,
}

/// Where the runs of a lane wait, one room a step, and how many carriers are at work.
pub(crate) struct Cohorts {
    rooms: Mutex<Lobby>,
    carriers: usize,
    /// For tests: a carrier waits a moment for so many. One in the product.
    gathers: usize,
}

#[derive(Default)]
struct Lobby {
    /// Served in turn.
    rooms: VecDeque<(TypeId, VecDeque<Boarding>)>,
    at_work: usize,
    /// Connections of carriers that are not at work.
    idle: Vec<Own>,
}

impl fmt::Debug for Cohorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cohorts").field("carriers", &self.carriers).finish_non_exhaustive()
    }
}

/// How long a test's carrier waits for company.
const GATHERING: Duration = Duration::from_millis(40);

impl Cohorts {
    /// So many sets may be under way at once.
    pub(crate) fn new(carriers: usize, gathers: usize) -> Self {
        Cohorts { rooms: Mutex::default(), carriers: carriers.max(1), gathers }
    }

    fn lock(&self) -> MutexGuard<'_, Lobby> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next set, the rooms in turn. When nobody waits, its carrier goes home.
    fn next(&self, own: Own) -> Option<(Vec<Boarding>, Own)> {
        let mut rooms = self.lock();
        let Some((key, mut room)) = rooms.rooms.pop_front() else {
            rooms.at_work -= 1;
            rooms.idle.push(own);
            return None;
        };
        let set = next_set(&mut room);
        if !room.is_empty() {
            rooms.rooms.push_back((key, room));
        }
        Some((set, own))
    }

    /// Whether so many wait in one room as a test wants to see together.
    fn has_gathered(&self) -> bool {
        self.lock().rooms.front().is_none_or(|(_, room)| room.len() >= self.gathers)
    }
}

fn board(means: &Arc<Means>, lane: Lane, passenger: Passenger, asked: Asked) {
    let cohorts = means.lane(lane);
    let mut rooms = cohorts.lock();
    let boarding = Boarding { passenger, asked };
    match rooms.rooms.iter_mut().find(|(key, _)| *key == boarding.asked.key) {
        Some((_, room)) => room.push_back(boarding),
        None => rooms.rooms.push_back((boarding.asked.key, VecDeque::from([boarding]))),
    }
    if rooms.at_work < cohorts.carriers {
        rooms.at_work += 1;
        let own = rooms.idle.pop().unwrap_or_else(|| Own::like(&means.pool));
        tokio::spawn(at_work(Arc::clone(means), lane, own));
    }
}

/// Takes those from the front that travel together: within everybody's limits, and the least of the weight.
fn next_set(room: &mut VecDeque<Boarding>) -> Vec<Boarding> {
    let (mut among, mut weight, mut set) = (SET, 0, Vec::new());
    while let Some(next) = room.front() {
        if next.asked.answer.is_closed() {
            room.pop_front();
            continue;
        }
        among = among.min(next.passenger.among);
        weight += next.passenger.weight;
        if !set.is_empty() && (set.len() >= among || weight > limits::SET_BYTES) {
            break;
        }
        set.extend(room.pop_front());
    }
    set
}

/// One carrier: takes set after set until nobody waits, over a connection of its own.
async fn at_work(means: Arc<Means>, lane: Lane, mut own: Own) {
    let cohorts = means.lane(lane);
    loop {
        if cohorts.gathers > 1 {
            let gathered = async {
                while !cohorts.has_gathered() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            // Whoever is here then travels without the others.
            let _ = tokio::time::timeout(GATHERING, gathered).await;
        }
        let set;
        match cohorts.next(own) {
            Some((next, with)) => (set, own) = (next, with),
            None => return,
        }
        if set.is_empty() {
            continue;
        }
        metrics::histogram!("cart_engine_set_runs").record(set.len() as f64);
        // Whoever waits for it hears that nobody answers, as in an outage.
        if let Err(panic) = AssertUnwindSafe(carry(&means, &mut own, set)).catch_unwind().await {
            tracing::error!(error = panic_text(&*panic), "a carrier panicked");
        }
    }
}

/// Those of a set that wait for an answer, by their places in it.
struct Waiting {
    step: &'static dyn Carry,
    now: DateTime<Utc>,
    rows: Vec<Erased>,
    answers: Vec<(usize, oneshot::Sender<Answer>)>,
}

impl Waiting {
    fn new(asked: Vec<(usize, Asked)>) -> Option<Self> {
        let (_, first) = asked.first()?;
        let step = first.carry;
        let now = asked.iter().map(|(_, asked)| asked.now).max()?;
        let (mut rows, mut answers) = (Vec::with_capacity(asked.len()), Vec::with_capacity(asked.len()));
        for (place, Asked { row, answer, .. }) in asked {
            rows.push(row);
            answers.push((place, answer));
        }
        Some(Waiting { step, now, rows, answers })
    }
}

/// Carries a set through one transaction.
async fn carry(means: &Means, own: &mut Own, set: Vec<Boarding>) {
    let (mut passengers, mut asked) = (Vec::with_capacity(set.len()), Vec::with_capacity(set.len()));
    for (place, Boarding { passenger, asked: step }) in set.into_iter().enumerate() {
        passengers.push(Some(passenger));
        asked.push((place, step));
    }
    let mut connection = match own.take().await {
        Ok(connection) => connection,
        Err(error) => return nobody_goes(asked, &error),
    };
    let is_whole = match heard(connection.begin()).await {
        Ok(tx) => through(means, tx, passengers, asked).await,
        Err(error) => return nobody_goes(asked, &error),
    };
    if is_whole {
        own.keep(connection);
    }
}

fn nobody_goes(asked: Vec<(usize, Asked)>, error: &sqlx::Error) {
    tracing::warn!(%error, runs = asked.len(), "no transaction to be had");
    for (_, Asked { answer, .. }) in asked {
        tell(answer, Answer::Stopped(Halt::Outage));
    }
}

type Trip<'c> = Transaction<'c, Postgres>;

/// Step by step as long as all of them go the same way. Returns whether the connection is good for others.
async fn through(
    means: &Means,
    mut tx: Trip<'_>,
    mut passengers: Vec<Option<Passenger>>,
    mut asked: Vec<(usize, Asked)>,
) -> bool {
    let mut starts = Vec::new();
    loop {
        let Some(waiting) = Waiting::new(asked) else { return roll_back(tx).await };
        let among = passengers.iter().flatten().count();
        let results = step(means, &mut tx, &mut starts, waiting.step, waiting.rows, waiting.now).await;
        match results {
            Ok(results) => {
                for ((_, answer), result) in waiting.answers.into_iter().zip(results) {
                    tell(
                        answer,
                        match result {
                            Ok((output, entries)) => Answer::Done { output, entries, among },
                            Err((step, failure)) => Answer::Refused { step, failure, among },
                        },
                    );
                }
            }
            Err(stopped) => return blame(tx, waiting.answers, stopped).await,
        }
        let mut next = Vec::with_capacity(among);
        let mut writings = Vec::new();
        let mut is_broken = false;
        for (place, seat) in passengers.iter_mut().enumerate() {
            let Some(passenger) = seat else { continue };
            match passenger.word().await {
                Some(Word::Step(asked)) => next.push((place, asked)),
                Some(Word::Commit(writing, answer)) => writings.push((*writing, answer)),
                Some(Word::Leave) => *seat = None,
                None => {
                    *seat = None;
                    is_broken = true;
                }
            }
        }
        if !is_broken && writings.is_empty() && next.iter().all(|(_, asked)| asked.key == next[0].1.key) {
            asked = next;
            continue;
        }
        // They go different ways: everybody commits first.
        let mut boarding = Vec::new();
        for (place, Asked { row, answer, .. }) in next {
            if is_broken {
                tell(answer, Answer::Stopped(Halt::Again(SET)));
            } else {
                tell(answer, Answer::Board(row));
                boarding.push(place);
            }
        }
        for place in boarding {
            let Some(passenger) = passengers.get_mut(place).and_then(Option::as_mut) else { continue };
            match passenger.word().await {
                Some(Word::Commit(writing, answer)) => writings.push((*writing, answer)),
                Some(Word::Leave) => {}
                Some(Word::Step(Asked { answer, .. })) => tell(answer, Answer::Stopped(Halt::Outage)),
                None => is_broken = true,
            }
        }
        if !is_broken && !writings.is_empty() {
            return seal(tx, starts, writings).await;
        }
        let is_whole = roll_back(tx).await;
        for (_, answer) in writings {
            tell(answer, Answer::Stopped(Halt::Again(SET)));
        }
        return is_whole;
    }
}

/// Whoever has gone away needs no answer: that shows at their next word.
fn tell(to: oneshot::Sender<Answer>, answer: Answer) {
    let _ = to.send(answer);
}

/// Lets go of what is locked before anybody goes on. A database that says nothing is not waited for: the
/// connection is closed.
async fn roll_back(tx: Trip<'_>) -> bool {
    matches!(tokio::time::timeout(ECHO, tx.rollback()).await, Ok(Ok(())))
}

async fn step(
    means: &Means,
    tx: &mut Trip<'_>,
    starts: &mut Vec<Start<()>>,
    step: &'static dyn Carry,
    rows: Vec<Erased>,
    now: DateTime<Utc>,
) -> Result<Vec<Outcome>, Stopped> {
    let among = rows.len();
    let mut tx = SetTx { conn: tx, now, starts };
    let carried = AssertUnwindSafe(step.carry(rows, &mut tx, means.faults.as_deref())).catch_unwind();
    let error = match tokio::time::timeout(SILENCE, carried).await {
        Ok(Ok(Ok(results))) if results.len() == among => return Ok(results),
        Ok(Ok(Ok(_))) => "a step has lost a row".into(),
        Ok(Ok(Err(stopped))) => return Err(stopped),
        // This worker lives, so nobody else would take its runs: a failed attempt.
        Ok(Err(panic)) => format!("panicked: {}", panic_text(&*panic)).into(),
        // Slow steps are failed attempts, and counted; that the database is away shows when the attempt
        // cannot be written down.
        Err(elapsed) => elapsed.into(),
    };
    let halt = Halt::Failed("step", StepError::Retry(error));
    Err(if among == 1 { Stopped::By(0, halt) } else { Stopped::BySome("step", StepError::Retry("a set".into())) })
}

/// Rolls back, tells the one at fault, and has the others go again.
async fn blame(tx: Trip<'_>, answers: Vec<(usize, oneshot::Sender<Answer>)>, stopped: Stopped) -> bool {
    let is_whole = roll_back(tx).await;
    let among = answers.len();
    match stopped {
        Stopped::By(at, halt) => {
            let mut halt = Some(halt);
            for (row, (_, answer)) in answers.into_iter().enumerate() {
                let halt = if row == at { halt.take() } else { None };
                tell(answer, Answer::Stopped(halt.unwrap_or(Halt::Again(SET))));
            }
        }
        Stopped::BySome(_, error) if error.is_outage() => {
            for (_, answer) in answers {
                tell(answer, Answer::Stopped(Halt::Outage));
            }
        }
        Stopped::BySome(step, error) => {
            tracing::info!(step, among, %error, "a set failed; its runs go again in smaller ones");
            metrics::counter!("cart_engine_sets_split_total").increment(1);
            for (_, answer) in answers {
                tell(answer, Answer::Stopped(Halt::Again(share(among, error.is_lock_timeout()))));
            }
        }
    }
    is_whole
}

/// Among how many those of a set go again whose statement failed. Who waited for somebody's lock in vain waits for
/// it by itself: the others need not wait with it once more.
fn share(among: usize, is_lock_timeout: bool) -> usize {
    if is_lock_timeout { 1 } else { among.div_ceil(2) }
}

/// Writes all that is to be written, under the fences, and commits.
async fn seal(mut tx: Trip<'_>, starts: Vec<Start<()>>, writings: Vec<(Writing, oneshot::Sender<Answer>)>) -> bool {
    let (writings, answers): (Vec<Writing>, Vec<_>) = writings.into_iter().unzip();
    let (among, mut is_whole) = (answers.len(), true);
    let written = heard(commit::write(&mut tx, &starts, &writings)).await;
    let committed = match written {
        Ok(written) => {
            let verdicts: Vec<Option<Answer>> = writings.iter().map(|writing| writing.verdict(&written)).collect();
            if verdicts.iter().any(Option::is_some) {
                let is_whole = roll_back(tx).await;
                for (answer, verdict) in answers.into_iter().zip(verdicts) {
                    tell(answer, verdict.unwrap_or(Answer::Stopped(Halt::Again(SET))));
                }
                return is_whole;
            }
            heard(tx.commit()).await.map(|()| written)
        }
        Err(error) => {
            is_whole = roll_back(tx).await;
            Err(error)
        }
    };
    is_whole &= committed.as_ref().err().is_none_or(|error| !is_outage(error));
    match committed {
        Ok(mut written) => {
            for (writing, answer) in writings.iter().zip(answers) {
                let cancel = written.remove(&writing.fence.run_id).flatten();
                tell(answer, Answer::Committed { cancel });
            }
        }
        Err(error) if among > 1 && !is_outage(&error) => {
            tracing::info!(among, %error, "a set could not be committed; its runs go again in smaller ones");
            metrics::counter!("cart_engine_sets_split_total").increment(1);
            for answer in answers {
                tell(answer, Answer::Stopped(Halt::Again(share(among, is_lock_timeout(&error)))));
            }
        }
        Err(error) => {
            let mut error = Some(error);
            for answer in answers {
                tell(answer, error.take().map_or(Answer::Stopped(Halt::Outage), Answer::Broken));
            }
        }
    }
    is_whole
}

impl Writing {
    /// What must not be committed, if anything.
    fn verdict(&self, written: &commit::Written) -> Option<Answer> {
        match written.get(&self.fence.run_id) {
            None => {
                self.fence.note_refusal();
                Some(Answer::Denied)
            }
            Some(Some(why)) if self.settles => Some(Answer::Cancelled(why.clone())),
            Some(_) => None,
        }
    }
}
