//! Taking back what a run has done.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use serde_json::json;

use crate::{
    Engine, Failure, Flow, RetryPolicy, RunStatus, StepError, Tx,
    commit::{Rest, Write},
    error::codes,
    fault::{Fault, Point},
    flow::Open,
    journal::{Kind, Pending, Undone},
    silence::SILENCE,
    turn::{Came, Exit, Turn, panic_text},
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
        let mut cannot = Vec::new();
        if flow.fused {
            for undo in undos {
                if self.undo_one(flow, undo, failure).await?.is_some() {
                    flow.roll_back();
                    flow.fused = false;
                    break;
                }
            }
            if flow.fused {
                return Ok(cannot);
            }
        }
        for undo in undos {
            if let Some(why) = self.undo_one(flow, undo, failure).await? {
                flow.roll_back();
                cannot.push((undo.name, why));
            }
        }
        Ok(cannot)
    }

    /// Carries out one undo, or returns why it cannot be.
    async fn undo_one(&self, flow: &mut Flow, undo: &Registered, failure: &Failure) -> Result<Option<Failure>, Exit> {
        let error = match self.carry_out_undo(flow, undo, failure).await? {
            Ok(()) => {
                flow.journal(Kind::Undo, undo.name, Some(json!(Undone { undoes: undo.seq })));
                if !flow.fused {
                    flow.write_onward(Rest::Compensating { failure: failure.clone() }).await?;
                }
                return Ok(None);
            }
            Err(error) if error.is_outage() => return Err(Exit::Outage),
            Err(StepError::Terminal(why)) => return Ok(Some(why)),
            Err(
                error @ (StepError::Retry(_)
                | StepError::Unknown(_)
                | StepError::NotYet { .. }
                | StepError::Busy { .. }),
            ) => error.to_string(),
        };
        let policy = RetryPolicy::default();
        let failed = u32::try_from(flow.run.attempt).unwrap_or(u32::MAX).saturating_add(1);
        if failed < policy.max_attempts {
            return Err(Exit::Retry { step: undo.name, error, policy });
        }
        Ok(Some(Failure::new(codes::STEP_FAILED, format!("{} failed {failed} times: {error}", undo.name))))
    }

    async fn carry_out_undo(
        &self,
        flow: &mut Flow,
        undo: &Registered,
        failure: &Failure,
    ) -> Result<Result<(), StepError>, Exit> {
        let mut times = 1;
        match self.means.fault(Point::Before, undo.name) {
            None | Some(Fault::Unreadable | Fault::Panic) => {}
            Some(Fault::Crash) => return Err(Exit::Crashed),
            Some(Fault::Fail(failure)) => return Ok(Err(failure.into())),
            Some(Fault::Retry) => return Ok(Err(StepError::Retry("injected".into()))),
            Some(Fault::Twice) => times = 2,
        }
        if flow.tx.is_none() {
            flow.tx = Some(self.means.begin().await.map_err(|_| Exit::Outage)?);
        }
        let (run_id, now) = (flow.run.id, flow.now());
        let savepoint = |sql: &'static str| sqlx::query(sql);
        for time in 1..=times {
            let Some(Open { tx: transaction, .. }) = flow.tx.as_mut() else { return Err(Exit::Outage) };
            if time < times {
                savepoint("savepoint first").execute(&mut **transaction).await.map_err(|_| Exit::Outage)?;
            }
            let mut tx = Tx { conn: &mut *transaction, run_id, now, failure: Some(failure) };
            // A panic here is a failed attempt: this worker lives, so nobody else would take the run.
            let undoing = AssertUnwindSafe(undo.undo.undo(&mut tx, undo.output.clone())).catch_unwind();
            // A slow one, too; that the database is away shows when this attempt cannot be written down.
            match tokio::time::timeout(SILENCE, undoing).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => return Ok(Err(error)),
                Ok(Err(panic)) => {
                    return Ok(Err(StepError::Retry(format!("panicked: {}", panic_text(&*panic)).into())));
                }
                Err(elapsed) => return Ok(Err(StepError::Retry(Box::new(elapsed)))),
            }
            if time < times {
                savepoint("rollback to savepoint first").execute(&mut **transaction).await.map_err(|_| Exit::Outage)?;
            }
        }
        match self.means.fault(Point::After, undo.name) {
            Some(Fault::Crash) => Err(Exit::Crashed),
            None | Some(Fault::Fail(_) | Fault::Retry | Fault::Twice | Fault::Unreadable | Fault::Panic) => Ok(Ok(())),
        }
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
        if at_once { self.write_onward(Rest::Compensating { failure: failure.clone() }).await } else { Ok(()) }
    }

    async fn write_onward(&mut self, rest: Rest) -> Result<(), Exit> {
        match self.write(Write::Rest(rest), false).await {
            Ok(()) => Ok(()),
            Err(Unwritten::Cancelled(_)) => Err(Exit::Refused),
            Err(Unwritten::Exit(exit)) => Err(exit),
        }
    }
}
