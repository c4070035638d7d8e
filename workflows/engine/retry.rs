//! When a failed step is tried again.

use std::time::Duration;

/// How often and how soon a step is retried. Delays double from `first` up to `longest`, with full
/// jitter on the upper half so that a thousand runs do not come back in one instant.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. An unknown outcome is not bound by it.
    pub max_attempts: u32,
    /// Delay after the first failure.
    pub first: Duration,
    /// Ceiling of the delay.
    pub longest: Duration,
    /// How long one attempt of a call may take.
    pub timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: 8,
            first: Duration::from_millis(200),
            longest: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
        }
    }
}

impl RetryPolicy {
    /// The delay before attempt `failed + 1`; `jitter` is in 0..1.
    pub fn delay(&self, failed: u32, jitter: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failed.saturating_sub(1).min(16));
        doubled.min(self.longest).mul_f64(0.5 + jitter / 2.0)
    }
}

/// The first attempts each have their entry in the journal; of those of a long outage only every power
/// of two has, so that patience for days does not fill it. The run's row counts them all.
pub(crate) fn is_journalled(attempt: u32) -> bool {
    attempt <= 16 || attempt.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_ceiling_and_jitters_by_half() {
        let policy =
            RetryPolicy { first: Duration::from_secs(1), longest: Duration::from_secs(5), ..RetryPolicy::default() };
        for (failed, jitter, expected_ms) in
            [(1, 1.0, 1_000), (1, 0.0, 500), (2, 1.0, 2_000), (3, 1.0, 4_000), (4, 1.0, 5_000), (60, 0.0, 2_500)]
        {
            assert_eq!(policy.delay(failed, jitter).as_millis(), expected_ms, "after {failed} failures");
        }
    }
}
