//! A database that says nothing. When its host or the line to it vanishes, no connection breaks for a
//! quarter of an hour, and whoever waits would wait as long. sqlx has no keepalive or user time-out to
//! set, and hands out no socket to set them on; so the deadlines are here: [`heard`] ends the waiting,
//! and a [`careful`] pool closes the connection instead of taking it back.

use std::{future::Future, io, time::Duration};

use sqlx::{PgConnection, postgres::PgPoolOptions};

/// How long a statement may take, in the server's words; longer ones are cancelled by it. What waits for
/// an answer here waits for a little longer, so that a server that lives has always spoken first.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement may go unanswered.
pub const SILENCE: Duration = Duration::from_secs(12);

/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);

/// How long a connection may take to say that it is there.
pub(crate) const ECHO: Duration = Duration::from_secs(2);

/// A connection that was used so recently is handed out unasked.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// What the database answers; an outage when it says nothing for [`SILENCE`].
///
/// # Errors
/// The statement's own, or [`io::ErrorKind::TimedOut`].
pub async fn heard<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(SILENCE, statement).await.unwrap_or_else(|_| Err(silent()))
}

/// The same for a new connection, which a caller does not wait for longer than for one of a pool.
pub(crate) async fn connected<T>(opening: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(ACQUIRE, opening).await.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database did not answer"))
}

/// The same options for a pool that keeps no connection which does not answer: not one that was given
/// up in the middle of a statement, nor one that went silent while nobody used it. Without this sqlx
/// would ask the former for ever, in a place of the pool that is lost for as long.
pub fn careful(options: PgPoolOptions) -> PgPoolOptions {
    options
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move { if meta.idle_for < FRESH { Ok(true) } else { echo(connection).await } })
        })
        .after_release(|connection, _| Box::pin(echo(connection)))
}

/// An error makes the pool close the connection without a farewell, for which it would wait.
pub(crate) async fn echo(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    use sqlx::Connection as _;
    match tokio::time::timeout(ECHO, connection.ping()).await {
        Ok(answered) => answered.map(|()| true),
        Err(_) => Err(silent()),
    }
}
