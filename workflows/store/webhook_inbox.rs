//! `webhook_inbox`: each event of a gateway once, as it came, and what became of it.

use chrono::{DateTime, Utc};
use domain::ports::{WebhookEvent, WebhookKind};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// Longest name of an event's type that is kept, in characters.
const MAX_TYPE_CHARS: usize = 100;

/// Keeps an event; false when it was there already. Two deliveries at once queue up behind the unique
/// index, so that exactly one of them is the first. Without `event` it could not be read.
///
/// # Errors
/// The database's own.
pub async fn keep(
    conn: &mut PgConnection,
    gateway: &str,
    event_id: &str,
    event: Option<&WebhookEvent>,
    body: &Value,
) -> Result<bool, sqlx::Error> {
    let read = event.map(serde_json::to_value).transpose().map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let kept = sqlx::query!(
        "insert into webhook_inbox (gateway, event_id, event_type, order_id, event, body, outcome)
         values ($1, $2, $3, $4, $5, $6, case when $5::jsonb is null then 'UNREADABLE' else 'IGNORED' end)
         on conflict (gateway, event_id) do nothing",
        gateway,
        event_id,
        event.map_or_else(|| "unknown".to_owned(), |event| event_type(&event.kind)),
        event.and_then(|event| event.order_id).map(Uuid::from),
        read,
        body,
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected() == 1)
}

fn event_type(kind: &WebhookKind) -> String {
    match kind {
        WebhookKind::PaymentApproved => "payment.approved".to_owned(),
        WebhookKind::PaymentAuthorized => "payment.authorized".to_owned(),
        WebhookKind::PaymentCaptured => "payment.captured".to_owned(),
        WebhookKind::PaymentFailed => "payment.failed".to_owned(),
        WebhookKind::PaymentClosed => "payment.closed".to_owned(),
        WebhookKind::RefundPending => "refund.pending".to_owned(),
        WebhookKind::RefundSucceeded => "refund.succeeded".to_owned(),
        WebhookKind::RefundFailed => "refund.failed".to_owned(),
        WebhookKind::DisputeOpened => "dispute.opened".to_owned(),
        WebhookKind::DisputeWon => "dispute.won".to_owned(),
        WebhookKind::DisputeLost => "dispute.lost".to_owned(),
        WebhookKind::Other(name) => name.chars().take(MAX_TYPE_CHARS).collect(),
    }
}

/// Notes what came of an event, and when it is tried again if it is.
///
/// # Errors
/// The database's own.
pub async fn record_outcome(
    conn: &mut PgConnection,
    gateway: &str,
    event_id: &str,
    outcome: &str,
    try_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    // IGNORED is what the row says already.
    sqlx::query!(
        "update webhook_inbox set outcome = $3, try_at = $4, attempts = attempts + 1
          where gateway = $1 and event_id = $2 and (outcome <> $3 or $4::timestamptz is not null or try_at is not null)",
        gateway,
        event_id,
        outcome,
        try_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An event whose order was not to be found.
#[derive(Debug, Clone)]
pub struct Unmatched {
    /// From which gateway.
    pub gateway: String,
    /// The gateway's id of it.
    pub event_id: String,
    /// Times it was tried.
    pub attempts: i32,
    /// What it says; none when this release cannot read what another has kept.
    pub event: Option<WebhookEvent>,
}

/// Up to `limit` events without an order that are to be tried again by now, the longest due first. Nobody else
/// gets them until the caller's transaction ends.
///
/// # Errors
/// The database's own.
pub async fn due(conn: &mut PgConnection, now: DateTime<Utc>, limit: i64) -> Result<Vec<Unmatched>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select gateway, event_id, attempts, event from webhook_inbox
            where outcome = 'UNMATCHED' and try_at <= $1
            order by try_at limit $2
              for update skip locked"#,
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Unmatched {
            gateway: row.gateway,
            event_id: row.event_id,
            attempts: row.attempts,
            event: row.event.and_then(|event| serde_json::from_value(event).ok()),
        })
        .collect())
}

/// An event that nobody could make anything of, as people see it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unplaced {
    /// From which gateway.
    pub gateway: String,
    /// The gateway's id of it.
    pub event_id: String,
    /// Its type; `unknown` when it could not be read.
    pub event_type: String,
    /// UNMATCHED or UNREADABLE.
    pub outcome: String,
    /// As it came.
    pub body: Value,
    /// When.
    pub received_at: DateTime<Utc>,
    /// It is tried against orders that come later.
    pub is_tried_again: bool,
}

/// The newest `limit` of them.
///
/// # Errors
/// The database's own.
pub async fn unplaced(conn: &mut PgConnection, limit: i64) -> Result<Vec<Unplaced>, sqlx::Error> {
    sqlx::query_as!(
        Unplaced,
        r#"select gateway, event_id, event_type, outcome, body, received_at, try_at is not null as "is_tried_again!"
             from webhook_inbox where outcome in ('UNMATCHED', 'UNREADABLE') order by id desc limit $1"#,
        limit
    )
    .fetch_all(conn)
    .await
}

/// How many there are of each: UNMATCHED, UNREADABLE.
///
/// # Errors
/// The database's own.
pub async fn count_unplaced(conn: &mut PgConnection) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query!(
        r#"select count(*) filter (where outcome = 'UNMATCHED') as "unmatched!",
                  count(*) filter (where outcome = 'UNREADABLE') as "unreadable!"
             from webhook_inbox where outcome in ('UNMATCHED', 'UNREADABLE')"#
    )
    .fetch_one(conn)
    .await?;
    Ok((row.unmatched, row.unreadable))
}
