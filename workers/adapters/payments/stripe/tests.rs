//! The calls of the port against prepared answers, shaped as in Stripe's OpenAPI document of 2023-08-16.

use domain::money::Currency;
use domain::ports::NextAction;
use rust_decimal::Decimal;
use serde_json::json;

use super::scripted::{Call, Play, Scripted};
use super::*;
use crate::payments::script::CLIENT;

const ORDER: &str = "01900000-0000-7000-8000-000000000001";
const REFUND: &str = "01900000-0000-7000-8000-00000000000f";
const KEY: Uuid = Uuid::from_u128(7);
/// In seconds.
const SINCE: i64 = 1_800_000_000;
const TOTAL: i64 = 5_905_000;

fn order() -> OrderId {
    ORDER.parse().expect("an id")
}

fn rupees(minor: i64) -> Money {
    Money::from_minor_units(minor, Currency::INR)
}

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

fn gateway_at(url: &str) -> StripeGateway {
    StripeGateway::new(url, "sk_test_key".into(), vec!["whsec_1".into()], CLIENT.clone()).expect("a gateway")
}

async fn gateway(plays: Vec<Play>) -> (StripeGateway, Scripted) {
    let server = Scripted::playing(plays).await;
    (gateway_at(&server.url), server)
}

fn said(body: Value) -> Play {
    Play::Answer(200, &[], body)
}

fn refused(status: u16, error: &Value) -> Play {
    Play::Answer(status, &[], json!({ "error": error }))
}

fn unexpected_state() -> Play {
    refused(
        400,
        &json!({ "type": "invalid_request_error", "code": "payment_intent_unexpected_state", "message": "No." }),
    )
}

fn intent(id: &str, status: &str) -> Value {
    let (received, capturable) = match status {
        "succeeded" => (TOTAL, 0),
        "requires_capture" => (0, TOTAL),
        _ => (0, 0),
    };
    json!({
        "id": id, "object": "payment_intent", "amount": TOTAL, "amount_received": received,
        "amount_capturable": capturable, "currency": "inr", "capture_method": "automatic",
        "confirmation_method": "automatic", "created": SINCE, "livemode": false, "payment_method_types": ["card"],
        "status": status, "metadata": { "order_id": ORDER, "attempt": "1" }, "next_action": null,
        "last_payment_error": null, "client_secret": format!("{id}_secret_x"),
        "latest_charge": { "id": "ch_1", "object": "charge", "amount_refunded": 0 },
    })
}

fn declined_and_closed(id: &str) -> Value {
    let mut intent = intent(id, "canceled");
    intent["last_payment_error"] = json!({ "type": "card_error", "code": "card_declined" });
    intent
}

fn refund_object(id: &str, refund_id: &str, status: &str) -> Value {
    json!({
        "id": id, "object": "refund", "amount": 5_000, "currency": "inr", "created": SINCE, "payment_intent": "pi_1",
        "status": status, "metadata": { "refund_id": refund_id, "order_id": ORDER },
    })
}

fn list(data: &[Value], has_more: bool) -> Play {
    said(json!({ "object": "list", "url": "/v1/x", "data": data, "has_more": has_more }))
}

fn request() -> PaymentRequest {
    PaymentRequest {
        order_id: order(),
        order_number: "ORD-1".to_owned(),
        attempt: 1,
        amount: rupees(TOTAL),
        capture: Capture::Take,
        method: PaymentMethod::CreditCard,
        token: Some("pm_card_visa".to_owned()),
        return_url: "https://shop.example/api/payments/return/1".to_owned(),
        email: None,
        phone: Some("+911234567890".to_owned()),
    }
}

fn lookup(known: &[&str]) -> Lookup {
    Lookup {
        order_id: order(),
        known: known.iter().map(|id| (*id).to_owned()).collect(),
        lost: false,
        since: time(SINCE),
    }
}

fn proceeding(capture: Capture) -> Proceeding {
    Proceeding { order_id: order(), gateway_payment_id: "pi_1".to_owned(), amount: rupees(TOTAL), capture }
}

