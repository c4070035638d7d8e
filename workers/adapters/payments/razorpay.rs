//! Razorpay, over its HTTP interface, version 1.
//!
//! A payment of ours is an order there, which the customer pays in the shop's own page by as many tries as it
//! takes (`objects`). Nothing is taken until we capture a try, so a payment is closed by never doing that: what
//! was set aside lapses by itself.

mod money;
mod objects;
mod refunds;
mod refusals;
#[cfg(test)]
mod tests;
mod webhook;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::money::Money;
use domain::payment::PaymentMethod;
use domain::ports::{
    Capture, GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, ListedRefund, Lookup, Operation,
    PaymentGateway, PaymentPage, PaymentRequest, Proceeding, RefundOrder, Unsupported, Webhook, WebhookError, Window,
};
use reqwest::{Client, Method, RequestBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::ConfigError;
use super::exchange::{base, below, send};
use objects::{Collection, MAX_ATTEMPT, Order, Payment, RETURN_URL, Receipt, Standing};
use refunds::{Parts, Refund, shares};
use refusals::{DUPLICATE_RECEIPT, UNKNOWN_ID};
use webhook::VerifyingKeys;

const NAME: &str = "razorpay";

/// How long it remembers the key of a refund is not published; a day is what others promise. Orders have no key:
/// they are looked for by their receipt first, however late.
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// After so many minutes a payment that nobody has captured goes back to the customer.
const TAKE_WITHIN_MIN: u32 = 60;
/// The same when somebody has to decide first: three days.
const DECIDE_WITHIN_MIN: u32 = 4320;

/// Most that is listed at once.
const PAGE: usize = 100;
/// Pages of the refunds of one payment that are read.
const MAX_PAGES: usize = 20;
/// Longest note it keeps, in characters.
const MAX_NOTE_CHARS: usize = 256;
/// Attempts beyond those that we know of which may be missing before none is looked for any more: that one was
/// refused does not mean that the next was.
const MISSING: usize = 2;
/// It lists nothing that is older (2000-01-01).
const EARLIEST: i64 = 946_684_800;

/// A client of Razorpay.
#[derive(Clone)]
pub struct RazorpayGateway {
    base: Url,
    key_id: String,
    key_secret: SecretString,
    webhook_keys: VerifyingKeys,
    client: Client,
}

impl RazorpayGateway {
    /// A client of the gateway at `base_url` for the account that the key belongs to. Its webhooks are signed with
    /// one of `webhook_secrets`: several while they are changed.
    ///
    /// # Errors
    /// [`ConfigError`] when the address is no http URL, or a webhook could be checked with no secret or an empty one.
    pub fn new(
        base_url: &str,
        key_id: String,
        key_secret: SecretString,
        webhook_secrets: Vec<SecretString>,
        client: Client,
    ) -> Result<Self, ConfigError> {
        let base = base(base_url)?;
        Ok(Self { base, key_id, key_secret, webhook_keys: VerifyingKeys::new(&webhook_secrets)?, client })
    }

    /// A request to a resource of the interface.
    fn request(&self, method: Method, segments: &[&str], query: &[(&str, String)]) -> RequestBuilder {
        let mut url = below(&self.base, &[&["v1"], segments].concat());
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.client.request(method, url).basic_auth(&self.key_id, Some(self.key_secret.expose_secret()))
    }

    fn get(&self, segments: &[&str], query: &[(&str, String)]) -> RequestBuilder {
        self.request(Method::GET, segments, query)
    }

    fn post(&self, segments: &[&str], body: &Value) -> RequestBuilder {
        self.request(Method::POST, segments, &[]).json(body)
    }

    /// The orders made under a receipt, the oldest first. There are several when two workers looked before either
    /// had made one; the customer is only ever shown the first.
    async fn orders(&self, receipt: Receipt) -> Result<Vec<Order>, GatewayError> {
        let receipt = receipt.to_string();
        let query = [("receipt", receipt.clone()), ("count", PAGE.to_string())];
        let mut orders = exchange::<Collection<Order>>(self.get(&["orders"], &query)).await?.items;
        // The filter may be wider than that: `…-1` is in `…-10`.
        orders.retain(|order| order.receipt.as_ref() == Some(&receipt));
        orders.sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
        Ok(orders)
    }

    /// An order with the tries to pay it.
    async fn standing_of(&self, order: Order) -> Result<Standing, GatewayError> {
        let payments = exchange::<Collection<Payment>>(self.get(&["orders", &order.id, "payments"], &[])).await?;
        Standing::new(order, payments.items)
    }

    /// The same by the order's id; none if there is no such order.
    async fn standing(&self, id: &str) -> Result<Option<Standing>, GatewayError> {
        match exchange(self.get(&["orders", id], &[])).await {
            Ok(order) => self.standing_of(order).await.map(Some),
            Err(GatewayError::Refused { code, .. }) if code == UNKNOWN_ID => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn known_standing(&self, id: &str) -> Result<Standing, GatewayError> {
        self.standing(id).await?.ok_or_else(|| refused(UNKNOWN_ID, format!("there is no {id}")))
    }

    /// Takes the one try whose money is set aside. That it was taken by another call is seen by looking again,
    /// whatever words it is refused in.
    async fn capture(&self, standing: Standing, amount: &Money) -> Result<Standing, GatewayError> {
        let minor = money::minor_units(amount)?;
        let Some(payment) = standing.authorized(minor) else { return Ok(standing) };
        let body = json!({ "amount": minor, "currency": amount.currency() });
        match exchange::<Payment>(self.post(&["payments", &payment.id, "capture"], &body)).await {
            Ok(captured) => standing.with(captured),
            Err(refused @ GatewayError::Refused { .. }) => {
                let seen = self.known_standing(&standing.order.id).await?;
                if seen.status() == GatewayPaymentStatus::Captured { Ok(seen) } else { Err(refused) }
            }
            Err(error) => Err(error),
        }
    }

    /// What went back of a payment: all pages.
    async fn refunds_of(&self, payment: &Payment) -> Result<Vec<Value>, GatewayError> {
        let mut found = Vec::new();
        for page in 0..MAX_PAGES {
            let query = [("count", PAGE.to_string()), ("skip", (page * PAGE).to_string())];
            let request = self.get(&["payments", &payment.id, "refunds"], &query);
            let refunds = exchange::<Collection<Value>>(request).await?.items;
            let is_last = refunds.len() < PAGE;
            found.extend(refunds);
            if is_last {
                return Ok(found);
            }
        }
        Err(GatewayError::Unknown(format!("{} has refunds without end", payment.id)))
    }

    /// What went back of every payment of an order.
    async fn all_refunds(&self, standing: &Standing) -> Result<Vec<Value>, GatewayError> {
        let mut found = Vec::new();
        for payment in standing.payments.iter().filter(|payment| payment.taken() > 0) {
            found.extend(self.refunds_of(payment).await?);
        }
        Ok(found)
    }

    /// All that was made of a refund of ours: it has our receipt.
    async fn parts(&self, standing: &Standing, refund: &RefundOrder) -> Result<Parts, GatewayError> {
        let receipt = refund.refund_id.to_string();
        let ours = self.all_refunds(standing).await?.into_iter().filter(|item| item["receipt"] == receipt);
        let read =
            |item| serde_json::from_value::<Refund>(item).map_err(|error| GatewayError::Unknown(error.to_string()));
        ours.map(read).collect::<Result<_, _>>().map(Parts)
    }

    /// Sends `share` of a refund back from one payment.
    async fn send_back(
        &self,
        key: Uuid,
        refund: &RefundOrder,
        payment: &Payment,
        share: i64,
    ) -> Result<Refund, GatewayError> {
        let body = json!({
            "amount": share,
            "receipt": refund.refund_id,
            "notes": { "order_id": refund.order_id, "refund_id": refund.refund_id },
        });
        // Each payment is a call of its own.
        let key = Uuid::new_v5(&key, payment.id.as_bytes());
        let request = self.post(&["payments", &payment.id, "refund"], &body);
        exchange(request.header("X-Refund-Idempotency", key.to_string())).await
    }
}

#[async_trait]
impl PaymentGateway for RazorpayGateway {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key_lifetime(&self, _: Operation) -> Duration {
        KEY_LIFETIME
    }

    fn accepts(&self, method: PaymentMethod, amount: &Money) -> Result<(), Unsupported> {
        money::accepts(method, amount)
    }

    async fn initiate(&self, _: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError> {
        let receipt = receipt_of(request)?;
        let returning = |order: Order| order.returning_to(&request.return_url);
        let standing = match self.orders(receipt).await?.into_iter().next() {
            Some(order) => self.standing_of(returning(order)).await?,
            None => {
                let order = exchange(self.post(&["orders"], &order_body(request, receipt)?)).await?;
                Standing::new(returning(order), Vec::new())?
            }
        };
        let Order { id, amount, currency, .. } = &standing.order;
        if money::from_minor_units(*amount, currency)? != request.amount {
            return Err(refused("another-amount", format!("{id} is not of {}", request.amount)));
        }
        standing.read(request.order_id, &self.key_id)
    }

    async fn find(&self, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut standings: Vec<Standing> = Vec::new();
        let mut missing = 0;
        for attempt in 1..=MAX_ATTEMPT {
            let orders = self.orders(Receipt { order_id: lookup.order_id, attempt }).await?;
            missing = if orders.is_empty() { missing + 1 } else { 0 };
            for order in orders {
                standings.push(self.standing_of(order).await?);
            }
            if missing >= MISSING && attempt as usize >= lookup.known.len() + MISSING {
                break;
            }
        }
        // An index may lag; what we know of needs none.
        for id in &lookup.known {
            if standings.iter().all(|standing| standing.order.id != *id) {
                standings.extend(self.standing(id).await?);
            }
        }
        standings.iter().map(|standing| standing.read(lookup.order_id, &self.key_id)).collect()
    }

    async fn proceed(&self, _: Uuid, proceeding: &Proceeding) -> Result<GatewayPayment, GatewayError> {
        let mut standing = self.known_standing(&proceeding.gateway_payment_id).await?;
        let may_be_taken = standing.status() == GatewayPaymentStatus::Authorized;
        match proceeding.capture {
            Capture::Take if may_be_taken => standing = self.capture(standing, &proceeding.amount).await?,
            // What is set aside stays so until it is taken or lapses.
            Capture::Take | Capture::Hold => {}
        }
        standing.read(proceeding.order_id, &self.key_id)
    }

    /// There is no such call, and none is needed: only we capture. What an account that captures by itself takes
    /// all the same is money that came late.
    async fn close(&self, _: Uuid, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut payments = self.find(lookup).await?;
        for payment in payments.iter_mut().filter(|payment| payment.status.is_open()) {
            payment.status = GatewayPaymentStatus::Closed;
            payment.next_action = None;
        }
        Ok(payments)
    }

    /// Looks first: a key may be forgotten, and an earlier call may have sent a part.
    async fn refund(&self, key: Uuid, refund: &RefundOrder) -> Result<GatewayRefund, GatewayError> {
        let asked = money::minor_units(&refund.amount)?;
        let standing = self.known_standing(&refund.gateway_payment_id).await?;
        let mut parts = self.parts(&standing, refund).await?;
        let due = parts.due(asked);
        let shares = if due > 0 { shares(&standing.payments, due) } else { Some(Vec::new()) };
        let shares =
            shares.ok_or_else(|| refused("exceeds-captured", format!("{} has not so much left", standing.order.id)))?;
        for (payment, share) in shares {
            match self.send_back(key, refund, payment, share).await {
                Ok(part) => parts.0.push(part),
                Err(GatewayError::Refused { code, detail }) => {
                    parts = self.parts(&standing, refund).await?;
                    if parts.due(asked) < asked {
                        break;
                    }
                    // It is there, and not shown yet.
                    let is_hidden = code == DUPLICATE_RECEIPT && parts.0.is_empty();
                    return Err(if is_hidden {
                        GatewayError::Unknown(detail)
                    } else {
                        GatewayError::Refused { code, detail }
                    });
                }
                Err(error) => return Err(error),
            }
        }
        parts.read(asked)?.ok_or_else(|| GatewayError::Unknown("not all of the refund was sent".to_owned()))
    }

    async fn find_refund(&self, refund: &RefundOrder) -> Result<Option<GatewayRefund>, GatewayError> {
        let asked = money::minor_units(&refund.amount)?;
        match self.standing(&refund.gateway_payment_id).await? {
            Some(standing) => self.parts(&standing, refund).await?.read(asked),
            None => Ok(None),
        }
    }

    async fn refunds(&self, gateway_payment_id: &str) -> Result<Vec<ListedRefund>, GatewayError> {
        let Some(standing) = self.standing(gateway_payment_id).await? else { return Ok(Vec::new()) };
        let listed = self.all_refunds(&standing).await?.into_iter();
        Ok(listed.filter_map(|item| serde_json::from_value::<Refund>(item).ok()?.listed()).collect())
    }

    /// It counts in seconds, and does not say whether either end belongs to the stretch: a little more is asked for.
    async fn list(&self, window: Window, page: Option<&str>) -> Result<PaymentPage, GatewayError> {
        let skip = page.map_or(Ok(0), str::parse::<usize>);
        let skip = skip.map_err(|_| refused("unknown-page", "a page is named by a number".to_owned()))?;
        let query = [
            ("from", (window.from.timestamp() - 1).max(EARLIEST).to_string()),
            ("to", (window.until.timestamp() + 1).max(EARLIEST).to_string()),
            ("count", PAGE.to_string()),
            ("skip", skip.to_string()),
        ];
        let items = exchange::<Collection<Value>>(self.get(&["payments"], &query)).await?.items;
        let next = (items.len() >= PAGE).then(|| (skip + items.len()).to_string());
        Ok(PaymentPage { payments: objects::listed(&items), next })
    }

    async fn verify_webhook(
        &self,
        headers: &[(String, String)],
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Webhook, WebhookError> {
        self.webhook_keys.verify(headers, body)?;
        webhook::read(headers, body, now)
    }
}

/// Sends `request` and reads the answer as `T`.
async fn exchange<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, GatewayError> {
    let answer = send(request).await?;
    if answer.status.is_success() { answer.read() } else { Err(refusals::error(&answer)) }
}

/// What is not asked for, because it cannot be.
fn refused(code: &str, detail: String) -> GatewayError {
    GatewayError::Refused { code: code.to_owned(), detail }
}

fn receipt_of(request: &PaymentRequest) -> Result<Receipt, GatewayError> {
    let PaymentRequest { order_id, attempt, .. } = request;
    if *attempt > MAX_ATTEMPT {
        return Err(refused("too-many-attempts", format!("{attempt} is more than a receipt has room for")));
    }
    Ok(Receipt { order_id: *order_id, attempt: *attempt })
}

/// Captured by hand, always: what the customer has agreed to is judged first.
fn order_body(request: &PaymentRequest, receipt: Receipt) -> Result<Value, GatewayError> {
    let mut notes = json!({ "order_id": request.order_id, "order_number": request.order_number });
    // So that whoever finds the order can open its page, too.
    if request.return_url.chars().count() <= MAX_NOTE_CHARS {
        notes[RETURN_URL] = json!(request.return_url);
    }
    Ok(json!({
        "amount": money::minor_units(&request.amount)?,
        "currency": request.amount.currency(),
        "receipt": receipt.to_string(),
        "notes": notes,
        "payment": {
            "capture": "manual",
            "capture_options": {
                // Means nothing here, and must be there: its least.
                "automatic_expiry_period": 12,
                "manual_expiry_period": match request.capture {
                    Capture::Take => TAKE_WITHIN_MIN,
                    Capture::Hold => DECIDE_WITHIN_MIN,
                },
                "refund_speed": "normal",
            },
        },
    }))
}
