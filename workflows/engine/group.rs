//! Steps that commit together: one, or a tuple of up to eight.

use std::future::Future;

use serde::de::DeserializeOwned;

use crate::{
    Failure, SetStep, Step, StepError, Tx,
    fault::{Faults, Point, before, crashes},
    journal::decode_one,
    payload::encode,
    rows::{Carried, Halt, back_to_savepoint, savepoint, tuples},
    silence::SILENCE,
    work::Work,
};

/// Marks steps that a run carries out by itself, in a transaction of its own.
#[derive(Debug)]
pub enum Alone {}

/// Marks steps that are carried out for many runs at once.
#[derive(Debug)]
pub enum InSets {}

/// One step, or a tuple of steps that always share a commit. Each has its own journal entry. All of a
/// tuple are of one kind; which, the compiler finds out.
pub trait Steps<Kind>: Send {
    /// What they return together.
    type Output: DeserializeOwned + Send + Sync + 'static;

    /// Their names in order.
    fn names() -> Vec<&'static str>;

    #[doc(hidden)]
    fn decode(outputs: Vec<serde_json::Value>) -> Result<Self::Output, Failure>;

    #[doc(hidden)]
    fn carry_out(self, work: &mut Work) -> impl Future<Output = Result<Carried<Self::Output>, Halt>> + Send;
}

/// What the journal calls steps, and how what it has of them is read.
macro_rules! remembered {
    ($S:ident) => {
        fn names() -> Vec<&'static str> {
            vec![$S::NAME]
        }

        fn decode(outputs: Vec<serde_json::Value>) -> Result<Self::Output, Failure> {
            decode_one($S::NAME, outputs.into_iter().next().unwrap_or_default())
        }
    };
    ($($S:ident)+) => {
        fn names() -> Vec<&'static str> {
            vec![$($S::NAME),+]
        }

        fn decode(outputs: Vec<serde_json::Value>) -> Result<Self::Output, Failure> {
            let mut outputs = outputs.into_iter();
            Ok(($(decode_one::<$S::Output>($S::NAME, outputs.next().unwrap_or_default())?,)+))
        }
    };
}

// --- steps of one run ---

/// What the steps of a group have returned so far.
struct Ran<'a> {
    faults: Option<&'a dyn Faults>,
    entries: Vec<(&'static str, serde_json::Value)>,
}

impl Ran<'_> {
    async fn step<S: Step>(&mut self, step: &S, tx: &mut Tx<'_>) -> Result<S::Output, Halt> {
        let failed = |error| Halt::Failed(S::NAME, error);
        if before(self.faults, S::NAME).map_err(|struck| Halt::struck(S::NAME, struck))? {
            savepoint(tx.conn()).await.map_err(|error| failed(error.into()))?;
            step.run(tx).await.map_err(failed)?;
            back_to_savepoint(tx.conn()).await.map_err(|error| failed(error.into()))?;
        }
        let output = step.run(tx).await.map_err(failed)?;
        if crashes(self.faults, Point::After, S::NAME) {
            return Err(Halt::Crash);
        }
        self.entries.push((S::NAME, encode(S::NAME, &output).map_err(|failure| failed(failure.into()))?));
        Ok(output)
    }
}

/// Carries out steps in the run's own transaction. Slow ones are failed attempts, and counted; that the
/// database is away shows when the attempt cannot be written down.
macro_rules! alone {
    ($work:ident, $first:expr, $ran:ident, $tx:ident, $run:expr) => {{
        let means = std::sync::Arc::clone(&$work.means);
        let mut own = $work.open().await?;
        let mut $ran = Ran { faults: means.faults.as_deref(), entries: Vec::new() };
        let $tx = &mut own;
        let output = match tokio::time::timeout(SILENCE, async { Ok::<_, Halt>($run) }).await {
            Ok(output) => output?,
            Err(elapsed) => return Err(Halt::Failed($first, StepError::Retry(Box::new(elapsed)))),
        };
        Ok(Carried { output, entries: $ran.entries })
    }};
}

impl<S: Step> Steps<Alone> for S {
    type Output = S::Output;

    remembered!(S);

    async fn carry_out(self, work: &mut Work) -> Result<Carried<S::Output>, Halt> {
        alone!(work, S::NAME, ran, tx, ran.step(&self, tx).await?)
    }
}

// --- steps of many runs ---

impl<S: SetStep> Steps<InSets> for S {
    type Output = S::Output;

    remembered!(S);

    async fn carry_out(self, work: &mut Work) -> Result<Carried<S::Output>, Halt> {
        work.in_set(self).await
    }
}

macro_rules! tuple {
    ($first:ident $first_i:tt $(, $S:ident $i:tt)+) => {
        impl<$first: Step $(, $S: Step)+> Steps<Alone> for ($first, $($S,)+) {
            type Output = ($first::Output, $($S::Output,)+);

            remembered!($first $($S)+);

            async fn carry_out(self, work: &mut Work) -> Result<Carried<Self::Output>, Halt> {
                alone!(work, $first::NAME, ran, tx, (
                    ran.step(&self.$first_i, tx).await?,
                    $(ran.step(&self.$i, tx).await?,)+
                ))
            }
        }

        impl<$first: SetStep $(, $S: SetStep)+> Steps<InSets> for ($first, $($S,)+) {
            type Output = ($first::Output, $($S::Output,)+);

            remembered!($first $($S)+);

            async fn carry_out(self, work: &mut Work) -> Result<Carried<Self::Output>, Halt> {
                work.in_set(self).await
            }
        }
    };
}
tuples!(tuple);
