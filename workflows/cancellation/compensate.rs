//! The steps that take a confirmed order back. Each is a guarded update: twice is once.

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use domain::{
    ids::OrderId,
    order::{CancelRefusal, OrderStatus},
};
use engine::{Failure, SetResult, SetStep, SetTx, StepError, done};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::CancelRequest;
use crate::{
    Rules,
    store::{
        cancellations::{self, Owed},
        coupons, inventory,
        messages::{self, Event, Skip},
        orders::{self, By, LockedOrder, Move},
        payments, shipments,
    },
};

/// The code of every refusal.
pub const NOT_CANCELLABLE: &str = "order-not-cancellable";

/// Whether a locked order may be cancelled now (seed: Workflow 3 box 1).
///
/// # Errors
/// The database's own; the inner result is the refusal.
pub async fn eligible(
    conn: &mut PgConnection,
    rules: &Rules,
    order: &LockedOrder,
    actor: domain::order::Actor,
    now: DateTime<Utc>,
) -> Result<Result<(), CancelRefusal>, sqlx::Error> {
    let parcels = shipments::statuses(conn, order.id).await?;
    let window = rules.cancel_deadline_s.and_then(|s| i64::try_from(s).ok()).and_then(Duration::try_seconds);
    let deadline = order.confirmed_at.zip(window).and_then(|(from, window)| from.checked_add_signed(window));
    Ok(order.status.cancellable_by(actor, &parcels, deadline, now))
}

/// The orders of these runs, locked; refused is a run to which its order was not promised.
async fn lock_promised(
    tx: &mut SetTx<'_>,
    runs: &[(Uuid, OrderId)],
) -> Result<Vec<Result<LockedOrder, Failure>>, StepError> {
    let orders: Vec<OrderId> = runs.iter().map(|(_, order_id)| *order_id).collect();
    let mut locked = orders::lock_many(tx.conn(), &orders).await?;
    let promised = |(run_id, order_id): &(Uuid, OrderId)| {
        locked
            .remove(order_id)
            .filter(|order| order.cancellation_run_id == Some(*run_id))
            .ok_or_else(|| Failure::new(NOT_CANCELLABLE, "there is no order that was promised to this cancellation"))
    };
    Ok(runs.iter().map(promised).collect())
}

/// Box 1: status, shipments and deadline were checked by whoever accepted; it is this run that they said
/// yes to.
#[derive(Debug)]
pub struct CheckEligibility {
    pub(super) run_id: Uuid,
    pub(super) order_id: OrderId,
}

impl SetStep for CheckEligibility {
    const NAME: &'static str = "CheckEligibility";
    type Output = Owed;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Owed> {
        let runs: Vec<_> = rows.iter().map(|row| (row.run_id, row.order_id)).collect();
        let locked = lock_promised(tx, &runs).await?;
        let orders: Vec<OrderId> = rows.iter().map(|row| row.order_id).collect();
        let owed = cancellations::owed(tx.conn(), &orders).await?;
        let of = |order: LockedOrder| {
            owed.get(&order.id).cloned().ok_or_else(|| Failure::new("payment-not-found", "the order has no payment"))
        };
        Ok(locked.into_iter().map(|order| order.and_then(of)).collect())
    }
}

/// Boxes 3 and 7: CANCELLED, with the status it really had in the history.
#[derive(Debug)]
pub struct MarkCancelled {
    pub(super) run_id: Uuid,
    pub(super) request: Arc<CancelRequest>,
}

impl SetStep for MarkCancelled {
    const NAME: &'static str = "MarkCancelled";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        let runs: Vec<_> = rows.iter().map(|row| (row.run_id, row.request.order_id)).collect();
        let mut locked = lock_promised(tx, &runs).await?;
        let metadata: Vec<_> = rows
            .iter()
            .map(|row| json!({ "code": "cancelled", "actor": row.request.actor, "workflowId": row.run_id }))
            .collect();
        let mut moves: Vec<Move<'_>> = locked
            .iter_mut()
            .zip(rows.iter().zip(&metadata))
            .filter_map(|(order, (row, metadata))| {
                let CancelRequest { by, reason, .. } = &*row.request;
                let by = By { actor: by, reason: Some(reason), metadata: Some(metadata) };
                Some(Move { order: order.as_mut().ok()?, to: OrderStatus::Cancelled, by })
            })
            .collect();
        let mut moved = orders::move_many(tx.conn(), &mut moves, now).await?.into_iter();
        let results: Vec<Result<(), Failure>> = locked
            .into_iter()
            .map(|order| match (order, moved.next()) {
                (Err(refusal), _) => Err(refusal),
                (Ok(_), Some(Err(error))) => Err(Failure::new(NOT_CANCELLABLE, error)),
                (Ok(_), Some(Ok(())) | None) => Ok(()),
            })
            .collect();
        let given_up: Vec<(OrderId, &str)> = rows
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .map(|(row, _)| (row.request.order_id, row.request.reason.as_str()))
            .collect();
        payments::give_up(tx.conn(), &given_up, now).await?;
        Ok(results)
    }
}

/// Box 4: what was sold is for sale again, but for what was called off or lost before.
#[derive(Debug)]
pub struct ReturnInventory {
    pub(super) order_id: OrderId,
}

impl SetStep for ReturnInventory {
    const NAME: &'static str = "ReturnInventory";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.order_id).collect(), tx.now());
        coupons::lock_of(tx.conn(), &orders).await?;
        let goods = cancellations::goods(tx.conn(), &orders).await?;
        inventory::take_back(tx.conn(), &goods, now).await?;
        done(rows)
    }
}

/// Box 5: a used coupon may be used again.
#[derive(Debug)]
pub struct ReverseCoupons {
    pub(super) order_id: OrderId,
}

impl SetStep for ReverseCoupons {
    const NAME: &'static str = "ReverseCoupons";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.order_id).collect(), tx.now());
        coupons::reverse(tx.conn(), &orders, now).await?;
        done(rows)
    }
}

/// Box 8: order.cancelled, in the commit that makes it true.
#[derive(Debug)]
pub struct AnnounceCancellation {
    pub(super) request: Arc<CancelRequest>,
}

impl SetStep for AnnounceCancellation {
    const NAME: &'static str = "AnnounceCancellation";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        let events: Vec<Event> = rows
            .iter()
            .map(|row| {
                let CancelRequest { order_id, actor, reason, .. } = &*row.request;
                let data = json!({ "orderId": order_id, "code": "cancelled", "actor": actor, "reason": reason });
                Event { subject: (*order_id).into(), event_type: "order.cancelled", data }
            })
            .collect();
        messages::publish_many(tx.conn(), &events, now).await?;
        done(rows)
    }
}

/// Box 9, the text message: there is no channel for it, and that is recorded.
#[derive(Debug)]
pub struct NoteTextMessage {
    pub(super) order_id: OrderId,
    pub(super) recipient: Option<String>,
}

impl SetStep for NoteTextMessage {
    const NAME: &'static str = "NoteTextMessage";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (event, why, now) = ("order.cancelled", "no SMS channel is configured", tx.now());
        let skips: Vec<Skip<'_>> = rows
            .iter()
            .filter_map(|row| {
                let (subject_id, recipient) = (row.order_id.into(), row.recipient.as_deref()?);
                Some(Skip { subject_id, event, channel: "SMS", recipient, why })
            })
            .collect();
        messages::skip(tx.conn(), &skips, now).await?;
        done(rows)
    }
}