fn refund_order() -> RefundOrder {
    RefundOrder {
        refund_id: REFUND.parse().expect("an id"),
        order_id: order(),
        gateway_payment_id: "pi_1".to_owned(),
        amount: rupees(5_000),
    }
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn lines(calls: &[Call]) -> Vec<&str> {
    calls.iter().map(|call| call.line.as_str()).collect()
}

/// Every call names us and the version; one that changes something has a key.
fn check_headers(calls: &[Call]) {
    for call in calls {
        assert_eq!(call.header("authorization"), Some("Bearer sk_test_key"), "{}", call.line);
        assert_eq!(call.header("stripe-version"), Some("2023-08-16"), "{}", call.line);
        let key = call.header("idempotency-key").map(|key| key.parse::<Uuid>().expect("a key"));
        assert_eq!(key.is_some(), call.line.starts_with("POST "), "{}", call.line);
        if key.is_some() {
            assert_eq!(call.header("content-type"), Some("application/x-www-form-urlencoded"), "{}", call.line);
        }
    }
}

#[tokio::test]
async fn a_payment_is_asked_for_in_one_call() {
    for (capture, method, status, expected) in [
        (Capture::Take, "automatic", "succeeded", GatewayPaymentStatus::Captured),
        (Capture::Hold, "manual", "requires_capture", GatewayPaymentStatus::Authorized),
    ] {
        let (stripe, server) = gateway(vec![said(intent("pi_1", status))]).await;
        let payment = stripe.initiate(KEY, &PaymentRequest { capture, ..request() }).await.expect("a payment");
        assert_eq!((payment.gateway_payment_id.as_str(), payment.status), ("pi_1", expected));
        assert_eq!((payment.order_id, payment.amount), (order(), rupees(TOTAL)));

        let calls = server.calls();
        check_headers(&calls);
        assert_eq!(calls[0].line, "POST /v1/payment_intents");
        assert_eq!(calls[0].header("idempotency-key"), Some(KEY.to_string().as_str()));
        let sent = [
            ("amount", "5905000"),
            ("currency", "inr"),
            ("payment_method", "pm_card_visa"),
            ("confirm", "true"),
            ("payment_method_types[]", "card"),
            ("capture_method", method),
            ("return_url", "https://shop.example/api/payments/return/1"),
            ("description", "ORD-1"),
            ("metadata[order_id]", ORDER),
            ("metadata[attempt]", "1"),
            ("expand[]", "latest_charge"),
        ];
        assert_eq!(calls[0].form, pairs(&sent));
    }
}

#[tokio::test]
async fn an_address_for_the_receipt_is_passed_on() {
    let (stripe, server) = gateway(vec![said(intent("pi_1", "succeeded"))]).await;
    let request = PaymentRequest { email: Some("a+b@shop.example".to_owned()), ..request() };
    stripe.initiate(KEY, &request).await.expect("a payment");
    assert!(server.calls()[0].form.contains(&("receipt_email".to_owned(), "a+b@shop.example".to_owned())));
}

#[tokio::test]
async fn the_customer_is_sent_to_the_banks_page() {
    let mut waiting = intent("pi_1", "requires_action");
    waiting["next_action"] = json!({ "type": "redirect_to_url", "redirect_to_url": { "url": "https://bank.example/3ds", "return_url": "x" } });
    let (stripe, _server) = gateway(vec![said(waiting)]).await;
    let payment = stripe.initiate(KEY, &request()).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::RequiresAction);
    assert_eq!(payment.next_action, Some(NextAction::Redirect { url: "https://bank.example/3ds".to_owned() }));
}

