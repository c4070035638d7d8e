//! PayPal's orders and what hangs below them, and how they become our payments and refunds.

use domain::ids::OrderId;
use domain::money::{Currency, Money};
use domain::ports::{
    GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, GatewayRefundStatus, ListedRefund, NextAction,
};
use rust_decimal::Decimal;
use serde::Deserialize;
use uuid::Uuid;

use super::money::Amount;

/// An order: what we call a payment. It has one purchase unit, as we make it.
#[derive(Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    status: OrderStatus,
    intent: Option<Intent>,
    #[serde(default)]
    purchase_units: Vec<PurchaseUnit>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum OrderStatus {
    Created,
    Saved,
    PayerActionRequired,
    Approved,
    Voided,
    Completed,
    #[serde(other)]
    Strange,
}

/// What is to become of the money once the customer has agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Intent {
    Capture,
    Authorize,
}

#[derive(Deserialize)]
pub(super) struct PurchaseUnit {
    pub(super) custom_id: Option<String>,
    pub(super) amount: Option<Amount>,
    #[serde(default)]
    payments: Parts,
}

#[derive(Default, Deserialize)]
struct Parts {
    #[serde(default)]
    authorizations: Vec<Authorization>,
    #[serde(default)]
    captures: Vec<Capture>,
    #[serde(default)]
    refunds: Vec<Refund>,
}

#[derive(Deserialize)]
struct Authorization {
    id: String,
    status: AuthorizationStatus,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum AuthorizationStatus {
    Created,
    Pending,
    Captured,
    PartiallyCaptured,
    Denied,
    Voided,
    #[serde(other)]
    Strange,
}

#[derive(Deserialize)]
struct Capture {
    id: String,
    status: CaptureStatus,
    amount: Option<Amount>,
    status_details: Option<StatusDetails>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum CaptureStatus {
    Completed,
    PartiallyRefunded,
    Refunded,
    Pending,
    Declined,
    Failed,
    #[serde(other)]
    Strange,
}

/// A refund of a capture.
#[derive(Deserialize)]
pub(super) struct Refund {
    id: String,
    status: RefundStatus,
    amount: Option<Amount>,
    custom_id: Option<String>,
    status_details: Option<StatusDetails>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum RefundStatus {
    Pending,
    Completed,
    Failed,
    Cancelled,
    #[serde(other)]
    Strange,
}

#[derive(Deserialize)]
pub(super) struct StatusDetails {
    pub(super) reason: Option<String>,
}

/// Where an object's relatives are.
#[derive(Deserialize)]
pub(super) struct Link {
    pub(super) href: String,
    pub(super) rel: String,
}

impl Link {
    /// The address of the first of these relations that there is.
    pub(super) fn find(links: &[Link], relations: &[&str]) -> Option<String> {
        relations
            .iter()
            .find_map(|relation| links.iter().find(|link| link.rel == *relation))
            .map(|link| link.href.clone())
    }
}

/// Where an order stands, and what is needed to go on from there.
pub(super) struct Standing {
    pub(super) payment: GatewayPayment,
    pub(super) intent: Option<Intent>,
    /// What holds the money, by PayPal's id.
    pub(super) authorization: Option<String>,
}

impl Standing {
    /// An order that PayPal does not have any more: it can never take anything.
    pub(super) fn gone(gateway_payment_id: &str, order_id: OrderId, amount: Money) -> Standing {
        let payment = GatewayPayment {
            gateway_payment_id: gateway_payment_id.to_owned(),
            order_id,
            status: GatewayPaymentStatus::Closed,
            amount,
            captured: Decimal::ZERO,
            refunded: Decimal::ZERO,
            next_action: None,
            failure: None,
        };
        Standing { payment, intent: None, authorization: None }
    }
}

/// An answer that PayPal would not give.
pub(super) fn nonsense(what: &str) -> GatewayError {
    GatewayError::Unknown(format!("an answer that makes no sense: {what}"))
}

impl Order {
    /// Where it stands.
    ///
    /// # Errors
    /// [`GatewayError::Unknown`] when it does not say, or says what we do not know.
    pub(super) fn standing(&self) -> Result<Standing, GatewayError> {
        let unit = self.purchase_units.first().ok_or_else(|| nonsense("an order without a purchase unit"))?;
        let order_id = unit.custom_id.as_deref().and_then(|id| id.parse().ok());
        let amount = unit.amount.as_ref().ok_or_else(|| nonsense("an order without an amount"))?.money()?;
        let (parts, currency) = (&unit.payments, amount.currency());
        let status = self.payment_status(parts)?;
        let payment = GatewayPayment {
            gateway_payment_id: self.id.clone(),
            order_id: order_id.ok_or_else(|| nonsense("an order that is none of ours"))?,
            status,
            captured: total(
                parts.captures.iter().filter(|capture| capture.took()).map(|capture| &capture.amount),
                currency,
            )?,
            refunded: parts.refunded(currency)?,
            amount,
            next_action: match status {
                GatewayPaymentStatus::RequiresAction => self.page().map(|url| NextAction::Redirect { url }),
                GatewayPaymentStatus::Pending
                | GatewayPaymentStatus::Approved
                | GatewayPaymentStatus::Authorized
                | GatewayPaymentStatus::Captured
                | GatewayPaymentStatus::Failed
                | GatewayPaymentStatus::Closed => None,
            },
            failure: (status == GatewayPaymentStatus::Failed).then(|| parts.failure()),
        };
        Ok(Standing {
            payment,
            intent: self.intent,
            authorization: self.open_authorizations().next().map(str::to_owned),
        })
    }

