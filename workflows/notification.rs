//! Notification: one e-mail about one event. A message that cannot be sent never undoes an order.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::{
    ids::{CartId, OrderId},
    notification::{
        OrderSummary, StaffReport, cart_reminder, order_cancelled, order_confirmation, order_delivered,
        order_processing, order_shipped, payment_refunded, return_approved, return_received, return_rejected,
    },
    ports::{Email, MailError, Mailer},
};
use engine::{Call, CallContext, Failure, Flow, Nothing, Result, RetryPolicy, Start, Step, StepError, Tx, Workflow};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    Shop,
    store::{
        carts::idle::{self, Standing},
        messages::{self, Outgoing},
        orders_summary, shipments,
    },
};

/// What there is to tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// The event's name, e.g. `order.confirmed` or `cart.abandoned.1`: told once about each subject.
    pub event: String,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// Stable code of the reason, if there is one.
    pub reason: Option<String>,
}

/// What a notice is about, and so whom it is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Subject {
    /// An order: its buyer is told, whatever their preferences, because it is their money.
    #[serde(rename = "orderId")]
    Order(OrderId),
    /// Money that went back: the buyer hears of each refund.
    #[serde(rename = "refund")]
    Refund(Refunded),
    /// A parcel or a return of an order: its buyer is told of each.
    #[serde(rename = "part")]
    Part(OrderPart),
    /// A cart left behind: its owner is reminded, unless they do not want to be.
    #[serde(rename = "cart")]
    Cart(LeftBehind),
    /// Something the staff should know.
    #[serde(rename = "report")]
    Staff(StaffReport),
}

/// A refund that went through.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refunded {
    /// Our id of it.
    pub refund_id: Uuid,
    /// Of which order.
    pub order_id: OrderId,
    /// How much, in major units of the order's currency.
    pub amount: Decimal,
}

/// What of an order a notice is about, where one order has several.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderPart {
    /// The order.
    pub order_id: OrderId,
    /// Of the parcel, or of the return.
    pub id: Uuid,
}

/// A cart as it was left; once it has been touched, it is not this one any more.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftBehind {
    /// Which cart.
    pub cart_id: CartId,
    /// Which time it was left: the run that reminds. A cart may be left more than once.
    pub abandonment: Uuid,
    /// When its owner last did something.
    pub idle_since: DateTime<Utc>,
}

impl Notice {
    /// A notice to an order's buyer.
    pub fn of_order(event: &str, order_id: OrderId) -> Self {
        Notice { event: event.to_owned(), subject: Subject::Order(order_id), reason: None }
    }

    /// A notice to the buyer whose money went back.
    pub fn of_refund(refund: Refunded) -> Self {
        Notice { event: "payment.refunded".to_owned(), subject: Subject::Refund(refund), reason: None }
    }

    /// A notice to an order's buyer about one parcel or return of it.
    pub fn of_part(event: &str, order_id: OrderId, id: Uuid) -> Self {
        Notice { event: event.to_owned(), subject: Subject::Part(OrderPart { order_id, id }), reason: None }
    }

    /// A reminder to a cart's owner.
    pub fn of_cart(event: String, cart: LeftBehind) -> Self {
        Notice { event, subject: Subject::Cart(cart), reason: None }
    }

    /// A report to the staff.
    pub fn to_staff(event: &str, report: StaffReport) -> Self {
        Notice { event: event.to_owned(), subject: Subject::Staff(report), reason: None }
    }

    /// The same with the stable code of the reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The run's business key: an event is told once.
    pub fn key(&self) -> String {
        format!("{}/{}", self.event, self.subject.id())
    }

    /// Has it told once the caller's transaction has committed, for whoever is no flow.
    ///
    /// # Errors
    /// The database's own.
    pub async fn tell(&self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        let start =
            Start::<Notification>::new(self.key(), self).map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?;
        engine::start(conn, &start).await?;
        Ok(())
    }
}

impl Subject {
    /// Under which its messages are recorded.
    pub fn id(&self) -> Uuid {
        match self {
            Subject::Order(order_id) => (*order_id).into(),
            Subject::Refund(refund) => refund.refund_id,
            Subject::Part(part) => part.id,
            Subject::Cart(cart) => cart.abandonment,
            Subject::Staff(report) => report.id,
        }
    }
}

/// `notification/v1`.
#[derive(Debug, Clone)]
pub struct Notification(pub Arc<Shop>);

