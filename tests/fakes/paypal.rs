//! PayPal: orders of its version 2, their authorizations, captures and refunds, access tokens, and the check of
//! webhooks, which PayPal does itself.

mod authorization;
mod capture;
mod fate;
mod objects;
mod order;
mod reporting;
mod token;
mod webhook;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    arguments::Arguments,
    books::{Books, DisputeRow, Outcome, PaymentRow, RefundRow},
    call::{Call, Reply},
    contract::{Body, Checked, Contract, Document, Encoding, Flaw, FlawKind, Place, Shape},
    gateway::{Desk, Event, Gateway, KeyRule, Operation, RefundTurn, Refusal, Shopping, Told},
    ids,
    misfortune::Class,
    money::Amount,
    webhooks::Message,
};

use self::objects::{Dispute, Order};

const HEADER: &str = "paypal-request-id";

const CREATE_KEY: Option<KeyRule> = Some(KeyRule { header: HEADER, scope: "order", hours: 6 });
const CAPTURE_KEY: Option<KeyRule> = Some(KeyRule { header: HEADER, scope: "order capture", hours: 6 });
const AUTHORIZE_KEY: Option<KeyRule> = Some(KeyRule { header: HEADER, scope: "order authorization", hours: 6 });
const SETTLE_KEY: Option<KeyRule> = Some(KeyRule { header: HEADER, scope: "capture", hours: 45 * 24 });
const REFUND_KEY: Option<KeyRule> = Some(KeyRule { header: HEADER, scope: "refund", hours: 45 * 24 });

const TOKEN: Place = Place { method: "POST", path: "/v1/oauth2/token" };

/// An account with PayPal.
#[derive(Debug)]
pub(crate) struct Paypal {
    client: String,
    secret: String,
    webhook_id: String,
    base: String,
    tokens: Vec<String>,
    orders: Vec<Order>,
    disputes: Vec<Dispute>,
}

impl Paypal {
    fn order(&mut self, id: &str) -> Option<&mut Order> {
        self.orders.iter_mut().find(|order| order.id == id)
    }

    /// Sends the news of a thing; `schema` is what it is held against.
    fn tell(desk: &mut Desk, kind: &str, resource_type: &str, schema: Option<&'static str>, resource: &Value) {
        let id = format!("WH-{}-{}", ids::capital(17), ids::capital(17));
        let body = json!({
            "id": id, "event_version": "1.0", "create_time": objects::time(desk.now), "resource_type": resource_type,
            "resource_version": "2.0", "event_type": kind, "summary": format!("{kind} of a {resource_type}"),
            "resource": resource, "links": [],
        });
        let objects = [Some(("event", body.clone())), schema.map(|name| (name, resource.clone()))];
        desk.news.push(Message::new(id, kind, body, objects.into_iter().flatten().collect()));
    }
}

/// Digits behind the point; none: PayPal does not have the currency.
fn exponent(currency: &str) -> Option<u32> {
    match currency {
        "HUF" | "JPY" | "TWD" => Some(0),
        "AUD" | "BRL" | "CAD" | "CHF" | "CNY" | "CZK" | "DKK" | "EUR" | "GBP" | "HKD" | "ILS" | "MXN" | "MYR"
        | "NOK" | "NZD" | "PHP" | "PLN" | "RUB" | "SEK" | "SGD" | "THB" | "USD" => Some(2),
        _ => None,
    }
}

/// An amount as PayPal reads it, or the issue that it has with it.
fn amount(money: &Value) -> Result<(Amount, String), &'static str> {
    let currency = money["currency_code"].as_str().unwrap_or_default();
    let exponent = exponent(currency).ok_or("INVALID_CURRENCY_CODE")?;
    let text = money["value"].as_str().unwrap_or_default();
    let value = text.parse().map_err(|_| "CANNOT_BE_ZERO_OR_NEGATIVE")?;
    let amount = Amount::of(value, exponent).ok_or("DECIMAL_PRECISION")?;
    if amount.minor < 1 {
        return Err("CANNOT_BE_ZERO_OR_NEGATIVE");
    }
    Ok((amount, currency.to_owned()))
}

fn problem(status: u16, name: &str, message: &str) -> Reply {
    Reply::new(status, json!({ "name": name, "message": message, "debug_id": ids::mixed("", 13), "links": [] }))
}

/// What was understood and cannot be done.
fn unprocessable(issue: &str) -> Reply {
    let message = "The requested action could not be performed, semantically incorrect, or failed business validation.";
    with_issue(problem(422, "UNPROCESSABLE_ENTITY", message), issue)
}

fn missing() -> Reply {
    with_issue(problem(404, "RESOURCE_NOT_FOUND", "The specified resource does not exist."), "INVALID_RESOURCE_ID")
}

fn ill_formed(issue: &str, field: &str) -> Reply {
    let message = "Request is not well-formed, syntactically incorrect, or violates schema.";
    let mut reply = with_issue(problem(400, "INVALID_REQUEST", message), issue);
    if let Some(detail) = reply.body.as_mut().and_then(|body| body.pointer_mut("/details/0")) {
        detail["field"] = json!(field);
        detail["location"] = json!("body");
    }
    reply
}

