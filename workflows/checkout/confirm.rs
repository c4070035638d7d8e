//! Phase 5: the order is the shopper's. One commit, and the point of no return.

use std::{sync::Arc, time::Duration};

use domain::{
    ids::{CartId, OrderId},
    money::to_wire,
    pricing::Quote,
};
use engine::{Result as FlowResult, SetResult, SetStep, SetTx, Start, done};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Receipt, Request,
    validate::{Details, ValidCart},
};
use crate::{
    Shop,
    fulfilment::{Fulfilment, FulfilmentRequest},
    notification::{Notice, Notification},
    store::{
        carts::{self, CartLine},
        coupons,
        inventory::{self, Demand, Wanted},
        messages::{self, Event, Skip},
        orders::{self, Confirmation},
        payments::Captured,
    },
};

/// Box 10: CONFIRMED, and CAPTURED when money was due now. Where the shop packs by itself, that is due
/// from here on.
#[derive(Debug)]
pub struct ConfirmOrder {
    pub(super) run_id: Uuid,
    pub(super) request: Arc<Request>,
    pub(super) payment: Option<Captured>,
    pub(super) details: Details,
}

impl SetStep for ConfirmOrder {
    const NAME: &'static str = "ConfirmOrder";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        let confirmations: Vec<Confirmation<'_>> = rows
            .iter()
            .map(|row| Confirmation {
                order_id: row.request.order_id,
                payment: row.payment.as_ref(),
                estimated_delivery: row.details.estimated_delivery,
            })
            .collect();
        orders::confirm(tx.conn(), &confirmations, now).await?;
        for row in rows {
            let Request { order_id, terms, .. } = &*row.request;
            if let Some(grace_s) = terms.auto_process_after_s {
                let packing = FulfilmentRequest { order_id: *order_id, grace_s };
                tx.start(row.run_id, Start::<Fulfilment>::new(order_id.to_string(), &packing)?);
            }
        }
        done(rows)
    }
}

/// Box 11: reserved −q. A hold that expired meanwhile is taken afresh, or the checkout unwinds.
#[derive(Debug)]
pub struct CommitReservation {
    pub(super) order_id: OrderId,
    pub(super) cart: Arc<ValidCart>,
    pub(super) hold: Duration,
}

impl SetStep for CommitReservation {
    const NAME: &'static str = "CommitReservation";
    type Output = ();
    const HOT: bool = true;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        let orders: Vec<OrderId> = rows.iter().map(|row| row.order_id).collect();
        let committed = inventory::commit(tx.conn(), &orders, now).await?;
        let expired = |row: &Self| {
            let mut wanted = Wanted::of(&row.cart.lines);
            wanted.retain(|wanted| !committed.contains(&(row.order_id, wanted.variant_id)));
            Demand { holder: row.order_id.into(), wanted, expires_at: now + row.hold }
        };
        let demands: Vec<Demand> = rows.iter().map(expired).collect();
        if demands.iter().all(|demand| demand.wanted.is_empty()) {
            return done(rows);
        }
        let short = inventory::hold(tx.conn(), &demands, now).await?;
        inventory::commit(tx.conn(), &orders, now).await?;
        Ok(rows.iter().zip(short).map(|(row, short)| Ok(row.cart.all_of(&short)?)).collect())
    }
}

/// Those orders whose price a coupon has lowered.
fn with_coupons<'a>(orders: impl Iterator<Item = (OrderId, &'a Quote)>) -> Vec<OrderId> {
    orders.filter(|(_, quote)| !quote.coupons.is_empty()).map(|(order_id, _)| order_id).collect()
}

/// Box 12: held coupons are used coupons.
#[derive(Debug)]
pub struct RecordRedemption {
    pub(super) order_id: OrderId,
    pub(super) quote: Arc<Quote>,
}

impl SetStep for RecordRedemption {
    const NAME: &'static str = "RecordRedemption";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (now, orders) = (tx.now(), with_coupons(rows.iter().map(|row| (row.order_id, &*row.quote))));
        coupons::redeem(tx.conn(), &orders, now).await?;
        done(rows)
    }
}

/// Box 13: the cart has become an order.
#[derive(Debug)]
pub struct ConvertCart {
    pub(super) run_id: Uuid,
    pub(super) cart_id: CartId,
}

impl SetStep for ConvertCart {
    const NAME: &'static str = "ConvertCart";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (now, carts) = (tx.now(), rows.iter().map(|row| (row.cart_id, row.run_id)).collect::<Vec<_>>());
        carts::convert(tx.conn(), &carts, now).await?;
        done(rows)
    }
}

