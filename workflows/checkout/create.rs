//! Phase 3: the order exists, PENDING.

use std::sync::Arc;

use domain::{ids::OrderId, payment::PaymentMethod, pricing::Quote};
use engine::{Failure, SetResult, SetStep, SetTx, Start, StepError, Undo, Undoing, done};
use uuid::Uuid;

use super::{
    Request,
    validate::{Details, ValidCart},
};
use crate::{
    notification::{Notice, Notification},
    store::orders::{self, Failed, NewItems, NewOrder},
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

    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, ((), (), ())>]) -> Result<(), StepError> {
        let now = tx.now();
        let failed: Vec<Failed<'_>> = rows
            .iter()
            .map(|row| {
                let (order_id, Failure { code, detail, .. }) = (row.undo.order_id, &row.failure);
                Failed { order_id, code, reason: detail }
            })
            .collect();
        orders::cancel_pending(tx.conn(), &failed, now).await?;
        for row in rows {
            let notice = Notice::of_order("order.cancelled", row.undo.order_id).because(&row.failure.code);
            tx.start(row.run_id, Start::<Notification>::new(notice.key(), &notice)?);
        }
        Ok(())
    }
}
