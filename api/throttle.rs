//! Guessing a password gets slower with every wrong guess, whichever addresses the guesses come from.
//!
//! The delay is per account and bounded, so that a stranger can slow an owner down for minutes and never
//! lock him out; and who is logged in stays so. Accounts that do not exist are treated alike, so that the
//! delay tells nothing.

use std::time::Duration;

use chrono::TimeDelta;
use sqlx::PgConnection;
use workflows::store::login_failures::{self, Failures};

use crate::{error::ApiError, tokens::token_hash};

/// Longest wait between two guesses at one account.
const LONGEST_DELAY: Duration = Duration::from_secs(300);

/// One account's door, by the address somebody wants to log in with.
pub(crate) struct Throttle {
    account_hash: [u8; 32],
    free_failures: u32,
}

impl Throttle {
    /// For an e-mail address in lower case; so many failures have no consequence yet.
    pub(crate) fn new(email: &str, free_failures: u32) -> Self {
        Throttle { account_hash: token_hash(email), free_failures }
    }

    /// Whether somebody may try now. Asked again after the password was found right, since any number of
    /// guesses may have been under way at once.
    ///
    /// # Errors
    /// 429 `too-many-attempts` with `Retry-After`.
    pub(crate) async fn admit(&self, conn: &mut PgConnection) -> Result<(), ApiError> {
        let Some(Failures { count, age }) = login_failures::find(conn, &self.account_hash).await? else {
            return Ok(());
        };
        let wait = TimeDelta::from_std(delay(count, self.free_failures)).unwrap_or(TimeDelta::MAX) - age;
        if wait <= TimeDelta::zero() {
            return Ok(());
        }
        metrics::counter!("cart_engine_logins_throttled_total").increment(1);
        let seconds = wait.num_milliseconds().unsigned_abs().div_ceil(1000);
        Err(ApiError::too_many_attempts(seconds))
    }

    /// Notes a wrong guess.
    pub(crate) async fn failed(&self, conn: &mut PgConnection) -> Result<(), ApiError> {
        Ok(login_failures::add(conn, &self.account_hash).await?)
    }

    /// Notes a good login.
    pub(crate) async fn succeeded(&self, conn: &mut PgConnection) -> Result<(), ApiError> {
        Ok(login_failures::clear(conn, &self.account_hash).await?)
    }
}

/// 1, 2, 4 … seconds from the first failure that is not free.
fn delay(failures: u32, free: u32) -> Duration {
    match failures.checked_sub(free) {
        None => Duration::ZERO,
        Some(beyond) => Duration::from_secs(1 << beyond.min(30)).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_beyond_the_free_ones_doubles_the_wait_up_to_five_minutes() {
        let seconds: Vec<u64> = [0, 4, 5, 6, 7, 13, 14, 1000].map(|failures| delay(failures, 5).as_secs()).to_vec();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 256, 300, 300]);
        assert_eq!(delay(u32::MAX, 0), LONGEST_DELAY);
    }
}
