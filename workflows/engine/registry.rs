//! What a workflow is, and which code carries out which.

use std::{collections::HashMap, fmt, future::Future, marker::PhantomData, sync::Arc};

use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    Failure, Flow,
    error::codes,
    payload::{encode, is_key},
    start::{Named, Start},
};

/// A durable workflow: an ordinary async function over journalled steps.
///
/// It must be deterministic between its verbs: time, randomness and configuration come from the
/// [`Flow`], never from the process.
pub trait Workflow: Send + Sync + 'static {
    /// Family name; with the version it reads `checkout/v1`.
    const NAME: &'static str;
    /// Raised when the order or meaning of steps changes; runs keep the version they began with.
    const VERSION: i32 = 1;
    /// The queue its tickets travel in.
    const QUEUE: &'static str;
    /// Whether a run of it only goes forward from the commit that starts it, for what was promised there:
    /// nobody can cancel it, and a step that keeps failing parks it.
    const ONLY_FORWARD: bool = false;
    /// What it is started with.
    type Input: Serialize + DeserializeOwned + Send + Sync;
    /// What it returns.
    type Output: Serialize + Send;

    /// Carries it out, or carries it on.
    fn run(&self, flow: &mut Flow, input: Self::Input) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

impl<W: Workflow> Named for W {
    const NAME: &'static str = <W as Workflow>::NAME;
}

impl<W: Workflow> Start<W> {
    /// A run under a business key: for one workflow, one key means one run, however often it is started.
    ///
    /// # Errors
    /// A key or an input that Postgres cannot keep, or that is too large.
    pub fn new(key: impl Into<String>, input: &W::Input) -> Result<Self, Failure> {
        let key = key.into();
        if !is_key(&key) {
            return Err(Failure::new(codes::PAYLOAD_INVALID, format!("{}: the key has a NUL or is too long", W::NAME)));
        }
        Ok(Start {
            run_id: Uuid::now_v7(),
            workflow: W::NAME,
            version: W::VERSION,
            queue: W::QUEUE,
            key,
            parent_id: None,
            input: encode(W::NAME, input)?,
            forward_only: W::ONLY_FORWARD,
            marker: PhantomData,
        })
    }
}

pub(crate) trait Erased: Send + Sync {
    fn queue(&self) -> &'static str;

    fn run<'a>(
        &'a self,
        flow: &'a mut Flow,
        input: serde_json::Value,
    ) -> BoxFuture<'a, Result<serde_json::Value, Failure>>;
}

impl<W: Workflow> Erased for W {
    fn queue(&self) -> &'static str {
        W::QUEUE
    }

    fn run<'a>(
        &'a self,
        flow: &'a mut Flow,
        input: serde_json::Value,
    ) -> BoxFuture<'a, Result<serde_json::Value, Failure>> {
        Box::pin(async move {
            let input = flow.input(W::NAME, input).await;
            let output = Workflow::run(self, flow, input).await?;
            encode(W::NAME, &output)
        })
    }
}

/// The workflows this process can carry out.
#[derive(Default, Clone)]
pub struct Registry {
    flows: HashMap<(String, i32), Arc<dyn Erased>>,
    queues: Vec<&'static str>,
}

impl Registry {
    /// Adds a workflow; the same name and version twice is a programming error, and the last wins.
    #[must_use]
    pub fn with<W: Workflow>(mut self, workflow: W) -> Self {
        if !self.queues.contains(&W::QUEUE) {
            self.queues.push(W::QUEUE);
        }
        self.flows.insert((W::NAME.to_owned(), W::VERSION), Arc::new(workflow));
        self
    }

    /// Every queue a registered workflow uses.
    pub fn queues(&self) -> &[&'static str] {
        &self.queues
    }

    pub(crate) fn get(&self, name: &str, version: i32) -> Option<Arc<dyn Erased>> {
        self.flows.get(&(name.to_owned(), version)).cloned()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.flows.keys()).finish()
    }
}
