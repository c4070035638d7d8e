//! Each call of the port against a local server that plays answers in a given order, in the shapes that Razorpay
//! publishes, and keeps what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::ids::OrderId;
use domain::money::Currency;
use domain::ports::{GatewayRefundStatus, ListedPayment, NextAction};
use rust_decimal::Decimal;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::payments::script::{CLIENT, Request, receive, respond};

/// What the server does with one request.
enum Play {
    /// It answers.
    Say(u16, Value),
    /// The same, and says when to come again.
    Later(u16, u64),
    /// It hears, and the answer is lost.
    Nothing,
}

use Play::{Later, Nothing, Say};

/// What it was asked.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    /// Method, path and query.
    line: String,
    authorization: String,
    idempotency: Option<String>,
    body: Value,
}

/// The server, and a gateway that speaks to it.
struct Stage {
    gateway: RazorpayGateway,
    plays: Arc<Mutex<VecDeque<Play>>>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Stage {
    async fn new(plays: Vec<Play>) -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let plays = Arc::new(Mutex::new(VecDeque::from(plays)));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (to_play, to_keep) = (Arc::clone(&plays), Arc::clone(&heard));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = receive(&mut stream).await.expect("a request");
                to_keep.lock().unwrap().push(request.into());
                // What nobody has foreseen shows in what was heard.
                let play = to_play.lock().unwrap().pop_front().unwrap_or(Say(500, json!({})));
                answer(&mut stream, play).await;
            }
        });
        let client = CLIENT.clone();
        let (key_secret, webhook_secrets) = ("rzp_secret".into(), vec!["webhook".into()]);
        let gateway = RazorpayGateway::new(&url, "rzp_key".to_owned(), key_secret, webhook_secrets, client).unwrap();
        Stage { gateway, plays, heard }
    }

    /// What was asked, each on a line; all that was to be played was.
    fn lines(&self) -> Vec<String> {
        assert!(self.plays.lock().unwrap().is_empty(), "not all was asked for: {:?}", self.heard());
        self.heard().into_iter().map(|heard| heard.line).collect()
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl From<Request> for Heard {
    fn from(request: Request) -> Self {
        let header = |name| request.header(name).map(str::to_owned);
        assert_eq!(header("content-type").is_some(), !request.body.is_empty());
        Heard {
            authorization: header("authorization").unwrap_or_default(),
            idempotency: header("x-refund-idempotency"),
            body: request.json(),
            line: request.line,
        }
    }
}

async fn answer(stream: &mut TcpStream, play: Play) {
    match play {
        Say(status, body) => respond(stream, status, "", &body.to_string()).await,
        Later(status, after) => respond(stream, status, &format!("Retry-After: {after}\r\n"), "").await,
        Nothing => {}
    }
}

const RETURN: &str = "https://shop.example/api/payments/return/1";

fn our_order() -> OrderId {
    OrderId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001))
}

const RECEIPT: &str = "01900000-0000-7000-8000-000000000001";

fn rupees(amount: i64) -> Money {
    Money::from_minor_units(amount * 100, Currency::INR)
}

fn order(id: &str, attempt: u32) -> Value {
    json!({
        "id": id, "entity": "order", "amount": 10_000, "amount_paid": 0, "amount_due": 10_000, "currency": "INR",
        "receipt": format!("{RECEIPT}-{attempt}"), "offer_id": null, "status": "created", "attempts": 0,
        "notes": { "return_url": RETURN }, "created_at": 1_800_000_000,
    })
}

fn payment(id: &str, status: &str, refunded: i64) -> Value {
    json!({
        "id": id, "entity": "payment", "amount": 10_000, "currency": "INR", "status": status, "order_id": "order_1",
        "invoice_id": null, "international": false, "method": "upi", "amount_refunded": refunded, "refund_status": null,
        "captured": matches!(status, "captured" | "refunded"), "notes": [], "error_code": null, "error_reason": null,
        "created_at": 1_800_000_100,
    })
}

fn refund_of(id: &str, receipt: Uuid, amount: i64, status: &str) -> Value {
    json!({
        "id": id, "entity": "refund", "amount": amount, "currency": "INR", "payment_id": "pay_1", "notes": [],
        "receipt": receipt, "acquirer_data": { "arn": null }, "created_at": 1_800_000_200, "batch_id": null, "status": status,
    })
}

