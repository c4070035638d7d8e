//! Taking back what a run has done.

use std::sync::Arc;

use serde_json::json;

use crate::{
    Failure, RetryPolicy, RunStatus, StepError,
    commit::{Rest, Write},
    error::codes,
    exit::{Exit, Unwritten},
    journal::{Kind, Undone},
    rows::Halt,
    turn::{Came, Engine, Turn},
    undo::Registered,
    work::Work,
};

impl Engine {
    /// Runs the undos of what was committed, in reverse, then ends the run; what cannot be undone parks it
    /// once all else is.
    pub(crate) async fn unwind(self: &Arc<Self>, mut work: Work, mut undos: Vec<Registered>, failure: Failure) -> Came {
        // What others share commits with them, and is undone then; but not a point of no return, which nothing
        // undoes: by itself, the run can roll it back.
        let promises = work.is_forward() && !work.run.forward_only;
        if work.is_bound() && promises {
            let exit = work.again(1);
            work.roll_back();
            return self.after(work, undos, exit).await;
        }
        let at_once = !work.fused || work.is_bound();
        if !work.is_bound() {
            work.roll_back();
            undos.retain(|undo| undo.seq < work.committed_seq());
        }
        if work.run.forward_only {
            return self.after(work, undos, Exit::Stuck(failure)).await;
        }
        // Cancelling a run that unwinds changes nothing; failing twice keeps the first reason.
        let failure = work.run.failure.clone().unwrap_or(failure);
        if let Err(exit) = work.give_up(&failure, at_once).await {
            return self.after(work, undos, exit).await;
        }
        match self.undo_all(&mut work, &undos, &failure).await {
            Ok(cannot) if cannot.is_empty() => {}
            Ok(cannot) => return self.after(work, undos, Exit::Stuck(waits_for(&failure, &cannot))).await,
            Err(exit) => return self.after(work, undos, exit).await,
        }
        let status = if failure.is_cancelled() { RunStatus::Cancelled } else { RunStatus::Failed };
        match work.write(Write::Finish { status, output: None, failure: Some(failure.clone()) }, false).await {
            Ok(()) => Ok(Turn::Ended(status)),
            Err(Unwritten::Cancelled(_)) => Ok(Turn::Resting),
            Err(Unwritten::Exit(exit)) => self.after(work, undos, exit).await,
        }
    }

    /// All in one commit, unless an attempt has failed or one of them cannot be done at all: then each in
    /// one of its own, so that what can be undone is. Returns those that cannot, and why.
    async fn undo_all(
        &self,
        work: &mut Work,
        undos: &[Registered],
        failure: &Failure,
    ) -> Result<Vec<(&'static str, Failure)>, Exit> {
        let (mut cannot, mut journalled) = (Vec::new(), Vec::new());
        if work.fused {
            for undo in undos.iter().rev() {
                if self.undo_one(work, undo, failure).await?.is_some() {
                    work.roll_back();
                    work.fused = false;
                    break;
                }
                journalled.push((undo.seq, work.next_seq() - 1));
            }
            if work.fused {
                return Ok(cannot);
            }
        }
        // Where those that it travelled with went elsewhere, some are committed already.
        let is_done = |undo: &Registered, work: &Work| {
            journalled.iter().any(|&(undone, at)| undone == undo.seq && at < work.committed_seq())
        };
        for undo in undos.iter().rev() {
            if is_done(undo, work) {
                continue;
            }
            if let Some(why) = self.undo_one(work, undo, failure).await? {
                work.roll_back();
                cannot.push((undo.name, why));
            }
        }
        Ok(cannot)
    }

    /// Carries out one undo, or returns why it cannot be.
    async fn undo_one(&self, work: &mut Work, undo: &Registered, failure: &Failure) -> Result<Option<Failure>, Exit> {
        let error = match undo.carry_out(work, failure).await {
            Ok(()) => {
                work.journal(Kind::Undo, undo.name, Some(json!(Undone { undoes: undo.seq })));
                if !work.fused {
                    work.write_onward(failure).await?;
                }
                return Ok(None);
            }
            Err(Halt::Failed(_, error)) if error.is_outage() => return Err(Exit::Outage),
            Err(Halt::Failed(_, StepError::Terminal(why)) | Halt::Fails(why)) => return Ok(Some(why)),
            Err(Halt::Failed(
                _,
                error @ (StepError::Retry(_)
                | StepError::Unknown(_)
                | StepError::NotYet { .. }
                | StepError::Busy { .. }),
            )) => error.to_string(),
            Err(Halt::Crash) => return Err(Exit::Crashed),
            Err(Halt::Again(among)) => return Err(work.again(among)),
            Err(Halt::Outage) => return Err(Exit::Outage),
            Err(Halt::Leaves(exit)) => return Err(exit),
        };
        let policy = RetryPolicy::default();
        let failed = work.failed();
        if failed < policy.max_attempts {
            return Err(Exit::Retry { step: undo.name, error, policy });
        }
        Ok(Some(Failure::new(codes::STEP_FAILED, format!("{} failed {failed} times: {error}", undo.name))))
    }
}

/// Why a run is parked whose unwinding is done but for these. The code is theirs where it says that the
/// cause may pass.
fn waits_for(failure: &Failure, cannot: &[(&'static str, Failure)]) -> Failure {
    let all = |code| cannot.iter().all(|(_, why)| why.code == code);
    let code = [codes::STEP_FAILED, codes::JOURNAL_UNREADABLE]
        .into_iter()
        .find(|code| all(*code))
        .unwrap_or(codes::UNDO_FAILED);
    let undos: Vec<String> = cannot.iter().map(|(undo, why)| format!("{undo} ({why})")).collect();
    let waits: Vec<_> = cannot.iter().map(|(undo, why)| json!({ "undo": undo, "error": why })).collect();
    let detail = format!("unwound for {failure}, and waits for {}", undos.join(", "));
    Failure::new(code, detail).with(json!({ "waitsFor": waits, "unwindsFor": failure }))
}

impl Work {
    /// From here on the run takes back what it did. Says so in the journal, once, and `at_once` in its row.
    pub(crate) async fn give_up(&mut self, failure: &Failure, at_once: bool) -> Result<(), Exit> {
        if self.run.status == RunStatus::Compensating {
            return Ok(());
        }
        self.run.status = RunStatus::Compensating;
        self.run.failure = Some(failure.clone());
        self.journal_error(Kind::Failed, &failure.code, failure.to_json());
        if at_once { self.write_onward(failure).await } else { Ok(()) }
    }

    async fn write_onward(&mut self, failure: &Failure) -> Result<(), Exit> {
        match self.write(Write::Rest(Rest::Compensating { failure: failure.clone() }), false).await {
            Ok(()) => Ok(()),
            Err(Unwritten::Cancelled(_)) => Err(Exit::Refused),
            Err(Unwritten::Exit(exit)) => Err(exit),
        }
    }
}