#[tokio::test]
async fn what_stripe_cannot_collect_it_is_not_asked_for() {
    let kuwaiti = Money::new(Decimal::new(1_234, 3), "KWD".parse().expect("a currency")).expect("money");
    let stripe = gateway_at("http://127.0.0.1:9");
    for (request, expected) in [
        (PaymentRequest { token: None, ..request() }, "payment-token-unsupported"),
        (PaymentRequest { token: Some("tok_visa".to_owned()), ..request() }, "payment-token-unsupported"),
        (PaymentRequest { method: PaymentMethod::Upi, ..request() }, "payment-method-unsupported"),
        (PaymentRequest { amount: kuwaiti.clone(), ..request() }, "payment-method-unsupported"),
    ] {
        let answer = stripe.initiate(KEY, &request).await;
        assert!(matches!(answer, Err(GatewayError::Refused { ref code, .. }) if code == expected), "{answer:?}");
    }
    let answer = stripe.proceed(KEY, &Proceeding { amount: kuwaiti.clone(), ..proceeding(Capture::Take) }).await;
    assert!(matches!(answer, Err(GatewayError::Refused { .. })), "{answer:?}");
    let answer = stripe.refund(KEY, &RefundOrder { amount: kuwaiti, ..refund_order() }).await;
    assert!(matches!(answer, Err(GatewayError::Refused { .. })), "{answer:?}");
}

#[test]
fn cards_and_wallets_are_accepted_and_nothing_else() {
    let stripe = gateway_at("http://127.0.0.1:9");
    for method in PaymentMethod::ALL {
        let expected = matches!(method, PaymentMethod::CreditCard | PaymentMethod::DebitCard | PaymentMethod::Wallet);
        assert_eq!(stripe.accepts(method, &rupees(100)).is_ok(), expected, "{method}");
    }
    assert!(stripe.accepts(PaymentMethod::CreditCard, &rupees(0)).is_err());
}

fn decline() -> Play {
    refused(
        402,
        &json!({
            "type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds", "message": "Declined.",
            "payment_intent": intent("pi_1", "requires_payment_method"),
        }),
    )
}

#[tokio::test]
async fn a_declined_payment_is_closed_and_failed() {
    for end in [said(declined_and_closed("pi_1")), said(intent("pi_1", "canceled"))] {
        let (stripe, server) = gateway(vec![decline(), end]).await;
        let payment = stripe.initiate(KEY, &request()).await.expect("a payment");
        assert_eq!(payment.status, GatewayPaymentStatus::Failed);
        assert_eq!(payment.failure.as_deref(), Some("insufficient_funds"));
        let calls = server.calls();
        check_headers(&calls);
        assert_eq!(lines(&calls), ["POST /v1/payment_intents", "POST /v1/payment_intents/pi_1/cancel"]);
        assert_ne!(calls[0].header("idempotency-key"), calls[1].header("idempotency-key"));
    }
}

#[tokio::test]
async fn a_decline_whose_close_was_lost_is_closed_when_it_is_repeated() {
    let plays = vec![decline(), Play::Lost, decline(), unexpected_state(), said(declined_and_closed("pi_1"))];
    let (stripe, server) = gateway(plays).await;
    let lost = stripe.initiate(KEY, &request()).await;
    assert!(matches!(lost, Err(GatewayError::Unknown(_))), "{lost:?}");
    let payment = stripe.initiate(KEY, &request()).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::Failed);
    let calls = server.calls();
    assert_eq!(calls[0], calls[2], "a repeated call is the same");
    assert_eq!(calls[1], calls[3]);
    assert_eq!(calls[4].line, "GET /v1/payment_intents/pi_1");
}

#[tokio::test]
async fn a_decline_that_cannot_be_closed_is_not_failed() {
    let (stripe, _server) = gateway(vec![decline(), unexpected_state(), said(intent("pi_1", "processing"))]).await;
    let answer = stripe.initiate(KEY, &request()).await;
    assert!(matches!(answer, Err(GatewayError::Unknown(_))), "{answer:?}");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_bytes() {
    let (stripe, server) = gateway(vec![Play::Lost, said(intent("pi_1", "succeeded"))]).await;
    let lost = stripe.initiate(KEY, &request()).await;
    assert!(matches!(lost, Err(GatewayError::Unknown(_))), "{lost:?}");
    let payment = stripe.initiate(KEY, &request()).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::Captured);
    let calls = server.calls();
    assert_eq!(calls[0], calls[1]);
}

