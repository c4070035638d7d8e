//! The shop with a real Redis: what it says is what Postgres says, and nobody notices when it dies.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use adapters::{
    carts::RedisCarts,
    holds::RedisHolds,
    redis::{Cmd, FromRedisValue, cmd},
};
use domain::{
    ids::CartId,
    ports::{CartCopies, CartCopy},
};
use reqwest::Method;
use serde_json::{Value, json};
use workflows::{
    Rules,
    hold_mirror::{self, NotMirrored},
};

use crate::{
    patience::{eventually, until},
    redis_server::RedisServer,
    server::{Answer, Server, Shopper},
};

impl RedisServer {
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        // On a machine that is busy with other tests an answer may take longer than the shop would wait.
        until("Redis answers", async || self.handle.command("test", command).await).await
    }

    async fn copy_of(&self, cart: &Value) -> Option<String> {
        self.ask(cmd("HGET").arg(key(cart)).arg("body")).await
    }
}

fn key(cart: &Value) -> String {
    format!("cart:{}", cart["cart"]["cartId"].as_str().expect("an id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_write_never_replaces_a_newer_copy() {
    let Some(redis) = RedisServer::start("a_late_write_never_replaces_a_newer_copy").await else { return };
    let (carts, cart_id) = (RedisCarts::new(redis.handle.clone()), CartId::generate());
    let copy = |(version, catalogue): (i64, i64)| CartCopy { version, catalogue, body: vec![0, 255, 13, 10] };
    assert_eq!(carts.get(cart_id).await, None);
    // Of the size that the catalogue's numbers have: they must not be rounded.
    let big = 1_900_000_000_000_000;
    let story = [
        ((2, big), (2, big)),
        ((1, big + 9), (2, big)),
        ((2, big - 1), (2, big)),
        ((2, big + 1), (2, big + 1)),
        ((10, 1), (10, 1)),
        ((9, big), (10, 1)),
    ];
    for (written, kept) in story {
        carts.put(cart_id, copy(written)).await;
        assert_eq!(carts.get(cart_id).await, Some(copy(kept)), "{written:?}");
    }
    let ttl: i64 = redis.ask(cmd("TTL").arg(format!("cart:{cart_id}"))).await;
    assert!((86_000..=86_400).contains(&ttl), "{ttl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apis_share_one_redis_and_both_say_what_postgres_says() {
    let Some(redis) = RedisServer::start("two_apis_share_one_redis_and_both_say_what_postgres_says").await else {
        return;
    };
    let mut server = Server::open_by(Rules::default(), Some(redis.handle.clone())).await;
    let second = server.another_api(Some(redis.handle.clone())).await;
    // Its copies are its own, and none of them is there at its first look at a version.
    let without = server.another_api(None).await;
    let asha = server.shopper("asha").await;
    let [there, truth] = [asha.at(&second), asha.at(&without)];
    let change = async |shopper: &Shopper, method: Method, path: &str, body: Value| {
        let request = shopper.request(method, path);
        Answer::to(if body.is_null() { request } else { request.json(&body) }).await.ok()
    };
    let items = "/api/cart/items";
    let story = [
        (&asha, Method::POST, items, json!({ "variantId": "LAP-001", "quantity": 2 })),
        (&there, Method::POST, items, json!({ "variantId": "LTD-010", "quantity": 3 })),
        (&asha, Method::POST, items, json!({ "variantId": "LAP-001", "quantity": 1 })),
        (&there, Method::POST, "/api/cart/coupons", json!({ "code": "SAVE20" })),
        (&asha, Method::PATCH, "/api/cart/items/LTD-010", json!({ "quantity": 1 })),
        (&there, Method::DELETE, "/api/cart/coupons/SAVE20", Value::Null),
        (&asha, Method::DELETE, "/api/cart/items/LAP-001", Value::Null),
        (&there, Method::DELETE, "/api/cart", Value::Null),
        (&asha, Method::POST, items, json!({ "variantId": "LAP-001", "quantity": 1 })),
    ];
    for (who, method, path, body) in story {
        let told = change(who, method.clone(), path, body).await;
        assert!(redis.copy_of(&told).await.is_some(), "{method} {path} leaves a copy");
        let seen = [truth.cart().await, asha.cart().await, there.cart().await];
        assert!(seen.iter().all(|seen| *seen == told), "{method} {path}: {told} is not {seen:?}");
    }

    // That the copy is what is read shows when it is forged; it still counts for no longer than its stamp.
    let told = asha.cart().await;
    let forged = redis.copy_of(&told).await.expect("a copy").replace("Laptop", "Forgery");
    let _: i64 = redis.ask(cmd("HSET").arg(key(&told)).arg("body").arg(forged)).await;
    assert_eq!(there.cart().await["items"][0]["name"], "Forgery");
    server.set_price("LAP-001", 51_000).await;
    let seen = there.cart().await;
    assert_eq!((&seen["items"][0]["name"], &seen["items"][0]["price"]), (&json!("Laptop"), &json!("51000.00")));
    assert_eq!(asha.cart().await, seen);

    // A copy that is no copy is none.
    let _: i64 = redis.ask(cmd("HSET").arg(key(&told)).arg("body").arg("{")).await;
    assert_eq!(there.cart().await, seen);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_are_mirrored_while_they_last_and_none_that_commits_late_is_skipped() {
    let Some(redis) = RedisServer::start("holds_are_mirrored_while_they_last").await else { return };
    let server = Server::open().await;
    let mirror = RedisHolds::new(redis.handle.clone());
    // As the worker does: what had no answer in time is followed in the next round.
    let follow = async || match hold_mirror::follow(&server.pool, &mirror).await {
        Ok(_) | Err(NotMirrored::Away(_)) => {}
        Err(NotMirrored::Database(error)) => panic!("{error}"),
    };
    let kept = async |order: &str| -> (Option<String>, i64) {
        let key = format!("reservation:{order}");
        (redis.ask(cmd("GET").arg(&key)).await, redis.ask(cmd("TTL").arg(&key)).await)
    };
    // Whoever else has a transaction open on this database server lets the feed wait.
    let mirrored = async |order: &str, is_there: bool| {
        eventually(&format!("{order} is there: {is_there}"), async || {
            follow().await;
            kept(order).await.0.is_some() == is_there
        })
        .await;
    };
    follow().await;
    let asha = server.shopper("asha").await;
    asha.add("LTD-010", 2).await;
    let checkout = asha.checkout("tok_3ds").await;
    let page = asha.payment_page(&checkout).await;
    mirrored(&checkout.order_id, true).await;

    // Somebody's transaction is open while the hold commits, and tells of another order later.
    let mut late = server.pool.begin().await.expect("a transaction");
    let other = uuid::Uuid::now_v7();
    sqlx::query(
        "insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         values (gen_random_uuid(), 'inventory.released', $1, '{}', now())",
    )
    .bind(other.to_string())
    .execute(&mut *late)
    .await
    .expect("an event");
    let _: () = redis.ask(cmd("SET").arg(format!("reservation:{other}")).arg("old")).await;

    let (body, ttl) = kept(&checkout.order_id).await;
    let body: Value = serde_json::from_str(&body.expect("a mirrored hold")).expect("JSON");
    assert_eq!((&body["reservationId"], &body["items"][0]["quantity"]), (&json!(checkout.order_id), &json!(2)));
    assert!((300..=600).contains(&ttl), "{ttl}");
    // A Redis that has lost its memory is told again.
    let _: () = redis.ask(&cmd("FLUSHALL")).await;
    let _: () = redis.ask(cmd("SET").arg(format!("reservation:{other}")).arg("old")).await;
    mirrored(&checkout.order_id, true).await;

    asha.press(&page, "approve").await;
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");
    follow().await;
    assert_eq!(kept(&other.to_string()).await.0.as_deref(), Some("old"), "not committed, not heard");
    late.commit().await.expect("committed");
    mirrored(&other.to_string(), false).await;
    mirrored(&checkout.order_id, false).await;
    sqlx::query("delete from outbox_events where subject = $1")
        .bind(other.to_string())
        .execute(&server.pool)
        .await
        .expect("forgotten");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_when_redis_is_killed_under_load_and_comes_back() {
    let Some(mut redis) = RedisServer::start("nobody_notices_when_redis_is_killed_under_load").await else { return };
    let server = Server::open_by(Rules::default(), Some(redis.handle.clone())).await;
    let crowd = server.crowd(8).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for shopper in crowd.clone() {
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                shopper.add("LTD-010", 1).await;
                assert_eq!(shopper.cart().await["itemCount"], 1);
                assert_eq!(shopper.delete("/api/cart/items/LTD-010").await.ok()["itemCount"], 0);
                done.fetch_add(3, Ordering::Relaxed);
            }
        });
    }
    let answered = async |more: u64| {
        let wanted = done.load(Ordering::Relaxed) + more;
        eventually("the shop goes on", async || done.load(Ordering::Relaxed) >= wanted).await;
    };
    answered(150).await;
    redis.kill();
    answered(150).await;
    redis.come_back().await;
    answered(150).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(shopper) = load.join_next().await {
        shopper.expect("every request was answered well");
    }
    let told = crowd[0].add("LAP-001", 1).await;
    assert!(redis.copy_of(&told).await.is_some(), "the new server is used");
    server.stop().await;
}
