//! Stuck-run rescue: what can go on without a person goes on; of the rest the staff hears, once.
//!
//! The sweep of each worker pool covers timers, back-offs, lost tickets and dead owners. What it leaves
//! alone are parked runs. Some were parked by what has passed since: a database that was away while an
//! undo tried eight times, workers that died of something else, a release that was rolled back. Those are
//! let go on a few times, ever more rarely; it is harmless, because a run takes up where its journal ends.

use chrono::{DateTime, TimeDelta, Utc};
use domain::notification::StaffReport;
use engine::{
    Failure, Flow, Nothing, Result, Start, Step, StepError, Tx, Workflow, codes,
    park::{self, Parked, Unparked},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::{
    notification::{Notice, Notification},
    store::audit_log::{self, Action},
};

/// Parked runs looked at by one commit.
const BATCH: i64 = 100;
/// Commits of one run. The next begins anew, so this is as many as a journal holds.
const BATCHES: usize = 400;
/// Times a run is let go on before it is a person's.
const TIMES: i64 = 5;
/// Under which name.
const BY: &str = "system:stuck_run_rescue";

/// Reasons that may pass by themselves. All others say what is wrong, and will go on saying it.
const PASSING: [&str; 5] = [
    codes::STEP_FAILED,
    codes::CRASH_LIMIT,
    codes::JOURNAL_DIVERGED,
    codes::JOURNAL_UNREADABLE,
    codes::INPUT_UNREADABLE,
];

/// What a rescue did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rescued {
    /// Runs that nothing would ever have woken.
    pub woken: u64,
    /// Parked runs let go on.
    pub resumed: u64,
    /// Parked runs that the staff was told of.
    pub reported: u64,
}

/// `stuck_run_rescue/v1`, started by its schedule.
#[derive(Debug, Clone, Copy)]
pub struct StuckRunRescue;

impl Workflow for StuckRunRescue {
    const NAME: &'static str = "stuck_run_rescue";
    const QUEUE: &'static str = "maintenance";
    type Input = ();
    type Output = Rescued;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<Rescued> {
        let mut rescued = Rescued { woken: flow.tx(WakeLostRuns).undo(Nothing).await?, ..Rescued::default() };
        let mut after = Some(Uuid::nil());
        for _ in 0..BATCHES {
            let Some(id) = after else { break };
            let batch = flow.tx(RescueParkedRuns { after: id }).undo(Nothing).await?;
            flow.checkpoint().await?;
            rescued.resumed += batch.resumed;
            rescued.reported += batch.reported;
            after = batch.next_after;
        }
        Ok(rescued)
    }
}

/// Gives a time to runs that have none.
#[derive(Debug)]
struct WakeLostRuns;

impl Step for WakeLostRuns {
    const NAME: &'static str = "WakeLostRuns";
    type Output = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, StepError> {
        Ok(park::wake_lost(tx.conn(), BATCH).await?)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    resumed: u64,
    reported: u64,
    next_after: Option<Uuid>,
}

/// Lets go on what may, and tells the staff of what may not.
#[derive(Debug)]
struct RescueParkedRuns {
    after: Uuid,
}

impl Step for RescueParkedRuns {
    const NAME: &'static str = "RescueParkedRuns";
    type Output = Batch;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Batch, StepError> {
        let now = tx.now();
        let parked = park::parked(tx.conn(), BY, self.after, BATCH).await?;
        let mut batch = Batch::default();
        for run in &parked {
            match Verdict::of(run, now) {
                Verdict::Resume => batch.resumed += u64::from(resume(tx, run).await?),
                Verdict::Wait => {}
                Verdict::Report => batch.reported += u64::from(report(tx, run).await?),
            }
        }
        let is_full = i64::try_from(parked.len()).unwrap_or_default() == BATCH;
        batch.next_after = parked.last().filter(|_| is_full).map(|run| run.run_id);
        Ok(batch)
    }
}

/// What is to be done about a parked run.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Resume,
    /// Later: what parked it may not have passed yet.
    Wait,
    Report,
}

