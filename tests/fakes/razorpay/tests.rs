use super::*;
use crate::contract::Place;

fn read(operation: Place, key: &str, text: &str) -> Vec<Flaw> {
    let headers = [("content-type", "application/json"), ("x-refund-idempotency", key)];
    let headers = headers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    let mut call = Call {
        path: operation.path.to_owned(),
        query: String::new(),
        headers: headers.into_iter().collect(),
        raw: text.as_bytes().to_vec().into(),
        parts: Vec::new(),
        parameters: Value::Null,
        body: Value::Null,
        key: None,
    };
    Razorpay::contract().expect("a contract").read(operation, &mut call)
}

#[test]
fn planted_errors_of_a_body_are_named() {
    let order = Place { method: "POST", path: "/v1/orders" };
    let long = format!(r#"{{"amount":100,"currency":"INR","receipt":"{}"}}"#, "x".repeat(41));
    let table = [
        (r#"{"amount":100,"currency":"INR","receipt":"r","payment":{"capture":"manual"}}"#, None),
        (r#"{"amount":"100","currency":"INR"}"#, Some((FlawKind::Other, "/amount"))),
        (r#"{"amount":100}"#, Some((FlawKind::Missing, "/currency"))),
        (r#"{"amount":100,"currency":"INR","unique_receipt":true}"#, Some((FlawKind::Unknown, "/unique_receipt"))),
        (
            r#"{"amount":100,"currency":"INR","payment":{"capture":"later"}}"#,
            Some((FlawKind::Value, "/payment/capture")),
        ),
        (long.as_str(), Some((FlawKind::Length, "/receipt"))),
        ("amount=100", Some((FlawKind::Other, ""))),
        ("", Some((FlawKind::Missing, "/amount"))),
    ];
    for (text, expected) in table {
        let flaws = read(order, "0123456789", text);
        assert_eq!(flaws.first().map(|flaw| (flaw.kind, flaw.at.as_str())), expected, "{text}: {flaws:?}");
    }
}

#[test]
fn a_refunds_key_has_ten_letters_at_least() {
    let refund = Place { method: "POST", path: "/v1/payments/{payment}/refund" };
    for (key, is_right) in [("0190c7b4-9a", true), ("short", false), ("not a key at all", false)] {
        assert_eq!(read(refund, key, "{}").is_empty(), is_right, "{key}");
    }
}

#[test]
fn signatures_are_those_of_the_official_sdk() {
    let vectors = signing::vectors();
    let (secret, case) = (vectors["razorpay"]["secret"].as_str().expect("a secret"), &vectors["razorpay"]["cases"][0]);
    let mut message = Message::new("evt".to_owned(), "", Value::Null, Vec::new());
    case["body"].as_str().expect("a body").clone_into(&mut message.text);
    let headers = Razorpay::sign(secret, &message, DateTime::UNIX_EPOCH);
    assert_eq!(headers[0], ("x-razorpay-signature", case["signature"].as_str().expect("it").to_owned()));
}

#[test]
fn only_what_was_done_is_kept_under_a_key() {
    assert!(Razorpay::keeps(&Reply::new(200, json!({}))));
    assert!(!Razorpay::keeps(&bad("no")));
    assert!(!Razorpay::keeps(&Razorpay::refuse(None, Refusal::ServerError)));
}
