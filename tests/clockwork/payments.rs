//! What the gateway knows and nobody here does.

use domain::{
    ids::OrderId,
    money::{Currency, Money},
    payment::PaymentMethod,
    ports::{WebhookEvent, WebhookKind, WebhookSubject},
};
use rust_decimal::Decimal;
use serde_json::json;
use workflows::{
    checkout::{
        accept::{Accepted, Order},
        webhook,
    },
    payment_reconciliation::{PaymentReconciliation, lag},
    store::reconciliation::{self, checks},
};

use super::*;
use crate::{gateway::Weather, world::order};

impl World {
    /// A checkout that waits for its shopper at the bank's page.
    pub(super) async fn waiting(&self) -> Accepted {
        let (user, cart) = self.shopper(&[("LAP-001", 1)]).await;
        let accepted = self.checkout(user, cart, "tok_3ds").await.expect("accepted");
        self.settle().await;
        accepted
    }

    /// Time passes, and no run is given a turn: a checkout that waits would ask the gateway itself.
    async fn passes(&self, seconds: u64) {
        advance_clock(&self.pool, Duration::from_secs(seconds)).await.expect("later");
    }

    async fn compared(&self) -> (u64, u64, u64) {
        let output = self.tick::<PaymentReconciliation>().await;
        let number = |name: &str| output[name].as_u64().expect("a number");
        (number("compared"), number("told"), number("mismatches"))
    }

    /// A confirmed order, paid by card.
    async fn bought(&self) -> OrderId {
        let (user, cart) = self.shopper(&[("MOU-001", 1)]).await;
        let accepted = self.checkout(user, cart, "tok_ok").await.expect("accepted");
        self.settle().await;
        accepted.order_id
    }

    /// The gateway's clock is the shop's.
    async fn synchronise(&self) {
        let now = engine::now(&self.pool).await.expect("the time");
        self.gateway.set_time(now);
    }

    async fn outcomes(&self) -> Vec<String> {
        sqlx::query_scalar("select outcome from webhook_inbox order by id").fetch_all(&self.pool).await.expect("rows")
    }

    async fn hears(&self, event: &WebhookEvent) -> Option<&'static str> {
        let mut tx = self.pool.begin().await.expect("a transaction");
        let outcome = webhook::keep(&mut tx, "scripted", event, &json!({})).await.expect("kept");
        tx.commit().await.expect("committed");
        outcome
    }
}

fn capture_of(order_id: OrderId, payment: &str) -> WebhookEvent {
    WebhookEvent {
        event_id: format!("evt_{payment}"),
        kind: WebhookKind::PaymentCaptured,
        gateway_payment_id: payment.to_owned(),
        order_id: Some(order_id),
        amount: Some(Money::rounded(Decimal::from(100), Currency::INR)),
        failure: None,
        about: None,
        at: None,
    }
}

#[tokio::test]
async fn a_lost_webhook_is_made_up_for_before_the_window_ends() {
    let world = World::with(rules()).await;
    let accepted = world.waiting().await;
    world.gateway.approve(accepted.order_id).expect("approved, and no webhook");
    world.passes(MINUTE).await;
    assert_eq!(world.compared().await, (0, 0, 0), "webhooks are given two minutes");
    world.passes(2 * MINUTE).await;
    assert_eq!(world.compared().await, (1, 1, 0));
    world.settle().await;
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    world.assert_books("after the lost webhook").await;
}

#[tokio::test]
async fn a_shopper_who_takes_time_is_left_alone() {
    let world = World::with(rules()).await;
    let accepted = world.waiting().await;
    world.later(3 * MINUTE).await;
    for _ in 0..4 {
        assert_eq!(world.compared().await.1, 0);
    }
    world.settle().await;
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("PENDING"));
    world.gateway.approve(accepted.order_id).expect("approved");
    // The pass goes round and round: it comes back to this one.
    world.passes(2 * MINUTE).await;
    assert_eq!(world.compared().await.1, 1);
    world.settle().await;
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
}