fn list(items: &[Value]) -> Play {
    Say(200, json!({ "entity": "collection", "count": items.len(), "items": items }))
}

fn no(status: u16, description: &str) -> Play {
    let error = json!({ "code": "BAD_REQUEST_ERROR", "description": description, "source": "NA", "step": "NA", "reason": "NA" });
    Say(status, json!({ "error": error }))
}

fn request(capture: Capture) -> PaymentRequest {
    PaymentRequest {
        order_id: our_order(),
        order_number: "ORD0000000018".to_owned(),
        attempt: 1,
        amount: rupees(100),
        capture,
        method: PaymentMethod::Upi,
        token: None,
        return_url: RETURN.to_owned(),
        email: Some("someone@example.com".to_owned()),
        phone: None,
    }
}

fn proceeding(capture: Capture) -> Proceeding {
    Proceeding { order_id: our_order(), gateway_payment_id: "order_1".to_owned(), amount: rupees(100), capture }
}

fn lookup(known: &[&str]) -> Lookup {
    let known = known.iter().map(|id| (*id).to_owned()).collect();
    Lookup { order_id: our_order(), known, lost: false, since: DateTime::from_timestamp(1_800_000_000, 0).unwrap() }
}

fn refund_order(refund_id: u128, amount: i64) -> RefundOrder {
    RefundOrder {
        refund_id: Uuid::from_u128(refund_id),
        order_id: our_order(),
        gateway_payment_id: "order_1".to_owned(),
        amount: rupees(amount),
    }
}

const KEY: Uuid = Uuid::from_u128(42);

fn by_receipt(attempt: u32) -> String {
    format!("GET /v1/orders?receipt={RECEIPT}-{attempt}&count=100")
}

const ORDER: &str = "GET /v1/orders/order_1";
const TRIES: &str = "GET /v1/orders/order_1/payments";
const CAPTURE: &str = "POST /v1/payments/pay_1/capture";
const REFUNDS: &str = "GET /v1/payments/pay_1/refunds?count=100&skip=0";
const REFUND: &str = "POST /v1/payments/pay_1/refund";

