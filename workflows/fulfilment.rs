//! Fulfilment: what becomes of a confirmed order until it has arrived.
//!
//! An order is packed when its first parcel is ([`ship`]), when the staff say so ([`staff_move`]), or by
//! itself after the shop's `auto_process_after_s` (the flow). From then on it follows its parcels: a
//! courier's report ([`report`]) moves parcel, order and cash in one commit, under the order's lock, so
//! that a cancellation and a parcel that leaves have one winner. What will never arrive is called off
//! ([`call_off`]).

pub mod call_off;

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    notification::ParcelLabel,
    order::{OrderStatus, ShipmentStatus},
};
use engine::{Flow, Nothing, Result, Step, StepError, Tx, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

pub use crate::order_return::LineName;
use crate::{
    notification::Notice,
    order_return,
    store::{
        cancellations, messages,
        orders::{self, By, LockedOrder, MoveError},
        shipments,
    },
};

/// Who the history names when an order follows its parcels.
const ACTOR: &str = "fulfilment";

/// What a fulfilment is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FulfilmentRequest {
    /// The order to be packed.
    pub order_id: OrderId,
    /// The time its customer has to change their mind, in seconds.
    pub grace_s: u64,
}

/// `fulfilment/v1`: CONFIRMED → PROCESSING, once the customer's time to cancel is over.
#[derive(Debug, Clone, Copy)]
pub struct Fulfilment;

impl Workflow for Fulfilment {
    const NAME: &'static str = "fulfilment";
    const QUEUE: &'static str = "fulfilment";
    type Input = FulfilmentRequest;
    /// Whether it was this run that began: not if staff were faster, or the order is cancelled.
    type Output = bool;

    async fn run(&self, flow: &mut Flow, request: FulfilmentRequest) -> Result<bool> {
        flow.sleep("grace", Duration::from_secs(request.grace_s)).await?;
        flow.tx(BeginProcessing { order_id: request.order_id }).undo(Nothing).await
    }
}

/// CONFIRMED → PROCESSING, if nobody was faster.
#[derive(Debug)]
struct BeginProcessing {
    order_id: OrderId,
}

impl Step for BeginProcessing {
    const NAME: &'static str = "BeginProcessing";
    type Output = bool;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StepError> {
        let now = tx.now();
        let Some(mut order) = orders::lock(tx.conn(), self.order_id).await? else { return Ok(false) };
        if order.status != OrderStatus::Confirmed || order.is_being_cancelled() {
            return Ok(false);
        }
        let by = By { actor: ACTOR, reason: Some("the time to cancel is over"), metadata: None };
        match advance(tx.conn(), &mut order, OrderStatus::Processing, by, now).await {
            Ok(()) => Ok(true),
            Err(MoveError::Database(error)) => Err(error.into()),
            Err(error @ (MoveError::Invalid(_) | MoveError::BeingCancelled)) => {
                Err(engine::Failure::new("invalid-transition", error).into())
            }
        }
    }
}

/// Moves a locked order one step along its way, and does what belongs to the step: cash is captured on
/// delivery, the world hears of SHIPPED and DELIVERED, and the customer of each.
///
/// # Errors
/// [`MoveError`]; nothing is written then.
async fn advance(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    to: OrderStatus,
    by: By<'_>,
    now: DateTime<Utc>,
) -> Result<(), MoveError> {
    orders::move_to(conn, order, to, by, now).await?;
    let (event, is_public) = match to {
        OrderStatus::Processing => ("order.processing", false),
        OrderStatus::Shipped => ("order.shipped", true),
        OrderStatus::Delivered => ("order.delivered", true),
        OrderStatus::Pending | OrderStatus::Confirmed | OrderStatus::Cancelled | OrderStatus::Refunded => return Ok(()),
    };
    if to == OrderStatus::Delivered {
        shipments::capture_cash(conn, order, now).await?;
        order_return::close_order(conn, order, None, now).await?;
    }
    if is_public {
        let data = json!({ "orderId": order.id, "orderNumber": order.number });
        messages::publish(conn, order.id.into(), &[(event, data)], now).await?;
    }
    // Of a parcel that leaves, its own message tells.
    if to != OrderStatus::Shipped || by.metadata.is_none() {
        Notice::of_order(event, order.id).tell(conn).await?;
    }
    Ok(())
}

/// Why staff cannot move an order by hand.
#[derive(Debug, thiserror::Error)]
pub enum StaffRefusal {
    /// The table of moves has no such move, a cancellation was promised, or Postgres failed.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// Only its payment confirms an order.
    #[error("A pending order belongs to its checkout: its payment confirms it.")]
    InCheckout,
    /// A cancellation gives back stock, coupons and money: it is asked for by itself.
    #[error("Cancel the order instead: stock, coupons and money go back with it.")]
    IsCancellation,
    /// An order is REFUNDED once its goods came back and its money went back.
    #[error("An order is refunded by returning all of it.")]
    NeedsReturn,
    /// It has parcels, and has gone as far as they have: what waits or is on its way has not arrived.
    #[error("The order follows its parcels: report on them instead.")]
    FollowsParcels,
}

