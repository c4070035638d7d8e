//! Razorpay: orders, the payments that shoppers make for them, refunds and disputes.

mod fate;
mod objects;
mod order;
mod payment;
mod refund;

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    arguments::Arguments,
    books::{Books, DisputeRow, Outcome, PaymentRow, RefundRow},
    call::{Call, Reply},
    contract::{Body, Checked, Contract, Document, Encoding, Flaw, FlawKind, Shape},
    gateway::{Desk, Event, Gateway, KeyRule, Operation, RefundTurn, Refusal, Shopping, Told},
    ids,
    misfortune::Class,
    money::Amount,
    signing,
    webhooks::Message,
};

use self::objects::{Dispute, Order, Payment, PaymentStatus, Refund};

/// Refunds only. How long it is kept is not published: a day.
const REFUND_KEY: Option<KeyRule> = Some(KeyRule { header: "x-refund-idempotency", scope: "refund", hours: 24 });

/// An account with Razorpay.
#[derive(Debug)]
pub(crate) struct Razorpay {
    key: String,
    secret: String,
    account: String,
    orders: Vec<Order>,
    payments: Vec<Payment>,
    refunds: Vec<Refund>,
    disputes: Vec<Dispute>,
}

impl Razorpay {
    fn order(&mut self, id: &str) -> Option<&mut Order> {
        self.orders.iter_mut().find(|order| order.id == id)
    }

    fn payment(&mut self, id: &str) -> Option<&mut Payment> {
        self.payments.iter_mut().find(|payment| payment.id == id)
    }

    fn show_order(&self, order: &Order) -> Value {
        order.to_json(self.payments.iter().filter(|payment| payment.order == order.id))
    }

    /// What the shopper brings along from the Checkout: that this payment is one of that order.
    fn proof(&self, order: &str, payment: &str) -> String {
        signing::hex(&self.secret, format!("{order}|{payment}").as_bytes())
    }

    /// Sends the news of things, each under its name.
    fn tell(&self, desk: &mut Desk, kind: &str, things: &[(&'static str, Value)]) {
        let contains: Vec<&str> = things.iter().map(|(name, _)| *name).collect();
        let payload: BTreeMap<&str, Value> =
            things.iter().map(|(name, one)| (*name, json!({ "entity": one }))).collect();
        let body = json!({
            "entity": "event", "account_id": self.account, "event": kind, "contains": contains, "payload": payload,
            "created_at": desk.now.timestamp(),
        });
        let mut objects = vec![("webhook", body.clone())];
        objects.extend(things.iter().filter(|(name, _)| *name != "dispute").cloned());
        desk.news.push(Message::new(ids::mixed("", 14), kind, body, objects));
    }

    fn tell_of_payment(&mut self, desk: &mut Desk, kind: &str, id: &str) {
        if let Some(object) = self.payment(id).map(|payment| payment.to_json()) {
            self.tell(desk, kind, &[("payment", object)]);
        }
    }
}

/// Digits behind the point in Razorpay's units.
fn exponent(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "VND" | "VUV"
        | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "KWD" | "OMR" => 3,
        _ => 2,
    }
}

fn amount(minor: i64, currency: &str) -> Amount {
    Amount { minor, exponent: exponent(currency) }
}

fn error(status: u16, code: &str, description: &str) -> Reply {
    let error = json!({ "code": code, "description": description, "source": "business", "step": "payment_initiation",
                        "reason": "input_validation_failed", "metadata": {} });
    Reply::new(status, json!({ "error": error }))
}

fn bad(description: &str) -> Reply {
    error(400, "BAD_REQUEST_ERROR", description)
}

/// Unknown ids are bad requests here.
fn missing() -> Reply {
    bad("The id provided does not exist")
}

/// A page of things, the newest first: each with when it was made.
fn page(call: &Call, oldest_first: impl Iterator<Item = (i64, Value)>) -> Reply {
    let (from, to) = (call.parameter("/from").unwrap_or(0), call.parameter("/to").unwrap_or(i64::MAX));
    let (count, skip) = (call.parameter("/count").unwrap_or(10), call.parameter("/skip").unwrap_or(0));
    let Some(count) = usize::try_from(count).ok().filter(|count| (1..=100).contains(count)) else {
        return bad("The count must be between 1 and 100");
    };
    let Ok(skip) = usize::try_from(skip) else { return bad("The skip must be at least 0") };
    let mut all: Vec<Value> =
        oldest_first.filter(|(at, _)| (from..=to).contains(at)).map(|(_, object)| object).collect();
    all.reverse();
    let items: Vec<Value> = all.into_iter().skip(skip).take(count).collect();
    Reply::new(200, json!({ "entity": "collection", "count": items.len(), "items": items }))
}

impl Gateway for Razorpay {
    const OPERATIONS: &'static [Operation<Self>] = &[
        Operation::post("/v1/orders", Class::Initiate, None, Razorpay::create_order),
        Operation::get("/v1/orders", Razorpay::list_orders),
        Operation::get("/v1/orders/{order}", Razorpay::get_order),
        Operation::get("/v1/orders/{order}/payments", Razorpay::list_order_payments),
        Operation::get("/v1/payments", Razorpay::list_payments),
        Operation::get("/v1/payments/{payment}", Razorpay::get_payment),
        Operation::post("/v1/payments/{payment}/capture", Class::Capture, None, Razorpay::capture_payment),
        Operation::post("/v1/payments/{payment}/refund", Class::Refund, REFUND_KEY, Razorpay::create_refund),
        Operation::get("/v1/payments/{payment}/refunds", Razorpay::list_refunds),
        Operation::get("/v1/payments/{payment}/refunds/{refund}", Razorpay::get_payment_refund),
        Operation::get("/v1/refunds/{refund}", Razorpay::get_refund),
    ];

