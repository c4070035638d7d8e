//! Whoever takes sets of runs through a transaction each: `cohort` says how, and whose fault what is.

use std::{panic::AssertUnwindSafe, sync::Arc};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::{Connection as _, Postgres, Transaction};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    SetTx, Start, StepError,
    cohort::{Answer, Asked, Boarding, Carry, Erased, Lane, Outcome, Passenger, Word},
    commit::{self, Writing},
    error::{is_lock_timeout, is_outage, panic_text},
    limits::SET,
    means::Means,
    pools::Own,
    rows::{Halt, Stopped},
    silence::{ECHO, SILENCE, heard},
};

/// Lets a run wait for a carrier, and sends for another if there may be one.
pub(crate) fn board(means: &Arc<Means>, lane: Lane, boarding: Boarding) {
    if let Some(own) = means.lane(lane).admit(boarding, &means.pool) {
        tokio::spawn(at_work(Arc::clone(means), lane, own));
    }
}

/// One carrier: takes set after set until nobody waits, over a connection of its own.
async fn at_work(means: Arc<Means>, lane: Lane, mut own: Own) {
    let cohorts = means.lane(lane);
    loop {
        cohorts.gathered().await;
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
        if let Err(panic) = AssertUnwindSafe(carry(&means, lane, &mut own, set)).catch_unwind().await {
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
async fn carry(means: &Means, lane: Lane, own: &mut Own, set: Vec<Boarding>) {
    let (mut passengers, mut asked) = (Vec::with_capacity(set.len()), Vec::with_capacity(set.len()));
    for (place, Boarding { passenger, asked: step }) in set.into_iter().enumerate() {
        passengers.push(Some(passenger));
        asked.push((place, step));
    }
    let mut connection = match own.take().await {
        Ok(connection) => connection,
        Err(error) => return nobody_goes(asked, &error),
    };
    // In a hurry a set holds a row for less long than it waits for one.
    let is_hurried = lane == Lane::Together && means.cohorts.is_hurried();
    let begin = if is_hurried { "begin; set local lock_timeout = '50ms'" } else { "begin" };
    let is_whole = match heard(connection.begin_with(begin)).await {
        Ok(tx) => through(means, Trip { lane, is_hurried }, tx, passengers, asked).await,
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

/// So many that share a commit can spare one more.
const CROWD: usize = 8;

/// How a set travels.
#[derive(Clone, Copy)]
struct Trip {
    lane: Lane,
    is_hurried: bool,
}

/// Step by step as long as all of them go the same way. Returns whether the connection is good for others.
async fn through(
    means: &Means,
    trip: Trip,
    mut tx: Transaction<'_, Postgres>,
    mut passengers: Vec<Option<Passenger>>,
    mut asked: Vec<(usize, Asked)>,
) -> bool {
    let mut starts = Vec::new();
    let mut turn = None;
    loop {
        let Some(waiting) = Waiting::new(asked) else { return roll_back(tx).await };
        let among = passengers.iter().flatten().count();
        if waiting.step.is_hot() && turn.is_none() && trip.lane == Lane::Together {
            turn = Some(means.cohorts.hot_turn().await);
        }
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
            Err(stopped) => return blame(means, trip, tx, waiting.answers, stopped).await,
        }
        let mut next = Vec::with_capacity(among);
        let mut writings = Vec::new();
        let (mut is_broken, until) = (false, Instant::now() + SILENCE);
        for (place, seat) in passengers.iter_mut().enumerate() {
            let Some(passenger) = seat else { continue };
            match passenger.word(until).await {
                Some(Word::Step(asked)) => next.push((place, asked)),
                Some(Word::Commit(writing, answer)) => writings.push((*writing, answer)),
                Some(Word::Leave) => *seat = None,
                None => {
                    *seat = None;
                    is_broken = true;
                }
            }
        }
        let lets_go = turn.is_some() && (among >= CROWD || means.cohorts.is_hot_wanted());
        if !is_broken && !lets_go && writings.is_empty() && next.iter().all(|(_, asked)| asked.key == next[0].1.key) {
            asked = next;
            continue;
        }
        // They go different ways, or others wait for what is locked: everybody commits first.
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
            match passenger.word(until).await {
                Some(Word::Commit(writing, answer)) => writings.push((*writing, answer)),
                Some(Word::Leave) => {}
                Some(Word::Step(Asked { answer, .. })) => tell(answer, Answer::Stopped(Halt::Outage)),
                None => is_broken = true,
            }
        }
        if !is_broken && !writings.is_empty() {
            return seal(means, trip, tx, starts, writings).await;
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
async fn roll_back(tx: Transaction<'_, Postgres>) -> bool {
    matches!(tokio::time::timeout(ECHO, tx.rollback()).await, Ok(Ok(())))
}

async fn step(
    means: &Means,
    tx: &mut Transaction<'_, Postgres>,
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
    Err(Stopped::by_any(step.name(), among, StepError::Retry(error)))
}

/// Rolls back, tells the one at fault, and has the others go again.
async fn blame(
    means: &Means,
    trip: Trip,
    tx: Transaction<'_, Postgres>,
    answers: Vec<(usize, oneshot::Sender<Answer>)>,
    stopped: Stopped,
) -> bool {
    let is_whole = roll_back(tx).await;
    let among = answers.len();
    match &stopped {
        Stopped::By(_, Halt::Failed(step, error)) | Stopped::BySome(step, error) if error.is_lock_timeout() => {
            trip.waited_in_vain(means, step);
        }
        Stopped::By(..) | Stopped::BySome(..) => {}
    }
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

/// Among how many those of a set go again whose statement failed. Who waits for a stranger's lock is found at once: each
/// failure on the way there would be a wait.
fn share(among: usize, is_lock_timeout: bool) -> usize {
    if is_lock_timeout { 1 } else { among.div_ceil(2) }
}

impl Trip {
    /// For somebody's lock, as long as may be: others may still want that row, and are not to wait as long.
    fn waited_in_vain(self, means: &Means, step: &str) {
        if !self.is_hurried {
            tracing::warn!(
                step,
                "somebody keeps a row locked that runs want; for a while sets are small, and wait less"
            );
            means.cohorts.hurry();
        }
    }
}

/// Writes all that is to be written, under the fences, and commits.
async fn seal(
    means: &Means,
    trip: Trip,
    mut tx: Transaction<'_, Postgres>,
    starts: Vec<Start<()>>,
    writings: Vec<(Writing, oneshot::Sender<Answer>)>,
) -> bool {
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
    if let Err(error) = &committed {
        is_whole &= !is_outage(error);
        if is_lock_timeout(error) {
            trip.waited_in_vain(means, "commit");
        }
    }
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
