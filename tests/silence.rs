//! A gateway that says nothing: it costs its own payments their window, and nobody else anything.

use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::CartId;
use engine::{
    inspect,
    testing::{TestWorker, trace},
};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    Rules,
    checkout::accept::{Accepted, Order},
};

use crate::{
    gateway::Weather,
    processes::nightly,
    world::{STOCK, World, order},
};

const WINDOW: TimeDelta = TimeDelta::seconds(480);
const HOLD: TimeDelta = TimeDelta::seconds(600);
/// One more call, and the time until the run is looked at.
const LATE: TimeDelta = TimeDelta::seconds(12);

async fn bought(world: &World, token: &str) -> (Accepted, CartId) {
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let coupon_codes = vec!["SAVE20".to_owned()];
    let order = Order { payment_token: Some(token.to_owned()), coupon_codes, ..order(user, cart) };
    (world.checkout_as(order).await.expect("accepted"), cart)
}

/// Carries everything on, and the clock with it, until this checkout has ended.
async fn until_ended(world: &World, worker: &TestWorker, run_id: Uuid) -> inspect::Run {
    for _ in 0..300 {
        let run = inspect::run(&world.pool, run_id).await.expect("an answer").expect("a run");
        if run.finished_at.is_some() {
            return run;
        }
        worker.drain(1).await.expect("a turn");
    }
    panic!("it never ends: {:?}", trace(&world.pool, run_id).await);
}

/// It has failed as not paid in time, by then, and holds nothing any more.
async fn assert_expired(world: &World, run: &inspect::Run, accepted: &Accepted, cart: CartId, by: TimeDelta) {
    let failure = run.failure.as_ref().expect("a failure");
    assert_eq!(failure["code"], "payment-expired", "{failure}");
    let took = run.finished_at.expect("an end") - run.created_at;
    assert!(!nightly() || took <= by + LATE, "it took {took}");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CANCELLED"));
    assert_eq!(world.stock("LAP-001").await, (STOCK, 0));
    assert_eq!(world.cart_status(cart).await, "ACTIVE");
    let held: i32 =
        sqlx::query_scalar("select held_count from coupons").fetch_one(&world.pool).await.expect("a coupon");
    assert_eq!(held, 0, "the coupon is free again");
    world.assert_books("while the gateway is silent").await;
}

/// The gateway is back: whatever it has taken goes back, and the shopper hears of it.
async fn assert_settles(world: &World, worker: &TestWorker, accepted: &Accepted, was_taken: bool) {
    world.gateway.set_weather(Weather::Fair);
    assert!(worker.drain(100).await.expect("drained") < 100, "something never ends");
    assert_eq!(world.gateway.net(accepted.order_id), Decimal::ZERO);
    let mails = world.mails.about(accepted.order_id);
    let told = |event: &str| mails.iter().filter(|mail| mail.event == event).count();
    assert_eq!((told("order.cancelled"), told("payment.refunded")), (1, usize::from(was_taken)));
    world.assert_books("after the gateway is back").await;
}

#[tokio::test]
async fn a_payment_nobody_answers_for_ends_with_the_window_and_locks_nothing_longer() {
    for weather in [Weather::Away, Weather::Deaf] {
        let world = World::new().await;
        world.gateway.set_weather(weather);
        let (accepted, cart) = bought(&world, "tok_ok").await;
        let worker = world.healthy().await;
        let run = until_ended(&world, &worker, accepted.workflow_id).await;
        assert_expired(&world, &run, &accepted, cart, WINDOW).await;
        let taken = world.gateway.net(accepted.order_id) > Decimal::ZERO;
        assert_eq!(taken, weather == Weather::Deaf, "{weather:?}");
        assert_settles(&world, &worker, &accepted, taken).await;
    }
}

#[tokio::test]
async fn a_gateway_that_falls_silent_before_the_close_keeps_nothing_longer_than_the_hold() {
    for is_paid in [false, true] {
        let world = World::new().await;
        let (accepted, cart) = bought(&world, "tok_3ds").await;
        let worker = world.healthy().await;
        worker.turn(accepted.workflow_id).await.expect("a turn");
        world.gateway.set_weather(Weather::Away);
        if is_paid {
            world.gateway.approve(accepted.order_id).expect("approved, and nobody is told");
        }
        let run = until_ended(&world, &worker, accepted.workflow_id).await;
        assert_expired(&world, &run, &accepted, cart, HOLD).await;
        assert_settles(&world, &worker, &accepted, is_paid).await;
    }
}

