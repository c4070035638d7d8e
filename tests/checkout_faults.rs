//! Checkout, killed, failed and repeated at every point: it ends confirmed or cleanly undone.

use std::sync::Arc;

use domain::ids::CartId;
use engine::{
    Failure,
    testing::{BadMemory, Everything, Fault, Faults, Once, Point, Recorder, TestWorker, trace},
};
use rust_decimal::Decimal;
use workflows::checkout::accept::{Accepted, Order};

use crate::world::{World, order};

/// How the shopper pays, and what must come of it when nothing goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Story {
    Paid,
    PaidWithCoupon,
    Declined,
    /// 3-D Secure, approved while the run waits.
    Approved,
    /// 3-D Secure, never answered.
    Abandoned,
}

struct Played<'w> {
    world: &'w World,
    accepted: Accepted,
    cart: CartId,
    /// Laptops and mice in stock before.
    before: [(i32, i32); 2],
}

async fn begin(world: &World, story: Story) -> Played<'_> {
    let before = [world.stock("LAP-001").await, world.stock("MOU-001").await];
    let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
    let token = match story {
        Story::Paid | Story::PaidWithCoupon => "tok_ok",
        Story::Declined => "tok_declined",
        Story::Approved | Story::Abandoned => "tok_3ds",
    };
    let coupon_codes = if story == Story::PaidWithCoupon { vec!["SAVE20".to_owned()] } else { Vec::new() };
    let order = Order { payment_token: Some(token.to_owned()), coupon_codes, ..order(user, cart) };
    let accepted = world.checkout_as(order).await.expect("accepted");
    Played { world, accepted, cart, before }
}

/// Plays a story with a fault on the first worker; whenever that worker dies, a healthy one takes over.
async fn play(world: &World, story: Story, fusion: bool, faults: Option<Arc<dyn Faults>>) -> Played<'_> {
    let played = begin(world, story).await;
    let accepted = &played.accepted;
    let registry = workflows::registry(&world.shop);
    let first = TestWorker::new(&world.pool, registry.clone(), fusion, faults).await.expect("a worker");
    first.turn(accepted.workflow_id).await.expect("a turn");
    if story == Story::Approved {
        approve(world, accepted).await;
    }
    // A few turns with the faulty worker, so that undos and children meet it too.
    first.drain(6).await.expect("drained");
    first.die().await.expect("dead");
    if story == Story::Approved {
        approve(world, accepted).await;
    }
    let second = TestWorker::new(&world.pool, registry, fusion, None).await.expect("a worker");
    let turns = second.drain(200).await.expect("drained");
    assert!(turns < 200, "the run never ends");
    played
}

/// Plays a story with workers that die after each commit and can read nothing again at first.
async fn play_with_a_bad_memory(world: &World, story: Story, fusion: bool, fault: Fault) -> Played<'_> {
    let played = begin(world, story).await;
    let (memory, registry) = (BadMemory::new(fault), workflows::registry(&world.shop));
    let mut turns = 0;
    while memory.turn(&world.pool, &registry, fusion).await.expect("a turn") {
        if story == Story::Approved {
            approve(world, &played.accepted).await;
        }
        turns += 1;
        assert!(turns < 1_000, "the run never ends");
    }
    played
}

/// The gateway captures and says so by webhook, if it has a payment that waits for the shopper.
async fn approve(world: &World, accepted: &Accepted) {
    if let Some(payment) = world.gateway.approve(accepted.order_id) {
        let event = domain::ports::WebhookEvent {
            event_id: format!("evt_{}", payment.gateway_payment_id),
            kind: domain::ports::WebhookKind::PaymentCaptured,
            gateway_payment_id: payment.gateway_payment_id.clone(),
            order_id: Some(accepted.order_id),
            amount: Some(payment.amount.clone()),
            failure: None,
        };
        let mut tx = world.pool.begin().await.expect("a transaction");
        workflows::checkout::webhook::receive(&mut tx, "scripted", &event).await.expect("received");
        tx.commit().await.expect("committed");
    }
}

