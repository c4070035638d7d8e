//! Refunds that people ask for: claimed before they are promised, sent once, however long it takes.

use std::sync::Arc;

use domain::{ids::OrderId, money::Money, payment::PaymentMethod, ports::PaymentGateway};
use engine::{
    Failure, Start, inspect,
    testing::{Everything, Fault, Faults, Once, Point, Recorder, trace},
};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    pay_back,
    refund::{RefundPayment, RefundRequest},
    store::refunds::ClaimError,
};

use crate::{
    gateway::Weather,
    world::{World, order},
};

async fn healthy(world: &World) {
    let worker = world.healthy().await;
    let turns = worker.drain(200).await.expect("drained");
    assert!(turns < 200, "the runs never end");
    worker.die().await.expect("dead");
}

/// A paid and confirmed order, and what it cost.
async fn paid(world: &World) -> (OrderId, Decimal) {
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let order_id = world.checkout(user, cart, "tok_ok").await.expect("accepted").order_id;
    healthy(world).await;
    (order_id, world.gateway.net(order_id))
}

async fn ask(world: &World, order_id: OrderId, amount: Decimal) -> Result<Uuid, ClaimError> {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let run_id = pay_back::accept(&mut tx, order_id, amount, "user:a clerk", "goodwill").await?;
    tx.commit().await.expect("committed");
    Ok(run_id)
}

async fn payment_status(world: &World, order_id: OrderId) -> (String, Decimal) {
    sqlx::query_as(
        "select o.payment_status, p.refund_amount from orders o join payments p on p.order_id = o.id where o.id = $1",
    )
    .bind(Uuid::from(order_id))
    .fetch_one(&world.pool)
    .await
    .expect("a payment")
}

async fn assert_refunded(world: &World, order_id: OrderId, status: &str, refunded: Decimal, when: &str) {
    world.assert_books(when).await;
    assert_eq!(payment_status(world, order_id).await, (status.to_owned(), refunded), "{when}");
    let gateway: Decimal = world.gateway.payments(order_id).iter().map(|payment| payment.refunded).sum();
    assert_eq!(gateway, refunded, "{when}: what the gateway gave back");
    assert_eq!(world.order_status(order_id.into()).await.as_deref(), Some("CONFIRMED"), "{when}");
}

async fn play(world: &World, fusion: bool, faults: Option<Arc<dyn Faults>>) -> OrderId {
    let (order_id, _) = paid(world).await;
    ask(world, order_id, Decimal::from(1_000)).await.expect("accepted");
    let first = world.worker(fusion, faults).await;
    first.drain(6).await.expect("drained");
    first.die().await.expect("dead");
    healthy(world).await;
    order_id
}

/// One row a point, with a crash and, before a step, a passing failure.
#[tokio::test]
async fn a_partial_refund_survives_a_crash_or_a_passing_failure_at_every_point() {
    for fusion in [true, false] {
        let world = World::new().await;
        let recorder = Arc::new(Recorder::default());
        play(&world, fusion, Some(Arc::clone(&recorder) as _)).await;
        let points = recorder.points();
        assert!(points.len() > 10, "{points:?}");
        for (point, step) in points {
            let passing = (point == Point::Before).then_some(Fault::Retry);
            for fault in [Some(Fault::Crash), passing].into_iter().flatten() {
                let when = format!("fusion {fusion}, {fault:?} at {point:?} {step}");
                let once = Once::new(point, &step, fault);
                let order_id = play(&world, fusion, Some(Arc::clone(&once) as _)).await;
                assert!(once.has_struck(), "{when}: the fault never struck");
                assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", Decimal::from(1_000), &when).await;
                let told = world.mails.about(order_id).iter().filter(|mail| mail.event == "payment.refunded").count();
                assert_eq!(told, 1, "{when}");
            }
        }
        let order_id = play(&world, fusion, Some(Arc::new(Everything))).await;
        assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", Decimal::from(1_000), "everything twice").await;
    }
}

