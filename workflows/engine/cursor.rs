//! A run's journal, and how far its flow has met it again. What cannot be read is returned as the failure that
//! parks the run, and stays unread.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Failure,
    error::codes,
    fault::{Faults, is_readable, strike_reading},
    journal::{Entry, Kind, Undone, decode_one, unreadable},
};

/// A run's journal, split into what a replay meets in order and what it only counts.
pub(crate) struct Cursor {
    run_id: Uuid,
    faults: Option<Arc<dyn Faults>>,
    unread: VecDeque<Entry>,
    /// Positions of the steps whose undo is already journalled.
    undone: HashSet<i32>,
    next_seq: i32,
    /// How often the flow has come to each call.
    occurrences: HashMap<&'static str, u32>,
}

impl Cursor {
    /// # Errors
    /// An undo that does not say what it undoes: nobody may guess, or it would be carried out again.
    pub(crate) fn new(run_id: Uuid, journal: Vec<Entry>, faults: Option<Arc<dyn Faults>>) -> Result<Self, Failure> {
        let (unread, undone, occurrences) = (VecDeque::new(), HashSet::new(), HashMap::new());
        let mut cursor = Cursor { run_id, faults, unread, undone, next_seq: 0, occurrences };
        for entry in journal {
            cursor.next_seq = cursor.next_seq.max(entry.seq + 1);
            match entry.kind {
                Kind::Undo => {
                    let undone: Option<Undone> =
                        entry.output.clone().and_then(|json| serde_json::from_value(json).ok());
                    match undone.filter(|_| is_readable(cursor.faults.as_deref(), &cursor.label(&entry))) {
                        Some(undone) => cursor.undone.insert(undone.undoes),
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
                    cursor.unread.push_back(entry);
                }
            }
        }
        Ok(cursor)
    }

    /// The position after all that is journalled.
    pub(crate) fn next_seq(&self) -> i32 {
        self.next_seq
    }

    /// The step at this position has been taken back.
    pub(crate) fn is_undone(&self, seq: i32) -> bool {
        self.undone.contains(&seq)
    }

    /// Entries that nothing has met yet.
    pub(crate) fn unread(&self) -> usize {
        self.unread.len()
    }

    /// The next `count` entries are met: their outputs have been read, their undos are registered.
    pub(crate) fn met(&mut self, count: usize) {
        self.unread.drain(..count.min(self.unread.len()));
    }

    /// How often the flow has come to this call, this time included.
    pub(crate) fn occurrence(&mut self, call: &'static str) -> u32 {
        let occurrence = self.occurrences.entry(call).or_default();
        *occurrence += 1;
        *occurrence
    }

    /// The next entry, if there is one; it must be this one. Whoever reads it says when it is met.
    pub(crate) fn entry(&self, kind: Kind, name: &str) -> Result<Option<Entry>, Failure> {
        let Some(entry) = self.peek(0, kind, name)? else { return Ok(None) };
        self.heed(entry)?;
        Ok(Some(entry.clone()))
    }

    /// What a verb without an undo returned then, if the journal says, and its entry, which is met.
    pub(crate) fn recall<T: DeserializeOwned>(
        &mut self,
        kind: Kind,
        name: &str,
    ) -> Result<Option<(T, Entry)>, Failure> {
        let Some(entry) = self.entry(kind, name)? else { return Ok(None) };
        let value = decode_one(&entry.name, entry.output.clone().unwrap_or_default())?;
        self.met(1);
        Ok(Some((value, entry)))
    }

    /// What the steps of a group returned, if the journal says, and the position of the last of them.
    pub(crate) fn group(&self, kind: Kind, names: &[&'static str]) -> Result<Option<(i32, Vec<Value>)>, Failure> {
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            match self.peek(entries.len(), kind, name)? {
                Some(entry) => entries.push(entry),
                None => break,
            }
        }
        let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(None) };
        if entries.len() < names.len() {
            // Steps of one group share a commit, so half a group is another program's journal.
            return Err(diverged(names.last().copied().unwrap_or_default(), "half a group"));
        }
        let mut outputs = Vec::with_capacity(entries.len());
        for entry in entries {
            self.heed(entry)?;
            outputs.push(entry.output.clone().unwrap_or_default());
        }
        Ok(Some((last, outputs)))
    }

    /// What the run was started with.
    pub(crate) fn input<T: DeserializeOwned>(&self, workflow: &str, input: Value) -> Result<T, Failure> {
        strike_reading(self.faults.as_deref(), &format!("{}/INPUT", self.run_id))
            .map_err(str::to_owned)
            .and_then(|()| serde_json::from_value(input).map_err(|error| error.to_string()))
            .map_err(|why| Failure::new(codes::INPUT_UNREADABLE, format!("{workflow}: {why}")))
    }

    /// The entry so many after those that were met, if there is one; it must be this one.
    fn peek(&self, ahead: usize, kind: Kind, name: &str) -> Result<Option<&Entry>, Failure> {
        match self.unread.get(ahead) {
            None => Ok(None),
            Some(entry) if entry.kind == kind && entry.name == name => Ok(Some(entry)),
            Some(entry) => Err(diverged(name, &format!("{} {}", entry.kind.as_str(), entry.name))),
        }
    }

    /// Where a test makes an entry unreadable.
    fn heed(&self, entry: &Entry) -> Result<(), Failure> {
        strike_reading(self.faults.as_deref(), &self.label(entry)).map_err(|why| unreadable(&entry.name, why))
    }

    /// What a test knows it by.
    fn label(&self, entry: &Entry) -> String {
        format!("{}/{} {} {}", self.run_id, entry.seq, entry.kind.as_str(), entry.name)
    }
}

fn diverged(expected: &str, found: &str) -> Failure {
    Failure::new(codes::JOURNAL_DIVERGED, format!("the journal has {found} where this program does {expected}"))
}
