//! What a run has in hand between two commits: its transaction or its seat, its entries, its children. Nothing
//! here ends a turn: it returns why the turn cannot go on.

use std::{any::TypeId, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{
    Failure, RunStatus, Tx,
    claim::Claimed,
    cohort::{Answer, Asked, Erased, Lane, Of},
    commit::{self, Rest, Write, Writing},
    error::codes,
    exit::{Exit, Unwritten},
    fault::{Point, crashes},
    fence::Fence,
    journal::{Kind, Pending},
    legible::rough_size,
    limits::{self, SET},
    means::{Means, Open},
    rows::{Carried, Halt, Rows},
    seat::{Sealed, Seat},
    silence::heard,
    start::Start,
};

/// When a run comes again that cannot be carried alone now, on average.
const LATER: Duration = Duration::from_secs(3);

/// What a run has in hand between two commits.
#[doc(hidden)]
pub struct Work {
    pub(crate) means: Arc<Means>,
    pub(crate) run: Claimed,
    /// Opened by the first `tx` after a commit, closed by the next commit.
    tx: Option<Open>,
    /// The same for steps that are carried out for many; never both.
    seat: Option<Seat>,
    /// What it was started with, in bytes, roughly.
    weight: usize,
    pending: Vec<Pending>,
    starts: Vec<Start<()>>,
    next_seq: i32,
    committed_seq: i32,
    /// Past the point of no return, as far as this turn has come; the row says so once it commits.
    forward: bool,
    cancel: Option<String>,
    /// Adjacent `tx` share a commit; off after a failed attempt, so that what works gets done.
    pub(crate) fused: bool,
}

impl Work {
    /// Of a run whose journal goes on at `next_seq`.
    pub(crate) fn new(means: Arc<Means>, run: Claimed, next_seq: i32) -> Self {
        Work {
            fused: means.fusion && run.attempt == 0,
            forward: run.forward_only,
            cancel: run.cancel_requested.clone(),
            weight: rough_size(&run.input),
            means,
            run,
            tx: None,
            seat: None,
            pending: Vec::new(),
            starts: Vec::new(),
            next_seq,
            committed_seq: next_seq,
        }
    }

    /// What every write of this turn is fenced by.
    pub(crate) fn fence(&self) -> Fence {
        Fence { run_id: self.run.id, token: self.run.token, written: self.committed_seq }
    }

    /// Now, on the engine's clock. Not journalled: for deadlines and timestamps, not for decisions.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.run.clock.now()
    }

    pub(crate) fn next_seq(&self) -> i32 {
        self.next_seq
    }

    pub(crate) fn committed_seq(&self) -> i32 {
        self.committed_seq
    }

    pub(crate) fn is_forward(&self) -> bool {
        self.forward
    }

    /// Failed attempts, should this one fail.
    pub(crate) fn failed(&self) -> u32 {
        u32::try_from(self.run.attempt).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Goes again, among no more than it has been told before.
    pub(crate) fn again(&self, among: usize) -> Exit {
        Exit::Again { among: among.min(self.run.among) }
    }

    /// Why a run that has met its whole journal does nothing new, if it does not.
    pub(crate) fn may_go_on(&self) -> Result<(), Halt> {
        if self.means.rehearses {
            return Err(Halt::Leaves(Exit::Rehearsed));
        }
        if let Some(failure) = &self.run.failure {
            return Err(Halt::Fails(failure.clone()));
        }
        if let (Some(why), false) = (&self.cancel, self.forward) {
            return Err(Halt::Fails(Failure::cancelled(why)));
        }
        if self.next_seq >= limits::JOURNAL_ENTRIES {
            let failure = Failure::new(codes::JOURNAL_FULL, "the run has written 1,000 journal entries");
            return Err(Halt::Fails(failure));
        }
        Ok(())
    }

    // --- what is taken in hand ---

    pub(crate) fn journal(&mut self, kind: Kind, name: &str, output: Option<Value>) {
        self.push(kind, name, output, None);
    }

    pub(crate) fn journal_error(&mut self, kind: Kind, name: &str, error: Value) {
        self.push(kind, name, None, Some(error));
    }

    fn push(&mut self, kind: Kind, name: &str, output: Option<Value>, error: Option<Value>) {
        self.pending.push(Pending { seq: self.next_seq, kind, name: name.to_owned(), output, error });
        self.next_seq += 1;
    }

    /// Starts a child with the next commit.
    pub(crate) fn start(&mut self, start: Start<()>) {
        self.starts.push(start);
    }

    /// From the next commit on the run only goes forward.
    pub(crate) fn go_forward(&mut self) {
        self.forward = true;
    }

    /// The run's own transaction, for a step of its own.
    pub(crate) async fn open(&mut self) -> Result<Tx<'_>, Halt> {
        if self.seat.is_some() {
            self.go_on().await?;
        }
        let open = match self.tx.take() {
            Some(open) => open,
            None => self.means.begin().await.map_err(|error| {
                tracing::warn!(run = %self.run.id, %error, "no transaction to be had");
                Halt::Outage
            })?,
        };
        let (run_id, now) = (self.run.id, self.now());
        Ok(Tx { conn: &mut self.tx.insert(open).tx, run_id, now })
    }

    /// Carries out a step for many, with whoever comes to it now.
    pub(crate) async fn in_set<G: Rows>(&mut self, row: G) -> Result<Carried<G::Output>, Halt> {
        let mut row: Erased = Box::new(row);
        loop {
            if self.tx.is_some() {
                self.go_on().await?;
            }
            let (answer, told) = oneshot::channel();
            let asked = Asked { key: TypeId::of::<G>(), carry: Of::<G>::CARRY, row, now: self.now(), answer };
            match &self.seat {
                Some(seat) => {
                    if !seat.ask(asked).await {
                        self.seat = None;
                        return Err(Halt::Outage);
                    }
                }
                None => {
                    let (lane, among) = if self.fused { (Lane::Together, self.run.among) } else { (Lane::Alone, 1) };
                    if lane == Lane::Alone && self.means.fusion && self.means.singles.is_full() {
                        return Err(self.later(G::NAME));
                    }
                    self.seat = Some(Seat::board(&self.means, lane, among, self.weight, asked));
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
                    self.go_on().await?;
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

    /// Too many wait to travel alone, perhaps for one lock: no run keeps others from being taken up for its sake.
    fn later(&self, step: &'static str) -> Halt {
        let until = self.now() + LATER.mul_f64(0.5 + rand::random::<f64>());
        Halt::Leaves(Exit::PutOff { step, why: "many runs wait to be carried alone".to_owned(), until })
    }

    fn seated(&mut self, among: usize, wrote: bool) {
        if let Some(seat) = &mut self.seat {
            seat.seated(among, wrote);
        }
    }

    /// It cannot be rolled back without what others have.
    pub(crate) fn is_bound(&self) -> bool {
        self.seat.as_ref().is_some_and(Seat::is_bound)
    }

    /// Should it be rolled back, steps that worked never happened.
    pub(crate) fn has_steps(&self) -> bool {
        self.pending.iter().any(|entry| entry.kind.bound_to_transaction())
    }

    // --- how it is let go of ---

    pub(crate) fn roll_back(&mut self) {
        // Dropping a transaction rolls it back before its connection is used again.
        self.tx = None;
        if let Some(seat) = self.seat.take() {
            seat.leave();
        }
        self.starts.clear();
        let kept = self.pending.iter().position(|p| p.kind.bound_to_transaction()).unwrap_or(self.pending.len());
        self.pending.truncate(kept);
        self.next_seq = self.committed_seq + i32::try_from(kept).unwrap_or(0);
        self.forward = self.run.forward_only;
    }

    /// What is not committed, for whoever writes it when the turn has ended.
    pub(crate) fn take_pending(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.pending)
    }

    /// Why the run unwinds, if it does.
    pub(crate) fn unwinds_for(&self) -> Option<Failure> {
        (self.run.status == RunStatus::Compensating).then(|| self.run.failure.clone()).flatten()
    }

    /// How a run is written that goes on.
    pub(crate) fn onward(&self) -> Rest {
        match self.unwinds_for() {
            Some(failure) => Rest::Compensating { failure },
            None => Rest::Onward { forward_only: self.forward },
        }
    }

    /// Commits what is in hand, if anything is, and goes on.
    pub(crate) async fn go_on(&mut self) -> Result<(), Halt> {
        if self.tx.is_none() && self.seat.is_none() && self.pending.is_empty() && self.starts.is_empty() {
            return Ok(());
        }
        self.seal(self.onward()).await
    }

    /// The fenced commit before a rest.
    pub(crate) async fn seal(&mut self, rest: Rest) -> Result<(), Halt> {
        let settles = self.forward != self.run.forward_only || matches!(rest, Rest::Waiting { .. });
        match self.write(Write::Rest(rest), settles).await {
            Ok(()) => {
                self.run.forward_only = self.forward;
                Ok(())
            }
            Err(Unwritten::Cancelled(why)) => Err(Halt::Fails(Failure::cancelled(&why))),
            Err(Unwritten::Exit(exit)) => Err(Halt::Leaves(exit)),
        }
    }

    /// Writes what is pending under the fence. With `settles`, a request to cancel that came first wins.
    pub(crate) async fn write(&mut self, write: Write, settles: bool) -> Result<(), Unwritten> {
        let last = self.pending.last().map(|p| p.name.clone()).unwrap_or_default();
        self.pass(Point::BeforeCommit, &last)?;
        let writing = Writing {
            fence: self.fence(),
            entries: self.pending.clone(),
            starts: std::mem::take(&mut self.starts),
            write,
            now: self.now(),
            settles: settles && !self.run.forward_only,
        };
        let sealed = match self.seat.take() {
            Some(seat) => seat.commit(writing).await,
            None => self.seal_alone(writing).await,
        };
        match sealed {
            Sealed::Committed { cancel } => self.cancel = cancel,
            Sealed::Denied => return Err(Unwritten::Exit(Exit::Refused)),
            Sealed::Cancelled(why) => return Err(Unwritten::Cancelled(why)),
            Sealed::Broken(error) => return Err(Unwritten::database(error)),
            Sealed::Again(among) => return Err(Unwritten::Exit(self.again(among))),
            Sealed::Outage => return Err(Unwritten::Exit(Exit::Outage)),
        }
        self.pending.clear();
        self.committed_seq = self.next_seq;
        self.run.attempt = 0;
        self.run.among = SET;
        self.pass(Point::AfterCommit, &last)
    }

    /// Writes in the run's own transaction, or without one what a single statement can.
    async fn seal_alone(&mut self, writing: Writing) -> Sealed {
        let sealed = async {
            if self.tx.is_none() && (writing.settles || !writing.starts.is_empty()) {
                self.tx = Some(self.means.begin().await?);
            }
            let writings = std::slice::from_ref(&writing);
            let mut written = match self.tx.as_mut() {
                Some(Open { tx, .. }) => heard(commit::write(tx, &[], writings)).await?,
                None => {
                    let _place = self.means.place().await?;
                    let mut conn = self.means.pool.acquire().await?;
                    heard(commit::write(&mut conn, &[], writings)).await?
                }
            };
            let cancel = match written.remove(&writing.fence.run_id) {
                None => {
                    self.tx = None;
                    writing.fence.note_refusal();
                    return Ok(Sealed::Denied);
                }
                Some(Some(why)) if writing.settles => return Ok(Sealed::Cancelled(why)),
                Some(cancel) => cancel,
            };
            if let Some(open) = self.tx.take() {
                open.commit().await?;
            }
            Ok(Sealed::Committed { cancel })
        };
        sealed.await.unwrap_or_else(Sealed::Broken)
    }

    fn pass(&self, point: Point, step: &str) -> Result<(), Unwritten> {
        if crashes(self.means.faults.as_deref(), point, step) { Err(Unwritten::Exit(Exit::Crashed)) } else { Ok(()) }
    }
}
