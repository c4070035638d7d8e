//! Return: goods of a delivered order come back, and what they cost goes back to the customer.
//!
//! The customer asks ([`desk::request`]), and the run waits, without a worker, for what the staff say
//! ([`desk::decide`]): approved, and then received. From there it only goes forward.

pub mod desk;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    order::OrderStatus,
    returns::{ReturnStatus, share_of_line},
};
use engine::{Failure, Flow, Nothing, Result, SetTx, Start, Step, StepError, Tx, Undo, Undoing, Workflow};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Shop,
    notification::{Notice, Notification},
    refund::{DueRefund, RefundRequest, accept::claim_up_to, give_back},
    store::{
        inventory::{self, Piece},
        orders::{self, By, LockedOrder, MoveError},
        refunds::Claim,
        returns::{self, ReturnedLine},
    },
};

/// Who the history names when the last piece of an order has been paid back.
const ACTOR: &str = "return";

/// The signal that says whether a return may be sent.
pub(crate) const DECISION: &str = "decision";

/// The signal that says whether its goods are here, as they should be.
pub(crate) const ARRIVAL: &str = "arrival";

/// A line of an order, however it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineName {
    /// By its own id.
    Item(Uuid),
    /// By the variant's id or SKU.
    Variant(String),
}

impl LineName {
    /// Whether this line is meant.
    pub fn names(&self, order_item_id: Uuid, variant_id: Uuid, sku: &str) -> bool {
        match self {
            LineName::Item(id) => *id == order_item_id,
            LineName::Variant(name) => name == sku || Uuid::parse_str(name) == Ok(variant_id),
        }
    }
}

/// What a return is started with.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReturnRequest {
    /// Which return.
    pub return_id: Uuid,
    /// Of which order.
    pub order_id: OrderId,
    /// How long it waits for a decision, and then for its parcel, in seconds: the shop's rule when it was
    /// asked for, as is the next.
    pub patience_s: u64,
    /// The shipping charge goes back with the last piece.
    pub refunds_shipping: bool,
}

/// `return/v1`.
#[derive(Debug, Clone)]
pub struct OrderReturn(pub Arc<Shop>);

impl Workflow for OrderReturn {
    const NAME: &'static str = "return";
    const QUEUE: &'static str = "refund";
    type Input = ReturnRequest;
    /// REFUNDED or REJECTED.
    type Output = ReturnStatus;

    async fn run(&self, flow: &mut Flow, request: ReturnRequest) -> Result<ReturnStatus> {
        let ReturnRequest { return_id, order_id, patience_s, .. } = request;
        let (shop, patience) = (&*self.0, Duration::from_secs(patience_s));
        flow.accepted(WithdrawReturn { request });

        // The staff decide
        let may_come = match flow.wait_for::<bool>(DECISION, patience).await? {
            Some(may_come) => may_come,
            None => flow.tx(LapseReturn { request, awaited: ReturnStatus::Requested }).undo(Nothing).await?,
        };
        if !may_come {
            return self.reject(flow, request).await;
        }
        flow.start(told("return.approved", request)).await?;

        // The goods arrive
        let is_here = match flow.wait_for::<bool>(ARRIVAL, patience).await? {
            Some(is_here) => is_here,
            None => flow.tx(LapseReturn { request, awaited: ReturnStatus::Approved }).undo(Nothing).await?,
        };
        if !is_here {
            return self.reject(flow, request).await;
        }

        // They are ours now, and the money is owed: since they were received this run only goes forward, or parks
        let mut flow = flow.point_of_no_return(AcceptGoods).await?;
        flow.start(told("return.received", request)).await?;
        let owed = flow.tx(AssessGoods { request }).await?;
        let refund = RefundRequest {
            amount: Some(owed.amount),
            reference: Some(return_id.to_string()),
            ..RefundRequest::everything(order_id, owed.gateway, "goods were returned".to_owned())
        };
        let due = flow.tx(ClaimWorth { return_id, refund: &refund, amount: owed.amount }).await?;
        flow.tx(Restock { request }).await?;
        give_back(&mut flow, shop, &refund, &due).await?;
        flow.tx(CloseReturn { request }).await
    }
}