#[tokio::test]
async fn a_refund_that_cannot_be_sent_parks_and_keeps_its_claim() {
    struct Refused;
    impl Faults for Refused {
        fn at(&self, point: Point, step: &str) -> Option<Fault> {
            let failure = Failure::new("step-broken", "it cannot be sent");
            (point == Point::Before && step == "SendRefund").then_some(Fault::Fail(failure))
        }
    }
    let world = World::new().await;
    let (order_id, total) = paid(&world).await;
    let run_id = ask(&world, order_id, total - Decimal::ONE).await.expect("accepted");
    world.worker(true, Some(Arc::new(Refused))).await.drain(20).await.expect("drained");
    let run = inspect::run(&world.pool, run_id).await.expect("a run").expect("a run");
    assert_eq!(run.status.as_str(), "STUCK");
    let refused = ask(&world, order_id, Decimal::TWO).await.expect_err("but for one, all of it is promised");
    assert!(matches!(refused, ClaimError::ExceedsCaptured { left } if left.amount() == Decimal::ONE));
}

#[tokio::test]
async fn parts_add_up_to_the_whole_and_never_to_more() {
    let world = World::new().await;
    let (order_id, total) = paid(&world).await;
    let part = Decimal::new(123_456, 2);
    ask(&world, order_id, part).await.expect("accepted");
    ask(&world, order_id, part).await.expect("another of the same");
    healthy(&world).await;
    assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", part + part, "after two parts").await;
    let refused = ask(&world, order_id, total).await.expect_err("more than is left");
    assert!(matches!(refused, ClaimError::ExceedsCaptured { left } if left.amount() == total - part - part));
    ask(&world, order_id, total - part - part).await.expect("the rest");
    let refused = ask(&world, order_id, Decimal::ONE).await.expect_err("all of it is promised");
    assert!(matches!(refused, ClaimError::BeingCancelled), "{refused}");
    healthy(&world).await;
    assert_eq!(payment_status(&world, order_id).await, ("REFUNDED".to_owned(), total));
    assert_eq!(world.gateway.net(order_id), Decimal::ZERO);
    let status = world.order_status(order_id.into()).await;
    assert_eq!(status.as_deref(), Some("CANCELLED"), "nobody ships what has been paid back");
    world.assert_books("after the rest").await;
    let told = world.mails.about(order_id).iter().filter(|mail| mail.event == "payment.refunded").count();
    assert_eq!(told, 3, "the shopper hears of each part");
}

#[tokio::test]
async fn nobody_can_stop_a_refund_that_was_accepted() {
    let world = World::new().await;
    let (order_id, _) = paid(&world).await;
    let run_id = ask(&world, order_id, Decimal::from(1_000)).await.expect("accepted");
    let mut conn = world.pool.acquire().await.expect("a connection");
    let stopped = engine::cancel(&mut conn, run_id, "an operator").await.expect("an answer");
    assert_eq!(stopped, engine::Delivery::Refused, "before its first turn");
    healthy(&world).await;
    assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", Decimal::from(1_000), "all the same").await;
}

#[tokio::test]
async fn of_two_refunds_at_once_that_are_too_much_together_one_is_promised() {
    let world = World::new().await;
    for _ in 0..10 {
        let (order_id, total) = paid(&world).await;
        let most = (total * Decimal::new(6, 1)).round_dp(2);
        let (one, other) = tokio::join!(ask(&world, order_id, most), ask(&world, order_id, most));
        assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1, "{one:?} {other:?}");
        healthy(&world).await;
        assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", most, "after the one").await;
    }
}

#[tokio::test]
async fn what_cannot_be_refunded_is_refused_and_writes_nothing() {
    let world = World::new().await;
    let (order_id, _) = paid(&world).await;
    for amount in [Decimal::ZERO, -Decimal::ONE, Decimal::new(1, 3)] {
        let refused = ask(&world, order_id, amount).await.expect_err("no amount");
        assert!(matches!(refused, ClaimError::NotPayable), "{amount}: {refused}");
    }
    assert!(matches!(ask(&world, OrderId::generate(), Decimal::ONE).await, Err(ClaimError::OrderNotFound)));
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let cash = workflows::checkout::accept::Order { payment_method: PaymentMethod::Cod, ..order(user, cart) };
    let cash = world.checkout_as(cash).await.expect("accepted").order_id;
    healthy(&world).await;
    assert!(matches!(ask(&world, cash, Decimal::ONE).await, Err(ClaimError::NothingCaptured)));
    let runs: i64 = sqlx::query_scalar("select count(*) from engine.run_keys where workflow = 'refund'")
        .fetch_one(&world.pool)
        .await
        .expect("a count");
    assert_eq!(runs, 0);
}

