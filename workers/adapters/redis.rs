//! One Redis, which may be away at any time: whatever asks it must do without an answer.
//!
//! What is kept there is a copy or a count, never the truth. So nothing here waits long, tries twice, or
//! fails a caller: an answer comes within [`PATIENCE`], or there is none. While the server is away no
//! caller waits at all; one task looks for it again, at a growing distance.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

pub use redis::{Cmd, FromRedisValue, Script, ScriptInvocation, cmd};

/// How long one operation may take; beyond that Postgres would have been faster.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// How long connecting may take, greeting included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Operations in a row that were not answered in time, until the server counts as away. One may be a
/// long pause of our own.
const SILENCES: u32 = 3;
/// From a failed attempt to connect to the next: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// A handle on one Redis; cloning it copies a reference count.
#[derive(Clone)]
pub struct Redis(Arc<Link>);

struct Link {
    client: Client,
    state: Mutex<State>,
}

enum State {
    /// Commands of all callers share this connection.
    Up { connection: MultiplexedConnection, number: u64, silences: u32 },
    /// Nobody waits. The first caller after `retry_at` sends a task to look.
    Away { retry_at: Instant, pause: Duration, number: u64 },
    /// That task is on its way.
    Looking { pause: Duration, number: u64 },
}

/// An address that cannot be one of a Redis.
#[derive(Debug, thiserror::Error)]
#[error("{0} (wanted: redis://[user:password@]host[:port][/database] or redis+unix:///path)")]
pub struct BadRedisUrl(String);

/// There is no answer, whatever the reason; it has been counted, and logged when the server went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis gave no answer")]
pub struct NoAnswer;