#[tokio::test]
async fn a_checkout_that_waits_for_a_silent_gateway_may_still_be_called_off() {
    let world = World::new().await;
    world.gateway.set_weather(Weather::Away);
    let (accepted, cart) = bought(&world, "tok_ok").await;
    let worker = world.healthy().await;
    worker.drain(5).await.expect("turns");
    let mut tx = world.pool.begin().await.expect("a transaction");
    engine::run::cancel(&mut tx, accepted.workflow_id, "changed my mind").await.expect("asked");
    tx.commit().await.expect("committed");
    worker.turn(accepted.workflow_id).await.expect("a turn");
    assert_eq!(world.cart_status(cart).await, "ACTIVE");
    assert_settles(&world, &worker, &accepted, false).await;
}

async fn confirmed_at(world: &World, accepted: &Accepted) -> DateTime<Utc> {
    sqlx::query_scalar("select confirmed_at from orders where id = $1")
        .bind(Uuid::from(accepted.order_id))
        .fetch_one(&world.pool)
        .await
        .expect("confirmed")
}

#[tokio::test]
async fn a_lost_webhook_costs_seconds() {
    let world = World::new().await;
    let (accepted, _) = bought(&world, "tok_3ds").await;
    let worker = world.healthy().await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    world.gateway.approve(accepted.order_id).expect("approved, and nobody is told");
    let run = until_ended(&world, &worker, accepted.workflow_id).await;
    assert_eq!(run.status.as_str(), "COMPLETED");
    let waited = confirmed_at(&world, &accepted).await - run.created_at;
    assert!(!nightly() || waited < TimeDelta::seconds(15), "{waited}");
    assert_eq!(world.gateway.looks(), 1);
    world.assert_books("after a lost webhook").await;
}

#[tokio::test]
async fn asking_holds_no_worker_changes_nothing_and_leaves_the_journal_as_it_was() {
    let world = World::new().await;
    let (accepted, cart) = bought(&world, "tok_3ds").await;
    let worker = world.healthy().await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    let waiting = trace(&world.pool, accepted.workflow_id).await.expect("a trace");
    let mut asked = Vec::new();
    let began = engine::now(&world.pool).await.expect("the time");
    while asked.len() < 10 {
        assert_eq!(trace(&world.pool, accepted.workflow_id).await.expect("a trace"), waiting);
        worker.drain(1).await.expect("a turn");
        let now = engine::now(&world.pool).await.expect("the time");
        assert_eq!(world.gateway.looks(), asked.len() + 1, "a turn, a question");
        asked.push((now - began).num_seconds());
    }
    for (at, expected) in asked.iter().zip([5, 15, 45, 105, 165, 225, 285, 345, 405, 465]) {
        let late = if nightly() { 45 } else { i64::MAX - expected };
        assert!((expected - 15..expected + late).contains(at), "asked after {asked:?}");
    }
    let run = until_ended(&world, &worker, accepted.workflow_id).await;
    assert_expired(&world, &run, &accepted, cart, WINDOW).await;
    assert!(world.gateway.payments(accepted.order_id).iter().all(|payment| payment.captured.is_zero()));
}

#[tokio::test]
async fn a_shop_set_up_wrongly_declines_nobody_and_tells_the_staff_once() {
    let staff_email = Some("staff@example.com".to_owned());
    let rules = Rules { default_gateway: "scripted".to_owned(), staff_email, ..Rules::default() };
    let world = World::with(rules).await;
    world.gateway.set_weather(Weather::Elsewhere);
    let (late, cart) = bought(&world, "tok_ok").await;
    let worker = world.healthy().await;
    let run = until_ended(&world, &worker, late.workflow_id).await;
    assert_expired(&world, &run, &late, cart, WINDOW).await;
    let (mended, _) = bought(&world, "tok_ok").await;
    worker.drain(10).await.expect("turns");
    assert_eq!(world.order_status(mended.order_id.into()).await.as_deref(), Some("PENDING"));
    world.gateway.set_weather(Weather::Fair);
    assert!(worker.drain(200).await.expect("drained") < 200, "something never ends");
    assert_eq!(world.order_status(mended.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    let told = world.mails.to("staff@example.com");
    assert_eq!(told.iter().filter(|mail| mail.event == "gateway.misconfigured").count(), 1, "{told:?}");
    world.assert_books("after the shop was set up rightly").await;
}