impl Workflow for Notification {
    const NAME: &'static str = "notification";
    const QUEUE: &'static str = "notification";
    type Input = Notice;
    type Output = bool;

    async fn run(&self, flow: &mut Flow, notice: Notice) -> Result<bool> {
        let mailer = self.0.mailer.as_ref();
        let composed = flow.tx(ComposeMessage { notice: &notice, shop: &self.0 }).undo(Nothing).await?;
        let Some(Composed { id, email }) = composed else { return Ok(false) };
        let pool = flow.pool().clone();
        let refused = flow.call(SendEmail { id, email: &email, mailer, pool }).undo(Nothing).await?;
        flow.tx(SettleMessage { id, refused: refused.as_deref() }).undo(Nothing).await?;
        Ok(refused.is_none())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Composed {
    id: Uuid,
    email: Email,
}

/// Writes the text and records it as SENDING, once per (event, channel, recipient).
struct ComposeMessage<'a> {
    notice: &'a Notice,
    shop: &'a Shop,
}

impl Step for ComposeMessage<'_> {
    const NAME: &'static str = "ComposeMessage";
    type Output = Option<Composed>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Option<Composed>, StepError> {
        let Notice { event, subject, .. } = self.notice;
        let (subject_id, now) = (subject.id(), tx.now());
        let letter = match subject {
            Subject::Order(order_id) => to_buyer(tx.conn(), self.notice, *order_id).await?,
            Subject::Refund(refund) => to_buyer(tx.conn(), self.notice, refund.order_id).await?,
            Subject::Part(part) => to_buyer(tx.conn(), self.notice, part.order_id).await?,
            Subject::Cart(cart) => to_owner(tx.conn(), self.shop, *cart).await?,
            Subject::Staff(report) => to_staff(self.shop, report),
        };
        let unsendable = match &letter.text {
            Err(why) => Some(*why),
            Ok(_) if self.shop.mailer.is_none() => Some("no e-mail channel is configured"),
            Ok(_) => None,
        };
        if let Some(why) = unsendable {
            messages::skip(tx.conn(), subject_id, event, "EMAIL", &letter.to, why, now).await?;
        }
        let (None, Ok((subject, text))) = (unsendable, letter.text) else { return Ok(None) };
        let id = Uuid::now_v7();
        let message_id = format!("{id}@cart-engine");
        let message = Outgoing { id, subject_id, event, recipient: &letter.to, message_id: &message_id };
        if !messages::record_sending(tx.conn(), message, letter.unless_opted_out, now).await? {
            return Ok(None);
        }
        let email = Email { message_id, to: letter.to, subject, text, event: event.clone(), order_id: letter.order_id };
        Ok(Some(Composed { id, email }))
    }
}

/// A message before it is sent.
struct Letter {
    to: String,
    /// The user who may have opted out of messages of this kind.
    unless_opted_out: Option<Uuid>,
    order_id: Option<OrderId>,
    /// Subject and text, or why there is nothing to send.
    text: Result<(String, String), &'static str>,
}

async fn to_buyer(conn: &mut PgConnection, notice: &Notice, order_id: OrderId) -> Result<Letter, StepError> {
    let Some(order) = orders_summary::read(conn, order_id).await? else {
        return Err(Failure::new("order-not-found", "there is no such order to write about").into());
    };
    let text = Ok(text(conn, &order.summary, notice).await?);
    Ok(Letter { to: order.email, unless_opted_out: None, order_id: Some(order_id), text })
}

/// The owner may have come back since the reminder was decided on: then it is not sent.
async fn to_owner(conn: &mut PgConnection, shop: &Shop, cart: LeftBehind) -> Result<Letter, StepError> {
    let look = idle::look(conn, cart.cart_id, cart.idle_since).await?;
    let text = match look.standing {
        Standing::Idle => {
            let summary = idle::summary(conn, cart.cart_id, look.first_name).await?;
            Ok(cart_reminder(&summary, &shop.rules.cart_url()))
        }
        Standing::Touched
        | Standing::Bought
        | Standing::Expired
        | Standing::Emptied
        | Standing::OptedOut
        | Standing::Unreachable => Err("the cart is no longer left behind, or its owner is not to be reminded"),
    };
    let to = look.email.unwrap_or_else(|| "nobody".to_owned());
    Ok(Letter { to, unless_opted_out: look.user_id, order_id: None, text })
}

