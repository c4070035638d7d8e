//! Commands that do one thing to the database and end: migrate, seed-demo, user add, audit.

use std::io::{BufRead as _, Read as _};

use api::accounts::{NewAccount, create_user};
use secrecy::SecretString;
use sqlx::PgPool;
use workflows::{audit, store::users::Role};

use crate::{
    Ended,
    arguments::UserCommand,
    config::Config,
    database::{Database, IfMissing, Purpose},
    failure::Failure,
    say, seed,
};

/// Connections of a command.
const CONNECTIONS: u32 = 4;

/// Longest password that is read, in bytes; the API takes 128 characters.
const MAX_PASSWORD_BYTES: u64 = 1024;

/// Runs `work` on the configured database, and closes it whatever comes of it.
///
/// # Errors
/// The work's own, or a database that cannot be reached.
pub(crate) async fn on_database<T>(
    config: &Config,
    missing: IfMissing,
    work: impl AsyncFnOnce(&PgPool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let database = Database::open(&config.database, missing, &|_| {}).await?;
    let pool = database.pool("command", CONNECTIONS, Purpose::Maintain);
    let done = work(&pool).await;
    pool.close().await;
    let closed = database.close().await;
    let done = done?;
    closed?;
    Ok(done)
}

/// Brings the schema up to date.
///
/// # Errors
/// A schema that is newer than this release, or a migration that fails.
pub(crate) async fn migrate(config: &Config) -> Result<Ended, Failure> {
    on_database(config, IfMissing::Create, async |pool| Ok(migrations::run(pool).await?)).await?;
    say("the schema is up to date");
    Ok(Ended::Well)
}

/// Adds the demo shop's people, catalogue and coupons, whatever of them is missing.
///
/// # Errors
/// The database's own.
pub(crate) async fn seed_demo(config: &Config) -> Result<Ended, Failure> {
    on_database(config, IfMissing::Refuse, async |pool| {
        migrations::check(pool).await?;
        seed::fill(pool).await
    })
    .await?;
    say("the demo data is in the database; its passwords are public");
    Ok(Ended::Well)
}

/// Manages users.
///
/// # Errors
/// An address that is taken, a password that is too short, no password on standard input.
pub(crate) async fn user(config: &Config, command: UserCommand) -> Result<Ended, Failure> {
    let UserCommand::Add { email, role, password_stdin: _, first_name, last_name } = command;
    // Only from standard input: arguments are seen by everybody on the machine.
    let password = tokio::task::spawn_blocking(read_password).await.map_err(std::io::Error::from)??;
    let account = NewAccount { email, password, role, first_name, last_name, phone_number: None };
    let user = on_database(config, IfMissing::Refuse, async |pool| {
        migrations::check(pool).await?;
        Ok(create_user(pool, account).await?)
    })
    .await?;
    say(&format!("{} may log in as {}", user.email, user.role));
    Ok(Ended::Well)
}

fn read_password() -> Result<SecretString, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().take(MAX_PASSWORD_BYTES).read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::new("there is no password on standard input")
            .hint("printf %s \"$PASSWORD\" | cart-engine user add … --password-stdin"));
    }
    Ok(password.into())
}

/// A role by its name, in any case.
///
/// # Errors
/// No such role.
pub(crate) fn parse_role(text: &str) -> Result<Role, workflows::store::users::UnknownRole> {
    text.to_uppercase().parse()
}

/// Checks the books on a live database and tells each breach.
///
/// # Errors
/// The database's own.
pub(crate) async fn audit(config: &Config, json: bool) -> Result<Ended, Failure> {
    let books = on_database(config, IfMissing::Refuse, async |pool| {
        migrations::check(pool).await?;
        Ok(audit::books(pool).await?)
    })
    .await?;
    if json {
        say(&serde_json::to_string(&books)?);
    } else if books.balanced {
        say("the books balance");
    } else {
        for breach in &books.breaches {
            say(&format!(
                "{}: {}: expected {}, found {}",
                breach.check, breach.subject, breach.expected, breach.actual
            ));
        }
        say(&format!("the books do not balance: {} breaches", books.breaches.len()));
    }
    Ok(if books.balanced { Ended::Well } else { Ended::Unsound })
}
