//! What PayPal keeps, and how it shows it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use crate::{books::Outcome, money::Amount};

/// A moment as PayPal writes it.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn money(amount: Amount, currency: &str) -> Value {
    json!({ "currency_code": currency, "value": amount.decimal().to_string() })
}

fn link(base: &str, path: &str, rel: &str, method: &str) -> Value {
    json!({ "href": format!("{base}{path}"), "rel": rel, "method": method })
}

/// PayPal leaves out what is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, member)| !member.is_null());
            Value::Object(kept.map(|(name, member)| (name, without_nulls(member))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderStatus {
    Created,
    PayerActionRequired,
    Approved,
    Completed,
}

impl OrderStatus {
    pub(super) fn word(self) -> &'static str {
        match self {
            OrderStatus::Created => "CREATED",
            OrderStatus::PayerActionRequired => "PAYER_ACTION_REQUIRED",
            OrderStatus::Approved => "APPROVED",
            OrderStatus::Completed => "COMPLETED",
        }
    }
}

/// What the payer pays with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Funding {
    Balance,
    /// Takes days.
    Echeck,
    /// PayPal looks at it first.
    Review,
    /// Declined as soon as it is to be taken; the payer may choose another.
    Declined,
    /// Taken, and declined for good.
    Denied,
}

#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) is_capture: bool,
    pub(super) status: OrderStatus,
    pub(super) reference_id: String,
    pub(super) custom_id: Option<String>,
    pub(super) invoice_id: Option<String>,
    pub(super) currency: String,
    pub(super) amount: Amount,
    /// It names PayPal's wallet as what it is paid with.
    pub(super) has_source: bool,
    pub(super) return_url: Option<String>,
    pub(super) cancel_url: Option<String>,
    pub(super) funding: Funding,
    pub(super) is_expired: bool,
    pub(super) authorization: Option<Authorization>,
    pub(super) captures: Vec<Capture>,
    pub(super) refunds: Vec<Refund>,
    pub(super) created: DateTime<Utc>,
    pub(super) updated: DateTime<Utc>,
}

impl Order {
    /// What is set aside, in minor units.
    pub(super) fn held(&self) -> i64 {
        let taken: i64 = self.captures.iter().map(|capture| capture.amount.minor).sum();
        match &self.authorization {
            Some(held) if matches!(held.status, "CREATED" | "PENDING" | "PARTIALLY_CAPTURED") && !held.is_closed => {
                (held.amount.minor - taken).max(0)
            }
            Some(_) | None => 0,
        }
    }

    pub(super) fn capture(&self, id: &str) -> Option<&Capture> {
        self.captures.iter().find(|capture| capture.id == id)
    }

    pub(super) fn refund(&self, id: &str) -> Option<&Refund> {
        self.refunds.iter().find(|refund| refund.id == id)
    }

    /// One of its parts by its id.
    pub(super) fn part(&self, id: &str, base: &str) -> Option<Value> {
        let authorization = self.authorization.as_ref().filter(|held| held.id == id);
        authorization
            .map(|held| held.to_json(self, true, base))
            .or_else(|| self.capture(id).map(|capture| capture.to_json(self, true, base)))
            .or_else(|| self.refund(id).map(|refund| refund.to_json(self, base)))
    }

    pub(super) fn to_json(&self, base: &str) -> Value {
        let is_approved = matches!(self.status, OrderStatus::Approved | OrderStatus::Completed);
        let wallet = if is_approved {
            json!({ "email_address": "payer@example.com", "account_id": "QYR5Z8XDVJNXQ", "account_status": "VERIFIED" })
        } else {
            json!({})
        };
        let source = (self.has_source || is_approved).then(|| json!({ "paypal": wallet }));
        without_nulls(json!({
            "id": self.id, "intent": if self.is_capture { "CAPTURE" } else { "AUTHORIZE" },
            "status": self.status.word(), "payment_source": source, "purchase_units": [{
                "reference_id": self.reference_id, "amount": money(self.amount, &self.currency),
                "custom_id": self.custom_id, "invoice_id": self.invoice_id, "payments": self.payments(base),
            }],
            "create_time": time(self.created), "update_time": time(self.updated), "links": self.links(base),
        }))
    }

