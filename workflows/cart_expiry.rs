//! Cart expiry: a cart that nobody has touched for its whole time is EXPIRED. Never one that a checkout
//! holds: its run lets go of it first.

use std::{sync::Arc, time::Duration};

use engine::{Flow, Nothing, Result, Step, StepError, Tx, Workflow};

use crate::{Shop, store::carts::idle};

/// Carts of each kind expired by one commit.
const BATCH: i64 = 200;
/// Commits of one run; what is left then is the next run's.
const BATCHES: usize = 100;

/// `cart_expiry/v1`, started by its schedule.
#[derive(Debug, Clone)]
pub struct CartExpiry(pub Arc<Shop>);

impl Workflow for CartExpiry {
    const NAME: &'static str = "cart_expiry";
    const QUEUE: &'static str = "maintenance";
    type Input = ();
    /// Carts expired.
    type Output = u64;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<u64> {
        let untouched = Duration::from_secs(self.0.rules.user_cart_ttl_s);
        let mut expired = 0;
        for _ in 0..BATCHES {
            let batch = flow.tx(ExpireCarts { untouched }).undo(Nothing).await?;
            flow.checkpoint().await?;
            expired += batch;
            if batch == 0 {
                break;
            }
        }
        Ok(expired)
    }
}

/// ACTIVE or ABANDONED → EXPIRED.
#[derive(Debug)]
struct ExpireCarts {
    /// How long a cart without an end of its own may lie.
    untouched: Duration,
}

impl Step for ExpireCarts {
    const NAME: &'static str = "ExpireCarts";
    type Output = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, StepError> {
        let now = tx.now();
        Ok(idle::expire_idle(tx.conn(), BATCH, now - self.untouched, now).await?)
    }
}