/// Its description is the document's, and added last.
fn with_issue(mut reply: Reply, issue: &str) -> Reply {
    if let Some(body) = reply.body.as_mut() {
        body["details"] = json!([{ "issue": issue }]);
    }
    reply
}

/// All of it, or what a caller gets who has not asked for all.
fn representation(call: &Call, status: u16, whole: Value) -> Reply {
    if call.header("prefer").contains("return=representation") {
        return Reply::new(status, whole);
    }
    Reply::new(status, json!({ "id": whole["id"], "status": whole["status"], "links": whole["links"] }))
}

impl Gateway for Paypal {
    const OPERATIONS: &'static [Operation<Self>] = &[
        Operation::post(TOKEN.path, Class::Authenticate, None, Paypal::create_token),
        Operation::post("/v2/checkout/orders", Class::Initiate, CREATE_KEY, Paypal::create_order),
        Operation::get("/v2/checkout/orders/{id}", Paypal::get_order),
        Operation::post("/v2/checkout/orders/{id}/capture", Class::Capture, CAPTURE_KEY, Paypal::capture_order),
        Operation::post("/v2/checkout/orders/{id}/authorize", Class::Capture, AUTHORIZE_KEY, Paypal::authorize_order),
        Operation::get("/v2/payments/authorizations/{authorization_id}", Paypal::get_authorization),
        Operation::post(
            "/v2/payments/authorizations/{authorization_id}/capture",
            Class::Capture,
            SETTLE_KEY,
            Paypal::capture_authorization,
        ),
        Operation::post(
            "/v2/payments/authorizations/{authorization_id}/void",
            Class::Cancel,
            None,
            Paypal::void_authorization,
        ),
        Operation::get("/v2/payments/captures/{capture_id}", Paypal::get_capture),
        Operation::post("/v2/payments/captures/{capture_id}/refund", Class::Refund, REFUND_KEY, Paypal::refund_capture),
        Operation::get("/v2/payments/refunds/{refund_id}", Paypal::get_refund),
        Operation::post("/v1/notifications/verify-webhook-signature", Class::Verify, None, Paypal::verify_webhook),
        Operation::get(reporting::PLACE.path, Paypal::list_transactions),
    ];

    fn open(arguments: &Arguments, base: &str) -> Paypal {
        Paypal {
            client: arguments.key.clone(),
            secret: arguments.secret.clone(),
            webhook_id: arguments.webhook_secret.clone(),
            base: base.to_owned(),
            tokens: Vec::new(),
            orders: Vec::new(),
            disputes: Vec::new(),
        }
    }

    fn contract() -> anyhow::Result<Contract> {
        let orders = Document::parse(include_str!("documents/paypal/checkout_orders_v2.json"))?;
        let payments = Document::parse(include_str!("documents/paypal/payments_payment_v2.json"))?;
        let webhooks = Document::parse(include_str!("documents/paypal/notifications_webhooks_v1.json"))?;
        let mut contract = Contract::default();
        contract.allow(TOKEN, token::shape());
        contract.allow(reporting::PLACE, reporting::shape());
        let named = [
            ("order", &orders, "order"),
            ("authorization", &payments, "authorization-2"),
            ("capture", &payments, "capture-2"),
            ("refund", &payments, "refund"),
            ("event", &webhooks, "event"),
        ];
        for (name, document, definition) in named {
            contract.name(name, document.schema(json!({ "$ref": format!("#/components/schemas/{definition}") })));
        }
        contract.learn(&[orders, payments, webhooks], Self::OPERATIONS.iter().map(|operation| operation.place))?;
        Ok(contract)
    }

    fn admits(&self, operation: &Operation<Self>, call: &Call) -> bool {
        if operation.place == TOKEN { self.knows_client(call) } else { self.knows_token(call) }
    }

    fn refuse(operation: Option<&Operation<Self>>, refusal: Refusal<'_>) -> Reply {
        match refusal {
            Refusal::NoSuchCall => problem(404, "RESOURCE_NOT_FOUND", "The specified resource does not exist."),
            Refusal::WrongCredentials if operation.is_some_and(|operation| operation.place == TOKEN) => {
                let error = json!({ "error": "invalid_client", "error_description": "Client Authentication failed" });
                Reply::new(401, error)
            }
            Refusal::WrongCredentials => {
                let message = "Authentication failed due to missing authorization header, or invalid authentication \
                               credentials.";
                problem(401, "AUTHENTICATION_FAILURE", message)
            }
            Refusal::Malformed(flaws) => malformed(flaws),
            Refusal::RateLimited => {
                problem(429, "RATE_LIMIT_REACHED", "Too many requests. Blocked due to rate limiting.")
            }
            Refusal::InFlight => {
                let message = "The server has detected a conflict while processing this request.";
                with_issue(problem(409, "RESOURCE_CONFLICT", message), "PREVIOUS_REQUEST_IN_PROGRESS")
            }
            Refusal::ServerError => problem(500, "INTERNAL_SERVER_ERROR", "An internal server error occurred."),
            Refusal::NoBalance => unprocessable("REFUND_FAILED_INSUFFICIENT_FUNDS"),
        }
    }

    fn keeps(reply: &Reply) -> bool {
        reply.is_success()
    }

    /// "The latest status of the previous request": of an order with 200, of anything else with 201 as at first.
    fn again(&self, call: &Call, first: Reply) -> Reply {
        let id = first.body.as_ref().and_then(|body| body["id"].as_str()).unwrap_or_default();
        let now = self.orders.iter().find_map(|order| {
            if order.id == id {
                Some((200, order.to_json(&self.base)))
            } else {
                Some((first.status, order.part(id, &self.base)?))
            }
        });
        match now {
            Some((status, whole)) => representation(call, status, whole),
            None => first,
        }
    }

    /// Whatever else is asked for under a key, the first call is what is answered.
    fn reused() -> Option<Reply> {
        None
    }

    fn polish(contract: &Contract, place: Place, mut reply: Reply) -> Reply {
        let details = reply.body.as_mut().and_then(|body| body.get_mut("details")).and_then(Value::as_array_mut);
        for detail in details.into_iter().flatten() {
            let issue = detail["issue"].as_str().unwrap_or_default().to_owned();
            let described = contract.issue(place, reply.status, &issue);
            detail["description"] = json!(described.unwrap_or(issue));
        }
        reply
    }

    fn shopper(&mut self, shopping: &Shopping, desk: &mut Desk) -> Told {
        self.stand_before_page(shopping, desk)
    }

    fn turn(&mut self, payment: &str, event: &Event, desk: &mut Desk) -> Told {
        self.take_turn(payment, event, desk)
    }

    fn turn_refund(&mut self, refund: &str, turn: RefundTurn, desk: &mut Desk) -> Told {
        self.end_refund(refund, turn, desk)
    }

    fn dispute(&mut self, payment: &str, outcome: Outcome, desk: &mut Desk) -> Told {
        self.dispute_order(payment, outcome, desk)
    }

    fn books(&self) -> Books {
        Books {
            payments: self.orders.iter().map(payment_row).collect(),
            refunds: self.orders.iter().flat_map(refund_rows).collect(),
            disputes: self.disputes.iter().map(dispute_row).collect(),
        }
    }

    fn secrets(&self) -> Vec<String> {
        self.tokens.clone()
    }

    fn native(amount: Amount) -> Value {
        json!(amount.decimal())
    }

    fn write(body: &Value) -> String {
        body.to_string()
    }

    fn sign(secret: &str, message: &Message, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
        webhook::sign(secret, message.text.as_bytes(), now)
    }
}

