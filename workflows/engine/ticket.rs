//! A run's ticket, the row by which a worker hears of it.

use ulid::Ulid;
use uuid::Uuid;

/// How long a run that was given a ticket may lie untouched before the sweep gives it another.
pub(crate) const UNTOUCHED_SECS: f64 = 10.0;

/// A ticket's id is its run's: a run has at most one ticket, and no second index is needed to say so.
pub(crate) fn ticket_id(run_id: Uuid) -> String {
    Ulid::from_bytes(*run_id.as_bytes()).to_string()
}

pub(crate) fn ticket_body(run_id: Uuid) -> Vec<u8> {
    format!(r#"{{"run_id":"{run_id}"}}"#).into_bytes()
}
