//! What a flow has in hand between two commits: its transaction, its entries, its children. And the ways
//! its turn can end.

use chrono::{DateTime, Utc};

use crate::{
    Failure, Flow, Result, RetryPolicy, RunStatus, StepError,
    cohort::SET,
    commit::{self, Fence, Rest, Write, Writing},
    error::{codes, is_outage},
    fault::{Fault, Point},
    flow::Open,
    group::Halt,
    journal::{Kind, Pending},
    limits,
    seat::{Sealed, Seat},
    silence::heard,
    turn::Exit,
};

impl Flow {
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
                Failure::new(codes::STEP_FAILED, format!("{step} failed {failed} times: {error}"))
            }
            StepError::Retry(error) => {
                let error = error.to_string();
                self.leave(Exit::Retry { step, error, policy: *policy }).await
            }
            StepError::NotYet { why, after } | StepError::Busy { why, after } => {
                let until = self.now() + after.min(limits::PUT_OFF);
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

    /// From here on every verb returns this failure; what had not committed never happened. What others
    /// share does: it commits with them, and is undone.
    pub(crate) fn fail(&mut self, failure: Failure) -> Failure {
        if !self.is_bound() {
            self.roll_back();
        }
        self.failure = Some(failure.clone());
        failure
    }

    /// What this run has in hand cannot be rolled back without what others have.
    pub(crate) fn is_bound(&self) -> bool {
        self.seat.as_ref().is_some_and(Seat::is_bound)
    }

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
        let committed = self.committed_seq;
        self.undos.retain(|undo| undo.seq < committed);
        self.forward = self.run.forward_only;
    }

    /// Where a run that was asked to stop, or has failed, stops.
    pub(crate) async fn safe_point(&mut self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.begun = true;
        if self.replay.unread() == 0 {
            if self.means.rehearses {
                self.leave::<()>(Exit::Rehearsed).await;
            }
            if let Some(failure) = self.run.failure.clone() {
                return Err(self.fail(failure));
            }
            if let (Some(why), false) = (self.cancel.clone(), self.forward) {
                return Err(self.fail(Failure::cancelled(&why)));
            }
            if self.next_seq >= limits::JOURNAL_ENTRIES {
                return Err(self.fail(Failure::new(codes::JOURNAL_FULL, "the run has written 1,000 journal entries")));
            }
        }
        Ok(())
    }

    pub(crate) fn journal(&mut self, kind: Kind, name: &str, output: Option<serde_json::Value>) {
        self.pending.push(Pending { seq: self.next_seq, kind, name: name.to_owned(), output, error: None });
        self.next_seq += 1;
    }

    pub(crate) async fn open(&mut self) {
        if self.tx.is_none() {
            match self.means.begin().await {
                Ok(open) => self.tx = Some(open),
                Err(error) => {
                    tracing::warn!(run = %self.run.id, %error, "no transaction to be had");
                    self.leave(Exit::Outage).await
                }
            }
        }
    }

    pub(crate) async fn after_tx(&mut self) -> Result<()> {
        if !self.fused {
            self.flush().await?;
        }
        Ok(())
    }

    /// Commits what is pending and goes on.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        match self.go_on().await {
            Ok(()) => Ok(()),
            Err(halt) => self.halted(halt).await,
        }
    }

    /// The fenced commit before a rest, with everything that can come of it.
    pub(crate) async fn commit(&mut self, rest: Rest) -> Result<()> {
        match self.seal(rest).await {
            Ok(()) => Ok(()),
            Err(halt) => self.halted(halt).await,
        }
    }

    /// [`Flow::flush`], for whoever is no verb, or not always one: an unwinding run has nowhere to leave to.
    pub(crate) async fn go_on(&mut self) -> Result<(), Halt> {
        if self.tx.is_none() && self.seat.is_none() && self.pending.is_empty() && self.starts.is_empty() {
            return Ok(());
        }
        let unwinds = (self.run.status == RunStatus::Compensating).then(|| self.run.failure.clone()).flatten();
        self.seal(match unwinds {
            Some(failure) => Rest::Compensating { failure },
            None => Rest::Onward { forward_only: self.forward },
        })
        .await
    }

    async fn seal(&mut self, rest: Rest) -> Result<(), Halt> {
        let settles = self.forward != self.run.forward_only || matches!(rest, Rest::Waiting { .. });
        match self.write(Write::Rest(rest), settles).await {
            Ok(()) => {
                self.run.forward_only = self.forward;
                Ok(())
            }
            Err(Unwritten::Cancelled(why)) => Err(Halt::Fails(self.fail(Failure::cancelled(&why)))),
            Err(Unwritten::Exit(exit)) => Err(Halt::Leaves(exit)),
        }
    }

    /// Writes what is pending under the fence. With `settles`, a request to cancel that came first wins.
    pub(crate) async fn write(&mut self, write: Write, settles: bool) -> std::result::Result<(), Unwritten> {
        let last = self.pending.last().map(|p| p.name.clone()).unwrap_or_default();
        self.fault(Point::BeforeCommit, &last)?;
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
        self.fault(Point::AfterCommit, &last)
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

    fn fault(&self, point: Point, step: &str) -> std::result::Result<(), Unwritten> {
        match self.means.fault(point, step) {
            Some(Fault::Crash) => Err(Unwritten::Exit(Exit::Crashed)),
            Some(Fault::Fail(_) | Fault::Retry | Fault::Twice | Fault::Unreadable | Fault::Panic) | None => Ok(()),
        }
    }

    /// Goes again, among no more than it has been told before.
    pub(crate) fn again(&self, among: usize) -> Exit {
        Exit::Again { among: among.min(self.run.among) }
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