impl Verdict {
    fn of(run: &Parked, now: DateTime<Utc>) -> Self {
        let may_pass = run.failure.as_ref().is_some_and(|failure| PASSING.contains(&&*failure.code));
        if !may_pass || run.resumed >= TIMES {
            return Verdict::Report;
        }
        // 1, 5, 25, 125 and 625 minutes after it was parked.
        let due = run.parked_at + TimeDelta::minutes(5_i64.pow(u32::try_from(run.resumed).unwrap_or_default()));
        if now >= due { Verdict::Resume } else { Verdict::Wait }
    }
}

async fn resume(tx: &mut Tx<'_>, run: &Parked) -> Result<bool, StepError> {
    let time = run.resumed + 1;
    let why = format!("what parked it may have passed; time {time} of {TIMES}");
    if park::unpark(tx.conn(), run.run_id, BY, &why).await? != Unparked::Resumed {
        return Ok(false);
    }
    let subject = format!("run:{}", run.run_id);
    let details = json!({ "workflow": run.workflow, "runKey": run.run_key, "parkedFor": run.failure, "time": time });
    let action =
        Action { actor: BY, action: "run.resume", subject: &subject, reason: Some(&why), details: Some(&details) };
    audit_log::record(tx.conn(), action).await?;
    metrics::counter!("cart_engine_runs_rescued_total").increment(1);
    Ok(true)
}

/// Starts the report, once a run: that is its key.
async fn report(tx: &mut Tx<'_>, run: &Parked) -> Result<bool, StepError> {
    let Parked { run_id, workflow, run_key, failure, parked_at, .. } = run;
    let why = failure.as_ref().map_or_else(|| "no reason was recorded".to_owned(), Failure::to_string);
    let text = format!(
        "A run of {workflow} was parked at {parked_at} and needs a person.\n\n\
         Run: {run_id}\nKey: {run_key}\nWhy: {why}\n\n\
         What it was doing is half done until somebody lets it go on: `cart-engine inspect run {run_id}` shows it, \
         `cart-engine run resume {run_id} --reason …` does it.\n"
    );
    let subject = format!("A {workflow} run is stuck");
    let notice = Notice::to_staff("run.stuck", StaffReport { id: *run_id, subject, text });
    Ok(tx.start(Start::<Notification>::new(notice.key(), &notice)?).await?.is_new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(code: &str, resumed: i64, minutes_ago: i64) -> Verdict {
        let now = Utc::now();
        let run = Parked {
            run_id: Uuid::now_v7(),
            workflow: "checkout".to_owned(),
            run_key: "key".to_owned(),
            failure: Some(Failure::new(code, "a test")),
            parked_at: now - TimeDelta::minutes(minutes_ago),
            resumed,
        };
        Verdict::of(&run, now)
    }

    #[test]
    fn what_may_pass_is_tried_ever_more_rarely_and_then_reported() {
        for (code, resumed, minutes_ago, verdict) in [
            ("step-failed", 0, 0, Verdict::Wait),
            ("step-failed", 0, 1, Verdict::Resume),
            ("crash-limit", 1, 4, Verdict::Wait),
            ("crash-limit", 1, 5, Verdict::Resume),
            ("journal-diverged", 4, 624, Verdict::Wait),
            ("journal-diverged", 4, 625, Verdict::Resume),
            ("journal-unreadable", 0, 1, Verdict::Resume),
            ("input-unreadable", 0, 1, Verdict::Resume),
            ("step-failed", 5, 9_999, Verdict::Report),
            ("paid-twice", 0, 0, Verdict::Report),
        ] {
            assert_eq!(parked(code, resumed, minutes_ago), verdict, "{code}, {resumed} times, {minutes_ago} min ago");
        }
    }
}
