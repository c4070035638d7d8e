//! What runs hand in to be carried out together, a row each, and what comes of it.

use std::future::Future;

use crate::{
    Failure, SetStep, SetTx, StepError,
    exit::Exit,
    fault::{Faults, Point, Struck, before, crashes},
    payload::encode,
};

/// What steps have returned, and what the journal keeps of it.
#[derive(Debug)]
#[doc(hidden)]
pub struct Carried<O> {
    pub(crate) output: O,
    pub(crate) entries: Vec<(&'static str, serde_json::Value)>,
}

/// Why steps did not come to their end.
#[derive(Debug)]
#[doc(hidden)]
pub enum Halt {
    /// One of them failed.
    Failed(&'static str, StepError),
    /// A test has killed this turn.
    Crash,
    /// What they had in hand has been rolled back for another run's sake; they go again, among so many.
    Again(usize),
    /// The database is away.
    Outage,
    /// The run fails, and not for what they did.
    Fails(Failure),
    /// Its turn ends for it.
    Leaves(Exit),
}

impl Halt {
    pub(crate) fn struck(step: &'static str, struck: Struck) -> Self {
        match struck {
            Struck::Crash => Halt::Crash,
            Struck::Fail(error) => Halt::Failed(step, error),
        }
    }
}

pub(crate) async fn savepoint(conn: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("savepoint first").execute(conn).await.map(|_| ())
}

pub(crate) async fn back_to_savepoint(conn: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("rollback to savepoint first").execute(conn).await.map(|_| ())
}

/// A step of a set, or a tuple of them: what one run hands in.
pub(crate) trait Rows: Sized + Send + 'static {
    /// The first of its steps.
    const NAME: &'static str;
    /// What one run gets back.
    type Output: Send + 'static;
    /// A crowd commits right after it, for what it locks everybody wants.
    const HOT: bool = false;

    /// Whether something was written for a row with this output.
    fn has_written(_: &Self::Output) -> bool {
        true
    }