impl OrderReturn {
    async fn reject(&self, flow: &mut Flow, request: ReturnRequest) -> Result<ReturnStatus> {
        let note = flow.tx(ReadNote { return_id: request.return_id }).undo(Nothing).await?;
        let notice = Notice::of_part("return.rejected", request.order_id, request.return_id).because(note);
        flow.start(Start::<Notification>::new(notice.key(), &notice)).await?;
        Ok(ReturnStatus::Rejected)
    }
}

fn told(event: &str, request: ReturnRequest) -> Result<Start<Notification>> {
    let notice = Notice::of_part(event, request.order_id, request.return_id);
    Start::new(notice.key(), &notice)
}

/// An operator stops the run before its goods are here: nothing goes back, and the pieces may be returned anew.
struct WithdrawReturn {
    request: ReturnRequest,
}

impl Undo<()> for WithdrawReturn {
    const NAME: Option<&'static str> = Some("WithdrawReturn");

    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, ()>]) -> Result<(), StepError> {
        let now = tx.now();
        for row in rows {
            let ReturnRequest { return_id, order_id, .. } = row.undo.request;
            orders::lock(tx.conn(), order_id).await?;
            for awaited in [ReturnStatus::Requested, ReturnStatus::Approved] {
                let note = Some(row.failure.detail.as_str());
                returns::move_to(tx.conn(), return_id, awaited, ReturnStatus::Rejected, note, now).await?;
            }
        }
        Ok(())
    }
}

/// Nobody came in time: REJECTED, unless the word that was waited for came at the last moment. Returns
/// whether it did.
#[derive(Debug)]
struct LapseReturn {
    request: ReturnRequest,
    awaited: ReturnStatus,
}

impl Step for LapseReturn {
    const NAME: &'static str = "LapseReturn";
    type Output = bool;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StepError> {
        let (now, note) = (tx.now(), Some("it was waited for too long"));
        let ReturnRequest { return_id, order_id, .. } = self.request;
        locked(tx, order_id).await?;
        if returns::move_to(tx.conn(), return_id, self.awaited, ReturnStatus::Rejected, note, now).await? {
            return Ok(false);
        }
        let found = returns::find(tx.conn(), return_id).await?;
        Ok(found.is_some_and(|found| found.status != ReturnStatus::Rejected))
    }
}

/// What the staff said to the customer.
#[derive(Debug)]
struct ReadNote {
    return_id: Uuid,
}

impl Step for ReadNote {
    const NAME: &'static str = "ReadNote";
    type Output = String;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<String, StepError> {
        let found = returns::find(tx.conn(), self.return_id).await?;
        Ok(found.and_then(|found| found.note).unwrap_or_default())
    }
}

/// Passes the point of no return; that the goods are here was written by whoever received them.
#[derive(Debug)]
struct AcceptGoods;

impl Step for AcceptGoods {
    const NAME: &'static str = "AcceptGoods";
    type Output = ();

    async fn run(&self, _: &mut Tx<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

/// What a return is worth, and which way it goes back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owed {
    /// In major units of the order's currency.
    amount: Decimal,
    /// None for cash.
    gateway: Option<String>,
}

/// Exactly the returned lines' share of what they were sold for.
#[derive(Debug)]
struct AssessGoods {
    request: ReturnRequest,
}

impl Step for AssessGoods {
    const NAME: &'static str = "AssessGoods";
    type Output = Owed;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Owed, StepError> {
        let ReturnRequest { return_id, order_id, refunds_shipping, .. } = self.request;
        let order = locked(tx, order_id).await?;
        let currency = order.currency.parse().map_err(|error| StepError::Retry(Box::new(error)))?;
        let mut worth = Vec::new();
        for line in returns::lines(tx.conn(), return_id).await? {
            let pieces = |count: i32| u32::try_from(count).unwrap_or_default();
            let (quantity, before, returned) = (pieces(line.quantity), pieces(line.before), pieces(line.returned));
            let share = share_of_line(line.total_price, quantity, before, returned, currency);
            worth.push((line.order_item_id, share));
        }
        let settlement = returns::assess(tx.conn(), return_id, order_id, &worth).await?;
        let mut amount: Decimal = worth.iter().map(|(_, share)| *share).sum();
        if refunds_shipping && settlement.is_all_back {
            amount += settlement.shipping;
        }
        Ok(Owed { amount, gateway: settlement.gateway })
    }
}

/// Claims it, or what the staff have left of it by earlier refunds; and that is what the return says.
#[derive(Debug)]
struct ClaimWorth<'a> {
    return_id: Uuid,
    refund: &'a RefundRequest,
    amount: Decimal,
}

