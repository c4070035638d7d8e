//! Failed logins lately, per account asked for. Whether the account exists makes no difference here.
//!
//! Times are the database's own and not the development clock's: moving that neither opens nor closes an
//! account.

use chrono::TimeDelta;
use sqlx::PgConnection;

/// What is known of an account's failed logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// How many in a row, each within an hour of the one before.
    pub count: u32,
    /// Since the last one.
    pub age: TimeDelta,
}

/// The failures that still count; none after a good login, or an hour without one.
///
/// # Errors
/// The database's own.
pub async fn find(conn: &mut PgConnection, account_hash: &[u8; 32]) -> Result<Option<Failures>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select failures, (extract(epoch from clock_timestamp() - last_failed_at) * 1000)::bigint as "age_ms!"
             from login_failures
            where account_hash = $1 and last_failed_at > clock_timestamp() - interval '1 hour'"#,
        account_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Failures {
        count: row.failures.try_into().unwrap_or(u32::MAX),
        age: TimeDelta::milliseconds(row.age_ms),
    }))
}

/// Counts one more, and forgets some that are too old to count, so that guessing at ever new accounts
/// leaves no more rows than an hour's guesses.
///
/// # Errors
/// The database's own.
pub async fn add(conn: &mut PgConnection, account_hash: &[u8; 32]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into login_failures as known (account_hash, failures, last_failed_at)
         values ($1, 1, clock_timestamp())
         on conflict (account_hash) do update
            set failures = case when known.last_failed_at > clock_timestamp() - interval '1 hour'
                                then least(known.failures, 1000) + 1 else 1 end,
                last_failed_at = excluded.last_failed_at",
        account_hash
    )
    .execute(&mut *conn)
    .await?;
    delete_old(conn, 8).await?;
    Ok(())
}

/// Up to `batch` that are too old to count.
///
/// # Errors
/// The database's own.
pub async fn delete_old(conn: &mut PgConnection, batch: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from login_failures
          where account_hash in (
                select account_hash from login_failures
                 where last_failed_at < clock_timestamp() - interval '1 hour'
                 order by last_failed_at limit $1
                   for update skip locked)",
        batch
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}

/// Forgets them: somebody who knows the password has come.
///
/// # Errors
/// The database's own.
pub async fn clear(conn: &mut PgConnection, account_hash: &[u8; 32]) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from login_failures where account_hash = $1", account_hash).execute(conn).await?;
    Ok(())
}
