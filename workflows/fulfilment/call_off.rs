//! Pieces that will never be delivered: staff call them off, or a courier loses them. They go back to stock or
//! are written off, their share of the price goes back or is never collected, and the order ends without them.

use chrono::{DateTime, Utc};
use domain::{
    order::{Actor, OrderStatus},
    returns::share_of_line,
};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{ACTOR, LineName, ShipRefusal, follow, to_pack};
use crate::{
    cancellation::{self, CancelRequest},
    refund,
    store::{
        inventory::{self, Piece},
        orders::LockedOrder,
        returns,
        shipments::{self, CalledOff},
    },
};

/// What calling pieces off came to.
#[derive(Debug, Clone)]
pub struct Called {
    /// What goes back, in major units of the order's currency.
    pub refund_amount: Decimal,
    /// Lines, and how many pieces of each.
    pub items: Vec<(Uuid, i32)>,
}

/// Calls off these pieces, or all that have not left: parcels that wait for their courier are unpacked then.
/// Pieces that are `is_written_off` are not for sale again. The caller has locked the order.
///
/// # Errors
/// [`ShipRefusal`], also when nothing of the order would be left: that is a cancellation. The caller rolls
/// back then.
pub async fn call_off(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    items: Option<&[(LineName, i32)]>,
    is_written_off: bool,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Called, ShipRefusal> {
    if order.is_being_cancelled() {
        return Err(ShipRefusal::BeingCancelled);
    }
    match order.status {
        OrderStatus::Confirmed | OrderStatus::Processing => {}
        // Without parcels it left as a whole.
        OrderStatus::Shipped if shipments::statuses(conn, order.id).await?.is_empty() => {
            return Err(ShipRefusal::NothingLeft);
        }
        OrderStatus::Shipped => {}
        OrderStatus::Pending | OrderStatus::Delivered | OrderStatus::Cancelled | OrderStatus::Refunded => {
            return Err(ShipRefusal::NotShippable(order.status));
        }
    }
    if items.is_none() {
        shipments::unpack(conn, order.id).await?;
    }
    let items = to_pack(conn, order.id, items).await?;
    let goods = if is_written_off { Goods::WrittenOff } else { Goods::ToStock };
    let refund_amount = settle(conn, order, &items, goods, reason, now).await?.ok_or(ShipRefusal::IsCancellation)?;
    follow(conn, order, None, now).await?;
    Ok(Called { refund_amount, items })
}

/// A courier has lost a parcel: what was in it is written off and paid back. If that was all of the order, it
/// is cancelled.
///
/// # Errors
/// The database's own.
pub(super) async fn lost(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    shipment_id: Uuid,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let (items, reason) = (shipments::items(conn, shipment_id).await?, "lost on its way");
    if settle(conn, order, &items, Goods::WrittenOff, reason, now).await?.is_none() {
        let (by, reason) = (ACTOR.to_owned(), reason.to_owned());
        let request = CancelRequest { order_id: order.id, actor: Actor::Staff, by, reason };
        cancellation::accept::begin(conn, order, &request, now).await?;
    }
    Ok(())
}

/// What becomes of pieces that are not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goods {
    ToStock,
    WrittenOff,
}

/// Notes the pieces, and sees to goods and money. Returns what goes back; none if nothing of the order is
/// left: then only the pieces are noted, and all the rest is its cancellation's.
async fn settle(
    conn: &mut PgConnection,
    order: &LockedOrder,
    items: &[(Uuid, i32)],
    goods: Goods,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Option<Decimal>, sqlx::Error> {
    let currency = order.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let mut pieces = Vec::with_capacity(items.len());
    let mut variants: Vec<Piece> = Vec::with_capacity(items.len());
    for line in returns::priced(conn, order.id).await? {
        let Some((_, quantity)) = items.iter().find(|(line_id, _)| *line_id == line.order_item_id) else { continue };
        let count = |pieces: i32| u32::try_from(pieces).unwrap_or_default();
        let amount =
            share_of_line(line.total_price, count(line.quantity), count(line.settled), count(*quantity), currency);
        pieces.push(CalledOff { order_item_id: line.order_item_id, quantity: *quantity, amount });
        match variants.last_mut() {
            Some(last) if last.variant_id == line.variant_id => last.quantity += quantity,
            Some(_) | None => {
                variants.push(Piece { order_id: order.id, variant_id: line.variant_id, quantity: *quantity });
            }
        }
    }
    let left = shipments::call_off(conn, order.id, &pieces, goods == Goods::WrittenOff, now).await?;
    if left == 0 {
        return Ok(None);
    }
    let worth = pieces.iter().map(|piece| piece.amount).sum();
    let refund_amount = refund::accept::up_to(conn, order.id, worth, reason, now).await?;
    if goods == Goods::ToStock {
        inventory::take_back(conn, &variants, now).await?;
    }
    Ok(Some(refund_amount))
}
