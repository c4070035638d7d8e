//! The running parts of a process: each stops when it is told to, and no one ends unnoticed.

use std::{future::Future, time::Duration};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{failure::Failure, shutdown::Stop};

/// How long parts that were told to stop may take. Longer than a drain of the API's requests
/// ([`api::ApiConfig::drain_limit`]) and than a worker waits for the turns in hand
/// ([`workers::PoolOptions::grace`]), with time left to hand them over.
const STOP_PATIENCE: Duration = Duration::from_secs(25);

/// Parts that start and stop together.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    tasks: JoinSet<(&'static str, Result<(), Failure>)>,
    stop: CancellationToken,
}

impl Parts {
    /// What tells them to stop.
    pub(crate) fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Adds one, which ends by itself only when something is wrong.
    pub(crate) fn start<E>(&mut self, name: &'static str, part: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<Failure>,
    {
        self.tasks.spawn(async move { (name, part.await.map_err(Into::into)) });
    }

    /// Waits until one of them ends, and says why; for ever when there are none.
    pub(crate) async fn ended(&mut self) -> Failure {
        match self.tasks.join_next().await {
            Some(joined) => why(joined).unwrap_or_else(|name| Failure::new(format!("the {name} ended by itself"))),
            None => std::future::pending().await,
        }
    }

    /// Tells all to stop and waits, but not for ever.
    ///
    /// # Errors
    /// The first part that did not end well.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        self.stop.cancel();
        let mut ended = Ok(());
        let all = async {
            while let Some(joined) = self.tasks.join_next().await {
                match why(joined) {
                    Ok(failure) => {
                        tracing::error!(%failure, "a part did not stop well");
                        ended = Err(failure);
                    }
                    Err(name) => tracing::debug!(part = name, "stopped"),
                }
            }
        };
        if tokio::time::timeout(STOP_PATIENCE, all).await.is_err() {
            tracing::warn!(patience = ?STOP_PATIENCE, "parts that did not stop in time are cut off");
        }
        ended
    }

    /// Runs until a signal asks to stop or a part ends by itself; then stops the others.
    ///
    /// # Errors
    /// Why a part ended.
    pub(crate) async fn run(mut self, mut stop: Stop) -> Result<(), Failure> {
        let failure = tokio::select! {
            () = stop.asked() => None,
            failure = self.ended() => Some(failure),
        };
        stop.exit_on_next();
        let stopped = self.stop().await;
        failure.map_or(stopped, Err)
    }
}

/// Why a part ended, or the name of one that simply did.
fn why(joined: Result<(&'static str, Result<(), Failure>), JoinError>) -> Result<Failure, &'static str> {
    match joined {
        Ok((name, Ok(()))) => Err(name),
        Ok((name, Err(failure))) => Ok(failure.within(&format!("the {name} failed"))),
        Err(error) => Ok(Failure::caused_by("a part of this process panicked", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parts_do_when_they_stop_is_done_before_they_are_cut_off() {
        let to_hand_over = Duration::from_secs(5);
        assert!(workers::PoolOptions::default().grace + to_hand_over <= STOP_PATIENCE);
        assert!(api::ApiConfig::default().drain_limit < STOP_PATIENCE);
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_named() {
        let mut parts = Parts::default();
        parts.start("scheduler", async { Ok::<(), Failure>(()) });
        assert_eq!(parts.ended().await.report(), "cart-engine: the scheduler ended by itself");
        parts.start("worker", async { Err(Failure::new("no database")) });
        assert_eq!(parts.ended().await.report(), "cart-engine: the worker failed: no database");
    }

    #[tokio::test]
    async fn parts_stop_when_they_are_told() {
        let mut parts = Parts::default();
        let told = parts.token();
        parts.start("api", async move {
            told.cancelled().await;
            Ok::<(), Failure>(())
        });
        assert!(parts.stop().await.is_ok());
    }
}