#[tokio::test]
async fn money_that_came_after_all_is_found_and_sent_back() {
    let world = World::with(rules()).await;
    let accepted = world.waiting().await;
    world.later(9 * MINUTE).await;
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CANCELLED"));
    world.gateway.capture_closed(accepted.order_id);
    assert_ne!(world.gateway.net(accepted.order_id), Decimal::ZERO, "a gateway that breaks its word");
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await, (1, 1, 0));
    world.settle().await;
    assert_eq!(world.gateway.net(accepted.order_id), Decimal::ZERO);
    world.assert_books("after late money").await;
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await, (1, 0, 0), "the refund, compared in its turn");
    assert_eq!(world.compared().await, (0, 0, 0));
    world.later(DAY).await;
    assert_eq!(world.compared().await, (1, 0, 0), "and the payment once more a day later");
}

#[tokio::test]
async fn what_no_run_can_mend_is_told_to_the_staff_once() {
    let world = World::with(rules()).await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    world.gateway.lose_money(accepted.order_id, Decimal::from(10));
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await, (1, 0, 1));
    world.later(DAY).await;
    assert_eq!(world.compared().await, (1, 0, 0), "seen again, told once");
    let mails = world.mails.to(STAFF);
    assert_eq!(mails.len(), 1);
    assert!(mails[0].subject.ends_with("refunded-differs"), "{}", mails[0].subject);
    assert!(mails[0].text.contains(&accepted.order_id.to_string()), "{}", mails[0].text);
    let refunded: Decimal =
        sqlx::query_scalar("select refund_amount from payments").fetch_one(&world.pool).await.expect("one");
    assert_eq!(refunded, Decimal::ZERO, "the books are not written over");
    world.assert_books("after money went that nobody can name").await;
}

/// More went back elsewhere than the books have left: the staff hears of it once, and it is not compared for ever.
#[tokio::test]
async fn a_refund_that_does_not_fit_is_told_once() {
    let world = World::with(rules()).await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    let payment = world.gateway.payments(accepted.order_id)[0].clone();
    let lost = WebhookEvent {
        kind: WebhookKind::DisputeLost,
        amount: Some(Money::rounded(payment.captured, Currency::INR)),
        about: Some(WebhookSubject { gateway_id: "dp_1".to_owned(), refund_id: None }),
        ..capture_of(accepted.order_id, &payment.gateway_payment_id)
    };
    assert_eq!(world.hears(&lost).await, Some("BOOKED"));
    world.gateway.refund_by_hand(accepted.order_id, Decimal::from(10));
    world.later(20 * MINUTE).await;
    let mut mismatches = 0;
    for _ in 0..5 {
        mismatches += world.compared().await.2;
        world.settle().await;
    }
    assert_eq!(mismatches, 1);
    assert_eq!(world.compared().await, (0, 0, 0), "until its time comes");
}

/// Somebody has given money back on the gateway's own site, and its webhook never came.
#[tokio::test]
async fn a_refund_that_nobody_told_of_is_found_and_booked() {
    let world = World::with(rules()).await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    world.gateway.refund_by_hand(accepted.order_id, Decimal::from(10));
    world.gateway.refund_by_hand(accepted.order_id, Decimal::from(5));
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await, (1, 2, 0));
    world.settle().await;
    world.later(DAY).await;
    assert_eq!(world.compared().await.2, 0, "the books say what the gateway says");
    let refunded: Decimal =
        sqlx::query_scalar("select refund_amount from payments").fetch_one(&world.pool).await.expect("one");
    assert_eq!(refunded, Decimal::from(15));
    assert_eq!(world.mails.to(STAFF).len(), 2, "one for each");
    world.assert_books("after refunds that nobody told of").await;
}

