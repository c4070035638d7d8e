//! Many at once: more shoppers than pieces, more clicks than carts.

use std::collections::BTreeSet;

use futures::future::join_all;

use crate::{
    patience::in_time,
    server::{Checkout, Server, Shopper, payment},
};

/// Of these shoppers with one piece in the cart, who got it? Everybody else heard `out-of-stock`.
async fn winners(crowd: &[Shopper]) -> Vec<Checkout> {
    let rush = crowd.iter().map(|shopper| async move {
        let answer = shopper.ask(&payment("tok_ok")).await;
        if answer.status == 409 {
            answer.refused(409, "out-of-stock");
            return None;
        }
        let checkout = Checkout::of(answer);
        let view = shopper.end(&checkout).await;
        if view["status"] == "COMPLETED" {
            return Some(checkout);
        }
        assert_eq!((view["status"].as_str(), view["failure"]["code"].as_str()), (Some("FAILED"), Some("out-of-stock")));
        None
    });
    join_all(rush).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_shoppers_and_ten_pieces_make_ten_orders() {
    let server = Server::open().await;
    let crowd = server.crowd(200).await;
    join_all(crowd.iter().map(|shopper| shopper.add("LTD-010", 1))).await;
    let winners = winners(&crowd).await;
    assert_eq!(winners.len(), 10);
    assert_eq!(server.stock("LTD-010").await, (0, 0));
    let confirmed: i64 = sqlx::query_scalar("select count(*) from orders where order_status = 'CONFIRMED'")
        .fetch_one(&server.pool)
        .await
        .expect("a count");
    assert_eq!(confirmed, 10);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_piece_is_sold_once() {
    let server = Server::open().await;
    let crowd = server.crowd(20).await;
    join_all(crowd.iter().map(|shopper| shopper.add("LTD-001", 1))).await;
    assert_eq!(winners(&crowd).await.len(), 1);
    assert_eq!(server.stock("LTD-001").await, (0, 0));
    server.close().await;
}

/// Twenty equal requests of one shopper; `key` names the n-th one's key.
async fn twenty_clicks(key: fn(u32) -> String) {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let clicks = (0..20).map(|n| {
        let asha = &asha;
        // On a busy machine some wait for the others for longer than the shop lets them: those click again.
        in_time("a click is accepted or refused", async move {
            loop {
                let answer = asha.post_under(&key(n), "/api/checkout", &payment("tok_ok")).await;
                if answer.status != 503 {
                    return answer;
                }
            }
        })
    });
    let mut accepted = BTreeSet::new();
    for answer in join_all(clicks).await {
        if answer.status == 409 {
            // Another request under the same key was still in hand.
            assert!(answer.header("retry-after").is_some());
            answer.refused(409, "idempotency-in-progress");
        } else {
            accepted.insert(Checkout::of(answer).workflow_id);
        }
    }
    assert_eq!(accepted.len(), 1, "every answer names the same checkout: {accepted:?}");
    let late = Checkout::of(asha.post_under(&key(0), "/api/checkout", &payment("tok_ok")).await);
    assert!(accepted.contains(&late.workflow_id));
    assert_eq!(asha.end(&late).await["status"], "COMPLETED");
    server.quiet().await;

    let orders = asha.get("/api/orders").await.ok();
    assert_eq!(orders["items"].as_array().map(Vec::len), Some(1), "{orders}");
    assert_eq!(server.charges(&late.order_id).await.len(), 1);
    assert_eq!(server.stock("LAP-001").await, (99, 0));
    assert_eq!(asha.mailbox().await, ["order.confirmed"]);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_clicks_under_one_key_make_one_order() {
    twenty_clicks(|_| "the-same".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_clicks_under_twenty_keys_make_one_order() {
    twenty_clicks(|n| format!("click-{n}")).await;
}