    fn payments(&self, base: &str) -> Option<Value> {
        let authorizations: Vec<Value> =
            self.authorization.iter().map(|held| held.to_json(self, false, base)).collect();
        let captures: Vec<Value> = self.captures.iter().map(|capture| capture.to_json(self, false, base)).collect();
        let refunds: Vec<Value> = self.refunds.iter().map(|refund| refund.to_json(self, base)).collect();
        let lists = [("authorizations", authorizations), ("captures", captures), ("refunds", refunds)];
        let lists: Map<String, Value> = lists
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| (name.to_owned(), Value::Array(list)))
            .collect();
        (!lists.is_empty()).then_some(Value::Object(lists))
    }

    fn links(&self, base: &str) -> Value {
        let own = format!("/v2/checkout/orders/{}", self.id);
        let mut links = vec![link(base, &own, "self", "GET")];
        match self.status {
            OrderStatus::Created => {
                links.push(link(base, &format!("/checkoutnow?token={}", self.id), "approve", "GET"))
            }
            OrderStatus::PayerActionRequired => {
                links.push(link(base, &format!("/checkoutnow?token={}", self.id), "payer-action", "GET"));
            }
            OrderStatus::Approved => {
                let verb = if self.is_capture { "capture" } else { "authorize" };
                links.push(link(base, &format!("{own}/{verb}"), verb, "POST"));
            }
            OrderStatus::Completed => {}
        }
        Value::Array(links)
    }

    /// The ids that the Payments API adds.
    fn related(&self, with: bool) -> Option<Value> {
        with.then(|| json!({ "related_ids": { "order_id": self.id } }))
    }
}

fn protection() -> Value {
    json!({ "status": "ELIGIBLE", "dispute_categories": ["ITEM_NOT_RECEIVED", "UNAUTHORIZED_TRANSACTION"] })
}

#[derive(Debug, Clone)]
pub(super) struct Authorization {
    pub(super) id: String,
    pub(super) status: &'static str,
    pub(super) amount: Amount,
    /// Nothing more is taken of it.
    pub(super) is_closed: bool,
    pub(super) is_expired: bool,
    pub(super) created: DateTime<Utc>,
    pub(super) updated: DateTime<Utc>,
}

