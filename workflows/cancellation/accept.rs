//! Asking for a cancellation: decided in one transaction, under the order's lock, and a promise from then
//! on. The order is marked with the run that takes it back, and whoever would move it elsewhere finds that.

use chrono::{DateTime, Utc};
use domain::order::{Actor, CancelRefusal, OrderStatus};
use engine::{
    RunStatus, Start, codes,
    run::{self, Delivery},
};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CancelRequest, Cancellation, compensate::eligible};
use crate::{
    Rules,
    store::{
        cancellations,
        orders::{self, LockedOrder},
        shipments,
    },
};

/// The run that takes an order back.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The cancellation, or the checkout of an order that was still PENDING.
    pub workflow_id: Uuid,
    /// How it stands, by the engine's names.
    pub status: RunStatus,
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
    /// The reason is longer than may be kept, or holds what Postgres cannot keep.
    #[error("the reason cannot be kept")]
    Unkeepable,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Starts the cancellation of an order, or finds the one that was started before. An order that is still
/// PENDING belongs to its checkout: that run is asked to unwind. `is_wanted` is told the order's version.
///
/// # Errors
/// [`CancelError`]; nothing is written then.
pub async fn accept(
    conn: &mut PgConnection,
    rules: &Rules,
    request: &CancelRequest,
    is_wanted: impl Fn(DateTime<Utc>) -> bool,
) -> Result<Accepted, CancelError> {
    let mut order = orders::lock(conn, request.order_id).await?.ok_or(CancelError::NotFound)?;
    if let Some(run_id) = order.cancellation_run_id {
        return Ok(promised(conn, order, run_id).await?);
    }
    if order.status == OrderStatus::Cancelled {
        return taken_back(conn, order).await;
    }
    if !is_wanted(order.updated_at) {
        return Err(CancelError::Changed);
    }
    if order.status == OrderStatus::Pending {
        return match run::cancel(conn, order.checkout_run_id, &request.reason).await? {
            // Whatever the checkout was about to commit, it now takes back.
            Delivery::Delivered | Delivery::Duplicate => Ok(Accepted {
                workflow_id: order.checkout_run_id,
                status: RunStatus::Running,
                refund_amount: Decimal::ZERO,
                currency: order.currency,
            }),
            Delivery::Invalid => Err(CancelError::Unkeepable),
            Delivery::Refused | Delivery::Finished | Delivery::Unknown => Err(CancelError::InHand),
        };
    }
    let now = engine::now(&mut *conn).await?;
    eligible(conn, rules, &order, request.actor, now).await??;
    let run_id = begin(conn, &mut order, request, now).await?;
    Ok(promised(conn, order, run_id).await?)
}

/// The staff give back everything that is left of an order's money. If the order can still be cancelled,
/// that is what it comes to: nobody ships what has been paid back. Returns the run, if so.
///
/// # Errors
/// The database's own.
pub async fn instead_of_refund(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    by: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Option<Uuid>, sqlx::Error> {
    let parcels = shipments::statuses(conn, order.id).await?;
    if order.status == OrderStatus::Pending || order.status.cancellable_by(Actor::Staff, &parcels, None, now).is_err() {
        return Ok(None);
    }
    let (actor, by, reason) = (Actor::Staff, by.to_owned(), reason.to_owned());
    let request = CancelRequest { order_id: order.id, actor, by, reason };
    begin(conn, order, &request, now).await.map(Some)
}

/// The promise: the run, and the order marked with it, in one transaction.
pub(crate) async fn begin(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    request: &CancelRequest,
    now: DateTime<Utc>,
) -> Result<Uuid, sqlx::Error> {
    let start = Start::<Cancellation>::new(order.id.to_string(), request)
        .map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?;
    let run_id = engine::start_at(conn, &start, now).await?.run_id;
    orders::promise_to(conn, order, run_id, now).await?;
    Ok(run_id)
}

/// What was promised, told the same way however often it is asked for.
async fn promised(conn: &mut PgConnection, order: LockedOrder, run_id: Uuid) -> Result<Accepted, sqlx::Error> {
    let refund_amount = cancellations::refundable(conn, order.id, Some(run_id)).await?;
    let run = run::glance(conn, run_id).await?;
    let status = match run {
        // A live run is RUNNING for whoever asked, whatever keeps it.
        Some(run) if run.status != RunStatus::Completed => RunStatus::Running,
        // What has ended long ago is not kept.
        Some(_) | None => RunStatus::Completed,
    };
    Ok(Accepted { workflow_id: run_id, status, refund_amount, currency: order.currency })
}

/// An order that was never confirmed was taken back by its checkout: that counts as this cancellation if
/// somebody had asked for it.
async fn taken_back(conn: &mut PgConnection, order: LockedOrder) -> Result<Accepted, CancelError> {
    match run::glance(conn, order.checkout_run_id).await? {
        Some(run) if run.failed_with(codes::CANCELLED) => {
            let status = if run.status.has_ended() { run.status } else { RunStatus::Running };
            let refund_amount = cancellations::refundable(conn, order.id, Some(order.checkout_run_id)).await?;
            Ok(Accepted { workflow_id: order.checkout_run_id, status, refund_amount, currency: order.currency })
        }
        Some(_) | None => Err(CancelRefusal::AlreadyCancelled.into()),
    }
}