/// Staff move an order along its way: PROCESSING, SHIPPED or DELIVERED. The last two only if it has no
/// parcels: a shop without them moves by hand, and by hand nobody captures cash that no courier brought.
///
/// # Errors
/// [`StaffRefusal`]; nothing is written then.
pub async fn staff_move(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    to: OrderStatus,
    by: By<'_>,
    now: DateTime<Utc>,
) -> Result<(), StaffRefusal> {
    if order.is_being_cancelled() {
        return Err(MoveError::BeingCancelled.into());
    }
    order.status.transition(to).map_err(MoveError::from)?;
    let shown = match to {
        OrderStatus::Processing => None,
        OrderStatus::Shipped => Some(ShipmentStatus::Shipped),
        OrderStatus::Delivered => Some(ShipmentStatus::Delivered),
        OrderStatus::Pending | OrderStatus::Confirmed => return Err(StaffRefusal::InCheckout),
        OrderStatus::Cancelled => return Err(StaffRefusal::IsCancellation),
        OrderStatus::Refunded => return Err(StaffRefusal::NeedsReturn),
    };
    if shown.is_some() && !shipments::statuses(conn, order.id).await.map_err(MoveError::from)?.is_empty() {
        return Err(StaffRefusal::FollowsParcels);
    }
    advance(conn, order, to, by, now).await?;
    if let Some(shown) = shown {
        shipments::show(conn, order.id, shown, now).await.map_err(MoveError::from)?;
    }
    Ok(())
}

/// Why a parcel is not packed, or does not leave.
#[derive(Debug, thiserror::Error)]
pub enum ShipRefusal {
    /// The order is not paid, or over.
    #[error("An order that is {0} cannot be shipped.")]
    NotShippable(OrderStatus),
    /// Its cancellation was accepted before.
    #[error("The order is being cancelled: nothing of it is packed, leaves or arrives any more.")]
    BeingCancelled,
    /// The order has no such line.
    #[error("The order has no such line.")]
    UnknownLine {
        /// Its place among the lines asked for, from 0.
        position: usize,
    },
    /// More was to be packed than is left.
    #[error("Only {left} of {sku} are left to ship.")]
    TooMany {
        /// The order's line.
        order_item_id: Uuid,
        /// Its SKU.
        sku: String,
        /// Pieces left to ship.
        left: i32,
    },
    /// Every piece is in a parcel.
    #[error("Everything has been shipped.")]
    NothingLeft,
    /// All of its money is promised back.
    #[error("All of the order is paid back: call off what is left of it.")]
    PaidBack,
    /// Nothing of the order would be left to deliver.
    #[error("Nothing of the order would be left: cancel it instead.")]
    IsCancellation,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<MoveError> for ShipRefusal {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Invalid(invalid) => ShipRefusal::NotShippable(invalid.from),
            MoveError::BeingCancelled => ShipRefusal::BeingCancelled,
            MoveError::Database(error) => ShipRefusal::Database(error),
        }
    }
}

/// Packs a READY parcel with these lines, or with all that is left; a CONFIRMED order goes to PROCESSING
/// first. The caller has locked the order.
///
/// # Errors
/// [`ShipRefusal`]; the caller rolls back then.
pub async fn ship(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    items: Option<&[(LineName, i32)]>,
    label: &ParcelLabel,
    by: &str,
    now: DateTime<Utc>,
) -> Result<Uuid, ShipRefusal> {
    if order.is_being_cancelled() {
        return Err(ShipRefusal::BeingCancelled);
    }
    match order.status {
        OrderStatus::Confirmed | OrderStatus::Processing | OrderStatus::Shipped => {}
        OrderStatus::Pending | OrderStatus::Delivered | OrderStatus::Cancelled | OrderStatus::Refunded => {
            return Err(ShipRefusal::NotShippable(order.status));
        }
    }
    let packed = to_pack(conn, order.id, items).await?;
    if cancellations::is_paid_back(conn, order.id).await? {
        return Err(ShipRefusal::PaidBack);
    }
    if order.status == OrderStatus::Confirmed {
        let by = By { actor: by, reason: Some("its first parcel is packed"), metadata: None };
        advance(conn, order, OrderStatus::Processing, by, now).await?;
    }
    let id = Uuid::now_v7();
    shipments::insert(conn, order.id, id, label, &packed, now).await?;
    follow(conn, order, Some(id), now).await?;
    Ok(id)
}

