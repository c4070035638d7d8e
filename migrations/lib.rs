//! The schema, as numbered SQL files that explain themselves, and the one function that applies it.
//!
//! Migrations expand first and contract later: a release must run on the schema of the next one.

use apalis_postgres::PostgresStorage;
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// The oldest schema version whose programs can work on this schema. A migration that only expands leaves
/// it alone; one that takes something away raises it to the version that stopped using it.
const OLDEST_COMPATIBLE: i64 = 13;

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database was migrated by a later release, which leaves no room for this one.
    #[error(
        "the database schema is newer (version {found}) than this cart-engine can work on (version {known}); \
         run a newer cart-engine"
    )]
    Newer {
        /// Latest version applied to the database.
        found: i64,
        /// Latest version this program carries.
        known: i64,
    },
    /// The database has fewer migrations than this release needs.
    #[error("the database schema is not up to date (version {found}, needed {needed}); run `cart-engine migrate`")]
    Behind {
        /// Latest version applied to the database; 0 for none.
        found: i64,
        /// Latest version this program carries.
        needed: i64,
    },
    /// apalis' own tables could not be set up.
    #[error("the queue tables could not be set up: {0}")]
    Queue(#[from] apalis_postgres::Error),
    /// One of our files failed, or one already applied was edited.
    #[error("the schema could not be migrated: {0}")]
    Migrate(#[from] MigrateError),
    /// Postgres did not answer.
    #[error("the database did not answer: {0}")]
    Database(#[from] sqlx::Error),
}

/// Applies what is missing: apalis' tables, then ours. Safe to run from several processes at once, and of
/// several releases: on a newer schema that this release can work on, there is nothing to do.
///
/// # Errors
/// A schema that this release cannot work on, or a migration that fails.
pub async fn run(pool: &PgPool) -> Result<(), Error> {
    if is_newer(pool).await? {
        return Ok(());
    }
    PostgresStorage::setup(pool).await?;
    MIGRATOR.run(pool).await?;
    sqlx::query(
        "insert into engine.compatibility (oldest_version) values ($1)
         on conflict (only_row) do update
            set oldest_version = greatest(compatibility.oldest_version, excluded.oldest_version)",
    )
    .bind(OLDEST_COMPATIBLE)
    .execute(pool)
    .await?;
    Ok(())
}

/// Refuses to start a role on a schema it cannot work on.
///
/// # Errors
/// A schema with less than this release needs, or one that is too new for it.
pub async fn check(pool: &PgPool) -> Result<(), Error> {
    let (found, needed) = (applied(pool).await?, latest());
    if found < needed {
        return Err(Error::Behind { found, needed });
    }
    is_newer(pool).await.map(|_| ())
}

/// True of a newer schema that this release can work on.
async fn is_newer(pool: &PgPool) -> Result<bool, Error> {
    let (found, known) = (applied(pool).await?, latest());
    if found <= known {
        return Ok(false);
    }
    let oldest: Option<i64> =
        sqlx::query_scalar("select oldest_version from engine.compatibility").fetch_optional(pool).await?;
    match oldest {
        Some(oldest) if oldest <= known => Ok(true),
        Some(_) | None => Err(Error::Newer { found, known }),
    }
}

fn latest() -> i64 {
    MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0)
}

async fn applied(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let exists: bool =
        sqlx::query_scalar("select to_regclass('public._sqlx_migrations') is not null").fetch_one(pool).await?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar("select coalesce(max(version), 0) from public._sqlx_migrations where success")
        .fetch_one(pool)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_can_work_on_the_schema_it_makes() {
        assert!((1..=latest()).contains(&OLDEST_COMPATIBLE), "{OLDEST_COMPATIBLE} of {}", latest());
    }
}