    /// The authorizations that hold money, or may yet.
    pub(super) fn open_authorizations(&self) -> impl Iterator<Item = &str> {
        self.parts().flat_map(|parts| &parts.authorizations).filter(|part| part.is_open()).map(|part| part.id.as_str())
    }

    /// What can be refunded: the capture that took the money, else the one that is about to.
    pub(super) fn capture_id(&self) -> Option<&str> {
        let captures = || self.parts().flat_map(|parts| &parts.captures);
        let taken = captures().find(|capture| capture.took());
        taken
            .or_else(|| captures().find(|capture| capture.status == CaptureStatus::Pending))
            .map(|capture| capture.id.as_str())
    }

    /// Everything that went back.
    pub(super) fn refunds(&self) -> impl Iterator<Item = &Refund> {
        self.parts().flat_map(|parts| &parts.refunds)
    }

    /// The refund made for ours; one that goes through rather than one that has failed.
    pub(super) fn refund(&self, refund_id: Uuid) -> Option<&Refund> {
        let ours = || self.refunds().filter(move |refund| refund.our_id() == Some(refund_id));
        ours().find(|refund| refund.is_live()).or_else(|| ours().next())
    }

    fn parts(&self) -> impl Iterator<Item = &Parts> {
        self.purchase_units.iter().map(|unit| &unit.payments)
    }

    fn page(&self) -> Option<String> {
        Link::find(&self.links, &["payer-action", "approve"])
    }

    /// What has become of the money says more than what the order says of itself.
    fn payment_status(&self, parts: &Parts) -> Result<GatewayPaymentStatus, GatewayError> {
        if parts.is_strange() {
            return Err(nonsense("a capture or authorization of an unknown status"));
        }
        let captured = |status| parts.captures.iter().any(|capture| capture.status == status);
        let authorized = |status| parts.authorizations.iter().any(|part| part.status == status);
        if parts.captures.iter().any(Capture::took) {
            return Ok(GatewayPaymentStatus::Captured);
        }
        if captured(CaptureStatus::Pending) {
            return Ok(GatewayPaymentStatus::Pending);
        }
        if captured(CaptureStatus::Declined) || captured(CaptureStatus::Failed) {
            return Ok(GatewayPaymentStatus::Failed);
        }
        if authorized(AuthorizationStatus::Captured) || authorized(AuthorizationStatus::PartiallyCaptured) {
            return Err(nonsense("an authorization captured by nothing"));
        }
        if authorized(AuthorizationStatus::Created) {
            return Ok(GatewayPaymentStatus::Authorized);
        }
        if authorized(AuthorizationStatus::Pending) {
            return Ok(GatewayPaymentStatus::Pending);
        }
        if authorized(AuthorizationStatus::Denied) {
            return Ok(GatewayPaymentStatus::Failed);
        }
        if authorized(AuthorizationStatus::Voided) {
            return Ok(GatewayPaymentStatus::Closed);
        }
        match self.status {
            OrderStatus::Created | OrderStatus::Saved | OrderStatus::PayerActionRequired => {
                Ok(GatewayPaymentStatus::RequiresAction)
            }
            OrderStatus::Approved => Ok(GatewayPaymentStatus::Approved),
            OrderStatus::Voided => Ok(GatewayPaymentStatus::Closed),
            OrderStatus::Completed => Err(nonsense("a completed order without payments")),
            OrderStatus::Strange => Err(nonsense("an order of an unknown status")),
        }
    }
}

impl Parts {
    fn is_strange(&self) -> bool {
        self.captures.iter().any(|capture| capture.status == CaptureStatus::Strange)
            || self.authorizations.iter().any(|part| part.status == AuthorizationStatus::Strange)
    }

