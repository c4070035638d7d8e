//! Reservation expiry: holds whose ten minutes are over give their stock back, checkout or no checkout.
//!
//! A checkout that is paid after that takes the stock afresh, or refunds.

use engine::{Flow, Nothing, Result, Step, StepError, Tx, Workflow};

use crate::store::inventory;

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
        for _ in 0..BATCHES {
            let batch = flow.tx(ExpireReservations).undo(Nothing).await?;
            flow.checkpoint().await?;
            expired += batch;
            if batch < u64::try_from(BATCH).unwrap_or_default() {
                break;
            }
        }
        Ok(expired)
    }
}

/// ACTIVE → EXPIRED, available +q, reserved −q, for holds past their time.
#[derive(Debug)]
struct ExpireReservations;

impl Step for ExpireReservations {
    const NAME: &'static str = "ExpireReservations";
    type Output = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, StepError> {
        let now = tx.now();
        let expired = inventory::expire(tx.conn(), BATCH, now).await?;
        Ok(u64::try_from(expired).unwrap_or_default())
    }
}
