//! Rules and reviews as staff and admins come to them, and as little of them as shoppers are told.

use chrono::{TimeDelta, Utc};
use domain::fraud::{By, Kind};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;
use workflows::fraud::ScreenOrder;

use super::{rule, screen, set_rules, stranger};
use crate::{
    patience::{in_time, until},
    server::{Answer, Checkout, Server, Shopper, payment},
};

async fn put(admin: &Shopper, rules: &Value) -> Answer {
    Answer::to(admin.request(Method::PUT, "/api/fraud/rules").json(rules)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_admin_has_read_can_be_written_again_once() {
    let server = Server::open_idle().await;
    let admin = server.admin().await;
    let read = admin.get("/api/fraud/rules").await;
    assert_eq!(read.header("etag"), Some("\"1\""));
    let mut rules = read.ok();
    assert_eq!(rules["version"], 1);
    let written = put(&admin, &rules).await;
    assert_eq!(written.header("etag"), Some("\"2\""));
    let written = written.ok();
    assert_eq!((&written["version"], &written["rules"]), (&json!(2), &rules["rules"]));
    assert_eq!(put(&admin, &rules).await.refused(409, "fraud-rules-changed")["version"], 2);
    assert_eq!(admin.get("/api/fraud/rules").await.ok(), written);

    rules["version"] = json!(2);
    rules["reason"] = json!("a quiet day");
    let stale = admin.request(Method::PUT, "/api/fraud/rules").header("if-match", "\"1\"").json(&rules);
    Answer::to(stale).await.refused(412, "precondition-failed");
    put(&admin, &rules).await.ok();
    let acts = server.acts().await;
    let of = |version: i32, reason: Option<&str>| {
        ("fraud.rules.replace".to_owned(), format!("fraud-rules:{version}"), reason.map(str::to_owned))
    };
    assert_eq!(acts, [of(2, None), of(3, Some("a quiet day"))]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_rules_is_said_with_its_place() {
    let server = Server::open_idle().await;
    let admin = server.admin().await;
    let rules = admin.get("/api/fraud/rules").await.ok();
    for (place, value) in [
        ("/reviewAt", json!(101)),
        ("/denyAt", json!(0)),
        ("/reviewDeadlineS", json!(1)),
        ("/rules/1/name", rules["rules"][0]["name"].clone()),
        ("/rules/0/kind", json!("GUESS")),
        ("/rules/0/points", json!(0)),
        ("/rules/0/parameters/limit", json!(0)),
        ("/rules/0/parameters", json!({ "by": "ACCOUNT" })),
    ] {
        let mut wrong = rules.clone();
        *wrong.pointer_mut(place).expect("a place") = value;
        let refused = put(&admin, &wrong).await.refused(422, "validation-failed");
        let errors = refused["errors"].as_array().expect("places");
        assert!(errors.iter().any(|error| error["pointer"] == place), "{place}: {refused}");
    }
    assert_eq!(admin.get("/api/fraud/rules").await.ok()["version"], 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_rules_are_tried_on_past_checkouts() {
    let server = Server::open_idle().await;
    let admin = server.admin().await;
    let checkout = ScreenOrder { billing_country: "France".to_owned(), ..stranger() };
    screen(&server.pool, &[checkout.clone(), stranger()], Utc::now()).await;
    let mut rules = admin.get("/api/fraud/rules").await.ok();
    let fields = rules.as_object_mut().expect("rules");
    let time = |time: chrono::DateTime<Utc>| json!(time.to_rfc3339());
    fields.insert("from".to_owned(), time(Utc::now() - TimeDelta::hours(1)));
    fields.insert("to".to_owned(), time(Utc::now() + TimeDelta::hours(1)));
    let same = admin.post("/api/fraud/rules/dry-run", &rules).await.ok();
    assert_eq!(same, json!({ "orders": 2, "allow": 2, "review": 0, "deny": 0, "changed": [], "truncated": false }));
    rules["reviewAt"] = json!(20);
    let stricter = admin.post("/api/fraud/rules/dry-run", &rules).await.ok();
    let changed = json!([{ "orderId": checkout.order_id, "was": "ALLOW", "now": "REVIEW" }]);
    assert_eq!((&stricter["review"], &stricter["changed"]), (&json!(1), &changed));
    rules["to"] = rules["from"].clone();
    admin.post("/api/fraud/rules/dry-run", &rules).await.refused(422, "validation-failed");
    assert!(server.acts().await.is_empty(), "nothing has changed");
    server.stop().await;
}

/// Of [`super::rule_set`].
const DEADLINE_S: u64 = 3_600;
/// How a checkout fails that is denied, or that the staff do not want.
const REFUSAL: &str = r#"{"code":"fraud-denied","detail":"this order cannot be accepted"}"#;

/// From now on whoever is billed in another country than the parcel goes to waits for the staff.
async fn look_at_those_billed_abroad(server: &Server) {
    set_rules(&server.pool, vec![rule("hush-abroad", Kind::CountryMismatch, 60, json!({}))]).await;
}

fn billed_abroad() -> Value {
    let mut request = payment("tok_ok");
    request["billingAddress"] = request["shippingAddress"].clone();
    request["billingAddress"]["country"] = json!("France");
    request
}

/// A laptop whose money is set aside until somebody has looked.
async fn doubtful(server: &Server, shopper: &Shopper) -> Checkout {
    shopper.add("LAP-001", 1).await;
    let checkout = Checkout::of(shopper.ask(&billed_abroad()).await);
    let view = shopper.wait(&checkout).await;
    assert_eq!((&view["status"], &view["delayed"]), (&json!("WAITING_PAYMENT"), &json!(true)), "{view}");
    let aside = [("AUTHORIZED".to_owned(), "0.00".to_owned(), "0.00".to_owned())];
    assert_eq!(server.charges(&checkout.order_id).await, aside);
    checkout
}

async fn decide(staff: &Shopper, checkout: &Checkout, decision: &str) -> Answer {
    let path = format!("/api/orders/{}/review", checkout.order_id);
    staff.post(&path, &json!({ "decision": decision, "reason": "hush: he knows why" })).await
}

/// All of it was bought, or nothing has happened.
async fn assert_whole(server: &Server, shopper: &Shopper, checkout: &Checkout, is_sold: bool) {
    let view = shopper.end(checkout).await;
    let order = shopper.order(checkout).await;
    if is_sold {
        assert_eq!((&view["status"], &order["status"]), (&json!("COMPLETED"), &json!("CONFIRMED")), "{view}");
        let paid = [("CAPTURED".to_owned(), "59050.00".to_owned(), "0.00".to_owned())];
        assert_eq!(server.charges(&checkout.order_id).await, paid);
    } else {
        assert_eq!((&view["status"], &order["status"]), (&json!("FAILED"), &json!("CANCELLED")), "{view}");
        assert_eq!(view["failure"].to_string(), REFUSAL);
        until("the money is let go", async || {
            let charges = server.charges(&checkout.order_id).await;
            let let_go = [("CLOSED".to_owned(), "0.00".to_owned(), "0.00".to_owned())];
            if charges == let_go { Ok(()) } else { Err(format!("{charges:?}")) }
        })
        .await;
    }
    assert_told_nothing(shopper, checkout).await;
}

/// Whatever the shop lets this shopper read says neither which rules held, nor what the staff think.
async fn assert_told_nothing(shopper: &Shopper, checkout: &Checkout) {
    let order = format!("/api/orders/{}", checkout.order_id);
    let (history, mails) = (format!("{order}/history"), format!("/api/dev/mailbox?to={}", shopper.email));
    let mut told = String::new();
    for path in [&*checkout.path(), &*order, &*history, "/api/orders", "/api/cart", &*mails] {
        told += &shopper.get(path).await.body.to_string().to_lowercase();
    }
    for secret in ["hush", "velocity", "points", "score", "reasons", "rule", "203.0.113", "deadline"] {
        assert!(!told.contains(secret), "{secret}: {told}");
    }
    shopper.get("/api/events").await.refused(403, "forbidden");
    shopper.get("/api/fraud/reviews").await.refused(403, "forbidden");
    decide(shopper, checkout, "APPROVE").await.refused(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_decide_at_once_one_is_heard_and_the_money_follows() {
    let server = Server::open().await;
    look_at_those_billed_abroad(&server).await;
    let (staff, admin) = (server.staff().await, server.admin().await);
    let (mut sold, crowd) = (0, server.crowd(8).await);
    for (round, shopper) in crowd.iter().enumerate() {
        let checkout = doubtful(&server, shopper).await;
        assert_told_nothing(shopper, &checkout).await;
        let (yes, no) = if round % 2 == 0 { (&staff, &admin) } else { (&admin, &staff) };
        let (yes, no) = tokio::join!(decide(yes, &checkout, "APPROVE"), decide(no, &checkout, "REJECT"));
        let is_sold = yes.status == 202;
        let (heard, other) = if is_sold { (yes, no) } else { (no, yes) };
        assert_eq!(heard.status, 202, "{}", heard.body);
        let status = if is_sold { "APPROVED" } else { "REJECTED" };
        assert_eq!(other.refused(409, "review-ended")["reviewStatus"], status);
        assert_whole(&server, shopper, &checkout, is_sold).await;
        for decision in ["APPROVE", "REJECT"] {
            assert_eq!(decide(&staff, &checkout, decision).await.refused(409, "review-ended")["reviewStatus"], status);
        }
        sold += i64::from(is_sold);
    }
    assert_eq!(server.stock("LAP-001").await, (100 - sold, 0));
    assert_eq!(server.acts().await.len(), crowd.len(), "one line for each order");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_comes_too_late_changes_nothing() {
    let mut server = Server::open_idle().await;
    look_at_those_billed_abroad(&server).await;
    let staff = server.staff().await;
    server.start_worker();
    server.start_scheduler();
    let shopper = server.shopper("asha").await;
    let checkout = doubtful(&server, &shopper).await;
    assert_eq!(server.stock("LAP-001").await, (99, 1));
    server.advance(DEADLINE_S + 1).await;
    assert_whole(&server, &shopper, &checkout, false).await;
    assert_eq!(decide(&staff, &checkout, "APPROVE").await.refused(409, "review-ended")["reviewStatus"], "EXPIRED");
    assert_whole(&server, &shopper, &checkout, false).await;
    assert_eq!(server.stock("LAP-001").await, (100, 0));
    assert!(server.acts().await.is_empty());
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_at_its_very_deadline_is_heard_or_refused_and_the_order_is_whole() {
    let server = Server::open().await;
    look_at_those_billed_abroad(&server).await;
    let (staff, mut sold) = (server.staff().await, 0);
    for (round, shopper) in server.crowd(10).await.iter().enumerate() {
        let checkout = doubtful(&server, shopper).await;
        let word = async {
            // Now sooner and now later, beside the same moment.
            for _ in 0..round % 3 {
                staff.get("/api/fraud/reviews").await.ok();
            }
            decide(&staff, &checkout, "APPROVE").await
        };
        let (answer, ()) = tokio::join!(word, server.advance(DEADLINE_S));
        let is_sold = answer.status == 202;
        if !is_sold {
            // Its checkout may be looking at the clock at this moment.
            let code = answer.body["code"].as_str().unwrap_or_default().to_owned();
            assert!(["review-ended", "order-not-under-review"].contains(&&*code), "{}", answer.body);
        }
        assert_whole(&server, shopper, &checkout, is_sold).await;
        sold += i64::from(is_sold);
    }
    assert_eq!(server.stock("LAP-001").await, (100 - sold, 0));
    server.close().await;
}

/// Where this shopper's requests come from, as our proxy says; what stands before it, anybody may have written.
struct Seen<'a> {
    shopper: &'a Shopper,
    from: String,
}

impl Seen<'_> {
    /// Checks out. On a busy machine some wait for the others for longer than the shop lets them: those click again.
    async fn check_out(&self, request: &Value) -> Checkout {
        let key = Uuid::now_v7().to_string();
        in_time("a checkout is accepted", async {
            loop {
                let asked = self.shopper.request(Method::POST, "/api/checkout").header("idempotency-key", &key);
                let answer = Answer::to(asked.header("x-forwarded-for", &self.from).json(request)).await;
                if answer.status != 503 {
                    return Checkout::of(answer);
                }
            }
        })
        .await
    }
}

/// How the n-th of a crowd asks that has one thing in common, and nothing else that can differ.
fn request(by: By, number: usize) -> (Value, String) {
    let mut request = payment("tok_ok");
    if by != By::Address {
        request["shippingAddress"]["addressLine1"] = json!(format!("{number} Marine Drive"));
    }
    let from = if by == By::Network {
        format!("192.0.2.{number}, 203.0.113.{number}")
    } else {
        format!("203.0.113.7, 10.{number}.0.1")
    };
    (request, from)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_at_once_as_many_are_let_through_as_the_rule_says() {
    const LIMIT: usize = 20;
    let mut server = Server::open().await;
    let door = server.behind_a_proxy().await;
    let sku = &server.add_variants(1).await[0];
    let mut sold = 0;
    // What is denied, and what is looked at.
    for (by, points) in [(By::Address, 100), (By::Network, 100), (By::Token, 60)] {
        let parameters = json!({ "by": by, "limit": LIMIT, "windowS": 3_600 });
        set_rules(&server.pool, vec![rule("hush-fast", Kind::Velocity, points, parameters)]).await;
        let crowd: Vec<Shopper> = server.crowd(200).await.iter().map(|shopper| shopper.at(&door)).collect();
        join_all(crowd.iter().map(|shopper| shopper.add(sku, 1))).await;
        let rush = crowd.iter().enumerate().map(async |(number, shopper)| {
            let (request, from) = request(by, number);
            let checkout = Seen { shopper, from }.check_out(&request).await;
            (shopper, checkout.clone(), shopper.wait(&checkout).await)
        });
        let (fine, others): (Vec<_>, Vec<_>) =
            join_all(rush).await.into_iter().partition(|(_, _, view)| view["status"] == "COMPLETED");
        assert_eq!((fine.len(), others.len()), (LIMIT, 200 - LIMIT), "{by:?}");
        sold += LIMIT;
        if points == 60 {
            assert!(others.iter().all(|(_, _, view)| view["delayed"] == true));
            let held = i64::try_from(others.len()).expect("few");
            assert_eq!(server.stock(sku).await.1, held);
            assert_told_nothing(others[0].0, &others[0].1).await;
            server.advance(DEADLINE_S + 1).await;
        }
        for (shopper, checkout, _) in &others {
            let view = shopper.end(checkout).await;
            assert_eq!((view["status"].as_str(), view["failure"].to_string()), (Some("FAILED"), REFUSAL.to_owned()));
        }
        for (shopper, checkout, _) in &others[..10] {
            assert_told_nothing(shopper, checkout).await;
            let order = shopper.get(&format!("/api/orders/{}", checkout.order_id)).await;
            if points == 60 {
                assert_eq!(order.ok()["status"], "CANCELLED");
            } else {
                order.refused(404, "order-not-found");
            }
        }
        let left = 5_000 - i64::try_from(sold).expect("few");
        until("what was held is let go", async || {
            let stock = server.stock(sku).await;
            if stock == (left, 0) { Ok(()) } else { Err(format!("{by:?}: {stock:?}, not {left}")) }
        })
        .await;
    }
    server.close().await;
}

/// An account has one cart, so it checks out once at a time.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_checks_out_too_often_is_let_through_as_often_as_the_rule_says() {
    let server = Server::open().await;
    let parameters = json!({ "by": By::Account, "limit": 5, "windowS": 3_600 });
    set_rules(&server.pool, vec![rule("hush-fast", Kind::Velocity, 100, parameters)]).await;
    let (asha, ben) = (server.shopper("asha").await, server.shopper("ben").await);
    let mut got = Vec::new();
    for _ in 0..12 {
        if asha.cart().await["items"].as_array().is_none_or(Vec::is_empty) {
            asha.add("LAP-001", 1).await;
        }
        // As often as anybody may click: it is one checkout.
        let request = payment("tok_ok");
        let clicks = join_all((0..10).map(|_| asha.ask(&request))).await;
        let taken = clicks.into_iter().find(|answer| answer.status == 202).expect("one is taken");
        let checkout = Checkout::of(taken);
        got.push(asha.end(&checkout).await["status"].clone());
        assert_told_nothing(&asha, &checkout).await;
    }
    assert_eq!(got, [vec!["COMPLETED"; 5], vec!["FAILED"; 7]].concat());
    ben.add("LAP-001", 1).await;
    let checkout = ben.checkout("tok_ok").await;
    assert_eq!(ben.end(&checkout).await["status"], "COMPLETED");
    assert_eq!(server.stock("LAP-001").await, (94, 0));
    server.close().await;
}