#[tokio::test]
async fn no_answer_about_the_payment_is_no_refusal() {
    let error = |code: &str| json!({ "error": { "type": "invalid_request_error", "code": code, "message": "No." } });
    for (play, expected) in [
        (Play::Answer(409, &[], error("idempotency_key_in_use")), GatewayError::Unknown(String::new())),
        (Play::Answer(500, &[], error("x")), GatewayError::Unknown(String::new())),
        (Play::Answer(503, &[], error("x")), GatewayError::Unknown(String::new())),
        (Play::Answer(400, &[("Stripe-Should-Retry", "true")], error("x")), GatewayError::Unknown(String::new())),
        (Play::Answer(200, &[], json!({ "id": "pi_1" })), GatewayError::Unknown(String::new())),
        (Play::Answer(200, &[], intent("pi_1", "resting")), GatewayError::Unknown(String::new())),
        (
            Play::Answer(429, &[("Retry-After", "17")], error("rate_limit")),
            GatewayError::Busy { why: String::new(), after_s: 17 },
        ),
        (
            Play::Answer(429, &[("Retry-After", "2")], error("lock_timeout")),
            GatewayError::NotNow { code: "lock_timeout".to_owned(), detail: String::new(), after_s: 2 },
        ),
        (Play::Answer(401, &[], error("x")), GatewayError::Misconfigured(String::new())),
        (Play::Answer(403, &[], error("x")), GatewayError::Misconfigured(String::new())),
        (
            Play::Answer(302, &[("Location", "http://127.0.0.1:9/")], error("x")),
            GatewayError::Misconfigured(String::new()),
        ),
        (
            Play::Answer(400, &[], error("amount_too_large")),
            GatewayError::Refused { code: "amount_too_large".to_owned(), detail: String::new() },
        ),
    ] {
        let (stripe, _server) = gateway(vec![play.clone()]).await;
        let answer = stripe.initiate(KEY, &request()).await.expect_err("no payment");
        assert_eq!(without_words(answer), expected, "{play:?}");
    }
}

/// The error without what is only for the log.
fn without_words(error: GatewayError) -> GatewayError {
    match error {
        GatewayError::Unknown(_) => GatewayError::Unknown(String::new()),
        GatewayError::Misconfigured(_) => GatewayError::Misconfigured(String::new()),
        GatewayError::Busy { after_s, .. } => GatewayError::Busy { why: String::new(), after_s },
        GatewayError::NotNow { code, after_s, .. } => GatewayError::NotNow { code, detail: String::new(), after_s },
        GatewayError::Refused { code, .. } => GatewayError::Refused { code, detail: String::new() },
    }
}

#[tokio::test]
async fn payments_that_we_know_are_asked_for_one_by_one() {
    let missing = refused(404, &json!({ "type": "invalid_request_error", "code": "resource_missing" }));
    let (stripe, server) =
        gateway(vec![said(intent("pi_1", "canceled")), missing, said(intent("pi_3", "succeeded"))]).await;
    let found = stripe.find(&lookup(&["pi_1", "pi_2", "pi_3"])).await.expect("payments");
    let found: Vec<_> = found.iter().map(|payment| (payment.gateway_payment_id.as_str(), payment.status)).collect();
    assert_eq!(found, [("pi_1", GatewayPaymentStatus::Closed), ("pi_3", GatewayPaymentStatus::Captured)]);
    let calls = server.calls();
    check_headers(&calls);
    assert_eq!(
        lines(&calls),
        ["GET /v1/payment_intents/pi_1", "GET /v1/payment_intents/pi_2", "GET /v1/payment_intents/pi_3"]
    );
    assert_eq!(calls[0].query, pairs(&[("expand[]", "latest_charge")]));
}

#[tokio::test]
async fn a_payment_that_we_do_not_know_is_found_on_any_page() {
    let mut others = intent("pi_9", "succeeded");
    others["metadata"] = json!({ "order_id": "01900000-0000-7000-8000-000000000002" });
    let plays = vec![
        list(&[others, json!({ "strange": true }), json!({ "id": "pi_8", "metadata": 7 })], true),
        list(&[intent("pi_1", "requires_action")], false),
        said(intent("pi_1", "requires_action")),
    ];
    let (stripe, server) = gateway(plays).await;
    let found = stripe.find(&lookup(&[])).await.expect("payments");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].gateway_payment_id, "pi_1");
    let calls = server.calls();
    check_headers(&calls);
    assert_eq!(lines(&calls), ["GET /v1/payment_intents", "GET /v1/payment_intents", "GET /v1/payment_intents/pi_1"]);
    let window = [("created[gte]", "1799999700"), ("created[lte]", "1800043500"), ("limit", "100")];
    assert_eq!(calls[0].query, pairs(&window));
    assert_eq!(calls[1].query, pairs(&[&window[..], &[("starting_after", "pi_8")]].concat()));
}

