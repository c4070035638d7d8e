//! Cancellation, killed, failed and repeated at every point: what was accepted is carried out, wholly.

use std::sync::Arc;

use domain::{
    ids::CartId,
    notification::ParcelLabel,
    order::{Actor, OrderStatus, ShipmentStatus},
    payment::PaymentMethod,
};
use engine::{
    Failure, inspect,
    testing::{BadMemory, Everything, Fault, Faults, Once, Point, Recorder, trace},
};
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
        order_moves::{self, By, MoveError},
        refunds::ClaimError,
    },
};

use crate::{
    gateway::Weather,
    world::{World, order},
};

/// What is cancelled, and in what weather.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Story {
    Paid,
    PaidWithCoupon,
    /// To be paid on delivery.
    Cash,
    /// The gateway is away when the refund is due.
    GatewayAway,
}

struct Played {
    bought: Bought,
    cart: CartId,
    run_id: Uuid,
    /// Laptops and mice in stock before they were bought.
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

/// An order that has been confirmed by a healthy worker.
async fn confirmed(world: &World, story: Story) -> (Bought, CartId) {
    let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
    let coupon_codes = if story == Story::PaidWithCoupon { vec!["SAVE20".to_owned()] } else { Vec::new() };
    let payment_method = if story == Story::Cash { PaymentMethod::Cod } else { PaymentMethod::Upi };
    let bought =
        world.checkout_as(Order { coupon_codes, payment_method, ..order(user, cart) }).await.expect("accepted");
    let healthy = world.healthy().await;
    healthy.drain(50).await.expect("drained");
    healthy.die().await.expect("dead");
    assert_eq!(world.order_status(bought.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    (bought, cart)
}

async fn play(world: &World, story: Story, fusion: bool, faults: Option<Arc<dyn Faults>>) -> Played {
    let before = stock(world).await;
    let (bought, cart) = confirmed(world, story).await;
    let accepted = cancel(world, &bought, Actor::Customer).await.expect("accepted");
    let first = world.worker(fusion, faults).await;
    if story == Story::GatewayAway {
        world.gateway.set_weather(Weather::Away);
        first.drain(4).await.expect("drained");
        world.gateway.set_weather(Weather::Fair);
    }
    first.drain(6).await.expect("drained");
    first.die().await.expect("dead");
    let turns = world.worker(fusion, None).await.drain(200).await.expect("drained");
    assert!(turns < 200, "the run never ends");
    Played { bought, cart, run_id: accepted.workflow_id, before }
}

/// Everything is back where it was, once; the order says so, and so was the shopper told.
async fn assert_taken_back(world: &World, story: Story, played: &Played, when: &str) {
    world.assert_books(when).await;
    let order_id = played.bought.order_id;
    let (status, payment): (String, String) =
        sqlx::query_as("select order_status, payment_status from orders where id = $1")
            .bind(Uuid::from(order_id))
            .fetch_one(&world.pool)
            .await
            .expect("an order");
    let paid_back = if story == Story::Cash { "FAILED" } else { "REFUNDED" };
    assert_eq!((status.as_str(), payment.as_str()), ("CANCELLED", paid_back), "{when}");
    assert_eq!(world.gateway.net(order_id), Decimal::ZERO, "{when}: the money is back");
    assert_eq!(stock(world).await, played.before, "{when}: the stock is back");
    assert_eq!(world.cart_status(played.cart).await, "CONVERTED", "{when}: a cart is ordered once");
    let used: i32 = sqlx::query_scalar("select current_usage_count + held_count from coupons where code = 'SAVE20'")
        .fetch_one(&world.pool)
        .await
        .expect("a coupon");
    assert_eq!(used, 0, "{when}: the coupon may be used again");
    let mut told: Vec<String> = world.mails.about(order_id).into_iter().map(|mail| mail.event).collect();
    told.sort();
    let refunded: &[&str] = if story == Story::Cash { &[] } else { &["payment.refunded"] };
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
    let run = inspect::run(&world.pool, played.run_id).await.expect("a run").expect("a run");
    assert_eq!(run.status.as_str(), "COMPLETED", "{when}");
    let eta = if story == Story::Cash { serde_json::Value::Null } else { "5-7 business days".into() };
    let output = run.output.expect("an output");
    assert_eq!((&output["status"], &output["refundETA"]), (&"CANCELLED".into(), &eta), "{when}");
}

/// Plays a story with workers that die after each commit and can read nothing again at first.
async fn play_with_a_bad_memory(world: &World, story: Story, fusion: bool, fault: Fault) -> Played {
    let before = stock(world).await;
    let (bought, cart) = confirmed(world, story).await;
    let accepted = cancel(world, &bought, Actor::Customer).await.expect("accepted");
    let (memory, registry) = (BadMemory::new(fault), workflows::registry(&world.shop));
    if story == Story::GatewayAway {
        world.gateway.set_weather(Weather::Away);
        for _ in 0..40 {
            memory.turn(&world.pool, &registry, fusion).await.expect("a turn");
        }
        world.gateway.set_weather(Weather::Fair);
    }
    memory.drain(&world.pool, &registry, fusion, 1_000).await.expect("drained");
    Played { bought, cart, run_id: accepted.workflow_id, before }
}

async fn points(world: &World, story: Story, fusion: bool) -> Vec<(Point, String)> {
    let recorder = Arc::new(Recorder::default());
    let played = play(world, story, fusion, Some(Arc::clone(&recorder) as _)).await;
    assert_taken_back(world, story, &played, "without faults").await;
    recorder.points()
}

async fn every_point(story: Story, fault: impl Fn(Point, &str) -> Option<Fault>) {
    for fusion in [true, false] {
        let world = World::new().await;
        let mut struck = 0;
        for (point, step) in points(&world, story, fusion).await {
            let Some(fault) = fault(point, &step) else { continue };
            let when = format!("{story:?}, fusion {fusion}, {fault:?} at {point:?} {step}");
            let strike = Once::new(point, &step, fault);
            let played = play(&world, story, fusion, Some(Arc::clone(&strike) as _)).await;
            assert_taken_back(&world, story, &played, &when).await;
            assert!(strike.has_struck(), "{when}: the fault never struck");
            struck += 1;
        }
        assert!(struck > 8, "{story:?}: {struck} points were tried");
    }
}

macro_rules! stories {
    ($($name:ident: $story:expr),+ $(,)?) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn survives_a_crash_before_and_after_every_step_and_every_commit() {
                every_point($story, |_, _| Some(Fault::Crash)).await;
            }

            #[tokio::test]
            async fn survives_a_passing_failure_of_every_step() {
                every_point($story, |point, _| (point == Point::Before).then_some(Fault::Retry)).await;
            }

            #[tokio::test]
            async fn is_the_same_when_every_step_runs_twice() {
                for fusion in [true, false] {
                    let world = World::new().await;
                    let played = play(&world, $story, fusion, Some(Arc::new(Everything))).await;
                    assert_taken_back(&world, $story, &played, "everything twice").await;
                }
            }

            #[tokio::test]
            async fn parks_over_whatever_it_cannot_read_and_ends_the_same_once_it_can() {
                for fault in [Fault::Unreadable, Fault::Panic] {
                    for fusion in [true, false] {
                        let when = format!("fusion {fusion}, every entry: {fault:?}");
                        let world = World::new().await;
                        let played = play_with_a_bad_memory(&world, $story, fusion, fault.clone()).await;
                        assert_taken_back(&world, $story, &played, &when).await;
                    }
                }
            }
        }
    )+};
}
stories! {
    paid: Story::Paid,
    paid_with_a_coupon: Story::PaidWithCoupon,
    to_be_paid_on_delivery: Story::Cash,
    while_the_gateway_is_away: Story::GatewayAway,
}

/// One step fails for good, every time.
struct Always(&'static str);

impl Faults for Always {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        (point == Point::Before && step == self.0).then(|| Fault::Fail(Failure::new("injected", "a test")))
    }
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
            let played = Played { bought, cart, run_id: accepted.workflow_id, before };
            assert_taken_back(&world, Story::PaidWithCoupon, &played, &when).await;
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
    let mut order = order_moves::lock(&mut tx, bought.order_id).await.expect("locked").expect("an order");
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
    let played = play(&world, Story::PaidWithCoupon, true, None).await;
    let steps: Vec<String> = trace(&world.pool, played.run_id).await.expect("a trace");
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
            let mut order = order_moves::lock(&mut tx, bought.order_id).await.expect("locked").expect("an order");
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
        let stopped = engine::cancel(&mut conn, accepted.workflow_id, "an operator").await.expect("an answer");
        assert_eq!(stopped, engine::Delivery::Refused, "what was promised is not called off");
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
