//! A run's place among those that share a transaction, as its work sees it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::{
    carrier::board,
    cohort::{Answer, Asked, Boarding, Lane, Passenger, Word},
    commit::Writing,
    means::Means,
    rows::Halt,
};

/// What came of a commit in company.
pub(crate) enum Sealed {
    Committed { cancel: Option<String> },
    Denied,
    Cancelled(String),
    Broken(sqlx::Error),
    Again(usize),
    Outage,
}

/// A run's place among those that share a transaction. Given up without a word, it takes the transaction
/// along: what it wrote must not be committed without its journal.
pub(crate) struct Seat {
    words: mpsc::Sender<Word>,
    /// How many share the transaction.
    among: usize,
    /// Something has been written for it.
    wrote: bool,
}

impl Seat {
    /// Waits at a step for whoever carries it out, to travel among so many at most.
    pub(crate) fn board(means: &Arc<Means>, lane: Lane, among: usize, weight: usize, asked: Asked) -> Self {
        let (words, said) = mpsc::channel(1);
        board(means, lane, Boarding { passenger: Passenger { said, among, weight }, asked });
        Seat { words, among: 1, wrote: false }
    }

    /// Says that this step is next; false when there is nobody to say it to.
    pub(crate) async fn ask(&self, asked: Asked) -> bool {
        self.words.send(Word::Step(asked)).await.is_ok()
    }

    /// A step has been carried out among so many.
    pub(crate) fn seated(&mut self, among: usize, wrote: bool) {
        self.among = among;
        self.wrote |= wrote;
    }

    /// What it wrote can only be taken back with what others wrote.
    pub(crate) fn is_bound(&self) -> bool {
        self.wrote && self.among > 1
    }

    /// Goes, and lets the others go on if it can.
    pub(crate) fn leave(self) {
        if !self.wrote {
            // Should the carrier be gone, there is nothing to leave.
            let _ = self.words.try_send(Word::Leave);
        }
    }

    /// Commits with the others.
    pub(crate) async fn commit(self, writing: Writing) -> Sealed {
        let (answer, told) = oneshot::channel();
        if self.words.send(Word::Commit(Box::new(writing), answer)).await.is_err() {
            return Sealed::Outage;
        }
        match told.await {
            Ok(Answer::Committed { cancel }) => Sealed::Committed { cancel },
            Ok(Answer::Denied) => Sealed::Denied,
            Ok(Answer::Cancelled(why)) => Sealed::Cancelled(why),
            Ok(Answer::Broken(error)) => Sealed::Broken(error),
            Ok(Answer::Stopped(Halt::Again(among))) => Sealed::Again(among),
            Ok(Answer::Stopped(Halt::Failed(..) | Halt::Crash | Halt::Outage | Halt::Fails(_) | Halt::Leaves(_)))
            | Ok(Answer::Done { .. } | Answer::Refused { .. } | Answer::Board(_))
            | Err(_) => Sealed::Outage,
        }
    }
}