/// Confirmed with exactly its money and its stock, or as if it had never been.
async fn assert_confirmed_or_undone(played: &Played<'_>, when: &str) -> bool {
    let Played { world, accepted, cart, before } = played;
    world.assert_books(when).await;
    let status = world.order_status(accepted.order_id.into()).await;
    let total: Option<Decimal> = sqlx::query_scalar("select total_amount from orders where id = $1")
        .bind(uuid::Uuid::from(accepted.order_id))
        .fetch_optional(&world.pool)
        .await
        .expect("a total");
    let net = world.gateway.net(accepted.order_id);
    let after = [world.stock("LAP-001").await, world.stock("MOU-001").await];
    let mails = world.mails.about(accepted.order_id);
    let payments = world.gateway.payments(accepted.order_id);
    assert!(payments.len() <= 1, "{when}: charged more than once: {payments:?}");
    if status.as_deref() == Some("CONFIRMED") {
        assert_eq!(net, total.expect("a total"), "{when}: the money of a confirmed order");
        let sold = [(before[0].0 - 1, before[0].1), (before[1].0 - 2, before[1].1)];
        assert_eq!(after, sold, "{when}: the stock of a confirmed order");
        assert_eq!(world.cart_status(*cart).await, "CONVERTED", "{when}");
        assert_eq!(mails.len(), 1, "{when}: one e-mail");
        true
    } else {
        assert!(matches!(status.as_deref(), None | Some("CANCELLED")), "{when}: the order is {status:?}");
        assert_eq!(net, Decimal::ZERO, "{when}: nobody pays for an order that is not to be had");
        assert_eq!(after, *before, "{when}: all stock is back");
        assert_eq!(world.cart_status(*cart).await, "ACTIVE", "{when}: the cart is the shopper's again");
        let cancelled = mails.iter().filter(|mail| mail.event == "order.cancelled").count();
        assert_eq!(cancelled, usize::from(status.is_some()), "{when}: one e-mail for an order that was cancelled");
        false
    }
}

async fn points(world: &World, story: Story, fusion: bool) -> Vec<(Point, String)> {
    let recorder = Arc::new(Recorder::default());
    let played = play(world, story, fusion, Some(Arc::clone(&recorder) as _)).await;
    let confirmed = assert_confirmed_or_undone(&played, "without faults").await;
    assert_eq!(confirmed, !matches!(story, Story::Declined | Story::Abandoned), "{story:?} without faults");
    recorder.points()
}

/// One row a point: the whole table, in one test a story so that they run side by side.
async fn every_point(story: Story, fault: impl Fn(Point, &str) -> Option<Fault>) {
    for fusion in [true, false] {
        let world = World::new().await;
        let mut struck = 0;
        for (point, step) in points(&world, story, fusion).await {
            let Some(fault) = fault(point, &step) else { continue };
            let when = format!("{story:?}, fusion {fusion}, {fault:?} at {point:?} {step}");
            let once = Once::new(point, &step, fault);
            let played = play(&world, story, fusion, Some(Arc::clone(&once) as _)).await;
            assert_confirmed_or_undone(&played, &when).await;
            assert!(once.has_struck(), "{when}: the fault never struck");
            struck += 1;
        }
        assert!(struck > 0, "{story:?}: no point was tried");
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
                    let confirmed = assert_confirmed_or_undone(&played, "everything twice").await;
                    assert_eq!(confirmed, !matches!($story, Story::Declined | Story::Abandoned));
                }
            }

            #[tokio::test]
            async fn parks_over_whatever_it_cannot_read_and_ends_the_same_once_it_can() {
                for fault in [Fault::Unreadable, Fault::Panic] {
                    for fusion in [true, false] {
                        let when = format!("fusion {fusion}, every entry: {fault:?}");
                        let world = World::new().await;
                        let played = play_with_a_bad_memory(&world, $story, fusion, fault.clone()).await;
                        let confirmed = assert_confirmed_or_undone(&played, &when).await;
                        assert_eq!(confirmed, !matches!($story, Story::Declined | Story::Abandoned), "{when}");
                    }
                }
            }
        }
    )+};
}
stories! {
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
    let played = begin(&world, Story::Approved).await;
    let worker = TestWorker::new(&world.pool, workflows::registry(&world.shop), true, None).await.expect("a worker");
    worker.turn(played.accepted.workflow_id).await.expect("a turn");
    let payments = world.gateway.payments(played.accepted.order_id);
    let event = domain::ports::WebhookEvent {
        event_id: "evt_garbled".to_owned(),
        kind: domain::ports::WebhookKind::PaymentFailed,
        gateway_payment_id: payments[0].gateway_payment_id.clone(),
        order_id: Some(played.accepted.order_id),
        amount: None,
        failure: Some("\0".to_owned()),
    };
    let mut tx = world.pool.begin().await.expect("a transaction");
    let told = workflows::checkout::webhook::receive(&mut tx, "scripted", &event).await.expect("received");
    tx.commit().await.expect("committed");
    assert_eq!(told, "REFUSED");
    approve(&world, &played.accepted).await;
    worker.drain(50).await.expect("drained");
    assert!(assert_confirmed_or_undone(&played, "after what could not be told").await);
}

