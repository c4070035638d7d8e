//! What a gateway says after its answer: duplicates, out of order, late, or about nothing we know.

use chrono::TimeDelta;
use domain::{
    notification::StaffReport,
    ports::{WebhookEvent, WebhookKind},
};
use engine::{Start, run::Delivery};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::pay::{PaymentOutcome, SIGNAL};
use crate::{
    notification::Notice,
    refund::{RefundPayment, RefundRequest},
    store::{payments, reconciliation::checks, webhook_inbox},
};

/// It is about an order, or a payment, that we do not know: it is tried again for a while, and then the staff's.
pub const UNMATCHED: &str = "UNMATCHED";
/// It was rightly signed, and says nothing that we understand.
pub const UNREADABLE: &str = "UNREADABLE";

/// Times an event that found no order is tried again before it is a person's: for eight hours and a half.
pub(crate) const TIMES: i32 = 9;

/// How long after it has been tried so many times an event is tried again: a minute at first, and each time
/// twice as long.
pub(crate) fn delay(time: i32) -> TimeDelta {
    TimeDelta::minutes(2_i64.pow(u32::try_from(time.clamp(0, TIMES)).unwrap_or_default()))
}

/// Keeps a verified event, and hands it to whom it concerns, in one transaction. Returns what became of it;
/// none when it was kept before.
///
/// # Errors
/// The database's own.
pub async fn keep(
    conn: &mut PgConnection,
    gateway: &str,
    event: &WebhookEvent,
    raw: &Value,
) -> Result<Option<&'static str>, sqlx::Error> {
    if !webhook_inbox::keep(conn, gateway, &event.event_id, Some(event), raw).await? {
        return Ok(None);
    }
    let outcome = receive(conn, gateway, event).await?;
    let try_at = if outcome == UNMATCHED {
        metrics::counter!("cart_engine_webhooks_unmatched_total", "gateway" => gateway.to_owned()).increment(1);
        Some(engine::now(&mut *conn).await? + delay(0))
    } else {
        None
    };
    webhook_inbox::record_outcome(conn, gateway, &event.event_id, outcome, try_at).await?;
    Ok(Some(outcome))
}

/// Keeps what was rightly signed and cannot be read, and tells the staff of it, once a gateway and day. False
/// when it was kept before.
///
/// # Errors
/// The database's own.
pub async fn keep_unreadable(
    conn: &mut PgConnection,
    gateway: &str,
    event_id: &str,
    why: &str,
    raw: &Value,
) -> Result<bool, sqlx::Error> {
    if !webhook_inbox::keep(conn, gateway, event_id, None, raw).await? {
        return Ok(false);
    }
    metrics::counter!("cart_engine_webhooks_unreadable_total", "gateway" => gateway.to_owned()).increment(1);
    let day = engine::now(&mut *conn).await?.date_naive();
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{gateway}/{day}").as_bytes());
    let subject = format!("The gateway {gateway} says what the shop does not understand");
    let text = format!(
        "A webhook was rightly signed, and is of no shape that the shop knows. It was kept; nothing came of it.\n\n\
         Gateway: {gateway}\nEvent: {event_id}\nWhy: {why}\n\n\
         `cart-engine inspect money` shows it, and what else came that day.\n"
    );
    Notice::to_staff("webhook.unreadable", StaffReport { id, subject, text }).tell(conn).await?;
    Ok(true)
}

/// Turns what a gateway says into a signal for the run it concerns, in the caller's transaction.
/// Money for an order that is not to be had starts a refund. Returns what became of it.
pub async fn receive(
    conn: &mut PgConnection,
    gateway: &str,
    event: &WebhookEvent,
) -> Result<&'static str, sqlx::Error> {
    let (captured, failure) = match &event.kind {
        // Of how much it does not say, and it is no decline: the gateway is asked.
        WebhookKind::PaymentCaptured if event.amount.is_none() => return compare_again(conn, event).await,
        WebhookKind::PaymentCaptured => (event.amount.clone(), None),
        WebhookKind::PaymentFailed => (None, Some(event.failure.clone().unwrap_or_else(|| "declined".to_owned()))),
        // The books may say that it went through.
        WebhookKind::RefundFailed => return compare_again(conn, event).await,
        WebhookKind::PaymentAuthorized | WebhookKind::RefundSucceeded | WebhookKind::Other(_) => {
            return Ok("IGNORED");
        }
    };
    let Some(order_id) = event.order_id else { return Ok(UNMATCHED) };
    let Some(order) = payments::order_of(conn, order_id).await? else { return Ok(UNMATCHED) };
    let is_captured = captured.is_some();
    let outcome =
        PaymentOutcome { gateway_payment_id: event.gateway_payment_id.clone(), captured, failure, expired: false };
    // Word of a payment that is not this checkout's neither confirms nor fails it, however well signed.
    if order.order_status == "PENDING"
        && order.gateway_payment_id.as_ref().is_some_and(|own| *own != event.gateway_payment_id)
    {
        return Ok("IGNORED");
    }
    // One payment ends once: its id and end are the signal's key, whatever the event's.
    let key = format!("{}/{}", event.gateway_payment_id, if is_captured { "captured" } else { "failed" });
    let delivery = engine::run::signal(conn, order.checkout_run_id, SIGNAL, &key, &outcome).await?;
    if delivery == Delivery::Invalid {
        // It is kept as it came, and silence is asked about: nothing hangs on telling it again.
        return Ok("REFUSED");
    }
    if !is_captured {
        return Ok(if delivery == Delivery::Delivered { "SIGNALLED" } else { "IGNORED" });
    }
    // The signal has locked the run's row, or the run has ended: what the order says now stays true.
    let unwinding = engine::run::is_unwinding(conn, order.checkout_run_id).await?;
    let order = payments::order_of(conn, order_id).await?.unwrap_or(order);
    let is_unwanted = match (order.order_status.as_str(), order.confirmed_by.as_deref()) {
        ("CANCELLED", _) => true,
        (_, Some(payment_id)) => payment_id != event.gateway_payment_id,
        (_, None) => match delivery {
            Delivery::Delivered | Delivery::Duplicate | Delivery::Refused => unwinding,
            Delivery::Finished | Delivery::Unknown | Delivery::Invalid => true,
        },
    };
    if !is_unwanted {
        return Ok(if delivery == Delivery::Delivered { "SIGNALLED" } else { "IGNORED" });
    }
    let reason = if order.confirmed_by.is_some() { "the order was paid already" } else { "the order is not to be had" };
    let request = RefundRequest::everything(order_id, Some(gateway.to_owned()), reason.to_owned());
    let start = Start::<RefundPayment>::new(format!("{order_id}/late/{}", event.gateway_payment_id), &request)
        .map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?;
    engine::start(conn, &start).await?;
    Ok("STARTED_REFUND")
}

/// The word alone does not say what to do: the order's books are compared with the gateway.
async fn compare_again(conn: &mut PgConnection, event: &WebhookEvent) -> Result<&'static str, sqlx::Error> {
    let Some(order_id) = event.order_id else { return Ok(UNMATCHED) };
    if payments::order_of(conn, order_id).await?.is_none() {
        return Ok(UNMATCHED);
    }
    checks::check_again(conn, order_id).await?;
    Ok("COMPARED")
}