    /// What went back, or is under way.
    fn refunded(&self, currency: Currency) -> Result<Decimal, GatewayError> {
        if self.refunds.iter().any(|refund| refund.status == RefundStatus::Strange) {
            return Err(nonsense("a refund of an unknown status"));
        }
        total(self.refunds.iter().filter(|refund| refund.is_live()).map(|refund| &refund.amount), currency)
    }

    fn failure(&self) -> String {
        let mut reasons = self.captures.iter().filter_map(|capture| capture.status_details.as_ref()?.reason.clone());
        reasons.next_back().unwrap_or_else(|| "DECLINED".to_owned())
    }
}

impl Authorization {
    fn is_open(&self) -> bool {
        match self.status {
            AuthorizationStatus::Created | AuthorizationStatus::Pending => true,
            AuthorizationStatus::Captured
            | AuthorizationStatus::PartiallyCaptured
            | AuthorizationStatus::Denied
            | AuthorizationStatus::Voided
            | AuthorizationStatus::Strange => false,
        }
    }
}

impl Capture {
    fn took(&self) -> bool {
        match self.status {
            CaptureStatus::Completed | CaptureStatus::PartiallyRefunded | CaptureStatus::Refunded => true,
            CaptureStatus::Pending | CaptureStatus::Declined | CaptureStatus::Failed | CaptureStatus::Strange => false,
        }
    }
}

impl Refund {
    /// The customer has it, or will.
    pub(super) fn is_live(&self) -> bool {
        match self.status {
            RefundStatus::Pending | RefundStatus::Completed => true,
            RefundStatus::Failed | RefundStatus::Cancelled | RefundStatus::Strange => false,
        }
    }

    /// # Errors
    /// [`GatewayError::Unknown`] when it does not say how much, or says what we do not know.
    pub(super) fn parse(&self) -> Result<GatewayRefund, GatewayError> {
        let status = match self.status {
            RefundStatus::Pending => GatewayRefundStatus::Pending,
            RefundStatus::Completed => GatewayRefundStatus::Succeeded,
            RefundStatus::Failed | RefundStatus::Cancelled => GatewayRefundStatus::Failed,
            RefundStatus::Strange => return Err(nonsense("a refund of an unknown status")),
        };
        let reason = self.status_details.as_ref().and_then(|details| details.reason.clone());
        Ok(GatewayRefund {
            gateway_refund_id: self.id.clone(),
            amount: self.amount.as_ref().ok_or_else(|| nonsense("a refund without an amount"))?.money()?,
            status,
            failure: match status {
                GatewayRefundStatus::Failed => reason.or_else(|| Some("FAILED".to_owned())),
                GatewayRefundStatus::Pending | GatewayRefundStatus::Succeeded => None,
            },
        })
    }

    /// As the port lists it; none of one that cannot be read.
    pub(super) fn listed(&self) -> Option<ListedRefund> {
        Some(ListedRefund { refund_id: self.our_id(), refund: self.parse().ok()? })
    }

