//! Deleting what has had its time: `idempotency_keys`, `refresh_tokens`, `webhook_inbox`.
//!
//! These rows are stamped in real time, as what they guard against happens in it: moving the development
//! clock must not make a retry new, or a stolen token good.

use std::time::Duration;

use sqlx::PgConnection;

/// Up to `batch` answers that nobody may ask for again: older than 24 hours.
///
/// # Errors
/// The database's own.
pub async fn delete_answers(conn: &mut PgConnection, batch: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from idempotency_keys
          where (caller, idempotency_key) in (
                select caller, idempotency_key from idempotency_keys
                 where created_at <= now() - interval '24 hours'
                 order by created_at limit $1
                   for update skip locked)",
        batch
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}

/// Up to `batch` refresh tokens that ran out a day ago or more. Until it runs out a used token stays, because
/// showing it again gives a thief away.
///
/// # Errors
/// The database's own.
pub async fn delete_refresh_tokens(conn: &mut PgConnection, batch: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from refresh_tokens
          where id = any(array(
                -- By their end: how long a token lasts may have been another when it was issued.
                select id from refresh_tokens where expires_at <= now() - interval '1 day'
                 order by expires_at limit $1))",
        batch
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}

/// Up to `batch` webhooks that came longer ago than they are kept.
///
/// # Errors
/// The database's own.
pub async fn delete_webhooks(conn: &mut PgConnection, batch: i64, kept: Duration) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from webhook_inbox
          where id in (select id from webhook_inbox
                        where received_at <= now() - make_interval(secs => $2)
                        order by received_at limit $1
                          for update skip locked)",
        batch,
        kept.as_secs_f64()
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}
