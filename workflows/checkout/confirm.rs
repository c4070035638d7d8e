//! Phase 5: the order is the shopper's. One commit, and the point of no return.

use domain::{
    ids::{CartId, OrderId},
    money::to_wire,
    pricing::Quote,
};
use engine::{Result as FlowResult, Start, Step, StepError, Tx};
use serde_json::{Value, json};

use super::{
    Receipt, Request,
    accept::Refusal,
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
        messages::{self, Skip},
        orders::{self, Confirmation},
        payments::Captured,
    },
};

/// Box 10: CONFIRMED, and CAPTURED when money was due now. Where the shop packs by itself, that is due
/// from here on.
#[derive(Debug)]
pub struct ConfirmOrder<'a> {
    pub(super) request: &'a Request,
    pub(super) payment: Option<&'a Captured>,
    pub(super) details: &'a Details,
}

impl Step for ConfirmOrder<'_> {
    const NAME: &'static str = "ConfirmOrder";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        let Request { order_id, terms, .. } = self.request;
        let order_id = *order_id;
        let estimated_delivery = self.details.estimated_delivery;
        let confirmation = Confirmation { order_id, payment: self.payment, estimated_delivery };
        orders::confirm(tx.conn(), &[confirmation], now).await?;
        if let Some(grace_s) = terms.auto_process_after_s {
            tx.start(Start::<Fulfilment>::new(order_id.to_string(), &FulfilmentRequest { order_id, grace_s })?).await?;
        }
        Ok(())
    }
}

/// Box 11: reserved −q. A hold that expired meanwhile is taken afresh, or the checkout unwinds.
#[derive(Debug)]
pub struct CommitReservation<'a> {
    pub(super) order_id: OrderId,
    pub(super) cart: &'a ValidCart,
    pub(super) quote: &'a Quote,
    pub(super) hold: std::time::Duration,
}

impl Step for CommitReservation<'_> {
    const NAME: &'static str = "CommitReservation";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        if !self.quote.coupons.is_empty() {
            coupons::lock_of(tx.conn(), &[self.order_id]).await?;
        }
        let order_id = self.order_id;
        let committed = inventory::commit(tx.conn(), &[order_id], now).await?;
        let mut wanted = Wanted::of(&self.cart.lines);
        wanted.retain(|wanted| !committed.contains(&(order_id, wanted.variant_id)));
        if wanted.is_empty() {
            return Ok(());
        }
        let demand = Demand { holder: order_id.into(), wanted, expires_at: now + self.hold };
        let short = inventory::hold(tx.conn(), &[demand], now).await?.concat();
        if !short.is_empty() {
            let lines = self.cart.lines.iter().filter_map(|line| line.short_of(&short)).collect();
            return Err(Refusal::OutOfStock { lines }.into());
        }
        inventory::commit(tx.conn(), &[order_id], now).await?;
        Ok(())
    }
}

/// Box 12: held coupons are used coupons.
#[derive(Debug)]
pub struct RecordRedemption<'a> {
    pub(super) order_id: OrderId,
    pub(super) quote: &'a Quote,
}

impl Step for RecordRedemption<'_> {
    const NAME: &'static str = "RecordRedemption";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        if !self.quote.coupons.is_empty() {
            let now = tx.now();
            coupons::redeem(tx.conn(), &[self.order_id], now).await?;
        }
        Ok(())
    }
}

/// Box 13: the cart has become an order.
#[derive(Debug)]
pub struct ConvertCart {
    pub(super) cart_id: CartId,
}

impl Step for ConvertCart {
    const NAME: &'static str = "ConvertCart";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let (run_id, now) = (tx.run_id(), tx.now());
        carts::convert(tx.conn(), &[(self.cart_id, run_id)], now).await?;
        Ok(())
    }
}

/// Box 14: PENDING → CONFIRMED, by the checkout.
#[derive(Debug)]
pub struct AppendHistory {
    pub(super) order_id: OrderId,
}

impl Step for AppendHistory {
    const NAME: &'static str = "AppendHistory";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        orders::append_history(tx.conn(), &[self.order_id], Some("PENDING"), "CONFIRMED", "checkout", None, now)
            .await?;
        Ok(())
    }
}

/// Box 15: what others may build on, in the commit that makes it true. (order.created went out with
/// the order itself.)
#[derive(Debug)]
pub struct PublishEvents<'a> {
    pub(super) request: &'a Request,
    pub(super) quote: &'a Quote,
    pub(super) cart: &'a ValidCart,
    pub(super) payment: Option<&'a Captured>,
}

impl Step for PublishEvents<'_> {
    const NAME: &'static str = "PublishEvents";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        let events = events_of(self.request, self.quote, &self.cart.lines, self.payment);
        messages::publish(tx.conn(), self.request.order_id.into(), &events, now).await?;
        Ok(())
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
pub struct SendNotifications<'a> {
    pub(super) request: &'a Request,
    pub(super) shop: &'a Shop,
}

impl Step for SendNotifications<'_> {
    const NAME: &'static str = "SendNotifications";
    type Output = bool;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, StepError> {
        if self.shop.mailer.is_some() {
            return Ok(true);
        }
        let now = tx.now();
        let Request { order_id, contact_email, .. } = self.request;
        let skip = Skip {
            subject_id: (*order_id).into(),
            event: "order.confirmed",
            channel: "EMAIL",
            recipient: contact_email,
            why: "no e-mail channel is configured",
        };
        messages::skip(tx.conn(), &[skip], now).await?;
        Ok(false)
    }
}

/// The run that writes to the shopper.
pub(super) fn order_confirmed(order_id: OrderId) -> FlowResult<Start<Notification>> {
    let notice = Notice::of_order("order.confirmed", order_id);
    Start::new(notice.key(), &notice)
}

/// Box 17: what the shopper sees.
#[derive(Debug)]
pub struct ReadReceipt<'a> {
    pub(super) request: &'a Request,
    pub(super) details: &'a Details,
    pub(super) shop: &'a Shop,
}

impl Step for ReadReceipt<'_> {
    const NAME: &'static str = "ReadReceipt";
    type Output = Receipt;

    async fn run(&self, _: &mut Tx<'_>) -> Result<Receipt, StepError> {
        Ok(Receipt {
            order_id: self.request.order_id,
            order_number: self.request.order_number.clone(),
            status: "CONFIRMED".to_owned(),
            estimated_delivery: self.details.estimated_delivery,
            tracking_url: super::status::tracking_url(&self.shop.rules, &self.request.order_number),
        })
    }
}
