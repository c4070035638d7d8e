//! What a run remembers.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

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

/// A run's journal, split into what a replay meets in order and what it only counts.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    unread: VecDeque<Entry>,
    /// Positions of the steps whose undo is already journalled.
    pub(crate) undone: HashSet<i32>,
    pub(crate) next_seq: i32,
}

impl Replay {
    /// # Errors
    /// An undo that does not say what it undoes: nobody may guess, or it would be carried out again.
    pub(crate) fn new(journal: Vec<Entry>, is_readable: impl Fn(&Entry) -> bool) -> Result<Self, Failure> {
        let mut replay = Replay::default();
        for entry in journal {
            replay.next_seq = replay.next_seq.max(entry.seq + 1);
            match entry.kind {
                Kind::Undo => {
                    let undone: Option<Undone> =
                        entry.output.clone().and_then(|json| serde_json::from_value(json).ok());
                    match undone.filter(|_| is_readable(&entry)) {
                        Some(undone) => replay.undone.insert(undone.undoes),
                        None => return Err(unreadable(&entry.name, "it does not say what it undoes")),
                    };
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
                    replay.unread.push_back(entry);
                }
            }
        }
        Ok(replay)
    }

    /// The entry so many after those that were met.
    pub(crate) fn peek(&self, ahead: usize) -> Option<&Entry> {
        self.unread.get(ahead)
    }

    /// The next `count` entries are met: their outputs have been read, their undos are registered.
    pub(crate) fn met(&mut self, count: usize) {
        self.unread.drain(..count.min(self.unread.len()));
    }

    /// Entries that nothing has met yet.
    pub(crate) fn unread(&self) -> usize {
        self.unread.len()
    }
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
