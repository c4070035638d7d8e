//! Stripe, of the version of 2023-08-16: PaymentIntents, their charges, refunds, disputes and events.

mod fate;
mod intent;
mod objects;
mod refund;
mod token;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    arguments::Arguments,
    books::{Books, DisputeRow, Outcome, PaymentRow, RefundRow},
    call::{Call, Reply},
    contract::{Contract, Document, Flaw, FlawKind},
    gateway::{Desk, Event, Gateway, KeyRule, Operation, RefundTurn, Refusal, Shopping, Told},
    ids,
    misfortune::Class,
    money::Amount,
    signing,
    webhooks::Message,
};

use self::objects::{Charge, Dispute, Intent, Refund, Status};

/// The version of the API that is played.
const VERSION: &str = "2023-08-16";

/// One set of keys for everything, kept for a day.
const KEY: Option<KeyRule> = Some(KeyRule { header: "idempotency-key", scope: "", hours: 24 });

/// An account with Stripe.
#[derive(Debug)]
pub(crate) struct Stripe {
    secret: String,
    base: String,
    intents: Vec<Intent>,
    charges: Vec<Charge>,
    refunds: Vec<Refund>,
    disputes: Vec<Dispute>,
    events: Vec<Value>,
}

impl Stripe {
    fn intent(&mut self, id: &str) -> Option<&mut Intent> {
        self.intents.iter_mut().find(|intent| intent.id == id)
    }

    fn charge(&mut self, id: &str) -> Option<&mut Charge> {
        self.charges.iter_mut().find(|charge| charge.id == id)
    }

    /// A PaymentIntent as it stands, with its charge or the charge's id only.
    fn show(&self, intent: &Intent, with_charge: bool) -> Value {
        let charge = intent.latest_charge.as_ref();
        let latest = match charge.and_then(|id| self.charges.iter().find(|charge| charge.id == *id)) {
            Some(charge) if with_charge => charge.to_json(self.is_live()),
            Some(_) | None => json!(charge),
        };
        intent.to_json(&latest, self.is_live(), &self.base)
    }

    /// The same by its id.
    fn show_by_id(&self, id: &str) -> Value {
        self.intents.iter().find(|intent| intent.id == id).map_or(Value::Null, |intent| self.show(intent, false))
    }

    fn is_live(&self) -> bool {
        self.secret.starts_with("sk_live_")
    }

    /// Sends the news of an object, and keeps it.
    fn tell(&mut self, desk: &mut Desk, kind: &str, schema: &'static str, object: Value) {
        let id = ids::mixed("evt_", 24);
        let body = json!({
            "id": id, "object": "event", "api_version": VERSION, "created": desk.now.timestamp(),
            "data": { "object": object }, "livemode": self.is_live(), "pending_webhooks": 1, "type": kind,
            "request": { "id": ids::mixed("req_", 14), "idempotency_key": desk.key },
        });
        self.events.push(body.clone());
        desk.news.push(Message::new(id, kind, body.clone(), vec![("event", body), (schema, object)]));
    }

    fn tell_of_intent(&mut self, desk: &mut Desk, kind: &str, id: &str) {
        let object = self.show_by_id(id);
        self.tell(desk, kind, "payment_intent", object);
    }

    fn tell_of_charge(&mut self, desk: &mut Desk, kind: &str, id: &str) {
        let live = self.is_live();
        if let Some(object) = self.charge(id).map(|charge| charge.to_json(live)) {
            self.tell(desk, kind, "charge", object);
        }
    }

    fn get_charge(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let live = self.is_live();
        let found = self.charge(call.id()).map(|charge| Reply::new(200, charge.to_json(live)));
        found.unwrap_or_else(|| missing("charge", call.id(), "charge"))
    }

    fn get_dispute(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let found = self.disputes.iter().find(|dispute| dispute.id == call.id());
        found.map_or_else(
            || missing("dispute", call.id(), "dispute"),
            |dispute| Reply::new(200, dispute.to_json(self.is_live())),
        )
    }

