//! What the rest of the house may ask of a run, and do to its row: whoever needs more of the engine's
//! tables finds a function here.

use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::RunStatus;
pub use crate::signal::{Delivery, cancel, is_stopping, is_unwinding, only_forward, signal};

/// A run, live or ended, as those see it who started it.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// Its family.
    pub workflow: String,
    /// Where it stands.
    pub status: RunStatus,
    /// The signal that it waits for; none of one that has ended.
    pub waiting_for: Option<String>,
    /// Somebody has asked it to stop; not said of one that has ended.
    pub is_asked_to_stop: bool,
    /// What it was started with.
    pub input: Value,
    /// Why it unwinds, was parked, or came to nothing.
    pub failure: Option<Value>,
}

impl Glance {
    /// Whether it gave up, or gives up, for the reason with this code.
    pub fn failed_with(&self, code: &str) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure["code"] == code)
    }
}

/// Looks at a run in the caller's transaction; none if there is no such run, or not any more.
///
/// # Errors
/// The database's own.
pub async fn glance(conn: &mut PgConnection, run_id: Uuid) -> Result<Option<Glance>, sqlx::Error> {
    sqlx::query_as!(
        Glance,
        r#"select workflow as "workflow!", status as "status!: RunStatus", waiting_for,
                  cancel_requested is not null as "is_asked_to_stop!", input as "input!", failure
             from engine.runs where id = $1
           union all
           select workflow, status, null, false, input, failure from engine.finished_runs where id = $1
           limit 1"#,
        run_id
    )
    .fetch_optional(conn)
    .await
}

/// Locks a living run, as whoever sends it a signal does, until the caller's transaction ends: what is seen
/// of it then still holds when it is told something. None if it has ended.
///
/// # Errors
/// The database's own.
pub async fn lock(conn: &mut PgConnection, run_id: Uuid) -> Result<Option<Glance>, sqlx::Error> {
    sqlx::query_as!(
        Glance,
        r#"select workflow, status as "status: RunStatus", waiting_for,
                  cancel_requested is not null as "is_asked_to_stop!", input, failure
             from engine.runs where id = $1 for update"#,
        run_id
    )
    .fetch_optional(conn)
    .await
}

/// Of these runs, those that have ended (true), and those that wait for one of these signals (false). One statement
/// for everybody who waits for one of them.
///
/// # Errors
/// The database's own.
pub async fn settled(pool: &PgPool, run_ids: &[Uuid], signals: &[&str]) -> Result<Vec<(Uuid, bool)>, sqlx::Error> {
    let (Some(first), Some(last)) = (run_ids.iter().min(), run_ids.iter().max()) else { return Ok(Vec::new()) };
    let rows = sqlx::query!(
        // The bounds leave those days aside in which none of them can be.
        r#"select id as "id!", true as "ended!" from engine.finished_runs where id = any($1) and id between $3 and $4
           union all
           select id, false from engine.runs where id = any($1) and status = 'WAITING' and waiting_for = any($2)"#,
        run_ids,
        signals as &[&str],
        first,
        last
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.ended)).collect())
}

/// What those of these runs that have ended were started with, in no order.
///
/// # Errors
/// The database's own.
pub async fn inputs_of_ended(conn: &mut PgConnection, run_ids: &[Uuid]) -> Result<Vec<(Uuid, Value)>, sqlx::Error> {
    let rows = sqlx::query!("select id, input from engine.finished_runs where id = any($1)", run_ids);
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (row.id, row.input)).collect())
}
