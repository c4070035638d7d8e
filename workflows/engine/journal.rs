//! What a run remembers.

use std::collections::{HashSet, VecDeque};

use chrono::{DateTime, Utc};
use serde::Deserialize;

/// What kind of thing a journal entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// A step's answer, committed with its SQL.
    Tx,
    /// A call is about to be made.
    Intent,
    /// A call's answer.
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
    pub fn as_str(self) -> &'static str {
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
pub struct Entry {
    /// Position in the run.
    pub seq: i32,
    /// What it records.
    pub kind: Kind,
    /// The step's name.
    pub name: String,
    /// What the step answered.
    pub output: Option<serde_json::Value>,
    /// When it was journalled, on the engine's clock.
    pub recorded_at: DateTime<Utc>,
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

/// A run's journal, split into what a replay consumes in order and what it only counts.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) entries: VecDeque<Entry>,
    /// Positions of the steps whose undo is already journalled.
    pub(crate) undone: HashSet<i32>,
    pub(crate) next_seq: i32,
}

impl Replay {
    pub(crate) fn new(journal: Vec<Entry>) -> Self {
        let mut replay = Replay::default();
        for entry in journal {
            replay.next_seq = replay.next_seq.max(entry.seq + 1);
            match entry.kind {
                Kind::Undo => {
                    let undoes =
                        entry.output.as_ref().and_then(|o| o.get("undoes")).and_then(serde_json::Value::as_i64);
                    replay.undone.extend(undoes.and_then(|seq| i32::try_from(seq).ok()));
                }
                Kind::Attempt | Kind::Failed | Kind::Resumed => {}
                Kind::Tx
                | Kind::Intent
                | Kind::Call
                | Kind::Wait
                | Kind::Signal
                | Kind::Start
                | Kind::Value
                | Kind::NoReturn => {
                    replay.entries.push_back(entry);
                }
            }
        }
        replay
    }
}
