//! `api_keys`: how other services of the shop are known. Only hashes of their secrets are kept.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// Another service's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Which.
    pub id: Uuid,
    /// Whose.
    pub name: String,
    /// What it is good for.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ceased to be good.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The key with that hash, unless it was revoked.
///
/// # Errors
/// The database's own.
pub async fn find(conn: &mut PgConnection, key_hash: &[u8]) -> Result<Option<ApiKey>, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        "select id, name, scopes, created_at, revoked_at from api_keys where key_hash = $1 and revoked_at is null",
        key_hash
    )
    .fetch_optional(conn)
    .await
}

/// Writes a new key; a taken name violates `api_keys_name_key`.
///
/// # Errors
/// The database's own.
pub async fn insert(
    conn: &mut PgConnection,
    name: &str,
    key_hash: &[u8],
    scopes: &[String],
) -> Result<ApiKey, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        "insert into api_keys (id, name, key_hash, scopes, created_at) values ($1, $2, $3, $4, now())
         returning id, name, scopes, created_at, revoked_at",
        Uuid::now_v7(),
        name,
        key_hash,
        scopes
    )
    .fetch_one(conn)
    .await
}

/// Keys in order of their ids, after the given one; revoked ones too.
///
/// # Errors
/// The database's own.
pub async fn list(conn: &mut PgConnection, after: Option<Uuid>, limit: i64) -> Result<Vec<ApiKey>, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        "select id, name, scopes, created_at, revoked_at from api_keys
          where ($1::uuid is null or id > $1) order by id limit $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Ends a key, once; false if there is no such key. What it holds in stock is given back by its time.
///
/// # Errors
/// The database's own.
pub async fn revoke(conn: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let known = sqlx::query!("update api_keys set revoked_at = coalesce(revoked_at, now()) where id = $1", id)
        .execute(conn)
        .await?;
    Ok(known.rows_affected() == 1)
}
