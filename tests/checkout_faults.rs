//! Checkout, killed, failed and repeated at every point: it ends confirmed or cleanly undone.

use std::sync::Arc;

use domain::ids::CartId;
use engine::testing::{Fault, Once, Point, trace};
use rust_decimal::Decimal;
use workflows::checkout::accept::{Accepted, Order};

use crate::{
    misfortune::{self, ALONE, Always, Story as _, Way, alone, astray, for_good, play, play_with_a_bad_memory, points},
    world::{World, order},
};

/// How the shopper pays, and what must come of it when nothing goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Story {
    Paid,
    PaidWithCoupon,
    Declined,
    /// 3-D Secure, approved while the run waits.
    Approved,
    /// 3-D Secure, never answered.
    Abandoned,
    /// Of many, each in its own way.
    Mixed,
}

#[derive(Debug)]
pub struct Begun {
    pub story: Story,
    pub accepted: Accepted,
    cart: CartId,
    /// Laptops and mice in stock before the first of them.
    before: [(i32, i32); 2],
}

impl Story {
    /// That of one of many.
    fn of(self, number: usize) -> Story {
        match (self, number % 5) {
            (Story::Mixed, 1) => Story::PaidWithCoupon,
            (Story::Mixed, 3) => Story::Approved,
            (Story::Mixed, 4) => Story::Declined,
            (Story::Mixed, _) => Story::Paid,
            (Story::Paid | Story::PaidWithCoupon | Story::Declined | Story::Approved | Story::Abandoned, _) => self,
        }
    }

    async fn begin_one(self, world: &World, before: [(i32, i32); 2]) -> Begun {
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
        let token = match self {
            Story::Paid | Story::PaidWithCoupon | Story::Mixed => "tok_ok",
            Story::Declined => "tok_declined",
            Story::Approved | Story::Abandoned => "tok_3ds",
        };
        let coupon_codes = if self == Story::PaidWithCoupon { vec!["SAVE20".to_owned()] } else { Vec::new() };
        let order = Order { payment_token: Some(token.to_owned()), coupon_codes, ..order(user, cart) };
        Begun { story: self, accepted: world.checkout_as(order).await.expect("accepted"), cart, before }
    }
}

impl misfortune::Story for Story {
    type Begun = Begun;

    async fn begin(&self, world: &World, many: usize) -> Vec<Begun> {
        let (before, mut begun) = (stock(world).await, Vec::with_capacity(many));
        for number in 0..many {
            begun.push(self.of(number).begin_one(world, before).await);
        }
        begun
    }

    async fn meanwhile(&self, world: &World, begun: &[Begun]) {
        for one in begun.iter().filter(|one| one.story == Story::Approved) {
            approve(world, &one.accepted).await;
        }
    }

    /// Each is confirmed with exactly its money, or as if it had never been; together they have their stock.
    async fn judge(&self, world: &World, begun: &[Begun], when: &str) -> Vec<bool> {
        let (mut as_planned, mut confirmed) = (Vec::with_capacity(begun.len()), 0);
        for one in begun {
            let is_confirmed = is_confirmed_or_undone(world, one, when).await;
            confirmed += i32::from(is_confirmed);
            as_planned.push(is_confirmed == !matches!(one.story, Story::Declined | Story::Abandoned));
        }
        if let Some(Begun { before: [laptops, mice], .. }) = begun.first() {
            let left = [(laptops.0 - confirmed, laptops.1), (mice.0 - 2 * confirmed, mice.1)];
            assert_eq!(stock(world).await, left, "{when}: the stock when {confirmed} are confirmed");
        }
        as_planned
    }
}

async fn stock(world: &World) -> [(i32, i32); 2] {
    [world.stock("LAP-001").await, world.stock("MOU-001").await]
}

