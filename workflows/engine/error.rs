//! How steps fail.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    legible::{legible, rough_size, without_nul},
    limits,
};

/// The codes of the engine's own failures. All others are those of the flows.
pub mod codes {
    /// Somebody asked the run to stop.
    pub const CANCELLED: &str = "cancelled";
    /// Too many workers died with the run in their hands.
    pub const CRASH_LIMIT: &str = "crash-limit";
    /// The flow gave up and did not say why.
    pub const FAILED: &str = "failed";
    /// What the run was started with is not what this program reads.
    pub const INPUT_UNREADABLE: &str = "input-unreadable";
    /// The journal is that of another program.
    pub const JOURNAL_DIVERGED: &str = "journal-diverged";
    /// The run has written all entries that it may.
    pub const JOURNAL_FULL: &str = "journal-full";
    /// An entry of the journal, or why the run unwinds, is not what this program reads.
    pub const JOURNAL_UNREADABLE: &str = "journal-unreadable";
    /// The flow panicked, time after time.
    pub const PANICKED: &str = "panicked";
    /// A key or a value has what Postgres or JSON cannot keep.
    pub const PAYLOAD_INVALID: &str = "payload-invalid";
    /// A value is larger than may be kept.
    pub const PAYLOAD_TOO_LARGE: &str = "payload-too-large";
    /// A step, or an undo, failed as often as it is tried.
    pub const STEP_FAILED: &str = "step-failed";
    /// What the run did cannot be taken back, for several reasons or for one that will not pass.
    pub const UNDO_FAILED: &str = "undo-failed";
    /// No flow of this name and version is known.
    pub const WORKFLOW_UNKNOWN: &str = "workflow-unknown";
}

/// Why a run unwinds: a stable code for programs, a sentence for people, data for either.
///
/// A failure is journalled; a replay sees the same one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Failure {
    /// Stable, kebab-case.
    pub code: String,
    /// For people.
    pub detail: String,
    /// What a caller needs to act on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl Failure {
    /// A failure with a code and a sentence.
    pub fn new(code: impl Into<String>, detail: impl fmt::Display) -> Self {
        Failure { code: code.into(), detail: legible(&detail.to_string()).into_owned(), data: None }
    }

    /// The same with data.
    #[must_use]
    pub fn with(mut self, data: serde_json::Value) -> Self {
        self.data = Some(data);
        self
    }

    pub(crate) fn cancelled(why: &str) -> Self {
        Failure::new(codes::CANCELLED, why)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.code == codes::CANCELLED
    }

    /// As it is written down: whatever a step put into it, it can be kept.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let data = self.data.clone().map(without_nul);
        let kept = Failure {
            code: legible(&self.code).into_owned(),
            detail: legible(&self.detail).into_owned(),
            data: data.filter(|data| rough_size(data) <= limits::PAYLOAD_BYTES),
        };
        // Text and JSON: nothing in it can fail to become JSON.
        serde_json::to_value(kept).unwrap_or_default()
    }
}

/// What a flow returns: its output, or the failure that makes it unwind.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// How one attempt of a step ended when it did not succeed. Retryable unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Trying again cannot help: the run unwinds.
    #[error(transparent)]
    Terminal(#[from] Failure),
    /// It did not happen; trying again may help, up to the step's policy.
    #[error("{0}")]
    Retry(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A call may or may not have happened: it is retried under the same key until that is known.
    #[error("outcome unknown: {0}")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It cannot be done yet, and nobody outside was asked. Not counted as a failed attempt.
    #[error("not yet: {why}")]
    NotYet {
        /// What it waits for.
        why: String,
        /// When to come again.
        after: Duration,
    },
    /// The outside did nothing and asks to be left alone, by everybody. Not counted as a failed attempt.
    #[error("asked to come again: {why}")]
    Busy {
        /// In its words.
        why: String,
        /// For how long.
        after: Duration,
    },
}

impl From<sqlx::Error> for StepError {
    fn from(error: sqlx::Error) -> Self {
        StepError::Retry(Box::new(error))
    }
}

impl StepError {
    /// It waited for somebody's lock in vain.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        match self {
            StepError::Retry(error) => error.downcast_ref::<sqlx::Error>().is_some_and(is_lock_timeout),
            StepError::Unknown(_) | StepError::Terminal(_) | StepError::NotYet { .. } | StepError::Busy { .. } => false,
        }
    }

    /// The connection or the server went away: says nothing about the step, so it is not counted
    /// against it.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            StepError::Retry(error) | StepError::Unknown(error) => {
                error.downcast_ref::<sqlx::Error>().is_some_and(is_outage)
            }
            StepError::Terminal(_) | StepError::NotYet { .. } | StepError::Busy { .. } => false,
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm)] // sqlx's enum is open-ended
/// True when Postgres could not be reached or is going down (classes 08, 53, 57 of SQLSTATE).
pub(crate) fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(db) => db.code().is_some_and(|code| {
            code.starts_with("08") || code.starts_with("53") || (code.starts_with("57") && code != "57014")
        }),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        _ => false,
    }
}

/// True when a statement waited for somebody's lock until it was told to wait no longer.
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03")
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
