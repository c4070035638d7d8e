//! What came of a demo: the outcomes, the books, the mail.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde::Serialize;
use workflows::audit::Books;

use super::{outcome::Outcome, visit::Visited};

/// A demo that is over.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub(crate) shoppers: usize,
    pub(crate) seed: u64,
    /// By name.
    pub(crate) outcomes: BTreeMap<&'static str, Tally>,
    /// Shoppers who met something else than they had to.
    pub(crate) mismatches: Vec<Mismatch>,
    pub(crate) books: Books,
    pub(crate) runs: Runs,
    /// E-mails sent, by event.
    pub(crate) mails: BTreeMap<String, i64>,
    /// The whole demo; whoever opened the shop knows when it began.
    pub seconds: f64,
}

/// One outcome's shoppers.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tally {
    pub(crate) expected: usize,
    /// Those for whom it came out so, with everything as it had to be.
    pub(crate) actual: usize,
    /// Median of the time from the first item in the cart to the end.
    pub(crate) p50_seconds: f64,
    /// 99th percentile of the same.
    pub(crate) p99_seconds: f64,
}

/// One shopper's surprise.
#[derive(Debug, Serialize)]
pub(crate) struct Mismatch {
    pub(crate) shopper: usize,
    pub(crate) outcome: &'static str,
    pub(crate) what: String,
}

/// Runs that had not ended when the demo gave up waiting for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Runs {
    /// Still under way.
    pub(crate) unfinished: usize,
    /// Waiting for an operator.
    pub(crate) parked: usize,
}

/// Counts what was played and what came of it.
pub(crate) fn tally(visits: &[Visited]) -> (BTreeMap<&'static str, Tally>, Vec<Mismatch>) {
    let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
    let mut seconds: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut mismatches = Vec::new();
    for visit in visits {
        tallies.entry(visit.outcome.name()).or_default().expected += 1;
        match &visit.came {
            Ok(came) => {
                tallies.entry(came.name()).or_default().actual += 1;
                seconds.entry(came.name()).or_default().push(visit.seconds);
            }
            Err(surprise) => mismatches.push(Mismatch {
                shopper: visit.number,
                outcome: visit.outcome.name(),
                what: surprise.to_string(),
            }),
        }
    }
    for (name, mut seconds) in seconds {
        seconds.sort_by(f64::total_cmp);
        if let Some(tally) = tallies.get_mut(name) {
            tally.p50_seconds = percentile(&seconds, 50);
            tally.p99_seconds = percentile(&seconds, 99);
        }
    }
    (tallies, mismatches)
}

/// The nearest-rank percentile of sorted values, to the millisecond; 0 of none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let value = sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
    (value * 1000.0).round() / 1000.0
}

impl Report {
    /// Whether everything came out as it had to.
    pub fn is_sound(&self) -> bool {
        self.mismatches.is_empty()
            && self.outcomes.values().all(|tally| tally.expected == tally.actual)
            && self.books.balanced
            && self.runs == Runs::default()
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>8} {:>8} {:>8} {:>8}", "outcome", "expected", "actual", "p50 s", "p99 s")?;
        for outcome in Outcome::ALL {
            let Some(tally) = self.outcomes.get(outcome.name()) else { continue };
            let Tally { expected, actual, p50_seconds, p99_seconds } = tally;
            let mark = if expected == actual { "" } else { "  ✗" };
            writeln!(
                f,
                "{:<20} {expected:>8} {actual:>8} {p50_seconds:>8.2} {p99_seconds:>8.2}{mark}",
                outcome.name()
            )?;
        }
        f.write_char('\n')?;
        for Mismatch { shopper, outcome, what } in &self.mismatches {
            writeln!(f, "✗ shopper {shopper} ({outcome}): {what}")?;
        }
        let Runs { unfinished, parked } = self.runs;
        if unfinished + parked > 0 {
            writeln!(f, "✗ {unfinished} runs did not end, {parked} wait for an operator")?;
        }
        for breach in &self.books.breaches {
            writeln!(
                f,
                "✗ {}: {}: expected {}, found {}",
                breach.check, breach.subject, breach.expected, breach.actual
            )?;
        }
        let books = if self.books.balanced { "the books balance" } else { "the books do not balance" };
        let mails: i64 = self.mails.values().sum();
        let by_event: Vec<String> = self.mails.iter().map(|(event, count)| format!("{event} {count}")).collect();
        writeln!(f, "{books}; {mails} e-mails sent ({})", by_event.join(", "))?;
        write!(f, "{} shoppers, seed {}, {:.1} s", self.shoppers, self.seed, self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storefront::expect;

    fn visited(outcome: Outcome, came: Outcome, seconds: f64) -> Visited {
        Visited { number: 1, outcome, came: Ok(came), seconds }
    }

    fn report(visits: &[Visited]) -> Report {
        let (outcomes, mismatches) = tally(visits);
        Report {
            shoppers: visits.len(),
            seed: 1,
            outcomes,
            mismatches,
            books: Books { balanced: true, breaches: Vec::new() },
            runs: Runs::default(),
            mails: BTreeMap::new(),
            seconds: 1.0,
        }
    }

    #[test]
    fn in_a_rush_only_the_numbers_count() {
        let swapped =
            [visited(Outcome::LastPieces, Outcome::SoldOut, 1.0), visited(Outcome::SoldOut, Outcome::LastPieces, 1.0)];
        assert!(report(&swapped).is_sound());
        let oversold = [
            visited(Outcome::LastPieces, Outcome::LastPieces, 1.0),
            visited(Outcome::SoldOut, Outcome::LastPieces, 1.0),
        ];
        assert!(!report(&oversold).is_sound());
    }

    #[test]
    fn a_surprise_is_listed_and_not_counted_as_done() {
        let came = expect("the order's status", "PENDING", "CONFIRMED").map(|()| Outcome::Paid);
        let report = report(&[Visited { number: 7, outcome: Outcome::Paid, came, seconds: 1.0 }]);
        assert!(!report.is_sound());
        assert_eq!(report.outcomes["paid"].actual, 0);
        assert!(
            report
                .to_string()
                .contains("shopper 7 (paid): the order's status: expected \"CONFIRMED\", got \"PENDING\"")
        );
    }

    #[test]
    fn runs_that_never_end_are_not_sound() {
        let parked = Runs { parked: 1, ..Runs::default() };
        assert!(!Report { runs: parked, ..report(&[]) }.is_sound());
        assert!(report(&[]).is_sound());
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (values, percent, expected) in
            [(&hundred[..], 50, 50.0), (&hundred, 99, 99.0), (&hundred[..1], 99, 1.0), (&[], 50, 0.0)]
        {
            assert!((percentile(values, percent) - expected).abs() < 1e-9, "{percent} of {}", values.len());
        }
    }
}
