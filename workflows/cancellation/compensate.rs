//! The steps that take a confirmed order back. Each is a guarded update: twice is once.

use chrono::{DateTime, Duration, Utc};
use domain::{
    ids::OrderId,
    order::{CancelRefusal, OrderStatus},
};
use engine::{Failure, Step, StepError, Tx};
use serde_json::json;
use sqlx::PgConnection;

use super::CancelRequest;
use crate::{
    Rules,
    store::{
        cancellations::{self, Owed},
        coupons, inventory,
        messages::{self, Skip},
        order_moves::{self, By, LockedOrder, MoveError},
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

/// The order, locked, if this run is the one it was promised to.
async fn lock_promised(tx: &mut Tx<'_>, order_id: OrderId) -> Result<LockedOrder, StepError> {
    let (order, run_id) = (order_moves::lock(tx.conn(), order_id).await?, tx.run_id());
    order
        .filter(|order| order.cancellation_run_id == Some(run_id))
        .ok_or_else(|| Failure::new(NOT_CANCELLABLE, "there is no order that was promised to this cancellation").into())
}

/// Box 1: status, shipments and deadline were checked by whoever accepted; it is this run that they said
/// yes to.
#[derive(Debug)]
pub struct CheckEligibility {
    pub(super) order_id: OrderId,
}

impl Step for CheckEligibility {
    const NAME: &'static str = "CheckEligibility";
    type Output = Owed;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Owed, StepError> {
        let order = lock_promised(tx, self.order_id).await?;
        Ok(cancellations::owed(tx.conn(), order.id).await?)
    }
}

/// Boxes 3 and 7: CANCELLED, with the status it really had in the history.
#[derive(Debug)]
pub struct MarkCancelled<'a> {
    pub(super) request: &'a CancelRequest,
}

impl Step for MarkCancelled<'_> {
    const NAME: &'static str = "MarkCancelled";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        let CancelRequest { order_id, actor, by, reason } = self.request;
        let mut order = lock_promised(tx, *order_id).await?;
        let metadata = json!({ "code": "cancelled", "actor": actor, "workflowId": tx.run_id() });
        let by = By { actor: by, reason: Some(reason), metadata: Some(&metadata) };
        match order_moves::move_to(tx.conn(), &mut order, OrderStatus::Cancelled, by, now).await {
            Ok(()) => {}
            Err(MoveError::Database(error)) => return Err(error.into()),
            Err(error @ (MoveError::Invalid(_) | MoveError::BeingCancelled)) => {
                return Err(Failure::new(NOT_CANCELLABLE, error).into());
            }
        }
        payments::give_up(tx.conn(), order.id, reason, now).await?;
        Ok(())
    }
}

/// Box 4: what was sold is for sale again, but for what was called off or lost before.
#[derive(Debug)]
pub struct ReturnInventory {
    pub(super) order_id: OrderId,
}

impl Step for ReturnInventory {
    const NAME: &'static str = "ReturnInventory";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        coupons::lock_of(tx.conn(), &[self.order_id]).await?;
        let goods = cancellations::goods(tx.conn(), self.order_id).await?;
        inventory::take_back(tx.conn(), self.order_id, &goods, now).await?;
        Ok(())
    }
}

/// Box 5: a used coupon may be used again.
#[derive(Debug)]
pub struct ReverseCoupons {
    pub(super) order_id: OrderId,
}

impl Step for ReverseCoupons {
    const NAME: &'static str = "ReverseCoupons";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        coupons::reverse(tx.conn(), self.order_id, now).await?;
        Ok(())
    }
}

/// Box 8: order.cancelled, in the commit that makes it true.
#[derive(Debug)]
pub struct AnnounceCancellation<'a> {
    pub(super) request: &'a CancelRequest,
}

impl Step for AnnounceCancellation<'_> {
    const NAME: &'static str = "AnnounceCancellation";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        let CancelRequest { order_id, actor, reason, .. } = self.request;
        let data = json!({ "orderId": order_id, "code": "cancelled", "actor": actor, "reason": reason });
        messages::publish(tx.conn(), (*order_id).into(), &[("order.cancelled", data)], now).await?;
        Ok(())
    }
}

/// Box 9, the text message: there is no channel for it, and that is recorded.
#[derive(Debug)]
pub struct NoteTextMessage<'a> {
    pub(super) order_id: OrderId,
    pub(super) recipient: Option<&'a str>,
}

impl Step for NoteTextMessage<'_> {
    const NAME: &'static str = "NoteTextMessage";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        if let Some(recipient) = self.recipient {
            let (subject_id, event, why) = (self.order_id.into(), "order.cancelled", "no SMS channel is configured");
            messages::skip(tx.conn(), &[Skip { subject_id, event, channel: "SMS", recipient, why }], now).await?;
        }
        Ok(())
    }
}
