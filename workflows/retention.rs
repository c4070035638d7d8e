//! Retention: what nobody needs any more goes. Finished runs and their journals go a day at a time, as
//! tables; everything else in batches that each hold their locks briefly.
//!
//! Kept for ever: orders, money, stock movements, coupons, messages, events, the audit log. What goes is
//! what came to nothing (expired carts), answered retries (idempotency keys), recognised duplicates (webhooks,
//! business keys), or told how a run got where it is (journals), once nobody can ask any more.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use engine::{Call, CallContext, Flow, Nothing, Result, RetryPolicy, Start, Step, StepError, Tx, Workflow, retire};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Shop,
    store::{carts::idle, fraud::screenings, login_failures, retention},
};

/// Rows of a kind deleted by one commit.
const BATCH: i64 = 2_000;
/// How long a cart that expired is kept, counted from its owner's last activity: guests leave many.
const CARTS_KEPT: TimeDelta = TimeDelta::days(90);
/// No rule against fraud looks back for longer than thirty days.
const KEYS_KEPT: TimeDelta = TimeDelta::days(31);
/// Commits of one run for each purpose; what is left then is the next run's. Half a million rows an hour,
/// ten times what fifty thousand checkouts an hour leave behind.
const BATCHES: usize = 250;
/// The longest statement, and a little: see [`engine::silence::STATEMENT_TIMEOUT`].
const TIMEOUT: Duration = Duration::from_secs(12);

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// Days of finished runs, with their journals.
    pub days: u64,
    /// Finished runs, with their journals, that went one by one.
    pub runs: u64,
    /// Business keys, idempotency keys, webhooks, refresh tokens, expired carts, failed logins, late signals,
    /// what checkouts were counted by, and notes of dead workers.
    pub rows: u64,
}

/// Where a run goes on that one before it has left.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    day: NaiveDate,
    after: Uuid,
}

/// `retention/v1`, started by its schedule; and by itself, at once, when a day had too many slow runs for one.
#[derive(Debug, Clone)]
pub struct Retention(pub Arc<Shop>);

impl Workflow for Retention {
    const NAME: &'static str = "retention";
    const QUEUE: &'static str = "maintenance";
    type Input = Option<Resume>;
    type Output = Deleted;

    async fn run(&self, flow: &mut Flow, resume: Option<Resume>) -> Result<Deleted> {
        let rules = &self.0.rules.retention;
        let mut deleted = Deleted::default();
        let pool = flow.pool().clone();
        flow.call(MakeDays { pool: &pool }).undo(Nothing).await?;
        let due = flow.tx(FindDueDays { rules }).undo(Nothing).await?;
        let mut batches = BATCHES;
        for day in due.days {
            let resumed = resume.as_ref().filter(|resume| resume.day == day);
            let mut after = Some(resumed.map_or(Uuid::nil(), |resume| resume.after));
            // Not dropped before all are dated: a key that is not would go too early.
            while let Some(id) = after {
                if batches == 0 {
                    let next = Some(Resume { day, after: id });
                    flow.start(Start::<Retention>::new(format!("after/{}", flow.id()), &next)).await?;
                    return Ok(deleted);
                }
                batches -= 1;
                after = flow.tx(DateSlowKeys { rules, day, after: id }).undo(Nothing).await?;
                flow.checkpoint().await?;
            }
            let kept_since = due.kept_since;
            deleted.days += u64::from(flow.call(DropDay { pool: &pool, day, kept_since }).undo(Nothing).await?);
        }
        let mut after = Some(Uuid::nil());
        for _ in 0..BATCHES {
            let Some(id) = after else { break };
            let batch = flow.tx(RetireRuns { rules, after: id }).undo(Nothing).await?;
            flow.checkpoint().await?;
            deleted.runs += u64::try_from(batch.runs).unwrap_or_default();
            after = batch.next_after;
        }
        // In turn, so that none waits for all of another.
        let mut kinds = Spent::ALL.to_vec();
        let mut batches = BATCHES;
        while !kinds.is_empty() && batches > 0 {
            let mut left = Vec::with_capacity(kinds.len());
            for kind in kinds {
                let batch = flow.tx(DeleteSpentRows { rules, kind }).undo(Nothing).await?;
                flow.checkpoint().await?;
                batches = batches.saturating_sub(1);
                deleted.rows += batch;
                if batch > 0 {
                    left.push(kind);
                }
            }
            kinds = left;
        }
        Ok(deleted)
    }
}

/// Makes room for the days to come.
struct MakeDays<'a> {
    pool: &'a PgPool,
}

