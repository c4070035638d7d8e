//! Stripe: card and wallet payments as PaymentIntents.
//!
//! Stripe answers a repeated key with what it answered first, an error too, for a day: a payment that has moved
//! on since is asked for by itself, and each state in which it is closed has a key of its own.

mod events;
mod form;
mod money;
mod objects;
mod refusals;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
mod webhook;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use domain::money::Money;
use domain::payment::PaymentMethod;
use domain::ports::{
    Capture, GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, GatewayRefundStatus, ListedRefund,
    Lookup, Operation, PaymentGateway, PaymentPage, PaymentRequest, Proceeding, RefundOrder, Unsupported, Webhook,
    WebhookError, Window,
};
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use self::form::Form;
use self::objects::{Page, PaymentIntent, Refund, id_of, listed};
use self::refusals::{Decline, Objection, exchange, has_moved_on, is_missing};
use self::webhook::VerifyingKeys;
use super::ConfigError;
use super::exchange::{base, below};

/// The version of the API whose objects we read, whatever the account's own is.
const VERSION: &str = "2023-08-16";

/// Stripe forgets a key after at least 24 hours (its page "Idempotent requests").
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The most objects that Stripe puts on a page.
const PAGE_SIZE: &str = "100";

/// Pages of a list that are read at most to find a payment or a refund of ours.
const MAX_PAGES: usize = 20;

/// How far Stripe's clock may be behind ours, in seconds.
const CLOCKS_S: i64 = 5 * 60;

/// How long after its first payment an order can have got its last, in seconds: half a key's lifetime, and the
/// clocks.
const MADE_WITHIN_S: i64 = 12 * 60 * 60 + CLOCKS_S;

/// A client of Stripe. Has no `Debug`, so that its secrets cannot reach a log.
#[derive(Clone)]
pub struct StripeGateway {
    base: Url,
    secret_key: SecretString,
    /// The key moves real money.
    is_live: bool,
    keys: VerifyingKeys,
    client: Client,
}

impl StripeGateway {
    /// A client of the API at `base_url`, with the account's secret key (`sk_live_…`, `sk_test_…`, or a restricted
    /// one, `rk_…`). Webhooks are signed with one of `webhook_secrets` (`whsec_…`): several while they are rotated.
    ///
    /// # Errors
    /// [`ConfigError`] when the address is no http URL, there is no webhook secret, or one is malformed.
    pub fn new(
        base_url: &str,
        secret_key: SecretString,
        webhook_secrets: Vec<SecretString>,
        client: Client,
    ) -> Result<Self, ConfigError> {
        let base = base(base_url)?;
        let is_live = ["sk_live_", "rk_live_"].iter().any(|kind| secret_key.expose_secret().starts_with(kind));
        Ok(StripeGateway { base, secret_key, is_live, keys: VerifyingKeys::parse(&webhook_secrets)?, client })
    }

    fn url(&self, segments: &[&str]) -> Url {
        below(&self.base, &[&["v1"], segments].concat())
    }

    fn get<V: AsRef<str>>(&self, segments: &[&str], query: &[(&str, V)]) -> RequestBuilder {
        let mut url = self.url(segments);
        url.query_pairs_mut().extend_pairs(query);
        self.authorized(self.client.get(url))
    }

    fn post(&self, segments: &[&str], key: Uuid, form: &Form) -> RequestBuilder {
        self.authorized(self.client.post(self.url(segments))).header("Idempotency-Key", key.to_string()).form(form)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(self.secret_key.expose_secret()).header("Stripe-Version", VERSION)
    }

    async fn intent(&self, id: &str) -> Result<PaymentIntent, GatewayError> {
        Ok(exchange(self.get(&["payment_intents", id], &form::look())).await?)
    }

