//! What is shown while the demo runs: a bar per outcome on a terminal, a line now and then elsewhere.
//! All of it goes to standard error; standard output is the report's.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::outcome::Outcome;

/// Shoppers between two lines.
const LINE_EVERY: usize = 50;

/// One line on standard error.
pub fn note(step: &str) {
    // Whoever closed it does not want to know.
    let _ = writeln!(std::io::stderr().lock(), "· {step}");
}

/// How many shoppers have gone, and which way they wanted.
#[derive(Debug)]
pub(crate) enum Progress {
    /// On a terminal.
    Bars { all: MultiProgress, bars: BTreeMap<Outcome, ProgressBar> },
    /// Anywhere else.
    Lines { shoppers: usize, gone: AtomicUsize },
}

impl Progress {
    /// Progress of these shoppers; bars only if they are wanted and can be drawn.
    pub(crate) fn of(cast: &[Outcome], bars: bool) -> Self {
        if !bars || !std::io::stderr().is_terminal() {
            return Progress::Lines { shoppers: cast.len(), gone: AtomicUsize::new(0) };
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        // The template is a constant; a wrong one would show in the plain style that takes its place.
        let style = ProgressStyle::with_template("  {prefix:<20} {bar:30} {pos:>3} of {len}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let mut bars = BTreeMap::new();
        for outcome in Outcome::ALL {
            let shoppers = cast.iter().filter(|played| **played == outcome).count();
            if shoppers > 0 {
                let bar =
                    all.add(ProgressBar::new(shoppers as u64).with_style(style.clone()).with_prefix(outcome.name()));
                bar.tick();
                bars.insert(outcome, bar);
            }
        }
        Progress::Bars { all, bars }
    }

    /// A shopper has gone.
    pub(crate) fn gone(&self, outcome: Outcome) {
        match self {
            Progress::Bars { bars, .. } => {
                if let Some(bar) = bars.get(&outcome) {
                    bar.inc(1);
                }
            }
            Progress::Lines { shoppers, gone } => {
                let gone = gone.fetch_add(1, Ordering::Relaxed) + 1;
                if gone % LINE_EVERY == 0 || gone == *shoppers {
                    note(&format!("{gone} of {shoppers} shoppers have gone"));
                }
            }
        }
    }

    /// A line that does not disturb the bars.
    pub(crate) fn tell(&self, step: &str) {
        match self {
            Progress::Bars { all, .. } => all.suspend(|| note(step)),
            Progress::Lines { .. } => note(step),
        }
    }

    /// Leaves the bars as they are.
    pub(crate) fn end(&self) {
        match self {
            Progress::Bars { bars, .. } => bars.values().for_each(ProgressBar::abandon),
            Progress::Lines { .. } => {}
        }
    }
}