impl Step for ClaimWorth<'_> {
    const NAME: &'static str = "ClaimWorth";
    type Output = Vec<DueRefund>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<DueRefund>, StepError> {
        let now = tx.now();
        let RefundRequest { order_id, reason, reference, .. } = self.refund;
        let claim = Claim { run_id: tx.run_id(), order_id: *order_id, reason, reference: reference.as_deref() };
        let due: Vec<_> = claim_up_to(tx.conn(), claim, self.amount, now).await?.into_iter().collect();
        let claimed = due.iter().map(|refund| refund.amount).sum();
        returns::set_refund(tx.conn(), self.return_id, claimed, now).await?;
        Ok(due)
    }
}

/// The pieces are for sale again, once.
#[derive(Debug)]
struct Restock {
    request: ReturnRequest,
}

impl Step for Restock {
    const NAME: &'static str = "Restock";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let (ReturnRequest { return_id, order_id, .. }, now) = (self.request, tx.now());
        locked(tx, order_id).await?;
        let lines = returns::lines(tx.conn(), return_id).await?;
        let piece = |line: &ReturnedLine| Piece { order_id, variant_id: line.variant_id, quantity: line.returned };
        let pieces: Vec<Piece> = lines.iter().map(piece).collect();
        inventory::take_back(tx.conn(), &pieces, now).await?;
        Ok(())
    }
}

/// RECEIVED → REFUNDED; an order of which everything has come back is REFUNDED, too.
#[derive(Debug)]
struct CloseReturn {
    request: ReturnRequest,
}

impl Step for CloseReturn {
    const NAME: &'static str = "CloseReturn";
    type Output = ReturnStatus;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<ReturnStatus, StepError> {
        let (ReturnRequest { return_id, order_id, .. }, now) = (self.request, tx.now());
        let mut order = locked(tx, order_id).await?;
        let (from, to) = (ReturnStatus::Received, ReturnStatus::Refunded);
        let closed = returns::move_to(tx.conn(), return_id, from, to, None, now).await?;
        if closed {
            close_order(tx.conn(), &mut order, Some(return_id), now).await.map_err(|error| match error {
                MoveError::Database(error) => StepError::from(error),
                MoveError::Invalid(_) | MoveError::BeingCancelled => Failure::new("invalid-transition", error).into(),
            })?;
        }
        Ok(to)
    }
}

/// DELIVERED → REFUNDED, once everything that was not called off has come back and is paid back.
pub(crate) async fn close_order(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    return_id: Option<Uuid>,
    now: DateTime<Utc>,
) -> Result<(), MoveError> {
    if order.status == OrderStatus::Delivered && returns::is_all_refunded(conn, order.id).await? {
        let metadata = return_id.map(|id| serde_json::json!({ "returnId": id }));
        let by = By { actor: ACTOR, reason: Some("everything was returned"), metadata: metadata.as_ref() };
        orders::move_to(conn, order, OrderStatus::Refunded, by, now).await?;
    }
    Ok(())
}

async fn locked(tx: &mut Tx<'_>, order_id: OrderId) -> Result<orders::LockedOrder, StepError> {
    let order = orders::lock(tx.conn(), order_id).await?;
    order.ok_or_else(|| Failure::new("order-not-found", "there is no such order").into())
}
