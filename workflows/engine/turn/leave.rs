//! How a turn ends before its flow does: what is written, and what is given back.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::mpsc;

use crate::{
    Failure, RunStatus,
    claim::Claimed,
    clock,
    commit::{self, Rest},
    error::codes,
    exit::Exit,
    fence::Fence,
    journal::{Kind, Pending},
    legible::legible,
    retry,
    silence::heard,
    turn::{Again, Came, Engine, Turn},
    undo::Registered,
    work::Work,
};

/// Between two looks of a run whose workflow nobody here knows.
const UNKNOWN: Duration = Duration::from_secs(5);

impl Engine {
    /// Leaves the run the way its exit says.
    pub(crate) async fn after(self: &Arc<Self>, mut work: Work, undos: Vec<Registered>, exit: Exit) -> Came {
        work.roll_back();
        let (fence, now) = (work.fence(), work.now());
        match exit {
            Exit::Resting | Exit::Crashed | Exit::Rehearsed => {}
            // A refused run has another owner, or this one still: then somebody must read its journal anew.
            Exit::Outage | Exit::Refused => {
                let _ = self.lost.send(fence);
            }
            Exit::Again { among } => {
                // What calls have returned is kept: nobody is to be asked, or written to, again for another run's
                // sake. An intent without its call was rolled back in time: nothing has been asked yet.
                let mut entries = work.take_pending();
                if entries.last().is_some_and(|entry| entry.kind == Kind::Intent) {
                    entries.pop();
                }
                if entries.is_empty() || self.leave_at(fence, work.onward(), &entries, now).await {
                    return Err(Again { among });
                }
            }
            Exit::Retry { step, error, policy } => {
                let attempt = work.run.attempt.saturating_add(1);
                let failed = u32::try_from(attempt).unwrap_or(1);
                if failed >= policy.max_attempts {
                    let failure = Failure::new(codes::STEP_FAILED, format!("{step} failed {failed} times: {error}"));
                    let parks = work.run.forward_only || work.run.status == RunStatus::Compensating;
                    return if parks {
                        Box::pin(self.after(work, undos, Exit::Stuck(failure))).await
                    } else {
                        Box::pin(self.unwind(work, undos, failure)).await
                    };
                }
                tracing::info!(run = %fence.run_id, step, attempt, %error, "attempt failed; will be tried again");
                let wake_at = now + policy.delay(failed, rand::random());
                if retry::is_journalled(failed) {
                    let error = json!({ "attempt": attempt, "error": legible(&error) });
                    work.journal_error(Kind::Attempt, step, error);
                }
                let rest = Rest::Retrying { attempt, wake_at, failure: work.unwinds_for() };
                self.leave_at(fence, rest, &work.take_pending(), now).await;
            }
            Exit::PutOff { step, why, until } => {
                tracing::debug!(run = %fence.run_id, step, why, %until, "put off");
                let rest = Rest::Retrying { attempt: work.run.attempt, wake_at: until, failure: work.unwinds_for() };
                self.leave_at(fence, rest, &work.take_pending(), now).await;
            }
            Exit::Stuck(failure) => {
                return self.park(fence, failure, &work.take_pending(), now).await;
            }
        }
        Ok(Turn::Resting)
    }

    pub(crate) async fn park(&self, fence: Fence, failure: Failure, entries: &[Pending], now: DateTime<Utc>) -> Came {
        tracing::error!(run = %fence.run_id, %failure, "parked: an operator must look");
        metrics::counter!("cart_engine_runs_stuck_total").increment(1);
        self.leave_at(fence, Rest::Stuck { failure }, entries, now).await;
        Ok(Turn::Resting)
    }

    /// Another worker of the pool may know the workflow: the run goes back, for a while, and says so.
    pub(crate) async fn give_back_unknown(&self, claimed: &Claimed) -> Came {
        let Claimed { workflow, version, .. } = claimed;
        tracing::warn!(run = %claimed.id, workflow, version, "this worker does not know the workflow");
        metrics::counter!("cart_engine_unknown_workflows_total").increment(1);
        let now = claimed.clock.now();
        let needs = format!("a worker that knows {workflow}/v{version}");
        self.leave_at(Fence::of(claimed), Rest::Unknown { wake_at: now + UNKNOWN, needs }, &[], now).await;
        Ok(Turn::Resting)
    }

    /// Returns whether it is written.
    async fn leave_at(&self, fence: Fence, rest: Rest, entries: &[Pending], now: DateTime<Utc>) -> bool {
        let written = async {
            let mut conn = self.means.pool.acquire().await?;
            commit::rest_one(&mut conn, fence, entries, &rest, now).await
        };
        let is_written = heard(written).await;
        match &is_written {
            Ok(true) => return true,
            Ok(false) => fence.note_refusal(),
            Err(error) => {
                tracing::warn!(run = %fence.run_id, %error, "could not be left in order; will be given back");
            }
        }
        let _ = self.lost.send(fence);
        false
    }
}

/// Gives back the runs an outage tore out of this process' hands, once the database is there again.
/// Until then the runs wait; this process is alive, so nobody else may take them.
pub(crate) async fn give_back(pool: PgPool, mut lost: mpsc::UnboundedReceiver<Fence>) {
    let mut held: Vec<Fence> = Vec::new();
    loop {
        if held.is_empty() {
            match lost.recv().await {
                Some(fence) => held.push(fence),
                None => return,
            }
        }
        while let Ok(fence) = lost.try_recv() {
            held.push(fence);
        }
        let mut kept = Vec::new();
        for fence in held {
            let released = async {
                let now = clock::now(&pool).await?;
                let mut conn = pool.acquire().await?;
                commit::rest_one(&mut conn, fence.whatever_is_written(), &[], &Rest::Released, now).await
            };
            if heard(released).await.is_err() {
                kept.push(fence);
            }
        }
        held = kept;
        if !held.is_empty() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}
