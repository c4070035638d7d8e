//! Asking for a cancellation: decided in one transaction, by whoever the order belongs to now.

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    order::{CancelRefusal, OrderStatus},
};
use engine::{Delivery, Start};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CancelRequest, Cancellation, compensate::eligible};
use crate::{
    Rules,
    store::{cancellations, order_moves},
};

/// A customer whose cancellation came too late may be followed by staff who still can; more runs than
/// this for one order are a defect.
const RUNS: u32 = 16;

/// The run that takes an order back.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The cancellation, or the checkout of an order that was still PENDING.
    pub workflow_id: Uuid,
    /// How it stands, by the engine's names.
    pub status: String,
    /// What goes back, in major units of `currency`.
    pub refund_amount: Decimal,
    /// ISO 4217.
    pub currency: String,
}

/// Why an order stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// It is not the version that was to be cancelled.
    #[error("the order has changed meanwhile")]
    Changed,
    /// The rules say no.
    #[error(transparent)]
    Refused(#[from] CancelRefusal),
    /// It is between its checkout and its confirmation: ask again in a moment.
    #[error("the order is being worked on")]
    InHand,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Starts the cancellation of an order, or finds the one that was started before. An order that is still
/// PENDING belongs to its checkout: that run is asked to unwind. `is_wanted` is told the order's version.
///
/// The checkout's row is locked before the order's: a checkout that wakes up takes them so, too.
///
/// # Errors
/// [`CancelError`]; nothing is written then.
pub async fn accept(
    conn: &mut PgConnection,
    rules: &Rules,
    request: &CancelRequest,
    is_wanted: impl Fn(DateTime<Utc>) -> bool,
) -> Result<Accepted, CancelError> {
    let order_id = request.order_id;
    let glance = cancellations::glance(conn, order_id).await?.ok_or(CancelError::NotFound)?;
    if glance.order_status == OrderStatus::Pending.as_str() {
        if !is_wanted(glance.updated_at) {
            return Err(CancelError::Changed);
        }
        match engine::cancel(conn, glance.checkout_run_id, &request.reason).await? {
            // Whatever the checkout was about to commit, it now takes back.
            Delivery::Delivered | Delivery::Duplicate => {
                let (workflow_id, currency) = (glance.checkout_run_id, glance.currency);
                let status = "RUNNING".to_owned();
                return Ok(Accepted { workflow_id, status, refund_amount: Decimal::ZERO, currency });
            }
            // It was faster: the order is confirmed, or cancelled.
            Delivery::Refused | Delivery::Finished | Delivery::Unknown => {}
        }
    }
    let order = order_moves::lock(conn, order_id).await?.ok_or(CancelError::NotFound)?;
    match order.status {
        OrderStatus::Pending => return Err(CancelError::InHand),
        OrderStatus::Cancelled => return before(conn, &order).await,
        OrderStatus::Confirmed
        | OrderStatus::Processing
        | OrderStatus::Shipped
        | OrderStatus::Delivered
        | OrderStatus::Refunded => {}
    }
    if !is_wanted(order.updated_at) {
        return Err(CancelError::Changed);
    }
    let now = engine::sweep::engine_now(&mut *conn).await?;
    eligible(conn, rules, &order, request.actor, now).await??;
    for nth in 0..RUNS {
        let start = Start::<Cancellation>::new(key(order_id, nth), request)
            .map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?;
        let run_id = engine::start::start_at(conn, &start, now).await?.run_id;
        // One that came to nothing while the order was another's, or too late, does not bar the next.
        if let Some(run) = cancellations::run(conn, run_id).await?
            && run.status != "FAILED"
            && run.status != "CANCELLED"
        {
            let refund_amount = cancellations::refundable(conn, order_id, Some(run_id)).await?;
            let (status, currency) = (shown(run.status), order.currency);
            return Ok(Accepted { workflow_id: run_id, status, refund_amount, currency });
        }
    }
    Err(CancelError::InHand)
}

/// The run that has cancelled the order already. One that was never confirmed was taken back by its
/// checkout: that counts as this cancellation if somebody had asked for it.
async fn before(conn: &mut PgConnection, order: &order_moves::LockedOrder) -> Result<Accepted, CancelError> {
    let mut latest = None;
    for nth in 0..RUNS {
        match cancellations::run_under(conn, &key(order.id, nth)).await? {
            Some(run_id) => latest = Some(run_id),
            None => break,
        }
    }
    let run_id = latest.unwrap_or(order.checkout_run_id);
    let run = cancellations::run(conn, run_id).await?;
    let refund_amount = cancellations::refundable(conn, order.id, Some(run_id)).await?;
    match run {
        Some(run) if latest.is_some() || run.was_cancelled => {
            let (status, currency) = (shown(run.status), order.currency.clone());
            Ok(Accepted { workflow_id: run_id, status, refund_amount, currency })
        }
        Some(_) | None => Err(CancelRefusal::AlreadyCancelled.into()),
    }
}

fn key(order_id: OrderId, nth: u32) -> String {
    if nth == 0 { order_id.to_string() } else { format!("{order_id}/{nth}") }
}

/// A live run is RUNNING for whoever asked, whatever keeps it.
fn shown(status: String) -> String {
    if matches!(status.as_str(), "COMPLETED" | "FAILED" | "CANCELLED") { status } else { "RUNNING".to_owned() }
}