#[tokio::test]
async fn a_payment_whose_answer_was_lost_is_found_beside_those_that_are_known() {
    let plays = vec![
        list(&[intent("pi_1", "canceled"), intent("pi_2", "succeeded")], false),
        said(intent("pi_1", "canceled")),
        said(intent("pi_2", "succeeded")),
    ];
    let (stripe, server) = gateway(plays).await;
    let found = stripe.find(&Lookup { lost: true, ..lookup(&["pi_1"]) }).await.expect("payments");
    let ids: Vec<&str> = found.iter().map(|payment| payment.gateway_payment_id.as_str()).collect();
    assert_eq!(ids, ["pi_1", "pi_2"]);
    let each = ["GET /v1/payment_intents", "GET /v1/payment_intents/pi_1", "GET /v1/payment_intents/pi_2"];
    assert_eq!(lines(&server.calls()), each);
}

#[tokio::test]
async fn an_order_that_stripe_never_heard_of_has_no_payment() {
    let (stripe, _server) = gateway(vec![list(&[], false)]).await;
    assert_eq!(stripe.find(&lookup(&[])).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_list_that_is_not_read_to_its_end_proves_nothing() {
    let plays = (0..MAX_PAGES).map(|page| list(&[json!({ "id": format!("pi_{page}") })], true)).collect();
    let (stripe, server) = gateway(plays).await;
    let answer = stripe.find(&lookup(&[])).await;
    assert!(matches!(answer, Err(GatewayError::Unknown(_))), "{answer:?}");
    assert_eq!(server.calls().len(), MAX_PAGES);
}

#[tokio::test]
async fn what_is_set_aside_is_taken_once() {
    let (stripe, server) =
        gateway(vec![said(intent("pi_1", "succeeded")), unexpected_state(), said(intent("pi_1", "succeeded"))]).await;
    for _ in 0..2 {
        let payment = stripe.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
        assert_eq!((payment.status, payment.captured), (GatewayPaymentStatus::Captured, rupees(TOTAL).amount()));
    }
    let calls = server.calls();
    check_headers(&calls);
    let capture = "POST /v1/payment_intents/pi_1/capture";
    assert_eq!(lines(&calls), [capture, capture, "GET /v1/payment_intents/pi_1"]);
    assert_eq!(calls[0].form, pairs(&[("amount_to_capture", "5905000"), ("expand[]", "latest_charge")]));
    assert_ne!(calls[0].header("idempotency-key"), calls[1].header("idempotency-key"), "a failure is kept under a key");
}

#[tokio::test]
async fn what_has_lapsed_meanwhile_is_returned_as_it_stands() {
    let (stripe, _server) = gateway(vec![unexpected_state(), said(intent("pi_1", "canceled"))]).await;
    let payment = stripe.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::Closed);
}

#[tokio::test]
async fn a_capture_that_is_declined_ends_the_payment() {
    let (stripe, server) = gateway(vec![decline(), said(intent("pi_1", "canceled"))]).await;
    let payment = stripe.proceed(KEY, &proceeding(Capture::Take)).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::Failed);
    assert_eq!(server.calls()[1].line, "POST /v1/payment_intents/pi_1/cancel");
}

#[tokio::test]
async fn what_is_to_be_held_is_left_as_it_stands() {
    let (stripe, server) = gateway(vec![said(intent("pi_1", "requires_capture"))]).await;
    let payment = stripe.proceed(KEY, &proceeding(Capture::Hold)).await.expect("a payment");
    assert_eq!(payment.status, GatewayPaymentStatus::Authorized);
    assert_eq!(lines(&server.calls()), ["GET /v1/payment_intents/pi_1"]);
}

