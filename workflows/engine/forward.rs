//! The verbs of a flow that can only go forward.

use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    Flow, Result,
    group::Steps,
    journal::Kind,
    start::{Named, Start},
};

impl Flow {
    /// A `tx` after which the run only goes forward: once it commits nothing is undone, and a step
    /// that keeps failing parks the run. If it fails, the run unwinds.
    pub async fn point_of_no_return<K, G: Steps<K>>(&mut self, steps: G) -> Result<Forward<'_>> {
        self.carry_out(steps, Kind::NoReturn, |_, _| None).await?;
        self.work.go_forward();
        self.after_tx().await?;
        Ok(Forward(self))
    }
}

/// A flow past its point of no return: the same verbs, and nothing to undo.
#[derive(Debug)]
pub struct Forward<'f>(&'f mut Flow);

impl Forward<'_> {
    /// As [`Flow::id`].
    pub fn id(&self) -> Uuid {
        self.0.id()
    }

    /// As [`Flow::pool`].
    pub fn pool(&self) -> &sqlx::PgPool {
        self.0.pool()
    }

    /// As [`Flow::tx`]; a step that keeps failing parks the run.
    pub async fn tx<K, G: Steps<K>>(&mut self, steps: G) -> Result<G::Output> {
        self.0.tx(steps).undo(crate::Nothing).await
    }

    /// As [`Flow::start`].
    pub async fn start<W: Named>(&mut self, start: Result<Start<W>>) -> Result<Uuid> {
        self.0.start(start).await
    }

    /// As [`Flow::checkpoint`].
    pub async fn checkpoint(&mut self) -> Result<()> {
        self.0.checkpoint().await
    }

    /// As [`Flow::call`]; one that keeps failing parks the run.
    pub async fn call<C: crate::Call>(&mut self, call: C) -> Result<C::Output> {
        self.0.call(call).undo(crate::Nothing).await
    }

    /// As [`Flow::sleep`].
    pub async fn sleep(&mut self, name: &'static str, duration: std::time::Duration) -> Result<()> {
        self.0.sleep(name, duration).await
    }

    /// As [`Flow::wait_for`].
    pub async fn wait_for<T: DeserializeOwned>(
        &mut self,
        signal: &str,
        timeout: std::time::Duration,
    ) -> Result<Option<T>> {
        self.0.wait_for(signal, timeout).await
    }
}
