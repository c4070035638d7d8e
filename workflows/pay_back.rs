//! Money that staff give back: claimed and started in one transaction, so that what was answered "yes" can
//! no longer exceed what was captured. All of it before anything has left is the order's cancellation.

use domain::{ids::OrderId, order::OrderStatus};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    cancellation, refund,
    store::{
        cancellations, orders,
        refunds::{self, Claim, ClaimError},
    },
};

/// Claims `amount` of an order's payment and starts the run that sends it. Returns the run: the order's
/// cancellation, if everything goes back and nothing has left.
///
/// # Errors
/// [`ClaimError`]; nothing is written then.
pub async fn accept(
    conn: &mut PgConnection,
    order_id: OrderId,
    amount: Decimal,
    by: &str,
    reason: &str,
) -> Result<Uuid, ClaimError> {
    let now = engine::now(&mut *conn).await?;
    let mut order = orders::lock(conn, order_id).await?.ok_or(ClaimError::OrderNotFound)?;
    if order.cancellation_run_id.is_some() {
        return Err(ClaimError::BeingCancelled);
    }
    let is_sold = order.status != OrderStatus::Pending && amount > Decimal::ZERO;
    if is_sold && cancellations::refundable(conn, order_id, None).await? == amount {
        let cancelling = cancellation::accept::instead_of_refund(conn, &mut order, by, reason, now).await?;
        if let Some(run_id) = cancelling {
            return Ok(run_id);
        }
    }
    let run_id = Uuid::now_v7();
    let claim = Claim { run_id, order_id, reason, reference: None };
    let due = refunds::claim_amount(conn, claim, amount, now).await?;
    Ok(refund::accept::start(conn, claim, &due, now).await?)
}
