//! Cancellation: a confirmed order is taken back, and its money goes home, however long that takes.
//!
//! The steps are under `cancellation/`; what happens before the run exists is [`accept`]. What was accepted
//! there is a promise: the run only goes forward, and a step that keeps failing parks it in plain sight.

pub mod accept;
pub mod compensate;

use std::sync::Arc;

use domain::{ids::OrderId, order::Actor};
use engine::{Flow, Nothing, Result, Start, Workflow};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use self::compensate::{
    AnnounceCancellation, CheckEligibility, MarkCancelled, NoteTextMessage, ReturnInventory, ReverseCoupons,
};
use crate::{
    Shop,
    notification::{Notice, Notification},
    refund::{self, RefundRequest},
};

/// When the money should have arrived (seed: Workflow 3 box 9).
pub const REFUND_ETA: &str = "5-7 business days";

/// What a cancellation is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelRequest {
    /// The order.
    pub order_id: OrderId,
    /// In what capacity it was asked for.
    pub actor: Actor,
    /// Who asked: `user:<id>`, or another caller's name.
    pub by: String,
    /// Why, in their own words.
    pub reason: String,
}

/// What a cancellation comes to (seed: Workflow 3 box 10).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    /// CANCELLED.
    pub status: String,
    /// What went back, in major units of the order's currency.
    pub refund_amount: Decimal,
    /// When it should arrive; none if nothing went back.
    #[serde(rename = "refundETA")]
    pub refund_eta: Option<String>,
}

/// `cancellation/v1`.
#[derive(Debug, Clone)]
pub struct Cancellation(pub Arc<Shop>);

impl Workflow for Cancellation {
    const NAME: &'static str = "cancellation";
    const QUEUE: &'static str = "refund";
    const ONLY_FORWARD: bool = true;
    type Input = CancelRequest;
    type Output = Cancelled;

    async fn run(&self, flow: &mut Flow, request: CancelRequest) -> Result<Cancelled> {
        let (shop, run_id, order_id) = (&*self.0, flow.id(), request.order_id);
        let request = Arc::new(request);

        // 1. Validate cancellation eligibility: decided when it was accepted, and held by the order's mark
        let owed = flow.tx(CheckEligibility { run_id, order_id }).undo(Nothing).await?;

        // 2. Begin the compensation transaction: all or nothing
        let mut flow = flow
            .point_of_no_return((
                // 3. Update order status, and 7. create the state history that goes with it
                MarkCancelled { run_id, request: request.clone() },
                // 4. Refund inventory (with 8's inventory.refunded)
                ReturnInventory { order_id },
                // 5. Reverse coupon usage
                ReverseCoupons { order_id },
                // 8. Publish events: order.cancelled
                AnnounceCancellation { request: request.clone() },
            ))
            .await?;

        // 9. Send notifications: first, because the money may take days
        flow.tx(NoteTextMessage { order_id, recipient: owed.contact_phone }).await?;
        let notice = Notice::of_order("order.cancelled", order_id).because(request.told_reason());
        flow.start(Start::<Notification>::new(notice.key(), &notice)).await?;

        // 6. Process payment refund (with 8's payment.refunded as each part settles)
        let mut refund_amount = Decimal::ZERO;
        if owed.is_captured {
            let refund = Arc::new(RefundRequest::everything(order_id, owed.gateway, request.reason.clone()));
            let due = refund::claim_everything(&mut flow, shop, &refund).await?;
            refund::give_back(&mut flow, shop, &refund, &due).await?;
            refund_amount = due.iter().map(|refund| refund.amount).sum();
        }

        // 10. Return success response
        let refund_eta = (!refund_amount.is_zero()).then(|| REFUND_ETA.to_owned());
        Ok(Cancelled { status: "CANCELLED".to_owned(), refund_amount, refund_eta })
    }
}

impl CancelRequest {
    /// The stable code the e-mail is worded by.
    fn told_reason(&self) -> &'static str {
        match self.actor {
            Actor::Customer => "cancelled",
            Actor::Staff => "cancelled-by-shop",
        }
    }
}
