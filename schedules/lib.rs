//! What happens by the clock: a table of schedules, each of which starts a workflow.
//!
//! A tick is a row update, not a message: whoever moves `engine.schedules.last_tick` past a due tick
//! starts the run in the same transaction, under the tick as its key. However many schedulers there
//! are, a tick fires once; after downtime the latest missed tick fires once. Ticks are read off the
//! engine's clock, so they follow it when development moves it.
//!
//! What must not live here: work. A schedule only starts a run, and what a run does is a workflow's.

use std::{collections::HashMap, fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use cron::Schedule as Cron;
use engine::{Failure, Start, Workflow, silence::heard, start_at};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use workflows::{
    abandoned_cart::AbandonedCarts,
    cart_expiry::CartExpiry,
    low_stock_alerts::LowStockAlerts,
    payment_reconciliation::PaymentReconciliation,
    reservation_expiry::ReservationExpiry,
    retention::Retention,
    store::schedules::{self, Due},
    stuck_run_rescue::StuckRunRescue,
};

/// One line of the table: when, and what is started then.
#[derive(Clone, Copy)]
pub struct Schedule {
    /// Its name, which is that of the workflow it starts.
    pub name: &'static str,
    /// Seconds, minutes, hours, days, months, weekdays; UTC.
    pub cron: &'static str,
    version: i32,
    start: fn(String) -> Result<Start<()>, Failure>,
}

impl Schedule {
    /// Starts `W` at each tick, with the input that says nothing.
    pub const fn of<W: Workflow<Input: Default>>(cron: &'static str) -> Self {
        let start = |key| Ok(Start::<W>::new(key, &W::Input::default())?.untyped());
        Schedule { name: W::NAME, cron, version: W::VERSION, start }
    }

    /// The workflow it starts, e.g. `retention/v1`.
    pub fn starts(&self) -> String {
        format!("{}/v{}", self.name, self.version)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("name", &self.name).field("cron", &self.cron).finish_non_exhaustive()
    }
}

/// Every schedule of the shop.
pub const SCHEDULES: &[Schedule] = &[
    // Holds end after ten minutes; half a minute late is soon enough, because a dead hold sells nothing.
    Schedule::of::<ReservationExpiry>("*/30 * * * * *"),
    // An hour's idleness is told within a minute; reminders are timers of their own.
    Schedule::of::<AbandonedCarts>("10 * * * * *"),
    // A cart past its time is refused by whoever meets it; this only tidies up.
    Schedule::of::<CartExpiry>("20 */10 * * * *"),
    // A digest, so not at every crossing.
    Schedule::of::<LowStockAlerts>("40 */15 * * * *"),
    Schedule::of::<StuckRunRescue>("50 * * * * *"),
    // Webhooks come within seconds; one that was lost should not keep a shopper waiting for long.
    Schedule::of::<PaymentReconciliation>("15 */2 * * * *"),
    Schedule::of::<Retention>("0 25 * * * *"),
];

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Why a schedule did not fire.
#[derive(Debug, thiserror::Error)]
pub enum FireError {
    /// What it starts could not be written down.
    #[error("what it starts cannot be started: {0}")]
    Start(#[from] Failure),
    /// Postgres did not answer.
    #[error("the database did not answer: {0}")]
    Database(#[from] sqlx::Error),
}

/// Something that fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// Which schedule.
    pub name: &'static str,
    /// The business key of the run it started: the tick, or `manual/` and when it was asked for.
    pub key: String,
}

/// Fires the schedules of a table. Any number may share one database.
#[derive(Debug)]
pub struct Scheduler {
    pool: PgPool,
    table: HashMap<&'static str, (Schedule, Cron)>,
}

impl Scheduler {
    /// A scheduler for this table.
    ///
    /// # Errors
    /// A line that is no cron line.
    pub fn new(pool: PgPool, table: &[Schedule]) -> Result<Self, cron::error::Error> {
        let table = table
            .iter()
            .map(|schedule| Ok((schedule.name, (*schedule, Cron::from_str(schedule.cron)?))))
            .collect::<Result<_, cron::error::Error>>()?;
        Ok(Scheduler { pool, table })
    }

    /// Makes its schedules known: one that was not counts from now on.
    ///
    /// # Errors
    /// The database's own.
    pub async fn register(&self) -> Result<(), sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        for (schedule, cron) in self.table.values() {
            let (now, last_tick) = schedules::known(&mut conn, schedule.name).await?;
            let next_tick = cron.after(&last_tick.unwrap_or(now)).next();
            schedules::register(&mut conn, schedule.name, schedule.cron, &schedule.starts(), now, next_tick).await?;
        }
        Ok(())
    }

    /// Looks at the clock once and fires what is due: of each schedule the latest tick, if nobody has
    /// fired it, and what was asked for by hand. One that cannot be fired does not hold up the others.
    ///
    /// # Errors
    /// The database's own.
    pub async fn look(&self) -> Result<Vec<Fired>, sqlx::Error> {
        let due = schedules::due(&mut *self.pool.acquire().await?).await?;
        let mut fired = Vec::new();
        for due in due {
            // What another release made known, it must fire: we read other ticks, or know no such workflow.
            let Some((schedule, cron)) = self.table.get(&*due.name).filter(|(own, _)| own.cron == due.cron) else {
                continue;
            };
            match self.fire(schedule, cron, &due).await {
                Ok(more) => fired.extend(more),
                Err(error) => tracing::warn!(schedule = schedule.name, %error, "could not fire"),
            }
        }
        Ok(fired)
    }

    async fn fire(&self, schedule: &Schedule, cron: &Cron, due: &Due) -> Result<Vec<Fired>, FireError> {
        let mut fired = Vec::new();
        let mut tx = self.pool.begin().await?;
        if let Some(requested_at) = due.run_requested_at
            && schedules::take_request(&mut tx, schedule.name, requested_at).await?
        {
            fired.push(Fired { name: schedule.name, key: format!("manual/{}", requested_at.to_rfc3339()) });
        }
        if due.is_due {
            // None when a clock was set back, or two schedulers made it known at once: only the next
            // tick's note is put right then.
            let tick = latest_due(cron, due.last_tick, due.now);
            let reached = tick.unwrap_or(due.last_tick);
            let next_tick = cron.after(&reached).next();
            let moved = schedules::advance(&mut tx, schedule.name, due.last_tick, reached, next_tick).await?;
            if let Some(tick) = tick.filter(|_| moved) {
                fired.push(Fired { name: schedule.name, key: tick.to_rfc3339() });
            }
        }
        for Fired { key, .. } in &fired {
            start_at(&mut tx, &(schedule.start)(key.clone())?, due.now).await?;
        }
        tx.commit().await?;
        Ok(fired)
    }
}

/// Fires the shop's schedules until told to stop.
///
/// # Errors
/// A line of the table that is no cron line.
pub async fn run(pool: PgPool, shutdown: CancellationToken) -> anyhow::Result<()> {
    let scheduler = Scheduler::new(pool, SCHEDULES)?;
    tracing::info!(schedules = SCHEDULES.len(), "scheduling");
    let mut is_registered = false;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = look.tick() => {}
        }
        let looked = async {
            if !is_registered {
                scheduler.register().await?;
            }
            scheduler.look().await
        };
        match heard(looked).await {
            Ok(fired) => {
                is_registered = true;
                for Fired { name, key } in fired {
                    tracing::debug!(schedule = name, key, "fired");
                }
            }
            Err(error) => tracing::warn!(%error, "could not look at the clock"),
        }
    }
}

