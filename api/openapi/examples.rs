//! An example for every body in the document, made from its schema: what a field's own documentation
//! gives, else what its name stands for everywhere, else what its type allows. So no route can be without
//! one, and none can be out of date.

use serde_json::{Map, Value, json};
use utoipa::openapi::{Content, OpenApi as Document, RefOr, path::Operation};

use super::operations;
use crate::error::{ApiError, PROBLEM_JSON};

/// Deeper than any body of ours; ends a schema that contains itself.
const DEEPEST: usize = 12;

/// What a field of this name holds, whichever body it is in. One laptop, sold to Asha in Mumbai.
fn word(name: &str) -> Option<Value> {
    Some(match name {
        "accessToken" => json!("eyJhbGciOiJIUzI1NiIsImtpZCI6IjBhMWIyYzNkIn0.e30.c2lnbmF0dXJl"),
        "addressLine1" => json!("1 Marine Drive"),
        "amount" | "totalAmount" | "total" => json!("59050.00"),
        "availableQuantity" | "available" | "stock" => json!(100),
        "city" => json!("Mumbai"),
        "code" => json!("SAVE20"),
        "country" => json!("IN"),
        "couponCodes" => json!(["SAVE20"]),
        "courierService" => json!("Blue Dart"),
        "currency" => json!("INR"),
        "delta" => json!(-1),
        "discount" | "discountAmount" | "refundedAmount" => json!("0.00"),
        "email" | "to" => json!("asha@example.com"),
        "expectedTotal" => json!("59050.00"),
        "estimatedDelivery" => json!("2026-12-01"),
        "expiresIn" => json!(900),
        "firstName" => json!("Asha"),
        "gateway" | "paymentGateway" => json!("sandbox"),
        "gatewayPaymentId" => json!("pay_01HZX3"),
        "lastName" => json!("Rao"),
        "lineTotal" | "subtotal" | "price" | "unitPrice" | "basePrice" => json!("50000.00"),
        "nextCursor" | "failure" | "nextAction" => Value::Null,
        "orderNumber" => json!("ORD10000017"),
        "password" => json!("a-long-password"),
        "paymentMethod" | "method" => json!("CREDIT_CARD"),
        "paymentToken" => json!("tok_ok"),
        "phoneNumber" => json!("+919800000000"),
        "postalCode" => json!("400001"),
        "productName" | "name" => json!("Laptop"),
        "quantity" | "itemCount" => json!(1),
        "reason" => json!("Ordered by mistake"),
        "recipientName" => json!("Asha Rao"),
        "refreshToken" | "cartSession" => json!("q1w2e3r4t5y6u7i8o9p0a1s2d3f4g5h6j7k8l9z0x1c"),
        "role" => json!("CUSTOMER"),
        "shipping" => json!("50.00"),
        "shippingAddress" => json!({
            "recipientName": "Asha Rao", "addressLine1": "1 Marine Drive", "city": "Mumbai", "state": "Maharashtra",
            "postalCode": "400001", "country": "IN", "phoneNumber": "+919800000000"
        }),
        "shippingMethod" => json!("STANDARD"),
        "sku" | "variantId" => json!("LAP-001"),
        "state" => json!("Maharashtra"),
        "tax" | "taxAmount" => json!("9000.00"),
        "totalPrice" => json!("59000.00"),
        "taxRate" => json!("18"),
        "trackingNumber" => json!("BD123456789IN"),
        "ttlSeconds" => json!(600),
        "variantName" => json!("16 GB, 1 TB"),
        _ => return None,
    })
}

/// Gives every request body and every answer of the document an example that has none.
pub(crate) fn add(document: &mut Document) {
    // Nothing in a document of ours fails to be JSON; without it there would be no examples, which a test
    // notices.
    let whole = serde_json::to_value(&*document).unwrap_or_default();
    for (_, _, operation) in operations(document) {
        add_to_operation(operation, &Sampler { whole: &whole, leaves_out_optional: true });
        add_to_answers(operation, &Sampler { whole: &whole, leaves_out_optional: false });
    }
}

fn add_to_operation(operation: &mut Operation, sampler: &Sampler<'_>) {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return };
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content {
            sampler.fill(content);
        }
    }
}

