//! The outside world as the rules see it: a payment gateway and a mailer.
//!
//! Adapters implement these traits; nothing here knows a vendor. A call to the outside happens at
//! least once, each time under the same idempotency key, so every implementation must make repeating
//! a key harmless.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::ids::{CartId, OrderId};
use crate::money::Money;
use crate::payment::PaymentMethod;

/// What we ask a gateway to collect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentRequest {
    /// The order being paid; the gateway keeps it as its reference.
    pub order_id: OrderId,
    /// Its number, for what the customer reads.
    pub order_number: String,
    /// Which try of that order this is, from 1.
    pub attempt: u32,
    /// How much to collect.
    pub amount: Money,
    /// Whether it is taken at once or set aside.
    pub capture: Capture,
    /// How the customer wants to pay.
    pub method: PaymentMethod,
    /// The gateway's own token for the customer's means of payment; never card data.
    pub token: Option<String>,
    /// Where the gateway's page sends the customer afterwards.
    pub return_url: String,
    /// Where the customer reads e-mail, for the gateway's own receipt.
    pub email: Option<String>,
    /// The customer's number in E.164 form.
    pub phone: Option<String>,
}

/// What becomes of money that the customer has agreed to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capture {
    /// It is taken.
    Take,
    /// It is set aside until somebody has decided.
    Hold,
}

/// The payments of one order, for a gateway that cannot find them by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The order.
    pub order_id: OrderId,
    /// Those that we know of, by the gateway's ids.
    pub known: Vec<String>,
    /// One was begun whose answer never came: there may be one more.
    pub lost: bool,
    /// When the first of them can have been made, by our clock.
    pub since: DateTime<Utc>,
}

/// A payment that the customer has agreed to, and what is to be done with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proceeding {
    /// The order it pays.
    pub order_id: OrderId,
    /// The gateway's id of the payment.
    pub gateway_payment_id: String,
    /// All that is due.
    pub amount: Money,
    /// What is to be done.
    pub capture: Capture,
}

/// What the gateway says of one payment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayPayment {
    /// The gateway's id of it.
    pub gateway_payment_id: String,
    /// The order it pays.
    pub order_id: OrderId,
    /// Where it stands.
    pub status: GatewayPaymentStatus,
    /// How much was asked for.
    pub amount: Money,
    /// How much was taken, in major units of the amount's currency.
    pub captured: Decimal,
    /// How much of that went back, in major units of the amount's currency.
    pub refunded: Decimal,
    /// What the customer still has to do.
    pub next_action: Option<NextAction>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// Where a payment stands at the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GatewayPaymentStatus {
    /// The gateway is working on it.
    Pending,
    /// The customer has something to do first.
    RequiresAction,
    /// The customer has agreed; nothing has been set aside or taken, nor will be until we say so.
    Approved,
    /// The money is set aside.
    Authorized,
    /// The money was taken.
    Captured,
    /// It was declined.
    Failed,
    /// It was closed before anything was taken, and can never take anything.
    Closed,
}

impl GatewayPaymentStatus {
    /// It may still take money, or has some set aside.
    pub fn is_open(self) -> bool {
        match self {
            Self::Pending | Self::RequiresAction | Self::Approved | Self::Authorized => true,
            Self::Captured | Self::Failed | Self::Closed => false,
        }
    }
}

/// What the customer has to do before the payment can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NextAction {
    /// Go to the bank's or gateway's page.
    Redirect {
        /// The page.
        url: String,
    },
    /// Pay in the shop's own page, with the gateway's script.
    Checkout {
        /// Whose script.
        gateway: String,
        /// What it is opened with. Everybody may see these.
        parameters: BTreeMap<String, Value>,
    },
}

/// What we ask a gateway to give back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefundOrder {
    /// Ours; the gateway keeps it as its reference.
    pub refund_id: Uuid,
    /// The order it is for.
    pub order_id: OrderId,
    /// The gateway's id of the payment that it comes from.
    pub gateway_payment_id: String,
    /// How much goes back.
    pub amount: Money,
}

/// What the gateway says of one refund.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayRefund {
    /// The gateway's id of it.
    pub gateway_refund_id: String,
    /// How much goes back.
    pub amount: Money,
    /// Whether it has arrived.
    pub status: GatewayRefundStatus,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// A refund as a gateway lists it, whoever asked for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedRefund {
    /// Our id of it, if its reference is one.
    pub refund_id: Option<Uuid>,
    /// How it stands.
    pub refund: GatewayRefund,
}

/// Where a refund stands at the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GatewayRefundStatus {
    /// It is under way: the bank may still send it back.
    Pending,
    /// The customer has it.
    Succeeded,
    /// The customer does not get it, and we have the money.
    Failed,
}

/// What an idempotency key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Payments: to start, proceed with or close one.
    Pay,
    /// Refunds.
    Refund,
}

/// A stretch of time: from its beginning up to, and without, its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its beginning.
    pub from: DateTime<Utc>,
    /// Its end.
    pub until: DateTime<Utc>,
}

impl Window {
    /// There is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.from >= self.until
    }
}

