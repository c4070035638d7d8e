//! The schema, as numbered SQL files that explain themselves, and the one function that applies it.
//!
//! Migrations expand first and contract later: a release must run on the schema of the next one.

use apalis_postgres::PostgresStorage;
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database was migrated by a later release than this one.
    #[error(
        "the database schema is newer (version {found}) than this cart-engine knows (version {known}); \
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

/// Applies what is missing: apalis' tables, then ours. Safe to run from several processes at once.
pub async fn run(pool: &PgPool) -> Result<(), Error> {
    let found = applied(pool).await?;
    if found > latest() {
        return Err(Error::Newer { found, known: latest() });
    }
    PostgresStorage::setup(pool).await?;
    MIGRATOR.run(pool).await?;
    Ok(())
}

/// Refuses to start a role on a schema it does not know.
pub async fn check(pool: &PgPool) -> Result<(), Error> {
    let (found, known) = (applied(pool).await?, latest());
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(Error::Behind { found, needed: known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::Newer { found, known }),
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
