//! A gateway that answers late, twice, in the wrong order, wrongly or not at all.

use serde_json::{Value, json};

use crate::server::{Checkout, Server, Shopper, WINDOW_S};

/// A shop, a shopper with a laptop in the cart, and the checkout he has begun with this token.
async fn begin(token: &str) -> (Server, Shopper, Checkout) {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout(token).await;
    (server, asha, checkout)
}

/// Sold once, charged once, told once.
async fn assert_sold(server: Server, asha: Shopper, checkout: Checkout, view: Value) {
    assert_eq!(view["status"], "COMPLETED", "{view}");
    server.quiet().await;
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("CONFIRMED"), &json!("CAPTURED")), "{order}");
    assert_eq!(asha.history(&checkout).await, ["PENDING", "PENDING → CONFIRMED"]);
    assert_eq!(server.stock("LAP-001").await, (99, 0));
    let charges = server.charges(&checkout.order_id).await;
    assert_eq!(charges, [("CAPTURED".to_owned(), "59050.00".to_owned(), "0.00".to_owned())]);
    assert_eq!(asha.mailbox().await, ["order.confirmed"]);
    server.close().await;
}

/// Not sold, and all the money that came has gone back.
async fn assert_refunded(server: Server, asha: Shopper, checkout: Checkout, captured: &str) {
    asha.hears(&["order.cancelled", "payment.refunded"]).await;
    server.quiet().await;
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("CANCELLED"), &json!("REFUNDED")), "{order}");
    assert_eq!(order["payment"]["refundedAmount"], captured);
    assert_eq!(server.stock("LAP-001").await, (100, 0));
    let charges = server.charges(&checkout.order_id).await;
    assert_eq!(charges, [("REFUNDED".to_owned(), captured.to_owned(), captured.to_owned())]);
    assert_eq!(asha.mailbox().await, ["order.cancelled", "payment.refunded"]);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_is_asked_for_again_and_charged_once() {
    let (server, asha, checkout) = begin("tok_timeout").await;
    let view = asha.end(&checkout).await;
    assert_sold(server, asha, checkout, view).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_only_a_webhook_tells_of_confirms() {
    let (server, asha, checkout) = begin("tok_slow").await;
    assert_eq!(asha.wait(&checkout).await["status"], "WAITING_PAYMENT");
    server.advance(2).await;
    let view = asha.end(&checkout).await;
    assert_sold(server, asha, checkout, view).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_comes_three_times_confirms_once() {
    let (server, asha, checkout) = begin("tok_duplicate_webhook").await;
    let view = asha.end(&checkout).await;
    assert_sold(server, asha, checkout, view).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_overtake_the_answer_and_each_other_confirm_once() {
    let (server, asha, checkout) = begin("tok_reordered_webhooks").await;
    let view = asha.end(&checkout).await;
    assert_sold(server, asha, checkout, view).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_nobody_told_of_is_found_within_seconds() {
    let (server, asha, checkout) = begin("tok_no_webhook").await;
    assert_eq!(asha.wait(&checkout).await["status"], "WAITING_PAYMENT");
    server.advance(6).await;
    let view = asha.end(&checkout).await;
    assert_sold(server, asha, checkout, view).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_amount_than_the_total_never_confirms_and_goes_back() {
    let (server, asha, checkout) = begin("tok_wrong_amount").await;
    assert_eq!(asha.wait(&checkout).await["status"], "WAITING_PAYMENT");
    server.advance(1).await;
    let view = asha.end(&checkout).await;
    assert_eq!((&view["status"], &view["failure"]["code"]), (&json!("FAILED"), &json!("payment-declined")), "{view}");
    assert_eq!(asha.history(&checkout).await, ["PENDING", "PENDING → CANCELLED"]);
    assert_refunded(server, asha, checkout, "59049.00").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_comes_after_the_window_goes_back_and_the_shopper_is_told() {
    let (server, asha, checkout) = begin("tok_late").await;
    assert_eq!(asha.wait(&checkout).await["status"], "WAITING_PAYMENT");
    server.advance(WINDOW_S).await;
    let view = asha.end(&checkout).await;
    assert_eq!((&view["status"], &view["failure"]["code"]), (&json!("FAILED"), &json!("payment-expired")), "{view}");
    // What the unwinding itself can refund is over; only now does the money come.
    server.quiet().await;
    server.advance(2).await;
    assert_refunded(server, asha, checkout, "59050.00").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_fails_is_tried_again_until_the_money_is_back() {
    let mut server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_refund_fails_once").await;
    // Charged, and then the worker is gone; meanwhile the shopper gives up.
    server.dies_before("ConfirmOrder", &checkout).await;
    let charges = server.charges(&checkout.order_id).await;
    assert_eq!(charges, [("CAPTURED".to_owned(), "59050.00".to_owned(), "0.00".to_owned())]);
    assert_eq!(asha.delete(&checkout.path()).await.status, 202);

    server.start_worker();
    let view = asha.end(&checkout).await;
    assert_eq!((&view["status"], &view["failure"]["code"]), (&json!("CANCELLED"), &json!("cancelled")), "{view}");
    asha.hears(&["order.cancelled", "payment.refunded"]).await;
    let failures_left: i32 = sqlx::query_scalar("select refund_failures from sandbox.payments")
        .fetch_one(&server.pool)
        .await
        .expect("a count");
    assert_eq!(failures_left, 0, "the first try has failed");
    assert_refunded(server, asha, checkout, "59050.00").await;
}
