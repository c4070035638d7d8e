//! Undos: registered beside their steps, run in reverse order, journalled like everything else.

use std::marker::PhantomData;

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::{StepError, Tx, Undo, group::decode_one};

/// An undo bound to what its step answered.
pub(crate) struct Registered {
    /// Position of the step it takes back; -1 for what the starting transaction did.
    pub(crate) seq: i32,
    pub(crate) name: &'static str,
    pub(crate) output: serde_json::Value,
    pub(crate) undo: Box<dyn Erased>,
}

pub(crate) trait Erased: Send + Sync {
    fn undo<'a>(&'a self, tx: &'a mut Tx<'_>, output: serde_json::Value) -> BoxFuture<'a, Result<(), StepError>>;
}

struct Typed<U, O> {
    undo: U,
    name: &'static str,
    marker: PhantomData<fn() -> O>,
}

impl<O: DeserializeOwned + Send + Sync, U: Undo<O>> Erased for Typed<U, O> {
    fn undo<'a>(&'a self, tx: &'a mut Tx<'_>, output: serde_json::Value) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async move {
            let output: O = decode_one(self.name, output)?;
            self.undo.undo(tx, &output).await
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
        let undo = Box::new(Typed { undo, name, marker: PhantomData });
        Some(Registered { seq, name, output: output.clone(), undo })
    }
}