/// The gateway captures and says so by webhook, if it has a payment that waits for the shopper.
pub async fn approve(world: &World, accepted: &Accepted) {
    if let Some(payment) = world.gateway.approve(accepted.order_id) {
        let event = domain::ports::WebhookEvent {
            event_id: format!("evt_{}", payment.gateway_payment_id),
            kind: domain::ports::WebhookKind::PaymentCaptured,
            gateway_payment_id: payment.gateway_payment_id.clone(),
            order_id: Some(accepted.order_id),
            amount: Some(payment.amount.clone()),
            failure: None,
            about: None,
            at: None,
        };
        let mut tx = world.pool.begin().await.expect("a transaction");
        workflows::checkout::webhook::receive(&mut tx, "scripted", &event).await.expect("received");
        tx.commit().await.expect("committed");
    }
}

/// Confirmed with exactly its money, or as if it had never been.
async fn is_confirmed_or_undone(world: &World, one: &Begun, when: &str) -> bool {
    let Begun { accepted, cart, .. } = one;
    let status = world.order_status(accepted.order_id.into()).await;
    let total: Option<Decimal> = sqlx::query_scalar("select total_amount from orders where id = $1")
        .bind(uuid::Uuid::from(accepted.order_id))
        .fetch_optional(&world.pool)
        .await
        .expect("a total");
    let net = world.gateway.net(accepted.order_id);
    let mails = world.mails.about(accepted.order_id);
    let payments = world.gateway.payments(accepted.order_id);
    assert!(payments.len() <= 1, "{when}: charged more than once: {payments:?}");
    if status.as_deref() == Some("CONFIRMED") {
        assert_eq!(net, total.expect("a total"), "{when}: the money of a confirmed order");
        assert_eq!(world.cart_status(*cart).await, "CONVERTED", "{when}");
        assert_eq!(mails.len(), 1, "{when}: one e-mail");
        true
    } else {
        assert!(matches!(status.as_deref(), None | Some("CANCELLED")), "{when}: the order is {status:?}");
        assert_eq!(net, Decimal::ZERO, "{when}: nobody pays for an order that is not to be had");
        assert_eq!(world.cart_status(*cart).await, "ACTIVE", "{when}: the cart is the shopper's again");
        let cancelled = mails.iter().filter(|mail| mail.event == "order.cancelled").count();
        assert_eq!(cancelled, usize::from(status.is_some()), "{when}: one e-mail for an order that was cancelled");
        false
    }
}

alone! {
    paid: Story::Paid,
    paid_with_a_coupon: Story::PaidWithCoupon,
    declined: Story::Declined,
    approved_by_3d_secure: Story::Approved,
    abandoned_at_3d_secure: Story::Abandoned,
}

/// A gateway may say what Postgres cannot keep, and would say it again at each redelivery.
#[tokio::test]
async fn a_webhook_that_no_run_can_be_told_is_refused_and_the_next_is_heard() {
    let world = World::new().await;
    let begun = Story::Approved.begin(&world, 1).await;
    let accepted = &begun[0].accepted;
    let worker = world.healthy().await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    let payments = world.gateway.payments(accepted.order_id);
    let event = domain::ports::WebhookEvent {
        event_id: "evt_garbled".to_owned(),
        kind: domain::ports::WebhookKind::PaymentFailed,
        gateway_payment_id: payments[0].gateway_payment_id.clone(),
        order_id: Some(accepted.order_id),
        amount: None,
        failure: Some("\0".to_owned()),
        about: None,
        at: None,
    };
    let mut tx = world.pool.begin().await.expect("a transaction");
    let told = workflows::checkout::webhook::receive(&mut tx, "scripted", &event).await.expect("received");
    tx.commit().await.expect("committed");
    assert_eq!(told, "REFUSED");
    approve(&world, accepted).await;
    worker.drain(50).await.expect("drained");
    assert_eq!(astray(&Story::Approved, &world, &begun, "after what could not be told").await, 0);
}

/// With packing that begins by itself there is a run of `fulfilment` behind each order.
#[tokio::test]
async fn an_order_is_packed_by_itself_though_nothing_can_be_read_again_at_first() {
    for fault in [Fault::Unreadable, Fault::Panic] {
        let packs_by_itself = workflows::Rules { auto_process_after_s: Some(60), ..workflows::Rules::default() };
        let world = World::with(workflows::Rules { default_gateway: "scripted".to_owned(), ..packs_by_itself }).await;
        let begun = play_with_a_bad_memory(&Story::Paid, &world, true, fault).await;
        let status = world.order_status(begun[0].accepted.order_id.into()).await;
        assert_eq!(status.as_deref(), Some("PROCESSING"));
        world.assert_books("packed").await;
    }
}

