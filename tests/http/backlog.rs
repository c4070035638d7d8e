//! More checkouts than the workers can carry: new ones are refused, what was promised goes on.

use std::time::Duration;

use engine::inspect::{COUNTED, backlog};
use serde_json::json;

use crate::{
    patience::until,
    server::{Checkout, Server, payment},
};

async fn sql(server: &Server, sql: &'static str) {
    sqlx::query(sql).execute(&server.pool).await.expect(sql);
}

const CROWD: &str = "insert into apalis.jobs (id, job_type, job, status, run_at)
                     select 'crowd/' || n, 'checkout', '', 'Pending', now() - interval '90 seconds' from generate_series(1, 30000) n";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_refuses_new_checkouts_and_keeps_every_promise() {
    let server = Server::open_idle().await;
    let (early, late) = (server.shopper("early").await, server.shopper("late").await);
    for shopper in [&early, &late] {
        shopper.add("LAP-001", 1).await;
    }
    let order = payment("tok_ok");
    let accepted = Checkout::of(early.post_under("one", "/api/checkout", &order).await);

    sql(&server, CROWD).await;
    // What was counted a moment ago is believed for a moment.
    let refused = until("a refusal", async || {
        // An order that is refused either way, for a price nobody agreed to.
        let dear = json!({ "expectedTotal": "1.00", "shippingAddress": order["shippingAddress"],
            "shippingMethod": "STANDARD", "paymentMethod": "CREDIT_CARD", "paymentToken": "tok_ok" });
        let answer = late.post_under("probe", "/api/checkout", &dear).await;
        if answer.status == 503 { Ok(answer) } else { Err(answer.refused(409, "price-changed")) }
    })
    .await;
    assert_eq!(refused.header("retry-after"), Some("5"));
    refused.refused(503, "backlog-full");
    late.post_under("two", "/api/checkout", &order).await.refused(503, "backlog-full");

    assert_eq!(Checkout::of(early.post_under("one", "/api/checkout", &order).await), accepted, "asked again");
    let another_tab = Checkout::of(early.post_under("another", "/api/checkout", &order).await);
    assert_eq!(another_tab, accepted, "an equal order under another key");
    assert_eq!(early.delete(&accepted.path()).await.status, 202, "given up");
    late.add("LAP-001", 1).await;

    sql(&server, "delete from apalis.jobs where id like 'crowd/%'").await;
    until("a checkout", async || {
        let answer = late.post_under("two", "/api/checkout", &order).await;
        if answer.status == 202 { Ok(()) } else { Err(answer.refused(503, "backlog-full")) }
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_counted_up_to_a_limit_and_has_an_age() {
    let server = Server::open_idle().await;
    let waiting = async || backlog(&server.pool, &["checkout", "refund"]).await.expect("counted");
    assert!(waiting().await.iter().all(|queue| queue.ready == 0 && queue.age.is_zero()));
    sql(&server, CROWD).await;
    let [checkout, refund] = waiting().await.try_into().expect("both queues");
    assert_eq!((&*checkout.queue, checkout.ready), ("checkout", COUNTED));
    assert!(checkout.age >= Duration::from_secs(90), "{:?}", checkout.age);
    assert_eq!((&*refund.queue, refund.ready), ("refund", 0));
    sql(&server, "delete from apalis.jobs").await;
    server.stop().await;
}
