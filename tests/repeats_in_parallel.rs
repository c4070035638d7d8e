//! One key, many requests at once: one effect, and one answer for all who come after it.

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::server::{Answer, Server, Shopper, payment};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_requests_under_one_key_have_one_effect() {
    let server = Server::open_idle().await;
    let guest = Shopper::guest(server.door.clone()).await;
    for shopper in [server.shopper("asha").await, guest] {
        let item = json!({ "variantId": "LAP-001", "quantity": 1 });
        let answers = join_all((0..20).map(|_| shopper.post_under("add", "/api/cart/items", &item))).await;
        let first = answers.iter().find(|answer| answer.status == 200).expect("one was carried out").body.clone();
        let mut fresh = 0;
        for answer in answers {
            if answer.status == 200 {
                fresh += usize::from(answer.header("idempotent-replayed").is_none());
                assert_eq!(answer.body, first);
            } else {
                assert_eq!(answer.header("retry-after"), Some("1"));
                answer.refused(409, "idempotency-in-progress");
            }
        }
        assert_eq!(fresh, 1);
        assert_eq!(shopper.cart().await["itemCount"], 1);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_still_under_way_is_told_to_come_again_and_not_carried_out_twice() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let me = asha.get("/api/me").await.ok()["userId"].as_str().expect("an id").to_owned();
    // Another process has the key in hand.
    let mut other = server.pool.begin().await.expect("a transaction");
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('user:' || $1 || ' buy', 0))")
        .bind(&me)
        .execute(&mut *other)
        .await
        .expect("the key");
    let busy = asha.post_under("buy", "/api/checkout", &payment("tok_ok")).await;
    assert_eq!(busy.header("retry-after"), Some("1"));
    busy.refused(409, "idempotency-in-progress");
    other.rollback().await.expect("given up");
    let accepted = asha.post_under("buy", "/api/checkout", &payment("tok_ok")).await;
    assert_eq!((accepted.status, accepted.header("idempotent-replayed")), (202, None));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_for_a_day_and_for_its_caller_only() {
    let server = Server::open_idle().await;
    let [asha, ben] = [server.shopper("asha").await, server.shopper("ben").await];
    let guests = [Shopper::guest(server.door.clone()).await, Shopper::guest(server.door.clone()).await];
    let [one, two] = [1, 2].map(|quantity| json!({ "variantId": "LAP-001", "quantity": quantity }));
    for shopper in [&asha, &ben, &guests[0], &guests[1]] {
        let answer = shopper.post_under("mine", "/api/cart/items", &one).await;
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (200, None), "one key, four callers");
    }
    asha.post_under("mine", "/api/cart/items", &two).await.refused(422, "idempotency-key-reused");
    let elsewhere = asha.post_under("mine", "/api/cart/coupons", &json!({ "code": "SAVE20" })).await;
    elsewhere.refused(422, "idempotency-key-reused");

    let age = |hours: i32| {
        let pool = &server.pool;
        async move {
            let update = "update idempotency_keys set created_at = now() - make_interval(hours => $1, secs => 5)";
            sqlx::query(update).bind(hours).execute(pool).await.expect("older")
        }
    };
    age(23).await;
    let kept = asha.post_under("mine", "/api/cart/items", &one).await;
    assert_eq!(kept.header("idempotent-replayed"), Some("true"));
    age(24).await;
    let anew = asha.post_under("mine", "/api/cart/items", &two).await;
    assert_eq!((anew.header("idempotent-replayed"), &anew.body["itemCount"]), (None, &json!(3)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_money_or_starts_a_run_asks_for_a_key() {
    let server = Server::open_idle().await;
    let document = server.door.get("/api/openapi.json").await.ok();
    for path in ["/api/checkout", "/api/orders/{id}/cancel", "/api/payments/process", "/api/payments/refund"] {
        let parameters = document["paths"][path]["post"]["parameters"].as_array().expect("parameters").clone();
        let key = parameters.iter().find(|parameter| parameter["name"] == "Idempotency-Key").expect("a key");
        assert_eq!(key["required"], true, "{path}");
    }
    let [asha, staff] = [server.shopper("asha").await, server.staff().await];
    let order = Uuid::now_v7();
    let attempt = json!({ "orderId": order, "amount": "1.00", "paymentMethod": "UPI", "paymentToken": "tok_ok" });
    let refund = json!({ "orderId": order, "amount": "1.00", "reason": "Scratched" });
    for (shopper, path, body) in [
        (&asha, "/api/checkout".to_owned(), payment("tok_ok")),
        (&asha, format!("/api/orders/{order}/cancel"), json!({ "reason": "Too late" })),
        (&asha, "/api/payments/process".to_owned(), attempt),
        (&staff, "/api/payments/refund".to_owned(), refund),
    ] {
        let without = shopper.request(Method::POST, &path).json(&body);
        Answer::to(without).await.refused(400, "idempotency-key-required");
    }
    server.stop().await;
}