/// Steps before the point of no return unwind when they fail for good; the unwinding is a snapshot.
#[tokio::test]
async fn a_step_that_fails_for_good_leaves_a_clean_slate() {
    let (story, forward_only) = (Story::PaidWithCoupon, ["SendNotifications", "ReadReceipt"]);
    for way in ALONE {
        let world = World::new().await;
        let mut traces = Vec::new();
        for (point, step) in points(&story, &world, way).await {
            if point != Point::Before || forward_only.contains(&step.as_str()) || !story.may_fail(&step) {
                continue;
            }
            let when = format!("{way:?}, {step} fails for good");
            let begun = play(&story, &world, way, Some(Once::new(point, &step, for_good())), &when).await;
            assert_eq!(astray(&story, &world, &begun, &when).await, 1, "{when}: it was confirmed");
            traces.push((step, trace(&world.pool, begun[0].accepted.workflow_id).await.expect("a trace")));
        }
        assert!(traces.len() >= 15, "{} steps were failed", traces.len());
        insta::assert_yaml_snapshot!(
            format!("unwind_{}", if way == Way::Fused { "fused" } else { "step_by_step" }),
            traces
        );
    }
}

/// Past the point of no return a step that cannot be done parks the run: the order stays confirmed.
#[tokio::test]
async fn a_forward_only_step_that_fails_parks_the_run_and_keeps_the_order() {
    for step in ["SendNotifications", "ReadReceipt"] {
        for fusion in [true, false] {
            let world = World::new().await;
            let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
            let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
            world.worker(fusion, Some(Arc::new(Always(step)))).await.drain(50).await.expect("drained");
            assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"), "{step}");
            assert_eq!(world.status(accepted.workflow_id).await, "STUCK", "{step}, fusion {fusion}");
        }
    }
}

/// The declared steps are the seed's boxes, in its order.
#[tokio::test]
async fn the_steps_are_the_boxes_of_the_flow_chart_in_order() {
    let world = World::new().await;
    let begun = play(&Story::PaidWithCoupon, &world, Way::Fused, None, "without faults").await;
    let steps: Vec<String> = trace(&world.pool, begun[0].accepted.workflow_id)
        .await
        .expect("a trace")
        .into_iter()
        .filter(|line| !line.starts_with("INTENT"))
        .map(|line| line.split_once(' ').map_or(line.clone(), |(_, name)| name.to_owned()))
        .collect();
    let boxes = [
        "ValidateCart",       // 1 Validate Cart
        "ScreenOrder",        // the fraud checks of the order service
        "ApplyCoupons",       // 2 Apply Coupons
        "CollectDetails",     // 3 Collect Checkout Information
        "ReserveInventory",   // 4 Reserve Inventory
        "CreateOrder",        // 5 Create Order Record
        "CreateOrderItems",   // 6 Create Order Items
        "LinkCoupons",        // 7 Link Applied Coupons
        "InitiatePayment",    // 8 Initiate Payment: call the gateway …
        "StorePaymentIntent", // 8 … and store the payment intent id
        // 9 User Completes Payment: a wait, passed at once when the gateway has captured already
        "ConfirmOrder",      // 10 Update Order Status
        "CommitReservation", // 11 Commit Inventory Reservations
        "RecordRedemption",  // 12 Record Coupon Redemption
        "ConvertCart",       // 13 Mark Cart as Converted
        "AppendHistory",     // 14 Create Order State History
        "PublishEvents",     // 15 Publish Events
        "SendNotifications", // 16 Send Notifications …
        "notification",      // 16 … as a run of its own
        "ReadReceipt",       // 17 Return Success Response
        "COMPLETED",
    ];
    assert_eq!(steps, boxes);
}