/// A payment as a gateway lists it, whoever it was for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedPayment {
    /// The gateway's id of it.
    pub gateway_payment_id: String,
    /// The order it pays, if its reference is one.
    pub order_id: Option<OrderId>,
    /// What it was made for, in the gateway's words.
    pub reference: Option<String>,
    /// How much was taken; none if that could not be read.
    pub captured: Option<Money>,
}

impl ListedPayment {
    /// Certainly no money was taken.
    pub fn took_nothing(&self) -> bool {
        self.captured.as_ref().is_some_and(|captured| captured.amount().is_zero())
    }
}

/// Some of the payments that a gateway lists.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PaymentPage {
    /// The payments.
    pub payments: Vec<ListedPayment>,
    /// What names the next page; none on the last.
    pub next: Option<String>,
}

/// What a gateway has signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Webhook {
    /// An event.
    Event(WebhookEvent),
    /// Something of a shape that this adapter does not know.
    Unreadable {
        /// The gateway's id of it: the same may arrive many times.
        event_id: String,
        /// What is strange about it.
        why: String,
    },
}

/// Something the gateway told us of its own accord, its signature verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookEvent {
    /// The gateway's id of the event: the same event may arrive many times.
    pub event_id: String,
    /// What happened.
    pub kind: WebhookKind,
    /// The payment it is about. Its order is the one that we made it for.
    pub gateway_payment_id: String,
    /// The order it is about, if the gateway says: for a payment that we do not know yet.
    pub order_id: Option<OrderId>,
    /// How much it is about, if the gateway says.
    pub amount: Option<Money>,
    /// Why it failed, if it did; why it is disputed, if it is.
    pub failure: Option<String>,
    /// The refund or dispute it is about, if it is about one.
    pub about: Option<WebhookSubject>,
    /// When it happened, by the gateway's clock, if the gateway says.
    pub at: Option<DateTime<Utc>>,
}

/// What an event is about besides a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSubject {
    /// The gateway's id of the refund or dispute.
    pub gateway_id: String,
    /// Our id of the refund, if it is one of ours.
    pub refund_id: Option<Uuid>,
}

/// What a webhook reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WebhookKind {
    /// The customer has agreed; nothing was set aside.
    PaymentApproved,
    /// The money was set aside.
    PaymentAuthorized,
    /// The money was taken.
    PaymentCaptured,
    /// The payment was declined.
    PaymentFailed,
    /// The payment was closed, or what was set aside has lapsed.
    PaymentClosed,
    /// A refund is under way.
    RefundPending,
    /// A refund went through.
    RefundSucceeded,
    /// A refund did not go through.
    RefundFailed,
    /// The customer's bank wants the money back, and there is something to answer.
    DisputeOpened,
    /// The money stays.
    DisputeWon,
    /// The money is gone.
    DisputeLost,
    /// Something we do not act on, by the gateway's name for it.
    Other(String),
}

/// A payment service provider.
#[async_trait]
pub trait PaymentGateway: Send + Sync {
    /// The adapter's name in configuration, tables and webhook addresses.
    fn name(&self) -> &'static str;

    /// How long the gateway remembers an idempotency key; past half of it we only look up.
    fn key_lifetime(&self, operation: Operation) -> Duration;

    /// Whether it can collect so much, in that currency, that way.
    ///
    /// # Errors
    /// [`Unsupported`]: the customer must choose another.
    fn accepts(&self, method: PaymentMethod, amount: &Money) -> Result<(), Unsupported>;

