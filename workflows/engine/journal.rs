//! What a run remembers.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Failure, error::codes};

/// What kind of thing a journal entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Kind {
    /// A step's output, committed with its SQL.
    Tx,
    /// A call is about to be made.
    Intent,
    /// A call's output.
    Call,
    /// A wait began; its output holds the deadline.
    Wait,
    /// How a wait ended: a signal's payload, or null for the deadline.
    Signal,
    /// A child was started.
    Start,
    /// A value the flow read: time, randomness, configuration.
    Value,
    /// The point of no return was passed.
    NoReturn,
    /// An undo was carried out.
    Undo,
    /// An attempt failed.
    Attempt,
    /// The run gave up, and why.
    Failed,
    /// The run was parked, and let go on.
    Resumed,
}

impl Kind {
    /// As stored.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Tx => "TX",
            Kind::Intent => "INTENT",
            Kind::Call => "CALL",
            Kind::Wait => "WAIT",
            Kind::Signal => "SIGNAL",
            Kind::Start => "START",
            Kind::Value => "VALUE",
            Kind::NoReturn => "NO_RETURN",
            Kind::Undo => "UNDO",
            Kind::Attempt => "ATTEMPT",
            Kind::Failed => "FAILED",
            Kind::Resumed => "RESUMED",
        }
    }

    /// Entries of these kinds stand for SQL in the open transaction: when it rolls back, they never
    /// happened.
    pub(crate) fn bound_to_transaction(self) -> bool {
        match self {
            Kind::Tx | Kind::Signal | Kind::Start | Kind::NoReturn | Kind::Undo => true,
            Kind::Intent | Kind::Call | Kind::Wait | Kind::Value | Kind::Attempt | Kind::Failed | Kind::Resumed => {
                false
            }
        }
    }
}

/// One entry as read back.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Entry {
    /// Position in the run.
    pub(crate) seq: i32,
    /// What it records.
    pub(crate) kind: Kind,
    /// The step's name.
    pub(crate) name: String,
    /// What the step returned.
    pub(crate) output: Option<serde_json::Value>,
    /// When it was journalled, on the engine's clock.
    pub(crate) recorded_at: DateTime<Utc>,
}

/// One entry not yet written.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) seq: i32,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) output: Option<serde_json::Value>,
    pub(crate) error: Option<serde_json::Value>,
}

/// What the entry of an undo holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Undone {
    /// Position of the step that it takes back.
    pub(crate) undoes: i32,
}

/// What was journalled is not what this program knows: only a person can say how the run goes on.
pub(crate) fn unreadable(name: &str, why: impl fmt::Display) -> Failure {
    Failure::new(codes::JOURNAL_UNREADABLE, format!("{name} answered another shape then: {why}"))
}

/// What was journalled under this name, as this program knows it.
pub(crate) fn decode_one<T: DeserializeOwned>(name: &str, output: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(output).map_err(|error| unreadable(name, error))
}
