//! One rule for every text, at every door: no card number, nothing that controls what shows it, and an end.
//! The doors are read from the OpenAPI document, so that a new field is tried the day it is written.

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::server::{Answer, Server, Shopper};

/// Fields that may look like a card number: they are hashed, and never shown.
const SECRETS: [&str; 2] = ["/password", "/refreshToken"];

/// A text of a request's body.
struct Field {
    method: Method,
    path: String,
    pointer: String,
    /// As the document says; every text has an end beyond that.
    longest: Option<u64>,
}

/// Every text of every JSON body.
fn fields(document: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let method: Method = method.to_uppercase().parse().expect("a method");
            walk(document, schema, "", 0, &mut |pointer, schema| {
                fields.push(Field {
                    method: method.clone(),
                    path: filled(path),
                    pointer: pointer.to_owned(),
                    longest: schema["maxLength"].as_u64(),
                });
            });
        }
    }
    fields
}

/// The path with something in each of its places.
fn filled(path: &str) -> String {
    let place = |part: &str| if part.starts_with('{') { Uuid::now_v7().to_string() } else { part.to_owned() };
    path.split('/').map(place).collect::<Vec<_>>().join("/")
}

/// Calls `text` for each text below a schema; the first item stands for a list.
fn walk(document: &Value, schema: &Value, pointer: &str, depth: usize, text: &mut impl FnMut(&str, &Value)) {
    if depth > 8 {
        return;
    }
    if let Some(name) = schema["$ref"].as_str() {
        let named = document.pointer(name.trim_start_matches('#')).expect("what is referred to");
        return walk(document, named, pointer, depth + 1, text);
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        for schema in schema[choice].as_array().into_iter().flatten() {
            walk(document, schema, pointer, depth + 1, text);
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(document, property, &format!("{pointer}/{name}"), depth + 1, text);
    }
    if schema["items"].is_object() {
        walk(document, &schema["items"], &format!("{pointer}/0"), depth + 1, text);
    }
    let is_text =
        schema["type"] == "string" || schema["type"].as_array().is_some_and(|types| types.contains(&json!("string")));
    if is_text {
        text(pointer, schema);
    }
}

/// A body with nothing in it but this, where the pointer says.
fn body(pointer: &str, value: &str) -> Value {
    pointer.rsplit('/').filter(|part| !part.is_empty()).fold(json!(value), |inner, part| {
        if part == "0" { json!([inner]) } else { Value::Object(Map::from_iter([(part.to_owned(), inner)])) }
    })
}

async fn sent(admin: &Shopper, field: &Field, value: &str) -> Answer {
    let request = admin.request(field.method.clone(), &field.path);
    Answer::to(request.header("idempotency-key", Uuid::now_v7().to_string()).json(&body(&field.pointer, value))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_any_body_takes_a_card_number_a_control_character_or_a_novel() {
    let server = Server::open_idle().await;
    let admin = server.admin().await;
    let document = admin.get("/api/openapi.json").await.ok();
    let fields = fields(&document);
    assert!(fields.len() > 60, "only {} texts were found", fields.len());
    let mut wrong = Vec::new();
    for field in &fields {
        let place = format!("{} {} {}", field.method, field.path, field.pointer);
        let is_secret = SECRETS.contains(&field.pointer.as_str());
        let card = sent(&admin, field, "4111 1111 1111 1111").await;
        let is_refused = (card.status, card.body["code"].as_str()) == (422, Some("card-data-refused"));
        if is_refused == is_secret || card.body.to_string().contains("4111") {
            wrong.push(format!("{place}: a card number: {} {}", card.status, card.body));
        }
        for value in ["a\u{0}", "\u{1b}[2J", "\u{202e}gpj.exe", &"x".repeat(5_001)] {
            let answer = sent(&admin, field, value).await;
            let told = (answer.status, &answer.body["code"], &answer.body["errors"][0]["pointer"]);
            if told != (422, &json!("validation-failed"), &json!(field.pointer)) {
                wrong.push(format!("{place}: {:?}: {} {}", value.chars().next(), answer.status, answer.body));
            }
        }
        match field.longest {
            Some(longest @ 1..=5_000) => {
                let answer = sent(&admin, field, &"x".repeat(usize::try_from(longest).expect("a length") + 1)).await;
                if !StatusCode::from_u16(answer.status).is_ok_and(|status| status.is_client_error()) {
                    wrong.push(format!("{place}: longer than {longest}: {} {}", answer.status, answer.body));
                }
            }
            Some(longest) => wrong.push(format!("{place}: may have {longest} characters")),
            None => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), fields.len(), wrong.join("\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_number_comes_in_by_no_other_door_either() {
    let server = Server::open_idle().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let card = "4111-1111-1111-1111";
    for path in
        ["/api/orders?number=", "/api/users?email=", "/api/products?cursor=", "/api/inventory/check?quantity=1&sku="]
    {
        staff.get(&format!("{path}{card}")).await.refused(422, "card-data-refused");
        staff.get(&format!("{path}a%00b")).await.refused(422, "validation-failed");
        staff.get(&format!("{path}a%1Bb")).await.refused(422, "validation-failed");
    }
    let line = json!({ "variantId": "LAP-001", "quantity": 1 });
    asha.post_under("4111111111111111", "/api/cart/items", &line).await.refused(422, "card-data-refused");
    let request = asha.request(Method::GET, "/api/cart").header("x-request-id", "4111111111111111");
    let answer = Answer::to(request).await;
    assert_ne!(answer.header("x-request-id"), Some("4111111111111111"));
    let address = json!({
        "recipientName": card, "addressLine1": "1 Marine Drive", "city": "Mumbai", "state": "Maharashtra",
        "postalCode": "400001", "country": "IN", "phoneNumber": "+919876543210"
    });
    asha.post("/api/addresses", &address).await.refused(422, "card-data-refused");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_is_one_that_can_be_written_down() {
    let server = Server::open_idle().await;
    let staff = server.staff().await;
    let coupon =
        |code: &str, starts_at: &str| json!({ "code": code, "kind": "PERCENT", "value": "10", "startsAt": starts_at });
    for (index, instant) in
        ["+10000-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "soon"]
            .into_iter()
            .enumerate()
    {
        let refused = staff.post("/api/coupons", &coupon(&format!("C{index}"), instant)).await;
        let refused = refused.refused(422, "validation-failed");
        assert_eq!(refused["errors"][0]["pointer"], "/startsAt", "{instant}: {refused}");
    }
    staff.post("/api/coupons", &coupon("LAST", "9999-12-31T23:59:59Z")).await.ok();
    let change = json!({ "endsAt": "+10000-01-01T00:00:00Z" });
    staff.patch("/api/coupons/LAST", &change).await.refused(422, "validation-failed");
    // `["+262142-01-01T00:00:00Z","019a0000-0000-7000-8000-000000000001"]`
    let cursor = "WyIrMjYyMTQyLTAxLTAxVDAwOjAwOjAwWiIsIjAxOWEwMDAwLTAwMDAtNzAwMC04MDAwLTAwMDAwMDAwMDAwMSJd";
    staff.get(&format!("/api/orders?cursor={cursor}")).await.refused(422, "validation-failed");
    server.stop().await;
}
