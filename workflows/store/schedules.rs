//! `engine.schedules`: when each schedule last fired, as schedulers move it and staff see it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A schedule as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// Its name.
    pub name: String,
    /// Seconds, minutes, hours, days, months, weekdays; UTC.
    pub cron: String,
    /// The workflow it starts, e.g. `retention/v1`.
    pub starts: String,
    /// The last tick that fired, or the moment it was first known.
    pub last_tick: DateTime<Utc>,
    /// The tick that fires next; none while it is paused.
    pub next_tick: Option<DateTime<Utc>>,
    /// Since when it does not fire.
    pub paused_at: Option<DateTime<Utc>>,
    /// A run was asked for by hand, and is about to be started.
    pub run_requested_at: Option<DateTime<Utc>>,
}

/// Up to `limit` schedules after `after`, by name.
///
/// # Errors
/// The database's own.
pub async fn list(conn: &mut PgConnection, after: Option<String>, limit: i64) -> Result<Vec<Scheduled>, sqlx::Error> {
    sqlx::query_as!(
        Scheduled,
        "select name, cron, starts, last_tick, case when paused_at is null then next_tick end as next_tick, paused_at,
                run_requested_at
           from engine.schedules
          where $1::text is null or name > $1
          order by name limit $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

/// What can be done to a schedule by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Start its workflow now, paused or not.
    Run,
    /// Fire no more.
    Pause,
    /// Fire again: of the ticks missed meanwhile the latest, once.
    Resume,
}

impl Turn {
    /// As the audit log has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Turn::Run => "schedule.run",
            Turn::Pause => "schedule.pause",
            Turn::Resume => "schedule.resume",
        }
    }
}

/// Does it, and returns the schedule as it stands then; none if there is no such schedule. Doing it twice
/// is harmless.
///
/// # Errors
/// The database's own.
pub async fn turn(conn: &mut PgConnection, name: &str, turn: Turn) -> Result<Option<Scheduled>, sqlx::Error> {
    sqlx::query_as!(
        Scheduled,
        r#"update engine.schedules
              set run_requested_at = case when $2 then coalesce(run_requested_at, engine.now()) else run_requested_at end,
                  paused_at = case when $3 then coalesce(paused_at, engine.now()) when $4 then null else paused_at end
            where name = $1
           returning name, cron, starts, last_tick, case when paused_at is null then next_tick end as next_tick,
                     paused_at, run_requested_at"#,
        name,
        turn == Turn::Run,
        turn == Turn::Pause,
        turn == Turn::Resume
    )
    .fetch_optional(conn)
    .await
}

/// The engine's clock, and the last tick of a schedule if it is known.
///
/// # Errors
/// The database's own.
pub async fn known(conn: &mut PgConnection, name: &str) -> Result<(DateTime<Utc>, Option<DateTime<Utc>>), sqlx::Error> {
    let row = sqlx::query!(
        r#"select engine.now() as "now!", (select last_tick from engine.schedules where name = $1) as last_tick"#,
        name
    )
    .fetch_one(conn)
    .await?;
    Ok((row.now, row.last_tick))
}

/// Makes a schedule known, from `now` on; or renews what is known of it.
///
/// # Errors
/// The database's own.
pub async fn register(
    conn: &mut PgConnection,
    name: &str,
    cron: &str,
    starts: &str,
    now: DateTime<Utc>,
    next_tick: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into engine.schedules (name, cron, starts, last_tick, next_tick) values ($1, $2, $3, $4, $5)
         on conflict (name) do update
            set cron = excluded.cron, starts = excluded.starts, next_tick = excluded.next_tick
          where (schedules.cron, schedules.starts, schedules.next_tick)
                is distinct from (excluded.cron, excluded.starts, excluded.next_tick)",
        name,
        cron,
        starts,
        now,
        next_tick
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A schedule that has something to start.
#[derive(Debug, Clone)]
pub struct Due {
    /// Its name.
    pub name: String,
    /// As whoever made it known reads its ticks.
    pub cron: String,
    /// The last tick that fired.
    pub last_tick: DateTime<Utc>,
    /// A tick has come.
    pub is_due: bool,
    /// A run was asked for by hand.
    pub run_requested_at: Option<DateTime<Utc>>,
    /// The engine's clock.
    pub now: DateTime<Utc>,
}

/// What is due, by name.
///
/// # Errors
/// The database's own.
pub async fn due(conn: &mut PgConnection) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query_as!(
        Due,
        r#"select s.name, s.cron, s.last_tick, s.run_requested_at, t.now as "now!",
                  coalesce(s.paused_at is null and s.next_tick <= t.now, false) as "is_due!"
             from engine.schedules s, (select engine.now() as now) t
            where s.run_requested_at is not null or s.paused_at is null and s.next_tick <= t.now
            order by s.name"#
    )
    .fetch_all(conn)
    .await
}

/// Moves a schedule to a tick; false when another scheduler was faster, or it was paused meanwhile.
///
/// # Errors
/// The database's own.
pub async fn advance(
    conn: &mut PgConnection,
    name: &str,
    last_tick: DateTime<Utc>,
    tick: DateTime<Utc>,
    next_tick: Option<DateTime<Utc>>,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query!(
        "update engine.schedules set last_tick = $3, next_tick = $4
          where name = $1 and last_tick = $2 and paused_at is null",
        name,
        last_tick,
        tick,
        next_tick
    )
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Takes up a request made by hand; false when another scheduler was faster.
///
/// # Errors
/// The database's own.
pub async fn take_request(
    conn: &mut PgConnection,
    name: &str,
    requested_at: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query!(
        "update engine.schedules set run_requested_at = null where name = $1 and run_requested_at = $2",
        name,
        requested_at
    )
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() == 1)
}