    fn open(arguments: &Arguments, _: &str) -> Razorpay {
        Razorpay {
            key: arguments.key.clone(),
            secret: arguments.secret.clone(),
            account: ids::mixed("acc_", 14),
            orders: Vec::new(),
            payments: Vec::new(),
            refunds: Vec::new(),
            disputes: Vec::new(),
        }
    }

    fn contract() -> anyhow::Result<Contract> {
        contract(&Document::parse(include_str!("documents/razorpay/objects.schema.json"))?)
    }

    fn admits(&self, _: &Operation<Self>, call: &Call) -> bool {
        call.header("authorization") == format!("Basic {}", BASE64.encode(format!("{}:{}", self.key, self.secret)))
    }

    fn refuse(_: Option<&Operation<Self>>, refusal: Refusal<'_>) -> Reply {
        match refusal {
            Refusal::NoSuchCall => bad("The requested URL was not found on the server."),
            Refusal::WrongCredentials => error(401, "BAD_REQUEST_ERROR", "Authentication failed"),
            Refusal::Malformed(flaws) => malformed(flaws),
            Refusal::RateLimited => error(429, "BAD_REQUEST_ERROR", "Request failed. Please try after sometime."),
            Refusal::InFlight => {
                error(409, "BAD_REQUEST_ERROR", "Request failed because another request with this key is in progress")
            }
            Refusal::ServerError => {
                error(500, "SERVER_ERROR", "We are facing some trouble completing your request at the moment.")
            }
            Refusal::NoBalance => bad(
                "Your account does not have enough balance to carry out the refund operation. You can add funds to \
                 your account from your Razorpay dashboard or capture new payments.",
            ),
        }
    }

    fn keeps(reply: &Reply) -> bool {
        reply.is_success()
    }

    /// "A different payload will be rejected as a BAD_REQUEST".
    fn reused() -> Option<Reply> {
        Some(bad("Different request body sent for the same idempotency key"))
    }

    fn shopper(&mut self, shopping: &Shopping, desk: &mut Desk) -> Told {
        self.stand_before_checkout(shopping, desk)
    }

    fn turn(&mut self, payment: &str, event: &Event, desk: &mut Desk) -> Told {
        self.take_turn(payment, event, desk)
    }

    fn turn_refund(&mut self, refund: &str, turn: RefundTurn, desk: &mut Desk) -> Told {
        self.end_refund(refund, turn, desk)
    }

    fn dispute(&mut self, payment: &str, outcome: Outcome, desk: &mut Desk) -> Told {
        self.dispute_payment(payment, outcome, desk)
    }

    fn books(&self) -> Books {
        Books {
            payments: self.orders.iter().map(|order| self.payment_row(order)).collect(),
            refunds: self
                .refunds
                .iter()
                .filter(|refund| !refund.is_of_hold)
                .map(|refund| self.refund_row(refund))
                .collect(),
            disputes: self.disputes.iter().map(|dispute| self.dispute_row(dispute)).collect(),
        }
    }

    /// The shoppers' proofs of having paid.
    fn secrets(&self) -> Vec<String> {
        self.payments.iter().map(|payment| self.proof(&payment.order, &payment.id)).collect()
    }

    /// Razorpay escapes slashes.
    fn write(body: &Value) -> String {
        body.to_string().replace('/', "\\/")
    }

    fn sign(secret: &str, message: &Message, _: DateTime<Utc>) -> Vec<(&'static str, String)> {
        let code = signing::hex(secret, message.text.as_bytes());
        vec![("x-razorpay-signature", code), ("x-razorpay-event-id", message.id.clone())]
    }
}