/// Cash has no gateway: that it is owed, and paid back by hand, is a row.
#[tokio::test]
async fn cash_is_paid_back_by_hand_and_the_row_says_so() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let cash = workflows::checkout::accept::Order { payment_method: PaymentMethod::Cod, ..order(user, cart) };
    let order_id = world.checkout_as(cash).await.expect("accepted").order_id;
    healthy(&world).await;
    sqlx::query("update payments set captured_amount = amount, payment_status = 'CAPTURED' where order_id = $1")
        .bind(Uuid::from(order_id))
        .execute(&world.pool)
        .await
        .expect("the courier was paid");
    ask(&world, order_id, Decimal::from(500)).await.expect("accepted");
    healthy(&world).await;
    assert_eq!(payment_status(&world, order_id).await, ("PARTIALLY_REFUNDED".to_owned(), Decimal::from(500)));
    let by_hand: (bool, Option<String>, String) =
        sqlx::query_as("select by_hand, gateway_refund_id, status from refunds")
            .fetch_one(&world.pool)
            .await
            .expect("it");
    assert_eq!(by_hand, (true, None, "SUCCEEDED".to_owned()));
}

#[tokio::test]
async fn money_captured_besides_what_paid_for_an_order_goes_back_and_the_order_stands() {
    let world = World::new().await;
    let (order_id, total) = paid(&world).await;
    let charge = domain::ports::PaymentRequest {
        order_id,
        attempt: 2,
        amount: Money::rounded(total, domain::money::Currency::INR),
        method: PaymentMethod::Upi,
        token: Some("tok_ok".to_owned()),
        return_url: None,
    };
    world.gateway.initiate(Uuid::now_v7(), &charge).await.expect("charged twice");
    assert_eq!(world.gateway.net(order_id), total + total);
    let gateway = Some("scripted".to_owned());
    let request = RefundRequest::everything(order_id, gateway, "paid twice".to_owned());
    for key in ["once", "again"] {
        let start = Start::<RefundPayment>::new(key, &request).expect("a start");
        let mut conn = world.pool.acquire().await.expect("a connection");
        engine::start(&mut conn, &start).await.expect("started");
    }
    healthy(&world).await;
    assert_eq!(world.gateway.net(order_id), total, "one of two went back, once");
    assert_eq!(payment_status(&world, order_id).await, ("CAPTURED".to_owned(), Decimal::ZERO));
    world.assert_books("after the extra went back").await;
}

/// Days without an answer: the run waits, its journal does not fill, and it asks before it sends again.
#[tokio::test]
async fn a_gateway_that_is_away_for_days_gets_one_refund_and_the_journal_stays_short() {
    let world = World::new().await;
    let (order_id, _) = paid(&world).await;
    let amount = Decimal::from(1_000);
    let run_id = ask(&world, order_id, amount).await.expect("accepted");
    // The refund goes through, and its answer is lost.
    world.gateway.set_weather(Weather::Deaf);
    let worker = world.healthy().await;
    worker.turn(run_id).await.expect("a turn");
    let gone: Decimal = world.gateway.payments(order_id).iter().map(|payment| payment.refunded).sum();
    assert_eq!(gone, amount);
    world.gateway.set_weather(Weather::Away);
    let began = engine::now(&world.pool).await.expect("the time");
    assert_eq!(worker.drain(1_100).await.expect("drained"), 1_100);
    let days = (engine::now(&world.pool).await.expect("the time") - began).num_days();
    assert!(days >= 2, "{days} days");
    let lines = trace(&world.pool, run_id).await.expect("a trace");
    assert!(lines.len() < 50, "{} journal entries", lines.len());
    assert_eq!(lines.last().map(String::as_str), Some("RETRYING"), "it has not been given up");

    // It has forgotten the key meanwhile.
    world.gateway.forget_keys();
    world.gateway.set_weather(Weather::Fair);
    worker.drain(50).await.expect("drained");
    assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", amount, "after days").await;
}
