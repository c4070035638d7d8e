//! Phase 3: the order exists, PENDING.

use std::sync::Arc;

use domain::{ids::OrderId, payment::PaymentMethod, pricing::Quote};
use engine::{SetResult, SetStep, SetTx, Start, StepError, Tx, Undo, done};
use uuid::Uuid;

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
pub struct CreateOrder {
    pub(super) run_id: Uuid,
    pub(super) request: Arc<Request>,
    pub(super) quote: Arc<Quote>,
    pub(super) details: Details,
}

impl CreateOrder {
    fn order(&self) -> NewOrder<'_> {
        let request = &*self.request;
        NewOrder {
            id: request.order_id,
            number: &request.order_number,
            run_id: self.run_id,
            cart_id: request.cart_id,
            user_id: request.user_id,
            contact_email: &request.contact_email,
            contact_phone: request.contact_phone.as_deref(),
            shipping_address: (&request.shipping_address, request.shipping_address_id),
            billing_address: (request.billing_address.as_ref(), request.billing_address_id),
            shipping_method: request.shipping_method,
            payment_method: request.payment_method,
            gateway: (request.payment_method != PaymentMethod::Cod).then_some(request.gateway.as_str()),
            quote: &self.quote,
            estimated_delivery: self.details.estimated_delivery,
        }
    }
}

impl SetStep for CreateOrder {
    const NAME: &'static str = "CreateOrder";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (now, orders) = (tx.now(), rows.iter().map(CreateOrder::order).collect::<Vec<_>>());
        orders::create(tx.conn(), &orders, now).await?;
        done(rows)
    }
}

/// Box 6: what was bought, with names and prices as they were.
#[derive(Debug)]
pub struct CreateOrderItems {
    pub(super) order_id: OrderId,
    pub(super) cart: Arc<ValidCart>,
    pub(super) quote: Arc<Quote>,
}

impl SetStep for CreateOrderItems {
    const NAME: &'static str = "CreateOrderItems";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        let items: Vec<NewItems<'_>> = rows
            .iter()
            .map(|row| NewItems { order_id: row.order_id, lines: &row.cart.lines, quote: &row.quote })
            .collect();
        orders::create_items(tx.conn(), &items, now).await?;
        done(rows)
    }
}

/// Box 7: which coupons lowered the price.
#[derive(Debug)]
pub struct LinkCoupons {
    pub(super) order_id: OrderId,
    pub(super) quote: Arc<Quote>,
}

impl SetStep for LinkCoupons {
    const NAME: &'static str = "LinkCoupons";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        let links: Vec<_> = rows.iter().map(|row| (row.order_id, row.quote.coupons.as_slice())).collect();
        orders::link_coupons(tx.conn(), &links, now).await?;
        done(rows)
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
