//! The built-in sandbox gateway, reached over HTTP like any other.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use domain::money::{Currency, Money, to_wire};
use domain::ports::{
    GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, ListedPayment, NextAction, PaymentGateway,
    PaymentPage, PaymentRequest, Webhook, WebhookError, WebhookEvent, WebhookKind, Window,
};
use reqwest::{Client, RequestBuilder};
use rust_decimal::Decimal;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::ConfigError;
use super::exchange::exchange;
use super::standard_webhooks::VerifyingKey;

/// The sandbox in fact never forgets a key; a day is what the gateways promise that it stands in for.
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A client of the sandbox gateway.
#[derive(Clone)]
pub struct SandboxGateway {
    base: Url,
    key: VerifyingKey,
    client: Client,
}

impl SandboxGateway {
    /// A client of the gateway at `base_url`, whose webhooks are signed with `secret` (`whsec_<base64>`).
    ///
    /// # Errors
    /// [`ConfigError`] when the address is no http URL or the secret is malformed.
    pub fn new(base_url: &str, secret: &SecretString, client: Client) -> Result<SandboxGateway, ConfigError> {
        let base = Url::parse(base_url)?;
        if !["http", "https"].contains(&base.scheme()) {
            return Err(ConfigError::NotHttp);
        }
        Ok(SandboxGateway { base, key: VerifyingKey::parse(secret)?, client })
    }

    /// The address of a resource below the base; each segment is escaped.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // Only a URL without a host has no segments, and `new` takes none.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn post(&self, segments: &[&str], key: Uuid, body: &serde_json::Value) -> RequestBuilder {
        self.client.post(self.url(segments)).header("Idempotency-Key", key.to_string()).json(body)
    }
}

#[async_trait]
impl PaymentGateway for SandboxGateway {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn key_lifetime(&self) -> Duration {
        KEY_LIFETIME
    }

    async fn initiate(&self, key: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError> {
        let body = json!({
            "orderId": request.order_id,
            "attempt": request.attempt,
            "amount": on_the_wire(&request.amount),
            "currency": request.amount.currency(),
            "method": request.method,
            "token": request.token,
            "returnUrl": request.return_url,
        });
        exchange::<Payment>(self.post(&["v1", "payments"], key, &body)).await?.parse()
    }

    async fn find(&self, order_id: OrderId) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut url = self.url(&["v1", "payments"]);
        url.query_pairs_mut().append_pair("orderId", &order_id.to_string());
        exchange::<Payments>(self.client.get(url)).await?.parse()
    }

    async fn close(&self, key: Uuid, order_id: OrderId) -> Result<Vec<GatewayPayment>, GatewayError> {
        let body = json!({ "orderId": order_id });
        let payments = exchange::<Payments>(self.post(&["v1", "payments", "close"], key, &body)).await?.parse()?;
        match payments.iter().find(|payment| is_open(payment.status)) {
            Some(open) => Err(GatewayError::Unknown(format!("{} is open after the close", open.gateway_payment_id))),
            None => Ok(payments),
        }
    }

    async fn refund(&self, key: Uuid, gateway_payment_id: &str, amount: &Money) -> Result<GatewayRefund, GatewayError> {
        let body = json!({ "amount": on_the_wire(amount) });
        let request = self.post(&["v1", "payments", gateway_payment_id, "refunds"], key, &body);
        let refund = exchange::<Refund>(request).await?;
        Ok(GatewayRefund {
            gateway_refund_id: refund.gateway_refund_id,
            amount: money(refund.amount, &refund.currency)?,
        })
    }

    async fn list(&self, window: Window, page: Option<&str>) -> Result<PaymentPage, GatewayError> {
        let mut url = self.url(&["v1", "payments"]);
        url.query_pairs_mut()
            .append_pair("from", &window.from.to_rfc3339())
            .append_pair("until", &window.until.to_rfc3339())
            .extend_pairs(page.map(|page| ("after", page)));
        let Listing { items, next } = exchange(self.client.get(url)).await?;
        Ok(PaymentPage { payments: items.iter().map(listed).collect(), next })
    }

    fn verify_webhook(
        &self,
        headers: &[(String, String)],
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Webhook, WebhookError> {
        let event_id = self.key.verify(headers, body, now)?;
        Ok(read(event_id, body))
    }
}

fn on_the_wire(money: &Money) -> String {
    to_wire(money.amount(), money.currency())
}

fn is_open(status: GatewayPaymentStatus) -> bool {
    match status {
        GatewayPaymentStatus::Pending | GatewayPaymentStatus::RequiresAction | GatewayPaymentStatus::Authorized => true,
        GatewayPaymentStatus::Captured | GatewayPaymentStatus::Failed | GatewayPaymentStatus::Closed => false,
    }
}

/// An amount that does not fit its currency is an answer that makes no sense.
fn money(amount: Decimal, currency: &str) -> Result<Money, GatewayError> {
    currency
        .parse::<Currency>()
        .ok()
        .and_then(|currency| Money::new(amount, currency).ok())
        .ok_or_else(|| GatewayError::Unknown(format!("an answer that makes no sense: {amount} {currency}")))
}

/// The gateway's own statuses, of which there are fewer than ours.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Status {
    Pending,
    RequiresAction,
    Captured,
    Failed,
    Closed,
}

