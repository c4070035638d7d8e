//! A run's place among those that share a transaction, as its flow sees it.

use std::any::TypeId;

use tokio::sync::{mpsc, oneshot};

use crate::{
    Flow,
    carrier::board,
    cohort::{Answer, Asked, Boarding, Erased, Lane, Of, Passenger, SET, Word},
    commit::Writing,
    group::{Carried, Halt, Rows},
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

impl Flow {
    /// Carries out a step for many, with whoever comes to it now.
    pub(crate) async fn in_set<G: Rows>(&mut self, row: G) -> Result<Carried<G::Output>, Halt> {
        let mut row: Erased = Box::new(row);
        loop {
            if self.tx.is_some() {
                self.go_on().await?;
            }
            let (answer, told) = oneshot::channel();
            let asked = Asked { key: TypeId::of::<G>(), carry: Of::<G>::CARRY, row, now: self.now(), answer };
            match &self.seat {
                Some(seat) => {
                    if seat.words.send(Word::Step(asked)).await.is_err() {
                        self.seat = None;
                        return Err(Halt::Outage);
                    }
                }
                None => {
                    let (words, said) = mpsc::channel(1);
                    let among = if self.fused { self.run.among.min(SET) } else { 1 };
                    let passenger = Passenger { said, among, weight: self.weight };
                    self.seat = Some(Seat { words, among: 1, wrote: false });
                    let lane = if among > 1 { Lane::Together } else { Lane::Alone };
                    board(&self.means, lane, Boarding { passenger, asked });
                }
            }
            match told.await {
                Ok(Answer::Done { output, entries, among }) => {
                    // A carrier returns what the step of this row returned.
                    let Ok(output) = output.downcast::<G::Output>() else { return Err(Halt::Outage) };
                    self.seated(among, G::has_written(&output));
                    return Ok(Carried { output: *output, entries });
                }
                Ok(Answer::Refused { step, failure, among }) => {
                    self.seated(among, false);
                    return Err(Halt::Failed(step, failure.into()));
                }
                Ok(Answer::Board(back)) => {
                    row = back;
                    self.go_on().await?;
                }
                Ok(Answer::Stopped(halt)) => {
                    self.seat = None;
                    return Err(halt);
                }
                Ok(Answer::Committed { .. } | Answer::Denied | Answer::Cancelled(_) | Answer::Broken(_)) | Err(_) => {
                    self.seat = None;
                    return Err(Halt::Outage);
                }
            }
        }
    }

    fn seated(&mut self, among: usize, wrote: bool) {
        if let Some(seat) = &mut self.seat {
            seat.among = among;
            seat.wrote |= wrote;
        }
    }
}
