//! Reservation expiry: holds whose ten minutes are over give their stock back, checkout or no checkout.
//!
//! A checkout that is paid after that takes the stock afresh, or refunds.

use engine::{Flow, Nothing, Result, Step, StepError, Tx, Workflow};
use serde::{Deserialize, Serialize};

use crate::store::{
    alone,
    inventory::{self, Overdue},
};

/// Holds expired by one commit.
const BATCH: i64 = 200;
/// Commits of one run; what is left then is the next run's.
const BATCHES: usize = 100;

/// `reservation_expiry/v1`, started by its schedule.
#[derive(Debug, Clone, Copy)]
pub struct ReservationExpiry;

impl Workflow for ReservationExpiry {
    const NAME: &'static str = "reservation_expiry";
    const QUEUE: &'static str = "maintenance";
    type Input = ();
    type Output = u64;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<u64> {
        let mut expired = 0;
        let mut after = None;
        for _ in 0..BATCHES {
            let batch = flow.tx(ExpireReservations { after }).undo(Nothing).await?;
            flow.checkpoint().await?;
            expired += batch.expired;
            after = batch.next_after;
            if after.is_none() {
                break;
            }
        }
        Ok(expired)
    }
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    expired: u64,
    /// The last of a full one: past it there may be more.
    next_after: Option<Overdue>,
}

/// ACTIVE → EXPIRED, available +q, reserved −q, for holds past their time. One whose stock cannot be given
/// back, because its counters are wrong, stays as it is for people to see, and the others do not wait for it.
#[derive(Debug)]
struct ExpireReservations {
    after: Option<Overdue>,
}

impl Step for ExpireReservations {
    const NAME: &'static str = "ExpireReservations";
    type Output = Batch;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Batch, StepError> {
        let now = tx.now();
        let holds = inventory::overdue(tx.conn(), self.after, BATCH, now).await?;
        let mut expired = holds.len();
        if let Err(problem) = expire(tx, &holds).await? {
            tracing::warn!(problem, "a batch of holds cannot be expired; each is tried by itself");
            expired = 0;
            for hold in &holds {
                match expire(tx, std::slice::from_ref(hold)).await? {
                    Ok(()) => expired += 1,
                    Err(problem) => tracing::error!(reservation_id = %hold.id, problem, "a hold cannot be expired"),
                }
            }
        }
        let is_full = i64::try_from(holds.len()).unwrap_or_default() == BATCH;
        let next_after = holds.last().filter(|_| is_full).copied();
        Ok(Batch { expired: u64::try_from(expired).unwrap_or_default(), next_after })
    }
}

async fn expire(tx: &mut Tx<'_>, holds: &[Overdue]) -> Result<Result<(), String>, StepError> {
    let now = tx.now();
    alone::begin(tx).await?;
    let done = inventory::expire(tx.conn(), holds, now).await.map_err(StepError::from);
    alone::end(tx, done).await
}