impl From<Status> for GatewayPaymentStatus {
    fn from(status: Status) -> GatewayPaymentStatus {
        match status {
            Status::Pending => GatewayPaymentStatus::Pending,
            Status::RequiresAction => GatewayPaymentStatus::RequiresAction,
            Status::Captured => GatewayPaymentStatus::Captured,
            Status::Failed => GatewayPaymentStatus::Failed,
            Status::Closed => GatewayPaymentStatus::Closed,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payment {
    gateway_payment_id: String,
    order_id: OrderId,
    status: Status,
    amount: Decimal,
    captured_amount: Decimal,
    refunded_amount: Decimal,
    currency: String,
    next_action: Option<NextAction>,
    failure: Option<String>,
}

impl Payment {
    fn parse(self) -> Result<GatewayPayment, GatewayError> {
        Ok(GatewayPayment {
            gateway_payment_id: self.gateway_payment_id,
            order_id: self.order_id,
            status: self.status.into(),
            amount: money(self.amount, &self.currency)?,
            captured: self.captured_amount,
            refunded: self.refunded_amount,
            next_action: self.next_action,
            failure: self.failure,
        })
    }
}

#[derive(Deserialize)]
struct Payments {
    items: Vec<Payment>,
}

impl Payments {
    fn parse(self) -> Result<Vec<GatewayPayment>, GatewayError> {
        self.items.into_iter().map(Payment::parse).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refund {
    gateway_refund_id: String,
    amount: Decimal,
    currency: String,
}

#[derive(Deserialize)]
struct Listing {
    /// Each is read by itself, so that a strange one hides no other.
    items: Vec<serde_json::Value>,
    next: Option<String>,
}

fn listed(item: &serde_json::Value) -> ListedPayment {
    let text = |name: &str| item[name].as_str().map(str::to_owned);
    let captured = text("capturedAmount").and_then(|amount| amount.parse().ok());
    let captured = captured.zip(text("currency")).and_then(|(amount, currency)| money(amount, &currency).ok());
    let id = text("gatewayPaymentId").filter(|id| id.len() <= MAX_ID);
    ListedPayment {
        // One without an id is somebody's money too.
        gateway_payment_id: id
            .unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, item.to_string().as_bytes()).to_string()),
        order_id: text("orderId").and_then(|id| id.parse().ok()),
        reference: text("orderId"),
        captured,
    }
}

/// Longest id of an event or a payment, in bytes.
const MAX_ID: usize = 255;

/// What was rightly signed, read as far as it can be.
fn read(event_id: &str, body: &[u8]) -> Webhook {
    // An id that is too long for an index still names its event.
    let event_id = match event_id.len() {
        0..=MAX_ID => event_id.to_owned(),
        _ => Uuid::new_v5(&Uuid::NAMESPACE_OID, event_id.as_bytes()).to_string(),
    };
    let read = serde_json::from_slice::<Told>(body).map_err(|error| error.to_string());
    match read.and_then(|told| told.parse(&event_id)) {
        Ok(event) => Webhook::Event(event),
        Err(why) => Webhook::Unreadable { event_id, why },
    }
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    data: WebhookData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebhookData {
    gateway_payment_id: String,
    /// Text, not an id: a payment that is none of our shop's must not make the webhook unreadable.
    order_id: Option<String>,
    amount: Option<Decimal>,
    currency: Option<String>,
    failure: Option<String>,
}

impl Told {
    fn parse(self, event_id: &str) -> Result<WebhookEvent, String> {
        let data = &self.data;
        let texts = [Some(&self.kind), Some(&data.gateway_payment_id), data.failure.as_ref()];
        if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            return Err("a text with a NUL".to_owned());
        }
        if data.gateway_payment_id.is_empty() || data.gateway_payment_id.len() > MAX_ID {
            return Err(format!("a payment's id has 1 to {MAX_ID} bytes"));
        }
        let amount = match (self.data.amount, self.data.currency) {
            (Some(amount), Some(currency)) => Some(money(amount, &currency).map_err(|error| error.to_string())?),
            (Some(_), None) | (None, _) => None,
        };
        Ok(WebhookEvent {
            event_id: event_id.to_owned(),
            kind: kind(self.kind),
            gateway_payment_id: self.data.gateway_payment_id,
            order_id: self.data.order_id.and_then(|id| id.parse().ok()),
            amount,
            failure: self.data.failure,
        })
    }
}

fn kind(name: String) -> WebhookKind {
    match name.as_str() {
        "payment.captured" => WebhookKind::PaymentCaptured,
        "payment.failed" => WebhookKind::PaymentFailed,
        "payment.authorized" => WebhookKind::PaymentAuthorized,
        "refund.succeeded" => WebhookKind::RefundSucceeded,
        "refund.failed" => WebhookKind::RefundFailed,
        _ => WebhookKind::Other(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit as _, Mac as _};

    const SENT: i64 = 1_800_000_000;

    fn webhook(body: &str) -> Result<Webhook, WebhookError> {
        let key = VerifyingKey::parse(&SecretString::from("whsec_ZGV2LXNlY3JldA==")).expect("a key");
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"dev-secret").expect("a key");
        mac.update(format!("evt_1.{SENT}.{body}").as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        let headers = [
            ("webhook-id", "evt_1".to_owned()),
            ("webhook-timestamp", SENT.to_string()),
            ("webhook-signature", format!("v1,{signature}")),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let now = DateTime::from_timestamp(SENT, 0).expect("a time");
        Ok(read(key.verify(&headers, body.as_bytes(), now)?, body.as_bytes()))
    }

    fn event(body: &str) -> WebhookEvent {
        match webhook(body).expect("rightly signed") {
            Webhook::Event(event) => event,
            Webhook::Unreadable { why, .. } => panic!("{why}"),
        }
    }

    #[test]
    fn a_signed_webhook_becomes_an_event() {
        let order_id = OrderId::generate();
        let event = event(&format!(
            r#"{{"type":"payment.failed","data":{{"gatewayPaymentId":"sbx_1","orderId":"{order_id}","amount":"59050.00","currency":"INR","failure":"card_declined"}}}}"#
        ));
        assert_eq!(event.event_id, "evt_1");
        assert_eq!(event.kind, WebhookKind::PaymentFailed);
        assert_eq!(event.order_id, Some(order_id));
        assert_eq!(event.amount, Money::new(Decimal::new(5_905_000, 2), Currency::INR).ok());
        assert_eq!(event.failure.as_deref(), Some("card_declined"));
    }

    #[test]
    fn an_unknown_type_or_a_strange_order_id_is_still_an_event() {
        let event = event(r#"{"type":"dispute.opened","data":{"gatewayPaymentId":"sbx_1","orderId":"42"}}"#);
        assert_eq!(event.kind, WebhookKind::Other("dispute.opened".to_owned()));
        assert_eq!((event.order_id, event.amount), (None, None));
    }

    #[test]
    fn what_is_rightly_signed_is_kept_whatever_it_says() {
        let long = "x".repeat(MAX_ID + 1);
        for body in [
            "not JSON",
            "{}",
            r#"{"type":"payout.paid","data":{"payout":"po_1"}}"#,
            r#"{"type":"payment.captured","data":{"gatewayPaymentId":"sbx_1","amount":"1.234","currency":"INR"}}"#,
            r#"{"type":"payment.captured\u0000","data":{"gatewayPaymentId":"sbx_1"}}"#,
            &format!(r#"{{"type":"payment.captured","data":{{"gatewayPaymentId":"{long}"}}}}"#),
        ] {
            let signed = webhook(body).expect("rightly signed");
            assert!(
                matches!(&signed, Webhook::Unreadable { event_id, .. } if event_id == "evt_1"),
                "{body}: {signed:?}"
            );
        }
    }

    #[test]
    fn a_strange_payment_in_a_list_hides_no_other() {
        let order_id = OrderId::generate();
        let good = listed(
            &json!({ "gatewayPaymentId": "sbx_1", "orderId": order_id, "capturedAmount": "10.00", "currency": "INR" }),
        );
        assert_eq!((good.order_id, good.took_nothing()), (Some(order_id), false));
        for strange in
            [json!({}), json!(7), json!({ "gatewayPaymentId": "sbx_2", "capturedAmount": 3, "currency": "XXL" })]
        {
            let read = listed(&strange);
            assert!(!read.gateway_payment_id.is_empty() && !read.took_nothing(), "{read:?}");
        }
    }

    #[test]
    fn open_is_what_may_still_take_money() {
        assert!(is_open(Status::Pending.into()) && is_open(Status::RequiresAction.into()));
        for ended in [Status::Captured, Status::Failed, Status::Closed] {
            assert!(!is_open(ended.into()));
        }
    }

    #[test]
    fn a_payment_reads_as_the_gateway_writes_it() {
        let order_id = OrderId::generate();
        let payment: Payment = serde_json::from_value(json!({
            "gatewayPaymentId": "sbx_1", "orderId": order_id, "attempt": 1, "status": "REQUIRES_ACTION", "amount": "10.00",
            "capturedAmount": "0.00", "refundedAmount": "0.00", "currency": "INR", "method": "CREDIT_CARD",
            "nextAction": { "type": "REDIRECT", "url": "http://gateway/pay/sbx_1" },
        }))
        .expect("a payment");
        let payment = payment.parse().expect("sense");
        assert_eq!(payment.status, GatewayPaymentStatus::RequiresAction);
        assert_eq!(payment.next_action, Some(NextAction::Redirect { url: "http://gateway/pay/sbx_1".to_owned() }));
    }
}