    fn get_event(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let found = self.events.iter().find(|event| event["id"] == call.id());
        found.map_or_else(|| missing("event", call.id(), "id"), |event| Reply::new(200, event.clone()))
    }
}

/// Digits behind the point in Stripe's units. ISK and UGX have none and are counted in hundredths all the same.
fn exponent(currency: &str) -> u32 {
    match currency {
        "bif" | "clp" | "djf" | "gnf" | "jpy" | "kmf" | "krw" | "mga" | "pyg" | "rwf" | "vnd" | "vuv" | "xaf"
        | "xof" | "xpf" => 0,
        "bhd" | "jod" | "kwd" | "omr" | "tnd" => 3,
        _ => 2,
    }
}

fn amount(minor: i64, currency: &str) -> Amount {
    Amount { minor, exponent: exponent(currency) }
}

/// An error; `more` adds to its object.
fn error(status: u16, kind: &str, code: Option<&str>, message: &str, more: Value) -> Reply {
    let mut error = more;
    error["type"] = json!(kind);
    error["message"] = json!(message);
    if let Some(code) = code {
        error["code"] = json!(code);
        error["doc_url"] = json!(format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-")));
    }
    Reply::new(status, json!({ "error": error })).with("request-id", ids::mixed("req_", 14))
}

fn invalid(code: Option<&str>, message: &str, param: &str) -> Reply {
    error(400, "invalid_request_error", code, message, json!({ "param": param }))
}

fn missing(what: &str, id: &str, param: &str) -> Reply {
    let message = format!("No such {what}: '{id}'");
    error(404, "invalid_request_error", Some("resource_missing"), &message, json!({ "param": param })).unbegun()
}

/// A page of things, the newest first: each with its id and when it was made.
fn page(call: &Call, path: &str, oldest_first: impl Iterator<Item = (String, i64, Value)>) -> Reply {
    let is_in = |created: i64| {
        let holds = |bound: &str, fits: fn(i64, i64) -> bool| {
            call.parameter(&format!("/created/{bound}")).is_none_or(|limit| fits(created, limit))
        };
        let is_exact = call.parameter("/created").is_none_or(|exact| exact == created);
        is_exact
            && holds("gt", |a, b| a > b)
            && holds("gte", |a, b| a >= b)
            && holds("lt", |a, b| a < b)
            && holds("lte", |a, b| a <= b)
    };
    let mut all: Vec<_> = oldest_first.filter(|(_, created, _)| is_in(*created)).collect();
    all.reverse();
    let limit = call.parameter("/limit").unwrap_or(10);
    let Some(limit) = usize::try_from(limit).ok().filter(|limit| (1..=100).contains(limit)) else {
        return invalid(Some("parameter_invalid_integer"), "Limit must be between 1 and 100", "limit").unbegun();
    };
    let cursor = |name: &str| call.parameters.get(name).and_then(Value::as_str);
    let position = |id: &str| all.iter().position(|(own, _, _)| own == id);
    let (from, to) = match (cursor("starting_after"), cursor("ending_before")) {
        (Some(id), _) => match position(id) {
            Some(at) => (at + 1, all.len().min(at + 1 + limit)),
            None => return missing("object", id, "starting_after"),
        },
        (None, Some(id)) => match position(id) {
            Some(at) => (at.saturating_sub(limit), at),
            None => return missing("object", id, "ending_before"),
        },
        (None, None) => (0, all.len().min(limit)),
    };
    let goes_back = cursor("starting_after").is_none() && cursor("ending_before").is_some();
    let has_more = if goes_back { from > 0 } else { to < all.len() };
    let data: Vec<Value> = all.into_iter().skip(from).take(to - from).map(|(_, _, object)| object).collect();
    Reply::new(200, json!({ "object": "list", "url": path, "has_more": has_more, "data": data }))
}

fn expands(list: Option<&Value>, path: &str) -> bool {
    list.and_then(Value::as_array).is_some_and(|paths| paths.iter().any(|one| one == path))
}

impl Gateway for Stripe {
    const OPERATIONS: &'static [Operation<Self>] = &[
        Operation::post("/v1/payment_intents", Class::Initiate, KEY, Stripe::create_intent),
        Operation::get("/v1/payment_intents", Stripe::list_intents),
        Operation::get("/v1/payment_intents/{intent}", Stripe::get_intent),
        Operation::post("/v1/payment_intents/{intent}/confirm", Class::Initiate, KEY, Stripe::confirm_intent),
        Operation::post("/v1/payment_intents/{intent}/capture", Class::Capture, KEY, Stripe::capture_intent),
        Operation::post("/v1/payment_intents/{intent}/cancel", Class::Cancel, KEY, Stripe::cancel_intent),
        Operation::post("/v1/refunds", Class::Refund, KEY, Stripe::create_refund),
        Operation::get("/v1/refunds", Stripe::list_refunds),
        Operation::get("/v1/refunds/{refund}", Stripe::get_refund),
        Operation::get("/v1/charges/{charge}", Stripe::get_charge),
        Operation::get("/v1/disputes/{dispute}", Stripe::get_dispute),
        Operation::get("/v1/events/{id}", Stripe::get_event),
    ];

    fn open(arguments: &Arguments, base: &str) -> Stripe {
        Stripe {
            secret: arguments.secret.clone(),
            base: base.to_owned(),
            intents: Vec::new(),
            charges: Vec::new(),
            refunds: Vec::new(),
            disputes: Vec::new(),
            events: Vec::new(),
        }
    }

    fn contract() -> anyhow::Result<Contract> {
        let document = Document::parse(include_str!("documents/stripe/openapi-2023-08-16.excerpt.json"))?;
        let mut contract = Contract::default();
        for name in ["event", "payment_intent", "charge", "refund", "dispute"] {
            contract.name(name, document.schema(json!({ "$ref": format!("#/components/schemas/{name}") })));
        }
        contract.learn(&[document], Self::OPERATIONS.iter().map(|operation| operation.place))?;
        Ok(contract)
    }

    fn admits(&self, _: &Operation<Self>, call: &Call) -> bool {
        call.header("authorization") == format!("Bearer {}", self.secret)
    }

    fn refuse(_: Option<&Operation<Self>>, refusal: Refusal<'_>) -> Reply {
        let kind = "invalid_request_error";
        match refusal {
            Refusal::NoSuchCall => error(404, kind, None, "Unrecognized request URL.", json!({})),
            Refusal::WrongCredentials => error(401, kind, None, "Invalid API Key provided: sk_****", json!({})),
            Refusal::Malformed(flaws) => malformed(flaws),
            Refusal::RateLimited => {
                let message = "Request rate limit exceeded. You can learn more about rate limits here \
                               https://stripe.com/docs/rate-limits.";
                error(429, kind, Some("rate_limit"), message, json!({}))
            }
            Refusal::InFlight => {
                let message = "There is currently another in-progress request using this Stripe Idempotency Key (that \
                               probably means you submitted twice, and the other request is still going through).";
                error(409, "idempotency_error", Some("idempotency_key_in_use"), message, json!({}))
                    .with("stripe-should-retry", "true")
            }
            Refusal::ServerError => error(500, "api_error", None, "An unknown error occurred.", json!({})),
            Refusal::NoBalance => {
                let message = "Insufficient funds in your Stripe balance to refund this amount.";
                error(400, kind, Some("balance_insufficient"), message, json!({}))
            }
        }
    }

    fn oddities(call: &Call) -> Vec<Flaw> {
        let version = call.header("stripe-version");
        if version == VERSION {
            return Vec::new();
        }
        vec![Flaw::other(&format!("Stripe-Version is {version:?}, and {VERSION} is played here"))]
    }

    /// "Results are only saved if an endpoint started executing": also a 402, also a 500.
    fn keeps(reply: &Reply) -> bool {
        reply.begun && !matches!(reply.status, 401 | 409 | 429)
    }

    fn again(&self, _: &Call, first: Reply) -> Reply {
        first.with("idempotent-replayed", "true")
    }

    fn reused() -> Option<Reply> {
        let message = "Keys for idempotent requests can only be used with the same parameters they were first used \
                       with. Try using a key other than the one used before if you meant to execute a different \
                       request.";
        Some(error(400, "idempotency_error", None, message, json!({})))
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
        self.dispute_intent(payment, outcome, desk)
    }

    fn books(&self) -> Books {
        Books {
            payments: self.intents.iter().map(|intent| self.payment_row(intent)).collect(),
            refunds: self.refunds.iter().filter(|refund| !refund.is_of_hold).map(refund_row).collect(),
            disputes: self.disputes.iter().map(dispute_row).collect(),
        }
    }

    fn secrets(&self) -> Vec<String> {
        self.intents.iter().map(|intent| intent.client_secret.clone()).collect()
    }

    fn write(body: &Value) -> String {
        format!("{body:#}")
    }

    fn sign(secret: &str, message: &Message, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
        let at = now.timestamp();
        let code = signing::hex(secret, format!("{at}.{}", message.text).as_bytes());
        vec![("stripe-signature", format!("t={at},v1={code}"))]
    }
}