impl Razorpay {
    fn payment_row(&self, order: &Order) -> PaymentRow {
        let of = |minor| amount(minor, &order.currency);
        let own = || self.payments.iter().filter(|payment| payment.order == order.id);
        let sum_of = |is_meant: fn(&Payment) -> bool| own().filter(|one| is_meant(one)).map(|one| one.amount).sum();
        let refunds = self.refunds.iter().filter(|refund| refund.counts() && own().any(|one| one.id == refund.payment));
        PaymentRow {
            id: order.id.clone(),
            reference: order.receipt.clone().unwrap_or_default(),
            currency: order.currency.clone(),
            status: order.status(own()).to_owned(),
            amount: of(order.amount),
            captured: of(sum_of(|one| one.is_captured)),
            held: of(sum_of(|one| one.status == PaymentStatus::Authorized)),
            refunded: of(refunds.map(|refund| refund.amount).sum()),
            created_at: order.created,
        }
    }

    /// The order of a payment: what the ledger calls a payment.
    fn order_of(&self, payment: &str) -> String {
        self.payments.iter().find(|one| one.id == payment).map(|one| one.order.clone()).unwrap_or_default()
    }

    fn refund_row(&self, refund: &Refund) -> RefundRow {
        RefundRow {
            id: refund.id.clone(),
            payment: self.order_of(&refund.payment),
            reference: refund.receipt.clone().unwrap_or_default(),
            key: refund.key.clone(),
            currency: refund.currency.clone(),
            status: refund.status.to_owned(),
            amount: amount(refund.amount, &refund.currency),
        }
    }

    fn dispute_row(&self, dispute: &Dispute) -> DisputeRow {
        DisputeRow {
            id: dispute.id.clone(),
            payment: self.order_of(&dispute.payment),
            currency: dispute.currency.clone(),
            outcome: dispute.outcome,
            amount: amount(dispute.amount, &dispute.currency),
        }
    }
}

fn malformed(flaws: &[Flaw]) -> Reply {
    let Some(flaw) = flaws.first() else { return bad("The request is invalid") };
    let field = flaw.at.rsplit('/').next().unwrap_or_default();
    match flaw.kind {
        FlawKind::Unknown => bad(&format!("{field} is/are not required and should not be sent")),
        FlawKind::Missing => bad(&format!("The {field} field is required.")),
        FlawKind::Length | FlawKind::Value | FlawKind::Other => bad(&format!("The {field} is invalid: {}", flaw.what)),
    }
}

/// Razorpay publishes objects only; what each call takes and answers is written here.
fn contract(document: &Document) -> anyhow::Result<Contract> {
    let defined = |name: &str| document.open_schema(json!({ "$ref": format!("#/$defs/{name}") }));
    let listed = |name: &str| {
        let items = json!({ "properties": { "items": { "items": { "$ref": format!("#/$defs/{name}") } } } });
        document.open_schema(json!({ "allOf": [{ "$ref": "#/$defs/Collection" }, items] }))
    };
    let (order, payment, refund) = (defined("Order"), defined("Payment"), defined("Refund"));
    let (orders, payments, refunds) = (listed("Order"), listed("Payment"), listed("Refund"));
    let problem = defined("Error");
    let shape = |answer: &Arc<Checked>| Shape {
        answers: [("200", answer), ("default", &problem)]
            .map(|(at, one)| (at.to_owned(), Some(Arc::clone(one))))
            .into(),
        ..Shape::default()
    };
    let taking = |name: &str, is_required: bool, answer: &Arc<Checked>| {
        let body = Some(Body { encoding: Encoding::Json, is_required, schema: defined(name) });
        Shape { body, ..shape(answer) }
    };
    let asking = |own: &[&str], answer: &Arc<Checked>| Shape { query: Some(query(own)), ..shape(answer) };
    let key = json!({ "properties": { "x-refund-idempotency": { "pattern": "^[A-Za-z0-9_-]{10,}$" } } });
    let refunding =
        Shape { headers: Some(Arc::new(Checked::new(key))), ..taking("RefundCreateRequest", false, &refund) };
    let shapes = [
        taking("OrderCreateRequest", true, &order),
        asking(&["receipt", "authorized"], &orders),
        shape(&order),
        shape(&payments),
        asking(&[], &payments),
        shape(&payment),
        taking("CaptureRequest", true, &payment),
        refunding,
        asking(&[], &refunds),
        shape(&refund),
        shape(&refund),
    ];
    let mut contract = Contract::default();
    for (operation, shape) in Razorpay::OPERATIONS.iter().zip(shapes) {
        contract.allow(operation.place, shape);
    }
    for (name, definition) in
        [("order", order), ("payment", payment), ("refund", refund), ("webhook", defined("Webhook"))]
    {
        contract.name(name, definition);
    }
    Ok(contract)
}

/// What every list takes, and these.
fn query(own: &[&str]) -> Arc<Checked> {
    let numbers = ["from", "to", "count", "skip"].map(|name| (name, json!({ "type": "integer" })));
    let properties: BTreeMap<&str, Value> =
        numbers.into_iter().chain(own.iter().map(|name| (*name, json!({ "type": "string" })))).collect();
    Arc::new(Checked::new(json!({ "type": "object", "properties": properties, "additionalProperties": false })))
}

#[cfg(test)]
mod tests;
