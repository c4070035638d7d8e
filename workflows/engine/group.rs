//! Steps that commit together: one, or a tuple of up to eight.

use std::future::Future;

use serde::de::DeserializeOwned;

use crate::{
    Failure, Step, StepError, Tx,
    fault::{Fault, Faults, Point},
    journal::unreadable,
    payload::encode,
};

/// One step, or a tuple of steps that always share a commit. Each has its own journal entry.
pub trait Steps: Send + Sync {
    /// What they return together.
    type Output: DeserializeOwned + Send + Sync + 'static;

    /// Their names in order.
    fn names() -> Vec<&'static str>;

    #[doc(hidden)]
    fn run(&self, tx: &mut Tx<'_>, ran: &mut Ran<'_>) -> impl Future<Output = Result<Self::Output, Stopped>> + Send;

    #[doc(hidden)]
    fn decode(outputs: Vec<serde_json::Value>) -> Result<Self::Output, Failure>;
}

/// How a group was interrupted.
#[derive(Debug)]
#[doc(hidden)]
pub enum Stopped {
    Error(&'static str, StepError),
    Crash,
}

/// What the steps of a group have returned so far.
#[doc(hidden)]
pub struct Ran<'a> {
    pub(crate) faults: Option<&'a dyn Faults>,
    pub(crate) outputs: Vec<(&'static str, serde_json::Value)>,
}

impl Ran<'_> {
    async fn step<S: Step>(&mut self, step: &S, tx: &mut Tx<'_>) -> Result<S::Output, Stopped> {
        let stopped = |error| Stopped::Error(S::NAME, error);
        let mut twice = false;
        match self.faults.and_then(|faults| faults.at(Point::Before, S::NAME)) {
            None | Some(Fault::Unreadable | Fault::Panic) => {}
            Some(Fault::Crash) => return Err(Stopped::Crash),
            Some(Fault::Fail(failure)) => return Err(stopped(failure.into())),
            Some(Fault::Retry) => return Err(stopped(StepError::Retry("injected".into()))),
            Some(Fault::Twice) => twice = true,
        }
        if twice {
            // Audited: a constant.
            sqlx::query("savepoint first").execute(tx.conn()).await.map_err(|e| stopped(e.into()))?;
            step.run(tx).await.map_err(stopped)?;
            sqlx::query("rollback to savepoint first").execute(tx.conn()).await.map_err(|e| stopped(e.into()))?;
        }
        let output = step.run(tx).await.map_err(stopped)?;
        if let Some(Fault::Crash) = self.faults.and_then(|faults| faults.at(Point::After, S::NAME)) {
            return Err(Stopped::Crash);
        }
        self.outputs.push((S::NAME, encode(S::NAME, &output).map_err(|failure| stopped(failure.into()))?));
        Ok(output)
    }
}

pub(crate) fn decode_one<T: DeserializeOwned>(name: &str, output: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(output).map_err(|error| unreadable(name, error))
}

impl<S: Step> Steps for S {
    type Output = S::Output;

    fn names() -> Vec<&'static str> {
        vec![S::NAME]
    }

    async fn run(&self, tx: &mut Tx<'_>, ran: &mut Ran<'_>) -> Result<S::Output, Stopped> {
        ran.step(self, tx).await
    }

    fn decode(outputs: Vec<serde_json::Value>) -> Result<S::Output, Failure> {
        decode_one(S::NAME, outputs.into_iter().next().unwrap_or_default())
    }
}

macro_rules! tuple {
    ($($S:ident $i:tt),+) => {
        impl<$($S: Step),+> Steps for ($($S,)+) {
            type Output = ($($S::Output,)+);

            fn names() -> Vec<&'static str> {
                vec![$($S::NAME),+]
            }

            async fn run(&self, tx: &mut Tx<'_>, ran: &mut Ran<'_>) -> Result<Self::Output, Stopped> {
                Ok(($(ran.step(&self.$i, tx).await?,)+))
            }

            fn decode(outputs: Vec<serde_json::Value>) -> Result<Self::Output, Failure> {
                let mut outputs = outputs.into_iter();
                Ok(($(decode_one::<$S::Output>($S::NAME, outputs.next().unwrap_or_default())?,)+))
            }
        }
    };
}
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