fn to_staff(shop: &Shop, report: &StaffReport) -> Letter {
    let (to, text) = match &shop.rules.staff_email {
        Some(address) => (address.clone(), Ok((report.subject.clone(), report.text.clone()))),
        None => ("staff".to_owned(), Err("no address of the staff is configured")),
    };
    Letter { to, unless_opted_out: None, order_id: None, text }
}

async fn text(
    conn: &mut PgConnection,
    summary: &OrderSummary,
    notice: &Notice,
) -> Result<(String, String), sqlx::Error> {
    Ok(match (notice.event.as_str(), &notice.subject) {
        (_, Subject::Refund(refund)) => payment_refunded(summary, refund.amount),
        ("order.confirmed", _) => order_confirmation(summary),
        ("order.processing", _) => order_processing(summary),
        ("order.shipped", subject) => order_shipped(summary, shipments::label(conn, subject.id()).await?.as_ref()),
        ("order.delivered", _) => order_delivered(summary),
        ("return.approved", _) => return_approved(summary),
        ("return.received", _) => return_received(summary),
        ("return.rejected", _) => return_rejected(summary, notice.reason.as_deref().unwrap_or_default()),
        _ => order_cancelled(summary, spoken(notice.reason.as_deref().unwrap_or_default())),
    })
}

/// A failure's code as a shopper reads it.
fn spoken(code: &str) -> &str {
    match code {
        "payment-declined" => "the payment was declined",
        "payment-expired" => "the payment was not completed in time",
        "out-of-stock" => "an item sold out before the payment came through",
        "cancelled" => "it was cancelled at your request",
        "cancelled-by-shop" => "the shop had to cancel it",
        _ => "it could not be completed",
    }
}

/// Hands the message over. Under the same Message-ID however often; a predecessor that died in
/// between leaves the row IN_DOUBT.
struct SendEmail<'a> {
    id: Uuid,
    email: &'a Email,
    mailer: Option<&'a Arc<dyn Mailer>>,
    pool: PgPool,
}

impl Call for SendEmail<'_> {
    const NAME: &'static str = "SendEmail";
    /// Why the recipient's server refused it for good, if it did.
    type Output = Option<String>;

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { max_attempts: 50, longest: std::time::Duration::from_secs(600), ..RetryPolicy::default() }
    }

    async fn run(&self, context: &CallContext) -> Result<Option<String>, StepError> {
        let mailer = self.mailer.ok_or_else(|| StepError::Retry("this worker has no e-mail channel".into()))?;
        if context.redelivered {
            let mut conn = self.pool.acquire().await?;
            messages::doubt(&mut conn, self.id).await?;
        }
        match mailer.send(self.email).await {
            Ok(()) => Ok(None),
            Err(MailError::Refused(why)) => Ok(Some(why)),
            Err(MailError::Unreachable(why)) => Err(StepError::Retry(why.into())),
        }
    }
}

/// SENT, or FAILED with the reason.
struct SettleMessage<'a> {
    id: Uuid,
    refused: Option<&'a str>,
}

impl Step for SettleMessage<'_> {
    const NAME: &'static str = "SettleMessage";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        messages::settle(tx.conn(), self.id, self.refused, now).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in flight were started with this shape: it must stay readable, and be what is written.
    #[test]
    fn a_notice_of_an_order_keeps_the_shape_it_was_shipped_with() {
        let order_id = OrderId::generate();
        let shipped = serde_json::json!({ "event": "order.cancelled", "orderId": order_id, "reason": "cancelled" });
        let notice: Notice = serde_json::from_value(shipped.clone()).expect("a notice");
        assert_eq!(notice.key(), format!("order.cancelled/{order_id}"));
        assert_eq!(serde_json::to_value(&notice).expect("json"), shipped);
    }

    #[test]
    fn a_notice_survives_being_journalled_whatever_it_is_about() {
        let cart = LeftBehind { cart_id: CartId::generate(), abandonment: Uuid::now_v7(), idle_since: Utc::now() };
        let report = StaffReport { id: Uuid::now_v7(), subject: "subject".to_owned(), text: "text".to_owned() };
        for notice in [Notice::of_cart("cart.abandoned.1".to_owned(), cart), Notice::to_staff("run.stuck", report)] {
            let json = serde_json::to_value(&notice).expect("json");
            let read: Notice = serde_json::from_value(json).expect("a notice");
            assert_eq!(read.key(), notice.key());
        }
    }
}
