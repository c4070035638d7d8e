//! Cancellation, killed, failed and repeated at every point: what was accepted is carried out, wholly.

use std::sync::Arc;

use domain::{
    ids::CartId,
    notification::ParcelLabel,
    order::{Actor, OrderStatus, ShipmentStatus},
    payment::PaymentMethod,
};
use engine::{inspect, testing::trace};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    cancellation::{
        CancelRequest,
        accept::{self, Accepted, CancelError},
    },
    checkout::accept::{Accepted as Bought, Order},
    fulfilment::{self, ShipRefusal, StaffRefusal},
    pay_back,
    store::{
        orders::{self, By, MoveError},
        refunds::ClaimError,
    },
};

use crate::{
    gateway::Weather,
    misfortune::{self, Always, Way, alone, play},
    world::{World, order},
};

/// What is cancelled, and in what weather.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Story {
    Paid,
    PaidWithCoupon,
    /// To be paid on delivery.
    Cash,
    /// The gateway is away when the refund is due.
    GatewayAway,
    /// Of many, each in its own way.
    Mixed,
}

pub struct Begun {
    story: Story,
    bought: Bought,
    cart: CartId,
    run_id: Uuid,
    /// Laptops and mice in stock before any of them were bought.
    before: [(i32, i32); 2],
}

async fn stock(world: &World) -> [(i32, i32); 2] {
    [world.stock("LAP-001").await, world.stock("MOU-001").await]
}

fn asked(bought: &Bought, actor: Actor) -> CancelRequest {
    CancelRequest {
        order_id: bought.order_id,
        actor,
        by: "user:somebody".to_owned(),
        reason: "a change of mind".to_owned(),
    }
}

async fn cancel(world: &World, bought: &Bought, actor: Actor) -> Result<Accepted, CancelError> {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let accepted = accept::accept(&mut tx, &world.shop.rules, &asked(bought, actor), |_| true).await?;
    tx.commit().await.expect("committed");
    Ok(accepted)
}

