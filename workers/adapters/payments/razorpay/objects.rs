//! Razorpay's orders and payments, and how they become ours.
//!
//! A payment of ours is an order of its (`order_…`). A customer may try several times to pay one order; each try
//! is a payment there (`pay_…`), and what has been taken is the sum over them. Fields that are not named here
//! are ignored; a status that is not is an answer that makes no sense.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::money::Money;
use domain::ports::{GatewayError, GatewayPayment, GatewayPaymentStatus, ListedPayment, NextAction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::money;
use crate::payments::reading;

/// How long the page that the customer pays in stays open, in seconds: the shop's usual payment window.
const PAGE_OPEN_S: u32 = 480;

/// The name of the note that keeps where the page sends the customer afterwards.
pub(super) const RETURN_URL: &str = "return_url";

/// A list, or a page of one.
#[derive(Deserialize)]
pub(super) struct Collection<T> {
    pub(super) items: Vec<T>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    status: OrderStatus,
    pub(super) receipt: Option<String>,
    /// An object; when there are none, an empty array.
    #[serde(default)]
    notes: Value,
    pub(super) created_at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OrderStatus {
    Created,
    Attempted,
    /// A payment was captured; it stays so when the money goes back.
    Paid,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Payment {
    pub(super) id: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    status: PaymentStatus,
    /// Tells a payment that was given back from a hold that has lapsed: both are `refunded`.
    #[serde(default)]
    captured: bool,
    #[serde(default)]
    amount_refunded: Option<i64>,
    #[serde(default)]
    error_reason: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
    created_at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PaymentStatus {
    Created,
    Authorized,
    Captured,
    Refunded,
    Failed,
}

impl Payment {
    /// What was taken by it, in the smallest unit; what went back since is still in it.
    pub(super) fn taken(&self) -> i64 {
        match self.status {
            PaymentStatus::Captured => self.amount,
            PaymentStatus::Refunded if self.captured => self.amount,
            PaymentStatus::Refunded | PaymentStatus::Created | PaymentStatus::Authorized | PaymentStatus::Failed => 0,
        }
    }

    /// What of it has gone back, or is on its way.
    fn returned(&self) -> i64 {
        if self.taken() > 0 { self.amount_refunded.unwrap_or_default() } else { 0 }
    }

    /// What can still go back.
    pub(super) fn left(&self) -> i64 {
        self.taken() - self.returned()
    }

    /// Why it failed, if it did.
    fn failure(&self) -> Option<&str> {
        match self.status {
            PaymentStatus::Failed => {
                let said = [&self.error_reason, &self.error_description].into_iter().flatten();
                Some(said.map(String::as_str).find(|said| !said.is_empty()).unwrap_or("failed"))
            }
            PaymentStatus::Created | PaymentStatus::Authorized | PaymentStatus::Captured | PaymentStatus::Refunded => {
                None
            }
        }
    }
}

/// An order, and the tries to pay it, the oldest first.
pub(super) struct Standing {
    pub(super) order: Order,
    pub(super) payments: Vec<Payment>,
}

impl Standing {
    /// Neither a try in another currency nor an order that is paid by nothing makes sense.
    pub(super) fn new(order: Order, mut payments: Vec<Payment>) -> Result<Standing, GatewayError> {
        payments.sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
        if let Some(strange) = payments.iter().find(|payment| payment.currency != order.currency) {
            return Err(GatewayError::Unknown(format!("{} is in another currency than {}", strange.id, order.id)));
        }
        let standing = Standing { order, payments };
        if standing.order.status == OrderStatus::Paid && standing.taken() == 0 {
            return Err(GatewayError::Unknown(format!("{} is paid, and by no payment", standing.order.id)));
        }
        Ok(standing)
    }

    /// The try whose money is set aside and may be taken: of that amount, if there is one.
    pub(super) fn authorized(&self, amount: i64) -> Option<&Payment> {
        let authorized = || self.payments.iter().filter(|payment| payment.status == PaymentStatus::Authorized);
        authorized().find(|payment| payment.amount == amount).or_else(|| authorized().next())
    }

    pub(super) fn status(&self) -> GatewayPaymentStatus {
        if self.taken() > 0 {
            GatewayPaymentStatus::Captured
        } else if self.payments.iter().any(|payment| payment.status == PaymentStatus::Authorized) {
            GatewayPaymentStatus::Authorized
        } else {
            // Also when every try has failed, or what was set aside has lapsed: there may be another.
            GatewayPaymentStatus::RequiresAction
        }
    }

    /// As it is after one of the tries has become `payment`.
    pub(super) fn with(mut self, payment: Payment) -> Result<Standing, GatewayError> {
        self.payments.retain(|known| known.id != payment.id);
        self.payments.push(payment);
        Standing::new(self.order, self.payments)
    }

    /// As the port has it. The page is opened with what everybody may see.
    pub(super) fn read(&self, order_id: OrderId, key_id: &str) -> Result<GatewayPayment, GatewayError> {
        let major = |minor| money::from_minor_units(minor, &self.order.currency);
        let status = self.status();
        let is_unpaid = status == GatewayPaymentStatus::RequiresAction;
        let failure = self.payments.iter().rev().find_map(Payment::failure);
        Ok(GatewayPayment {
            gateway_payment_id: self.order.id.clone(),
            order_id,
            status,
            amount: major(self.order.amount)?,
            captured: major(self.taken())?.amount(),
            refunded: major(self.payments.iter().map(Payment::returned).sum())?.amount(),
            next_action: if is_unpaid { self.order.checkout(key_id) } else { None },
            failure: failure.filter(|_| is_unpaid).map(str::to_owned),
        })
    }

    fn taken(&self) -> i64 {
        self.payments.iter().map(Payment::taken).sum()
    }
}

impl Order {
    /// Its page sends the customer there.
    pub(super) fn returning_to(mut self, return_url: &str) -> Order {
        self.notes = json!({ RETURN_URL: return_url });
        self
    }

    /// None for an order that does not say where the page sends the customer: it is none of ours.
    fn checkout(&self, key_id: &str) -> Option<NextAction> {
        let return_url = self.notes.get(RETURN_URL)?.as_str()?;
        let parameters = [
            ("keyId", json!(key_id)),
            ("orderId", json!(self.id)),
            ("amount", json!(self.amount)),
            ("currency", json!(self.currency)),
            ("callbackUrl", json!(return_url)),
            ("timeout", json!(PAGE_OPEN_S)),
        ];
        let parameters = BTreeMap::from(parameters.map(|(name, value)| (name.to_owned(), value)));
        Some(NextAction::Checkout { gateway: super::NAME.to_owned(), parameters })
    }
}

/// A page of its payments as the port lists them: by the order that each pays, since that is the id that the
/// books know. Tries of one order are one payment that took what they took together; one that paid no order
/// keeps its own id. A strange one hides no other, and counts as one that took something.
///
/// An order whose tries are on two pages is listed twice. That does no harm: one that is ours is on the books by
/// its id and is asked about with all its tries, and one that is nobody's is kept by its id when it is first seen
/// to have taken something.
pub(super) fn listed(items: &[Value]) -> Vec<ListedPayment> {
    let mut payments: Vec<ListedPayment> = Vec::new();
    for item in items {
        let read = listed_one(item);
        match payments.iter_mut().find(|known| known.gateway_payment_id == read.gateway_payment_id) {
            Some(known) => known.captured = sum(known.captured.take(), read.captured),
            None => payments.push(read),
        }
    }
    payments
}

/// What cannot be read makes the sum unreadable.
fn sum(left: Option<Money>, right: Option<Money>) -> Option<Money> {
    left.zip(right).and_then(|(left, right)| left.checked_add(&right).ok())
}

fn listed_one(item: &Value) -> ListedPayment {
    let text = |name: &str| item[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let captured = Payment::deserialize(item).ok();
    let captured = captured.and_then(|payment| money::from_minor_units(payment.taken(), &payment.currency).ok());
    ListedPayment {
        gateway_payment_id: reading::listed_id(text("order_id").or_else(|| text("id")).as_deref(), item),
        // It says which of its orders was paid, not which of ours.
        order_id: None,
        reference: text("description").or_else(|| text("id")),
        captured,
    }
}

/// Our name for one attempt to pay an order, which it keeps as the receipt: `<order id>-<attempt>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) order_id: OrderId,
    pub(super) attempt: u32,
}

/// Highest attempt whose receipt has no more than the 40 characters that it keeps.
pub(super) const MAX_ATTEMPT: u32 = 999;

impl Receipt {
    /// Reads what [`Receipt::to_string`] has written; none for what is not ours.
    pub(super) fn parse(text: &str) -> Option<Receipt> {
        let (order_id, attempt) = text.rsplit_once('-')?;
        Some(Receipt { order_id: order_id.parse().ok()?, attempt: attempt.parse().ok()? })
    }
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.order_id, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    fn order(status: &str) -> Order {
        serde_json::from_value(json!({
            "id": "order_1", "entity": "order", "amount": 10_000, "amount_paid": 0, "amount_due": 10_000, "currency": "INR",
            "receipt": null, "status": status, "attempts": 1, "notes": [], "created_at": 1_800_000_000, "checkout": null,
        }))
        .unwrap()
    }

    fn payment(id: &str, status: &str, captured: bool, refunded: i64) -> Payment {
        serde_json::from_value(json!({
            "id": id, "entity": "payment", "amount": 10_000, "currency": "INR", "status": status, "order_id": "order_1",
            "method": "upi", "amount_refunded": refunded, "captured": captured, "notes": [],
            "created_at": 1_800_000_000, "error_code": "", "error_description": "", "error_reason": null,
        }))
        .unwrap()
    }

    fn read(order_status: &str, payments: Vec<Payment>) -> Result<GatewayPayment, GatewayError> {
        Standing::new(order(order_status), payments)?.read(OrderId::generate(), "rzp_key")
    }

    #[test]
    fn an_orders_tries_together_say_where_it_stands() {
        use GatewayPaymentStatus::{Authorized, Captured, RequiresAction};
        let pay = payment;
        for (tries, status, captured, refunded) in [
            (vec![], RequiresAction, 0, 0),
            (vec![pay("a", "created", false, 0)], RequiresAction, 0, 0),
            (vec![pay("a", "failed", false, 0)], RequiresAction, 0, 0),
            // Its own samples have failed and authorized payments that are `captured`.
            (vec![pay("a", "failed", true, 0)], RequiresAction, 0, 0),
            (vec![pay("a", "authorized", true, 0)], Authorized, 0, 0),
            (vec![pay("a", "failed", false, 0), pay("b", "authorized", false, 0)], Authorized, 0, 0),
            (vec![pay("a", "authorized", false, 0), pay("b", "failed", false, 0)], Authorized, 0, 0),
            (vec![pay("a", "captured", true, 0)], Captured, 100, 0),
            (vec![pay("a", "captured", true, 4_000)], Captured, 100, 40),
            (vec![pay("a", "refunded", true, 10_000)], Captured, 100, 100),
            // A hold that has lapsed went back without having been taken.
            (vec![pay("a", "refunded", false, 10_000)], RequiresAction, 0, 0),
            (vec![pay("a", "refunded", false, 10_000), pay("b", "captured", true, 0)], Captured, 100, 0),
            (vec![pay("a", "captured", true, 1_000), pay("b", "captured", true, 2_000)], Captured, 200, 30),
            (vec![pay("a", "captured", true, 0), pay("b", "authorized", false, 0)], Captured, 100, 0),
        ] {
            let read = read("attempted", tries.clone()).unwrap();
            assert_eq!(
                (read.status, read.captured, read.refunded),
                (status, Decimal::from(captured), Decimal::from(refunded)),
                "{tries:?}"
            );
        }
    }

    #[test]
    fn the_last_try_that_failed_says_why_it_is_not_paid() {
        let failed = |id: &str, reason: Option<&str>, description: &str, created_at| Payment {
            error_reason: reason.map(str::to_owned),
            error_description: Some(description.to_owned()),
            created_at,
            ..payment(id, "failed", false, 0)
        };
        let late = failed("a", Some("incorrect_pin"), "The PIN was wrong", 2);
        let early = failed("b", None, "Payment failed", 1);
        let why = |payments| read("attempted", payments).unwrap().failure;
        assert_eq!(why(vec![late.clone(), early.clone()]).as_deref(), Some("incorrect_pin"));
        assert_eq!(why(vec![early.clone()]).as_deref(), Some("Payment failed"));
        assert_eq!(why(vec![payment("c", "failed", false, 0)]).as_deref(), Some("failed"));
        assert_eq!(why(vec![late, payment("d", "captured", true, 0)]), None);
    }

    #[test]
    fn what_makes_no_sense_is_unknown() {
        let dollars = Payment { currency: "USD".to_owned(), ..payment("a", "captured", true, 0) };
        for (what, read) in [
            ("paid by nothing", read("paid", vec![payment("a", "failed", false, 0)])),
            ("another currency", read("attempted", vec![dollars])),
        ] {
            assert!(matches!(read, Err(GatewayError::Unknown(_))), "{what}: {read:?}");
        }
        assert!(read("paid", vec![payment("a", "refunded", true, 10_000)]).is_ok(), "it stays paid when it goes back");
        let strange =
            |status: &str| json!({ "id": "a", "amount": 1, "currency": "INR", "status": status, "created_at": 1 });
        assert!(serde_json::from_value::<Payment>(strange("failed")).is_ok());
        assert!(serde_json::from_value::<Payment>(strange("disputed")).is_err());
    }

    #[test]
    fn a_receipt_is_read_back_and_fits() {
        let receipt = Receipt { order_id: OrderId::generate(), attempt: MAX_ATTEMPT };
        assert_eq!(receipt.to_string().len(), 40);
        assert_eq!(Receipt::parse(&receipt.to_string()), Some(receipt));
        for strange in ["", "1", "Receipt No. 1", "a-1", "0190-x"] {
            assert_eq!(Receipt::parse(strange), None, "{strange}");
        }
    }

    #[test]
    fn an_orders_tries_are_listed_as_one_payment() {
        let item = |id: &str, order: Value, status: &str, amount: Value| {
            json!({ "id": id, "order_id": order, "amount": amount, "currency": "INR", "status": status,
                    "captured": status == "captured", "created_at": 1, "description": null })
        };
        let listed = listed(&[
            item("pay_1", json!("order_1"), "failed", json!(100)),
            item("pay_2", json!("order_2"), "captured", json!(300)),
            item("pay_3", json!("order_1"), "captured", json!(100)),
            item("pay_4", json!("order_1"), "captured", json!(200)),
            item("pay_5", Value::Null, "captured", json!(400)),
            item("pay_6", json!("order_3"), "failed", json!(100)),
        ]);
        let rupees = |minor| money::from_minor_units(minor, "INR").ok();
        let seen: Vec<_> = listed.iter().map(|one| (one.gateway_payment_id.as_str(), one.captured.clone())).collect();
        assert_eq!(
            seen,
            [("order_1", rupees(300)), ("order_2", rupees(300)), ("pay_5", rupees(400)), ("order_3", rupees(0))]
        );
        assert!(listed.iter().all(|one| one.order_id.is_none() && one.reference.is_some()));
    }

    #[test]
    fn a_strange_payment_in_a_list_hides_no_other() {
        let long = "x".repeat(reading::MAX_ID + 1);
        let good = json!({ "id": "pay_1", "order_id": "order_1", "amount": 1, "currency": "INR", "status": "failed", "created_at": 1 });
        for strange in [
            json!({}),
            json!(7),
            json!({ "id": long, "status": "failed" }),
            json!({ "id": "pay_2", "order_id": "order_1", "amount": "1", "status": "failed" }),
            json!({ "id": "pay_2", "amount": 1, "currency": "XXL", "status": "captured", "created_at": 1 }),
        ] {
            let listed = listed(&[good.clone(), strange.clone()]);
            assert!(listed.iter().any(|one| !one.took_nothing()), "{strange}: {listed:?}");
            assert!(
                listed.iter().all(|one| (1..=reading::MAX_ID).contains(&one.gateway_payment_id.len())),
                "{strange}"
            );
        }
    }
}
