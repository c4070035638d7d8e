//! What nobody needs any more goes; what is promised to be kept stays, and the books balance.

use serde_json::json;
use workflows::{
    checkout::{self, Checkout},
    retention::Retention,
};

use super::*;

impl World {
    pub(super) async fn rows(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("a count")
    }
}

#[tokio::test]
async fn finished_runs_go_after_a_month_and_their_keys_two_months_later() {
    let world = World::with(rules()).await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    let shown = async || {
        checkout::status::read(&world.pool, &rules(), accepted.workflow_id).await.expect("an answer").is_some()
    };
    assert!(shown().await);
    let key: String = sqlx::query_scalar("select run_key from engine.finished_runs where id = $1")
        .bind(accepted.workflow_id)
        .fetch_one(&world.pool)
        .await
        .expect("a key");

    advance_clock(&world.pool, Duration::from_secs(29 * DAY)).await.expect("later");
    assert_eq!(world.tick::<Retention>().await["runs"], 0, "not before a month has passed");
    advance_clock(&world.pool, Duration::from_secs(2 * DAY)).await.expect("later");
    assert_eq!(world.tick::<Retention>().await["runs"], 2, "the checkout and its e-mail");
    let left = "select count(*) from engine.finished_runs where id = $1";
    assert_eq!(world.count(left, accepted.workflow_id).await, 0);
    assert_eq!(world.count("select count(*) from engine.journal where run_id = $1", accepted.workflow_id).await, 0);
    assert!(!shown().await, "who asks how it stands is told that there is no such checkout");
    world.assert_books("after the runs have gone").await;
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"), "an order stays");
    assert!(world.rows("select count(*) from outbox_events").await > 0, "events stay");

    // Starting again answers the first, although nothing else is left of it.
    let again = async || {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let run_id =
            sqlx::query_scalar::<_, Uuid>("select run_id from engine.run_keys where workflow = $1 and run_key = $2")
                .bind(Checkout::NAME)
                .bind(&key)
                .fetch_optional(&mut *tx)
                .await
                .expect("an answer");
        tx.rollback().await.expect("rolled back");
        run_id
    };
    assert_eq!(again().await, Some(accepted.workflow_id));
    advance_clock(&world.pool, Duration::from_secs(58 * DAY)).await.expect("later");
    world.tick::<Retention>().await;
    assert_eq!(again().await, Some(accepted.workflow_id), "89 days after the end");
    advance_clock(&world.pool, Duration::from_secs(2 * DAY)).await.expect("later");
    world.tick::<Retention>().await;
    assert_eq!(again().await, None, "91 days after the end");
    world.assert_books("after the keys have gone").await;
}

#[tokio::test]
async fn a_live_run_keeps_its_journal_however_old_it_is() {
    let world = World::with(rules()).await;
    let accepted = world.waiting().await;
    sqlx::query("update engine.runs set created_at = created_at - interval '1 year' where id = $1")
        .bind(accepted.workflow_id)
        .execute(&world.pool)
        .await
        .expect("old");
    let entries = inspect::journal(&world.pool, accepted.workflow_id).await.expect("a journal").len();
    world.tick::<Retention>().await;
    assert_eq!(inspect::journal(&world.pool, accepted.workflow_id).await.expect("a journal").len(), entries);
    world.gateway.approve(accepted.order_id).expect("approved");
    world.later(9 * MINUTE).await;
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    world.assert_books("after the old run ended").await;
}

/// A run that took long must not hold up those that were started after it.
#[tokio::test]
async fn more_than_a_batch_goes_in_one_run_past_those_that_stay() {
    let world = World::with(rules()).await;
    // Ids of long ago: a random one may be of a day that goes, or stays, as a whole.
    sqlx::query(
        "insert into engine.finished_runs (id, workflow, version, run_key, queue, status, input, epoch, crashes, created_at, finished_at)
         select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'refund', 1, n::text, 'refund', 'COMPLETED', '{}', 1, 0,
                engine.now() - interval '40 days', engine.now() - case when n % 3 = 0 then interval '1 day' else interval '39 days' end
           from generate_series(1, 6000) as n",
    )
    .execute(&world.pool)
    .await
    .expect("old runs");
    assert_eq!(world.tick::<Retention>().await["runs"], 4_000);
    assert_eq!(world.rows("select count(*) from engine.finished_runs where workflow = 'refund'").await, 2_000);
}

