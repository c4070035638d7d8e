//! What happens by the clock: a table of schedules, each of which starts a workflow.
//!
//! A tick is a row update, not a message: whoever moves `engine.schedules.last_tick` past a due tick
//! starts the run in the same transaction, under the tick as its key. However many schedulers there
//! are, a tick fires once; after downtime the latest missed tick fires once. Ticks are read off the
//! engine's clock, so they follow it when development moves it.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use cron::Schedule as Cron;
use engine::Start;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use workflows::reservation_expiry::ReservationExpiry;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Its name, and the family of the run it starts.
    pub name: &'static str,
    /// Seconds, minutes, hours, days, months, weekdays; UTC.
    pub cron: &'static str,
}

/// Every schedule of the shop.
pub const SCHEDULES: &[Schedule] = &[
    // Holds end after ten minutes; half a minute late is soon enough, because a dead hold sells nothing.
    Schedule { name: "reservation_expiry", cron: "*/30 * * * * *" },
];

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Fires schedules until told to stop.
pub async fn run(pool: PgPool, shutdown: CancellationToken) -> anyhow::Result<()> {
    let table: Vec<(Schedule, Cron)> = SCHEDULES
        .iter()
        .map(|schedule| Ok((*schedule, Cron::from_str(schedule.cron)?)))
        .collect::<Result<_, cron::error::Error>>()?;
    tracing::info!(schedules = table.len(), "scheduling");
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = look.tick() => {}
        }
        for (schedule, cron) in &table {
            match fire_if_due(&pool, schedule, cron).await {
                Ok(Some(tick)) => tracing::debug!(schedule = schedule.name, %tick, "fired"),
                Ok(None) => {}
                Err(error) => tracing::warn!(schedule = schedule.name, %error, "could not fire"),
            }
        }
    }
}

/// Fires the latest tick that is due, if there is one that nobody has fired.
pub async fn fire_if_due(
    pool: &PgPool,
    schedule: &Schedule,
    cron: &Cron,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let state = sqlx::query!(
        r#"insert into engine.schedules (name, cron, last_tick) values ($1, $2, engine.now())
           on conflict (name) do update set cron = excluded.cron where schedules.cron <> excluded.cron
           returning last_tick"#,
        schedule.name,
        schedule.cron
    );
    let known = sqlx::query!(
        r#"select last_tick, paused_at is not null as "is_paused!", engine.now() as "now!"
             from engine.schedules where name = $1 and cron = $2"#,
        schedule.name,
        schedule.cron
    )
    .fetch_optional(pool)
    .await?;
    let Some(known) = known else {
        state.fetch_optional(pool).await?;
        return Ok(None);
    };
    if known.is_paused {
        return Ok(None);
    }
    let Some(tick) = latest_due(cron, known.last_tick, known.now) else { return Ok(None) };

    let mut tx = pool.begin().await?;
    let moved = sqlx::query!(
        "update engine.schedules set last_tick = $3 where name = $1 and last_tick = $2 and paused_at is null",
        schedule.name,
        known.last_tick,
        tick
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if moved == 0 {
        return Ok(None);
    }
    start(&mut tx, schedule, tick).await?;
    tx.commit().await?;
    Ok(Some(tick))
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

async fn start(conn: &mut PgConnection, schedule: &Schedule, tick: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let key = tick.to_rfc3339();
    let run = match schedule.name {
        "reservation_expiry" => Start::<ReservationExpiry>::new(key, &()),
        name => return Err(sqlx::Error::Encode(format!("no workflow belongs to schedule {name}").into())),
    };
    let run = run.map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?;
    engine::start(conn, &run).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn every_line_of_the_table_parses() {
        for schedule in SCHEDULES {
            assert!(Cron::from_str(schedule.cron).is_ok(), "{}", schedule.name);
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