/// These pieces of what waits to be shipped, or all of it.
async fn to_pack(
    conn: &mut PgConnection,
    order_id: OrderId,
    items: Option<&[(LineName, i32)]>,
) -> Result<Vec<(Uuid, i32)>, ShipRefusal> {
    let mut waiting = shipments::waiting(conn, order_id).await?;
    let packed: Vec<(Uuid, i32)> = match items {
        None => waiting.iter().filter(|line| line.left > 0).map(|line| (line.order_item_id, line.left)).collect(),
        Some(items) => pack(&mut waiting, items)?,
    };
    if packed.is_empty() { Err(ShipRefusal::NothingLeft) } else { Ok(packed) }
}

/// Takes the pieces out of what waits; a line named twice is one line.
fn pack(waiting: &mut [shipments::Waiting], items: &[(LineName, i32)]) -> Result<Vec<(Uuid, i32)>, ShipRefusal> {
    let mut packed: Vec<(Uuid, i32)> = Vec::with_capacity(items.len());
    for (position, (name, quantity)) in items.iter().enumerate() {
        let line = waiting
            .iter_mut()
            .find(|line| name.names(line.order_item_id, line.variant_id, &line.sku))
            .ok_or(ShipRefusal::UnknownLine { position })?;
        if *quantity > line.left {
            let (order_item_id, sku, left) = (line.order_item_id, line.sku.clone(), line.left);
            return Err(ShipRefusal::TooMany { order_item_id, sku, left });
        }
        line.left -= quantity;
        match packed.iter_mut().find(|(id, _)| *id == line.order_item_id) {
            Some((_, sum)) => *sum += quantity,
            None => packed.push((line.order_item_id, *quantity)),
        }
    }
    Ok(packed)
}

/// What a courier's report came to.
#[derive(Debug, Clone)]
pub struct Reported {
    /// Where the parcel is now.
    pub status: ShipmentStatus,
    /// The order, as it stands now.
    pub order: LockedOrder,
    /// False for a report that was late, or came before.
    pub is_news: bool,
}

/// A courier says where a parcel is. Reports that come late, twice or out of order change nothing; the
/// order follows what is news. `None` if there is no such parcel.
///
/// # Errors
/// [`ShipRefusal::NotShippable`] when a parcel of a cancelled order would leave,
/// [`ShipRefusal::BeingCancelled`] when it is promised to be; the database's own.
pub async fn report(
    conn: &mut PgConnection,
    shipment_id: Uuid,
    to: ShipmentStatus,
    now: DateTime<Utc>,
) -> Result<Option<Reported>, ShipRefusal> {
    let Some(parcel) = shipments::find(conn, shipment_id).await? else { return Ok(None) };
    let Some(mut order) = orders::lock(conn, parcel.order_id).await? else { return Ok(None) };
    // Again, in a statement of its own: what the lock's last holder wrote is visible to no earlier one.
    let Some(parcel) = shipments::find(conn, shipment_id).await? else { return Ok(None) };
    if !parcel.status.can_become(to) {
        return Ok(Some(Reported { status: parcel.status, order, is_news: false }));
    }
    if order.is_being_cancelled() {
        return Err(ShipRefusal::BeingCancelled);
    }
    if order.status == OrderStatus::Cancelled {
        return Err(ShipRefusal::NotShippable(order.status));
    }
    if to.is_out() && !parcel.status.is_out() && cancellations::is_paid_back(conn, order.id).await? {
        return Err(ShipRefusal::PaidBack);
    }
    shipments::report(conn, shipment_id, to, now).await?;
    if to == ShipmentStatus::Lost {
        call_off::lost(conn, &mut order, shipment_id, now).await?;
    }
    follow(conn, &mut order, Some(shipment_id), now).await?;
    if to.has_left() && !parcel.status.has_left() {
        Notice::of_part("order.shipped", order.id, shipment_id).tell(conn).await?;
    }
    Ok(Some(Reported { status: to, order, is_news: true }))
}

/// The order follows its parcels, as many moves as it takes (seed: `updateShipmentStatus`).
async fn follow(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    shipment_id: Option<Uuid>,
    now: DateTime<Utc>,
) -> Result<(), ShipRefusal> {
    let parcels = shipments::statuses(conn, order.id).await?;
    let waiting_to_ship = shipments::waiting(conn, order.id).await?.iter().any(|line| line.left > 0);
    shipments::show(conn, order.id, ShipmentStatus::of_order(&parcels, waiting_to_ship), now).await?;
    let metadata = shipment_id.map(|id| json!({ "shipmentId": id }));
    let by = By { actor: ACTOR, reason: None, metadata: metadata.as_ref() };
    while let Some(next) = order.status.after_shipments(&parcels, waiting_to_ship) {
        advance(conn, order, next, by, now).await?;
    }
    Ok(())
}