    /// The order's payments. Stripe's own search is up to an hour late, and not to be had everywhere.
    async fn intents(&self, lookup: &Lookup) -> Result<Vec<PaymentIntent>, GatewayError> {
        let mut listed = if lookup.known.is_empty() || lookup.lost { self.ids_of(lookup).await? } else { Vec::new() };
        listed.retain(|id| !lookup.known.contains(id));
        let mut intents = Vec::new();
        for id in lookup.known.iter().chain(&listed) {
            match self.intent(id).await {
                Ok(intent) => intents.push(intent),
                Err(GatewayError::Refused { code, .. }) if is_missing(&code) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(intents)
    }

    async fn ids_of(&self, lookup: &Lookup) -> Result<Vec<String>, GatewayError> {
        let since = lookup.since.timestamp();
        let made = [
            ("created[gte]", since.saturating_sub(CLOCKS_S).to_string()),
            ("created[lte]", since.saturating_add(MADE_WITHIN_S).to_string()),
        ];
        let listed = self.all("payment_intents", &made).await?;
        let order_id = Some(Uuid::from(lookup.order_id));
        listed.iter().filter(|intent| objects::marks(intent, "order_id") == order_id).map(id_of).collect()
    }

    async fn refunds_of(&self, id: &str) -> Result<Vec<Value>, GatewayError> {
        match self.all("refunds", &[("payment_intent", id.to_owned())]).await {
            Err(GatewayError::Refused { code, .. }) if is_missing(&code) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// The objects of a list, the newest first.
    async fn all(&self, list: &str, filter: &[(&str, String)]) -> Result<Vec<Value>, GatewayError> {
        let (mut found, mut after) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let page = self.page(list, filter, after.as_deref()).await?;
            let next = page.next()?;
            found.extend(page.data);
            if next.is_none() {
                return Ok(found);
            }
            after = next;
        }
        Err(GatewayError::Unknown(format!("a list of more than {MAX_PAGES} pages was not read to its end")))
    }

    async fn page(&self, list: &str, filter: &[(&str, String)], after: Option<&str>) -> Result<Page, GatewayError> {
        let mut query: Vec<(&str, &str)> = filter.iter().map(|(name, value)| (*name, value.as_str())).collect();
        query.push(("limit", PAGE_SIZE));
        query.extend(after.map(|after| ("starting_after", after)));
        Ok(exchange(self.get(&[list], &query)).await?)
    }

    /// The payment that a call has given, or, when it has moved on before that, as it stands now.
    async fn or_as_it_stands(
        &self,
        answer: Result<PaymentIntent, Objection>,
        id: &str,
    ) -> Result<PaymentIntent, Objection> {
        match answer {
            Err(Objection::Error(GatewayError::Refused { code, .. })) if has_moved_on(&code) => {
                Ok(self.intent(id).await?)
            }
            answer => answer,
        }
    }

    /// Closes a payment that was seen in `state`; returns what it ended as, never an open one. In another state
    /// it is another call: a refusal of the one before would be repeated for a day.
    async fn cancel(
        &self,
        key: Uuid,
        order_id: OrderId,
        id: &str,
        state: &str,
    ) -> Result<GatewayPayment, GatewayError> {
        let key = Uuid::new_v5(&key, format!("cancel/{id}/{state}").as_bytes());
        let answer = exchange(self.post(&["payment_intents", id, "cancel"], key, &form::cancellation())).await;
        let payment = self.or_as_it_stands(answer, id).await?.parse(order_id)?;
        match payment.status.is_open() {
            true => Err(GatewayError::Unknown(format!("{id} is open after the close"))),
            false => Ok(payment),
        }
    }

    /// A declined payment ends here: as it was left, another card would pay it.
    async fn decline(&self, key: Uuid, order_id: OrderId, decline: Decline) -> Result<GatewayPayment, GatewayError> {
        let Decline { payment_id, reason } = decline;
        let ended = self.cancel(key, order_id, &payment_id, "declined").await?;
        Ok(match ended.status {
            GatewayPaymentStatus::Failed | GatewayPaymentStatus::Closed => {
                GatewayPayment { status: GatewayPaymentStatus::Failed, failure: Some(reason), ..ended }
            }
            GatewayPaymentStatus::Captured
            | GatewayPaymentStatus::Pending
            | GatewayPaymentStatus::RequiresAction
            | GatewayPaymentStatus::Approved
            | GatewayPaymentStatus::Authorized => ended,
        })
    }

    /// How a payment stands after a call under `key`, whatever Stripe has said.
    async fn outcome(
        &self,
        key: Uuid,
        order_id: OrderId,
        answer: Result<PaymentIntent, Objection>,
    ) -> Result<GatewayPayment, GatewayError> {
        match answer {
            Ok(intent) => intent.parse(order_id),
            Err(Objection::Declined(decline)) => self.decline(key, order_id, decline).await,
            Err(Objection::Error(error)) => Err(error),
        }
    }
}

#[async_trait]
impl PaymentGateway for StripeGateway {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn key_lifetime(&self, _: Operation) -> Duration {
        KEY_LIFETIME
    }

    fn accepts(&self, method: PaymentMethod, amount: &Money) -> Result<(), Unsupported> {
        match method {
            PaymentMethod::CreditCard | PaymentMethod::DebitCard | PaymentMethod::Wallet => {
                money::to_minor(amount).map(|_| ())
            }
            PaymentMethod::Upi | PaymentMethod::NetBanking | PaymentMethod::Cod => {
                Err(Unsupported(format!("Stripe collects by card or wallet, not by {method}")))
            }
        }
    }

    async fn initiate(&self, key: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError> {
        self.accepts(request.method, &request.amount)?;
        let answer = exchange(self.post(&["payment_intents"], key, &form::payment(request)?)).await;
        self.outcome(key, request.order_id, answer).await
    }

    async fn find(&self, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        self.intents(lookup).await?.iter().map(|intent| intent.parse(lookup.order_id)).collect()
    }

    async fn proceed(&self, key: Uuid, proceeding: &Proceeding) -> Result<GatewayPayment, GatewayError> {
        let id = proceeding.gateway_payment_id.as_str();
        match proceeding.capture {
            // It is set aside by the customer's agreeing.
            Capture::Hold => self.intent(id).await?.parse(proceeding.order_id),
            // What is set aside is captured once, whatever the key: a second try finds it done. So each has a key of
            // its own, lest a failure that Stripe keeps under one be all that is ever heard.
            Capture::Take => {
                let request =
                    self.post(&["payment_intents", id, "capture"], Uuid::now_v7(), &form::capture(proceeding)?);
                let answer = self.or_as_it_stands(exchange(request).await, id).await;
                self.outcome(key, proceeding.order_id, answer).await
            }
        }
    }

    async fn close(&self, key: Uuid, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut ended = Vec::new();
        for intent in self.intents(lookup).await? {
            let payment = intent.parse(lookup.order_id)?;
            ended.push(match payment.status.is_open() {
                true => self.cancel(key, lookup.order_id, &intent.id, &intent.status).await?,
                false => payment,
            });
        }
        Ok(ended)
    }

    async fn refund(&self, key: Uuid, refund: &RefundOrder) -> Result<GatewayRefund, GatewayError> {
        let request = self.post(&["refunds"], key, &form::refund(refund)?);
        let refused = match exchange::<Refund>(request).await {
            Ok(sent) => return sent.parse(),
            Err(objection) => match GatewayError::from(objection) {
                refused @ GatewayError::Refused { .. } => refused,
                error @ (GatewayError::Unknown(_)
                | GatewayError::Busy { .. }
                | GatewayError::NotNow { .. }
                | GatewayError::Misconfigured(_)) => return Err(error),
            },
        };
        // There may be nothing left to give back because it went back already, under a key that is forgotten.
        match self.find_refund(refund).await {
            Ok(Some(found)) if found.status != GatewayRefundStatus::Failed && found.amount == refund.amount => {
                Ok(found)
            }
            Ok(Some(_) | None) | Err(GatewayError::Refused { .. }) => Err(refused),
            Err(error) => Err(error),
        }
    }

    async fn find_refund(&self, refund: &RefundOrder) -> Result<Option<GatewayRefund>, GatewayError> {
        let listed = self.refunds_of(&refund.gateway_payment_id).await?;
        let ours = listed.into_iter().filter(|item| objects::marks(item, "refund_id") == Some(refund.refund_id));
        let read = |item| serde_json::from_value::<Refund>(item).map_err(objects::nonsense)?.parse();
        let found = ours.map(read).collect::<Result<Vec<_>, _>>()?;
        // One that failed may have been sent again.
        let (failed, alive): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|refund| refund.status == GatewayRefundStatus::Failed);
        Ok(alive.into_iter().chain(failed).next())
    }

    async fn refunds(&self, gateway_payment_id: &str) -> Result<Vec<ListedRefund>, GatewayError> {
        let read = |item: Value| {
            let refund_id = objects::marks(&item, "refund_id");
            let refund = serde_json::from_value::<Refund>(item).ok()?.parse().ok()?;
            Some(ListedRefund { refund_id, refund })
        };
        Ok(self.refunds_of(gateway_payment_id).await?.into_iter().filter_map(read).collect())
    }

    async fn list(&self, window: Window, page: Option<&str>) -> Result<PaymentPage, GatewayError> {
        // Stripe tells time in whole seconds: one that is cut in two belongs to the later stretch.
        let made = [
            ("created[gte]", window.from.timestamp().to_string()),
            ("created[lt]", window.until.timestamp().to_string()),
        ];
        let page = self.page("payment_intents", &made, page).await?;
        Ok(PaymentPage { payments: page.data.iter().map(listed).collect(), next: page.next()? })
    }

    async fn verify_webhook(
        &self,
        headers: &[(String, String)],
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Webhook, WebhookError> {
        self.keys.verify(headers, body, now)?;
        Ok(webhook::read(body, self.is_live))
    }
}