/// The latest tick after `last` and not after `now`: what was missed is caught up once.
fn latest_due(cron: &Cron, last: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let first = cron.after(&last).next().filter(|tick| *tick <= now)?;
    // Backwards from just after now: however many were missed, this is one step.
    cron.after(&(now + chrono::Duration::seconds(1)))
        .next_back()
        .filter(|tick| *tick > last && *tick <= now)
        .or(Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn every_line_of_the_table_parses_and_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = SCHEDULES.iter().map(|schedule| schedule.name).collect();
        assert_eq!(names.len(), SCHEDULES.len());
        for schedule in SCHEDULES {
            assert!(Cron::from_str(schedule.cron).is_ok(), "{}", schedule.name);
            assert!((schedule.start)("key".to_owned()).is_ok(), "{}", schedule.name);
        }
    }

    #[test]
    fn the_latest_missed_tick_is_caught_up_once() {
        let cron = Cron::from_str("*/30 * * * * *").expect("a cron line");
        for (last, now, due) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:29Z", None),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:30Z", Some("2026-01-01T00:00:30Z")),
            ("2026-01-01T00:00:10Z", "2026-01-01T00:00:31Z", Some("2026-01-01T00:00:30Z")),
            ("2026-01-01T00:00:00Z", "2026-01-01T03:00:10Z", Some("2026-01-01T03:00:00Z")),
            ("2028-02-28T23:59:50Z", "2028-02-29T00:00:01Z", Some("2028-02-29T00:00:00Z")),
        ] {
            assert_eq!(latest_due(&cron, at(last), at(now)), due.map(at), "last {last}, now {now}");
        }
    }
}
