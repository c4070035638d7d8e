//! Rules and reviews as staff and admins come to them.

use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use workflows::fraud::ScreenOrder;

use super::{screen, stranger};
use crate::server::{Answer, Server, Shopper};

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
