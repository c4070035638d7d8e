//! The SQL of `webhook_inbox`: each event once, as it came.

use domain::ports::{WebhookEvent, WebhookKind};
use serde_json::Value;
use sqlx::PgConnection;

/// Keeps an event; false when it was there already. Two deliveries at once queue up behind the unique
/// index, so that exactly one of them is the first.
pub(super) async fn keep(
    conn: &mut PgConnection,
    gateway: &str,
    event: &WebhookEvent,
    body: &Value,
) -> Result<bool, sqlx::Error> {
    let kept = sqlx::query!(
        "insert into webhook_inbox (gateway, event_id, event_type, order_id, body, outcome)
         values ($1, $2, $3, $4, $5, 'IGNORED')
         on conflict (gateway, event_id) do nothing",
        gateway,
        event.event_id,
        event_type(&event.kind),
        event.order_id.map(|id| id.0),
        body,
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected() == 1)
}

fn event_type(kind: &WebhookKind) -> &str {
    match kind {
        WebhookKind::PaymentCaptured => "payment.captured",
        WebhookKind::PaymentFailed => "payment.failed",
        WebhookKind::PaymentAuthorized => "payment.authorized",
        WebhookKind::RefundSucceeded => "refund.succeeded",
        WebhookKind::RefundFailed => "refund.failed",
        WebhookKind::Other(name) => name,
    }
}

/// Notes what came of an event.
pub(super) async fn record_outcome(
    conn: &mut PgConnection,
    gateway: &str,
    event_id: &str,
    outcome: &str,
) -> Result<(), sqlx::Error> {
    // IGNORED is what the row says already.
    sqlx::query!(
        "update webhook_inbox set outcome = $3 where gateway = $1 and event_id = $2 and outcome <> $3",
        gateway,
        event_id,
        outcome
    )
    .execute(conn)
    .await?;
    Ok(())
}
