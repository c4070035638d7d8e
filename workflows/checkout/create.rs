//! Phase 3: the order exists, PENDING.

use domain::{ids::OrderId, payment::PaymentMethod, pricing::Quote};
use engine::{Start, Step, StepError, Tx, Undo};

use super::{
    Request,
    validate::{Details, ValidCart},
};
use crate::{
    notification::{Notice, Notification},
    store::orders::{self, NewItems, NewOrder},
};

/// Box 5: the order row, its payment row, and the first line of its history.
#[derive(Debug)]
pub struct CreateOrder<'a> {
    pub(super) request: &'a Request,
    pub(super) quote: &'a Quote,
    pub(super) details: &'a Details,
}

impl Step for CreateOrder<'_> {
    const NAME: &'static str = "CreateOrder";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let (run_id, now, request) = (tx.run_id(), tx.now(), self.request);
        let order = NewOrder {
            id: request.order_id,
            number: &request.order_number,
            run_id,
            cart_id: request.cart_id,
            user_id: request.user_id,
            contact_email: &request.contact_email,
            contact_phone: request.contact_phone.as_deref(),
            shipping_address: (&request.shipping_address, request.shipping_address_id),
            billing_address: (request.billing_address.as_ref(), request.billing_address_id),
            shipping_method: request.shipping_method,
            payment_method: request.payment_method,
            gateway: (request.payment_method != PaymentMethod::Cod).then_some(request.gateway.as_str()),
            quote: self.quote,
            estimated_delivery: self.details.estimated_delivery,
        };
        Ok(orders::create(tx.conn(), &[order], now).await?)
    }
}

/// Box 6: what was bought, with names and prices as they were.
#[derive(Debug)]
pub struct CreateOrderItems<'a> {
    pub(super) order_id: OrderId,
    pub(super) cart: &'a ValidCart,
    pub(super) quote: &'a Quote,
}

impl Step for CreateOrderItems<'_> {
    const NAME: &'static str = "CreateOrderItems";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        let items = NewItems { order_id: self.order_id, lines: &self.cart.lines, quote: self.quote };
        orders::create_items(tx.conn(), &[items], now).await?;
        Ok(())
    }
}

/// Box 7: which coupons lowered the price.
#[derive(Debug)]
pub struct LinkCoupons<'a> {
    pub(super) order_id: OrderId,
    pub(super) quote: &'a Quote,
}

impl Step for LinkCoupons<'_> {
    const NAME: &'static str = "LinkCoupons";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        if !self.quote.coupons.is_empty() {
            let now = tx.now();
            orders::link_coupons(tx.conn(), &[(self.order_id, &self.quote.coupons)], now).await?;
        }
        Ok(())
    }
}

/// Box 9a: the order is CANCELLED, with the reason in its history, and the shopper is told.
#[derive(Debug)]
pub struct CancelOrder {
    pub(super) order_id: OrderId,
}

impl Undo<((), (), ())> for CancelOrder {
    const NAME: Option<&'static str> = Some("CancelOrder");

    async fn undo(&self, tx: &mut Tx<'_>, _: &((), (), ())) -> Result<(), StepError> {
        let now = tx.now();
        let failure = tx.failure().cloned();
        let (code, detail) = failure.map(|f| (f.code, f.detail)).unwrap_or_default();
        orders::cancel_pending(tx.conn(), self.order_id, &code, &detail, now).await?;
        let notice = Notice::of_order("order.cancelled", self.order_id).because(code);
        tx.start(Start::<Notification>::new(notice.key(), &notice)?).await?;
        Ok(())
    }
}