#[tokio::test]
async fn while_the_gateway_is_away_the_comparison_waits() {
    let world = World::with(rules()).await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    world.later(20 * MINUTE).await;
    world.gateway.set_weather(Weather::Away);
    assert_eq!(world.compared().await, (0, 0, 0));
    world.gateway.set_weather(Weather::Fair);
    assert_eq!(world.compared().await, (1, 0, 0), "it takes up where it stood");
    let nothing = json!({ "compared": 0, "told": 0, "mismatches": 0, "setAside": 0, "unbooked": 0 });
    assert_eq!(world.tick::<PaymentReconciliation>().await, nothing);
}

/// An account that may not list its payments is seen from the first try on.
#[tokio::test]
async fn the_lag_of_a_gateway_that_never_lists_grows() {
    let world = World::with(rules()).await;
    let mut conn = world.pool.acquire().await.expect("a connection");
    let lag_of = |lags: Vec<lag::Lag>| lags.into_iter().find(|lag| lag.pass == "LISTED").expect("a lag").seconds;
    world.gateway.set_weather(Weather::Elsewhere);
    world.compared().await;
    let first = lag_of(lag::lags(&mut conn, &world.shop).await.expect("the lags"));
    world.later(HOUR).await;
    world.compared().await;
    let second = lag_of(lag::lags(&mut conn, &world.shop).await.expect("the lags"));
    assert!(second >= first + 3_600.0, "{first}, {second}");
    world.gateway.set_weather(Weather::Fair);
    for _ in 0..4 {
        world.compared().await;
    }
    let last = lag_of(lag::lags(&mut conn, &world.shop).await.expect("the lags"));
    assert!(last < 120.0, "{last}");
}

#[tokio::test]
async fn every_payment_is_compared_once_a_pass_however_many_there_are() {
    let world = World::with(rules()).await;
    for _ in 0..45 {
        let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
        world.checkout(user, cart, "tok_ok").await.expect("accepted");
    }
    world.settle().await;
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await, (45, 0, 0));
    assert_eq!(world.compared().await, (0, 0, 0));
}

/// Whether money is on its way is asked of the order's keys, however many runs live.
#[tokio::test]
async fn comparing_an_orders_books_reads_no_runs_of_others() {
    let world = World::with(rules()).await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    for sql in [
        "with others as (
            insert into engine.runs (id, workflow, version, run_key, queue, input, wake_at, created_at, updated_at)
            select gen_random_uuid(), 'refund', 1, gen_random_uuid()::text, 'refund', '{}', now(), now(), now()
              from generate_series(1, 5000)
            returning workflow, run_key, id)
         insert into engine.run_keys (workflow, run_key, run_id) select * from others",
        "analyze engine.runs",
        "analyze engine.run_keys",
    ] {
        sqlx::query(sql).execute(&world.pool).await.expect("others");
    }
    let mut tx = world.pool.begin().await.expect("a transaction");
    let booked = reconciliation::booked(&mut tx, accepted.order_id).await.expect("read").expect("an order");
    assert!(!booked.is_settling);
    let read: i64 = sqlx::query_scalar(
        "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_xact_user_tables
          where schemaname = 'engine' and relname in ('runs', 'run_keys')",
    )
    .fetch_one(&mut *tx)
    .await
    .expect("what was read");
    assert!(read < 100, "{read} rows read one after the other");
}

#[tokio::test]
async fn orders_paid_in_cash_are_in_no_cards_way() {
    let world = World::with(rules()).await;
    for _ in 0..25 {
        let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
        let cash = Order { payment_method: PaymentMethod::Cod, ..order(user, cart) };
        world.checkout_as(cash).await.expect("accepted");
    }
    for _ in 0..5 {
        world.bought().await;
    }
    world.settle().await;
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await, (5, 0, 0));
    world.later(DAY).await;
    assert_eq!(world.compared().await, (5, 0, 0), "and once more a day later");
}

