//! What other rules would have made of past checkouts.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    fraud::{Decision, Facts, RuleSet, Tally, evaluate},
    ids::OrderId,
};
use sqlx::PgConnection;

use crate::store::fraud::past::{self, Past};

/// Checkouts that are looked at, those before the time in question included: what they came with is held in memory.
pub const MOST_CHECKOUTS: usize = 50_000;
/// Changes that are listed.
pub const MOST_CHANGES: usize = 100;

/// A checkout that would have got something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub order_id: OrderId,
    /// What it got.
    pub was: Decision,
    /// What it would have got.
    pub now: Decision,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DryRun {
    /// Checkouts in that time, those that were denied included.
    pub orders: u64,
    /// Those that would have been let through.
    pub allow: u64,
    /// Those that somebody would have had to look at.
    pub review: u64,
    /// Those that would have gone no further.
    pub deny: u64,
    /// The first that would have got something else, in the order in which they came.
    pub changed: Vec<Change>,
    /// There are more of them than are listed.
    pub truncated: bool,
}

/// Why there was none.
#[derive(Debug, thiserror::Error)]
pub enum DryRunError {
    /// Too much to look at.
    #[error("there were more than {MOST_CHECKOUTS} checkouts in that time, or before it as far as the rules look back")]
    TooMany,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Scores what was screened from `from` on and before `to` once more, by these rules. Nothing is written.
///
/// What was counted when a checkout came stands; what was not, because no rule asked for it then, is counted from what
/// was screened before.
///
/// # Errors
/// [`DryRunError`].
pub async fn dry_run(
    conn: &mut PgConnection,
    rules: &RuleSet,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<DryRun, DryRunError> {
    let since = from - TimeDelta::seconds(rules.longest_window_s().into());
    let most = i64::try_from(MOST_CHECKOUTS).unwrap_or(i64::MAX);
    let past = past::read(conn, since, to, most + 1).await?;
    if past.len() > MOST_CHECKOUTS {
        return Err(DryRunError::TooMany);
    }
    let (mut tally, mut outcome) = (Tally::default(), DryRun::default());
    for Past { order_id, decision, facts, failures, .. } in &past {
        if facts.at >= from {
            let facts = Facts { counts: tally.counts(rules, facts), ..facts.clone() };
            outcome.count(*order_id, *decision, evaluate(rules, &facts).decision);
        }
        tally.add(facts, failures);
    }
    Ok(outcome)
}

impl DryRun {
    fn count(&mut self, order_id: OrderId, was: Decision, now: Decision) {
        self.orders += 1;
        match now {
            Decision::Allow => self.allow += 1,
            Decision::Review => self.review += 1,
            Decision::Deny => self.deny += 1,
        }
        if was == now {
            return;
        }
        if self.changed.len() < MOST_CHANGES {
            self.changed.push(Change { order_id, was, now });
        } else {
            self.truncated = true;
        }
    }
}
