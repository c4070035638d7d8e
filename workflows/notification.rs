//! Notification: one e-mail about one event. A message that cannot be sent never undoes an order.

use std::sync::Arc;

use domain::{
    ids::OrderId,
    notification::{OrderSummary, order_cancelled, order_confirmation, payment_refunded},
    ports::{Email, MailError, Mailer},
};
use engine::{Call, CallContext, Failure, Flow, Nothing, Result, RetryPolicy, Step, StepError, Tx, Workflow};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Shop,
    store::{
        messages::{self, Outgoing},
        orders_summary,
    },
};

/// What there is to tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// `order.confirmed`, `order.cancelled` or `payment.refunded`.
    pub event: String,
    /// About which order.
    pub order_id: OrderId,
    /// Stable code of the reason, if there is one.
    pub reason: Option<String>,
}

impl Notice {
    /// The run's business key: an event is told once.
    pub fn key(&self) -> String {
        format!("{}/{}", self.event, self.order_id)
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
        let composed = flow.tx(ComposeMessage { notice: &notice, has_mailer: mailer.is_some() }).undo(Nothing).await?;
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
    has_mailer: bool,
}

impl Step for ComposeMessage<'_> {
    const NAME: &'static str = "ComposeMessage";
    type Output = Option<Composed>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Option<Composed>, StepError> {
        let (notice, now) = (self.notice, tx.now());
        let Some(order) = orders_summary::read(tx.conn(), notice.order_id).await? else {
            return Err(Failure::new("order-not-found", "there is no such order to write about").into());
        };
        let subject_id = Uuid::from(notice.order_id);
        if !self.has_mailer {
            messages::skip(tx.conn(), subject_id, &notice.event, &order.email, "no e-mail channel is configured", now)
                .await?;
            return Ok(None);
        }
        let (subject, text) = text(&order.summary, notice);
        let id = Uuid::now_v7();
        let message_id = format!("{id}@cart-engine");
        let message =
            Outgoing { id, subject_id, event: &notice.event, recipient: &order.email, message_id: &message_id };
        if !messages::record_sending(tx.conn(), message, order.user_id, now).await? {
            return Ok(None);
        }
        let email = Email {
            message_id,
            to: order.email,
            subject,
            text,
            event: notice.event.clone(),
            order_id: Some(notice.order_id),
        };
        Ok(Some(Composed { id, email }))
    }
}

fn text(summary: &OrderSummary, notice: &Notice) -> (String, String) {
    match notice.event.as_str() {
        "order.confirmed" => order_confirmation(summary),
        "payment.refunded" => payment_refunded(summary),
        _ => order_cancelled(summary, spoken(notice.reason.as_deref().unwrap_or_default())),
    }
}

/// A failure's code as a shopper reads it.
fn spoken(code: &str) -> &str {
    match code {
        "payment-declined" => "the payment was declined",
        "payment-expired" => "the payment was not completed in time",
        "out-of-stock" => "an item sold out before the payment came through",
        "cancelled" => "it was cancelled at your request",
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
