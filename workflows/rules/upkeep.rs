//! The rules of what happens by the clock.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::store::reconciliation::checks::Pass;

/// `[shop.abandonment]`: carts left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Abandonment {
    /// A cart with something in it is ABANDONED after so many seconds without activity.
    pub after_s: u32,
    /// Its owner is reminded after so many seconds without activity each; at most ten times.
    pub reminders_s: Vec<u32>,
}

impl Default for Abandonment {
    fn default() -> Self {
        Abandonment { after_s: 3600, reminders_s: vec![3600, 24 * 3600, 72 * 3600] }
    }
}

impl Abandonment {
    /// How long a cart may lie idle.
    pub fn after(&self) -> TimeDelta {
        TimeDelta::seconds(self.after_s.into())
    }

    /// How long after the last activity each reminder is due, the earliest first.
    pub fn reminders(&self) -> Vec<TimeDelta> {
        let mut due: Vec<u32> = self.reminders_s.clone();
        due.sort_unstable();
        due.dedup();
        due.into_iter().take(10).map(|seconds| TimeDelta::seconds(seconds.into())).collect()
    }
}

/// `[shop.reconciliation]`: what the books say of payments, and what the gateway says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconciliation {
    /// A payment nobody has heard of for so many seconds is asked about.
    pub open_after_s: u32,
    /// A payment, or a refund, is compared so many seconds after it was made, when webhooks and answers
    /// have had their time; and once more a day later.
    pub settled_after_s: u32,
}

impl Default for Reconciliation {
    fn default() -> Self {
        Reconciliation { open_after_s: 120, settled_after_s: 900 }
    }
}

impl Reconciliation {
    /// How old a payment, or a refund, must be to be compared in a pass.
    pub fn patience(&self, pass: Pass) -> TimeDelta {
        match pass {
            Pass::Open => TimeDelta::seconds(self.open_after_s.into()),
            Pass::Settled | Pass::Refund => TimeDelta::seconds(self.settled_after_s.into()),
            Pass::DayOld => TimeDelta::seconds(self.settled_after_s.into()) + TimeDelta::days(1),
        }
    }
}

/// `[shop.retention]`: how long is kept what nobody needs any more. Orders, money, stock movements,
/// events and the audit log are kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Finished runs and their journals, in days.
    pub finished_runs_days: u16,
    /// The business keys of finished runs, in days after the end: until then starting again answers the
    /// first run. Never less than the runs themselves.
    pub run_keys_days: u16,
    /// Webhooks as they came, in days; a duplicate is recognised until then. Never less than 30.
    pub webhooks_days: u16,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { finished_runs_days: 30, run_keys_days: 90, webhooks_days: 30 }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Retention {
    /// Of finished runs.
    pub fn finished_runs(&self) -> Duration {
        DAY * u32::from(self.finished_runs_days)
    }

    /// Of business keys.
    pub fn run_keys(&self) -> Duration {
        DAY * u32::from(self.run_keys_days.max(self.finished_runs_days))
    }

    /// Of webhooks. Gateways send again for days, and ask about what they sent for a month.
    pub fn webhooks(&self) -> Duration {
        DAY * u32::from(self.webhooks_days.max(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_are_in_order_and_bounded() {
        let rules = Abandonment { reminders_s: vec![20, 10, 10], ..Abandonment::default() };
        assert_eq!(rules.reminders(), [TimeDelta::seconds(10), TimeDelta::seconds(20)]);
        let many = Abandonment { reminders_s: (0..50).collect(), ..Abandonment::default() };
        assert_eq!(many.reminders().len(), 10);
    }

    #[test]
    fn what_is_promised_to_be_kept_cannot_be_configured_away() {
        let greedy = Retention { finished_runs_days: 40, run_keys_days: 1, webhooks_days: 1 };
        assert_eq!(greedy.run_keys(), DAY * 40);
        assert_eq!(greedy.webhooks(), DAY * 30);
    }
}
