//! PayPal's events, and how they become ours. An event about a refund or a dispute names the capture, not the order.

use domain::money::Money;
use domain::ports::{WebhookEvent, WebhookKind, WebhookSubject};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::money::Amount;
use super::objects::{Link, PurchaseUnit, StatusDetails};

/// Where the order of an event is.
pub(super) enum Place {
    /// Its id is known, or none can be had.
    Here(String),
    /// Behind the refund, capture or authorization of that id.
    Behind(PartKind, String),
}

#[derive(Clone, Copy)]
pub(super) enum PartKind {
    Refund,
    Capture,
    Authorization,
}

impl Place {
    /// The order's id, or whatever else names what the event is about.
    fn id(&self) -> &str {
        match self {
            Self::Here(id) | Self::Behind(_, id) => id,
        }
    }
}

impl PartKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Refund => "refunds",
            Self::Capture => "captures",
            Self::Authorization => "authorizations",
        }
    }
}

/// Any object of an event, or the capture or authorization behind it.
#[derive(Default, Deserialize)]
pub(super) struct Resource {
    id: Option<String>,
    order_id: Option<String>,
    status: Option<String>,
    pub(super) custom_id: Option<String>,
    amount: Option<Amount>,
    status_details: Option<StatusDetails>,
    #[serde(default)]
    supplementary_data: SupplementaryData,
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default)]
    purchase_units: Vec<PurchaseUnit>,
}

#[derive(Default, Deserialize)]
struct SupplementaryData {
    #[serde(default)]
    related_ids: RelatedIds,
}

#[derive(Default, Deserialize)]
struct RelatedIds {
    order_id: Option<String>,
    capture_id: Option<String>,
}

#[derive(Deserialize)]
struct Dispute {
    dispute_id: String,
    reason: Option<String>,
    dispute_amount: Option<Amount>,
    dispute_outcome: Option<DisputeOutcome>,
    disputed_transactions: Vec<DisputedTransaction>,
}

#[derive(Deserialize)]
struct DisputeOutcome {
    outcome_code: Option<String>,
}

#[derive(Deserialize)]
struct DisputedTransaction {
    seller_transaction_id: Option<String>,
}

impl Resource {
    /// Where its order is; none if it does not say.
    pub(super) fn place(&self) -> Option<Place> {
        if let Some(order) = &self.supplementary_data.related_ids.order_id {
            return Some(Place::Here(order.clone()));
        }
        // Only the path counts: whatever host PayPal names, it is reached where we reach it.
        let up = Url::parse(&Link::find(&self.links, &["up"])?).ok()?;
        let mut segments = up.path_segments()?.rev();
        let (id, kind) = (segments.next()?.to_owned(), segments.next()?);
        match kind {
            "orders" => Some(Place::Here(id)),
            "captures" => Some(Place::Behind(PartKind::Capture, id)),
            "authorizations" => Some(Place::Behind(PartKind::Authorization, id)),
            _ => None,
        }
    }

    fn own_id(&self) -> Result<String, String> {
        self.id.clone().ok_or_else(|| "an object without an id".to_owned())
    }

    /// Our id of a refund, if that is what it carries.
    fn reference(&self) -> Option<Uuid> {
        self.custom_id.as_deref().and_then(|id| Uuid::parse_str(id).ok())
    }

    fn reason(&self) -> Option<String> {
        self.status_details.as_ref().and_then(|details| details.reason.clone())
    }
}

/// An event as ours, but for its own id, and where its order is.
pub(super) fn parse(event_type: String, resource: &Value) -> Result<(Place, WebhookEvent), String> {
    match event_type.as_str() {
        "CHECKOUT.ORDER.APPROVED" => of_order(WebhookKind::PaymentApproved, &object(resource)?),
        "CHECKOUT.PAYMENT-APPROVAL.REVERSED" => of_order(WebhookKind::PaymentClosed, &object(resource)?),
        // One that is still examined holds nothing yet.
        "PAYMENT.AUTHORIZATION.CREATED" if resource["status"] != "PENDING" => {
            of_part(WebhookKind::PaymentAuthorized, PartKind::Authorization, &object(resource)?)
        }
        "PAYMENT.AUTHORIZATION.VOIDED" => {
            of_part(WebhookKind::PaymentClosed, PartKind::Authorization, &object(resource)?)
        }
        "PAYMENT.CAPTURE.COMPLETED" => of_part(WebhookKind::PaymentCaptured, PartKind::Capture, &object(resource)?),
        "PAYMENT.CAPTURE.DENIED" | "PAYMENT.CAPTURE.DECLINED" => {
            of_part(WebhookKind::PaymentFailed, PartKind::Capture, &object(resource)?)
        }
        "PAYMENT.CAPTURE.REFUNDED" => {
            let refund = object::<Resource>(resource)?;
            of_refund(refund_kind(refund.status.as_deref()), &refund)
        }
        "PAYMENT.REFUND.PENDING" => of_refund(WebhookKind::RefundPending, &object(resource)?),
        "PAYMENT.REFUND.FAILED" => of_refund(WebhookKind::RefundFailed, &object(resource)?),
        "PAYMENT.CAPTURE.REVERSED" => of_refund(WebhookKind::DisputeLost, &object(resource)?),
        "CUSTOMER.DISPUTE.CREATED" => of_dispute(WebhookKind::DisputeOpened, object(resource)?),
        "CUSTOMER.DISPUTE.RESOLVED" => {
            let dispute = object::<Dispute>(resource)?;
            of_dispute(dispute.outcome().unwrap_or(WebhookKind::Other(event_type)), dispute)
        }
        _ => of_something(event_type, resource),
    }
}

fn object<T: DeserializeOwned>(resource: &Value) -> Result<T, String> {
    T::deserialize(resource).map_err(|error| error.to_string())
}

