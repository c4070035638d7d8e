//! Where the verbs of a flow stop, and how they end its turn.

use serde::de::DeserializeOwned;

use crate::{
    Failure, Flow, Result, RetryPolicy, StepError,
    commit::Rest,
    error::codes,
    exit::Exit,
    journal::{Entry, Kind},
    limits,
    rows::Halt,
};

impl Flow {
    /// Where a run that was asked to stop, or has failed, stops.
    pub(crate) async fn safe_point(&mut self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.begun = true;
        if self.cursor.unread() > 0 {
            return Ok(());
        }
        match self.work.may_go_on() {
            Ok(()) => Ok(()),
            Err(halt) => self.halted(halt).await,
        }
    }

    /// Commits what is in hand and goes on.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        match self.work.go_on().await {
            Ok(()) => Ok(()),
            Err(halt) => self.halted(halt).await,
        }
    }

    /// The fenced commit before a rest, with everything that can come of it.
    pub(crate) async fn commit(&mut self, rest: Rest) -> Result<()> {
        match self.work.seal(rest).await {
            Ok(()) => Ok(()),
            Err(halt) => self.halted(halt).await,
        }
    }

    /// What a verb without an undo returned then, if the journal says, and its entry.
    pub(crate) async fn recall<T: DeserializeOwned>(&mut self, kind: Kind, name: &str) -> Option<(T, Entry)> {
        let failure = match self.cursor.recall(kind, name) {
            Ok(recalled) => return recalled,
            Err(failure) => failure,
        };
        self.leave(Exit::Stuck(failure)).await
    }

    /// What the run was started with.
    pub(crate) async fn input<T: DeserializeOwned>(&mut self, workflow: &str, input: serde_json::Value) -> T {
        let failure = match self.cursor.input(workflow, input) {
            Ok(input) => return input,
            Err(failure) => failure,
        };
        self.leave(Exit::Stuck(failure)).await
    }

    /// What becomes of a run whose steps did not come to their end.
    pub(crate) async fn halted<T>(&mut self, halt: Halt) -> Result<T> {
        match halt {
            Halt::Failed(name, error) => self.step_failed(name, error, &RetryPolicy::default()).await,
            Halt::Crash => self.leave(Exit::Crashed).await,
            Halt::Again(among) => self.leave(self.work.again(among)).await,
            Halt::Outage => self.leave(Exit::Outage).await,
            Halt::Fails(failure) => Err(self.fail(failure)),
            Halt::Leaves(exit) => self.leave(exit).await,
        }
    }

    /// A failed step either fails the run or ends this turn.
    pub(crate) async fn step_failed<T>(
        &mut self,
        step: &'static str,
        error: StepError,
        policy: &RetryPolicy,
    ) -> Result<T> {
        if error.is_outage() {
            tracing::warn!(run = %self.work.run.id, step, %error, "the database is away; the run waits for it");
            self.leave(Exit::Outage).await
        }
        let failed = self.work.failed();
        let failure = match error {
            StepError::Terminal(failure) => failure,
            StepError::Retry(error) if failed >= policy.max_attempts => {
                Failure::new(codes::STEP_FAILED, format!("{step} failed {failed} times: {error}"))
            }
            StepError::Retry(error) => {
                let error = error.to_string();
                self.leave(Exit::Retry { step, error, policy: *policy }).await
            }
            StepError::NotYet { why, after } | StepError::Busy { why, after } => {
                let until = self.work.now() + after.min(limits::PUT_OFF);
                self.leave(Exit::PutOff { step, why, until }).await
            }
            // Giving up would leave something undone, or done, that nobody knows of.
            StepError::Unknown(error) => {
                let (error, policy) = (error.to_string(), RetryPolicy { max_attempts: u32::MAX, ..*policy });
                self.leave(Exit::Retry { step, error, policy }).await
            }
        };
        let takes_others_down = self.work.fused && self.work.has_steps();
        if self.work.is_forward() && (takes_others_down || !self.work.run.forward_only) {
            // What was promised, if only the point of no return, has not committed yet. Step by step it
            // will, and then this failure parks the run without undoing it.
            self.leave(Exit::Retry { step, error: failure.to_string(), policy: *policy }).await
        }
        Err(self.fail(failure))
    }

    /// From here on every verb returns this failure; what had not committed never happened. What others
    /// share does: it commits with them, and is undone.
    pub(crate) fn fail(&mut self, failure: Failure) -> Failure {
        if !self.work.is_bound() {
            self.roll_back();
        }
        self.failure = Some(failure.clone());
        failure
    }

    pub(crate) fn roll_back(&mut self) {
        self.work.roll_back();
        let committed = self.work.committed_seq();
        self.undos.retain(|undo| undo.seq < committed);
    }

    /// Ends this turn: the driver drops the flow's future, so nothing after this line runs.
    pub(crate) async fn leave<T>(&mut self, exit: Exit) -> T {
        self.roll_back();
        if let Some(sender) = self.exit.take() {
            // The driver holds the receiver until the future is dropped.
            let _ = sender.send(exit);
        }
        std::future::pending().await
    }
}
