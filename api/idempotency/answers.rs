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

/// Whether each of these keys is held now until the transaction ends; those that somebody else has in hand are
/// not waited for.
pub(super) async fn try_lock(
    conn: &mut PgConnection,
    callers: &[String],
    keys: &[String],
) -> Result<Vec<bool>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(hashtextextended(o.caller || ' ' || o.key, 0)) as "locked!"
             from unnest($1::text[], $2::text[]) with ordinality as o(caller, key, position)
            order by o.position"#,
        callers,
        keys
    )
    .fetch_all(conn)
    .await
}

/// The answer kept for each of these keys, unless it is older than 24 hours.
pub(super) async fn find(
    conn: &mut PgConnection,
    callers: &[String],
    keys: &[String],
) -> Result<Vec<Option<Answer>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select o.position as "position!", k.request_hash, k.status, k.body
             from unnest($1::text[], $2::text[]) with ordinality as o(caller, key, position)
             join idempotency_keys k on k.caller = o.caller and k.idempotency_key = o.key
            where k.created_at > now() - interval '24 hours'"#,
        callers,
        keys
    )
    .fetch_all(conn)
    .await?;
    let mut found: Vec<Option<Answer>> = keys.iter().map(|_| None).collect();
    for row in rows {
        let place = usize::try_from(row.position - 1).ok().and_then(|at| found.get_mut(at));
        if let Some(place) = place {
            *place = Some(Answer { request_hash: row.request_hash, status: row.status, body: row.body });
        }
    }
    Ok(found)
}

/// An answer to be kept.
pub(super) struct Kept<'a> {
    pub(super) caller: &'a str,
    pub(super) key: &'a str,
    pub(super) request_hash: &'a [u8],
    pub(super) status: i32,
    pub(super) body: &'a Value,
}

/// Keeps answers, in place of those that have expired and were not swept yet. Each key is named once.
pub(super) async fn keep(conn: &mut PgConnection, kept: &[Kept<'_>]) -> Result<(), sqlx::Error> {
    if kept.is_empty() {
        return Ok(());
    }
    let callers: Vec<&str> = kept.iter().map(|kept| kept.caller).collect();
    let keys: Vec<&str> = kept.iter().map(|kept| kept.key).collect();
    let hashes: Vec<&[u8]> = kept.iter().map(|kept| kept.request_hash).collect();
    let statuses: Vec<i32> = kept.iter().map(|kept| kept.status).collect();
    let bodies: Vec<&Value> = kept.iter().map(|kept| kept.body).collect();
    sqlx::query!(
        "insert into idempotency_keys (caller, idempotency_key, request_hash, status, body)
         select * from unnest($1::text[], $2::text[], $3::bytea[], $4::int[], $5::jsonb[])
         on conflict (caller, idempotency_key) do update
            set request_hash = excluded.request_hash, status = excluded.status, body = excluded.body,
                created_at = excluded.created_at",
        &callers as &[&str],
        &keys as &[&str],
        &hashes as &[&[u8]],
        &statuses,
        &bodies as &[&Value],
    )
    .execute(conn)
    .await?;
    Ok(())
}