impl Call for MakeDays<'_> {
    const NAME: &'static str = "MakeDays";
    type Output = i64;

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { timeout: TIMEOUT, ..RetryPolicy::default() }
    }

    async fn run(&self, _: &CallContext) -> Result<i64, StepError> {
        Ok(retire::make_days(self.pool).await?)
    }
}

/// The days that may go, and from when on a run that ended is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DueDays {
    days: Vec<NaiveDate>,
    kept_since: DateTime<Utc>,
}

struct FindDueDays<'a> {
    rules: &'a crate::rules::Retention,
}

impl Step for FindDueDays<'_> {
    const NAME: &'static str = "FindDueDays";
    type Output = DueDays;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<DueDays, StepError> {
        let kept_since = tx.now() - self.rules.finished_runs();
        Ok(DueDays { days: retire::days_due(tx.conn(), kept_since).await?, kept_since })
    }
}

/// Runs that took long end later than their ids tell: their keys are given a date of their own.
struct DateSlowKeys<'a> {
    rules: &'a crate::rules::Retention,
    day: NaiveDate,
    after: Uuid,
}

impl Step for DateSlowKeys<'_> {
    const NAME: &'static str = "DateSlowKeys";
    type Output = Option<Uuid>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Option<Uuid>, StepError> {
        Ok(retire::date_slow_keys(tx.conn(), self.day, self.after, BATCH, self.rules.run_keys()).await?)
    }
}

/// A day of finished runs with their journals. No step of a transaction: what it locks it must let go
/// of by itself, whatever becomes of this process.
struct DropDay<'a> {
    pool: &'a PgPool,
    day: NaiveDate,
    kept_since: DateTime<Utc>,
}

impl Call for DropDay<'_> {
    const NAME: &'static str = "DropDay";
    type Output = bool;

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { timeout: TIMEOUT, ..RetryPolicy::default() }
    }

    async fn run(&self, _: &CallContext) -> Result<bool, StepError> {
        Ok(retire::drop_day(self.pool, self.day, self.kept_since).await?)
    }
}

/// Finished runs and their journals that no day takes with it; their business keys stay a while longer.
struct RetireRuns<'a> {
    rules: &'a crate::rules::Retention,
    after: Uuid,
}

impl Step for RetireRuns<'_> {
    const NAME: &'static str = "RetireRuns";
    type Output = retire::Retired;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<retire::Retired, StepError> {
        let before = tx.now() - self.rules.finished_runs();
        Ok(retire::retire_finished(tx.conn(), self.after, BATCH, before, self.rules.run_keys()).await?)
    }
}

/// What goes in batches besides finished runs.
#[derive(Debug, Clone, Copy)]
enum Spent {
    BusinessKeys,
    Signals,
    DeadDeliverers,
    Carts,
    FailedLogins,
    Answers,
    RefreshTokens,
    Webhooks,
    ScreeningKeys,
}

impl Spent {
    const ALL: [Spent; 9] = [
        Spent::BusinessKeys,
        Spent::Signals,
        Spent::DeadDeliverers,
        Spent::Carts,
        Spent::FailedLogins,
        Spent::Answers,
        Spent::RefreshTokens,
        Spent::Webhooks,
        Spent::ScreeningKeys,
    ];
}

/// A batch of one kind: a kind that cannot be deleted keeps no other.
struct DeleteSpentRows<'a> {
    rules: &'a crate::rules::Retention,
    kind: Spent,
}

impl Step for DeleteSpentRows<'_> {
    const NAME: &'static str = "DeleteSpentRows";
    type Output = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, StepError> {
        let (carts_before, keys_before) = (tx.now() - CARTS_KEPT, tx.now() - KEYS_KEPT);
        let (conn, rules) = (tx.conn(), self.rules);
        Ok(match self.kind {
            Spent::BusinessKeys => retire::forget_keys(conn, BATCH, rules.run_keys()).await?,
            Spent::Signals => retire::forget_signals(conn, BATCH).await?,
            Spent::DeadDeliverers => retire::forget_dead_deliverers(conn, BATCH).await?,
            Spent::Carts => idle::delete_expired(conn, BATCH, carts_before).await?,
            Spent::FailedLogins => login_failures::delete_old(conn, BATCH).await?,
            Spent::Answers => retention::delete_answers(conn, BATCH).await?,
            Spent::RefreshTokens => retention::delete_refresh_tokens(conn, BATCH).await?,
            Spent::Webhooks => retention::delete_webhooks(conn, BATCH, rules.webhooks()).await?,
            Spent::ScreeningKeys => screenings::delete_old_keys(conn, BATCH, keys_before).await?,
        })
    }
}
