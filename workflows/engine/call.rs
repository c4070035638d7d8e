//! Calls to the outside world.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::{
    Call, CallContext, Deadline, Flow, Result, StepError, Undo,
    exit::Exit,
    fault::{Point, Struck, before, crashes},
    journal::Kind,
    outside::{Outcome, Pass, PutOff},
    payload::encode,
    undo::Registered,
};

/// A call waiting to be told what undoes it.
#[must_use = "a call does nothing until it is told what undoes it: `.undo(..)`, or `.undo(Nothing)`"]
pub struct Calling<'f, C> {
    flow: &'f mut Flow,
    call: C,
}

impl<C> fmt::Debug for Calling<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calling")
    }
}

impl Flow {
    /// Something done outside: its intent is journalled first, no transaction is open meanwhile, and
    /// every attempt carries the same idempotency key.
    pub fn call<C: Call>(&mut self, call: C) -> Calling<'_, C> {
        Calling { flow: self, call }
    }

    /// Admission to what the call depends on. Without it the run goes off its worker until it may come
    /// again: what it did so far is done, and nothing is intended that would be doubted later.
    async fn enter<C: Call>(&mut self, call: &C) -> Result<Option<Pass>> {
        let Some(dependency) = call.dependency() else { return Ok(None) };
        match self.work.means.outside.enter(dependency, self.queue, self.work.now()) {
            Ok(pass) => Ok(Some(pass)),
            Err(PutOff { why, until }) => {
                self.flush().await?;
                let after = (until - self.work.now()).to_std().unwrap_or_default();
                self.call_failed(call, StepError::NotYet { why: format!("{dependency} is {why}"), after }).await
            }
        }
    }

    async fn attempt<C: Call>(
        &mut self,
        call: &C,
        context: &CallContext,
        pass: Option<Pass>,
    ) -> Result<C::Output, StepError> {
        let times = match before(self.work.means.faults.as_deref(), C::NAME) {
            Ok(twice) => 1 + u32::from(twice),
            Err(Struck::Crash) => self.leave(Exit::Crashed).await,
            Err(Struck::Fail(error)) => return Err(error),
        };
        let mut answer = Err(StepError::Retry("not called".into()));
        for _ in 0..times {
            answer = match tokio::time::timeout(call.policy().timeout, call.run(context)).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(StepError::Unknown(Box::new(elapsed))),
            };
        }
        if let Some(pass) = pass {
            pass.settle(outcome(call, &answer), self.work.now());
        }
        if crashes(self.work.means.faults.as_deref(), Point::After, C::NAME) {
            self.leave(Exit::Crashed).await
        }
        answer
    }

    /// Asks outside, once, for what changes nothing there: it is not journalled, and without an answer
    /// nothing is lost. `None` also when the one to ask is silent, or busy with others.
    pub(crate) async fn inquire<C: Call>(&mut self, call: &C, intended_at: DateTime<Utc>) -> Option<C::Output> {
        let now = self.work.now();
        let pass = match call.dependency() {
            Some(dependency) => Some(self.work.means.outside.enter(dependency, self.queue, now).ok()?),
            None => None,
        };
        let idempotency_key = uuid::Uuid::new_v5(&self.work.run.id, C::NAME.as_bytes());
        let context = CallContext { idempotency_key, intended_at, now, redelivered: true };
        self.attempt(call, &context, pass)
            .await
            .inspect_err(|error| tracing::debug!(run = %self.work.run.id, step = C::NAME, %error, "asked in vain"))
            .ok()
    }

    /// As a failed step, but for the deadline: past it the run fails instead of waiting on.
    async fn call_failed<C: Call, T>(&mut self, call: &C, error: StepError) -> Result<T> {
        let (mut policy, mut error) = (call.policy(), error);
        let goes_on = !error.is_outage() && !matches!(error, StepError::Terminal(_));
        if let Some(Deadline { at, failure }) = call.deadline().filter(|_| goes_on) {
            let left = (at - self.work.now()).to_std().unwrap_or_default();
            if left.is_zero() {
                return Err(self.fail(failure));
            }
            policy.longest = policy.longest.min(left);
            if let StepError::NotYet { after, .. } | StepError::Busy { after, .. } = &mut error {
                *after = left.min(*after);
            }
        }
        self.step_failed(C::NAME, error, &policy).await
    }
}

/// What an answer says of whoever gave it.
fn outcome<C: Call>(call: &C, answer: &Result<C::Output, StepError>) -> Outcome {
    match answer {
        Ok(output) if !call.heard_in(output) => Outcome::Silent,
        Ok(_) | Err(StepError::Terminal(_)) => Outcome::Answered,
        Err(error) if error.is_outage() => Outcome::NotAsked,
        Err(StepError::Retry(_) | StepError::Unknown(_)) => Outcome::Silent,
        Err(StepError::Busy { after, .. }) => Outcome::AskedForPeace(*after),
        Err(StepError::NotYet { .. }) => Outcome::NotAsked,
    }
}

impl<C: Call> Calling<'_, C> {
    /// Makes the call. The undo is given what the call returned, or `None` when the run gave up
    /// before that was known: then the call may or may not have happened.
    pub async fn undo<U: Undo<Option<C::Output>>>(self, undo: U) -> Result<C::Output> {
        let Calling { flow, call } = self;
        flow.safe_point().await?;
        let idempotency_key = CallContext::key(flow.id(), C::NAME, flow.cursor.occurrence(C::NAME));

        let mut pass = None;
        let intent = match flow.cursor.entry(Kind::Intent, C::NAME) {
            Ok(intent) => intent,
            Err(failure) => flow.leave(Exit::Stuck(failure)).await,
        };
        let (intent_seq, intended_at, redelivered) = match &intent {
            // No failed attempt accounts for this one, or not for all: whoever made it died with the answer.
            Some(intent) => (intent.seq, intent.recorded_at, flow.work.run.attempt == 0 || flow.work.run.crashes > 0),
            None => {
                pass = flow.enter(&call).await?;
                let (seq, now) = (flow.work.next_seq(), flow.work.now());
                flow.work.journal(Kind::Intent, C::NAME, None);
                flow.flush().await?;
                (seq, now, false)
            }
        };
        flow.register(Registered::new::<Option<C::Output>, U>(intent_seq, undo, &serde_json::Value::Null));
        flow.cursor.met(intent.iter().len());
        if let Some((answer, entry)) = flow.recall(Kind::Call, C::NAME).await {
            flow.answered(intent_seq, &entry.output.unwrap_or_default());
            return Ok(answer);
        }

        // Intended but not answered: a safe point, because the undo is registered.
        flow.safe_point().await?;
        if pass.is_none() {
            pass = flow.enter(&call).await?;
        }
        let context = CallContext { idempotency_key, intended_at, now: flow.work.now(), redelivered };
        match flow.attempt(&call, &context, pass).await {
            Ok(output) => {
                let json = match encode(C::NAME, &output) {
                    Ok(json) => json,
                    Err(failure) => return Err(flow.fail(failure)),
                };
                flow.answered(intent_seq, &json);
                flow.work.journal(Kind::Call, C::NAME, Some(json));
                Ok(output)
            }
            Err(error) => flow.call_failed(&call, error).await,
        }
    }
}

impl Flow {
    fn answered(&mut self, intent_seq: i32, json: &serde_json::Value) {
        if let Some(undo) = self.undos.iter_mut().rfind(|undo| undo.seq == intent_seq) {
            undo.output = json.clone();
        }
    }
}
