//! PayPal: Orders v2, Payments v2 and webhooks. A payment is an order there; the customer approves it on PayPal's
//! page, and nothing is set aside or taken until we say so.

mod events;
mod login;
mod money;
mod objects;
mod refusals;
mod reporting;
#[cfg(test)]
mod tests;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use domain::money::{Currency, Money};
use domain::payment::PaymentMethod;
use domain::ports::{
    Capture, GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, ListedRefund, Lookup, NextAction,
    Operation, PaymentGateway, PaymentPage, PaymentRequest, Proceeding, RefundOrder, Unsupported, Webhook,
    WebhookError, Window,
};
use reqwest::{Client, RequestBuilder, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use self::events::{PartKind, Place, Resource};
use self::login::Login;
use self::money::Amount;
use self::objects::{Intent, Order, Refund, Standing};
use self::refusals::{Refusal, Says, refusal};
use super::ConfigError;
use super::exchange::{Answer, base, below, send};

/// How long PayPal keeps the key of an order (its specification of Orders v2, `PayPal-Request-Id`).
const ORDER_KEY_LIFETIME: Duration = Duration::from_secs(6 * 60 * 60);

/// How long PayPal keeps the key of a refund (its specification of Payments v2, `PayPal-Request-Id`).
const REFUND_KEY_LIFETIME: Duration = Duration::from_secs(45 * 24 * 60 * 60);

/// How long to leave alone what PayPal is still examining or waits for, in seconds.
const STILL_PENDING_S: u64 = 15 * 60;

/// How many captures and authorizations may lie between a part of a payment and its order.
const MAX_DEPTH: usize = 3;

/// The order behind a capture.
struct Behind {
    id: String,
    order_id: Option<OrderId>,
}

/// A client of PayPal.
#[derive(Clone)]
pub struct PayPalGateway {
    base: Url,
    login: Arc<Login>,
    webhook_ids: Vec<String>,
    client: Client,
}

impl PayPalGateway {
    /// A client of PayPal at `base_url`, as the application `client_id`. Webhooks are believed when they were signed
    /// for one of `webhook_ids`. `client` must not follow redirects.
    ///
    /// # Errors
    /// [`ConfigError`] when the address is no http URL, or there is no webhook id, or an empty one.
    pub fn new(
        base_url: &str,
        client_id: String,
        client_secret: SecretString,
        webhook_ids: Vec<String>,
        client: Client,
    ) -> Result<PayPalGateway, ConfigError> {
        let base = base(base_url)?;
        if webhook_ids.is_empty() || webhook_ids.iter().any(String::is_empty) {
            return Err(ConfigError::WebhookId);
        }
        let token_url = below(&base, &["v1", "oauth2", "token"]);
        let login = Login::new(token_url, client_id, client_secret, client.clone());
        Ok(PayPalGateway { base, login: Arc::new(login), webhook_ids, client })
    }

    fn get(&self, segments: &[&str]) -> RequestBuilder {
        self.client.get(below(&self.base, segments))
    }

    /// What makes or changes something, once for each `key`; the answer is to be the whole object.
    fn post(&self, segments: &[&str], key: Uuid, body: &impl Serialize) -> RequestBuilder {
        self.client
            .post(below(&self.base, segments))
            .header("PayPal-Request-Id", key.to_string())
            .header("Prefer", "return=representation")
            .json(body)
    }

    /// Sends `request` as ourselves. A token that is refused is replaced once; what was refused that way was not
    /// done.
    async fn exchange(&self, request: RequestBuilder) -> Result<Answer, Refusal> {
        let token = self.login.token().await?;
        let again = request.try_clone();
        let mut answer = send(request.bearer_auth(token.expose_secret())).await?;
        if let (401 | 403, Some(again)) = (answer.status.as_u16(), again) {
            let token = self.login.other_than(&token).await?;
            answer = send(again.bearer_auth(token.expose_secret())).await?;
        }
        if answer.status.is_success() { Ok(answer) } else { Err(refusal(&answer)) }
    }

    /// The order, if PayPal has it.
    async fn order(&self, id: &str) -> Result<Option<Order>, GatewayError> {
        match self.exchange(self.get(&["v2", "checkout", "orders", id])).await {
            Ok(answer) => answer.read().map(Some),
            Err(Refusal { says: Says::Gone, .. }) => Ok(None),
            Err(Refusal { says: Says::Look | Says::SendPayer(_) | Says::Nothing, error }) => Err(error),
        }
    }

    /// Where the payment stands. One that PayPal does not have any more is closed.
    async fn look(&self, proceeding: &Proceeding) -> Result<Standing, GatewayError> {
        let Proceeding { order_id, gateway_payment_id, amount, .. } = proceeding;
        match self.order(gateway_payment_id).await? {
            Some(order) => order.standing(),
            None => Ok(Standing::gone(gateway_payment_id, *order_id, amount.clone())),
        }
    }

    /// Takes one step on with a payment that stands at `before`, and returns where it stands then.
    async fn step(
        &self,
        proceeding: &Proceeding,
        before: GatewayPaymentStatus,
        request: RequestBuilder,
    ) -> Result<Standing, GatewayError> {
        let Refusal { says, error } = match self.exchange(request).await {
            Ok(answer) => match standing_in(&answer, &proceeding.gateway_payment_id) {
                Some(standing) => return Ok(standing),
                // PayPal shows the capture of an authorization by itself, and may show less than it was asked for.
                None => Refusal::look(GatewayError::Unknown("PayPal shows nothing of what it did".to_owned())),
            },
            Err(refusal) => refusal,
        };
        match says {
            Says::Nothing => Err(error),
            Says::Gone if before == GatewayPaymentStatus::Approved => {
                Ok(Standing::gone(&proceeding.gateway_payment_id, proceeding.order_id, proceeding.amount.clone()))
            }
            Says::Gone | Says::Look => {
                let standing = self.look(proceeding).await?;
                if standing.payment.status == before { Err(error) } else { Ok(standing) }
            }
            Says::SendPayer(page) => {
                let standing = self.look(proceeding).await?;
                if standing.payment.status == GatewayPaymentStatus::Authorized {
                    return Err(error);
                }
                Ok(standing.sent_back(page))
            }
        }
    }

    /// What is left of one payment when nobody goes on with it. What was not set aside needs no call: only we could
    /// take it, and will not.
    async fn close_one(&self, lookup: &Lookup, id: &str) -> Result<GatewayPayment, GatewayError> {
        let Some(mut order) = self.order(id).await? else { return Ok(gone(lookup, id)) };
        let open: Vec<String> = order.open_authorizations().map(str::to_owned).collect();
        for authorization in &open {
            self.void(authorization).await?;
        }
        if !open.is_empty() {
            let Some(voided) = self.order(id).await? else { return Ok(gone(lookup, id)) };
            order = voided;
        }
        let payment = order.standing()?.payment;
        match payment.status {
            GatewayPaymentStatus::RequiresAction | GatewayPaymentStatus::Approved => {
                Ok(GatewayPayment { status: GatewayPaymentStatus::Closed, next_action: None, ..payment })
            }
            GatewayPaymentStatus::Captured | GatewayPaymentStatus::Failed | GatewayPaymentStatus::Closed => Ok(payment),
            GatewayPaymentStatus::Pending => Err(GatewayError::NotNow {
                code: "PENDING".to_owned(),
                detail: "PayPal has not decided on the money yet".to_owned(),
                after_s: STILL_PENDING_S,
            }),
            GatewayPaymentStatus::Authorized => {
                Err(GatewayError::Unknown(format!("{id} is open after its authorization was voided")))
            }
        }
    }

    /// Asks PayPal which order a capture or authorization is of; none if it has no such thing, or no order to it: then
    /// it is none of ours.
    async fn behind(&self, mut kind: PartKind, mut id: String) -> Result<Option<Behind>, GatewayError> {
        for _ in 0..MAX_DEPTH {
            let part: Resource = match self.exchange(self.get(&["v2", "payments", kind.as_str(), &id])).await {
                Ok(answer) => answer.read()?,
                Err(Refusal { says: Says::Gone, .. }) => return Ok(None),
                Err(Refusal { says: Says::Look | Says::SendPayer(_) | Says::Nothing, error }) => return Err(error),
            };
            match part.place() {
                Some(Place::Here(id)) => {
                    return Ok(Some(Behind { id, order_id: part.custom_id.and_then(|id| id.parse().ok()) }));
                }
                Some(Place::Behind(next_kind, next_id)) => (kind, id) = (next_kind, next_id),
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Lets go of money that is set aside. It has no key: a second time it says that it was done.
    async fn void(&self, authorization: &str) -> Result<(), GatewayError> {
        let url = below(&self.base, &["v2", "payments", "authorizations", authorization, "void"]);
        match self.exchange(self.client.post(url).header(header::CONTENT_TYPE, "application/json")).await {
            // Whether it is so, the order tells.
            Ok(_) | Err(Refusal { says: Says::Look | Says::Gone, .. }) => Ok(()),
            Err(Refusal { says: Says::SendPayer(_) | Says::Nothing, error }) => Err(error),
        }
    }
}

#[async_trait]
impl PaymentGateway for PayPalGateway {
    fn name(&self) -> &'static str {
        "paypal"
    }

    fn key_lifetime(&self, operation: Operation) -> Duration {
        match operation {
            Operation::Pay => ORDER_KEY_LIFETIME,
            Operation::Refund => REFUND_KEY_LIFETIME,
        }
    }

    fn accepts(&self, method: PaymentMethod, amount: &Money) -> Result<(), Unsupported> {
        money::accepts(method, amount)
    }

    async fn initiate(&self, key: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError> {
        let body = json!({
            "intent": match request.capture {
                Capture::Take => "CAPTURE",
                Capture::Hold => "AUTHORIZE",
            },
            "purchase_units": [{
                "custom_id": request.order_id,
                // PayPal may refuse a number that it has seen: each attempt has its own.
                "invoice_id": format!("{}-{}", request.order_number, request.attempt),
                "amount": Amount::of(&request.amount)?,
            }],
            "payment_source": { "paypal": { "experience_context": {
                "return_url": request.return_url,
                "cancel_url": request.return_url,
                "user_action": "PAY_NOW",
                "shipping_preference": "NO_SHIPPING",
            } } },
        });
        let answer = self.exchange(self.post(&["v2", "checkout", "orders"], key, &body)).await?;
        let made = answer.read::<Order>()?;
        match made.standing() {
            Ok(standing) => Ok(standing.payment),
            // PayPal may say less than it was asked for.
            Err(_) => {
                let order = self.order(&made.id).await?.ok_or_else(|| objects::nonsense("an order made and gone"))?;
                order.standing().map(|standing| standing.payment)
            }
        }
    }

    /// The known ones. An order that we do not know of nobody can approve, as nobody has its page: it takes nothing.
    async fn find(&self, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut payments = Vec::with_capacity(lookup.known.len());
        for id in &lookup.known {
            payments.push(match self.order(id).await? {
                Some(order) => order.standing()?.payment,
                None => gone(lookup, id),
            });
        }
        Ok(payments)
    }

    async fn proceed(&self, key: Uuid, proceeding: &Proceeding) -> Result<GatewayPayment, GatewayError> {
        let id = proceeding.gateway_payment_id.as_str();
        let mut standing = self.look(proceeding).await?;
        if standing.can_be_taken() && standing.payment.amount != proceeding.amount {
            let detail = format!("the order is over {}, not {}", standing.payment.amount, proceeding.amount);
            return Err(GatewayError::Refused { code: "AMOUNT_MISMATCH".to_owned(), detail });
        }
        if standing.payment.status == GatewayPaymentStatus::Approved {
            let verb = match (proceeding.capture, standing.intent) {
                (Capture::Take, Some(Intent::Capture) | None) => "capture",
                (Capture::Take, Some(Intent::Authorize)) | (Capture::Hold, _) => "authorize",
            };
            let request = self.post(&["v2", "checkout", "orders", id, verb], sub_key(key, verb), &json!({}));
            standing = self.step(proceeding, GatewayPaymentStatus::Approved, request).await?;
        }
        if let (GatewayPaymentStatus::Authorized, Capture::Take, Some(authorization)) =
            (standing.payment.status, proceeding.capture, &standing.authorization)
        {
            let body = json!({ "amount": Amount::of(&proceeding.amount)?, "final_capture": true });
            let path = ["v2", "payments", "authorizations", authorization, "capture"];
            let request = self.post(&path, sub_key(key, "capture-authorization"), &body);
            standing = self.step(proceeding, GatewayPaymentStatus::Authorized, request).await?;
        }
        Ok(standing.payment)
    }

    async fn close(&self, _: Uuid, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut payments = Vec::with_capacity(lookup.known.len());
        for id in &lookup.known {
            payments.push(self.close_one(lookup, id).await?);
        }
        Ok(payments)
    }

    async fn refund(&self, key: Uuid, refund: &RefundOrder) -> Result<GatewayRefund, GatewayError> {
        let amount = Amount::of(&refund.amount)?;
        let order = self.order(&refund.gateway_payment_id).await?;
        if let Some(sent) =
            order.as_ref().and_then(|order| order.refund(refund.refund_id)).filter(|sent| sent.is_live())
        {
            return sent.parse();
        }
        let Some(capture) = order.as_ref().and_then(Order::capture_id) else {
            let detail = "PayPal has no capture of that order".to_owned();
            return Err(GatewayError::Refused { code: "NOT_CAPTURED".to_owned(), detail });
        };
        let body = json!({ "amount": amount, "custom_id": refund.refund_id });
        match self.exchange(self.post(&["v2", "payments", "captures", capture, "refund"], key, &body)).await {
            Ok(answer) => answer.read::<Refund>()?.parse(),
            Err(Refusal { says: Says::Look, error }) => {
                let order = self.order(&refund.gateway_payment_id).await?;
                let sent = order.as_ref().and_then(|order| order.refund(refund.refund_id));
                sent.filter(|sent| sent.is_live()).map_or(Err(error), Refund::parse)
            }
            Err(Refusal { says: Says::Gone | Says::SendPayer(_) | Says::Nothing, error }) => Err(error),
        }
    }

    async fn find_refund(&self, refund: &RefundOrder) -> Result<Option<GatewayRefund>, GatewayError> {
        let order = self.order(&refund.gateway_payment_id).await?;
        order.as_ref().and_then(|order| order.refund(refund.refund_id)).map(Refund::parse).transpose()
    }

    async fn refunds(&self, gateway_payment_id: &str) -> Result<Vec<ListedRefund>, GatewayError> {
        let order = self.order(gateway_payment_id).await?;
        Ok(order.as_ref().map(|order| order.refunds().filter_map(Refund::listed).collect()).unwrap_or_default())
    }

    /// Captures, as PayPal lists no orders: what nobody has captured takes no money.
    async fn list(&self, window: Window, page: Option<&str>) -> Result<PaymentPage, GatewayError> {
        self.list_captures(window, page).await
    }

    async fn verify_webhook(
        &self,
        headers: &[(String, String)],
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Webhook, WebhookError> {
        webhook::receive(self, headers, body, now, webhook::TIME_LIMIT).await
    }
}

impl Standing {
    /// There is money that a step of ours would take or set aside.
    fn can_be_taken(&self) -> bool {
        match self.payment.status {
            GatewayPaymentStatus::Approved | GatewayPaymentStatus::Authorized => true,
            GatewayPaymentStatus::Pending
            | GatewayPaymentStatus::RequiresAction
            | GatewayPaymentStatus::Captured
            | GatewayPaymentStatus::Failed
            | GatewayPaymentStatus::Closed => false,
        }
    }

    /// The customer must choose another means of payment, whether or not the order still counts as approved.
    fn sent_back(mut self, page: Option<String>) -> Standing {
        let page = page.map(|url| NextAction::Redirect { url });
        match self.payment.status {
            GatewayPaymentStatus::Approved | GatewayPaymentStatus::RequiresAction => {
                self.payment.status = GatewayPaymentStatus::RequiresAction;
                self.payment.next_action = page.or(self.payment.next_action);
            }
            GatewayPaymentStatus::Pending
            | GatewayPaymentStatus::Authorized
            | GatewayPaymentStatus::Captured
            | GatewayPaymentStatus::Failed
            | GatewayPaymentStatus::Closed => (),
        }
        self
    }
}

/// The order of that id, if the answer shows it whole.
fn standing_in(answer: &Answer, id: &str) -> Option<Standing> {
    let order = answer.read::<Order>().ok().filter(|order| order.id == id)?;
    order.standing().ok()
}

/// An order that PayPal does not have any more. Nobody can say what it was over: nothing was taken.
fn gone(lookup: &Lookup, id: &str) -> GatewayPayment {
    Standing::gone(id, lookup.order_id, Money::zero(Currency::INR)).payment
}

/// The key of one of several calls that ours makes.
fn sub_key(key: Uuid, call: &str) -> Uuid {
    Uuid::new_v5(&key, call.as_bytes())
}
