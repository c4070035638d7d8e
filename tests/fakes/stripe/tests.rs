use super::*;
use crate::contract::Place;

fn place(method: &'static str, path: &'static str) -> Place {
    Place { method, path }
}

fn call(operation: Place, text: &str) -> (Call, Vec<Flaw>) {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let headers = headers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    let mut call = Call {
        path: operation.path.to_owned(),
        query: if operation.method == "GET" { text.to_owned() } else { String::new() },
        headers: headers.into_iter().collect(),
        raw: if operation.method == "GET" { Vec::new().into() } else { text.as_bytes().to_vec().into() },
        parts: Vec::new(),
        parameters: Value::Null,
        body: Value::Null,
        key: None,
    };
    let flaws = Stripe::contract().expect("a contract").read(operation, &mut call);
    (call, flaws)
}

#[test]
fn planted_errors_of_a_form_are_named() {
    let table = [
        ("amount=100&currency=usd&confirm=true&metadata[order_id]=1&payment_method_types[]=card", None),
        ("amount=1.5&currency=usd", Some((FlawKind::Other, "/amount"))),
        ("amount=100&currency=usd&confirm=yes", Some((FlawKind::Other, "/confirm"))),
        ("amount=100&currency=usd&capture_method=later", Some((FlawKind::Value, "/capture_method"))),
        ("amount=100", Some((FlawKind::Missing, "/currency"))),
        ("amount=100&currency=usd&order=1", Some((FlawKind::Unknown, "/order"))),
        ("amount=100&currency=usd&metadata=1", Some((FlawKind::Other, "/metadata"))),
    ];
    for (text, expected) in table {
        let flaws = call(place("POST", "/v1/payment_intents"), text).1;
        let first = flaws.first().map(|flaw| (flaw.kind, flaw.at.as_str()));
        assert_eq!(first, expected, "{text}: {flaws:?}");
    }
}

#[test]
fn planted_errors_of_a_query_are_named() {
    let list = place("GET", "/v1/payment_intents");
    let (read, flaws) = call(list, "created[gte]=7&limit=100&expand[]=data.latest_charge");
    assert_eq!((read.parameter("/created/gte"), flaws), (Some(7), Vec::new()));
    for (text, at) in [("limit=many", "/limit"), ("customer_id=1", "/customer_id")] {
        let flaws = call(list, text).1;
        assert_eq!(flaws.first().map(|flaw| flaw.at.as_str()), Some(at), "{flaws:?}");
    }
}

#[test]
fn planted_errors_of_an_answer_are_named() {
    let contract = Stripe::contract().expect("a contract");
    let create = place("POST", "/v1/payment_intents");
    let judge = |reply: &Reply| {
        let flaws = contract.judge(create, reply);
        flaws.first().map(|flaw| flaw.at.clone())
    };
    assert_eq!(judge(&error(402, "card_error", Some("card_declined"), "no", json!({}))), None);
    assert_eq!(judge(&error(402, "bank_error", None, "no", json!({}))).as_deref(), Some("/error/type"));
    assert_eq!(judge(&Reply::new(200, json!({ "id": "pi_1" }))).as_deref(), Some("/amount"));
    assert_eq!(judge(&Reply::empty(200)).as_deref(), Some(""));
}

#[test]
fn signatures_are_those_of_the_official_sdk() {
    let vectors = signing::vectors();
    let (secret, case) = (vectors["stripe"]["secret"].as_str().expect("a secret"), &vectors["stripe"]["cases"][0]);
    let mut message = Message::new("evt_1".to_owned(), "", Value::Null, Vec::new());
    case["body"].as_str().expect("a body").clone_into(&mut message.text);
    let at = DateTime::from_timestamp(case["receivedAt"].as_i64().expect("a time"), 0).expect("a time");
    assert_eq!(
        Stripe::sign(secret, &message, at),
        [("stripe-signature", case["header"].as_str().expect("it").to_owned())]
    );
}

#[test]
fn what_an_endpoint_answered_is_kept_and_what_was_refused_before_is_not() {
    let table = [
        (Reply::new(200, json!({})), true),
        (error(402, "card_error", None, "no", json!({})), true),
        (Stripe::refuse(None, Refusal::ServerError), true),
        (Stripe::refuse(None, Refusal::NoBalance), true),
        (invalid(None, "no", "amount").unbegun(), false),
        (Stripe::refuse(None, Refusal::RateLimited), false),
        (Stripe::refuse(None, Refusal::InFlight), false),
        (Stripe::refuse(None, Refusal::WrongCredentials), false),
    ];
    for (reply, keeps) in table {
        assert_eq!(Stripe::keeps(&reply), keeps, "{reply:?}");
    }
}
