//! To start, find and go on with a payment.

use std::time::Duration;

use chrono::DateTime;
use domain::money::Money;
use domain::ports::{
    Capture, GatewayError, GatewayPaymentStatus, NextAction, Operation, PaymentGateway as _, PaymentPage, Window,
};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::super::sub_key;
use super::scene::{
    KEY, Reply, Scene, authorized, captured, key_of, lookup, money, order, order_id, payment_request, proceeding,
    refuse, say, usd,
};

fn page() -> Option<NextAction> {
    Some(NextAction::Redirect { url: "https://www.paypal.com/checkoutnow?token=5O1".to_owned() })
}

#[tokio::test]
async fn an_order_is_made_as_paypal_wants_it_and_sends_the_customer_to_its_page() {
    for (capture, intent) in [(Capture::Take, "CAPTURE"), (Capture::Hold, "AUTHORIZE")] {
        let scene = Scene::of([say(201, &order("PAYER_ACTION_REQUIRED", intent, &json!({})))]).await;
        let payment = scene.gateway.initiate(KEY, &payment_request(capture)).await.expect("a payment");
        assert_eq!((payment.gateway_payment_id.as_str(), payment.order_id), ("5O1", order_id()));
        assert_eq!((payment.status, payment.next_action), (GatewayPaymentStatus::RequiresAction, page()));
        assert_eq!(payment.amount, money("590.50", "USD"));

        assert_eq!(scene.lines(), ["POST /v2/checkout/orders"]);
        let request = &scene.requests()[0];
        assert_eq!(key_of(request), KEY);
        assert_eq!(request.header("prefer"), Some("return=representation"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("authorization"), Some("Bearer token-1"));
        let shop = "https://shop.example/api/payments/return/1";
        assert_eq!(
            request.json(),
            json!({
                "intent": intent,
                "purchase_units": [{
                    "custom_id": "01900000-0000-7000-8000-000000000001",
                    "invoice_id": "ORD-1001-2",
                    "amount": { "currency_code": "USD", "value": "590.50" },
                }],
                "payment_source": { "paypal": { "experience_context": {
                    "return_url": shop, "cancel_url": shop, "user_action": "PAY_NOW", "shipping_preference": "NO_SHIPPING",
                } } },
            })
        );
    }
}

#[tokio::test]
async fn an_order_that_paypal_shows_only_in_part_is_looked_at() {
    let minimal = json!({ "id": "5O1", "status": "PAYER_ACTION_REQUIRED", "links": [] });
    let whole = order("PAYER_ACTION_REQUIRED", "CAPTURE", &json!({}));
    let scene = Scene::of([say(201, &minimal), say(200, &whole)]).await;
    let payment = scene.gateway.initiate(KEY, &payment_request(Capture::Take)).await.expect("a payment");
    assert_eq!(payment.next_action, page());
    assert_eq!(scene.lines(), ["POST /v2/checkout/orders", "GET /v2/checkout/orders/5O1"]);
}

#[tokio::test]
async fn the_page_may_be_called_approve() {
    let mut made = order("CREATED", "CAPTURE", &json!({}));
    made["links"][1]["rel"] = json!("approve");
    let scene = Scene::of([say(200, &made)]).await;
    let payment = scene.gateway.initiate(KEY, &payment_request(Capture::Take)).await.expect("a payment");
    assert_eq!(payment.next_action, page());
}

#[tokio::test]
async fn an_amount_that_paypal_cannot_take_is_refused_without_a_call() {
    let scene = Scene::of([]).await;
    for amount in [money("590.50", "INR"), money("1.500", "KWD"), money("10.50", "HUF")] {
        let request = domain::ports::PaymentRequest { amount, ..payment_request(Capture::Take) };
        let refused = scene.gateway.initiate(KEY, &request).await;
        assert!(matches!(refused, Err(GatewayError::Refused { .. })), "{refused:?}");
    }
    assert!(scene.requests().is_empty() && scene.logins().is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_same_key_gets_it_again() {
    let made = order("PAYER_ACTION_REQUIRED", "CAPTURE", &json!({}));
    let scene = Scene::of([Reply::HangUp, say(200, &made)]).await;
    let request = payment_request(Capture::Take);
    let lost = scene.gateway.initiate(KEY, &request).await;
    assert!(matches!(lost, Err(GatewayError::Unknown(_))), "{lost:?}");
    scene.gateway.initiate(KEY, &request).await.expect("a payment");
    let requests = scene.requests();
    assert_eq!(key_of(&requests[0]), key_of(&requests[1]));
    assert_eq!(requests[0].body, requests[1].body);
}

#[tokio::test]
async fn what_cannot_be_made_is_an_error_of_its_kind() {
    let busy =
        Reply::Say { status: 429, headers: "Retry-After: 17\r\n", body: r#"{"name":"RATE_LIMIT_REACHED"}"#.to_owned() };
    let page = Reply::Say { status: 200, headers: "Content-Type: text/html\r\n", body: "<html>".to_owned() };
    for (reply, is_expected) in [
        (busy, (|error| matches!(error, GatewayError::Busy { after_s: 17, .. })) as fn(&GatewayError) -> bool),
        (
            refuse(422, "DUPLICATE_INVOICE_ID"),
            |error| matches!(error, GatewayError::Refused { code, .. } if code == "DUPLICATE_INVOICE_ID"),
        ),
        (refuse(500, "INTERNAL_SERVER_ERROR"), |error| matches!(error, GatewayError::Unknown(_))),
        (refuse(503, "SERVICE_UNAVAILABLE"), |error| matches!(error, GatewayError::Unknown(_))),
        (refuse(409, "PREVIOUS_REQUEST_IN_PROGRESS"), |error| matches!(error, GatewayError::Unknown(_))),
        (page, |error| matches!(error, GatewayError::Misconfigured(_))),
    ] {
        let scene = Scene::of([reply]).await;
        let error = scene.gateway.initiate(KEY, &payment_request(Capture::Take)).await.expect_err("no payment");
        assert!(is_expected(&error), "{error:?}");
        assert_eq!(scene.lines(), ["POST /v2/checkout/orders"]);
    }
}

#[tokio::test]
async fn the_known_payments_are_found_one_by_one() {
    let mut second = order("COMPLETED", "CAPTURE", &captured("COMPLETED"));
    second["id"] = json!("5O2");
    let first = order("APPROVED", "CAPTURE", &json!({}));
    let scene = Scene::of([say(200, &first), say(200, &second), refuse(404, "INVALID_RESOURCE_ID")]).await;
    let found = scene.gateway.find(&lookup(&["5O1", "5O2", "5O3"])).await.expect("payments");
    let found: Vec<_> = found.iter().map(|payment| (payment.gateway_payment_id.as_str(), payment.status)).collect();
    assert_eq!(
        found,
        [
            ("5O1", GatewayPaymentStatus::Approved),
            ("5O2", GatewayPaymentStatus::Captured),
            ("5O3", GatewayPaymentStatus::Closed),
        ]
    );
    assert_eq!(
        scene.lines(),
        ["GET /v2/checkout/orders/5O1", "GET /v2/checkout/orders/5O2", "GET /v2/checkout/orders/5O3"]
    );
}

#[tokio::test]
async fn without_a_known_payment_there_is_none_and_paypal_is_not_asked() {
    let scene = Scene::of([]).await;
    assert_eq!(scene.gateway.find(&lookup(&[])).await, Ok(Vec::new()));
    assert_eq!(scene.gateway.close(KEY, &lookup(&[])).await, Ok(Vec::new()));
    assert!(scene.requests().is_empty());
}

#[tokio::test]
async fn captures_of_a_stretch_of_time_are_listed_as_the_orders_behind_them() {
    let transaction = |id: &str, status: &str, amount: &str, more: Value| {
        let mut info = json!({
            "transaction_id": id, "transaction_event_code": "T0006", "transaction_status": status,
            "transaction_amount": { "currency_code": "USD", "value": amount },
        });
        info.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({ "transaction_info": info })
    };
    let own = |reference: &str| {
        json!({ "paypal_reference_id": reference, "paypal_reference_id_type": "ODR",
                                        "custom_field": order_id() })
    };
    let found = json!({
        "transaction_details": [
            transaction("2C1", "S", "590.50", own("5O1")),
            transaction("2C2", "P", "590.50", own("5O2")),
            // Of a subscription: the order, if there is one, is asked for.
            transaction("2C3", "V", "1.00", json!({ "paypal_reference_id": "I-1", "paypal_reference_id_type": "SUB" })),
            transaction("2C4", "S", "2.00", json!({ "transaction_amount": { "currency_code": "USD", "value": "?" } })),
        ],
        "total_pages": 2,
    });
    let capture = json!({ "id": "2C3", "custom_id": order_id(),
                          "supplementary_data": { "related_ids": { "order_id": "5O3" } } });
    let scene = Scene::of([say(200, &found), say(200, &capture), refuse(404, "INVALID_RESOURCE_ID")]).await;
    let from = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
    let window = Window { from, until: from + chrono::TimeDelta::hours(1) };
    let listed = scene.gateway.list(window, None).await.expect("a page");
    let rows: Vec<_> = listed
        .payments
        .iter()
        .map(|row| (row.gateway_payment_id.as_str(), row.order_id, row.captured.as_ref().map(Money::to_string)))
        .collect();
    let dollars = |text: &str| Some(text.to_owned());
    assert_eq!(
        rows,
        [
            ("5O1", Some(order_id()), dollars("590.50 USD")),
            ("5O2", Some(order_id()), dollars("0.00 USD")),
            ("5O3", Some(order_id()), dollars("1.00 USD")),
            ("2C4", None, None),
        ]
    );
    assert_eq!(listed.next.as_deref(), Some("2"));
    let query = "start_date=2023-11-14T22%3A13%3A20Z&end_date=2023-11-14T23%3A13%3A20Z&transaction_type=T0006";
    assert_eq!(
        scene.lines(),
        [
            format!("GET /v1/reporting/transactions?{query}&fields=transaction_info&page_size=50&page=1").as_str(),
            "GET /v2/payments/captures/2C3",
            "GET /v2/payments/captures/2C4",
        ]
    );
    let unknown = scene.gateway.list(window, Some("next")).await;
    assert!(matches!(unknown, Err(GatewayError::Refused { .. })), "{unknown:?}");
}

#[tokio::test]
async fn who_may_not_search_transactions_is_told_so_and_a_last_page_names_no_other() {
    let scene = Scene::of([refuse(403, "NOT_AUTHORIZED"), refuse(403, "NOT_AUTHORIZED")]).await;
    let now = lookup(&[]).since;
    let window = Window { from: now, until: now + chrono::TimeDelta::hours(1) };
    let refused = scene.gateway.list(window, None).await;
    // No reason to take PayPal for away, or the shop for set up wrongly.
    assert!(matches!(&refused, Err(GatewayError::Refused { code, .. }) if code == "NOT_AUTHORIZED"), "{refused:?}");
    let scene = Scene::of([say(200, &json!({ "transaction_details": [], "total_pages": 2 }))]).await;
    assert_eq!(scene.gateway.list(window, Some("2")).await, Ok(PaymentPage::default()));
}

#[tokio::test]
async fn a_strangers_page_does_not_close_a_payment() {
    let page = Reply::Say { status: 404, headers: "", body: "<html>".to_owned() };
    let scene = Scene::of([page]).await;
    let found = scene.gateway.find(&lookup(&["5O1"])).await;
    assert!(matches!(found, Err(GatewayError::Misconfigured(_))), "{found:?}");
}

#[tokio::test]
async fn a_completed_order_without_payments_is_unknown() {
    let scene = Scene::of([say(200, &order("COMPLETED", "CAPTURE", &json!({})))]).await;
    let found = scene.gateway.find(&lookup(&["5O1"])).await;
    assert!(matches!(found, Err(GatewayError::Unknown(_))), "{found:?}");
}

#[tokio::test]
async fn an_approved_order_is_captured() {
    let approved = order("APPROVED", "CAPTURE", &json!({}));
    let done = order("COMPLETED", "CAPTURE", &captured("COMPLETED"));
    let scene = Scene::of([say(200, &approved), say(201, &done)]).await;
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!((payment.status, payment.captured), (GatewayPaymentStatus::Captured, Decimal::new(59050, 2)));
    assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1", "POST /v2/checkout/orders/5O1/capture"]);
    let capture = &scene.requests()[1];
    assert_eq!((key_of(capture), capture.json()), (sub_key(KEY, "capture"), json!({})));
    assert_eq!(capture.header("prefer"), Some("return=representation"));
}

#[tokio::test]
async fn an_approved_order_is_set_aside() {
    let approved = order("APPROVED", "AUTHORIZE", &json!({}));
    let done = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    let scene = Scene::of([say(200, &approved), say(201, &done)]).await;
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Hold)).await.expect("a payment");
    assert_eq!((payment.status, payment.captured), (GatewayPaymentStatus::Authorized, Decimal::ZERO));
    assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1", "POST /v2/checkout/orders/5O1/authorize"]);
    assert_eq!(key_of(&scene.requests()[1]), sub_key(KEY, "authorize"));
}

#[tokio::test]
async fn an_order_that_was_made_to_be_taken_cannot_be_set_aside() {
    let approved = order("APPROVED", "CAPTURE", &json!({}));
    let scene = Scene::of([say(200, &approved), refuse(422, "ACTION_DOES_NOT_MATCH_INTENT")]).await;
    let refused = scene.gateway.proceed(KEY, &proceeding(Capture::Hold)).await;
    assert!(matches!(refused, Err(GatewayError::Refused { .. })), "{refused:?}");
    assert_eq!(scene.lines()[1], "POST /v2/checkout/orders/5O1/authorize");
}

#[tokio::test]
async fn an_order_that_was_made_to_be_set_aside_is_set_aside_and_taken() {
    let approved = order("APPROVED", "AUTHORIZE", &json!({}));
    let held = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    let mut payments = authorized("CAPTURED");
    payments["captures"] = captured("COMPLETED")["captures"].clone();
    let done = order("COMPLETED", "AUTHORIZE", &payments);
    let capture = json!({ "id": "3C6", "status": "COMPLETED", "amount": usd("590.50") });
    let scene = Scene::of([say(200, &approved), say(201, &held), say(201, &capture), say(200, &done)]).await;
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!((payment.status, payment.captured), (GatewayPaymentStatus::Captured, Decimal::new(59050, 2)));
    assert_eq!(
        scene.lines(),
        [
            "GET /v2/checkout/orders/5O1",
            "POST /v2/checkout/orders/5O1/authorize",
            "POST /v2/payments/authorizations/0AW/capture",
            "GET /v2/checkout/orders/5O1",
        ]
    );
    let requests = scene.requests();
    assert_eq!(requests[2].json(), json!({ "amount": usd("590.50"), "final_capture": true }));
    assert_ne!(key_of(&requests[1]), key_of(&requests[2]));
}

#[tokio::test]
async fn money_set_aside_before_is_taken_without_another_authorization() {
    let held = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    let mut payments = authorized("CAPTURED");
    payments["captures"] = captured("PENDING")["captures"].clone();
    let done = order("COMPLETED", "AUTHORIZE", &payments);
    let capture = json!({ "id": "3C6", "status": "PENDING", "amount": usd("590.50") });
    let scene = Scene::of([say(200, &held), say(201, &capture), say(200, &done)]).await;
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!((payment.status, payment.captured), (GatewayPaymentStatus::Pending, Decimal::ZERO), "not paid yet");
    assert_eq!(scene.lines()[1], "POST /v2/payments/authorizations/0AW/capture");
}

#[tokio::test]
async fn a_capture_that_paypal_does_not_show_yet_is_unknown() {
    let held = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    let capture = json!({ "id": "3C6", "status": "COMPLETED", "amount": usd("590.50") });
    let scene = Scene::of([say(200, &held), say(201, &capture), say(200, &held)]).await;
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await;
    assert!(matches!(payment, Err(GatewayError::Unknown(_))), "{payment:?}");
    assert_eq!(scene.lines().len(), 3);
}

#[tokio::test]
async fn what_is_done_already_or_not_approved_is_only_looked_at() {
    for (status, intent, payments, capture, expected) in [
        ("COMPLETED", "CAPTURE", captured("COMPLETED"), Capture::Take, GatewayPaymentStatus::Captured),
        ("COMPLETED", "CAPTURE", captured("COMPLETED"), Capture::Hold, GatewayPaymentStatus::Captured),
        ("COMPLETED", "CAPTURE", captured("PENDING"), Capture::Take, GatewayPaymentStatus::Pending),
        ("COMPLETED", "CAPTURE", captured("DECLINED"), Capture::Take, GatewayPaymentStatus::Failed),
        ("COMPLETED", "AUTHORIZE", authorized("CREATED"), Capture::Hold, GatewayPaymentStatus::Authorized),
        ("COMPLETED", "AUTHORIZE", authorized("PENDING"), Capture::Take, GatewayPaymentStatus::Pending),
        ("COMPLETED", "AUTHORIZE", authorized("VOIDED"), Capture::Take, GatewayPaymentStatus::Closed),
        ("PAYER_ACTION_REQUIRED", "CAPTURE", json!({}), Capture::Take, GatewayPaymentStatus::RequiresAction),
    ] {
        let scene = Scene::of([say(200, &order(status, intent, &payments))]).await;
        let payment = scene.gateway.proceed(KEY, &proceeding(capture)).await.expect("a payment");
        assert_eq!(payment.status, expected, "{status} {payments}");
        assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1"]);
    }
}

#[tokio::test]
async fn another_amount_than_is_due_is_never_taken() {
    for (status, intent, payments) in
        [("APPROVED", "CAPTURE", json!({})), ("COMPLETED", "AUTHORIZE", authorized("CREATED"))]
    {
        let scene = Scene::of([say(200, &order(status, intent, &payments))]).await;
        let due = domain::ports::Proceeding { amount: money("590.49", "USD"), ..proceeding(Capture::Take) };
        let refused = scene.gateway.proceed(KEY, &due).await;
        assert!(
            matches!(&refused, Err(GatewayError::Refused { code, .. }) if code == "AMOUNT_MISMATCH"),
            "{refused:?}"
        );
        assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1"]);
    }
}

#[tokio::test]
async fn a_capture_whose_answer_was_lost_is_found_done() {
    let approved = order("APPROVED", "CAPTURE", &json!({}));
    let done = order("COMPLETED", "CAPTURE", &captured("COMPLETED"));
    let scene = Scene::of([say(200, &approved), Reply::HangUp, say(200, &done)]).await;
    let lost = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await;
    assert!(matches!(lost, Err(GatewayError::Unknown(_))), "{lost:?}");
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::Captured);
    assert_eq!(scene.lines()[2], "GET /v2/checkout/orders/5O1");
}

#[tokio::test]
async fn of_two_captures_at_once_the_second_finds_the_firsts() {
    let approved = order("APPROVED", "CAPTURE", &json!({}));
    let done = order("COMPLETED", "CAPTURE", &captured("COMPLETED"));
    for issue in ["ORDER_ALREADY_CAPTURED", "DUPLICATE_INVOICE_ID"] {
        let scene = Scene::of([say(200, &approved), refuse(422, issue), say(200, &done)]).await;
        let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
        assert_eq!((payment.status, payment.captured), (GatewayPaymentStatus::Captured, Decimal::new(59050, 2)));
        assert_eq!(scene.lines().len(), 3);
    }
    let scene = Scene::of([say(200, &approved), refuse(409, "PREVIOUS_REQUEST_IN_PROGRESS")]).await;
    let meanwhile = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await;
    assert!(matches!(meanwhile, Err(GatewayError::Unknown(_))), "{meanwhile:?}");
}

#[tokio::test]
async fn a_look_that_shows_nothing_new_leaves_the_refusal() {
    let approved = order("APPROVED", "CAPTURE", &json!({}));
    let scene = Scene::of([say(200, &approved), refuse(422, "DUPLICATE_INVOICE_ID"), say(200, &approved)]).await;
    let refused = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await;
    assert!(
        matches!(&refused, Err(GatewayError::Refused { code, .. }) if code == "DUPLICATE_INVOICE_ID"),
        "{refused:?}"
    );
    let scene = Scene::of([say(200, &approved), refuse(422, "ORDER_ALREADY_CAPTURED"), say(200, &approved)]).await;
    let unknown = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await;
    assert!(matches!(unknown, Err(GatewayError::Unknown(_))), "{unknown:?}");
}

#[tokio::test]
async fn a_declined_instrument_sends_the_customer_back_to_paypals_page() {
    let approved = order("APPROVED", "CAPTURE", &json!({}));
    for issue in ["INSTRUMENT_DECLINED", "PAYER_ACTION_REQUIRED", "ORDER_NOT_APPROVED"] {
        let scene = Scene::of([say(200, &approved), refuse(422, issue), say(200, &approved)]).await;
        let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
        assert_eq!(payment.status, GatewayPaymentStatus::RequiresAction, "{issue}");
        assert_eq!(payment.captured, Decimal::ZERO);
        assert_eq!(scene.lines().len(), 3);
    }
    let declined = json!({
        "name": "UNPROCESSABLE_ENTITY", "details": [{ "issue": "INSTRUMENT_DECLINED" }],
        "links": [{ "rel": "redirect", "href": "https://www.paypal.com/checkoutnow?token=5O1", "method": "GET" }],
    });
    let scene = Scene::of([say(200, &approved), say(422, &declined), say(200, &approved)]).await;
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!(payment.next_action, page());
}

#[tokio::test]
async fn an_order_that_has_expired_or_gone_is_closed() {
    let approved = order("APPROVED", "AUTHORIZE", &json!({}));
    for reply in [refuse(422, "ORDER_EXPIRED"), refuse(404, "INVALID_RESOURCE_ID")] {
        let scene = Scene::of([say(200, &approved), reply]).await;
        let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Hold)).await.expect("a payment");
        assert_eq!((payment.status, payment.amount), (GatewayPaymentStatus::Closed, money("590.50", "USD")));
        assert_eq!(scene.lines().len(), 2);
    }
    let scene = Scene::of([refuse(404, "INVALID_RESOURCE_ID")]).await;
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::Closed);
}

#[tokio::test]
async fn an_authorization_that_was_voided_meanwhile_is_closed() {
    let held = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    let voided = order("COMPLETED", "AUTHORIZE", &authorized("VOIDED"));
    let scene = Scene::of([say(200, &held), refuse(422, "AUTHORIZATION_VOIDED"), say(200, &voided)]).await;
    let payment = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::Closed);
    let scene = Scene::of([say(200, &held), refuse(422, "AUTHORIZATION_EXPIRED"), say(200, &held)]).await;
    let refused = scene.gateway.proceed(KEY, &proceeding(Capture::Take)).await;
    assert!(matches!(refused, Err(GatewayError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn paypal_says_how_long_it_keeps_a_key() {
    let scene = Scene::of([]).await;
    assert_eq!(scene.gateway.name(), "paypal");
    assert_eq!(scene.gateway.key_lifetime(Operation::Pay), Duration::from_secs(6 * 3600));
    assert_eq!(scene.gateway.key_lifetime(Operation::Refund), Duration::from_secs(45 * 24 * 3600));
}
