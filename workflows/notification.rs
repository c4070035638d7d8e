//! Notification: one e-mail about one event. A message that cannot be sent never undoes an order.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    ids::{CartId, OrderId},
    notification::{
        OrderSummary, StaffReport, cart_reminder, order_cancelled, order_confirmation, order_delivered,
        order_processing, order_shipped, payment_refunded, return_approved, return_received, return_rejected,
    },
    ports::{Email, MailError, Mailer},
};
use engine::{
    Call, CallContext, Dependency, Failure, Flow, Nothing, Result, RetryPolicy, Start, Step, StepError, Tx, Workflow,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    Shop,
    store::{
        carts::idle::{self, Standing},
        messages::{self, Outgoing, Skip},
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
        let handover = flow.call(SendEmail { id, email: &email, mailer, pool }).undo(Nothing).await?;
        flow.tx(SettleMessage { id, handover: &handover }).undo(Nothing).await?;
        Ok(handover == Handover::Taken)
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
            let skip = Skip { subject_id, event, channel: "EMAIL", recipient: &letter.to, why };
            messages::skip(tx.conn(), &[skip], now).await?;
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

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Handover {
    /// The server has it.
    Taken,
    /// The recipient's server refused it for good, and why.
    Refused(String),
    /// It was handed over twice, and nobody said whether they have it: it is not sent a third time.
    InDoubt,
}

/// Handovers without an answer after which a message is not sent again: the first, and once more.
const MOST_DOUBTS: i32 = 2;

/// Hands the message over, under the same Message-ID however often. What certainly was not handed over
/// is tried again; what was, and never answered for, is IN_DOUBT and sent once more. So is what a
/// predecessor may have handed over that did not live to say so.
struct SendEmail<'a> {
    id: Uuid,
    email: &'a Email,
    mailer: Option<&'a Arc<dyn Mailer>>,
    pool: PgPool,
}

impl SendEmail<'_> {
    /// How often it may have been handed over by now; once more than was noted if `again`.
    async fn doubts(&self, again: bool) -> Result<i32, sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        if again {
            metrics::counter!("cart_engine_emails_in_doubt_total").increment(1);
            messages::doubt(&mut conn, self.id).await
        } else {
            messages::doubts(&mut conn, self.id).await
        }
    }
}

impl Call for SendEmail<'_> {
    const NAME: &'static str = "SendEmail";
    type Output = Handover;

    fn policy(&self) -> RetryPolicy {
        let (longest, timeout) = (Duration::from_secs(600), Duration::from_secs(35));
        RetryPolicy { max_attempts: 50, longest, timeout, ..RetryPolicy::default() }
    }

    fn dependency(&self) -> Option<Dependency> {
        self.mailer.map(|mailer| Dependency::new("mail", mailer.name()))
    }

    async fn run(&self, context: &CallContext) -> Result<Handover, StepError> {
        let mailer = self.mailer.ok_or_else(|| StepError::Retry("this worker has no e-mail channel".into()))?;
        let mut doubts = self.doubts(false).await?;
        if context.redelivered && doubts < MOST_DOUBTS {
            doubts = self.doubts(true).await?;
        }
        if doubts >= MOST_DOUBTS {
            return Ok(Handover::InDoubt);
        }
        let unanswered = match mailer.send(self.email).await {
            Ok(()) => return Ok(Handover::Taken),
            Err(MailError::Refused(why)) => return Ok(Handover::Refused(why)),
            Err(MailError::Unreachable(why)) => return Err(StepError::Retry(why.into())),
            Err(MailError::Unanswered(why)) => why,
        };
        if self.doubts(true).await? >= MOST_DOUBTS {
            return Ok(Handover::InDoubt);
        }
        Err(StepError::Retry(unanswered.into()))
    }
}

/// SENT, or FAILED with the reason, or for ever IN_DOUBT.
struct SettleMessage<'a> {
    id: Uuid,
    handover: &'a Handover,
}

impl Step for SettleMessage<'_> {
    const NAME: &'static str = "SettleMessage";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        match self.handover {
            Handover::Taken => messages::settle(tx.conn(), self.id, None, now).await?,
            Handover::Refused(why) => messages::settle(tx.conn(), self.id, Some(why), now).await?,
            Handover::InDoubt => {}
        }
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
