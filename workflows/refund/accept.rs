//! A refund that somebody asks for: claimed and started in one transaction, so that what was answered
//! "yes" can no longer exceed what was captured.

use domain::ids::OrderId;
use engine::Start;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{RefundPayment, RefundRequest};
use crate::store::{
    payments,
    refunds::{self, Claim, ClaimError},
};

/// Claims `amount` of an order's payment and starts the run that sends it. Answers the run.
///
/// # Errors
/// [`ClaimError`]; nothing is written then.
pub async fn accept(
    conn: &mut PgConnection,
    order_id: OrderId,
    amount: Decimal,
    reason: &str,
) -> Result<Uuid, ClaimError> {
    let now = engine::sweep::engine_now(&mut *conn).await?;
    let run_id = Uuid::now_v7();
    let claim = Claim { run_id, order_id, reason, reference: None };
    let due = refunds::claim_amount(conn, claim, amount, now).await?;
    let gateway = payments::gateway_of(conn, order_id).await?;
    let request =
        RefundRequest { order_id, gateway, reason: reason.to_owned(), amount: Some(due.amount), reference: None };
    let start = Start::<RefundPayment>::new(format!("{order_id}/asked/{run_id}"), &request)
        .map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?
        .with_id(run_id);
    engine::start::start_at(conn, &start, now).await?;
    Ok(run_id)
}