/// Orders that have been confirmed by a healthy worker.
async fn confirmed_of(world: &World, story: Story, many: usize) -> Vec<(Story, Bought, CartId)> {
    let mut confirmed = Vec::with_capacity(many);
    for number in 0..many {
        let story = story.of(number);
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
        let coupon_codes = if story == Story::PaidWithCoupon { vec!["SAVE20".to_owned()] } else { Vec::new() };
        let payment_method = if story == Story::Cash { PaymentMethod::Cod } else { PaymentMethod::Upi };
        let order = Order { coupon_codes, payment_method, ..order(user, cart) };
        confirmed.push((story, world.checkout_as(order).await.expect("accepted"), cart));
    }
    world.carry_on(many).await;
    for (_, bought, _) in &confirmed {
        assert_eq!(world.order_status(bought.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    }
    confirmed
}

async fn confirmed(world: &World, story: Story) -> (Bought, CartId) {
    let (_, bought, cart) = confirmed_of(world, story, 1).await.remove(0);
    (bought, cart)
}

impl Story {
    /// That of one of many.
    fn of(self, number: usize) -> Story {
        match (self, number % 4) {
            (Story::Mixed, 1) => Story::PaidWithCoupon,
            (Story::Mixed, 3) => Story::Cash,
            (Story::Mixed, _) => Story::Paid,
            (Story::Paid | Story::PaidWithCoupon | Story::Cash | Story::GatewayAway, _) => self,
        }
    }
}

impl misfortune::Story for Story {
    type Begun = Begun;

    async fn begin(&self, world: &World, many: usize) -> Vec<Begun> {
        let (before, mut begun) = (stock(world).await, Vec::with_capacity(many));
        for (story, bought, cart) in confirmed_of(world, *self, many).await {
            let run_id = cancel(world, &bought, Actor::Customer).await.expect("accepted").workflow_id;
            begun.push(Begun { story, bought, cart, run_id, before });
        }
        if *self == Story::GatewayAway {
            world.gateway.set_weather(Weather::Away);
        }
        begun
    }

    async fn meanwhile(&self, world: &World, _: &[Begun]) {
        if world.gateway.asked_in_vain() > 2 {
            world.gateway.set_weather(Weather::Fair);
        }
    }

    async fn judge(&self, world: &World, begun: &[Begun], when: &str) -> Vec<bool> {
        for one in begun {
            assert_taken_back(world, one, when).await;
        }
        vec![true; begun.len()]
    }
}

/// Everything is back where it was, once; the order says so, and so was the shopper told.
async fn assert_taken_back(world: &World, begun: &Begun, when: &str) {
    let Begun { story, bought, cart, run_id, before } = begun;
    let order_id = bought.order_id;
    let (status, payment): (String, String) =
        sqlx::query_as("select order_status, payment_status from orders where id = $1")
            .bind(Uuid::from(order_id))
            .fetch_one(&world.pool)
            .await
            .expect("an order");
    let paid_back = if *story == Story::Cash { "FAILED" } else { "REFUNDED" };
    assert_eq!((status.as_str(), payment.as_str()), ("CANCELLED", paid_back), "{when}");
    assert_eq!(world.gateway.net(order_id), Decimal::ZERO, "{when}: the money is back");
    assert_eq!(stock(world).await, *before, "{when}: the stock is back");
    assert_eq!(world.cart_status(*cart).await, "CONVERTED", "{when}: a cart is ordered once");
    let used: i32 = sqlx::query_scalar("select current_usage_count + held_count from coupons where code = 'SAVE20'")
        .fetch_one(&world.pool)
        .await
        .expect("a coupon");
    assert_eq!(used, 0, "{when}: the coupon may be used again");
    let mut told: Vec<String> = world.mails.about(order_id).into_iter().map(|mail| mail.event).collect();
    told.sort();
    let refunded: &[&str] = if *story == Story::Cash { &[] } else { &["payment.refunded"] };
    assert_eq!(told, [&["order.cancelled", "order.confirmed"], refunded].concat(), "{when}: e-mails");
    let history: Vec<(Option<String>, String, String)> = sqlx::query_as(
        "select from_status, to_status, changed_by from order_state_history where order_id = $1 order by id desc limit 1",
    )
    .bind(Uuid::from(order_id))
    .fetch_all(&world.pool)
    .await
    .expect("a history");
    let last = (Some("CONFIRMED".to_owned()), "CANCELLED".to_owned(), "user:somebody".to_owned());
    assert_eq!(history, [last], "{when}");
    let run = inspect::run(&world.pool, *run_id).await.expect("a run").expect("a run");
    assert_eq!(run.status.as_str(), "COMPLETED", "{when}");
    let eta = if *story == Story::Cash { serde_json::Value::Null } else { "5-7 business days".into() };
    let output = run.output.expect("an output");
    assert_eq!((&output["status"], &output["refundETA"]), (&"CANCELLED".into(), &eta), "{when}");
}

alone! {
    paid: Story::Paid,
    paid_with_a_coupon: Story::PaidWithCoupon,
    to_be_paid_on_delivery: Story::Cash,
    while_the_gateway_is_away: Story::GatewayAway,
}

#[tokio::test]
async fn a_step_that_fails_for_good_parks_the_run_and_the_promise_holds_until_it_goes_on() {
    let steps = ["CheckEligibility", "MarkCancelled", "ReturnInventory", "ReverseCoupons", "AnnounceCancellation"];
    for fusion in [true, false] {
        let world = World::new().await;
        for step in steps {
            let when = format!("fusion {fusion}, {step} fails for good");
            let before = stock(&world).await;
            let (bought, cart) = confirmed(&world, Story::PaidWithCoupon).await;
            let sold = stock(&world).await;
            let accepted = cancel(&world, &bought, Actor::Customer).await.expect("accepted");
            let doomed = world.worker(fusion, Some(Arc::new(Always(step)))).await;
            doomed.drain(50).await.expect("drained");
            doomed.die().await.expect("dead");
            let run = inspect::run(&world.pool, accepted.workflow_id).await.expect("a run").expect("a run");
            assert_eq!(run.status.as_str(), "STUCK", "{when}");
            assert_eq!(world.order_status(bought.order_id.into()).await.as_deref(), Some("CONFIRMED"), "{when}");
            assert_eq!(stock(&world).await, sold, "{when}");
            assert_nothing_leaves(&world, &bought, &when).await;
            let again = cancel(&world, &bought, Actor::Staff).await.expect("accepted");
            let (first, again) = (promise(&accepted), promise(&again));
            assert_eq!(first, again, "{when}: the same promise");

            let mut conn = world.pool.acquire().await.expect("a connection");
            engine::park::unpark(&mut conn, accepted.workflow_id, "an operator", "mended").await.expect("let go on");
            drop(conn);
            let healthy = world.worker(fusion, None).await;
            healthy.drain(50).await.expect("drained");
            healthy.die().await.expect("dead");
            let begun = Begun { story: Story::PaidWithCoupon, bought, cart, run_id: accepted.workflow_id, before };
            world.assert_books(&when).await;
            assert_taken_back(&world, &begun, &when).await;
        }
    }
}

fn promise(accepted: &Accepted) -> (Uuid, &str, Decimal) {
    (accepted.workflow_id, accepted.status.as_str(), accepted.refund_amount)
}

/// Whoever packs, ships, delivers, moves, or gives money back besides is told that the order is being
/// cancelled.
async fn assert_nothing_leaves(world: &World, bought: &Bought, when: &str) {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let mut order = orders::lock(&mut tx, bought.order_id).await.expect("locked").expect("an order");
    let now = engine::now(&mut *tx).await.expect("the time");
    let label = ParcelLabel { courier_service: "Blue Dart".to_owned(), tracking_number: "BD1".to_owned() };
    let packed = fulfilment::ship(&mut tx, &mut order, None, &label, "user:packer", now).await;
    assert!(matches!(packed, Err(ShipRefusal::BeingCancelled)), "{when}: {packed:?}");
    let parcels: Vec<Uuid> = sqlx::query_scalar("select id from shipments where order_id = $1")
        .bind(Uuid::from(bought.order_id))
        .fetch_all(&mut *tx)
        .await
        .expect("the parcels");
    for to in [ShipmentStatus::Shipped, ShipmentStatus::Delivered] {
        for parcel in &parcels {
            let reported = fulfilment::report(&mut tx, *parcel, to, now).await;
            assert!(matches!(reported, Err(ShipRefusal::BeingCancelled)), "{when}: {reported:?}");
        }
    }
    for to in [OrderStatus::Processing, OrderStatus::Shipped, OrderStatus::Delivered] {
        let by = By { actor: "user:packer", reason: None, metadata: None };
        let moved = fulfilment::staff_move(&mut tx, &mut order, to, by, now).await;
        assert!(matches!(moved, Err(StaffRefusal::Move(MoveError::BeingCancelled))), "{when}: {moved:?}");
    }
    let refund = pay_back::accept(&mut tx, bought.order_id, Decimal::ONE, "user:clerk", "goodwill").await;
    assert!(matches!(refund, Err(ClaimError::BeingCancelled)), "{when}: {refund:?}");
}

#[tokio::test]
async fn a_step_that_fails_for_good_after_the_point_of_no_return_parks_the_run_and_never_uncancels() {
    let steps = ["NoteTextMessage", "ClosePayments", "ClaimRefunds", "SendRefund", "SettleRefund"];
    for fusion in [true, false] {
        for step in steps {
            let world = World::new().await;
            let (bought, _) = confirmed(&world, Story::Paid).await;
            let accepted = cancel(&world, &bought, Actor::Customer).await.expect("accepted");
            world.worker(fusion, Some(Arc::new(Always(step)))).await.drain(50).await.expect("drained");
            let run = inspect::run(&world.pool, accepted.workflow_id).await.expect("a run").expect("a run");
            assert_eq!(run.status.as_str(), "STUCK", "{step}, fusion {fusion}");
            assert_eq!(world.order_status(bought.order_id.into()).await.as_deref(), Some("CANCELLED"), "{step}");
        }
    }
}

#[tokio::test]
async fn the_steps_are_the_boxes_of_the_flow_chart() {
    let world = World::new().await;
    let begun = play(&Story::PaidWithCoupon, &world, Way::Fused, None, "without faults").await;
    let steps: Vec<String> = trace(&world.pool, begun[0].run_id).await.expect("a trace");
    let boxes = [
        "TX CheckEligibility",            // 1 Validate Cancellation Eligibility
        "NO_RETURN MarkCancelled",        // 2 Begin, 3 Update Order Status, 7 Create State History
        "NO_RETURN ReturnInventory",      // 4 Refund Inventory
        "NO_RETURN ReverseCoupons",       // 5 Reverse Coupon Usage
        "NO_RETURN AnnounceCancellation", // 8 Publish Events
        "TX NoteTextMessage",             // 9 Send Notifications: the text message …
        "START notification",             // 9 … and the e-mail, before what may take days
        "INTENT ClosePayments",           // 6 Process Payment Refund
        "CALL ClosePayments",
        "TX ClaimRefunds",
        "INTENT SendRefund",
        "CALL SendRefund",
        "TX SettleRefund",
        "START notification",
        "COMPLETED", // 10 Return Success Response
    ];
    assert_eq!(steps, boxes);
}

#[tokio::test]
async fn asking_again_finds_the_same_run_and_a_text_message_is_recorded_as_skipped() {
    let world = World::new().await;
    let (bought, _) = confirmed(&world, Story::Paid).await;
    sqlx::query("update orders set contact_phone = '+919800000000'").execute(&world.pool).await.expect("a telephone");
    let first = cancel(&world, &bought, Actor::Customer).await.expect("accepted");
    let total = world.gateway.net(bought.order_id);
    assert_eq!((first.status.as_str(), first.refund_amount), ("RUNNING", total));
    let again = cancel(&world, &bought, Actor::Staff).await.expect("accepted");
    assert_eq!(again.workflow_id, first.workflow_id);
    world.healthy().await.drain(50).await.expect("drained");
    let after = cancel(&world, &bought, Actor::Customer).await.expect("accepted");
    assert_eq!(
        (after.workflow_id, after.status.as_str(), after.refund_amount),
        (first.workflow_id, "COMPLETED", total),
        "also once it is done"
    );
    let message: (String, String) =
        sqlx::query_as("select status, detail from notifications where channel = 'SMS' and subject_id = $1")
            .bind(Uuid::from(bought.order_id))
            .fetch_one(&world.pool)
            .await
            .expect("a record");
    assert_eq!(message, ("SKIPPED".to_owned(), "no SMS channel is configured".to_owned()));
}

#[tokio::test]
async fn a_pending_order_is_taken_back_by_its_checkout() {
    let world = World::new().await;
    let before = stock(&world).await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let bought = world.checkout(user, cart, "tok_3ds").await.expect("accepted");
    let worker = world.healthy().await;
    worker.turn(bought.workflow_id).await.expect("a turn");
    let accepted = cancel(&world, &bought, Actor::Customer).await.expect("accepted");
    assert_eq!(accepted.workflow_id, bought.workflow_id);
    worker.drain(50).await.expect("drained");
    let again = cancel(&world, &bought, Actor::Customer).await.expect("accepted");
    assert_eq!((again.workflow_id, again.status.as_str()), (bought.workflow_id, "CANCELLED"));
    assert_eq!(stock(&world).await, before);
    assert_eq!(world.cart_status(cart).await, "ACTIVE");
    world.assert_books("after the checkout took it back").await;

    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let declined = world.checkout(user, cart, "tok_declined").await.expect("accepted");
    worker.drain(50).await.expect("drained");
    let refused = cancel(&world, &declined, Actor::Customer).await.expect_err("nobody had asked");
    assert_eq!(refused.to_string(), "The order is already cancelled");
}

#[tokio::test]
async fn an_accepted_cancellation_wins_over_the_warehouse_the_clock_and_an_operator() {
    for is_packed in [false, true] {
        let world = World::new().await;
        let before = stock(&world).await;
        let (bought, cart) = confirmed(&world, Story::Paid).await;
        if is_packed {
            let mut tx = world.pool.begin().await.expect("a transaction");
            let mut order = orders::lock(&mut tx, bought.order_id).await.expect("locked").expect("an order");
            let now = engine::now(&mut *tx).await.expect("the time");
            let label = ParcelLabel { courier_service: "Blue Dart".to_owned(), tracking_number: "BD1".to_owned() };
            fulfilment::ship(&mut tx, &mut order, None, &label, "user:packer", now).await.expect("packed");
            tx.commit().await.expect("committed");
        }
        let actor = if is_packed { Actor::Staff } else { Actor::Customer };
        let accepted = cancel(&world, &bought, actor).await.expect("accepted");
        assert_eq!(accepted.refund_amount, world.gateway.net(bought.order_id));
        assert_nothing_leaves(&world, &bought, "before its run begins").await;
        let mut conn = world.pool.acquire().await.expect("a connection");
        let stopped = engine::run::cancel(&mut conn, accepted.workflow_id, "an operator").await.expect("an answer");
        assert_eq!(stopped, engine::run::Delivery::Refused, "what was promised is not called off");
        drop(conn);

        // Longer than the deadline, and than the time after which an order is packed by itself.
        engine::testing::advance_clock(&world.pool, std::time::Duration::from_secs(864_000)).await.expect("ten days");
        let worker = world.healthy().await;
        worker.drain(50).await.expect("drained");
        assert_eq!(world.order_status(bought.order_id.into()).await.as_deref(), Some("CANCELLED"));
        assert_eq!((stock(&world).await, world.gateway.net(bought.order_id)), (before, Decimal::ZERO));
        assert_eq!(world.cart_status(cart).await, "CONVERTED");
        world.assert_books("after it was cancelled").await;
    }
}

#[tokio::test]
async fn a_customer_may_cancel_until_the_deadline_and_staff_after_it() {
    let rules = workflows::Rules {
        default_gateway: "scripted".to_owned(),
        cancel_deadline_s: Some(3_600),
        ..workflows::Rules::default()
    };
    let world = World::with(rules).await;
    let (bought, _) = confirmed(&world, Story::Paid).await;
    engine::testing::advance_clock(&world.pool, std::time::Duration::from_secs(3_700)).await.expect("an hour passes");
    let refused = cancel(&world, &bought, Actor::Customer).await.expect_err("too late");
    assert_eq!(refused.to_string(), "The time to cancel this order has passed. Please contact us.");
    cancel(&world, &bought, Actor::Staff).await.expect("accepted");
    world.healthy().await.drain(50).await.expect("drained");
    world.assert_books("after the deadline").await;

    let (bought, _) = confirmed(&world, Story::Paid).await;
    cancel(&world, &bought, Actor::Customer).await.expect("in time");
    engine::testing::advance_clock(&world.pool, std::time::Duration::from_secs(3_700)).await.expect("an hour passes");
    world.healthy().await.drain(50).await.expect("drained");
    let status = world.order_status(bought.order_id.into()).await;
    assert_eq!(status.as_deref(), Some("CANCELLED"), "asked in time is in time, whenever it is carried out");
}
