//! What a gateway says after its answer: duplicates, out of order, late, or about nothing we know.

use domain::ports::{WebhookEvent, WebhookKind};
use engine::{Delivery, Start};
use sqlx::PgConnection;

use super::pay::{PaymentOutcome, SIGNAL};
use crate::{
    refund::{RefundPayment, RefundRequest},
    store::payments,
};

/// Turns a verified webhook into a signal for the run it concerns, in the transaction that keeps it.
/// Money for an order that is not to be had starts a refund. Answers what became of it.
pub async fn receive(
    conn: &mut PgConnection,
    gateway: &str,
    event: &WebhookEvent,
) -> Result<&'static str, sqlx::Error> {
    let (captured, failure) = match &event.kind {
        WebhookKind::PaymentCaptured => (event.amount.clone(), None),
        WebhookKind::PaymentFailed => (None, Some(event.failure.clone().unwrap_or_else(|| "declined".to_owned()))),
        WebhookKind::PaymentAuthorized
        | WebhookKind::RefundSucceeded
        | WebhookKind::RefundFailed
        | WebhookKind::Other(_) => {
            return Ok("IGNORED");
        }
    };
    let Some(order_id) = event.order_id else { return Ok("IGNORED") };
    let Some(order) = payments::order_of(conn, order_id).await? else { return Ok("IGNORED") };
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
    let delivery = engine::signal(conn, order.checkout_run_id, SIGNAL, &key, &outcome).await?;
    if !is_captured {
        return Ok(if delivery == Delivery::Delivered { "SIGNALLED" } else { "IGNORED" });
    }
    // The signal has locked the run's row, or the run has ended: what the order says now stays true.
    let unwinding = engine::signal::is_unwinding(conn, order.checkout_run_id).await?;
    let order = payments::order_of(conn, order_id).await?.unwrap_or(order);
    let is_unwanted = match (order.order_status.as_str(), order.confirmed_by.as_deref()) {
        ("CANCELLED", _) => true,
        (_, Some(payment_id)) => payment_id != event.gateway_payment_id,
        (_, None) => match delivery {
            Delivery::Delivered | Delivery::Duplicate | Delivery::Refused => unwinding,
            Delivery::Finished | Delivery::Unknown => true,
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