impl Redis {
    /// A handle on the server at `url`, which is looked for when it is first needed. Must be used
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`BadRedisUrl`]. A server that cannot be reached is none.
    pub fn at(url: &str) -> Result<Self, BadRedisUrl> {
        let client = Client::open(url).map_err(|error| BadRedisUrl(error.to_string()))?;
        let state = State::Away { retry_at: Instant::now(), pause: FIRST_PAUSE, number: 0 };
        Ok(Redis(Arc::new(Link { client, state: Mutex::new(state) })))
    }

    /// Looks for the server now; whether it is there. Without this the first callers do without it.
    pub async fn is_up(&self) -> bool {
        if self.connection().is_none() {
            self.0.look().await;
        }
        self.connection().is_some()
    }

    /// Carries out one command. `what` names the use in metrics.
    ///
    /// # Errors
    /// [`NoAnswer`]: do without. The command may have been carried out.
    pub async fn command<T: FromRedisValue>(&self, what: &'static str, command: &Cmd) -> Result<T, NoAnswer> {
        self.with(what, async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Carries out a script, all of it or nothing. `what` names the use in metrics.
    ///
    /// # Errors
    /// [`NoAnswer`]: do without. The script may have been carried out.
    pub async fn script<T: FromRedisValue>(
        &self,
        what: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, NoAnswer> {
        self.with(what, async |mut connection| script.invoke_async(&mut connection).await).await
    }

    async fn with<T>(
        &self,
        what: &'static str,
        operation: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, NoAnswer> {
        let Some((connection, number)) = self.connection() else {
            count(what, "away");
            return Err(NoAnswer);
        };
        let result = timeout(PATIENCE, operation(connection)).await;
        let outcome = match &result {
            Ok(Ok(_)) => "answered",
            Ok(Err(error)) if error.is_unrecoverable_error() || error.is_io_error() => "lost",
            Ok(Err(_)) => "refused",
            Err(_) => "silent",
        };
        count(what, outcome);
        match result {
            Ok(Ok(answer)) => {
                self.0.heard(number);
                Ok(answer)
            }
            Ok(Err(error)) => {
                if outcome == "lost" {
                    self.0.lost(number, &error.to_string());
                } else {
                    // The server lives, and says no: out of memory, read-only, a key of another type.
                    tracing::debug!(what, %error, "Redis refused");
                }
                Err(NoAnswer)
            }
            Err(_) => {
                self.0.silent(number);
                Err(NoAnswer)
            }
        }
    }

    /// The connection, if there is one; else somebody is sent to look, when it is time to.
    fn connection(&self) -> Option<(MultiplexedConnection, u64)> {
        let mut state = self.0.lock();
        match &*state {
            State::Up { connection, number, .. } => Some((connection.clone(), *number)),
            State::Looking { .. } => None,
            State::Away { retry_at, pause, number } => {
                if *retry_at <= Instant::now() {
                    *state = State::Looking { pause: *pause, number: *number };
                    let link = Arc::clone(&self.0);
                    tokio::spawn(async move { link.look().await });
                }
                None
            }
        }
    }
}

impl Link {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self) {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_PATIENCE)).set_response_timeout(None);
        let greeting = async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            // A frozen server accepts connections, too.
            let () = cmd("PING").query_async(&mut connection).await?;
            RedisResult::Ok(connection)
        };
        let found = timeout(CONNECT_PATIENCE, greeting).await;
        let mut state = self.lock();
        let (pause, number) = match &*state {
            State::Up { .. } => return,
            State::Away { pause, number, .. } | State::Looking { pause, number } => (*pause, *number),
        };
        *state = match found {
            Ok(Ok(connection)) => {
                tracing::info!("Redis is there");
                State::Up { connection, number: number + 1, silences: 0 }
            }
            Ok(Err(_)) | Err(_) => {
                if pause == FIRST_PAUSE {
                    let error = found.map_or_else(|_| "no answer in time".to_owned(), |found| said(&found));
                    tracing::warn!(error, "Redis is away; the shop goes on without it");
                }
                State::Away { retry_at: Instant::now() + pause, pause: (pause * 2).min(LAST_PAUSE), number }
            }
        };
        metrics::gauge!("cart_engine_redis_up").set(f64::from(u8::from(matches!(*state, State::Up { .. }))));
    }

    fn heard(&self, of: u64) {
        if let State::Up { number, silences, .. } = &mut *self.lock()
            && *number == of
        {
            *silences = 0;
        }
    }

    fn silent(&self, of: u64) {
        let is_enough = match &mut *self.lock() {
            State::Up { number, silences, .. } if *number == of => {
                *silences += 1;
                *silences >= SILENCES
            }
            State::Up { .. } | State::Away { .. } | State::Looking { .. } => false,
        };
        if is_enough {
            self.lost(of, "no answer in time");
        }
    }

    /// Gives up a connection; word of one that was given up before says nothing of the present one.
    fn lost(&self, of: u64, why: &str) {
        let mut state = self.lock();
        if let State::Up { number, .. } = &*state
            && *number == of
        {
            tracing::warn!(why, "Redis went away; the shop goes on without it");
            *state = State::Away { retry_at: Instant::now() + FIRST_PAUSE, pause: FIRST_PAUSE * 2, number: of };
            metrics::gauge!("cart_engine_redis_up").set(0.0);
        }
    }
}

fn said<T>(found: &RedisResult<T>) -> String {
    found.as_ref().err().map(ToString::to_string).unwrap_or_default()
}

fn count(what: &'static str, outcome: &'static str) {
    metrics::counter!("cart_engine_redis_operations_total", "use" => what, "outcome" => outcome).increment(1);
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_tuple("Redis").field(&self.0.client.get_connection_info().addr().to_string()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn an_address_that_makes_no_sense_is_told_at_once() {
        for url in ["", "postgres://127.0.0.1", "127.0.0.1:6379", "redis://127.0.0.1:port"] {
            assert!(Redis::at(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_costs_nobody_a_wait() {
        // A port that was free a moment ago: nobody listens.
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let redis = Redis::at(&format!("redis://127.0.0.1:{port}")).expect("a handle");
        assert!(!redis.is_up().await);
        for _ in 0..1000 {
            // Answered when it is asked, without anything that could be waited for.
            let ping = cmd("PING");
            let asked = std::pin::pin!(redis.command::<()>("test", &ping));
            let answer = asked.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(answer, Poll::Ready(Err(NoAnswer))), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_password_is_not_shown() {
        let redis = Redis::at("redis://:hunter2@127.0.0.1:1").expect("a handle");
        assert_eq!(format!("{redis:?}"), r#"Redis("127.0.0.1:1")"#);
    }
}
