//! The built-in sandbox gateway, reached over HTTP like any other.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use domain::money::{Currency, Money, to_wire};
use domain::payment::PaymentMethod;
use domain::ports::{
    GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, GatewayRefundStatus, ListedPayment,
    ListedRefund, Lookup, NextAction, Operation, PaymentGateway, PaymentPage, PaymentRequest, Proceeding, RefundOrder,
    Unsupported, Webhook, WebhookError, WebhookEvent, WebhookKind, WebhookSubject, Window,
};
use reqwest::{Client, RequestBuilder, StatusCode};
use rust_decimal::Decimal;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::ConfigError;
use super::exchange::{base, below, send};
use super::reading;
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
        let base = base(base_url)?;
        Ok(SandboxGateway { base, key: VerifyingKey::parse(secret)?, client })
    }

    fn url(&self, segments: &[&str]) -> Url {
        below(&self.base, segments)
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

    fn key_lifetime(&self, _: Operation) -> Duration {
        KEY_LIFETIME
    }

    fn accepts(&self, _: PaymentMethod, _: &Money) -> Result<(), Unsupported> {
        Ok(())
    }

    async fn initiate(&self, key: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError> {
        let body = json!({
            "orderId": request.order_id,
            "attempt": request.attempt,
            "amount": on_the_wire(&request.amount),
            "currency": request.amount.currency(),
            "capture": request.capture,
            "method": request.method,
            "token": request.token,
            "returnUrl": request.return_url,
        });
        exchange::<Payment>(self.post(&["v1", "payments"], key, &body)).await?.parse()
    }

    async fn find(&self, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut url = self.url(&["v1", "payments"]);
        url.query_pairs_mut().append_pair("orderId", &lookup.order_id.to_string());
        exchange::<Payments>(self.client.get(url)).await?.parse()
    }

    async fn proceed(&self, key: Uuid, proceeding: &Proceeding) -> Result<GatewayPayment, GatewayError> {
        let Proceeding { gateway_payment_id, amount, capture, .. } = proceeding;
        let body = json!({ "amount": on_the_wire(amount), "capture": capture });
        let request = self.post(&["v1", "payments", gateway_payment_id, "proceed"], key, &body);
        exchange::<Payment>(request).await?.parse()
    }

    async fn close(&self, key: Uuid, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let body = json!({ "orderId": lookup.order_id });
        let payments = exchange::<Payments>(self.post(&["v1", "payments", "close"], key, &body)).await?.parse()?;
        match payments.iter().find(|payment| payment.status.is_open()) {
            Some(open) => Err(GatewayError::Unknown(format!("{} is open after the close", open.gateway_payment_id))),
            None => Ok(payments),
        }
    }

    async fn refund(&self, key: Uuid, refund: &RefundOrder) -> Result<GatewayRefund, GatewayError> {
        let body = json!({ "refundId": refund.refund_id, "amount": on_the_wire(&refund.amount) });
        let request = self.post(&["v1", "payments", &refund.gateway_payment_id, "refunds"], key, &body);
        exchange::<Refund>(request).await?.parse()
    }

    async fn find_refund(&self, refund: &RefundOrder) -> Result<Option<GatewayRefund>, GatewayError> {
        let mut url = self.url(&["v1", "payments", &refund.gateway_payment_id, "refunds"]);
        url.query_pairs_mut().append_pair("refundId", &refund.refund_id.to_string());
        let Refunds { items } = exchange(self.client.get(url)).await?;
        items.into_iter().next().map(Refund::parse).transpose()
    }

    async fn refunds(&self, gateway_payment_id: &str) -> Result<Vec<ListedRefund>, GatewayError> {
        let Refunds { items } =
            exchange(self.client.get(self.url(&["v1", "payments", gateway_payment_id, "refunds"]))).await?;
        Ok(items.into_iter().filter_map(Refund::listed).collect())
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

    async fn verify_webhook(
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

/// What the gateway says when it refuses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    code: String,
    #[serde(default)]
    detail: String,
    /// When to ask again, in seconds, of what cannot be done now.
    after_s: Option<u64>,
}

/// Sends `request` and reads the answer as `T`.
async fn exchange<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, GatewayError> {
    let answer = send(request).await?;
    if answer.status.is_success() {
        return answer.read();
    }
    Err(match answer.problem() {
        Some(Problem { code, detail, after_s: Some(after_s) }) if answer.status == StatusCode::CONFLICT => {
            GatewayError::NotNow { code, detail, after_s }
        }
        problem => answer.error(problem.map(|Problem { code, detail, .. }| (code, detail))),
    })
}

/// An amount that does not fit its currency is an answer that makes no sense.
fn money(amount: Decimal, currency: &str) -> Result<Money, GatewayError> {
    currency
        .parse::<Currency>()
        .ok()
        .and_then(|currency| Money::new(amount, currency).ok())
        .ok_or_else(|| GatewayError::Unknown(format!("an answer that makes no sense: {amount} {currency}")))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payment {
    gateway_payment_id: String,
    order_id: OrderId,
    status: GatewayPaymentStatus,
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
            status: self.status,
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
    /// Whoever asked for it names it so.
    refund_id: String,
    amount: Decimal,
    currency: String,
    status: GatewayRefundStatus,
    failure: Option<String>,
}

impl Refund {
    /// None of one that cannot be read.
    fn listed(self) -> Option<ListedRefund> {
        let refund_id = self.refund_id.parse().ok();
        Some(ListedRefund { refund_id, refund: self.parse().ok()? })
    }

    fn parse(self) -> Result<GatewayRefund, GatewayError> {
        Ok(GatewayRefund {
            gateway_refund_id: self.gateway_refund_id,
            amount: money(self.amount, &self.currency)?,
            status: self.status,
            failure: self.failure,
        })
    }
}

#[derive(Deserialize)]
struct Refunds {
    items: Vec<Refund>,
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
    ListedPayment {
        gateway_payment_id: reading::listed_id(item["gatewayPaymentId"].as_str(), item),
        order_id: text("orderId").and_then(|id| id.parse().ok()),
        reference: text("orderId"),
        captured,
    }
}

/// What was rightly signed, read as far as it can be.
fn read(event_id: &str, body: &[u8]) -> Webhook {
    let event_id = reading::event_id(event_id);
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
    gateway_refund_id: Option<String>,
    refund_id: Option<Uuid>,
    dispute_id: Option<String>,
}

impl Told {
    fn parse(self, event_id: &str) -> Result<WebhookEvent, String> {
        let amount = match (self.data.amount, self.data.currency) {
            (Some(amount), Some(currency)) => Some(money(amount, &currency).map_err(|error| error.to_string())?),
            (Some(_), None) | (None, _) => None,
        };
        let event = WebhookEvent {
            event_id: event_id.to_owned(),
            kind: kind(self.kind),
            gateway_payment_id: self.data.gateway_payment_id,
            order_id: self.data.order_id.and_then(|id| id.parse().ok()),
            amount,
            failure: self.data.failure,
            about: self
                .data
                .gateway_refund_id
                .or(self.data.dispute_id)
                .map(|gateway_id| WebhookSubject { gateway_id, refund_id: self.data.refund_id }),
            at: None,
        };
        reading::check_event(&event).map(|()| event)
    }
}

fn kind(name: String) -> WebhookKind {
    match name.as_str() {
        "payment.approved" => WebhookKind::PaymentApproved,
        "payment.authorized" => WebhookKind::PaymentAuthorized,
        "payment.captured" => WebhookKind::PaymentCaptured,
        "payment.failed" => WebhookKind::PaymentFailed,
        "payment.closed" => WebhookKind::PaymentClosed,
        "refund.pending" => WebhookKind::RefundPending,
        "refund.succeeded" => WebhookKind::RefundSucceeded,
        "refund.failed" => WebhookKind::RefundFailed,
        "dispute.opened" => WebhookKind::DisputeOpened,
        "dispute.won" => WebhookKind::DisputeWon,
        "dispute.lost" => WebhookKind::DisputeLost,
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
        let event = event(r#"{"type":"payout.paid","data":{"gatewayPaymentId":"sbx_1","orderId":"42"}}"#);
        assert_eq!(event.kind, WebhookKind::Other("payout.paid".to_owned()));
        assert_eq!((event.order_id, event.amount), (None, None));
    }

    #[test]
    fn what_is_rightly_signed_is_kept_whatever_it_says() {
        let long = "x".repeat(reading::MAX_ID + 1);
        for body in [
            "not JSON",
            "{}",
            r#"{"type":"payout.paid","data":{"payout":"po_1"}}"#,
            r#"{"type":"payment.captured","data":{"gatewayPaymentId":"sbx_1","amount":"1.234","currency":"INR"}}"#,
            r#"{"type":"payment.captured\u0000","data":{"gatewayPaymentId":"sbx_1"}}"#,
            &format!(r#"{{"type":"payment.captured","data":{{"gatewayPaymentId":"{long}"}}}}"#),
            r#"{"type":"refund.failed","data":{"gatewayPaymentId":"sbx_1","gatewayRefundId":"sbxr_1\u0000"}}"#,
            &format!(r#"{{"type":"dispute.lost","data":{{"gatewayPaymentId":"sbx_1","disputeId":"{long}"}}}}"#),
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