#[tokio::test]
async fn an_order_the_gateway_will_not_speak_of_holds_up_no_other_and_is_told_and_tried_again() {
    let world = World::with(rules()).await;
    let mute = world.bought().await;
    world.gateway.be_mute_about(mute);
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await, (0, 0, 0), "alone it could be the gateway; that answers to other questions");
    world.bought().await;
    for time in 0..4 {
        world.later(20 * MINUTE).await;
        let (compared, _, mismatches) = world.compared().await;
        assert_eq!(compared, u64::from(time == 0), "the other, once");
        assert_eq!(mismatches, u64::from(time == 1), "the third attempt in vain is told");
    }
    let mut conn = world.pool.acquire().await.expect("a connection");
    let aside = checks::aside(&mut conn, 10).await.expect("what is set aside");
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!((OrderId::from(aside[0].order_id), aside[0].attempts), (mute, 5));
    world.gateway.be_mute_no_more();
    world.later(HOUR).await;
    assert_eq!(world.compared().await, (1, 0, 0));
    assert!(checks::aside(&mut conn, 10).await.expect("what is set aside").is_empty());
    world.settle().await;
    assert_eq!(world.mails.to(STAFF).len(), 1);
}

#[tokio::test]
async fn a_comparison_that_never_succeeds_is_a_persons_at_last() {
    let world = World::with(rules()).await;
    let mute = world.bought().await;
    world.gateway.be_mute_about(mute);
    world.later(20 * MINUTE).await;
    for _ in 0..checks::TIMES {
        world.compared().await;
        world.later(7 * HOUR).await;
    }
    let mut conn = world.pool.acquire().await.expect("a connection");
    let aside = checks::aside(&mut conn, 10).await.expect("what is set aside");
    assert_eq!((aside[0].attempts, aside[0].is_tried_again), (checks::TIMES, false));
    world.compared().await;
    assert_eq!(checks::aside(&mut conn, 10).await.expect("what is set aside")[0].attempts, checks::TIMES);
}

#[tokio::test]
async fn a_payment_that_commits_after_younger_ones_were_compared_is_compared_too() {
    let world = World::with(rules()).await;
    world.bought().await;
    let mut late = world.pool.begin().await.expect("a transaction");
    sqlx::raw_sql(
        "insert into orders select (jsonb_populate_record(o, jsonb_build_object(
             'id', '01980000-0000-7000-8000-000000000001', 'order_number', 'LATE-1', 'cart_id', null))).* from orders o;
         insert into payments (order_id, payment_method, amount, payment_gateway, created_at, updated_at)
         select '01980000-0000-7000-8000-000000000001', payment_method, amount, payment_gateway, created_at, updated_at
           from payments",
    )
    .execute(&mut *late)
    .await
    .expect("its number is drawn");
    world.bought().await;
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await, (2, 0, 0), "those that have committed");
    late.commit().await.expect("committed");
    assert_eq!(world.compared().await, (1, 0, 0), "the late one");
}

#[tokio::test]
async fn what_one_run_does_not_get_done_the_next_does_at_once_and_the_lag_tells() {
    let world = World::with(rules()).await;
    let order_id = world.bought().await;
    sqlx::query(
        "insert into payment_checks (id, order_id, gateway, pass, made_at, counts_from)
         select gen_random_uuid(), $1, 'scripted', 'REFUND', engine.now(), engine.now() from generate_series(1, 1800)",
    )
    .bind(uuid::Uuid::from(order_id))
    .execute(&world.pool)
    .await
    .expect("a busy hour");
    world.later(20 * MINUTE).await;
    let mut conn = world.pool.acquire().await.expect("a connection");
    let lag_of = |lags: Vec<lag::Lag>| lags.into_iter().find(|lag| lag.pass == "REFUND").expect("a lag").seconds;
    let behind = lag_of(lag::lags(&mut conn, &world.shop).await.expect("the lags"));
    assert!((290.0..320.0).contains(&behind), "{behind}: five minutes past its patience");
    let first = world.compared().await.0;
    assert!((1_000..1_800).contains(&first), "{first}");
    assert!(lag_of(lag::lags(&mut conn, &world.shop).await.expect("the lags")) > 0.0);
    world.settle().await;
    let left: i64 = sqlx::query_scalar("select count(*) from payment_checks where pass = 'REFUND'")
        .fetch_one(&world.pool)
        .await
        .expect("a count");
    assert_eq!(left, 0, "without waiting for a tick");
    assert!(lag_of(lag::lags(&mut conn, &world.shop).await.expect("the lags")) == 0.0);
}

