//! From the warehouse to the door: staff pack and move, couriers report, and the order follows.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Checkout, Server, Shopper, payment};

/// A paid order of so many laptops and so many of the ten.
async fn bought(shopper: &Shopper, lines: &[(&str, u32)], request: &Value) -> Checkout {
    for (sku, quantity) in lines {
        shopper.add(sku, *quantity).await;
    }
    let checkout = Checkout::of(shopper.ask(request).await);
    assert_eq!(shopper.end(&checkout).await["status"], "COMPLETED");
    checkout
}

fn cash() -> Value {
    let mut request = payment("unused");
    request["paymentMethod"] = json!("COD");
    request.as_object_mut().expect("an object").remove("paymentToken");
    request
}

async fn ship(staff: &Shopper, checkout: &Checkout, items: Option<Value>) -> Answer {
    let mut parcel = json!({ "courierService": "Blue Dart", "trackingNumber": "BD1" });
    if let Some(items) = items {
        parcel["items"] = items;
    }
    staff.post(&format!("/api/orders/{}/shipments", checkout.order_id), &parcel).await
}

async fn report(staff: &Shopper, shipment: &Value, status: &str) -> Answer {
    let id = shipment["shipmentId"].as_str().expect("an id");
    staff.post(&format!("/api/shipments/{id}/status"), &json!({ "status": status })).await
}

