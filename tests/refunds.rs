//! Refunds that people ask for: claimed before they are promised, sent once, however long it takes.

use std::sync::Arc;

use domain::{
    ids::OrderId,
    money::Money,
    payment::PaymentMethod,
    ports::{GatewayRefundStatus, PaymentGateway, WebhookEvent, WebhookKind, WebhookSubject},
};
use engine::{Start, testing::trace};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    pay_back,
    refund::{RefundPayment, RefundRequest},
    store::refunds::ClaimError,
};

use crate::{
    gateway::Weather,
    misfortune::{self, Always, alone},
    world::{World, order},
};

/// A paid and confirmed order, and what it cost.
async fn paid(world: &World) -> (OrderId, Decimal) {
    let order_id = all_paid(world, 1).await.remove(0);
    (order_id, world.gateway.net(order_id))
}

async fn all_paid(world: &World, many: usize) -> Vec<OrderId> {
    let mut orders = Vec::with_capacity(many);
    for _ in 0..many {
        let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
        orders.push(world.checkout(user, cart, "tok_ok").await.expect("accepted").order_id);
    }
    world.carry_on(many).await;
    orders
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

/// A thousand of what was paid goes back.
#[derive(Debug, Clone, Copy)]
pub struct Partial;

impl misfortune::Story for Partial {
    type Begun = OrderId;

    async fn begin(&self, world: &World, many: usize) -> Vec<OrderId> {
        let orders = all_paid(world, many).await;
        for order_id in &orders {
            ask(world, *order_id, Decimal::from(1_000)).await.expect("accepted");
        }
        orders
    }

    async fn judge(&self, world: &World, begun: &[OrderId], when: &str) -> Vec<bool> {
        for order_id in begun {
            assert_refunded(world, *order_id, "PARTIALLY_REFUNDED", Decimal::from(1_000), when).await;
            let told = world.mails.about(*order_id).iter().filter(|mail| mail.event == "payment.refunded").count();
            assert_eq!(told, 1, "{when}");
        }
        vec![true; begun.len()]
    }
}

alone! {
    a_partial_refund: Partial,
}

#[tokio::test]
async fn a_refund_that_cannot_be_sent_parks_and_keeps_its_claim() {
    let world = World::new().await;
    let (order_id, total) = paid(&world).await;
    let run_id = ask(&world, order_id, total - Decimal::ONE).await.expect("accepted");
    world.worker(true, Some(Arc::new(Always("SendRefund")))).await.drain(20).await.expect("drained");
    assert_eq!(world.status(run_id).await, "STUCK");
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
    world.carry_on(1).await;
    assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", part + part, "after two parts").await;
    let refused = ask(&world, order_id, total).await.expect_err("more than is left");
    assert!(matches!(refused, ClaimError::ExceedsCaptured { left } if left.amount() == total - part - part));
    ask(&world, order_id, total - part - part).await.expect("the rest");
    let refused = ask(&world, order_id, Decimal::ONE).await.expect_err("all of it is promised");
    assert!(matches!(refused, ClaimError::BeingCancelled), "{refused}");
    world.carry_on(1).await;
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
    let stopped = engine::run::cancel(&mut conn, run_id, "an operator").await.expect("an answer");
    assert_eq!(stopped, engine::run::Delivery::Refused, "before its first turn");
    world.carry_on(1).await;
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
        world.carry_on(1).await;
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
    world.carry_on(1).await;
    assert!(matches!(ask(&world, cash, Decimal::ONE).await, Err(ClaimError::NothingCaptured)));
    let runs: i64 = sqlx::query_scalar("select count(*) from engine.run_keys where workflow = 'refund'")
        .fetch_one(&world.pool)
        .await
        .expect("a count");
    assert_eq!(runs, 0);
}

/// The gateway has taken it in hand; its webhook is lost, and it is asked once a day.
#[tokio::test]
async fn a_refund_that_is_under_way_is_settled_when_it_has_arrived() {
    let world = World::new().await;
    let (order_id, _) = paid(&world).await;
    world.gateway.keep_refunds_pending(true);
    let run_id = ask(&world, order_id, Decimal::from(1_000)).await.expect("accepted");
    let worker = world.healthy().await;
    worker.turn(run_id).await.expect("a turn");
    assert_eq!(world.status(run_id).await, "WAITING");
    assert_eq!(payment_status(&world, order_id).await, ("CAPTURED".to_owned(), Decimal::ZERO), "not there yet");
    // Another of the same payment does not wait for it.
    world.gateway.keep_refunds_pending(false);
    let another = ask(&world, order_id, Decimal::from(500)).await.expect("accepted");
    worker.turn(another).await.expect("a turn");
    assert_eq!(world.status(another).await, "COMPLETED");
    world.gateway.end_refunds(GatewayRefundStatus::Succeeded);
    world.carry_on(1).await;
    assert_eq!(world.status(run_id).await, "COMPLETED");
    assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", Decimal::from(1_500), "both have arrived").await;
}

/// The bank sends it back days later: it is owed still, and the staff's; nobody sends it again by themselves.
#[tokio::test]
async fn a_refund_that_fails_later_waits_for_a_person() {
    let rules = workflows::Rules { staff_email: Some("staff@example.com".to_owned()), ..workflows::Rules::default() };
    let world = World::with(workflows::Rules { default_gateway: "scripted".to_owned(), ..rules }).await;
    let (order_id, _) = paid(&world).await;
    world.gateway.keep_refunds_pending(true);
    let run_id = ask(&world, order_id, Decimal::from(1_000)).await.expect("accepted");
    let worker = world.healthy().await;
    worker.turn(run_id).await.expect("a turn");
    world.gateway.end_refunds(GatewayRefundStatus::Failed);
    let refund_id: Uuid = sqlx::query_scalar("select id from refunds where run_id = $1")
        .bind(run_id)
        .fetch_one(&world.pool)
        .await
        .expect("a refund");
    let told = WebhookEvent {
        event_id: "evt_refund".to_owned(),
        kind: WebhookKind::RefundFailed,
        gateway_payment_id: world.gateway.payments(order_id)[0].gateway_payment_id.clone(),
        order_id: None,
        amount: None,
        failure: None,
        about: Some(WebhookSubject { gateway_id: "re_1".to_owned(), refund_id: Some(refund_id) }),
        at: None,
    };
    for expected in ["SIGNALLED", "IGNORED"] {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let outcome = workflows::checkout::webhook::receive(&mut tx, "scripted", &told).await.expect("received");
        tx.commit().await.expect("committed");
        assert_eq!(outcome, expected);
    }
    worker.turn(run_id).await.expect("a turn");
    let standing: (String, Option<String>) = sqlx::query_as("select status, failure from refunds where id = $1")
        .bind(refund_id)
        .fetch_one(&world.pool)
        .await
        .expect("a refund");
    assert_eq!(standing, ("FAILED".to_owned(), Some("account_closed".to_owned())));
    assert_eq!(world.gateway.refund_keys().len(), 1, "it is not sent again by itself");
    assert_eq!(world.status(run_id).await, "WAITING");
    world.assert_books("while it waits for a person").await;
}

/// Somebody gives money back on the gateway's own site: it is booked, once, and not sent again.
#[tokio::test]
async fn a_refund_made_at_the_gateway_is_booked_and_the_order_stands() {
    let world = World::new().await;
    let (order_id, total) = paid(&world).await;
    world.gateway.refund_by_hand(order_id, Decimal::TEN);
    let currency = domain::money::Currency::INR;
    let told = |amount: Decimal, id: &str| WebhookEvent {
        event_id: format!("evt_{id}"),
        kind: WebhookKind::RefundSucceeded,
        gateway_payment_id: world.gateway.payments(order_id)[0].gateway_payment_id.clone(),
        order_id: None,
        amount: Some(Money::rounded(amount, currency)),
        failure: None,
        about: Some(WebhookSubject { gateway_id: id.to_owned(), refund_id: None }),
        at: None,
    };
    for (amount, id, expected) in
        [(Decimal::TEN, "re_1", "BOOKED"), (Decimal::TEN, "re_1", "IGNORED"), (total, "re_2", "COMPARED")]
    {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let event = told(amount, id);
        let outcome = workflows::checkout::webhook::receive(&mut tx, "scripted", &event).await.expect("received");
        tx.commit().await.expect("committed");
        assert_eq!(outcome, expected, "{amount}, {id}");
    }
    world.carry_on(1).await;
    assert_refunded(&world, order_id, "PARTIALLY_REFUNDED", Decimal::TEN, "booked").await;
}

/// While the shopper's bank wants the money nothing is sent, for days; then what the bank has not taken goes back.
#[tokio::test]
async fn a_refund_waits_for_the_bank_and_sends_what_it_has_left() {
    let rules = workflows::Rules { staff_email: Some("staff@example.com".to_owned()), ..workflows::Rules::default() };
    let world = World::with(workflows::Rules { default_gateway: "scripted".to_owned(), ..rules }).await;
    let (order_id, total) = paid(&world).await;
    let payment = world.gateway.payments(order_id)[0].gateway_payment_id.clone();
    let (kept, taken) = (Decimal::from(500), Decimal::from(700));
    let heard = async |kind: WebhookKind| {
        let event = WebhookEvent {
            event_id: format!("evt_{kind:?}"),
            kind,
            gateway_payment_id: payment.clone(),
            order_id: None,
            amount: Some(Money::rounded(taken, domain::money::Currency::INR)),
            failure: Some("fraudulent".to_owned()),
            about: Some(WebhookSubject { gateway_id: "dp_1".to_owned(), refund_id: None }),
            at: None,
        };
        let mut tx = world.pool.begin().await.expect("a transaction");
        let outcome = workflows::checkout::webhook::receive(&mut tx, "scripted", &event).await.expect("received");
        tx.commit().await.expect("committed");
        outcome
    };
    assert_eq!(heard(WebhookKind::DisputeOpened).await, "BOOKED");
    let run_id = ask(&world, order_id, total - kept).await.expect("accepted");
    let worker = world.healthy().await;
    for day in 0..4 {
        worker.turn(run_id).await.expect("a turn");
        assert_eq!(world.status(run_id).await, "WAITING", "day {day}");
        engine::advance_clock(&world.pool, std::time::Duration::from_secs(24 * 3600 + 1)).await.expect("a day later");
    }
    assert_eq!(world.gateway.refund_keys().len(), 0);
    assert_eq!(heard(WebhookKind::DisputeLost).await, "BOOKED");
    worker.drain(20).await.expect("drained");
    assert_eq!(world.gateway.net(order_id), taken, "the bank takes that from the gateway");
    let refunds: Vec<(Decimal, bool)> = sqlx::query_as("select amount, by_hand from refunds order by amount, by_hand")
        .fetch_all(&world.pool)
        .await
        .expect("rows");
    assert_eq!(refunds, [(taken - kept, true), (kept, true), (total - taken, false)]);
    assert_eq!(payment_status(&world, order_id).await, ("REFUNDED".to_owned(), total));
    world.assert_books("the rest is sent").await;
    let subjects: Vec<String> = world.mails.to("staff@example.com").into_iter().map(|mail| mail.subject).collect();
    assert!(subjects.iter().any(|subject| subject.contains("had gone back already")), "{subjects:?}");
}

/// Cash has no gateway: that it is owed, and paid back by hand, is a row.
#[tokio::test]
async fn cash_is_paid_back_by_hand_and_the_row_says_so() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let cash = workflows::checkout::accept::Order { payment_method: PaymentMethod::Cod, ..order(user, cart) };
    let order_id = world.checkout_as(cash).await.expect("accepted").order_id;
    world.carry_on(1).await;
    sqlx::query("update payments set captured_amount = amount, payment_status = 'CAPTURED' where order_id = $1")
        .bind(Uuid::from(order_id))
        .execute(&world.pool)
        .await
        .expect("the courier was paid");
    ask(&world, order_id, Decimal::from(500)).await.expect("accepted");
    world.carry_on(1).await;
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
    let charge = crate::gateway::request(order_id, Money::rounded(total, domain::money::Currency::INR), "tok_ok");
    world.gateway.initiate(Uuid::now_v7(), &charge).await.expect("charged twice");
    assert_eq!(world.gateway.net(order_id), total + total);
    let gateway = Some("scripted".to_owned());
    let request = RefundRequest::everything(order_id, gateway, "paid twice".to_owned());
    for key in ["once", "again"] {
        let start = Start::<RefundPayment>::new(key, &request).expect("a start");
        let mut conn = world.pool.acquire().await.expect("a connection");
        engine::start(&mut conn, &start).await.expect("started");
    }
    world.carry_on(1).await;
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