#[tokio::test]
async fn every_open_payment_is_closed_and_no_other() {
    let (stripe, server) = gateway(vec![
        said(intent("pi_1", "succeeded")),
        said(intent("pi_2", "requires_capture")),
        said(intent("pi_3", "requires_payment_method")),
        said(intent("pi_2", "canceled")),
        said(declined_and_closed("pi_3")),
    ])
    .await;
    let ended = stripe.close(KEY, &lookup(&["pi_1", "pi_2", "pi_3"])).await.expect("payments");
    let ended: Vec<_> = ended.iter().map(|payment| (payment.gateway_payment_id.as_str(), payment.status)).collect();
    assert_eq!(
        ended,
        [
            ("pi_1", GatewayPaymentStatus::Captured),
            ("pi_2", GatewayPaymentStatus::Closed),
            ("pi_3", GatewayPaymentStatus::Failed)
        ]
    );
    let calls = server.calls();
    check_headers(&calls);
    assert_eq!(lines(&calls)[3..], ["POST /v1/payment_intents/pi_2/cancel", "POST /v1/payment_intents/pi_3/cancel"]);
    assert_eq!(calls[3].form, pairs(&[("cancellation_reason", "abandoned"), ("expand[]", "latest_charge")]));
    assert_ne!(calls[3].header("idempotency-key"), calls[4].header("idempotency-key"));
}

#[tokio::test]
async fn a_second_close_finds_how_the_first_has_ended() {
    for (status, expected) in
        [("canceled", GatewayPaymentStatus::Closed), ("succeeded", GatewayPaymentStatus::Captured)]
    {
        let (stripe, _server) =
            gateway(vec![said(intent("pi_1", "requires_action")), unexpected_state(), said(intent("pi_1", status))])
                .await;
        let ended = stripe.close(KEY, &lookup(&["pi_1"])).await.expect("payments");
        assert_eq!((ended.len(), ended[0].status), (1, expected));
    }
}

#[tokio::test]
async fn what_stripe_is_working_on_is_not_closed_until_it_is() {
    let (stripe, server) = gateway(vec![
        said(intent("pi_1", "processing")),
        unexpected_state(),
        said(intent("pi_1", "processing")),
        said(intent("pi_1", "requires_payment_method")),
        said(intent("pi_1", "canceled")),
    ])
    .await;
    let answer = stripe.close(KEY, &lookup(&["pi_1"])).await;
    assert!(matches!(answer, Err(GatewayError::Unknown(_))), "{answer:?}");
    let ended = stripe.close(KEY, &lookup(&["pi_1"])).await.expect("payments");
    assert_eq!(ended[0].status, GatewayPaymentStatus::Closed);
    let calls = server.calls();
    // Under the first key the refusal would be repeated.
    assert_ne!(calls[1].header("idempotency-key"), calls[4].header("idempotency-key"));
}

#[tokio::test]
async fn a_close_whose_answer_is_lost_is_the_same_call_again() {
    let (stripe, server) = gateway(vec![
        said(intent("pi_1", "requires_action")),
        Play::Lost,
        said(intent("pi_1", "requires_action")),
        said(intent("pi_1", "canceled")),
    ])
    .await;
    assert!(matches!(stripe.close(KEY, &lookup(&["pi_1"])).await, Err(GatewayError::Unknown(_))));
    stripe.close(KEY, &lookup(&["pi_1"])).await.expect("payments");
    let calls = server.calls();
    assert_eq!(calls[1], calls[3]);
}