/// Box 14: PENDING → CONFIRMED, by the checkout.
#[derive(Debug)]
pub struct AppendHistory {
    pub(super) order_id: OrderId,
}

impl SetStep for AppendHistory {
    const NAME: &'static str = "AppendHistory";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (now, ids) = (tx.now(), rows.iter().map(|row| row.order_id).collect::<Vec<_>>());
        orders::append_history(tx.conn(), &ids, Some("PENDING"), "CONFIRMED", "checkout", None, now).await?;
        done(rows)
    }
}

/// Box 15: what others may build on, in the commit that makes it true. (order.created went out with
/// the order itself.)
#[derive(Debug)]
pub struct PublishEvents {
    pub(super) request: Arc<Request>,
    pub(super) quote: Arc<Quote>,
    pub(super) cart: Arc<ValidCart>,
    pub(super) payment: Option<Captured>,
}

impl SetStep for PublishEvents {
    const NAME: &'static str = "PublishEvents";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        let mut events = Vec::with_capacity(rows.len() * 4);
        for PublishEvents { request, quote, cart, payment } in rows {
            let subject = request.order_id.into();
            let told = events_of(request, quote, &cart.lines, payment.as_ref()).into_iter();
            events.extend(told.map(|(event_type, data)| Event { subject, event_type, data }));
        }
        messages::publish_many(tx.conn(), &events, now).await?;
        done(rows)
    }
}

/// What a confirmation tells the world.
fn events_of(
    request: &Request,
    quote: &Quote,
    lines: &[CartLine],
    payment: Option<&Captured>,
) -> Vec<(&'static str, Value)> {
    let order_id = request.order_id;
    let amount = |value| to_wire(value, quote.currency);
    let items: Vec<_> = lines
        .iter()
        .map(|line| json!({ "variantId": line.variant_id, "sku": line.sku, "quantity": line.quantity }))
        .collect();
    let mut events = Vec::with_capacity(4);
    if let Some(payment) = payment {
        events.push((
            "payment.captured",
            json!({ "orderId": order_id, "gatewayPaymentId": payment.gateway_payment_id, "amount": amount(payment.amount), "currency": quote.currency }),
        ));
    }
    events.push((
        "order.confirmed",
        json!({ "orderId": order_id, "orderNumber": request.order_number, "totalAmount": amount(quote.total), "currency": quote.currency }),
    ));
    events.push(("inventory.committed", json!({ "orderId": order_id, "items": items })));
    for coupon in &quote.coupons {
        events.push((
            "coupon.redeemed",
            json!({ "orderId": order_id, "couponId": coupon.coupon_id, "code": coupon.code, "discount": amount(coupon.discount) }),
        ));
    }
    events
}

/// Box 16: is there anybody to tell, and a way to? If not, that is recorded here and now.
#[derive(Debug)]
pub struct SendNotifications {
    pub(super) request: Arc<Request>,
    pub(super) has_mailer: bool,
}

impl SetStep for SendNotifications {
    const NAME: &'static str = "SendNotifications";
    type Output = bool;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<bool> {
        let now = tx.now();
        let skipped: Vec<Skip<'_>> = rows
            .iter()
            .filter(|row| !row.has_mailer)
            .map(|row| Skip {
                subject_id: row.request.order_id.into(),
                event: "order.confirmed",
                channel: "EMAIL",
                recipient: &row.request.contact_email,
                why: "no e-mail channel is configured",
            })
            .collect();
        messages::skip(tx.conn(), &skipped, now).await?;
        Ok(rows.iter().map(|row| Ok(row.has_mailer)).collect())
    }
}

/// The run that writes to the shopper.
pub(super) fn order_confirmed(order_id: OrderId) -> FlowResult<Start<Notification>> {
    let notice = Notice::of_order("order.confirmed", order_id);
    Start::new(notice.key(), &notice)
}

/// Box 17: what the shopper sees.
#[derive(Debug)]
pub struct ReadReceipt {
    pub(super) request: Arc<Request>,
    pub(super) details: Details,
    pub(super) shop: Arc<Shop>,
}

impl SetStep for ReadReceipt {
    const NAME: &'static str = "ReadReceipt";
    type Output = Receipt;

    async fn run(_: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Receipt> {
        Ok(rows.iter().map(|row| Ok(row.receipt())).collect())
    }
}

impl ReadReceipt {
    fn receipt(&self) -> Receipt {
        let Request { order_id, order_number, .. } = &*self.request;
        Receipt {
            order_id: *order_id,
            order_number: order_number.clone(),
            status: "CONFIRMED".to_owned(),
            estimated_delivery: self.details.estimated_delivery,
            tracking_url: super::status::tracking_url(&self.shop.rules, order_number),
        }
    }
}
