//! A refund that somebody asks for: claimed and started in one transaction, so that what was answered
//! "yes" can no longer exceed what was captured. All of it before anything has left is a cancellation.

use chrono::{DateTime, Utc};
use domain::{ids::OrderId, order::OrderStatus};
use engine::Start;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{RefundPayment, RefundRequest};
use crate::{
    cancellation,
    store::{
        cancellations, order_moves, payments,
        refunds::{self, Claim, ClaimError, DueRefund},
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
    let now = engine::sweep::engine_now(&mut *conn).await?;
    let mut order = order_moves::lock(conn, order_id).await?.ok_or(ClaimError::OrderNotFound)?;
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
    Ok(start(conn, claim, &due, now).await?)
}

/// Claims so much of an order's payment, or what is left of it, and starts the run that sends it: for goods
/// that will not be delivered. Returns how much; nothing of what was never captured.
///
/// # Errors
/// The database's own; or that the order, which the caller holds, is none of which pieces can be called off.
pub(crate) async fn up_to(
    conn: &mut PgConnection,
    order_id: OrderId,
    amount: Decimal,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Decimal, sqlx::Error> {
    let claim = Claim { run_id: Uuid::now_v7(), order_id, reason, reference: None };
    let due = claim_up_to(conn, claim, amount, now).await.map_err(|error| match error {
        ClaimError::Database(error) => error,
        // Not `Protocol`, which would read as an outage.
        refused @ (ClaimError::OrderNotFound
        | ClaimError::NothingCaptured
        | ClaimError::ExceedsCaptured { .. }
        | ClaimError::BeingCancelled
        | ClaimError::NotPayable) => sqlx::Error::Decode(Box::new(refused)),
    })?;
    match due {
        Some(due) => {
            start(conn, claim, &due, now).await?;
            Ok(due.amount)
        }
        None => Ok(Decimal::ZERO),
    }
}

/// Claims so much of an order's payment, or what the staff have left of it by earlier refunds.
///
/// # Errors
/// [`ClaimError`], but not for want of money.
pub(crate) async fn claim_up_to(
    conn: &mut PgConnection,
    claim: Claim<'_>,
    amount: Decimal,
    now: DateTime<Utc>,
) -> Result<Option<DueRefund>, ClaimError> {
    if amount.is_zero() {
        return Ok(None);
    }
    match refunds::claim_amount(conn, claim, amount, now).await {
        Ok(due) => Ok(Some(due)),
        Err(ClaimError::ExceedsCaptured { left }) if left.amount() > Decimal::ZERO => {
            refunds::claim_amount(conn, claim, left.amount(), now).await.map(Some)
        }
        Err(ClaimError::ExceedsCaptured { .. } | ClaimError::NothingCaptured) => Ok(None),
        Err(
            error @ (ClaimError::OrderNotFound
            | ClaimError::BeingCancelled
            | ClaimError::NotPayable
            | ClaimError::Database(_)),
        ) => Err(error),
    }
}

/// The run that sends what was claimed under its id.
async fn start(
    conn: &mut PgConnection,
    claim: Claim<'_>,
    due: &DueRefund,
    now: DateTime<Utc>,
) -> Result<Uuid, sqlx::Error> {
    let Claim { run_id, order_id, reason, reference: _ } = claim;
    let gateway = payments::gateway_of(conn, order_id).await?;
    let request =
        RefundRequest { order_id, gateway, reason: reason.to_owned(), amount: Some(due.amount), reference: None };
    let start = Start::<RefundPayment>::new(format!("{order_id}/asked/{run_id}"), &request)
        .map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?
        .with_id(run_id);
    engine::start::start_at(conn, &start, now).await?;
    Ok(run_id)
}