/// With packing that begins by itself there is a run of `fulfilment` behind each order.
#[tokio::test]
async fn an_order_is_packed_by_itself_though_nothing_can_be_read_again_at_first() {
    for fault in [Fault::Unreadable, Fault::Panic] {
        let packs_by_itself = workflows::Rules { auto_process_after_s: Some(60), ..workflows::Rules::default() };
        let world = World::with(workflows::Rules { default_gateway: "scripted".to_owned(), ..packs_by_itself }).await;
        let played = play_with_a_bad_memory(&world, Story::Paid, true, fault).await;
        let status = world.order_status(played.accepted.order_id.into()).await;
        assert_eq!(status.as_deref(), Some("PROCESSING"));
        world.assert_books("packed").await;
    }
}

/// Steps before the point of no return unwind when they fail for good; the unwinding is a snapshot.
#[tokio::test]
async fn a_step_that_fails_for_good_leaves_a_clean_slate() {
    let forward_only = ["SendNotifications", "ReadReceipt"];
    for fusion in [true, false] {
        let world = World::new().await;
        let mut traces = Vec::new();
        for (point, step) in points(&world, Story::PaidWithCoupon, fusion).await {
            let is_checkout_step = !matches!(step.as_str(), "ComposeMessage" | "SendEmail" | "SettleMessage");
            if point != Point::Before || forward_only.contains(&step.as_str()) || !is_checkout_step {
                continue;
            }
            let when = format!("fusion {fusion}, {step} fails for good");
            let once = Once::new(point, &step, Fault::Fail(Failure::new("injected", "a test")));
            let played = play(&world, Story::PaidWithCoupon, fusion, Some(Arc::clone(&once) as _)).await;
            assert!(!assert_confirmed_or_undone(&played, &when).await, "{when}: it was confirmed");
            traces.push((step, trace(&played.world.pool, played.accepted.workflow_id).await.expect("a trace")));
        }
        assert!(traces.len() >= 15, "{} steps were failed", traces.len());
        insta::assert_yaml_snapshot!(format!("unwind_{}", if fusion { "fused" } else { "step_by_step" }), traces);
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
            struct Always(&'static str);
            impl Faults for Always {
                fn at(&self, point: Point, step: &str) -> Option<Fault> {
                    (point == Point::Before && step == self.0).then(|| Fault::Fail(Failure::new("injected", "a test")))
                }
            }
            let worker =
                TestWorker::new(&world.pool, workflows::registry(&world.shop), fusion, Some(Arc::new(Always(step))))
                    .await
                    .expect("a worker");
            worker.drain(50).await.expect("drained");
            assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"), "{step}");
            let run = engine::inspect::run(&world.pool, accepted.workflow_id).await.expect("a run").expect("a run");
            assert_eq!(run.status.as_str(), "STUCK", "{step}, fusion {fusion}");
        }
    }
}

/// The declared steps are the seed's boxes, in its order.
#[tokio::test]
async fn the_steps_are_the_boxes_of_the_flow_chart_in_order() {
    let world = World::new().await;
    let played = play(&world, Story::PaidWithCoupon, true, None).await;
    let steps: Vec<String> = trace(&played.world.pool, played.accepted.workflow_id)
        .await
        .expect("a trace")
        .into_iter()
        .filter(|line| !line.starts_with("INTENT"))
        .map(|line| line.split_once(' ').map_or(line.clone(), |(_, name)| name.to_owned()))
        .collect();
    let boxes = [
        "ValidateCart",       // 1 Validate Cart
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
