//! Counting over past checkouts, as the books counted them when they came.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{By, Count, Counted, Counter, Digest, Facts, MOST_COUNTED, RuleSet};

/// Checkouts that wait for each other may be screened a little out of the order of their times.
const DISORDER: TimeDelta = TimeDelta::minutes(10);

/// A checkout that came before.
#[derive(Debug, Clone)]
struct Before {
    at: DateTime<Utc>,
    /// When its payments failed.
    failures: Vec<DateTime<Utc>>,
}

/// Past checkouts by what they have in common, in the order in which they were screened.
#[derive(Debug, Clone, Default)]
pub struct Tally(HashMap<(By, Digest), Vec<Before>>);

impl Tally {
    /// What the rules' counters would have shown to this checkout. What was counted when it came stands as it was.
    pub fn counts(&self, rules: &RuleSet, facts: &Facts) -> Vec<Count> {
        let counted = |(counter, most): (Counter, u32)| {
            let key = facts.key(counter.by)?;
            let stored = facts.counts.iter().find(|count| count.tells(&counter, most)).copied();
            Some(stored.unwrap_or_else(|| Count { counter, most, seen: self.seen(counter, key, most, facts.at) }))
        };
        rules.counters().into_iter().filter_map(counted).collect()
    }

    fn seen(&self, counter: Counter, key: Digest, most: u32, at: DateTime<Utc>) -> u32 {
        let since = at - TimeDelta::seconds(counter.window_s.into());
        let before = self.0.get(&(counter.by, key)).map_or(&[][..], Vec::as_slice).iter().rev();
        let before = before.take_while(|before| before.at > since - DISORDER).filter(|before| before.at > since);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let seen = match counter.counted {
            Counted::Checkouts => before.take(most).count(),
            Counted::FailedAttempts => before
                .take(usize::try_from(MOST_COUNTED).unwrap_or(usize::MAX))
                .flat_map(|before| before.failures.iter())
                .filter(|failed_at| **failed_at <= at)
                .take(most)
                .count(),
        };
        u32::try_from(seen).unwrap_or(u32::MAX)
    }

    /// Those that come later see it.
    pub fn add(&mut self, facts: &Facts, failures: &[DateTime<Utc>]) {
        for by in By::ALL {
            if let Some(key) = facts.key(by) {
                let before = Before { at: facts.at, failures: failures.to_vec() };
                self.0.entry((by, key)).or_default().push(before);
            }
        }
    }
}