    /// Starts collecting; the same `key` returns the same payment.
    async fn initiate(&self, key: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError>;

    /// Every payment the gateway knows for the order; empty if it never heard of it.
    async fn find(&self, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError>;

    /// Takes, or sets aside, what the customer has agreed to pay; returns how the payment stands then. What
    /// has been done already is no error.
    async fn proceed(&self, key: Uuid, proceeding: &Proceeding) -> Result<GatewayPayment, GatewayError>;

    /// Closes every open payment of the order, also one whose money is set aside; returns what each ended as
    /// (Closed, Captured or Failed), never an open one.
    async fn close(&self, key: Uuid, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError>;

    /// Sends a part of a captured payment back; the same `key` never sends it twice.
    async fn refund(&self, key: Uuid, refund: &RefundOrder) -> Result<GatewayRefund, GatewayError>;

    /// The refund that was made for ours, if there is one.
    async fn find_refund(&self, refund: &RefundOrder) -> Result<Option<GatewayRefund>, GatewayError>;

    /// Every refund of a payment, also those that somebody has made on the gateway's own site, but for those that
    /// cannot be read; empty if it never heard of the payment.
    async fn refunds(&self, gateway_payment_id: &str) -> Result<Vec<ListedRefund>, GatewayError>;

    /// Payments made in a stretch of the gateway's time, in any order, a page at a time: the first, or the one
    /// that `page` names. A payment that it has all along is on one of them.
    async fn list(&self, window: Window, page: Option<&str>) -> Result<PaymentPage, GatewayError>;

    /// Checks the signature over the raw body and its age against `now`, then reads the event. What is
    /// rightly signed is never an error, whatever it says.
    ///
    /// # Errors
    /// [`WebhookError`]: nothing of the body may be trusted.
    async fn verify_webhook(
        &self,
        headers: &[(String, String)],
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Webhook, WebhookError>;
}

/// Why a gateway cannot collect a payment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// Why a gateway call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GatewayError {
    /// Time-out, connection lost, 5xx, garbage: the outcome is unknown; repeat under the same key.
    #[error("the gateway's answer is unknown: {0}")]
    Unknown(String),
    /// It asks everybody to come again later; repeat under the same key.
    #[error("the gateway asks to come again in {after_s} s: {why}")]
    Busy {
        /// In its words.
        why: String,
        /// When, in seconds.
        after_s: u64,
    },
    /// It certainly did not do it, and may another time: too little money on our account with it, a lock. Concerns
    /// this call alone.
    #[error("the gateway cannot do it now ({code}): {detail}")]
    NotNow {
        /// The gateway's stable code.
        code: String,
        /// Its explanation, for the log.
        detail: String,
        /// When to ask again, in seconds.
        after_s: u64,
    },
    /// Whoever answered is not the gateway, or it does not know us: somebody must set the shop up
    /// rightly. Says nothing of the payment.
    #[error("the gateway is set up wrongly: {0}")]
    Misconfigured(String),
    /// It understood, and says no: it certainly did not happen.
    #[error("the gateway refused ({code}): {detail}")]
    Refused {
        /// The gateway's stable code.
        code: String,
        /// Its explanation, for the log.
        detail: String,
    },
}

/// What cannot be collected is not asked for.
impl From<Unsupported> for GatewayError {
    fn from(Unsupported(detail): Unsupported) -> Self {
        GatewayError::Refused { code: "payment-method-unsupported".to_owned(), detail }
    }
}

/// Why a webhook is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum WebhookError {
    /// The signature is missing or wrong.
    #[error("the webhook's signature is missing or wrong")]
    BadSignature,
    /// Rightly signed, but so long ago that it may be a replay.
    #[error("the webhook was signed too long ago")]
    TooOld,
    /// It cannot be checked now; the gateway is to send it again.
    #[error("the webhook cannot be checked now: {0}")]
    Unavailable(String),
}

/// A copy of what Postgres said of a cart, so that reading the cart again asks less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartCopy {
    /// Of the cart.
    pub version: i64,
    /// Of the catalogue it was read under.
    pub catalogue: i64,
    /// For whoever wrote it.
    pub body: Vec<u8>,
}

/// Keeps copies of carts. It may forget any of them, and may be away: whoever reads one compares it with
/// Postgres, and whoever gets none asks Postgres.
#[async_trait]
pub trait CartCopies: Send + Sync {
    /// The copy kept of this cart, if any.
    async fn get(&self, cart_id: CartId) -> Option<CartCopy>;

    /// Keeps a copy, unless a newer one is kept.
    async fn put(&self, cart_id: CartId, copy: CartCopy);
}

/// A hold on stock as others may look it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirroredHold {
    /// The order it is for, or the reservation of another service.
    pub holder: Uuid,
    /// What is held and until when, as JSON; none when nothing is held any more.
    pub body: Option<String>,
    /// Whole seconds it still lasts.
    pub remaining_s: u64,
}

/// A copy of the holds outside Postgres, which follows them: it decides nothing.
#[async_trait]
pub trait HoldMirror: Send + Sync {
    /// Up to where it has followed; none if it has forgotten.
    ///
    /// # Errors
    /// [`MirrorAway`]: come again later.
    async fn position(&self) -> Result<Option<String>, MirrorAway>;

    /// Follows on from one position to another, all of it or, when somebody else has gone on from there
    /// before, nothing.
    ///
    /// # Errors
    /// [`MirrorAway`]: come again later. It may have followed.
    async fn follow(&self, from: Option<&str>, to: &str, holds: &[MirroredHold]) -> Result<(), MirrorAway>;
}

/// The mirror cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mirror of the holds cannot be reached")]
pub struct MirrorAway;

/// One e-mail in plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    /// Stable across retries, so a mail server or reader can drop the second copy.
    pub message_id: String,
    /// The recipient's address.
    pub to: String,
    /// The subject line.
    pub subject: String,
    /// The body.
    pub text: String,
    /// The event it tells of, such as `order.confirmed`.
    pub event: String,
    /// The order it is about.
    pub order_id: Option<OrderId>,
}

/// Sends e-mail.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// The adapter's name in metrics.
    fn name(&self) -> &'static str;

    /// Hands the e-mail to the mail server, within half a minute.
    async fn send(&self, email: &Email) -> Result<(), MailError>;
}

/// Why an e-mail was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MailError {
    /// The message was handed over, and no word came back: the server may have it.
    #[error("the mail server did not say whether it took the message: {0}")]
    Unanswered(String),
    /// The server does not have it: try again later.
    #[error("the mail server cannot be reached: {0}")]
    Unreachable(String),
    /// The server said no for good.
    #[error("the mail server refused the message: {0}")]
    Refused(String),
}