impl Stripe {
    fn payment_row(&self, intent: &Intent) -> PaymentRow {
        let of = |minor| amount(minor, &intent.currency);
        let refunds = self.refunds.iter().filter(|refund| refund.intent == intent.id && refund.counts());
        PaymentRow {
            id: intent.id.clone(),
            reference: intent.metadata["order_id"].as_str().unwrap_or_default().to_owned(),
            currency: intent.currency.clone(),
            status: intent.status.word().to_owned(),
            amount: of(intent.amount),
            captured: of(intent.received),
            held: of(if intent.status == Status::RequiresCapture { intent.amount } else { 0 }),
            refunded: of(refunds.map(|refund| refund.amount).sum()),
            created_at: intent.created,
        }
    }
}

fn refund_row(refund: &Refund) -> RefundRow {
    RefundRow {
        id: refund.id.clone(),
        payment: refund.intent.clone(),
        reference: refund.metadata["refund_id"].as_str().unwrap_or_default().to_owned(),
        key: refund.key.clone(),
        currency: refund.currency.clone(),
        status: refund.status.to_owned(),
        amount: amount(refund.amount, &refund.currency),
    }
}

fn dispute_row(dispute: &Dispute) -> DisputeRow {
    DisputeRow {
        id: dispute.id.clone(),
        payment: dispute.intent.clone(),
        currency: dispute.currency.clone(),
        outcome: dispute.outcome,
        amount: amount(dispute.amount, &dispute.currency),
    }
}

/// What Stripe says of the first mistake: parameters are named as a form names them.
fn malformed(flaws: &[Flaw]) -> Reply {
    let Some(flaw) = flaws.first() else { return invalid(None, "Invalid request", "") };
    let mut segments = flaw.at.split('/').skip(1);
    let first = segments.next().unwrap_or_default().to_owned();
    let param = segments.fold(first, |param, segment| format!("{param}[{segment}]"));
    let (code, message) = match flaw.kind {
        FlawKind::Unknown => (Some("parameter_unknown"), format!("Received unknown parameter: {param}")),
        FlawKind::Missing => (Some("parameter_missing"), format!("Missing required param: {param}.")),
        FlawKind::Length | FlawKind::Value | FlawKind::Other => (None, format!("Invalid {param}: {}", flaw.what)),
    };
    invalid(code, &message, &param).unbegun()
}

#[cfg(test)]
mod tests;
