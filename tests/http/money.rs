//! Money over HTTP: cancelling, refunding, paying again; and who may.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    patience::until,
    server::{Answer, Checkout, Server, Shopper},
};

fn why(reason: &str) -> Value {
    json!({ "reason": reason })
}

/// A confirmed order of one laptop.
async fn bought(asha: &Shopper, token: &str) -> Checkout {
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout(token).await;
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");
    checkout
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_cancels_a_confirmed_order_and_everything_goes_back() {
    let server = Server::open().await;
    for (name, token) in [("asha", "tok_ok"), ("ben", "tok_refund_fails_once")] {
        let shopper = server.shopper(name).await;
        let checkout = bought(&shopper, token).await;
        let path = format!("/api/orders/{}/cancel", checkout.order_number);
        let other = server.shopper(&format!("not-{name}")).await;
        other.post(&path, &why("not mine")).await.refused(404, "order-not-found");
        let keyless = shopper.request(Method::POST, &path).json(&why("a change of mind"));
        Answer::to(keyless).await.refused(400, "idempotency-key-required");
        let stale = shopper.request(Method::POST, &path).header("idempotency-key", "stale").header("if-match", "\"1\"");
        Answer::to(stale.json(&why("a change of mind"))).await.refused(412, "precondition-failed");
        shopper.post(&path, &why("  ")).await.refused(422, "validation-failed");

        let etag = shopper.get(&format!("/api/orders/{}", checkout.order_id)).await;
        let etag = etag.header("etag").expect("a version").to_owned();
        let fresh = shopper.request(Method::POST, &path).header("idempotency-key", "now").header("if-match", etag);
        let first = Answer::to(fresh.json(&why("a change of mind"))).await;
        assert_eq!(first.status, 202, "{}", first.body);
        assert_eq!(
            (&first.body["refundAmount"], &first.body["refundETA"], &first.body["currency"]),
            (&json!("59050.00"), &json!("5-7 business days"), &json!("INR"))
        );
        shopper.hears(&["order.cancelled", "order.confirmed", "payment.refunded"]).await;
        server.quiet().await;
        let order = shopper.order(&checkout).await;
        assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("CANCELLED"), &json!("REFUNDED")), "{order}");
        assert_eq!(order["payment"]["refundedAmount"], "59050.00");
        assert_eq!(shopper.history(&checkout).await, ["PENDING", "PENDING → CONFIRMED", "CONFIRMED → CANCELLED"]);
        let again = shopper.post(&path, &why("a change of mind")).await;
        assert_eq!((again.status, &again.body["workflowId"]), (202, &first.body["workflowId"]));
        assert_eq!((&again.body["status"], &again.body["refundAmount"]), (&json!("COMPLETED"), &json!("59050.00")));
        let charges = server.charges(&checkout.order_id).await;
        assert_eq!(charges, [("REFUNDED".to_owned(), "59050.00".to_owned(), "59050.00".to_owned())]);
    }
    assert_eq!(server.stock("LAP-001").await, (100, 0));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_that_has_left_cannot_be_cancelled_by_anybody() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, "tok_ok").await;
    let cancel = format!("/api/orders/{}/cancel", checkout.order_id);
    let label = json!({ "courierService": "Blue Dart", "trackingNumber": "BD1" });
    let parcel = staff.post(&format!("/api/orders/{}/shipments", checkout.order_id), &label).await.ok();
    let packed = asha.post(&cancel, &why("too late?")).await.refused(409, "order-not-cancellable");
    assert_eq!(packed["detail"], "Cannot cancel an order that is being processed. Please contact us.");
    let report = format!("/api/shipments/{}/status", parcel["shipmentId"].as_str().expect("an id"));
    for (status, text) in [
        ("SHIPPED", "Cannot cancel shipped orders"),
        ("DELIVERED", "Cannot cancel delivered order. Please initiate return."),
    ] {
        staff.post(&report, &json!({ "status": status })).await.ok();
        server.quiet().await;
        for who in [&asha, &staff] {
            let refused = who.post(&cancel, &why("too late")).await.refused(409, "order-not-cancellable");
            assert_eq!(refused["detail"], text);
        }
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_give_back_a_part_and_never_more_than_was_taken() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, "tok_ok").await;
    let refund = |amount: &str| json!({ "orderId": checkout.order_id, "amount": amount, "reason": "scratched" });
    let path = "/api/payments/refund";
    asha.post(path, &refund("1000.00")).await.refused(403, "forbidden");
    let unknown = json!({ "orderId": uuid::Uuid::now_v7(), "amount": "1.00", "reason": "nobody's" });
    staff.post(path, &unknown).await.refused(404, "order-not-found");
    for amount in ["0.00", "-1.00", "0.001"] {
        staff.post(path, &refund(amount)).await.refused(422, "validation-failed");
    }
    let accepted = staff.post_under("part", path, &refund("1000.00")).await;
    assert_eq!((accepted.status, &accepted.body["status"]), (202, &json!("RUNNING")), "{}", accepted.body);
    let again = staff.post_under("part", path, &refund("1000.00")).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &accepted.body));
    let refused = staff.post(path, &refund("58050.01")).await.refused(409, "refund-exceeds-captured");
    assert_eq!(refused["left"], "58050.00");
    asha.hears(&["order.confirmed", "payment.refunded"]).await;
    server.quiet().await;
    let order = asha.order(&checkout).await;
    assert_eq!(
        (&order["status"], &order["paymentStatus"], &order["payment"]["refundedAmount"]),
        (&json!("CONFIRMED"), &json!("PARTIALLY_REFUNDED"), &json!("1000.00"))
    );
    staff.post(&format!("/api/orders/{}/cancel", checkout.order_id), &why("sold out")).await.ok();
    server.quiet().await;
    let charges = server.charges(&checkout.order_id).await;
    assert_eq!(charges, [("REFUNDED".to_owned(), "59050.00".to_owned(), "59050.00".to_owned())], "the rest, too");

    asha.add("LAP-001", 1).await;
    let mut cash = crate::server::payment("tok_ok");
    cash["paymentMethod"] = json!("COD");
    let cash = Checkout::of(asha.ask(&cash).await);
    asha.end(&cash).await;
    let nothing = json!({ "orderId": cash.order_id, "amount": "1.00", "reason": "too early" });
    staff.post(path, &nothing).await.refused(409, "nothing-captured");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_payment_at_a_time_and_none_for_an_order_that_is_not_waiting_for_it() {
    let server = Server::open().await;
    let (asha, ben) = (server.shopper("asha").await, server.shopper("ben").await);
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_3ds").await;
    let page = asha.payment_page(&checkout).await;
    let pay = |amount: &str, method: &str| json!({ "orderId": checkout.order_id, "amount": amount, "paymentMethod": method, "paymentToken": "tok_ok" });
    let path = "/api/payments/process";
    ben.post(path, &pay("59050.00", "UPI")).await.refused(404, "order-not-found");
    asha.post(path, &pay("59050.00", "COD")).await.refused(422, "validation-failed");
    let mismatch = asha.post(path, &pay("1.00", "UPI")).await.refused(409, "amount-mismatch");
    assert_eq!(mismatch["amountDue"], "59050.00");
    asha.post(path, &pay("59050.00", "UPI")).await.refused(409, "payment-in-progress");
    // Not every gateway gives the shopper's browser a token.
    let tokenless = json!({ "orderId": checkout.order_id, "amount": "59050.00", "paymentMethod": "UPI" });
    asha.post(path, &tokenless).await.refused(409, "payment-in-progress");
    let card = json!({ "orderId": checkout.order_id, "amount": "59050.00", "paymentMethod": "CREDIT_CARD", "paymentToken": "4111111111111111" });
    asha.post(path, &card).await.refused(422, "card-data-refused");
    asha.press(&page, "decline").await;
    assert_eq!(asha.end(&checkout).await["failure"]["code"], "payment-declined", "one try is the rule");
    asha.post(path, &pay("59050.00", "UPI")).await.refused(409, "order-not-pending");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_refund_is_sent_again_or_settled_by_hand_and_then_nobody_decides_any_more() {
    let server = Server::open().await;
    let (asha, staff, admin) = (server.shopper("asha").await, server.staff().await, server.admin().await);
    let checkout = bought(&asha, "tok_ok").await;
    // The gateway's books say that all of it has gone back already: it refuses for good.
    let says = async |refunded: &'static str| {
        sqlx::query(refunded).execute(&server.pool).await.expect("the gateway's books");
    };
    says("update sandbox.payments set refunded_amount = captured_amount").await;
    for amount in ["1000.00", "50.00"] {
        let part = json!({ "orderId": checkout.order_id, "amount": amount, "reason": "scratched" });
        assert_eq!(staff.post("/api/payments/refund", &part).await.status, 202);
    }
    let failed = until("both are refused", async || {
        let failed = staff.get("/api/refunds?status=FAILED").await.ok()["items"].clone();
        if failed.as_array().expect("refunds").len() == 2 { Ok(failed) } else { Err(failed) }
    })
    .await;
    let of = |amount: &str| {
        let mut refunds = failed.as_array().expect("refunds").iter();
        let refund = refunds.find(|refund| refund["amount"] == amount).expect("one");
        format!("/api/refunds/{}", refund["refundId"].as_str().expect("an id"))
    };
    let (again, by_hand) = (of("1000.00"), of("50.00"));
    says("update sandbox.payments set refunded_amount = 0").await;

    let body = why("the bank was called");
    asha.post(&format!("{again}/resend"), &body).await.refused(403, "forbidden");
    let resent = staff.post_under("again", &format!("{again}/resend"), &body).await;
    assert_eq!(
        (resent.status, &resent.body["status"], &resent.body["amount"], &resent.body["orderId"]),
        (202, &json!("PENDING"), &json!("1000.00"), &json!(checkout.order_id)),
        "{}",
        resent.body
    );
    let replayed = staff.post_under("again", &format!("{again}/resend"), &body).await;
    assert_eq!((replayed.status, replayed.header("idempotent-replayed")), (202, Some("true")));
    assert_eq!(replayed.body, resent.body);
    staff.post(&format!("{by_hand}/settle"), &body).await.refused(403, "forbidden");
    let settled = admin.post(&format!("{by_hand}/settle"), &body).await;
    assert_eq!((settled.status, &settled.body["status"]), (202, &json!("SUCCEEDED")), "{}", settled.body);
    assert_eq!(settled.body["byHand"], true);
    for refund in [&again, &by_hand] {
        for decision in ["resend", "settle"] {
            admin.post(&format!("{refund}/{decision}"), &body).await.refused(409, "invalid-transition");
        }
    }
    server.quiet().await;
    assert_eq!(asha.order(&checkout).await["payment"]["refundedAmount"], "1050.00");
    assert_eq!(server.charges(&checkout.order_id).await[0].2, "1000.00", "the gateway sent what it was sent again");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_see_what_banks_want_back_and_nobody_else_does() {
    let server = Server::open().await;
    let (asha, staff, admin) = (server.shopper("asha").await, server.staff().await, server.admin().await);
    let quiet = bought(&asha, "tok_ok").await;
    assert_eq!(staff.order(&quiet).await["disputes"], json!([]));
    let checkout = bought(&asha, "tok_dispute").await;
    let disputes = async |of: &Shopper, status: &str| {
        until("word of the dispute", async || {
            let disputes = of.order(&checkout).await["disputes"].clone();
            if disputes[0]["status"] == status { Ok(disputes) } else { Err(disputes.to_string()) }
        })
        .await
    };
    let opened = disputes(&staff, "OPENED").await;
    let order = asha.order(&checkout).await;
    let payment_id = order["payment"]["gatewayPaymentId"].as_str().expect("a payment");
    let [dispute] = opened.as_array().expect("disputes").as_slice() else { panic!("{opened}") };
    assert_eq!(
        *dispute,
        json!({
            "gateway": "sandbox", "disputeId": dispute["disputeId"], "paymentId": payment_id, "amount": "59050.00",
            "currency": "INR", "status": "OPENED", "reason": dispute["reason"], "openedAt": dispute["openedAt"],
            "updatedAt": dispute["openedAt"],
        })
    );
    assert!(dispute["disputeId"].is_string() && dispute["openedAt"].is_string(), "{dispute}");

    server.advance(60).await;
    server.dispute(payment_id, "WON").await;
    let won = disputes(&admin, "WON").await;
    assert_eq!((&won[0]["openedAt"], won.as_array().map(Vec::len)), (&dispute["openedAt"], Some(1)));
    assert_ne!(won[0]["updatedAt"], dispute["updatedAt"]);
    assert_eq!(asha.order(&checkout).await["status"], "CONFIRMED");
    for (shopper, path) in [
        (&asha, format!("/api/orders/{}", checkout.order_id)),
        (&asha, "/api/orders".to_owned()),
        (&staff, "/api/orders".to_owned()),
    ] {
        let body = shopper.get(&path).await.ok().to_string();
        assert!(!body.contains("dispute"), "{}: {body}", shopper.email);
    }
    server.close().await;
}