async fn move_to(staff: &Shopper, checkout: &Checkout, status: &str) -> Answer {
    staff.post(&format!("/api/orders/{}/status", checkout.order_id), &json!({ "status": status })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_follows_its_parcel_to_the_door() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LAP-001", 1)], &payment("tok_ok")).await;

    let parcel = ship(&staff, &checkout, None).await;
    assert_eq!(parcel.status, 201);
    let parcel = parcel.ok();
    assert_eq!((&parcel["status"], &parcel["orderStatus"]), (&json!("READY"), &json!("PROCESSING")));
    assert_eq!(parcel["items"][0]["quantity"], 1);
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["shipmentStatus"]), (&json!("PROCESSING"), &json!("READY")));
    assert_eq!((&order["trackingNumber"], &order["courierService"]), (&json!("BD1"), &json!("Blue Dart")));

    let left = report(&staff, &parcel, "SHIPPED").await.ok();
    assert_eq!((&left["status"], &left["orderStatus"]), (&json!("SHIPPED"), &json!("SHIPPED")));
    for late in ["READY", "SHIPPED", "PENDING"] {
        let unmoved = report(&staff, &parcel, late).await.ok();
        assert_eq!(unmoved, left, "a report of {late} comes late");
    }
    report(&staff, &parcel, "DELIVERED").await.ok();
    let late = report(&staff, &parcel, "IN_TRANSIT").await.ok();
    assert_eq!((&late["status"], &late["orderStatus"]), (&json!("DELIVERED"), &json!("DELIVERED")));

    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["shipmentStatus"]), (&json!("DELIVERED"), &json!("DELIVERED")));
    assert_eq!(order["shipments"][0]["trackingNumber"], "BD1");
    assert!(order["shippedAt"].is_string() && order["deliveredAt"].is_string(), "{order}");
    let walk =
        ["PENDING", "PENDING → CONFIRMED", "CONFIRMED → PROCESSING", "PROCESSING → SHIPPED", "SHIPPED → DELIVERED"];
    assert_eq!(asha.history(&checkout).await, walk);
    asha.hears(&["order.confirmed", "order.delivered", "order.processing", "order.shipped"]).await;
    let refused = asha.post(&format!("/api/orders/{}/cancel", checkout.order_id), &json!({ "reason": "late" })).await;
    let problem = refused.refused(409, "order-not-cancellable");
    assert_eq!(problem["detail"], "Cannot cancel delivered order. Please initiate return.");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_in_two_parcels_has_arrived_with_the_second() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LAP-001", 2), ("LTD-010", 1)], &payment("tok_ok")).await;

    let one_laptop = json!([{ "variantId": "LAP-001", "quantity": 1 }]);
    let first = ship(&staff, &checkout, Some(one_laptop.clone())).await.ok();
    let three = json!([{ "variantId": "LAP-001", "quantity": 2 }]);
    let problem = ship(&staff, &checkout, Some(three)).await.refused(409, "shipment-exceeds-order");
    assert_eq!(problem["available"], 1);
    let twice = json!([{ "variantId": "LAP-001", "quantity": 1 }, { "variantId": "LAP-001", "quantity": 1 }]);
    ship(&staff, &checkout, Some(twice)).await.refused(409, "shipment-exceeds-order");

    report(&staff, &first, "DELIVERED").await.ok();
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["shipmentStatus"]), (&json!("SHIPPED"), &json!("IN_TRANSIT")));

    let second = ship(&staff, &checkout, None).await.ok();
    assert_eq!(second["items"].as_array().map(Vec::len), Some(2), "what was left: {second}");
    ship(&staff, &checkout, None).await.refused(409, "nothing-to-ship");
    report(&staff, &second, "SHIPPED").await.ok();
    report(&staff, &second, "RETURNED").await.ok();
    assert_eq!(asha.order(&checkout).await["status"], "SHIPPED", "what came back is to be sent again");
    let third = ship(&staff, &checkout, None).await.ok();
    let arrived = report(&staff, &third, "DELIVERED").await.ok();
    assert_eq!(arrived["orderStatus"], "DELIVERED");
    ship(&staff, &checkout, None).await.refused(409, "order-not-shippable");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cash_is_captured_when_the_parcel_is_delivered() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LTD-010", 1)], &cash()).await;
    assert_eq!(asha.order(&checkout).await["paymentStatus"], "PENDING");
    let parcel = ship(&staff, &checkout, None).await.ok();
    report(&staff, &parcel, "SHIPPED").await.ok();
    assert_eq!(asha.order(&checkout).await["paymentStatus"], "PENDING");
    for _ in 0..2 {
        report(&staff, &parcel, "DELIVERED").await.ok();
    }
    assert_eq!(asha.order(&checkout).await["paymentStatus"], "CAPTURED");
    let told: Vec<String> = sqlx::query_scalar(
        "select event_type from outbox_events where subject = $1 and event_type in ('payment.captured', 'order.delivered') order by id",
    )
    .bind(&checkout.order_id)
    .fetch_all(&server.pool)
    .await
    .expect("events");
    assert_eq!(told.len(), 2, "each once: {told:?}");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_move_an_order_by_the_table_only() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LAP-001", 1)], &payment("tok_ok")).await;
    move_to(&asha, &checkout, "PROCESSING").await.refused(403, "forbidden");
    let problem = move_to(&staff, &checkout, "DELIVERED").await.refused(409, "invalid-transition");
    assert_eq!(problem["detail"], "Invalid state transition from CONFIRMED to DELIVERED");
    move_to(&staff, &checkout, "CONFIRMED").await.refused(409, "invalid-transition");
    let problem = move_to(&staff, &checkout, "CANCELLED").await.refused(409, "cancellation-required");
    assert_eq!(problem["cancel"], format!("/api/orders/{}/cancel", checkout.order_id));
    move_to(&staff, &checkout, "LOST").await.refused(422, "validation-failed");

    let path = format!("/api/orders/{}", checkout.order_number);
    let seen = staff.get(&path).await;
    let tag = seen.header("etag").expect("a tag").to_owned();
    let conditional = |tag: &str, status: &str| {
        let body = json!({ "status": status, "reason": "by hand" });
        let request = staff.request(Method::POST, &format!("{path}/status")).header("if-match", tag).json(&body);
        Answer::to(request)
    };
    let moved = conditional(&tag, "PROCESSING").await;
    assert_ne!(moved.header("etag"), Some(&*tag));
    assert_eq!(moved.ok()["status"], "PROCESSING");
    conditional(&tag, "SHIPPED").await.refused(412, "precondition-failed");
    let problem = asha.post(&format!("{path}/cancel"), &json!({ "reason": "no" })).await;
    problem.refused(409, "order-not-cancellable");
    assert_eq!(move_to(&staff, &checkout, "SHIPPED").await.ok()["shipmentStatus"], "SHIPPED");
    let delivered = move_to(&staff, &checkout, "DELIVERED").await.ok();
    assert_eq!((&delivered["status"], &delivered["shipmentStatus"]), (&json!("DELIVERED"), &json!("DELIVERED")));
    move_to(&staff, &checkout, "REFUNDED").await.refused(409, "return-required");
    let history = staff.get(&format!("{path}/history")).await.ok();
    assert_eq!(history["items"][2]["changeReason"], "by hand");
    assert!(history["items"][2]["changedBy"].as_str().is_some_and(|by| by.starts_with("user:")), "{history}");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_is_packed_by_staff_once_and_for_real_lines() {
    let server = Server::open().await;
    let (asha, ben, staff) = (server.shopper("asha").await, server.shopper("ben").await, server.staff().await);
    let checkout = bought(&asha, &[("LAP-001", 1)], &payment("tok_ok")).await;
    let others = bought(&ben, &[("LAP-001", 1)], &payment("tok_ok")).await;
    ship(&asha, &checkout, None).await.refused(403, "forbidden");
    let line = ben.order(&others).await["items"][0]["orderItemId"].clone();
    let of_another = json!([{ "orderItemId": line, "quantity": 1 }]);
    ship(&staff, &checkout, Some(of_another)).await.refused(422, "order-item-not-found");
    let none = json!([{ "variantId": "LAP-001", "quantity": 0 }]);
    ship(&staff, &checkout, Some(none)).await.refused(422, "quantity-invalid");
    ship(&staff, &checkout, Some(json!([]))).await.refused(422, "validation-failed");
    let unlabelled = json!({ "courierService": " ", "trackingNumber": "" });
    let path = format!("/api/orders/{}/shipments", checkout.order_id);
    staff.post(&path, &unlabelled).await.refused(422, "validation-failed");
    assert_eq!(asha.order(&checkout).await["status"], "CONFIRMED", "a refusal packs nothing");

    let parcel = json!({ "courierService": "Blue Dart", "trackingNumber": "BD1" });
    let first = staff.post_under("pack", &path, &parcel).await;
    let again = staff.post_under("pack", &path, &parcel).await;
    assert_eq!((first.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(first.ok(), again.ok());
    assert_eq!(asha.order(&checkout).await["shipments"].as_array().map(Vec::len), Some(1));

    let cancel = format!("/api/orders/{}/cancel", others.order_id);
    assert_eq!(ben.post(&cancel, &json!({ "reason": "no" })).await.status, 202);
    server.quiet().await;
    ship(&staff, &others, None).await.refused(409, "order-not-shippable");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_of_an_order_that_was_cancelled_does_not_leave() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LAP-001", 1)], &payment("tok_ok")).await;
    let parcel = ship(&staff, &checkout, None).await.ok();
    let cancel = format!("/api/orders/{}/cancel", checkout.order_id);
    assert_eq!(staff.post(&cancel, &json!({ "reason": "damaged" })).await.status, 202);
    server.quiet().await;
    report(&staff, &parcel, "SHIPPED").await.refused(409, "order-not-shippable");
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("CANCELLED"), &json!("REFUNDED")));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_after_an_accepted_cancellation_is_told_so() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LTD-010", 2)], &payment("tok_ok")).await;
    let one = json!([{ "variantId": "LTD-010", "quantity": 1 }]);
    let parcel = ship(&staff, &checkout, Some(one)).await.ok();
    server.quiet().await;
    // The run that takes it back is promised, and has not come to it yet.
    let promise = |run: Option<uuid::Uuid>| {
        sqlx::query("update orders set cancellation_run_id = $1").bind(run).execute(&server.pool)
    };
    promise(Some(uuid::Uuid::now_v7())).await.expect("promised");
    ship(&staff, &checkout, None).await.refused(409, "order-being-cancelled");
    for status in ["SHIPPED", "IN_TRANSIT", "DELIVERED"] {
        report(&staff, &parcel, status).await.refused(409, "order-being-cancelled");
    }
    for status in ["SHIPPED", "DELIVERED"] {
        move_to(&staff, &checkout, status).await.refused(409, "order-being-cancelled");
    }
    let refund = json!({ "orderId": checkout.order_id, "amount": "1.00", "reason": "goodwill" });
    staff.post("/api/payments/refund", &refund).await.refused(409, "order-being-cancelled");
    promise(None).await.expect("for the books");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_cancel_a_shipped_order_once_all_that_left_has_come_back() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    for (request, paid) in [(payment("tok_ok"), "REFUNDED"), (cash(), "FAILED")] {
        let checkout = bought(&asha, &[("LTD-010", 2)], &request).await;
        let cancel = format!("/api/orders/{}/cancel", checkout.order_id);
        let one = json!([{ "variantId": "LTD-010", "quantity": 1 }]);
        let (first, second) = (ship(&staff, &checkout, Some(one)).await.ok(), ship(&staff, &checkout, None).await.ok());
        for (parcel, status) in [(&first, "SHIPPED"), (&second, "IN_TRANSIT"), (&first, "RETURNED")] {
            report(&staff, parcel, status).await.ok();
            let refused = staff.post(&cancel, &json!({ "reason": "nobody was there" })).await;
            let problem = refused.refused(409, "order-not-cancellable");
            assert_eq!(problem["detail"], "Cannot cancel shipped orders", "one of two is {status}");
        }
        report(&staff, &second, "RETURNED").await.ok();
        let refused = asha.post(&cancel, &json!({ "reason": "too late" })).await.refused(409, "order-not-cancellable");
        assert_eq!(refused["detail"], "Cannot cancel shipped orders");
        move_to(&staff, &checkout, "CANCELLED").await.refused(409, "cancellation-required");
        // It may be shipped again, and even then it is only cancelled while that parcel is here.
        let again = ship(&staff, &checkout, None).await.ok();
        assert_eq!(staff.post(&cancel, &json!({ "reason": "nobody was there" })).await.status, 202);
        server.quiet().await;
        report(&staff, &again, "SHIPPED").await.refused(409, "order-not-shippable");
        let order = asha.order(&checkout).await;
        assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("CANCELLED"), &json!(paid)));
        assert_eq!(asha.history(&checkout).await.last().map(String::as_str), Some("SHIPPED → CANCELLED"));
        assert_eq!(server.stock("LTD-010").await, (10, 0));
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_call_off_what_came_back_and_the_order_ends_with_what_arrived() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    for (request, paid, refunded) in [(payment("tok_ok"), "PARTIALLY_REFUNDED", true), (cash(), "CAPTURED", false)] {
        let checkout = bought(&asha, &[("LTD-010", 2)], &request).await;
        let one = json!([{ "variantId": "LTD-010", "quantity": 1 }]);
        let (first, second) = (ship(&staff, &checkout, Some(one)).await.ok(), ship(&staff, &checkout, None).await.ok());
        report(&staff, &first, "DELIVERED").await.ok();
        report(&staff, &second, "SHIPPED").await.ok();
        let call_off = format!("/api/orders/{}/call-off", checkout.order_id);
        let why = json!({ "reason": "nobody was there" });
        asha.post(&call_off, &why).await.refused(403, "forbidden");
        staff.post(&call_off, &why).await.refused(409, "nothing-to-ship");
        report(&staff, &second, "RETURNED").await.ok();
        let called = staff.post(&call_off, &why).await.ok();
        assert_eq!((&called["orderStatus"], &called["items"][0]["quantity"]), (&json!("DELIVERED"), &json!(1)));
        let worth = called["refundAmount"].as_str().expect("an amount").to_owned();
        assert_eq!(worth != "0.00", refunded, "{called}");
        staff.post(&call_off, &why).await.refused(409, "order-not-shippable");
        server.quiet().await;
        let order = asha.order(&checkout).await;
        assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("DELIVERED"), &json!(paid)));
        assert_eq!((&order["items"][0]["calledOff"], &order["payment"]["refundedAmount"]), (&json!(1), &json!(worth)));
        assert_eq!(server.stock("LTD-010").await, (9, 0));
        // What arrived may be returned, and then it is over.
        let goods = json!({ "items": [{ "variantId": "LTD-010", "quantity": 1 }], "reason": "too loud" });
        let asked = asha.post(&format!("/api/orders/{}/returns", checkout.order_id), &goods).await.ok();
        for decision in ["approve", "receive"] {
            let id = asked["returnId"].as_str().expect("an id");
            staff.post(&format!("/api/returns/{id}/{decision}"), &json!({})).await.ok();
        }
        server.quiet().await;
        assert_eq!(asha.order(&checkout).await["status"], "REFUNDED");
        assert_eq!(server.stock("LTD-010").await, (10, 0));
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_courier_has_lost_is_written_off_and_paid_back() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LTD-010", 2)], &payment("tok_ok")).await;
    let one = json!([{ "variantId": "LTD-010", "quantity": 1 }]);
    let (first, second) = (ship(&staff, &checkout, Some(one)).await.ok(), ship(&staff, &checkout, None).await.ok());
    report(&staff, &first, "LOST").await.ok();
    assert_eq!(asha.order(&checkout).await["shipmentStatus"], "READY", "what has not left cannot be lost on its way");
    for parcel in [&first, &second] {
        report(&staff, parcel, "SHIPPED").await.ok();
        report(&staff, parcel, "LOST").await.ok();
    }
    report(&staff, &second, "DELIVERED").await.ok();
    server.quiet().await;
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("CANCELLED"), &json!("REFUNDED")));
    assert_eq!(server.stock("LTD-010").await, (8, 0));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_parcels_is_not_shipped_or_delivered_by_hand() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LTD-010", 2)], &cash()).await;
    let one = json!([{ "variantId": "LTD-010", "quantity": 1 }]);
    let first = ship(&staff, &checkout, Some(one)).await.ok();
    move_to(&staff, &checkout, "SHIPPED").await.refused(409, "parcels-decide");
    report(&staff, &first, "DELIVERED").await.ok();
    move_to(&staff, &checkout, "DELIVERED").await.refused(409, "parcels-decide");
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("SHIPPED"), &json!("PENDING")), "half is paid for");
    let second = ship(&staff, &checkout, None).await.ok();
    report(&staff, &second, "DELIVERED").await.ok();
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("DELIVERED"), &json!("CAPTURED")));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_find_everybodys_orders_and_customers_their_own() {
    let server = Server::open().await;
    let (asha, ben, staff) = (server.shopper("asha").await, server.shopper("ben").await, server.staff().await);
    let hers = bought(&asha, &[("LAP-001", 1)], &payment("tok_ok")).await;
    let his = bought(&ben, &[("LAP-001", 1)], &payment("tok_ok")).await;
    move_to(&staff, &his, "PROCESSING").await.ok();
    let found = async |who: &Shopper, query: &str| -> Vec<String> {
        let page = who.get(&format!("/api/orders{query}")).await.ok();
        let items = page["items"].as_array().expect("items").iter();
        items.map(|order| order["orderId"].as_str().expect("an id").to_owned()).collect()
    };
    let (hers, his, number) = (hers.order_id, his.order_id, hers.order_number);
    assert_eq!(found(&staff, "").await, [his.clone(), hers.clone()]);
    assert_eq!(found(&staff, "?status=PROCESSING").await, std::slice::from_ref(&his));
    assert_eq!(found(&staff, "?email=Asha@Example.com").await, std::slice::from_ref(&hers));
    assert_eq!(found(&staff, &format!("?number={}", number.to_lowercase())).await, std::slice::from_ref(&hers));
    let user = asha.get("/api/me").await.ok();
    let user = user["userId"].as_str().or(user["id"].as_str()).expect("an id").to_owned();
    assert_eq!(found(&staff, &format!("?userId={user}&limit=1")).await, std::slice::from_ref(&hers));
    assert_eq!(found(&asha, "").await, std::slice::from_ref(&hers));
    assert_eq!(found(&asha, "?status=PROCESSING").await, Vec::<String>::new());
    asha.get(&format!("/api/orders?userId={user}")).await.refused(403, "forbidden");
    asha.get("/api/orders?email=ben@example.com").await.refused(403, "forbidden");
    staff.get("/api/orders?status=LOST").await.refused(422, "validation-failed");
    staff.get("/api/orders?colour=red").await.refused(422, "validation-failed");
    ben.get(&format!("/api/orders/{number}")).await.refused(404, "order-not-found");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_moves_money_by_their_word_is_in_the_audit_log() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = bought(&asha, &[("LAP-001", 4)], &payment("tok_ok")).await;
    let order = format!("/api/orders/{}", checkout.order_id);
    let one = json!([{ "variantId": "LAP-001", "quantity": 1 }]);
    let lost = ship(&staff, &checkout, Some(one.clone())).await.ok();
    report(&staff, &lost, "LOST").await.ok();
    server.quiet().await;
    let why = json!({ "items": one, "reason": "cannot be had" });
    staff.post(&format!("{order}/call-off"), &why).await.ok();
    server.quiet().await;
    let arrives = ship(&staff, &checkout, None).await.ok();
    report(&staff, &arrives, "DELIVERED").await.ok();
    let back = json!({ "items": one, "reason": "does not fit" });
    let back = asha.post(&format!("{order}/returns"), &back).await.ok();
    let back = back["returnId"].as_str().expect("an id");
    for decision in ["approve", "receive"] {
        staff.post(&format!("/api/returns/{back}/{decision}"), &json!({ "reason": "as you asked" })).await.ok();
    }
    server.quiet().await;
    let part = json!({ "orderId": checkout.order_id, "amount": "10.00", "reason": "scratched" });
    staff.post("/api/payments/refund", &part).await.ok();
    server.quiet().await;

    let (order, back) = (format!("order:{}", checkout.order_id), format!("return:{back}"));
    let parcel = |answer: &Value| format!("shipment:{}", answer["shipmentId"].as_str().expect("an id"));
    let acts = [
        ("shipment.report", parcel(&lost), None),
        ("order.call-off", order.clone(), Some("cannot be had")),
        ("shipment.report", parcel(&arrives), None),
        ("return.approve", back.clone(), Some("as you asked")),
        ("return.receive", back, Some("as you asked")),
        ("payment.refund", order, Some("scratched")),
    ];
    let acts = acts.map(|(action, subject, reason)| (action.to_owned(), subject, reason.map(str::to_owned)));
    assert_eq!(server.acts().await, acts);
    server.close().await;
}