#[tokio::test]
async fn money_that_the_gateway_lists_and_the_books_do_not_have_goes_back() {
    let world = World::with(rules()).await;
    let order_id = world.bought().await;
    let paid = world.gateway.net(order_id);
    // Long after its own payment was compared for the last time.
    for _ in 0..3 {
        world.later(DAY).await;
        world.compared().await;
    }
    world.synchronise().await;
    world.gateway.charge_unasked(order_id, Money::rounded(Decimal::from(77), Currency::INR));
    world.later(20 * MINUTE).await;
    assert_eq!(world.tick::<PaymentReconciliation>().await["unbooked"], 1);
    assert_eq!(world.compared().await.1, 1, "its order is compared once more");
    world.settle().await;
    assert_eq!(world.gateway.net(order_id), paid);
    world.assert_books("after the second payment went back").await;
}

#[tokio::test]
async fn money_that_only_a_dispute_speaks_of_goes_back() {
    let world = World::with(rules()).await;
    let accepted = world.waiting().await;
    // Long after it was compared for the last time, with nothing paid.
    for _ in 0..3 {
        world.later(DAY).await;
        world.compared().await;
    }
    world.gateway.capture_closed(accepted.order_id);
    let payment = world.gateway.payments(accepted.order_id)[0].gateway_payment_id.clone();
    let disputed = |kind: WebhookKind| WebhookEvent {
        event_id: format!("evt_{kind:?}"),
        kind,
        about: Some(WebhookSubject { gateway_id: "dp_1".to_owned(), refund_id: None }),
        ..capture_of(accepted.order_id, &payment)
    };
    assert_eq!(world.hears(&disputed(WebhookKind::DisputeOpened)).await, Some("BOOKED"));
    world.assert_books("while it is to be compared").await;
    world.later(20 * MINUTE).await;
    assert_eq!(world.compared().await.1, 1);
    world.settle().await;
    assert_ne!(world.gateway.net(accepted.order_id), Decimal::ZERO, "the bank may take it yet");
    assert_eq!(world.hears(&disputed(WebhookKind::DisputeWon)).await, Some("BOOKED"));
    world.settle().await;
    assert_eq!(world.gateway.net(accepted.order_id), Decimal::ZERO);
    world.assert_books("after it went back").await;
}

#[tokio::test]
async fn money_for_no_order_of_ours_is_kept_tried_and_told_once() {
    let world = World::with(rules()).await;
    for _ in 0..4 {
        world.bought().await;
    }
    world.synchronise().await;
    world.gateway.charge_unasked(OrderId::generate(), Money::rounded(Decimal::from(77), Currency::INR));
    world.later(20 * MINUTE).await;
    assert_eq!(world.tick::<PaymentReconciliation>().await["unbooked"], 1, "among others, on its second page");
    assert_eq!(world.tick::<PaymentReconciliation>().await["unbooked"], 0, "once");
    assert_eq!(world.outcomes().await, ["UNMATCHED"]);
    for _ in 0..12 {
        world.later(10 * HOUR).await;
        world.compared().await;
    }
    world.settle().await;
    let mails = world.mails.to(STAFF);
    assert_eq!(mails.iter().filter(|mail| mail.event == "payment.unmatched").count(), 1, "{mails:?}");
    assert_eq!(world.outcomes().await, ["UNMATCHED"], "and it is still to be seen");
}

