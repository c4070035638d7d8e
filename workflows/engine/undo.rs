//! Undos: registered beside their steps, run in reverse order, journalled like everything else.

use std::{marker::PhantomData, sync::Arc};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::{
    Failure, SetTx, Undo, Undoing,
    fault::{Faults, Point, before, crashes},
    journal::decode_one,
    rows::{Carried, Halt, RowResult, Rows, Stopped, back_to_savepoint, savepoint},
    work::Work,
};

/// An undo bound to what its step returned.
pub(crate) struct Registered {
    /// Position of the step it takes back; -1 for what the starting transaction did.
    pub(crate) seq: i32,
    pub(crate) name: &'static str,
    pub(crate) output: serde_json::Value,
    undo: Arc<dyn Erased>,
}

trait Erased: Send + Sync {
    fn carry_out<'a>(
        self: Arc<Self>,
        work: &'a mut Work,
        output: serde_json::Value,
        failure: Failure,
    ) -> BoxFuture<'a, Result<(), Halt>>;
}

struct Typed<U, O> {
    undo: Arc<U>,
    name: &'static str,
    marker: PhantomData<fn() -> O>,
}

impl<O: DeserializeOwned + Send + Sync + 'static, U: Undo<O>> Erased for Typed<U, O> {
    fn carry_out<'a>(
        self: Arc<Self>,
        work: &'a mut Work,
        output: serde_json::Value,
        failure: Failure,
    ) -> BoxFuture<'a, Result<(), Halt>> {
        Box::pin(async move {
            let output: O = decode_one(self.name, output).map_err(|failure| Halt::Failed(self.name, failure.into()))?;
            let row = Undoing { undo: Arc::clone(&self.undo), output, run_id: work.run.id, failure };
            work.in_set(row).await.map(|_| ())
        })
    }
}

impl Registered {
    /// `None` for [`crate::Nothing`].
    pub(crate) fn new<O, U>(seq: i32, undo: U, output: &serde_json::Value) -> Option<Self>
    where
        O: DeserializeOwned + Send + Sync + 'static,
        U: Undo<O>,
    {
        let name = U::NAME?;
        let undo = Arc::new(Typed { undo: Arc::new(undo), name, marker: PhantomData });
        Some(Registered { seq, name, output: output.clone(), undo })
    }

    /// Takes the step back, with whoever takes back the same now.
    pub(crate) async fn carry_out(&self, work: &mut Work, failure: &Failure) -> Result<(), Halt> {
        Arc::clone(&self.undo).carry_out(work, self.output.clone(), failure.clone()).await
    }
}

impl<O: Send + Sync + 'static, U: Undo<O>> Rows for Undoing<U, O> {
    const NAME: &'static str = match U::NAME {
        Some(name) => name,
        None => "Nothing",
    };
    type Output = ();

    async fn run(
        rows: Vec<Self>,
        tx: &mut SetTx<'_>,
        faults: Option<&dyn Faults>,
    ) -> Result<Vec<RowResult<()>>, Stopped> {
        let all = |error| Stopped::by_any(Self::NAME, rows.len(), error);
        let mut twice = false;
        for at in 0..rows.len() {
            twice |= before(faults, Self::NAME).map_err(|struck| Stopped::By(at, Halt::struck(Self::NAME, struck)))?;
        }
        if twice {
            savepoint(tx.conn()).await.map_err(|error| all(error.into()))?;
            let starts = tx.starts.len();
            U::undo(tx, &rows).await.map_err(all)?;
            tx.starts.truncate(starts);
            back_to_savepoint(tx.conn()).await.map_err(|error| all(error.into()))?;
        }
        U::undo(tx, &rows).await.map_err(all)?;
        for at in 0..rows.len() {
            if crashes(faults, Point::After, Self::NAME) {
                return Err(Stopped::By(at, Halt::Crash));
            }
        }
        Ok(rows.iter().map(|_| Ok(Carried { output: (), entries: Vec::new() })).collect())
    }
}