fn of_order(kind: WebhookKind, order: &Resource) -> Result<(Place, WebhookEvent), String> {
    let unit = order.purchase_units.first();
    let id = order.order_id.clone().map_or_else(|| order.own_id(), Ok)?;
    let order_id = unit.and_then(|unit| unit.custom_id.as_deref()).and_then(|id| id.parse().ok());
    let amount = money(unit.and_then(|unit| unit.amount.as_ref()))?;
    Ok((Place::Here(id.clone()), WebhookEvent { order_id, amount, ..event(kind, id) }))
}

fn of_part(kind: WebhookKind, part_kind: PartKind, part: &Resource) -> Result<(Place, WebhookEvent), String> {
    let place = part.place().map_or_else(|| part.own_id().map(|id| Place::Behind(part_kind, id)), Ok)?;
    let failure = (kind == WebhookKind::PaymentFailed).then(|| part.reason().unwrap_or_else(|| "DECLINED".to_owned()));
    let (order_id, amount) = (part.custom_id.as_deref().and_then(|id| id.parse().ok()), money(part.amount.as_ref())?);
    let id = place.id().to_owned();
    Ok((place, WebhookEvent { order_id, amount, failure, ..event(kind, id) }))
}

/// A refund, or what PayPal has taken back like one.
fn of_refund(kind: WebhookKind, refund: &Resource) -> Result<(Place, WebhookEvent), String> {
    let gateway_id = refund.own_id()?;
    let place = refund.place().unwrap_or_else(|| Place::Behind(PartKind::Refund, gateway_id.clone()));
    let (refund_id, failure) = match kind {
        WebhookKind::DisputeLost => (None, Some(refund.reason().unwrap_or_else(|| "REVERSED".to_owned()))),
        WebhookKind::RefundFailed => (refund.reference(), Some(refund.reason().unwrap_or_else(|| "FAILED".to_owned()))),
        WebhookKind::RefundPending
        | WebhookKind::RefundSucceeded
        | WebhookKind::PaymentApproved
        | WebhookKind::PaymentAuthorized
        | WebhookKind::PaymentCaptured
        | WebhookKind::PaymentFailed
        | WebhookKind::PaymentClosed
        | WebhookKind::DisputeOpened
        | WebhookKind::DisputeWon
        | WebhookKind::Other(_) => (refund.reference(), None),
    };
    let (amount, id) = (money(refund.amount.as_ref())?, place.id().to_owned());
    let gateway_id = match (&kind, &place) {
        // A reversal names no dispute: both are known by the capture that they are about.
        (WebhookKind::DisputeLost, Place::Behind(PartKind::Capture, capture)) => capture.clone(),
        (WebhookKind::DisputeLost, _) => refund.supplementary_data.related_ids.capture_id.clone().unwrap_or(gateway_id),
        _ => gateway_id,
    };
    let about = Some(WebhookSubject { gateway_id, refund_id });
    Ok((place, WebhookEvent { amount, failure, about, ..event(kind, id) }))
}

fn of_dispute(kind: WebhookKind, dispute: Dispute) -> Result<(Place, WebhookEvent), String> {
    let transaction = dispute.disputed_transactions.into_iter().find_map(|disputed| disputed.seller_transaction_id);
    let transaction = transaction.ok_or_else(|| "a dispute about no payment".to_owned())?;
    let amount = money(dispute.dispute_amount.as_ref())?;
    let about = Some(WebhookSubject { gateway_id: transaction.clone(), refund_id: None });
    let reason = dispute.reason.map_or_else(String::new, |reason| format!("{reason} "));
    let failure = Some(format!("{reason}({})", dispute.dispute_id));
    let event = WebhookEvent { amount, failure, about, ..event(kind, transaction.clone()) };
    Ok((Place::Behind(PartKind::Capture, transaction), event))
}

/// What we do not act on; PayPal is not asked about it.
fn of_something(event_type: String, resource: &Value) -> Result<(Place, WebhookEvent), String> {
    let ids = [&resource["supplementary_data"]["related_ids"]["order_id"], &resource["id"], &resource["dispute_id"]];
    let id = ids.into_iter().find_map(Value::as_str).ok_or_else(|| "an event about nothing".to_owned())?.to_owned();
    Ok((Place::Here(id.clone()), event(WebhookKind::Other(event_type), id)))
}

/// An event that says no more than this.
fn event(kind: WebhookKind, gateway_payment_id: String) -> WebhookEvent {
    WebhookEvent {
        event_id: String::new(),
        kind,
        gateway_payment_id,
        order_id: None,
        amount: None,
        failure: None,
        about: None,
        at: None,
    }
}

fn money(amount: Option<&Amount>) -> Result<Option<Money>, String> {
    amount.map(|amount| amount.money().map_err(|error| error.to_string())).transpose()
}

/// A refund counts as sent back when PayPal reports it, unless it says otherwise itself.
fn refund_kind(status: Option<&str>) -> WebhookKind {
    match status {
        Some("PENDING") => WebhookKind::RefundPending,
        Some("FAILED" | "CANCELLED") => WebhookKind::RefundFailed,
        Some(_) | None => WebhookKind::RefundSucceeded,
    }
}

impl Dispute {
    /// Who has the money at the end; none when the code alone does not tell, as when PayPal pays one of the two.
    fn outcome(&self) -> Option<WebhookKind> {
        match self.dispute_outcome.as_ref()?.outcome_code.as_deref()? {
            "RESOLVED_SELLER_FAVOUR" | "CANCELED_BY_BUYER" | "DENIED" => Some(WebhookKind::DisputeWon),
            "RESOLVED_BUYER_FAVOUR" | "ACCEPTED" => Some(WebhookKind::DisputeLost),
            _ => None,
        }
    }
}
