//! Low-stock alerts: crossings nobody has read yet become one e-mail to the staff.
//!
//! Whatever takes stock writes `inventory.low_stock` when a variant falls to its threshold, once a
//! crossing. How far those have been reported is a row that moves in the commit that starts the report:
//! so each crossing is reported once (seed: Inventory Service, low stock alerts).

use domain::notification::{StaffReport, low_stock_digest};
use engine::{Flow, Nothing, Result, Start, Step, StepError, Tx, Workflow};
use uuid::Uuid;

use crate::{
    notification::{Notice, Notification},
    store::inventory::low_stock,
};

/// Crossings in one digest.
const BATCH: i64 = 100;
/// Digests of one run; what is left then is the next run's.
const BATCHES: usize = 10;

/// `low_stock_alerts/v1`, started by its schedule.
#[derive(Debug, Clone, Copy)]
pub struct LowStockAlerts;

impl Workflow for LowStockAlerts {
    const NAME: &'static str = "low_stock_alerts";
    const QUEUE: &'static str = "maintenance";
    type Input = ();
    /// Crossings reported.
    type Output = u64;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<u64> {
        let mut reported = 0;
        for _ in 0..BATCHES {
            let batch = flow.tx(ReportLowStock).undo(Nothing).await?;
            flow.checkpoint().await?;
            reported += batch;
            if batch < u64::try_from(BATCH).unwrap_or_default() {
                break;
            }
        }
        Ok(reported)
    }
}

/// Reads on where the last report ended, and starts the next.
#[derive(Debug)]
struct ReportLowStock;

impl Step for ReportLowStock {
    const NAME: &'static str = "ReportLowStock";
    type Output = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, StepError> {
        let variants = low_stock::read_on(tx.conn(), BATCH).await?;
        if !variants.is_empty() {
            let (subject, text) = low_stock_digest(&variants);
            let notice = Notice::to_staff("inventory.low_stock", StaffReport { id: Uuid::now_v7(), subject, text });
            tx.start(Start::<Notification>::new(notice.key(), &notice)?).await?;
        }
        Ok(u64::try_from(variants.len()).unwrap_or_default())
    }
}
