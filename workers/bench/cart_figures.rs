//! The figures of `bench cart`.

use std::{collections::BTreeMap, fmt};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{cart::Driven, figures::millis};

/// What a run found. The names are those of `bench cart --json`, which scripts read.
#[derive(Debug, Clone, Serialize)]
pub struct CartFigures {
    /// One API process each.
    pub(crate) phases: Vec<Phase>,
    /// Phases that could not be measured, and why.
    pub(crate) left_out: Vec<String>,
    /// Whether the books balanced after the load.
    pub(crate) books_balanced: bool,
    /// What was run, and on what server settings.
    pub(crate) settings: BTreeMap<String, String>,
}

/// What one API process did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phase {
    /// With or without Redis.
    pub(crate) name: String,
    /// As fast as it could.
    pub(crate) saturated: Rates,
    /// At given rates.
    pub(crate) steady: Vec<Steady>,
    /// Keys in Redis when the measurement began.
    pub(crate) copies_in_redis: Option<u64>,
    /// Requests that were answered neither well nor by one of the shop's rules, warm-up included.
    pub(crate) failed: u64,
    /// What came of one of them.
    pub(crate) first_failure: Option<String>,
    /// Of the API process, at the end; none where the system does not tell.
    pub(crate) memory: Option<Memory>,
}

/// Additions and readings, mixed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rates {
    /// Of both together, a second.
    pub(crate) requests_per_s: f64,
    /// Items put into carts.
    pub(crate) adds: Latency,
    /// Carts shown.
    pub(crate) reads: Latency,
    /// 409 and 422: the shop's rules.
    pub(crate) refused: u64,
    /// Anything else, no answer included.
    pub(crate) failed: u64,
}

/// At a rate that does not depend on the answers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Steady {
    /// Requests sent a second.
    pub(crate) rate_per_s: u32,
    /// What came of them; latency counts from when they should have been sent.
    pub(crate) requests: Rates,
}

/// How long requests of one kind took, from sending to the last byte of the answer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    /// Answered well, a second.
    pub(crate) per_s: f64,
    /// Median, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile, in milliseconds.
    pub(crate) p99_ms: f64,
    /// The longest, in milliseconds.
    pub(crate) max_ms: f64,
}

/// Resident memory, in MiB.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory {
    /// At the end.
    pub(crate) rss_mib: f64,
    /// At most.
    pub(crate) peak_rss_mib: f64,
}

impl CartFigures {
    /// Whether the books balanced, and every request was answered as it should.
    pub fn is_sound(&self) -> bool {
        self.books_balanced && self.phases.iter().all(|phase| phase.failed == 0)
    }
}

impl Phase {
    /// Counts what failed in a part of it.
    pub(crate) fn blame(&mut self, driven: &Driven) {
        self.failed += driven.failed;
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&driven.first_failure);
        }
    }
}

impl Rates {
    /// Of a load.
    pub(crate) fn of(driven: &Driven) -> Self {
        let took_s = driven.took.as_secs_f64();
        Rates {
            requests_per_s: (driven.adds_us.len() + driven.reads_us.len()) as f64 / took_s,
            adds: Latency::of(&driven.adds_us, took_s),
            reads: Latency::of(&driven.reads_us, took_s),
            refused: driven.refused,
            failed: driven.failed,
        }
    }
}

impl Latency {
    fn of(latency_us: &Histogram<u64>, took_s: f64) -> Self {
        Latency {
            per_s: latency_us.len() as f64 / took_s,
            p50_ms: millis(latency_us, 0.50),
            p99_ms: millis(latency_us, 0.99),
            max_ms: millis(latency_us, 1.0),
        }
    }
}

impl fmt::Display for CartFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in &self.phases {
            writeln!(f, "{phase}")?;
        }
        for phase in &self.left_out {
            writeln!(f, "NOT MEASURED: {phase}\n")?;
        }
        writeln!(f, "books                {:>12}", if self.books_balanced { "balanced" } else { "NOT BALANCED" })?;
        for (name, value) in &self.settings {
            writeln!(f, "  {name:<32} {value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        writeln!(f, "  {:<14}{:>10}{:>10}{:>10}{:>10}", "", "/s", "p50 ms", "p99 ms", "max ms")?;
        let steady = self.steady.iter().map(|steady| (format!("{}/s", steady.rate_per_s), &steady.requests));
        for (load, rates) in std::iter::once(("saturated".to_owned(), &self.saturated)).chain(steady) {
            for (what, latency) in [("add", &rates.adds), ("read", &rates.reads)] {
                let Latency { per_s, p50_ms, p99_ms, max_ms } = latency;
                let name = format!("{load}, {what}");
                writeln!(f, "  {name:<14}{per_s:>10.0}{p50_ms:>10.1}{p99_ms:>10.1}{max_ms:>10.1}")?;
            }
        }
        if let Some(Memory { rss_mib, peak_rss_mib }) = self.memory {
            writeln!(f, "  memory of the API   {rss_mib:>8.0} MiB, at most {peak_rss_mib:.0} MiB")?;
        }
        if let Some(copies) = self.copies_in_redis {
            writeln!(f, "  copies in Redis     {copies:>8}")?;
        }
        writeln!(f, "  failed requests     {:>8}", self.failed)?;
        if let Some(failure) = &self.first_failure {
            writeln!(f, "  one of them         {failure}")?;
        }
        Ok(())
    }
}