#[tokio::test]
async fn spent_rows_go_and_those_that_may_be_asked_for_stay() {
    let world = World::with(rules()).await;
    let (user, _) = world.shopper(&[]).await;
    sqlx::query(
        "with answers as (
            insert into idempotency_keys (caller, idempotency_key, request_hash, status, body, created_at)
            select 'user:x', n::text, 'x', 202, '{}', now() - make_interval(hours => n) from generate_series(20, 27) as n),
         hooks as (
            insert into webhook_inbox (gateway, event_id, event_type, body, received_at, outcome)
            select 'sandbox', n::text, 'payment.captured', '{}', now() - make_interval(days => n), 'IGNORED'
              from generate_series(27, 34) as n),
         workers as (
            insert into apalis.workers (id, worker_type, storage_name, last_seen)
            select 'worker-' || n, 'checkout', 'x', now() - make_interval(hours => n) from generate_series(20, 27) as n)
         insert into refresh_tokens (id, user_id, family_id, token_hash, expires_at, used_at)
         select gen_random_uuid(), $1, gen_random_uuid(), n::text::bytea, now() - make_interval(hours => n), now() - interval '30 days'
           from generate_series(-3, 28) as n",
    )
    .bind(Uuid::from(user))
    .execute(&world.pool)
    .await
    .expect("rows of all ages");
    // 24 to 27 hours; 30 to 34 days; 24 to 27 hours; 24 to 28 hours past their end.
    assert_eq!(world.tick::<Retention>().await, json!({ "days": 0, "runs": 0, "rows": 4 + 5 + 4 + 5 }));
    assert_eq!(
        world.rows("select count(*) from idempotency_keys where created_at < now() - interval '24 hours'").await,
        0
    );
    assert_eq!(world.rows("select count(*) from webhook_inbox").await, 3);
    assert_eq!(
        world.rows("select count(*) from refresh_tokens").await,
        27,
        "a used token gives a thief away until it runs out"
    );
    assert_eq!(world.tick::<Retention>().await, json!({ "days": 0, "runs": 0, "rows": 0 }));
    world.assert_books("after the retention").await;
}

#[tokio::test]
async fn expired_carts_of_which_something_came_are_in_no_others_way() {
    let world = World::with(rules()).await;
    let (user, _) = world.shopper(&[]).await;
    // Each batch would begin with the oldest: those of which an order's hold came.
    sqlx::query(
        "with old as (
            insert into carts (id, user_id, status, last_activity_at)
            select gen_random_uuid(), $1, 'EXPIRED', engine.now() - make_interval(days => 200, mins => n)
              from generate_series(1, 2500) as n returning id, last_activity_at)
         insert into inventory_reservations (id, variant_id, order_id, cart_id, quantity_reserved, status, created_at, expires_at, released_at)
         select gen_random_uuid(), v.id, gen_random_uuid(), o.id, 1, 'EXPIRED', o.last_activity_at, o.last_activity_at, o.last_activity_at
           from old o, product_variants v where v.sku = 'MOU-001' and o.last_activity_at < engine.now() - interval '200 days 400 minutes'",
    )
    .bind(Uuid::from(user))
    .execute(&world.pool)
    .await
    .expect("old carts");
    let deleted = world.tick::<Retention>().await["rows"].as_u64();
    assert_eq!(world.rows("select count(*) from carts where status = 'EXPIRED' and not is_kept").await, 0);
    assert_eq!(world.rows("select count(*) from carts where status = 'EXPIRED'").await, 2_100, "{deleted:?}");
    assert_eq!(world.tick::<Retention>().await["rows"], 0, "nothing is looked at twice");
}
