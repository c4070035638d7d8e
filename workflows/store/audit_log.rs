//! `audit_log`: what staff, operators and the shop itself did by hand, so to speak. Append-only.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;

/// Who did what to which thing, and why.
#[derive(Debug, Clone, Copy)]
pub struct Action<'a> {
    /// `user:<id>`, `service:<id>`, or `system:<workflow>`.
    pub actor: &'a str,
    /// What was done, e.g. `schedule.pause`.
    pub action: &'a str,
    /// To what, e.g. `schedule:retention` or `run:<id>`.
    pub subject: &'a str,
    /// Why, in the actor's words.
    pub reason: Option<&'a str>,
    /// What else there is to know.
    pub details: Option<&'a Value>,
}

/// Writes it down, in the transaction that does it.
///
/// # Errors
/// The database's own.
pub async fn record(conn: &mut PgConnection, action: Action<'_>) -> Result<(), sqlx::Error> {
    let Action { actor, action, subject, reason, details } = action;
    sqlx::query!(
        "insert into audit_log (actor, action, subject, reason, details) values ($1, $2, $3, $4, $5)",
        actor,
        action,
        subject,
        reason,
        details
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A line of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// Why.
    pub reason: Option<String>,
    /// What else there is to know.
    pub details: Option<Value>,
    /// When.
    pub at: DateTime<Utc>,
}

/// The latest `limit` lines about one thing, the oldest of them first.
///
/// # Errors
/// The database's own.
pub async fn about(conn: &mut PgConnection, subject: &str, limit: i64) -> Result<Vec<Line>, sqlx::Error> {
    let mut lines = sqlx::query_as!(
        Line,
        "select actor, action, reason, details, at from audit_log where subject = $1 order by at desc, id desc limit $2",
        subject,
        limit
    )
    .fetch_all(conn)
    .await?;
    lines.reverse();
    Ok(lines)
}