#[tokio::test]
async fn a_payment_is_an_order_that_the_customer_pays_in_the_shops_page() {
    for (capture, within) in [(Capture::Take, 60), (Capture::Hold, 4320)] {
        let stage = Stage::new(vec![list(&[]), Say(200, order("order_1", 1))]).await;
        let payment = stage.gateway.initiate(KEY, &request(capture)).await.unwrap();
        assert_eq!(stage.lines(), [&by_receipt(1), "POST /v1/orders"]);
        let heard = stage.heard();
        let login = format!("Basic {}", BASE64.encode("rzp_key:rzp_secret"));
        assert!(heard.iter().all(|heard| heard.authorization == login));
        let options =
            json!({ "automatic_expiry_period": 12, "manual_expiry_period": within, "refund_speed": "normal" });
        assert_eq!(
            heard[1].body,
            json!({
                "amount": 10_000, "currency": "INR", "receipt": format!("{RECEIPT}-1"),
                "notes": { "order_id": RECEIPT, "order_number": "ORD0000000018", "return_url": RETURN },
                "payment": { "capture": "manual", "capture_options": options },
            })
        );
        assert_eq!(payment.gateway_payment_id, "order_1");
        assert_eq!((payment.status, payment.amount), (GatewayPaymentStatus::RequiresAction, rupees(100)));
        let Some(NextAction::Checkout { gateway, parameters }) = payment.next_action else {
            panic!("no page to pay in")
        };
        assert_eq!(gateway, "razorpay");
        assert_eq!(
            json!(parameters),
            json!({ "keyId": "rzp_key", "orderId": "order_1", "amount": 10_000, "currency": "INR", "callbackUrl": RETURN, "timeout": 480 })
        );
    }
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_is_found_by_its_receipt() {
    let made = [list(&[order("order_1", 1)]), list(&[payment("pay_1", "authorized", 0)])];
    let mut plays = vec![list(&[]), Nothing];
    plays.extend(made);
    let stage = Stage::new(plays).await;
    let lost = stage.gateway.initiate(KEY, &request(Capture::Take)).await;
    assert!(matches!(lost, Err(GatewayError::Unknown(_))), "{lost:?}");
    let found = stage.gateway.initiate(KEY, &request(Capture::Take)).await.unwrap();
    assert_eq!((found.status, found.next_action), (GatewayPaymentStatus::Authorized, None));
    assert_eq!(stage.lines(), [&by_receipt(1), "POST /v1/orders", &by_receipt(1), TRIES]);
}

#[tokio::test]
async fn only_an_order_of_that_very_receipt_and_amount_is_taken_for_ours() {
    let mut older = order("order_0", 1);
    older["created_at"] = json!(1_799_999_999);
    let stage = Stage::new(vec![list(&[order("order_9", 10), order("order_1", 1), older]), list(&[])]).await;
    let payment = stage.gateway.initiate(KEY, &request(Capture::Take)).await.unwrap();
    assert_eq!(payment.gateway_payment_id, "order_0", "the first of two that were made at once");

    let mut other = order("order_1", 1);
    other["amount"] = json!(9_900);
    let stage = Stage::new(vec![list(&[other]), list(&[])]).await;
    let refused = stage.gateway.initiate(KEY, &request(Capture::Take)).await;
    assert!(matches!(&refused, Err(GatewayError::Refused { code, .. }) if code == "another-amount"), "{refused:?}");
}

#[tokio::test]
async fn what_it_has_no_room_or_no_amount_for_is_not_asked_for() {
    let stage = Stage::new(Vec::new()).await;
    let late = PaymentRequest { attempt: MAX_ATTEMPT + 1, ..request(Capture::Take) };
    assert!(matches!(stage.gateway.initiate(KEY, &late).await, Err(GatewayError::Refused { .. })));
    let dinars = Money::new(Decimal::new(1_001, 3), "KWD".parse().unwrap()).unwrap();
    let fine = RefundOrder { amount: dinars, ..refund_order(1, 1) };
    assert!(matches!(stage.gateway.refund(KEY, &fine).await, Err(GatewayError::Refused { .. })));
    assert!(stage.heard().is_empty());
}

#[tokio::test]
async fn errors_mean_the_same_at_every_call() {
    let cases = || {
        [
            (Later(429, 17), "busy 17"),
            (no(500, "trouble"), "unknown"),
            (no(503, "trouble"), "unknown"),
            (Nothing, "unknown"),
            (Say(200, json!({ "items": [{ "id": "order_1", "status": "archived" }] })), "unknown"),
            (no(401, "Authentication failed"), "misconfigured"),
            (no(403, "Access forbidden for requested resource"), "misconfigured"),
            (no(400, "The api key provided is invalid"), "misconfigured"),
            (no(400, "The receipt may not be greater than 40 characters."), "refused"),
        ]
    };
    let class = |error: &GatewayError| match error {
        GatewayError::Unknown(_) => "unknown".to_owned(),
        GatewayError::Busy { after_s, .. } => format!("busy {after_s}"),
        GatewayError::NotNow { .. } => "not now".to_owned(),
        GatewayError::Misconfigured(_) => "misconfigured".to_owned(),
        GatewayError::Refused { .. } => "refused".to_owned(),
    };
    for call in ["initiate", "find", "proceed", "close", "refund", "find_refund", "list"] {
        for (play, expected) in cases() {
            // Payments in a list are read one by one, whatever they are.
            if call == "list" && matches!(play, Say(200, _)) {
                continue;
            }
            let stage = Stage::new(vec![play]).await;
            let gateway = &stage.gateway;
            let error = match call {
                "initiate" => gateway.initiate(KEY, &request(Capture::Take)).await.err(),
                "find" => gateway.find(&lookup(&[])).await.err(),
                "proceed" => gateway.proceed(KEY, &proceeding(Capture::Take)).await.err(),
                "close" => gateway.close(KEY, &lookup(&[])).await.err(),
                "refund" => gateway.refund(KEY, &refund_order(1, 40)).await.err(),
                "find_refund" => gateway.find_refund(&refund_order(1, 40)).await.err(),
                _ => gateway.list(window(), None).await.err(),
            };
            assert_eq!(error.as_ref().map(class).as_deref(), Some(expected), "{call}: {error:?}");
        }
    }
}

#[tokio::test]
async fn every_attempt_is_found_also_one_that_we_do_not_know_of() {
    let stage = Stage::new(vec![
        list(&[]),
        list(&[order("order_1", 2)]),
        list(&[payment("pay_1", "captured", 4_000)]),
        list(&[]),
        list(&[]),
        list(&[]),
        // Known, and not in the index yet.
        Say(200, order("order_3", 3)),
        list(&[]),
        // Known, and not to the gateway.
        no(400, "The id provided does not exist"),
    ])
    .await;
    let found = stage.gateway.find(&lookup(&["order_1", "order_3", "order_9"])).await.unwrap();
    let others = ["GET /v1/orders/order_3", "GET /v1/orders/order_3/payments", "GET /v1/orders/order_9"];
    let mut lines: Vec<String> = (1..=5).map(by_receipt).collect();
    lines.insert(2, TRIES.to_owned());
    lines.extend(others.map(str::to_owned));
    assert_eq!(stage.lines(), lines);
    let seen: Vec<_> = found.iter().map(|one| (one.gateway_payment_id.as_str(), one.status, one.refunded)).collect();
    assert_eq!(
        seen,
        [
            ("order_1", GatewayPaymentStatus::Captured, Decimal::new(4_000, 2)),
            ("order_3", GatewayPaymentStatus::RequiresAction, Decimal::ZERO)
        ]
    );
    assert!(found.iter().all(|one| one.order_id == our_order()));
    assert!(matches!(found[1].next_action, Some(NextAction::Checkout { .. })), "whoever finds it can open its page");
}

#[tokio::test]
async fn an_order_it_never_heard_of_is_not_found() {
    let stage = Stage::new(vec![list(&[]), list(&[])]).await;
    assert_eq!(stage.gateway.find(&lookup(&[])).await, Ok(Vec::new()));
    assert_eq!(stage.lines(), [by_receipt(1), by_receipt(2)]);
}

#[tokio::test]
async fn what_the_customer_has_agreed_to_is_taken() {
    let mut other = payment("pay_0", "authorized", 0);
    other["amount"] = json!(9_900);
    let stage = Stage::new(vec![
        Say(200, order("order_1", 1)),
        list(&[payment("pay_2", "failed", 0), other, payment("pay_1", "authorized", 0)]),
        Say(200, payment("pay_1", "captured", 0)),
    ])
    .await;
    let taken = stage.gateway.proceed(KEY, &proceeding(Capture::Take)).await.unwrap();
    assert_eq!((taken.status, taken.captured), (GatewayPaymentStatus::Captured, Decimal::new(10_000, 2)));
    assert_eq!(stage.lines(), [ORDER, TRIES, CAPTURE]);
    assert_eq!(stage.heard()[2].body, json!({ "amount": 10_000, "currency": "INR" }));
}

#[tokio::test]
async fn what_was_done_already_and_what_is_only_held_needs_no_call() {
    for (capture, status, expected) in [
        (Capture::Take, "captured", GatewayPaymentStatus::Captured),
        (Capture::Take, "failed", GatewayPaymentStatus::RequiresAction),
        (Capture::Hold, "authorized", GatewayPaymentStatus::Authorized),
        (Capture::Hold, "captured", GatewayPaymentStatus::Captured),
    ] {
        let stage = Stage::new(vec![Say(200, order("order_1", 1)), list(&[payment("pay_1", status, 0)])]).await;
        let standing = stage.gateway.proceed(KEY, &proceeding(capture)).await.unwrap();
        assert_eq!(standing.status, expected, "{capture:?} of {status}");
        assert_eq!(stage.lines(), [ORDER, TRIES]);
    }
}

#[tokio::test]
async fn of_two_captures_at_once_both_see_it_taken() {
    for words in
        ["This payment has already been captured", "Your payment has been declined as the order is already paid.", "no"]
    {
        let stage = Stage::new(vec![
            Say(200, order("order_1", 1)),
            list(&[payment("pay_1", "authorized", 0)]),
            no(400, words),
            Say(200, order("order_1", 1)),
            list(&[payment("pay_1", "captured", 0)]),
        ])
        .await;
        let taken = stage.gateway.proceed(KEY, &proceeding(Capture::Take)).await.unwrap();
        assert_eq!(
            (taken.status, taken.captured),
            (GatewayPaymentStatus::Captured, Decimal::new(10_000, 2)),
            "{words}"
        );
        assert_eq!(stage.lines(), [ORDER, TRIES, CAPTURE, ORDER, TRIES]);
    }
}

#[tokio::test]
async fn a_capture_that_was_refused_or_locked_or_lost_is_no_capture() {
    let authorized = || vec![Say(200, order("order_1", 1)), list(&[payment("pay_1", "authorized", 0)])];
    let refused = {
        let mut plays = authorized();
        plays.push(no(400, "Capture amount must be equal to the amount authorized."));
        plays.extend(authorized());
        Stage::new(plays).await.gateway.proceed(KEY, &proceeding(Capture::Take)).await
    };
    assert!(matches!(refused, Err(GatewayError::Refused { .. })), "{refused:?}");
    for (play, expected) in [
        (no(400, "Request failed because another payment operation is in progress."), "not now"),
        (Nothing, "unknown"),
        (no(502, "Bad gateway"), "unknown"),
    ] {
        let mut plays = authorized();
        plays.push(play);
        let heard = Stage::new(plays).await.gateway.proceed(KEY, &proceeding(Capture::Take)).await;
        let is_expected = match &heard {
            Err(GatewayError::NotNow { after_s, .. }) => expected == "not now" && *after_s > 0,
            Err(GatewayError::Unknown(_)) => expected == "unknown",
            _ => false,
        };
        assert!(is_expected, "{expected}: {heard:?}");
    }
    let gone = Stage::new(vec![no(400, "The id provided does not exist")]).await;
    let gone = gone.gateway.proceed(KEY, &proceeding(Capture::Take)).await;
    assert!(matches!(gone, Err(GatewayError::Refused { .. })), "{gone:?}");
}

#[tokio::test]
async fn to_close_is_never_to_capture() {
    for (tries, expected) in [
        (vec![], GatewayPaymentStatus::Closed),
        (vec![payment("pay_1", "failed", 0)], GatewayPaymentStatus::Closed),
        (vec![payment("pay_1", "created", 0)], GatewayPaymentStatus::Closed),
        (vec![payment("pay_1", "authorized", 0)], GatewayPaymentStatus::Closed),
        (vec![payment("pay_1", "captured", 0)], GatewayPaymentStatus::Captured),
    ] {
        let stage = Stage::new(vec![list(&[order("order_1", 1)]), list(&tries), list(&[]), list(&[])]).await;
        let closed = stage.gateway.close(KEY, &lookup(&["order_1"])).await.unwrap();
        let seen: Vec<_> = closed.iter().map(|one| (one.status, one.next_action.is_none())).collect();
        assert_eq!(seen, [(expected, true)], "{tries:?}");
        assert_eq!(stage.lines(), [by_receipt(1), TRIES.to_owned(), by_receipt(2), by_receipt(3)]);
    }
}

fn paid(refunded: i64) -> [Play; 2] {
    [Say(200, order("order_1", 1)), list(&[payment("pay_1", "captured", refunded)])]
}

#[tokio::test]
async fn a_refund_goes_back_from_the_try_that_was_taken() {
    let [order, tries] = paid(0);
    let sent = Say(200, refund_of("rfnd_1", Uuid::from_u128(1), 4_000, "pending"));
    let stage = Stage::new(vec![order, tries, list(&[]), sent]).await;
    let refund = stage.gateway.refund(KEY, &refund_order(1, 40)).await.unwrap();
    assert_eq!((refund.gateway_refund_id.as_str(), refund.status), ("rfnd_1", GatewayRefundStatus::Pending));
    assert_eq!(refund.amount, rupees(40));
    assert_eq!(stage.lines(), [ORDER, TRIES, REFUNDS, REFUND]);
    let heard = stage.heard().pop().unwrap();
    let refund_id = Uuid::from_u128(1).to_string();
    assert_eq!(
        heard.body,
        json!({ "amount": 4_000, "receipt": refund_id, "notes": { "order_id": RECEIPT, "refund_id": refund_id } })
    );
    let key = heard.idempotency.unwrap();
    assert!(key.len() >= 10 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{key}");
    assert_eq!(key, Uuid::new_v5(&KEY, b"pay_1").to_string());
}

#[tokio::test]
async fn of_two_equal_refunds_of_which_one_answer_was_lost_none_is_sent_twice() {
    let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let made = |receipt, id: &str| refund_of(id, receipt, 4_000, "processed");
    let mut plays = Vec::from(paid(0));
    plays.extend([list(&[]), Nothing]);
    plays.extend(paid(4_000));
    plays.extend([list(&[made(first, "rfnd_1")]), Say(200, made(second, "rfnd_2"))]);
    plays.extend(paid(8_000));
    plays.push(list(&[made(second, "rfnd_2"), made(first, "rfnd_1")]));
    let stage = Stage::new(plays).await;
    let lost = stage.gateway.refund(KEY, &refund_order(1, 40)).await;
    assert!(matches!(lost, Err(GatewayError::Unknown(_))), "{lost:?}");
    let other = stage.gateway.refund(Uuid::from_u128(43), &refund_order(2, 40)).await.unwrap();
    let again = stage.gateway.refund(KEY, &refund_order(1, 40)).await.unwrap();
    assert_eq!((other.gateway_refund_id.as_str(), again.gateway_refund_id.as_str()), ("rfnd_2", "rfnd_1"));
    let sent = stage.lines().into_iter().filter(|line| line == REFUND).count();
    assert_eq!(sent, 2, "one of each");
    let keys: Vec<_> = stage.heard().into_iter().filter_map(|heard| heard.idempotency).collect();
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_refund_that_is_refused_is_looked_for_first() {
    let ours = refund_of("rfnd_1", Uuid::from_u128(1), 4_000, "processed");
    let failed = refund_of("rfnd_1", Uuid::from_u128(1), 4_000, "failed");
    let others = refund_of("rfnd_9", Uuid::from_u128(9), 10_000, "processed");
    for (words, seen, expected) in [
        ("The payment has been fully refunded already.", vec![ours.clone()], "made"),
        ("The payment has been fully refunded already.", vec![others.clone()], "refused"),
        ("The refund amount provided is greater than amount captured.", vec![ours.clone()], "made"),
        ("The refund amount provided is greater than amount captured.", vec![], "refused"),
        ("Duplicate receipt found for this refund request.", vec![ours], "made"),
        ("Duplicate receipt found for this refund request.", vec![failed], "refused"),
        ("Duplicate receipt found for this refund request.", vec![], "unknown"),
        ("Refunds cannot be created on your account.", vec![], "refused"),
    ] {
        let mut plays = Vec::from(paid(0));
        plays.extend([list(&[]), no(400, words), list(&seen)]);
        let stage = Stage::new(plays).await;
        let heard = stage.gateway.refund(KEY, &refund_order(1, 40)).await;
        let class = match &heard {
            Ok(refund) if refund.gateway_refund_id == "rfnd_1" => "made",
            Err(GatewayError::Refused { .. }) => "refused",
            Err(GatewayError::Unknown(_)) => "unknown",
            _ => "something else",
        };
        assert_eq!(class, expected, "{words} {seen:?}: {heard:?}");
        assert_eq!(stage.lines(), [ORDER, TRIES, REFUNDS, REFUND, REFUNDS]);
    }
}

#[tokio::test]
async fn a_refund_under_way_is_unknown_and_one_without_money_waits() {
    for (play, expected) in [
        (no(409, "Request failed because another request is in progress with the same Idempotency Key"), "unknown"),
        (no(400, "Your account does not have enough balance to carry out the refund operation."), "not now"),
        (no(400, "Request failed because another payment operation is in progress."), "not now"),
        (Later(429, 3), "busy"),
        (no(500, "trouble"), "unknown"),
    ] {
        let mut plays = Vec::from(paid(0));
        plays.extend([list(&[]), play]);
        let stage = Stage::new(plays).await;
        let heard = stage.gateway.refund(KEY, &refund_order(1, 40)).await;
        let class = match &heard {
            Err(GatewayError::Unknown(_)) => "unknown",
            Err(GatewayError::NotNow { .. }) => "not now",
            Err(GatewayError::Busy { after_s: 3, .. }) => "busy",
            _ => "something else",
        };
        assert_eq!(class, expected, "{heard:?}");
        assert_eq!(stage.lines(), [ORDER, TRIES, REFUNDS, REFUND]);
    }
}

#[tokio::test]
async fn more_than_is_left_is_not_asked_for() {
    for tries in [vec![payment("pay_1", "captured", 7_000)], vec![payment("pay_1", "authorized", 0)], vec![]] {
        let is_taken = tries.iter().any(|one| one["status"] == "captured");
        let mut plays = vec![Say(200, order("order_1", 1)), list(&tries)];
        plays.extend(is_taken.then(|| list(&[])));
        let stage = Stage::new(plays).await;
        let heard = stage.gateway.refund(KEY, &refund_order(1, 40)).await;
        assert!(matches!(&heard, Err(GatewayError::Refused { code, .. }) if code == "exceeds-captured"), "{heard:?}");
        assert!(stage.lines().iter().all(|line| line.starts_with("GET")));
    }
}

#[tokio::test]
async fn an_order_that_was_paid_twice_goes_back_in_parts_each_once() {
    let refund_id = Uuid::from_u128(1);
    let twice = |first: i64, second: i64| {
        [
            Say(200, order("order_1", 1)),
            list(&[payment("pay_1", "captured", first), payment("pay_2", "captured", second)]),
        ]
    };
    let part = |id: &str| refund_of(id, refund_id, 10_000, "processed");
    let mut plays = Vec::from(twice(0, 0));
    plays.extend([list(&[]), list(&[]), Say(200, part("rfnd_1")), Nothing]);
    plays.extend(twice(10_000, 0));
    plays.extend([list(&[part("rfnd_1")]), list(&[]), Say(200, part("rfnd_2"))]);
    let stage = Stage::new(plays).await;
    let lost = stage.gateway.refund(KEY, &refund_order(1, 200)).await;
    assert!(matches!(lost, Err(GatewayError::Unknown(_))), "{lost:?}");
    let refund = stage.gateway.refund(KEY, &refund_order(1, 200)).await.unwrap();
    assert_eq!((refund.gateway_refund_id.as_str(), refund.amount), ("rfnd_1", rupees(200)));
    let posts: Vec<_> = stage.heard().into_iter().filter(|heard| heard.line.starts_with("POST")).collect();
    let lines: Vec<_> = posts.iter().map(|heard| heard.line.as_str()).collect();
    assert_eq!(lines, [REFUND, "POST /v1/payments/pay_2/refund", "POST /v1/payments/pay_2/refund"]);
    assert_eq!(posts[1], posts[2], "the second part is repeated under the same key");
    assert_ne!(posts[0].idempotency, posts[1].idempotency);
    assert_eq!(stage.lines().len(), 11);
}

#[tokio::test]
async fn a_refund_that_has_failed_may_be_sent_again() {
    let failed = refund_of("rfnd_1", Uuid::from_u128(1), 4_000, "failed");
    let mut plays = Vec::from(paid(0));
    plays.push(list(std::slice::from_ref(&failed)));
    plays.extend(paid(0));
    plays.extend([list(&[failed]), Say(200, refund_of("rfnd_2", Uuid::from_u128(1), 4_000, "processed"))]);
    let stage = Stage::new(plays).await;
    let found = stage.gateway.find_refund(&refund_order(1, 40)).await.unwrap().unwrap();
    assert_eq!((found.gateway_refund_id.as_str(), found.status), ("rfnd_1", GatewayRefundStatus::Failed));
    let again = stage.gateway.refund(KEY, &refund_order(1, 40)).await.unwrap();
    assert_eq!((again.gateway_refund_id.as_str(), again.status), ("rfnd_2", GatewayRefundStatus::Succeeded));
    assert_eq!(stage.lines().len(), 7);
}

#[tokio::test]
async fn a_refund_is_found_by_its_receipt_on_any_page() {
    let others: Vec<Value> = (0..PAGE)
        .map(|at| refund_of(&format!("rfnd_{at}"), Uuid::from_u128(1_000 + at as u128), 10, "processed"))
        .collect();
    let mut plays = Vec::from(paid(5_000));
    plays.extend([list(&others), list(&[refund_of("rfnd_x", Uuid::from_u128(1), 4_000, "processed")])]);
    let stage = Stage::new(plays).await;
    let found = stage.gateway.find_refund(&refund_order(1, 40)).await.unwrap().unwrap();
    assert_eq!((found.gateway_refund_id.as_str(), found.status), ("rfnd_x", GatewayRefundStatus::Succeeded));
    assert_eq!(stage.lines(), [ORDER, TRIES, REFUNDS, "GET /v1/payments/pay_1/refunds?count=100&skip=100"]);
}

#[tokio::test]
async fn a_refund_that_was_never_made_is_not_found() {
    let [order, tries] = paid(0);
    let stage = Stage::new(vec![order, tries, list(&[])]).await;
    assert_eq!(stage.gateway.find_refund(&refund_order(1, 40)).await, Ok(None));
    let stage = Stage::new(vec![no(400, "The id provided does not exist")]).await;
    assert_eq!(stage.gateway.find_refund(&refund_order(1, 40)).await, Ok(None));
}

fn window() -> Window {
    let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
    Window { from: at(1_800_000_000_500), until: at(1_800_000_060_500) }
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let all: Vec<Value> = (0..=PAGE)
        .map(|at| {
            let mut payment = payment(&format!("pay_{at}"), if at == PAGE { "captured" } else { "failed" }, 0);
            payment["order_id"] = json!(format!("order_{}", at / 2));
            payment
        })
        .collect();
    let (first, second) = all.split_at(PAGE);
    let stage = Stage::new(vec![list(first), list(second)]).await;
    let one = stage.gateway.list(window(), None).await.unwrap();
    let two = stage.gateway.list(window(), one.next.as_deref()).await.unwrap();
    assert_eq!((one.payments.len(), two.payments.len(), two.next), (PAGE / 2, 1, None));
    assert!(one.payments.iter().all(ListedPayment::took_nothing));
    assert_eq!(
        (two.payments[0].gateway_payment_id.as_str(), &two.payments[0].captured),
        ("order_50", &Some(rupees(100)))
    );
    let page = "GET /v1/payments?from=1799999999&to=1800000061&count=100&skip=";
    assert_eq!(stage.lines(), [format!("{page}0"), format!("{page}100")]);
}

#[tokio::test]
async fn a_page_that_nobody_named_is_refused() {
    let stage = Stage::new(Vec::new()).await;
    let refused = stage.gateway.list(window(), Some("pay_1")).await;
    assert!(matches!(refused, Err(GatewayError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_webhook_is_believed_by_its_signature_only() {
    let stage = Stage::new(Vec::new()).await;
    let body = br#"{"event":"payment.failed","payload":{},"created_at":1800000000}"#;
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let signed = |signature: &str| vec![("x-razorpay-signature".to_owned(), signature.to_owned())];
    let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(b"webhook").unwrap();
    hmac::Mac::update(&mut mac, body);
    let signature = hex::encode(hmac::Mac::finalize(mac).into_bytes());
    let heard = stage.gateway.verify_webhook(&signed(&signature), body, now).await;
    assert!(matches!(heard, Ok(Webhook::Event(_))), "{heard:?}");
    let late = now + chrono::TimeDelta::days(9);
    assert_eq!(stage.gateway.verify_webhook(&signed(&signature), body, late).await, Err(WebhookError::TooOld));
    assert_eq!(stage.gateway.verify_webhook(&signed("00"), body, late).await, Err(WebhookError::BadSignature));
}

#[test]
fn a_gateway_needs_an_address_and_a_webhook_secret() {
    let made = |url: &str, secrets: Vec<SecretString>| {
        RazorpayGateway::new(url, "rzp_key".to_owned(), "rzp_secret".into(), secrets, CLIENT.clone())
    };
    assert!(made("https://gateway.example", vec!["a".into(), "b".into()]).is_ok());
    assert!(matches!(made("gateway", vec!["a".into()]), Err(ConfigError::Url(_))));
    assert!(matches!(made("mailto:a@b.c", vec!["a".into()]), Err(ConfigError::NotHttp)));
    assert!(matches!(made("https://gateway.example", Vec::new()), Err(ConfigError::WebhookSecret)));
    assert!(matches!(made("https://gateway.example", vec!["".into()]), Err(ConfigError::WebhookSecret)));
}