#[tokio::test]
async fn word_of_a_payment_that_is_not_there_yet_is_heard_when_it_is() {
    let world = World::with(rules()).await;
    let accepted = world.waiting().await;
    let payment = world.gateway.approve(accepted.order_id).expect("approved").gateway_payment_id;
    let total = world.gateway.payments(accepted.order_id)[0].amount.clone();
    let early = WebhookEvent { amount: Some(total), order_id: None, ..capture_of(accepted.order_id, "not yet") };
    assert_eq!(world.hears(&early).await, Some("UNMATCHED"), "kept, and not answered as done with");
    assert_eq!(world.hears(&early).await, None, "once");
    assert_eq!(world.compared().await, (0, 0, 0), "it is given a minute");
    sqlx::query("update webhook_inbox set event = jsonb_set(event, '{gateway_payment_id}', to_jsonb($1::text))")
        .bind(&payment)
        .execute(&world.pool)
        .await
        .expect("it comes onto the books");
    world.passes(MINUTE).await;
    assert_eq!(world.compared().await.1, 1);
    world.settle().await;
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    assert_eq!(world.outcomes().await, ["SIGNALLED"]);
    world.assert_books("after the early word").await;
}

#[tokio::test]
async fn a_kept_word_that_cannot_be_taken_up_spoils_no_other() {
    let world = World::with(rules()).await;
    for payment in ["one", "two"] {
        assert_eq!(world.hears(&capture_of(OrderId::generate(), payment)).await, Some("UNMATCHED"));
    }
    // A key of three thousand bytes fits no index, and the second row is none this release can read.
    let order_id = world.waiting().await.order_id;
    sqlx::query(
        "update webhook_inbox
            set event = case event_id when 'evt_one'
                then event || jsonb_build_object('order_id', $1::uuid, 'gateway_payment_id', (
                     select string_agg(md5(n::text), '') from generate_series(1, 400) n))
                else '{}' end",
    )
    .bind(uuid::Uuid::from(order_id))
    .execute(&world.pool)
    .await
    .expect("spoilt");
    sqlx::query("update payments set gateway_payment_id = null").execute(&world.pool).await.expect("not noted yet");
    world.later(MINUTE).await;
    world.compared().await;
    assert_eq!(world.outcomes().await, ["REFUSED", "UNMATCHED"], "the release that kept it may read it yet");
    for _ in 0..12 {
        world.later(10 * HOUR).await;
        world.compared().await;
    }
    world.settle().await;
    let told = world.mails.to(STAFF).iter().filter(|mail| mail.event == "payment.unmatched").count();
    assert_eq!(told, 1, "at last it is a person's");
}

#[tokio::test]
async fn a_listed_payment_with_what_postgres_cannot_keep_stops_no_walk() {
    let world = World::with(rules()).await;
    let strange = world.gateway.charge_unasked(OrderId::generate(), Money::rounded(Decimal::from(77), Currency::INR));
    world.gateway.rename(&strange, "pay_\0");
    world.later(20 * MINUTE).await;
    assert_eq!(world.tick::<PaymentReconciliation>().await["unbooked"], 1);
    assert_eq!(world.tick::<PaymentReconciliation>().await["unbooked"], 0, "the walk has moved on");
}

#[tokio::test]
async fn what_is_signed_and_of_no_known_shape_is_kept_and_told_once_a_day() {
    let world = World::with(rules()).await;
    for (event_id, is_new) in [("evt_1", true), ("evt_1", false), ("evt_2", true)] {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let raw = json!({ "type": "payout.paid" });
        let kept = webhook::keep_unreadable(&mut tx, "scripted", event_id, "no data", &raw).await.expect("kept");
        tx.commit().await.expect("committed");
        assert_eq!(kept, is_new, "{event_id}");
    }
    assert_eq!(world.outcomes().await, ["UNREADABLE", "UNREADABLE"]);
    world.settle().await;
    assert_eq!(world.mails.to(STAFF).len(), 1);
}
