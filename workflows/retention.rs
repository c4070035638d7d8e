//! Retention: what nobody needs any more is deleted, in batches that each hold their locks briefly.
//!
//! Kept for ever: orders, money, stock movements, coupons, messages, events, the audit log. What goes is
//! what answered retries (idempotency keys), recognised duplicates (webhooks, business keys), or told how
//! a run got where it is (journals), once nobody can ask any more.

use std::sync::Arc;

use engine::{Flow, Nothing, Result, Step, StepError, Tx, Workflow, retire};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Shop, store::retention};

/// Rows of a kind deleted by one commit.
const BATCH: i64 = 500;
/// Commits of one run for each kind; what is left then is the next run's.
const BATCHES: usize = 100;

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// Finished runs, with their journals.
    pub runs: u64,
    /// Business keys, idempotency keys, webhooks, refresh tokens and notes of dead workers.
    pub rows: u64,
}

/// `retention/v1`, started by its schedule.
#[derive(Debug, Clone)]
pub struct Retention(pub Arc<Shop>);

impl Workflow for Retention {
    const NAME: &'static str = "retention";
    const QUEUE: &'static str = "maintenance";
    type Input = ();
    type Output = Deleted;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<Deleted> {
        let rules = &self.0.rules.retention;
        let mut deleted = Deleted::default();
        let mut after = Some(Uuid::nil());
        for _ in 0..BATCHES {
            let Some(id) = after else { break };
            let batch = flow.tx(RetireRuns { rules, after: id }).undo(Nothing).await?;
            flow.checkpoint().await?;
            deleted.runs += u64::try_from(batch.runs).unwrap_or_default();
            after = batch.next_after;
        }
        for _ in 0..BATCHES {
            let batch = flow.tx(DeleteSpentRows { rules }).undo(Nothing).await?;
            flow.checkpoint().await?;
            deleted.rows += batch;
            if batch == 0 {
                break;
            }
        }
        Ok(deleted)
    }
}

/// Finished runs and their journals; their business keys stay a while longer.
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

/// A batch of everything else.
struct DeleteSpentRows<'a> {
    rules: &'a crate::rules::Retention,
}

impl Step for DeleteSpentRows<'_> {
    const NAME: &'static str = "DeleteSpentRows";
    type Output = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, StepError> {
        Ok(retire::forget_keys(tx.conn(), BATCH).await?
            + retire::forget_dead_deliverers(tx.conn(), BATCH).await?
            + retention::delete_answers(tx.conn(), BATCH).await?
            + retention::delete_refresh_tokens(tx.conn(), BATCH).await?
            + retention::delete_webhooks(tx.conn(), BATCH, self.rules.webhooks()).await?)
    }
}