#[tokio::test]
async fn an_order_without_payments_has_none_to_close() {
    let (stripe, _server) = gateway(vec![list(&[], false)]).await;
    assert_eq!(stripe.close(KEY, &lookup(&[])).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_refund_carries_our_id_of_it() {
    for (status, expected) in [("pending", GatewayRefundStatus::Pending), ("succeeded", GatewayRefundStatus::Succeeded)]
    {
        let (stripe, server) = gateway(vec![said(refund_object("re_1", REFUND, status))]).await;
        let refund = stripe.refund(KEY, &refund_order()).await.expect("a refund");
        assert_eq!((refund.gateway_refund_id.as_str(), refund.status), ("re_1", expected));
        assert_eq!(refund.amount, rupees(5_000));
        let calls = server.calls();
        check_headers(&calls);
        assert_eq!(calls[0].line, "POST /v1/refunds");
        assert_eq!(calls[0].header("idempotency-key"), Some(KEY.to_string().as_str()));
        assert_eq!(
            calls[0].form,
            pairs(&[
                ("payment_intent", "pi_1"),
                ("amount", "5000"),
                ("metadata[refund_id]", REFUND),
                ("metadata[order_id]", ORDER)
            ])
        );
    }
}

#[tokio::test]
async fn a_refund_that_is_refused_is_first_looked_for() {
    let other = "01900000-0000-7000-8000-0000000000ff";
    let mut smaller = refund_object("re_1", REFUND, "succeeded");
    smaller["amount"] = json!(4_999);
    for (found, expected) in [
        (list(&[refund_object("re_1", REFUND, "succeeded")], false), true),
        (list(&[refund_object("re_1", REFUND, "pending")], false), true),
        (list(&[refund_object("re_1", REFUND, "failed")], false), false),
        (list(&[refund_object("re_1", other, "succeeded")], false), false),
        (list(&[smaller], false), false),
        (list(&[], false), false),
        (refused(404, &json!({ "type": "invalid_request_error", "code": "resource_missing" })), false),
    ] {
        let refusal = json!({ "type": "invalid_request_error", "code": "charge_already_refunded", "message": "No." });
        let (stripe, server) = gateway(vec![refused(400, &refusal), found.clone()]).await;
        let answer = stripe.refund(KEY, &refund_order()).await;
        assert_eq!(lines(&server.calls()), ["POST /v1/refunds", "GET /v1/refunds"]);
        match answer {
            Ok(refund) => assert!(expected && refund.gateway_refund_id == "re_1", "{found:?}"),
            Err(GatewayError::Refused { code, .. }) => assert!(!expected && code == "charge_already_refunded"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_refusal_that_cannot_be_looked_into_is_unknown() {
    let refusal = json!({ "type": "invalid_request_error", "code": "charge_already_refunded", "message": "No." });
    let (stripe, _server) = gateway(vec![refused(400, &refusal), Play::Lost]).await;
    let answer = stripe.refund(KEY, &refund_order()).await;
    assert!(matches!(answer, Err(GatewayError::Unknown(_))), "{answer:?}");
}

#[tokio::test]
async fn too_little_money_with_stripe_is_no_refusal() {
    let error = json!({ "type": "invalid_request_error", "code": "balance_insufficient", "message": "No." });
    let (stripe, _server) = gateway(vec![refused(400, &error)]).await;
    let answer = stripe.refund(KEY, &refund_order()).await;
    assert!(
        matches!(answer, Err(GatewayError::NotNow { ref code, after_s: 3_600, .. }) if code == "balance_insufficient"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn of_two_equal_refunds_ours_is_found() {
    let other = "01900000-0000-7000-8000-0000000000ff";
    let plays = vec![
        list(&[refund_object("re_3", other, "succeeded"), refund_object("re_2", REFUND, "failed")], true),
        list(&[refund_object("re_1", REFUND, "pending")], false),
    ];
    let (stripe, server) = gateway(plays).await;
    let found = stripe.find_refund(&refund_order()).await.expect("an answer").expect("a refund");
    assert_eq!((found.gateway_refund_id.as_str(), found.status), ("re_1", GatewayRefundStatus::Pending));
    let calls = server.calls();
    check_headers(&calls);
    assert_eq!(calls[0].query, pairs(&[("payment_intent", "pi_1"), ("limit", "100")]));
    assert_eq!(calls[1].query, pairs(&[("payment_intent", "pi_1"), ("limit", "100"), ("starting_after", "re_2")]));
}

#[tokio::test]
async fn a_refund_that_failed_is_found_as_that() {
    let (stripe, _server) = gateway(vec![list(&[refund_object("re_1", REFUND, "failed")], false)]).await;
    let found = stripe.find_refund(&refund_order()).await.expect("an answer").expect("a refund");
    assert_eq!((found.status, found.failure.as_deref()), (GatewayRefundStatus::Failed, Some("failed")));
}

#[tokio::test]
async fn a_stretch_of_payments_is_listed_a_page_at_a_time() {
    let mut foreign = intent("pi_2", "succeeded");
    foreign["metadata"] = json!({});
    let (stripe, server) = gateway(vec![
        list(&[foreign, json!({ "strange": true }), intent("pi_1", "succeeded")], true),
        list(&[intent("pi_0", "canceled")], false),
    ])
    .await;
    let window = Window { from: time(SINCE), until: time(SINCE + 60) };
    let first = stripe.list(window, None).await.expect("a page");
    let orders: Vec<_> = first.payments.iter().map(|payment| payment.order_id).collect();
    assert_eq!(orders, [None, None, Some(order())]);
    let captured: Vec<_> = first.payments.iter().map(|payment| payment.captured.clone()).collect();
    assert_eq!(captured, [Some(rupees(TOTAL)), None, Some(rupees(TOTAL))]);
    let last = stripe.list(window, first.next.as_deref()).await.expect("a page");
    assert!(last.next.is_none() && last.payments[0].took_nothing());
    let calls = server.calls();
    check_headers(&calls);
    let made = [("created[gte]", "1800000000"), ("created[lt]", "1800000060"), ("limit", "100")];
    assert_eq!(calls[0].line, "GET /v1/payment_intents");
    assert_eq!(calls[0].query, pairs(&made));
    assert_eq!(calls[1].query, pairs(&[&made[..], &[("starting_after", "pi_1")]].concat()));
}

#[tokio::test]
async fn a_signed_event_is_read_in_the_mode_of_our_key() {
    use hmac::{Hmac, KeyInit as _, Mac as _};

    let body = json!({
        "id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "livemode": true, "created": SINCE,
        "data": { "object": intent("pi_1", "succeeded") },
    })
    .to_string();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"whsec_1").expect("a key");
    mac.update(format!("{SINCE}.{body}").as_bytes());
    let header = format!("t={SINCE},v1={}", hex::encode(mac.finalize().into_bytes()));
    let headers = [("stripe-signature".to_owned(), header)];
    for (key, is_ours) in [("sk_live_x", true), ("rk_live_x", true), ("sk_test_x", false), ("rk_test_x", false)] {
        let client = gateway_at("http://127.0.0.1:9").client;
        let stripe = StripeGateway::new("https://stripe.example", key.into(), vec!["whsec_1".into()], client);
        let heard = stripe.expect("a gateway").verify_webhook(&headers, body.as_bytes(), time(SINCE)).await;
        let Ok(Webhook::Event(event)) = heard else { panic!("{heard:?}") };
        assert_eq!(event.kind == domain::ports::WebhookKind::PaymentCaptured, is_ours, "{key}: {event:?}");
        assert_eq!((event.event_id.as_str(), event.gateway_payment_id.as_str()), ("evt_1", "pi_1"));
    }
    let forged = gateway_at("http://127.0.0.1:9").verify_webhook(&headers, b"{}", time(SINCE)).await;
    assert_eq!(forged, Err(WebhookError::BadSignature));
}

#[test]
fn an_address_or_secret_that_cannot_work_is_refused() {
    let made = |url: &str, secrets: &[&str]| {
        let client = gateway_at("http://127.0.0.1:9").client;
        let secrets = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        StripeGateway::new(url, "sk_test_1".into(), secrets, client).map(|_| ())
    };
    assert!(made("https://api.stripe.com", &["whsec_1", "whsec_2"]).is_ok());
    assert!(matches!(made("stripe", &["whsec_1"]), Err(ConfigError::Url(_))));
    assert!(matches!(made("mailto:a@b.example", &["whsec_1"]), Err(ConfigError::NotHttp)));
    for url in [
        "https://a:b@api.stripe.com",
        "https://a@api.stripe.com",
        "https://api.stripe.com?a",
        "https://api.stripe.com#a",
    ] {
        assert!(matches!(made(url, &["whsec_1"]), Err(ConfigError::NotAnAddress)), "{url}");
    }
    assert!(matches!(made("https://api.stripe.com", &[]), Err(ConfigError::WebhookSecret)));
}
