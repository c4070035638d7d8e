//! Low stock: one crossing, one event, one line in one digest.

use serde_json::json;
use workflows::{
    low_stock_alerts::LowStockAlerts,
    reservation_expiry::ReservationExpiry,
    store::inventory::shelf::{self, Cause},
};

use super::*;
use crate::patience::eventually;

impl World {
    /// Buys mice until the till is reached; answers the order's run.
    pub(super) async fn sell_mice(&self, quantity: i32) -> Uuid {
        let (user, cart) = self.shopper(&[("MOU-001", quantity)]).await;
        let accepted = self.checkout(user, cart, "tok_ok").await.expect("accepted");
        self.healthy().await.turn(accepted.workflow_id).await.expect("a turn");
        accepted.workflow_id
    }

    pub(super) async fn set_threshold(&self, below_what_there_is: i32) {
        sqlx::query(
            "update inventory set low_stock_threshold = available_quantity - $1
              where variant_id = (select id from product_variants where sku = 'MOU-001')",
        )
        .bind(below_what_there_is)
        .execute(&self.pool)
        .await
        .expect("a threshold");
    }

    /// The digest only reads what no open transaction of the cluster is older than; other tests' are.
    pub(super) async fn events_are_readable(&self) {
        eventually("no transaction is open in another database", async || {
            sqlx::query_scalar(
                "select coalesce(max(xid) < pg_snapshot_xmin(pg_current_snapshot()), true) from outbox_events",
            )
            .fetch_one(&self.pool)
            .await
            .expect("an answer")
        })
        .await;
    }

    async fn change_stock(&self, delta: i32, cause: Cause<'_>) {
        let mouse: Uuid = sqlx::query_scalar("select id from product_variants where sku = 'MOU-001'")
            .fetch_one(&self.pool)
            .await
            .expect("a mouse");
        let mut tx = self.pool.begin().await.expect("a transaction");
        shelf::change(&mut tx, mouse.into(), delta, cause).await.expect("changed");
        tx.commit().await.expect("committed");
    }

    fn digests(&self) -> Vec<String> {
        self.mails.to(STAFF).into_iter().map(|mail| mail.text).collect()
    }

    async fn crossings(&self) -> i64 {
        let sql = "select count(*) from outbox_events where event_type = 'inventory.low_stock' and $1 = $1";
        self.count(sql, Uuid::nil()).await
    }
}

#[tokio::test]
async fn a_crossing_is_told_once_and_again_only_after_the_shelf_was_filled() {
    let world = World::with(rules()).await;
    world.set_threshold(2).await;
    world.sell_mice(1).await;
    assert_eq!(world.crossings().await, 0, "still above");
    world.sell_mice(1).await;
    assert_eq!(world.crossings().await, 1, "at the threshold");
    world.sell_mice(3).await;
    assert_eq!(world.crossings().await, 1, "one a crossing, not one an order");
    world.change_stock(10, Cause::Restock).await;
    assert_eq!(world.crossings().await, 1, "filled");
    world.sell_mice(10).await;
    assert_eq!(world.crossings().await, 2, "and fallen again");
    world.change_stock(-1, Cause::Adjust("broken")).await;
    assert_eq!(world.crossings().await, 2, "below it stays told");
    world.change_stock(20, Cause::Restock).await;
    world.change_stock(-20, Cause::Adjust("stolen")).await;
    assert_eq!(world.crossings().await, 3, "whatever took it there");

    world.events_are_readable().await;
    assert_eq!(world.tick::<LowStockAlerts>().await, json!(3));
    assert_eq!(world.tick::<LowStockAlerts>().await, json!(0), "each is reported once");
    world.settle().await;
    let digests = world.digests();
    assert_eq!(digests.len(), 1, "{digests:?}");
    assert_eq!(digests[0].matches("MOU-001 (Mouse): ").count(), 3, "{}", digests[0]);
    world.assert_books("after the digest").await;
}

#[tokio::test]
async fn without_an_address_the_digest_is_recorded_as_skipped() {
    let world = World::with(Rules { staff_email: None, ..rules() }).await;
    world.set_threshold(1).await;
    world.sell_mice(1).await;
    world.events_are_readable().await;
    assert_eq!(world.tick::<LowStockAlerts>().await, json!(1));
    world.settle().await;
    let skipped: Vec<(String, String)> =
        sqlx::query_as("select status, detail from notifications where event = 'inventory.low_stock'")
            .fetch_all(&world.pool)
            .await
            .expect("messages");
    assert_eq!(skipped, [("SKIPPED".to_owned(), "no address of the staff is configured".to_owned())]);
    assert_eq!(world.tick::<LowStockAlerts>().await, json!(0));
}

/// An event whose transaction commits late must not be skipped by a digest that came in between.
#[tokio::test]
async fn a_crossing_that_commits_late_is_reported_all_the_same() {
    let world = World::with(rules()).await;
    world.set_threshold(1).await;
    let mut late = world.pool.begin().await.expect("a transaction");
    sqlx::query(
        "insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), 'inventory.low_stock', id::text,
                jsonb_build_object('variantId', id, 'available', 1, 'threshold', 1), engine.now()
           from product_variants where sku = 'BAG-001'",
    )
    .execute(&mut *late)
    .await
    .expect("an event");
    world.sell_mice(1).await;
    assert_eq!(world.tick::<LowStockAlerts>().await, json!(0), "younger than what is still open");
    late.commit().await.expect("committed");
    world.events_are_readable().await;
    assert_eq!(world.tick::<LowStockAlerts>().await, json!(2));
}

#[tokio::test]
async fn an_event_that_says_nothing_is_in_no_alerts_way() {
    let world = World::with(rules()).await;
    for data in [json!({}), json!({ "variantId": "x", "available": "many" })] {
        sqlx::query(
            "insert into outbox_events (event_id, event_type, subject, data, occurred_at)
             values (gen_random_uuid(), 'inventory.low_stock', 'x', $1, now())",
        )
        .bind(data)
        .execute(&world.pool)
        .await
        .expect("an event of another release");
    }
    world.set_threshold(1).await;
    world.sell_mice(2).await;
    world.events_are_readable().await;
    assert_eq!(world.tick::<LowStockAlerts>().await, 3);
    world.settle().await;
    assert!(world.mails.to(STAFF)[0].text.contains("MOU-001"));
}

#[tokio::test]
async fn a_hold_that_cannot_be_given_back_is_in_no_others_way() {
    let world = World::with(rules()).await;
    for sku in ["MOU-001", "LAP-001"] {
        let (user, cart) = world.shopper(&[(sku, 1)]).await;
        let accepted = world.checkout(user, cart, "tok_3ds").await.expect("accepted");
        world.healthy().await.turn(accepted.workflow_id).await.expect("a turn");
    }
    sqlx::query(
        "update inventory set reserved_quantity = 0
          where variant_id = (select id from product_variants where sku = 'MOU-001')",
    )
    .execute(&world.pool)
    .await
    .expect("somebody has corrected the wrong figure");
    advance_clock(&world.pool, Duration::from_secs(11 * MINUTE)).await.expect("later");
    assert_eq!(world.tick::<ReservationExpiry>().await, 1);
    let statuses: Vec<String> = sqlx::query_scalar(
        "select r.status from inventory_reservations r join product_variants v on v.id = r.variant_id order by v.sku",
    )
    .fetch_all(&world.pool)
    .await
    .expect("the holds");
    assert_eq!(statuses, ["EXPIRED", "ACTIVE"], "the laptop's, and the mouse's");
}
