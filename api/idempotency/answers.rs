//! The SQL of `idempotency_keys`, which only the API knows.

use serde_json::Value;
use sqlx::PgConnection;

/// An answer given before.
pub(super) struct Answer {
    pub(super) request_hash: Vec<u8>,
    pub(super) status: i32,
    pub(super) body: Value,
}

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another request held the key for as long as we waited.
    #[error("another request with this key is under way")]
    InHand,
    /// Postgres failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Holds the key until the transaction ends. Two keys that hash alike only wait for each other.
pub(super) async fn lock(conn: &mut PgConnection, caller: &str, key: &str) -> Result<(), LockError> {
    // Expressions of one select list are evaluated from left to right, so the limit is in force before
    // the wait. The look-up must be another statement: this one's snapshot is older than the wait.
    let locked = sqlx::query!(
        "select set_config('lock_timeout', '2s', true),
                pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0))",
        caller,
        key
    )
    .fetch_one(conn)
    .await;
    match locked {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(db)) if db.code().as_deref() == Some("55P03") => Err(LockError::InHand),
        Err(error) => Err(error.into()),
    }
}

/// The answer kept for a key, unless it is older than 24 hours.
pub(super) async fn find(conn: &mut PgConnection, caller: &str, key: &str) -> Result<Option<Answer>, sqlx::Error> {
    sqlx::query_as!(
        Answer,
        "select request_hash, status, body from idempotency_keys
          where caller = $1 and idempotency_key = $2 and created_at > now() - interval '24 hours'",
        caller,
        key
    )
    .fetch_optional(conn)
    .await
}

/// Keeps an answer, in place of one that has expired and was not swept yet.
pub(super) async fn keep(
    conn: &mut PgConnection,
    caller: &str,
    key: &str,
    request_hash: &[u8],
    status: i32,
    body: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into idempotency_keys (caller, idempotency_key, request_hash, status, body)
         values ($1, $2, $3, $4, $5)
         on conflict (caller, idempotency_key) do update
            set request_hash = excluded.request_hash, status = excluded.status, body = excluded.body,
                created_at = excluded.created_at",
        caller,
        key,
        request_hash,
        status,
        body
    )
    .execute(conn)
    .await?;
    Ok(())
}
