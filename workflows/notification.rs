//! Notification: one e-mail about one event. A message that cannot be sent never undoes an order.

mod letter;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    ids::{CartId, OrderId},
    notification::StaffReport,
    ports::{Email, MailError, Mailer},
};
use engine::{
    Call, CallContext, Dependency, Flow, Nothing, Result, RetryPolicy, SetResult, SetStep, SetTx, Start, StepError,
    Workflow, done,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use self::letter::{Letter, letters};
use crate::{
    Shop,
    store::messages::{self, Outgoing, Skip},
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
    /// The order it is about, if it is about one.
    fn order_id(&self) -> Option<OrderId> {
        match self {
            Subject::Order(order_id)
            | Subject::Refund(Refunded { order_id, .. })
            | Subject::Part(OrderPart { order_id, .. }) => Some(*order_id),
            Subject::Cart(_) | Subject::Staff(_) => None,
        }
    }

    fn cart(&self) -> Option<LeftBehind> {
        match self {
            Subject::Cart(cart) => Some(*cart),
            Subject::Order(_) | Subject::Refund(_) | Subject::Part(_) | Subject::Staff(_) => None,
        }
    }

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
        let composed = flow.tx(ComposeMessage { notice, shop: self.0.clone() }).undo(Nothing).await?;
        let Some(Composed { id, email }) = composed else { return Ok(false) };
        let pool = flow.pool().clone();
        let handover = flow.call(SendEmail { id, email: &email, mailer, pool }).undo(Nothing).await?;
        flow.tx(SettleMessage { id, handover: handover.clone() }).undo(Nothing).await?;
        Ok(handover == Handover::Taken)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Composed {
    id: Uuid,
    email: Email,
}

/// Writes the text and records it as SENDING, once per (event, channel, recipient).
struct ComposeMessage {
    notice: Notice,
    shop: Arc<Shop>,
}

impl SetStep for ComposeMessage {
    const NAME: &'static str = "ComposeMessage";
    type Output = Option<Composed>;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Option<Composed>> {
        let now = tx.now();
        let mut composed = Vec::with_capacity(rows.len());
        let told: Vec<(&Notice, &Shop)> = rows.iter().map(|row| (&row.notice, &*row.shop)).collect();
        for (row, letter) in rows.iter().zip(letters(tx.conn(), &told).await?) {
            composed.push(letter.map(|letter| row.compose(letter)));
        }
        let unsendable: Vec<Skip<'_>> = rows
            .iter()
            .zip(&composed)
            .filter_map(|(row, composed)| {
                let (to, why) = composed.as_ref().ok()?.as_ref().err()?;
                let (subject_id, event) = (row.notice.subject.id(), row.notice.event.as_str());
                Some(Skip { subject_id, event, channel: "EMAIL", recipient: to, why })
            })
            .collect();
        messages::skip(tx.conn(), &unsendable, now).await?;
        let outgoing: Vec<Outgoing<'_>> = rows
            .iter()
            .zip(&composed)
            .filter_map(|(row, composed)| {
                let (Composed { id, email }, unless_opted_out) = composed.as_ref().ok()?.as_ref().ok()?;
                Some(Outgoing {
                    id: *id,
                    subject_id: row.notice.subject.id(),
                    event: &row.notice.event,
                    recipient: &email.to,
                    message_id: &email.message_id,
                    unless_opted_out: *unless_opted_out,
                })
            })
            .collect();
        let sending = messages::record_sending(tx.conn(), &outgoing, now).await?;
        let sent = |(composed, _): (Composed, _)| sending.contains(&composed.id).then_some(composed);
        Ok(composed.into_iter().map(|composed| Ok(composed?.ok().and_then(sent))).collect())
    }
}

/// A message with the user who may have opted out of it; or to whom it cannot be sent, and why.
type Sendable = Result<(Composed, Option<Uuid>), (String, &'static str)>;

impl ComposeMessage {
    fn compose(&self, letter: Letter) -> Sendable {
        let Letter { to, unless_opted_out, order_id, text } = letter;
        let text = text.and_then(|text| match &self.shop.mailer {
            Some(_) => Ok(text),
            None => Err("no e-mail channel is configured"),
        });
        match text {
            Err(why) => Err((to, why)),
            Ok((subject, text)) => {
                let id = Uuid::now_v7();
                let (message_id, event) = (format!("{id}@cart-engine"), self.notice.event.clone());
                let email = Email { message_id, to, subject, text, event, order_id };
                Ok((Composed { id, email }, unless_opted_out))
            }
        }
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
struct SettleMessage {
    id: Uuid,
    handover: Handover,
}

impl SetStep for SettleMessage {
    const NAME: &'static str = "SettleMessage";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        let settled: Vec<(Uuid, Option<&str>)> = rows
            .iter()
            .filter_map(|row| match &row.handover {
                Handover::Taken => Some((row.id, None)),
                Handover::Refused(why) => Some((row.id, Some(why.as_str()))),
                Handover::InDoubt => None,
            })
            .collect();
        messages::settle(tx.conn(), &settled, now).await?;
        done(rows)
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