impl Authorization {
    pub(super) fn to_json(&self, order: &Order, with_related: bool, base: &str) -> Value {
        let own = format!("/v2/payments/authorizations/{}", self.id);
        without_nulls(json!({
            "id": self.id, "status": self.status, "amount": money(self.amount, &order.currency),
            "status_details": (self.status == "PENDING").then(|| json!({ "reason": "PENDING_REVIEW" })),
            "invoice_id": order.invoice_id, "custom_id": order.custom_id, "seller_protection": protection(),
            "expiration_time": time(self.created + TimeDelta::days(29)), "create_time": time(self.created),
            "update_time": time(self.updated), "supplementary_data": order.related(with_related), "links": [
                link(base, &own, "self", "GET"), link(base, &format!("{own}/capture"), "capture", "POST"),
                link(base, &format!("{own}/void"), "void", "POST"),
                link(base, &format!("/v2/checkout/orders/{}", order.id), "up", "GET"),
            ],
        }))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Capture {
    pub(super) id: String,
    pub(super) status: &'static str,
    pub(super) why: Option<&'static str>,
    pub(super) amount: Amount,
    pub(super) is_final: bool,
    /// Its authorization, if it has one.
    pub(super) of: Option<String>,
    pub(super) created: DateTime<Utc>,
    pub(super) updated: DateTime<Utc>,
}

impl Capture {
    /// The money is ours.
    pub(super) fn has_money(&self) -> bool {
        matches!(self.status, "COMPLETED" | "PARTIALLY_REFUNDED" | "REFUNDED")
    }

    pub(super) fn to_json(&self, order: &Order, with_related: bool, base: &str) -> Value {
        let own = format!("/v2/payments/captures/{}", self.id);
        let up = match &self.of {
            Some(held) => format!("/v2/payments/authorizations/{held}"),
            None => format!("/v2/checkout/orders/{}", order.id),
        };
        let gross = money(self.amount, &order.currency);
        let nothing = money(Amount { minor: 0, ..self.amount }, &order.currency);
        let breakdown =
            self.has_money().then(|| json!({ "gross_amount": gross, "paypal_fee": nothing, "net_amount": gross }));
        without_nulls(json!({
            "id": self.id, "status": self.status, "status_details": self.why.map(|why| json!({ "reason": why })),
            "amount": gross, "final_capture": self.is_final, "seller_protection": protection(),
            "seller_receivable_breakdown": breakdown, "invoice_id": order.invoice_id, "custom_id": order.custom_id,
            "create_time": time(self.created), "update_time": time(self.updated),
            "supplementary_data": order.related(with_related), "links": [
                link(base, &own, "self", "GET"), link(base, &format!("{own}/refund"), "refund", "POST"),
                link(base, &up, "up", "GET"),
            ],
        }))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) capture: String,
    pub(super) status: &'static str,
    pub(super) amount: Amount,
    pub(super) custom_id: Option<String>,
    pub(super) invoice_id: Option<String>,
    pub(super) note: Option<String>,
    pub(super) key: Option<String>,
    pub(super) created: DateTime<Utc>,
    pub(super) updated: DateTime<Utc>,
}

impl Refund {
    /// Whether the money has left us, or is about to.
    pub(super) fn counts(&self) -> bool {
        matches!(self.status, "COMPLETED" | "PENDING")
    }

    pub(super) fn to_json(&self, order: &Order, base: &str) -> Value {
        let own = format!("/v2/payments/refunds/{}", self.id);
        let amount = money(self.amount, &order.currency);
        let of_capture = order.refunds.iter().filter(|refund| refund.capture == self.capture && refund.counts());
        let total = Amount { minor: of_capture.map(|refund| refund.amount.minor).sum(), ..self.amount };
        let nothing = money(Amount { minor: 0, ..self.amount }, &order.currency);
        without_nulls(json!({
            "id": self.id, "status": self.status, "amount": amount, "custom_id": self.custom_id,
            "status_details": (self.status == "PENDING").then(|| json!({ "reason": "ECHECK" })),
            "invoice_id": self.invoice_id, "note_to_payer": self.note, "seller_payable_breakdown": {
                "gross_amount": amount, "paypal_fee": nothing, "net_amount": amount,
                "total_refunded_amount": money(total, &order.currency),
            },
            "create_time": time(self.created), "update_time": time(self.updated), "links": [
                link(base, &own, "self", "GET"),
                link(base, &format!("/v2/payments/captures/{}", self.capture), "up", "GET"),
            ],
        }))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Dispute {
    pub(super) id: String,
    pub(super) order: String,
    pub(super) capture: String,
    pub(super) currency: String,
    pub(super) amount: Amount,
    pub(super) outcome: Outcome,
    pub(super) created: DateTime<Utc>,
}

impl Dispute {
    pub(super) fn to_json(&self) -> Value {
        let (status, outcome) = match self.outcome {
            Outcome::Open => ("OPEN", None),
            Outcome::Won => ("RESOLVED", Some("RESOLVED_SELLER_FAVOUR")),
            Outcome::Lost => ("RESOLVED", Some("RESOLVED_BUYER_FAVOUR")),
        };
        let amount = money(self.amount, &self.currency);
        without_nulls(json!({
            "dispute_id": self.id, "create_time": time(self.created), "update_time": time(self.created),
            "disputed_transactions": [{ "seller_transaction_id": self.capture, "transaction_status": "COMPLETED",
                                        "gross_amount": amount }],
            "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED", "status": status, "dispute_amount": amount,
            "dispute_life_cycle_stage": "CHARGEBACK", "dispute_channel": "INTERNAL",
            "dispute_outcome": outcome.map(|code| json!({ "outcome_code": code, "amount_refunded": amount })),
        }))
    }
}
