//! Checkout: from a cart to a confirmed order, or back to the cart as if nothing had been.
//!
//! One file a phase under `checkout/`: each step, then its undo. What happens before the run exists
//! (the shopper's POST) is [`accept`]; what the gateway says later comes in through [`webhook`].

pub mod accept;
pub mod attempt;
mod complete;
pub mod confirm;
pub mod create;
pub mod pay;
mod request;
pub mod reserve;
pub mod status;
pub mod validate;
pub mod webhook;

use std::sync::Arc;

use domain::{
    fraud::{Decision, Digest},
    payment::PaymentMethod,
};
use engine::{Flow, Nothing, Result, Workflow};

pub use self::request::{Receipt, Request};
use self::{
    attempt::{Attempt, Window},
    complete::Completing,
    confirm::{
        AppendHistory, CommitReservation, ConfirmOrder, ConvertCart, PublishEvents, ReadReceipt, RecordRedemption,
        SendNotifications,
    },
    create::{CancelOrder, CreateOrder, CreateOrderItems, LinkCoupons},
    pay::{InitiatePayment, StorePaymentIntent, VoidOrRefund},
    reserve::{ReleaseInventory, ReserveInventory},
    validate::{ApplyCoupons, CollectDetails, ReleaseCoupons, UnlockCart, ValidCart, ValidateCart},
};
use crate::{
    Shop,
    desk::Desk,
    fraud::{self, ScreenOrder},
    store::carts::CartLine,
};

/// `checkout/v1`.
#[derive(Debug, Clone)]
pub struct Checkout(pub Arc<Shop>);

impl Workflow for Checkout {
    const NAME: &'static str = "checkout";
    const QUEUE: &'static str = "checkout";
    type Input = Request;
    type Output = Receipt;

    async fn run(&self, flow: &mut Flow, request: Request) -> Result<Receipt> {
        let (shop, run_id) = (&self.0, flow.id());
        let order_id = request.order_id;
        let request = Arc::new(request);
        flow.accepted(UnlockCart { cart_id: request.cart_id });

        // PHASE 1 · Pre-checkout validation
        // 1. Validate cart
        let cart = Arc::new(flow.tx(ValidateCart { run_id, request: request.clone() }).undo(Nothing).await?);
        // The seed's fraud checks: whoever is denied learns no more than that
        let screening = fraud::screen(flow, screened(&request, &cart)).await?;
        // 2. Apply coupons
        let apply = ApplyCoupons { request: request.clone(), cart: cart.clone() };
        let quote = Arc::new(flow.tx(apply).undo(ReleaseCoupons { order_id }).await?);
        // 3. Collect checkout information
        let details = flow.tx(CollectDetails { request: request.clone() }).undo(Nothing).await?;

        // PHASE 2 · Inventory reservation
        // 4. Reserve inventory
        let hold = request.terms.hold();
        let reserve = ReserveInventory { order_id, cart: cart.clone(), hold };
        let held = flow.tx(reserve).undo(ReleaseInventory { order_id }).await?;

        // PHASE 3 · Order creation: 5. order record, 6. order items, 7. linked coupons commit together
        flow.tx((
            CreateOrder { run_id, request: request.clone(), quote: quote.clone(), details: details.clone() },
            CreateOrderItems { order_id, cart: cart.clone(), quote: quote.clone() },
            LinkCoupons { order_id, quote: quote.clone() },
        ))
        .undo(CancelOrder { order_id })
        .await?;

        // PHASE 4 · Payment
        let mut payment = None;
        let mut earlier = Vec::new();
        if request.payment_method != PaymentMethod::Cod && !quote.total.is_zero() {
            let desk = Desk::new(flow.pool(), shop.gateway(&request.gateway));
            let window = Window::new(held.since, request.terms.payment_window(), hold);
            let mut attempt = Attempt::first(&request);
            payment = Some(loop {
                // 8. Initiate payment: call the gateway, and store its payment id
                let void_or_refund = VoidOrRefund::of(&request);
                let initiate = InitiatePayment {
                    request: &request,
                    attempt: &attempt,
                    earlier: &earlier,
                    quote: &quote,
                    is_doubtful: screening.decision == Decision::Review,
                    window,
                    desk: &desk,
                };
                let intent = flow.call(initiate).undo(void_or_refund).await?;
                let (store, tried) = (request.clone(), attempt.clone());
                let store = StorePaymentIntent { run_id, request: store, attempt: tried, intent: intent.clone() };
                flow.tx(store).undo(Nothing).await?;
                // 9. User completes payment
                let completing = Completing {
                    order_id,
                    attempt: &attempt,
                    earlier: &earlier,
                    intent: &intent,
                    quote: &quote,
                    screening,
                    window,
                    desk: &desk,
                };
                match completing.outcome(flow).await?.captured(&quote) {
                    Ok(captured) => break captured,
                    // Declined: unless the shopper may try again, this `?` is the arrow to box 9a, the
                    // undos above in reverse.
                    Err(declined) => attempt = attempt.next(flow, &request, window, &intent, declined).await?,
                }
                earlier.push(intent.gateway_payment_id);
            });
        } else if screening.decision == Decision::Review {
            complete::reviewed(flow, order_id, screening).await?;
        }

        // PHASE 5 · Order confirmation: once this commits, only forward
        let mut flow = flow
            .point_of_no_return((
                // 10. Update order status
                ConfirmOrder { run_id, request: request.clone(), payment: payment.clone(), details: details.clone() },
                // 11. Commit inventory reservations
                CommitReservation { order_id, cart: cart.clone(), hold },
                // 12. Record coupon redemption
                RecordRedemption { order_id, quote: quote.clone() },
                // 13. Mark cart as converted
                ConvertCart { run_id, cart_id: request.cart_id },
                // 14. Create order state history
                AppendHistory { order_id },
                // 15. Publish events
                PublishEvents { request: request.clone(), quote, cart, payment },
            ))
            .await?;
        if !earlier.is_empty() {
            flow.start(attempt::refund_of_earlier(&request)).await?;
        }
        // 16. Send notifications
        if flow.tx(SendNotifications { request: request.clone(), has_mailer: shop.mailer.is_some() }).await? {
            flow.start(confirm::order_confirmed(order_id)).await?;
        }
        // 17. Return success response
        flow.tx(ReadReceipt { request, details, shop: shop.clone() }).await
    }
}

/// What the rules against fraud look at. Of the cart its worth without coupons, which lower no suspicion.
fn screened(request: &Request, cart: &ValidCart) -> ScreenOrder {
    let billing = request.billing_address.as_ref().unwrap_or(&request.shipping_address);
    let is_cash = request.payment_method == PaymentMethod::Cod;
    ScreenOrder {
        order_id: request.order_id,
        user_id: request.user_id,
        email: Some(Digest::of_email(&request.contact_email)),
        address: Some(Digest::of_address(&request.shipping_address)),
        network: request.client_network,
        token: request.payment_token.as_deref().filter(|_| !is_cash).map(Digest::of_token),
        billing_country: billing.country.clone(),
        shipping_country: request.shipping_address.country.clone(),
        amount: cart.lines.iter().map(CartLine::total).sum(),
        currency: request.terms.pricing.currency,
    }
}
