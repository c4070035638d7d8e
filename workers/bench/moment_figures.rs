//! The figures of `bench moment`.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// What a run found. The names are those of `bench moment --json`, which scripts read. Times count from the
/// moment at which everything is due.
#[derive(Debug, Clone, Serialize)]
pub struct MomentFigures {
    pub(crate) holds: HoldFigures,
    pub(crate) reminders: ReminderFigures,
    pub(crate) cancellations: CancellationFigures,
    /// Whether the books balanced after it all.
    pub(crate) books_balanced: bool,
    /// What was run, and on what server settings.
    pub(crate) settings: BTreeMap<String, String>,
}

/// Checkouts that waited for a payment, and whose window and hold were over.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct HoldFigures {
    pub(crate) checkouts: u32,
    /// Lines they held.
    pub(crate) reservations: i64,
    /// Until nothing overdue was held any more.
    pub(crate) released_s: f64,
    /// Until the last of the checkouts had ended.
    pub(crate) checkouts_ended_s: f64,
    /// Until the last run that looks for their money had ended, too.
    pub(crate) all_ended_s: f64,
    /// How the shop sold in that time.
    pub(crate) meanwhile: Meanwhile,
}

/// A light stream of checkouts, while the shop was busy with something else.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Meanwhile {
    pub(crate) checkouts: usize,
    /// Median from accepted to completed, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile of the same.
    pub(crate) p99_ms: f64,
}

/// Carts that were left behind.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ReminderFigures {
    pub(crate) carts: u32,
    /// From the moment at which they count as left behind until each was found and reminded of.
    pub(crate) found_s: f64,
    /// From the moment at which the next reminder of each is due until the last was sent.
    pub(crate) sent_s: f64,
}

/// Orders of one variant, which was sold out by them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CancellationFigures {
    pub(crate) orders: u32,
    /// Until the last was accepted.
    pub(crate) accepted_s: f64,
    /// Until the last piece was back in stock.
    pub(crate) stock_back_s: f64,
    /// Until the last order was refunded.
    pub(crate) refunded_s: f64,
    /// Until the last run had ended, those that write to the shoppers included.
    pub(crate) all_ended_s: f64,
}

impl MomentFigures {
    /// Whether the books balanced.
    pub fn is_sound(&self) -> bool {
        self.books_balanced
    }
}

impl fmt::Display for MomentFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HoldFigures { checkouts, reservations, released_s, checkouts_ended_s, all_ended_s, meanwhile } = self.holds;
        writeln!(f, "{checkouts} checkouts that wait for a payment expire, {reservations} lines held")?;
        writeln!(f, "  stock released        {released_s:>9.1} s")?;
        writeln!(f, "  checkouts ended       {checkouts_ended_s:>9.1} s")?;
        writeln!(f, "  all runs ended        {all_ended_s:>9.1} s")?;
        let Meanwhile { checkouts, p50_ms, p99_ms } = meanwhile;
        writeln!(f, "  {checkouts} others sold, p50  {p50_ms:>9.1} ms")?;
        writeln!(f, "                   p99  {p99_ms:>9.1} ms")?;
        let ReminderFigures { carts, found_s, sent_s } = self.reminders;
        writeln!(f, "{carts} reminders due")?;
        writeln!(f, "  carts found, reminded {found_s:>9.1} s")?;
        writeln!(f, "  next reminder sent    {sent_s:>9.1} s")?;
        let CancellationFigures { orders, accepted_s, stock_back_s, refunded_s, all_ended_s } = self.cancellations;
        writeln!(f, "{orders} cancellations of one variant's orders")?;
        writeln!(f, "  accepted              {accepted_s:>9.1} s")?;
        writeln!(f, "  stock back            {stock_back_s:>9.1} s")?;
        writeln!(f, "  refunded              {refunded_s:>9.1} s")?;
        writeln!(f, "  all runs ended        {all_ended_s:>9.1} s")?;
        writeln!(f, "books                {:>12}", if self.books_balanced { "balanced" } else { "NOT BALANCED" })?;
        for (name, value) in &self.settings {
            writeln!(f, "  {name:<32} {value}")?;
        }
        Ok(())
    }
}
