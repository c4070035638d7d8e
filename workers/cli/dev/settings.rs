//! `dev.settings`: what a development shop tells the processes that are started beside it. Its table
//! also marks a database as a development shop's: only there do the routes of development exist.

use rand::Rng as _;
use secrecy::SecretString;
use sqlx::PgPool;

use crate::failure::Failure;

/// Signs the sandbox' webhooks in development; everybody may know it.
const WEBHOOK_SECRET: &str = "whsec_ZGV2LXNlY3JldA==";

/// What the development shop that made this database says.
#[derive(Debug, Clone)]
pub(crate) struct DevSettings {
    /// Where its sandbox gateway is reached.
    pub(crate) sandbox_url: Option<String>,
    /// Where its shoppers reach it: links in answers and e-mails start with it.
    pub(crate) public_url: Option<String>,
    /// Signs its access tokens.
    pub(crate) jwt_secret: SecretString,
    /// Signs its sandbox' webhooks.
    pub(crate) webhook_secret: SecretString,
}

/// Makes the table and what does not change, unless they are there. A database that is in use
/// without being a development shop's stays what it is.
///
/// # Errors
/// A database that somebody really uses: development would open it to everybody.
pub(crate) async fn set_up(pool: &PgPool) -> Result<DevSettings, Failure> {
    let mut tx = pool.begin().await?;
    // "if not exists" alone still collides when two processes start together.
    sqlx::query("select pg_advisory_xact_lock(hashtext('dev.settings'))").execute(&mut *tx).await?;
    let exists: bool = sqlx::query_scalar("select to_regclass('dev.settings') is not null").fetch_one(&mut *tx).await?;
    if !exists {
        let in_use: bool = sqlx::query_scalar(
            "select exists (select from orders) or exists (select from users where email <> all ($1))",
        )
        .bind(crate::seed::USERS.map(|user| user.email))
        .fetch_one(&mut *tx)
        .await?;
        if in_use {
            return Err(Failure::new("this database has orders or users that no development shop made")
                .hint("start `cart-engine api`, `worker` and `scheduler` on it, or name an empty database"));
        }
        sqlx::raw_sql(
            "set local client_min_messages = warning;
             create schema if not exists dev;
             create table dev.settings (name text primary key, value text not null);",
        )
        .execute(&mut *tx)
        .await?;
    }
    let mut secret = [0_u8; 32];
    rand::rng().fill_bytes(&mut secret);
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    sqlx::query("insert into dev.settings (name, value) values ('jwt_secret', $1) on conflict (name) do nothing")
        .bind(secret)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    read(pool).await?.ok_or_else(|| Failure::new("dev.settings has vanished"))
}

/// What they say; `None` where no development shop made the database.
///
/// # Errors
/// The database's own.
pub(crate) async fn read(pool: &PgPool) -> Result<Option<DevSettings>, Failure> {
    let exists: bool = sqlx::query_scalar("select to_regclass('dev.settings') is not null").fetch_one(pool).await?;
    if !exists {
        return Ok(None);
    }
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select name, value from dev.settings where name in ('jwt_secret', 'public_url', 'sandbox_url')",
    )
    .fetch_all(pool)
    .await?;
    let value = |wanted: &str| rows.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    Ok(value("jwt_secret").map(|jwt_secret| DevSettings {
        sandbox_url: value("sandbox_url"),
        public_url: value("public_url"),
        jwt_secret: jwt_secret.into(),
        webhook_secret: WEBHOOK_SECRET.into(),
    }))
}

/// Tells the processes beside this one where something is reached from now on: `sandbox_url`, `public_url`.
///
/// # Errors
/// The database's own.
pub(crate) async fn tell(pool: &PgPool, name: &str, url: &str) -> Result<(), Failure> {
    sqlx::query(
        "insert into dev.settings (name, value) values ($1, $2)
         on conflict (name) do update set value = excluded.value",
    )
    .bind(name)
    .bind(url)
    .execute(pool)
    .await?;
    Ok(())
}
