//! What the gateway knows and nobody here does.

use rust_decimal::Decimal;
use serde_json::json;
use workflows::{checkout::accept::Accepted, payment_reconciliation::PaymentReconciliation, store::reconciliation};

use super::*;
use crate::gateway::Weather;

impl World {
    /// A checkout that waits for its shopper at the bank's page.
    pub(super) async fn waiting(&self) -> Accepted {
        let (user, cart) = self.shopper(&[("LAP-001", 1)]).await;
        let accepted = self.checkout(user, cart, "tok_3ds").await.expect("accepted");
        self.settle().await;
        accepted
    }

    async fn compared(&self) -> (u64, u64, u64) {
        let output = self.tick::<PaymentReconciliation>().await;
        let number = |name: &str| output[name].as_u64().expect("a number");
        (number("compared"), number("told"), number("mismatches"))
    }
}

#[tokio::test]
async fn a_lost_webhook_is_made_up_for_before_the_window_ends() {
    let world = World::with(rules()).await;
    let accepted = world.waiting().await;
    world.gateway.approve(accepted.order_id).expect("approved, and no webhook");
    world.later(MINUTE).await;
    assert_eq!(world.compared().await, (0, 0, 0), "webhooks are given two minutes");
    world.later(2 * MINUTE).await;
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
    let mut told = 0;
    for _ in 0..3 {
        told += world.compared().await.1;
    }
    assert!(told >= 1);
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
    world.gateway.refund_by_hand(accepted.order_id, Decimal::from(10));
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
    world.assert_books("after a refund by hand").await;
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
    assert_eq!(world.tick::<PaymentReconciliation>().await, json!({ "compared": 0, "told": 0, "mismatches": 0 }));
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
    assert_eq!(read, 0, "rows read one after the other");
}