    fn our_id(&self) -> Option<Uuid> {
        self.custom_id.as_deref().and_then(|id| Uuid::parse_str(id).ok())
    }
}

fn total<'a>(
    mut amounts: impl Iterator<Item = &'a Option<Amount>>,
    currency: Currency,
) -> Result<Decimal, GatewayError> {
    let sum = amounts.try_fold(Money::zero(currency), |sum, amount| {
        let amount = amount.as_ref().ok_or_else(|| nonsense("a capture or refund without an amount"))?.money()?;
        sum.checked_add(&amount).map_err(|_| nonsense("amounts that do not add up"))
    })?;
    Ok(sum.amount())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ORDER: &str = "01900000-0000-7000-8000-000000000001";

    fn usd(value: &str) -> Value {
        json!({ "currency_code": "USD", "value": value })
    }

    fn order(status: &str, payments: &Value) -> Order {
        let unit =
            json!({ "reference_id": "default", "custom_id": ORDER, "amount": usd("590.50"), "payments": payments });
        let links = json!([
            { "rel": "self", "href": "https://api/5O1", "method": "GET" },
            { "rel": "payer-action", "href": "https://paypal/5O1", "method": "GET" },
        ]);
        let order = json!({
            "id": "5O1", "status": status, "intent": "CAPTURE", "purchase_units": [unit], "links": links,
            "create_time": "2026-11-29T04:00:00Z", "what_is_new": { "to": ["us"] },
        });
        serde_json::from_value(order).expect("an order")
    }

    fn captured(status: &str) -> Value {
        json!({ "captures": [{ "id": "3C6", "status": status, "amount": usd("590.50") }] })
    }

    fn authorized(status: &str) -> Value {
        json!({ "authorizations": [{ "id": "0AW", "status": status, "amount": usd("590.50") }] })
    }

    #[test]
    fn every_status_of_the_table_has_its_meaning() {
        use GatewayPaymentStatus::{Approved, Authorized, Captured, Closed, Failed, Pending, RequiresAction};
        let none = json!({});
        for (status, payments, expected) in [
            ("CREATED", none.clone(), Some(RequiresAction)),
            ("SAVED", none.clone(), Some(RequiresAction)),
            ("PAYER_ACTION_REQUIRED", none.clone(), Some(RequiresAction)),
            ("APPROVED", none.clone(), Some(Approved)),
            ("VOIDED", none.clone(), Some(Closed)),
            ("COMPLETED", none.clone(), None),
            ("ON_THE_MOON", none.clone(), None),
            ("COMPLETED", captured("COMPLETED"), Some(Captured)),
            ("COMPLETED", captured("PARTIALLY_REFUNDED"), Some(Captured)),
            ("COMPLETED", captured("REFUNDED"), Some(Captured)),
            ("COMPLETED", captured("PENDING"), Some(Pending)),
            ("COMPLETED", captured("DECLINED"), Some(Failed)),
            ("COMPLETED", captured("FAILED"), Some(Failed)),
            ("COMPLETED", captured("ON_THE_MOON"), None),
            ("COMPLETED", authorized("CREATED"), Some(Authorized)),
            ("COMPLETED", authorized("PENDING"), Some(Pending)),
            ("COMPLETED", authorized("DENIED"), Some(Failed)),
            ("COMPLETED", authorized("VOIDED"), Some(Closed)),
            ("COMPLETED", authorized("CAPTURED"), None),
            ("COMPLETED", authorized("PARTIALLY_CAPTURED"), None),
            ("COMPLETED", authorized("ON_THE_MOON"), None),
            ("VOIDED", captured("COMPLETED"), Some(Captured)),
        ] {
            let standing = order(status, &payments).standing();
            let is = standing.as_ref().ok().map(|standing| standing.payment.status);
            assert_eq!(is, expected, "{status} {payments}");
            if let Err(error) = standing {
                assert!(matches!(error, GatewayError::Unknown(_)), "{status} {payments}: {error}");
            }
        }
    }

    #[test]
    fn only_an_order_that_waits_for_the_customer_has_a_page() {
        let page = |status, payments: &Value| order(status, payments).standing().expect("sense").payment.next_action;
        let expected = Some(NextAction::Redirect { url: "https://paypal/5O1".to_owned() });
        assert_eq!(page("PAYER_ACTION_REQUIRED", &json!({})), expected);
        assert_eq!(page("APPROVED", &json!({})), None);
        assert_eq!(page("COMPLETED", &captured("COMPLETED")), None);
    }

    #[test]
    fn what_was_taken_and_what_went_back_are_sums() {
        let refunds: Vec<Value> = ["COMPLETED", "PENDING", "FAILED", "CANCELLED"]
            .iter()
            .zip(["1.00", "2.00", "4.00", "8.00"])
            .map(|(status, value)| json!({ "id": value, "status": status, "amount": usd(value) }))
            .collect();
        let payments = json!({
            "captures": [
                { "id": "A", "status": "PARTIALLY_REFUNDED", "amount": usd("500.00") },
                { "id": "B", "status": "COMPLETED", "amount": usd("90.50") },
                { "id": "C", "status": "DECLINED", "amount": usd("700.00") },
                { "id": "D", "status": "PENDING", "amount": usd("800.00") },
            ],
            "refunds": refunds,
        });
        let payment = order("COMPLETED", &payments).standing().expect("sense").payment;
        assert_eq!(payment.order_id, ORDER.parse().expect("an id"));
        assert_eq!((payment.captured, payment.refunded), (Decimal::new(59050, 2), Decimal::new(300, 2)));
    }

    #[test]
    fn money_that_does_not_add_up_makes_no_sense() {
        let of = |captures: Value, refunds: Value| json!({ "captures": captures, "refunds": refunds });
        let taken = json!([{ "id": "A", "status": "COMPLETED", "amount": usd("590.50") }]);
        for payments in [
            of(json!([{ "id": "A", "status": "COMPLETED" }]), json!([])),
            of(
                json!([{ "id": "A", "status": "COMPLETED", "amount": { "currency_code": "EUR", "value": "1.00" } }]),
                json!([]),
            ),
            of(taken.clone(), json!([{ "id": "R", "status": "COMPLETED", "amount": usd("1.001") }])),
            of(taken, json!([{ "id": "R", "status": "ON_THE_MOON", "amount": usd("1.00") }])),
        ] {
            let standing = order("COMPLETED", &payments).standing();
            assert!(matches!(standing.map(|standing| standing.payment), Err(GatewayError::Unknown(_))), "{payments}");
        }
    }

    #[test]
    fn a_failed_capture_says_why() {
        let details = json!({ "reason": "TRANSACTION_APPROVED_AWAITING_FUNDING" });
        let payments = json!({ "captures": [{ "id": "A", "status": "DECLINED", "status_details": details }] });
        let payment = order("COMPLETED", &payments).standing().expect("sense").payment;
        assert_eq!(payment.failure.as_deref(), Some("TRANSACTION_APPROVED_AWAITING_FUNDING"));
        let payment = order("COMPLETED", &captured("FAILED")).standing().expect("sense").payment;
        assert_eq!(payment.failure.as_deref(), Some("DECLINED"));
    }

    #[test]
    fn every_status_of_a_refund_has_its_meaning() {
        for (status, expected, failure) in [
            ("PENDING", Some(GatewayRefundStatus::Pending), None),
            ("COMPLETED", Some(GatewayRefundStatus::Succeeded), None),
            ("FAILED", Some(GatewayRefundStatus::Failed), Some("ECHECK")),
            ("CANCELLED", Some(GatewayRefundStatus::Failed), Some("ECHECK")),
            ("ON_THE_MOON", None, None),
        ] {
            let refund = json!({
                "id": "1JU", "status": status, "amount": usd("1.00"), "status_details": { "reason": "ECHECK" },
            });
            let refund = serde_json::from_value::<Refund>(refund).expect("a refund").parse();
            assert_eq!(refund.as_ref().ok().map(|refund| refund.status), expected, "{status}");
            assert_eq!(refund.ok().and_then(|refund| refund.failure).as_deref(), failure, "{status}");
        }
        let without_amount = json!({ "id": "1JU", "status": "COMPLETED" });
        assert!(serde_json::from_value::<Refund>(without_amount).expect("a refund").parse().is_err());
    }

    #[test]
    fn a_refund_is_found_by_our_id_and_rather_one_that_goes_through() {
        let [ours, other] = [1, 2].map(Uuid::from_u128);
        let refund = |id: &str, status: &str, custom_id: Uuid| json!({ "id": id, "status": status, "amount": usd("1.00"), "custom_id": custom_id });
        let found = |refunds: Value| {
            let order = order("COMPLETED", &json!({ "refunds": refunds }));
            order.refund(ours).map(|refund| refund.id.clone())
        };
        assert_eq!(
            found(json!([refund("A", "COMPLETED", other), refund("B", "COMPLETED", ours)])).as_deref(),
            Some("B")
        );
        assert_eq!(found(json!([refund("A", "FAILED", ours), refund("B", "PENDING", ours)])).as_deref(), Some("B"));
        assert_eq!(found(json!([refund("A", "FAILED", ours)])).as_deref(), Some("A"));
        assert_eq!(found(json!([refund("A", "COMPLETED", other), { "id": "C", "status": "COMPLETED" }])), None);
    }

    #[test]
    fn what_is_refunded_is_the_capture_that_took_the_money() {
        let capture =
            |captures: Value| order("COMPLETED", &json!({ "captures": captures })).capture_id().map(str::to_owned);
        let [declined, pending, completed] = ["DECLINED", "PENDING", "COMPLETED"]
            .map(|status| json!({ "id": status, "status": status, "amount": usd("1.00") }));
        assert_eq!(capture(json!([declined, pending, completed])).as_deref(), Some("COMPLETED"));
        assert_eq!(capture(json!([declined, pending])).as_deref(), Some("PENDING"));
        assert_eq!(capture(json!([declined])), None);
    }
}