fn payment_row(order: &Order) -> PaymentRow {
    let of = |minor| Amount { minor, exponent: order.amount.exponent };
    let captured =
        order.captures.iter().filter(|capture| capture.has_money()).map(|capture| capture.amount.minor).sum();
    let refunded = order.refunds.iter().filter(|refund| refund.counts()).map(|refund| refund.amount.minor).sum();
    PaymentRow {
        id: order.id.clone(),
        reference: order.custom_id.clone().unwrap_or_default(),
        currency: order.currency.clone(),
        status: order.status.word().to_owned(),
        amount: order.amount,
        captured: of(captured),
        held: of(order.held()),
        refunded: of(refunded),
        created_at: order.created,
    }
}

fn refund_rows(order: &Order) -> impl Iterator<Item = RefundRow> + '_ {
    order.refunds.iter().map(|refund| RefundRow {
        id: refund.id.clone(),
        payment: order.id.clone(),
        reference: refund.custom_id.clone().unwrap_or_default(),
        key: refund.key.clone(),
        currency: order.currency.clone(),
        status: refund.status.to_owned(),
        amount: refund.amount,
    })
}

fn dispute_row(dispute: &Dispute) -> DisputeRow {
    DisputeRow {
        id: dispute.id.clone(),
        payment: dispute.order.clone(),
        currency: dispute.currency.clone(),
        outcome: dispute.outcome,
        amount: dispute.amount,
    }
}

fn malformed(flaws: &[Flaw]) -> Reply {
    let Some(flaw) = flaws.first() else { return ill_formed("INVALID_PARAMETER_SYNTAX", "") };
    let issue = match flaw.kind {
        FlawKind::Missing => "MISSING_REQUIRED_PARAMETER",
        FlawKind::Length => "INVALID_STRING_LENGTH",
        FlawKind::Unknown | FlawKind::Value | FlawKind::Other => "INVALID_PARAMETER_SYNTAX",
    };
    ill_formed(issue, &flaw.at)
}

/// A shape that is in none of the documents at hand.
fn written(query: Option<Value>, body: Option<(Encoding, Value)>, answer: Value) -> Shape {
    let checked = |schema| Arc::new(Checked::new(schema));
    let body = body.map(|(encoding, schema)| Body { encoding, is_required: true, schema: checked(schema) });
    let answers = [("200", Some(checked(answer))), ("default", Some(checked(json!({ "type": "object" }))))];
    let answers = answers.map(|(status, schema)| (status.to_owned(), schema)).into();
    Shape { query: query.map(checked), headers: None, body, answers }
}

#[cfg(test)]
mod tests;
