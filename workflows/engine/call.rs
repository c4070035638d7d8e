//! Calls to the outside world.

use std::fmt;

use crate::{
    Call, CallContext, Flow, Result, StepError, Undo,
    fault::{Fault, Point},
    group::decode_one,
    journal::Kind,
    step::encode,
    turn::Exit,
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

    async fn attempt<C: Call>(&mut self, call: &C, context: &CallContext) -> Result<C::Output, StepError> {
        let fault = |point| self.engine.faults.as_deref().and_then(|faults| faults.at(point, C::NAME));
        let mut times = 1;
        match fault(Point::Before) {
            None => {}
            Some(Fault::Crash) => self.leave(Exit::Crashed).await,
            Some(Fault::Fail(failure)) => return Err(failure.into()),
            Some(Fault::Retry) => return Err(StepError::Retry("injected".into())),
            Some(Fault::Twice) => times = 2,
        }
        let mut answer = Err(StepError::Retry("not called".into()));
        for _ in 0..times {
            answer = match tokio::time::timeout(call.policy().timeout, call.run(context)).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(StepError::Unknown(Box::new(elapsed))),
            };
        }
        if let Some(Fault::Crash) = self.engine.faults.as_deref().and_then(|faults| faults.at(Point::After, C::NAME)) {
            self.leave(Exit::Crashed).await
        }
        answer
    }
}

impl<C: Call> Calling<'_, C> {
    /// Makes the call. The undo is given what the call answered, or `None` when the run gave up
    /// before that was known: then the call may or may not have happened.
    pub async fn undo<U: Undo<Option<C::Output>>>(self, undo: U) -> Result<C::Output> {
        let Calling { flow, call } = self;
        flow.safe_point().await?;
        let occurrence = flow.occurrences.entry(C::NAME).or_default();
        *occurrence += 1;
        let name = format!("{}/{occurrence}", C::NAME);
        let idempotency_key = uuid::Uuid::new_v5(&flow.run.id, name.as_bytes());

        let (intent_seq, intended_at, redelivered) = match flow.next_entry(Kind::Intent, C::NAME).await? {
            // No failed attempt accounts for this one, or not for all: whoever made it died with the answer.
            Some(intent) => (intent.seq, intent.recorded_at, flow.run.attempt == 0 || flow.run.crashes > 0),
            None => {
                let (seq, now) = (flow.next_seq(), flow.now());
                flow.journal(Kind::Intent, C::NAME, None).await?;
                flow.flush().await?;
                (seq, now, false)
            }
        };
        flow.undos.extend(Registered::new::<Option<C::Output>, U>(intent_seq, undo, &serde_json::Value::Null));
        if let Some(entry) = flow.next_entry(Kind::Call, C::NAME).await? {
            let json = entry.output.unwrap_or_default();
            flow.answered(intent_seq, &json);
            return decode_one(C::NAME, json);
        }

        // Intended but not answered: a safe point, because the undo is registered.
        flow.safe_point().await?;
        let context = CallContext { idempotency_key, intended_at, now: flow.now(), redelivered };
        match flow.attempt(&call, &context).await {
            Ok(output) => {
                let json = match encode(C::NAME, &output) {
                    Ok(json) => json,
                    Err(failure) => return Err(flow.fail(failure)),
                };
                flow.answered(intent_seq, &json);
                flow.journal(Kind::Call, C::NAME, Some(json)).await?;
                Ok(output)
            }
            Err(error) => flow.step_failed(C::NAME, error, &call.policy()).await,
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