    /// One result a row, in their order; or how all of them were stopped.
    fn run(
        rows: Vec<Self>,
        tx: &mut SetTx<'_>,
        faults: Option<&dyn Faults>,
    ) -> impl Future<Output = Result<Vec<RowResult<Self::Output>>, Stopped>> + Send;
}

/// What became of a row: what its run gets back, or why it was refused before anything was written for it.
pub(crate) type RowResult<O> = Result<Carried<O>, (&'static str, Failure)>;

/// How a set was stopped: what it wrote must be rolled back.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// By one of its rows.
    By(usize, Halt),
    /// By one of them, and nobody knows which.
    BySome(&'static str, StepError),
}

impl Stopped {
    /// By a step of so many rows: of one it is known whose.
    pub(crate) fn by_any(step: &'static str, rows: usize, error: StepError) -> Self {
        if rows == 1 { Stopped::By(0, Halt::Failed(step, error)) } else { Stopped::BySome(step, error) }
    }
}

/// The rows of a set that have not been refused, while one step after the other is carried out for them.
struct Going {
    /// Which rows they are.
    at: Vec<usize>,
    /// With the places of their steps in the tuple.
    entries: Vec<Vec<(usize, (&'static str, serde_json::Value))>>,
    refused: Vec<(usize, (&'static str, Failure))>,
}

impl Going {
    fn new(rows: usize) -> Self {
        Going { at: (0..rows).collect(), entries: (0..rows).map(|_| Vec::new()).collect(), refused: Vec::new() }
    }

    /// Carries out one step for all of them. Of a row that is refused by the first step nothing is written,
    /// and only it drops out: `None`. What an earlier step has written for a row can be taken back only
    /// with the whole transaction.
    async fn step<S: SetStep>(
        &mut self,
        step: usize,
        rows: Vec<S>,
        tx: &mut SetTx<'_>,
        faults: Option<&dyn Faults>,
    ) -> Result<Vec<Option<S::Output>>, Stopped> {
        let is_first = self.entries.iter().all(Vec::is_empty);
        let (mut kept, mut asked, mut twice) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()), false);
        let mut outputs: Vec<Option<S::Output>> = rows.iter().map(|_| None).collect();
        for (place, row) in rows.into_iter().enumerate() {
            let at = self.at[place];
            match before(faults, S::NAME) {
                Ok(again) => {
                    twice |= again;
                    kept.push(row);
                    asked.push(place);
                }
                Err(Struck::Fail(StepError::Terminal(failure))) if is_first => {
                    self.refused.push((at, (S::NAME, failure)));
                }
                Err(struck) => return Err(Stopped::By(at, Halt::struck(S::NAME, struck))),
            }
        }
        if kept.is_empty() {
            return Ok(outputs);
        }
        let all = |error: StepError| match asked.as_slice() {
            [one] => Stopped::By(self.at[*one], Halt::Failed(S::NAME, error)),
            _ => Stopped::BySome(S::NAME, error),
        };
        if twice {
            savepoint(tx.conn()).await.map_err(|error| all(error.into()))?;
            let starts = tx.starts.len();
            S::run(tx, &kept).await.map_err(all)?;
            tx.starts.truncate(starts);
            back_to_savepoint(tx.conn()).await.map_err(|error| all(error.into()))?;
        }
        let results = S::run(tx, &kept).await.map_err(all)?;
        if results.len() != kept.len() {
            return Err(all(StepError::Retry("a step must return one result a row".into())));
        }
        for (place, result) in asked.iter().copied().zip(results) {
            let at = self.at[place];
            match result {
                Ok(output) => {
                    if crashes(faults, Point::After, S::NAME) {
                        return Err(Stopped::By(at, Halt::Crash));
                    }
                    let json = encode(S::NAME, &output)
                        .map_err(|failure| Stopped::By(at, Halt::Failed(S::NAME, failure.into())))?;
                    self.entries[at].push((step, (S::NAME, json)));
                    outputs[place] = Some(output);
                }
                Err(failure) if is_first => self.refused.push((at, (S::NAME, failure))),
                Err(failure) => return Err(Stopped::By(at, Halt::Failed(S::NAME, failure.into()))),
            }
        }
        Ok(outputs)
    }

    /// What each row came to, in the order of the rows.
    fn results<O>(mut self, outputs: Vec<O>) -> Vec<RowResult<O>> {
        let mut results: Vec<(usize, RowResult<O>)> =
            self.refused.into_iter().map(|(at, refusal)| (at, Err(refusal))).collect();
        for (at, output) in self.at.into_iter().zip(outputs) {
            let mut entries = std::mem::take(&mut self.entries[at]);
            entries.sort_by_key(|(step, _)| *step);
            results.push((at, Ok(Carried { output, entries: entries.into_iter().map(|(_, entry)| entry).collect() })));
        }
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

impl<S: SetStep> Rows for S {
    const NAME: &'static str = S::NAME;
    type Output = S::Output;
    const HOT: bool = S::HOT;

    async fn run(
        rows: Vec<S>,
        tx: &mut SetTx<'_>,
        faults: Option<&dyn Faults>,
    ) -> Result<Vec<RowResult<S::Output>>, Stopped> {
        let mut going = Going::new(rows.len());
        let outputs = going.step(0, rows, tx, faults).await?;
        let kept: Vec<bool> = outputs.iter().map(Option::is_some).collect();
        retain(&mut going.at, &kept);
        Ok(going.results(outputs.into_iter().flatten().collect()))
    }
}

/// Tuples of two to eight steps.
macro_rules! tuples {
    ($each:ident) => {
        $each!(A 0, B 1);
        $each!(A 0, B 1, C 2);
        $each!(A 0, B 1, C 2, D 3);
        $each!(A 0, B 1, C 2, D 3, E 4);
        $each!(A 0, B 1, C 2, D 3, E 4, F 5);
        $each!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
        $each!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
    };
}
pub(crate) use tuples;

macro_rules! tuple {
    ($first:ident $first_i:tt $(, $S:ident $i:tt)+) => {
        #[allow(non_snake_case)] // each row's step has its type's name
        impl<$first: SetStep $(, $S: SetStep)+> Rows for ($first, $($S,)+) {
            const NAME: &'static str = $first::NAME;
            type Output = ($first::Output, $($S::Output,)+);

            async fn run(
                rows: Vec<Self>,
                tx: &mut SetTx<'_>,
                faults: Option<&dyn Faults>,
            ) -> Result<Vec<RowResult<Self::Output>>, Stopped> {
                let mut going = Going::new(rows.len());
                let (mut $first, $(mut $S),+) = (Vec::with_capacity(rows.len()), $(Vec::<$S>::with_capacity(rows.len())),+);
                for row in rows {
                    $first.push(row.$first_i);
                    $($S.push(row.$i);)+
                }
                let outputs = going.step($first_i, $first, tx, faults).await?;
                // Those that the first has refused are not in the others.
                let kept: Vec<bool> = outputs.iter().map(Option::is_some).collect();
                retain(&mut going.at, &kept);
                $(retain(&mut $S, &kept);)+
                let $first: Vec<_> = outputs.into_iter().flatten().collect();
                $(let mut $S = ($S, Vec::new());)+
                // What everybody wants is locked last.
                for hot in [false, true] {
                    $(if $S::HOT == hot {
                        $S.1 = going.step($i, std::mem::take(&mut $S.0), tx, faults).await?;
                    })+
                }
                let mut outputs = Vec::with_capacity($first.len());
                let ($(mut $S,)+) = ($($S.1.into_iter().flatten(),)+);
                for $first in $first {
                    if let ($(Some($S),)+) = ($($S.next(),)+) {
                        outputs.push(($first, $($S,)+));
                    }
                }
                Ok(going.results(outputs))
            }
        }
    };
}
tuples!(tuple);

fn retain<T>(all: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter().copied();
    all.retain(|_| kept.next().unwrap_or_default());
}