fn add_to_answers(operation: &mut Operation, sampler: &Sampler<'_>) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let (status, codes) = (status.parse().unwrap_or(500), response.description.clone());
        for (kind, content) in &mut response.content {
            let RefOr::T(content) = content else { continue };
            if kind == PROBLEM_JSON {
                content.example.get_or_insert_with(|| refusal(status, &codes));
            } else {
                sampler.fill(content);
            }
        }
    }
}

/// The first code that the description names, as it would be answered.
fn refusal(status: u16, codes: &str) -> Value {
    let code = codes.split('`').nth(1).unwrap_or("refused").to_owned();
    let status = axum::http::StatusCode::from_u16(status).unwrap_or_default();
    ApiError::new(status, code, "A sentence for people.").body()
}

struct Sampler<'a> {
    /// The document, in which references point.
    whole: &'a Value,
    /// Requests show what must be sent, and what this module has a word for.
    leaves_out_optional: bool,
}

impl Sampler<'_> {
    fn fill(&self, content: &mut Content) {
        if content.example.is_none() && content.examples.is_empty() {
            let schema = serde_json::to_value(&content.schema).unwrap_or_default();
            content.example = Some(self.sample(&schema, DEEPEST));
        }
    }

    fn sample(&self, schema: &Value, depth: usize) -> Value {
        if depth == 0 {
            return Value::Null;
        }
        if let Some(given) = schema.get("example").or_else(|| schema["examples"].get(0)).or_else(|| schema.get("const"))
        {
            return given.clone();
        }
        if schema.get("$ref").is_some() {
            return self.sample(self.target(schema), depth - 1);
        }
        if let Some(first) = schema["enum"].get(0) {
            return first.clone();
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let parts = parts.iter().map(|part| self.sample(part, depth - 1));
            return Value::Object(parts.filter_map(|part| part.as_object().cloned()).flatten().collect());
        }
        let alternatives = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
        if let Some(one) = alternatives.and_then(|all| all.iter().find(|schema| schema["type"] != "null")) {
            return self.sample(one, depth - 1);
        }
        match type_of(schema) {
            "object" => self.object(schema, depth),
            "array" => json!([self.sample(&schema["items"], depth - 1)]),
            "string" => text(schema["format"].as_str()),
            "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(1)),
            "boolean" => json!(true),
            // A schema that says nothing allows anything.
            _ => json!({}),
        }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let is_required =
            |name: &String| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| *one == **name));
        let mut object = Map::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let said = field.get("example").is_some() || field.get("examples").is_some();
            let known = word(name).filter(|word| !said && self.fits(word, field));
            if !self.leaves_out_optional || is_required(name) || said || known.is_some() {
                object.insert(name.clone(), known.unwrap_or_else(|| self.sample(field, depth - 1)));
            }
        }
        Value::Object(object)
    }

    /// What a reference points at.
    fn target<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let target = schema["$ref"].as_str().and_then(|target| self.whole.pointer(target.trim_start_matches('#')));
        target.unwrap_or(schema)
    }

    /// Whether the word is of the field's type: names are used for more than one thing.
    fn fits(&self, word: &Value, field: &Value) -> bool {
        let field = self.target(field);
        if field.get("enum").is_some_and(|all| !all.as_array().is_some_and(|all| all.contains(word))) {
            return false;
        }
        // A uuid is not a SKU, and a date has its own form.
        if field.get("format").is_some_and(|format| matches!(format.as_str(), Some("uuid" | "date-time"))) {
            return false;
        }
        let kind = match word {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let alternatives = field["oneOf"].as_array().into_iter().flatten().map(|one| &self.target(one)["type"]);
        let allowed = |given: &Value| {
            given == kind || given.as_array().is_some_and(|kinds| kinds.iter().any(|given| given == kind))
        };
        allowed(&field["type"]) || alternatives.into_iter().any(allowed)
    }
}

/// The type of a schema that may also allow null.
fn type_of(schema: &Value) -> &str {
    let several = schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str);
    schema["type"].as_str().or_else(|| several.into_iter().find(|kind| *kind != "null")).unwrap_or_default()
}

fn text(format: Option<&str>) -> Value {
    json!(match format {
        Some("uuid") => "0198c6a2-7b1c-7000-8000-1234567890ab",
        Some("date-time") => "2026-11-22T12:00:00Z",
        Some("date") => "2026-11-22",
        Some("email") => "asha@example.com",
        Some("uri") => "https://shop.example/",
        Some(_) | None => "text",
    })
}
