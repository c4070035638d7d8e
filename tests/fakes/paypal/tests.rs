use super::*;

const CREATE: Place = Place { method: "POST", path: "/v2/checkout/orders" };

fn read(text: &str) -> Vec<Flaw> {
    let headers = [("content-type", "application/json"), ("prefer", "return=representation")];
    let headers = headers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    let mut call = Call {
        path: CREATE.path.to_owned(),
        query: String::new(),
        headers: headers.into_iter().collect(),
        raw: text.as_bytes().to_vec().into(),
        parts: Vec::new(),
        parameters: Value::Null,
        body: Value::Null,
        key: None,
    };
    Paypal::contract().expect("a contract").read(CREATE, &mut call)
}

#[test]
fn planted_errors_of_a_body_are_named() {
    let unit = |unit: &str| format!(r#"{{"intent":"CAPTURE","purchase_units":[{unit}]}}"#);
    let right = r#"{"amount":{"currency_code":"USD","value":"590.50"},"custom_id":"c","invoice_id":"i"}"#;
    let long = format!(r#"{{"amount":{{"currency_code":"USD","value":"1"}},"custom_id":"{}"}}"#, "x".repeat(128));
    let table = [
        (unit(right), None),
        (
            unit(r#"{"amount":{"currency_code":"USD","value":590.5}}"#),
            Some((FlawKind::Other, "/purchase_units/0/amount/value")),
        ),
        (unit(r#"{"custom_id":"c"}"#), Some((FlawKind::Missing, "/purchase_units/0/amount"))),
        (unit(&long), Some((FlawKind::Length, "/purchase_units/0/custom_id"))),
        (unit(&right.replace("custom_id", "customId")), Some((FlawKind::Unknown, "/purchase_units/0/customId"))),
        (unit(right).replace("CAPTURE", "SALE"), Some((FlawKind::Value, "/intent"))),
        (r#"{"intent":"CAPTURE"}"#.to_owned(), Some((FlawKind::Missing, "/purchase_units"))),
    ];
    for (text, expected) in table {
        let flaws = read(&text);
        assert_eq!(flaws.first().map(|flaw| (flaw.kind, flaw.at.as_str())), expected, "{text}: {flaws:?}");
    }
}

#[test]
fn issues_have_the_descriptions_of_the_document() {
    let contract = Paypal::contract().expect("a contract");
    let capture = Place { method: "POST", path: "/v2/checkout/orders/{id}/capture" };
    let reply = Paypal::polish(&contract, capture, unprocessable("ORDER_NOT_APPROVED"));
    let body = reply.body.as_ref().expect("a body");
    assert!(body["details"][0]["description"].as_str().is_some_and(|text| text.starts_with("Payer has not yet")));
    assert_eq!(contract.judge(capture, &reply), Vec::new());
    let unknown = Paypal::polish(&contract, capture, unprocessable("NO_SUCH_ISSUE"));
    assert_ne!(contract.judge(capture, &unknown), Vec::new());
}

#[test]
fn the_signed_text_is_that_of_the_retired_sdk() {
    let vector = &crate::signing::vectors()["paypal"];
    let header = |name: &str| vector["headers"][name].as_str().expect("a header");
    let webhook_id = vector["webhookId"].as_str().expect("an id");
    let body = vector["body"].as_str().expect("a body").as_bytes();
    let text =
        webhook::signed_text(header("paypal-transmission-id"), header("paypal-transmission-time"), webhook_id, body);
    assert_eq!(text, vector["signed"].as_str().expect("a text"));
}

#[test]
fn amounts_are_decimal_texts_of_a_currency_that_it_has() {
    let table = [
        ("USD", "590.50", Ok(59_050)),
        ("USD", "590.505", Err("DECIMAL_PRECISION")),
        ("JPY", "590", Ok(590)),
        ("JPY", "590.5", Err("DECIMAL_PRECISION")),
        ("INR", "1.00", Err("INVALID_CURRENCY_CODE")),
        ("USD", "0.00", Err("CANNOT_BE_ZERO_OR_NEGATIVE")),
        ("USD", "-1.00", Err("CANNOT_BE_ZERO_OR_NEGATIVE")),
    ];
    for (currency, value, expected) in table {
        let read = amount(&json!({ "currency_code": currency, "value": value }));
        assert_eq!(read.map(|(amount, _)| amount.minor), expected, "{value} {currency}");
    }
}
