//! Money that others claim of an order's payment, in a transaction of theirs.

use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use engine::Start;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{RefundPayment, RefundRequest};
use crate::store::{
    payments,
    refunds::{self, Claim, ClaimError, DueRefund},
};

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

/// Starts the run that sends what was claimed under its id.
pub(crate) async fn start(
    conn: &mut PgConnection,
    claim: Claim<'_>,
    due: &DueRefund,
    now: DateTime<Utc>,
) -> Result<Uuid, sqlx::Error> {
    let Claim { run_id, order_id, reason, reference: _ } = claim;
    let gateway = payments::gateway_of(conn, order_id).await?;
    let everything = RefundRequest::everything(order_id, gateway, reason.to_owned());
    let request = RefundRequest { amount: Some(due.amount), ..everything };
    let start = Start::<RefundPayment>::new(format!("{order_id}/asked/{run_id}"), &request)
        .map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?
        .with_id(run_id);
    engine::start_at(conn, &start, now).await?;
    Ok(run_id)
}
