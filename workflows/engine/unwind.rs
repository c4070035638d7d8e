//! Taking back what a run has done.

use std::sync::Arc;

use serde_json::json;

use crate::{
    Engine, Failure, Flow, RetryPolicy, RunStatus, StepError,
    commit::{Rest, Write},
    error::codes,
    group::Halt,
    journal::{Kind, Pending, Undone},
    turn::{Came, Exit, Turn},
    undo::Registered,
    work::Unwritten,
};

impl Engine {
    /// Runs the undos of what was committed, in reverse, then ends the run; what cannot be undone parks it
    /// once all else is.
    pub(crate) async fn unwind(self: &Arc<Self>, mut flow: Flow, failure: Failure) -> Came {
        // What others share commits with them, and is undone then.
        let at_once = !flow.fused || flow.is_bound();
        if !flow.is_bound() {
            flow.roll_back();
        }
        if flow.run.forward_only {
            return self.after(flow, Exit::Stuck(failure)).await;
        }
        // Cancelling a run that unwinds changes nothing; failing twice keeps the first reason.
        let failure = flow.run.failure.clone().unwrap_or(failure);
        if let Err(exit) = flow.give_up(&failure, at_once).await {
            return self.after(flow, exit).await;
        }
        let undos: Vec<_> = std::mem::take(&mut flow.undos)
            .into_iter()
            .rev()
            .filter(|undo| !flow.replay.undone.contains(&undo.seq))
            .collect();
        match self.undo_all(&mut flow, &undos, &failure).await {
            Ok(cannot) if cannot.is_empty() => {}
            Ok(cannot) => return self.after(flow, Exit::Stuck(waits_for(&failure, &cannot))).await,
            Err(exit) => return self.after(flow, exit).await,
        }
        let status = if failure.is_cancelled() { RunStatus::Cancelled } else { RunStatus::Failed };
        match flow.write(Write::Finish { status, output: None, failure: Some(failure.clone()) }, false).await {
            Ok(()) => Ok(Turn::Ended(status)),
            Err(Unwritten::Cancelled(_)) => Ok(Turn::Resting),
            Err(Unwritten::Exit(exit)) => self.after(flow, exit).await,
        }
    }

    /// All in one commit, unless an attempt has failed or one of them cannot be done at all: then each in
    /// one of its own, so that what can be undone is. Returns those that cannot, and why.
    async fn undo_all(
        &self,
        flow: &mut Flow,
        undos: &[Registered],
        failure: &Failure,
    ) -> Result<Vec<(&'static str, Failure)>, Exit> {
        let (mut cannot, mut journalled) = (Vec::new(), Vec::new());
        if flow.fused {
            for undo in undos {
                if self.undo_one(flow, undo, failure).await?.is_some() {
                    flow.roll_back();
                    flow.fused = false;
                    break;
                }
                journalled.push((undo.seq, flow.next_seq - 1));
            }
            if flow.fused {
                return Ok(cannot);
            }
        }
        // Where those that it travelled with went elsewhere, some are committed already.
        let is_done = |undo: &Registered, flow: &Flow| {
            journalled.iter().any(|&(undone, at)| undone == undo.seq && at < flow.committed_seq)
        };
        for undo in undos {
            if is_done(undo, flow) {
                continue;
            }
            if let Some(why) = self.undo_one(flow, undo, failure).await? {
                flow.roll_back();
                cannot.push((undo.name, why));
            }
        }
        Ok(cannot)
    }

    /// Carries out one undo, or returns why it cannot be.
    async fn undo_one(&self, flow: &mut Flow, undo: &Registered, failure: &Failure) -> Result<Option<Failure>, Exit> {
        let error = match undo.carry_out(flow, failure).await {
            Ok(()) => {
                flow.journal(Kind::Undo, undo.name, Some(json!(Undone { undoes: undo.seq })));
                if !flow.fused {
                    flow.write_onward(failure).await?;
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
            Err(Halt::Again(among)) => return Err(flow.again(among)),
            Err(Halt::Outage) => return Err(Exit::Outage),
            Err(Halt::Leaves(exit)) => return Err(exit),
        };
        let policy = RetryPolicy::default();
        let failed = u32::try_from(flow.run.attempt).unwrap_or(u32::MAX).saturating_add(1);
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

impl Flow {
    /// From here on the run takes back what it did. Says so in the journal, once, and `at_once` in its row.
    pub(crate) async fn give_up(&mut self, failure: &Failure, at_once: bool) -> Result<(), Exit> {
        if self.run.status == RunStatus::Compensating {
            return Ok(());
        }
        self.run.status = RunStatus::Compensating;
        self.run.failure = Some(failure.clone());
        let (seq, name) = (self.next_seq, failure.code.clone());
        self.pending.push(Pending { seq, kind: Kind::Failed, name, output: None, error: Some(failure.to_json()) });
        self.next_seq += 1;
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
