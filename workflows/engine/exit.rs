//! How a turn ends before its flow does, as those say it who have no flow to leave.

use chrono::{DateTime, Utc};

use crate::{Failure, RetryPolicy, error::is_outage};

/// How a turn ended before the flow did.
#[derive(Debug)]
#[doc(hidden)]
pub enum Exit {
    /// Asleep; everything is committed.
    Resting,
    /// An attempt failed.
    Retry { step: &'static str, error: String, policy: RetryPolicy },
    /// A call has to wait. Nothing has failed.
    PutOff { step: &'static str, why: String, until: DateTime<Utc> },
    /// Somebody else has the run, or its journal is not what this turn knows of it.
    Refused,
    /// What this turn had in hand was rolled back for another run's sake. Nothing has failed; it goes
    /// again, among so many at most.
    Again { among: usize },
    /// The database is away; what this turn held must be given back when it returns.
    Outage,
    /// A test has killed this turn.
    Crashed,
    /// An operator must look.
    Stuck(Failure),
    /// A rehearsal has come to the end of the journal.
    Rehearsed,
}

/// Why a write did not happen.
pub(crate) enum Unwritten {
    Cancelled(String),
    Exit(Exit),
}

impl Unwritten {
    pub(crate) fn database(error: sqlx::Error) -> Self {
        if is_outage(&error) {
            tracing::warn!(%error, "the database went away during a commit; the journal will tell what it kept");
            Unwritten::Exit(Exit::Outage)
        } else {
            Unwritten::Exit(Exit::Retry { step: "commit", error: error.to_string(), policy: RetryPolicy::default() })
        }
    }
}
