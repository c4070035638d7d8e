//! Phase 4, box 9: from the gateway's first answer to how the payment ended.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    fraud::Decision,
    ids::OrderId,
    money::Money,
    ports::{Capture, GatewayError, GatewayPayment, GatewayPaymentStatus, Proceeding},
    pricing::Quote,
};
use engine::{
    Call, CallContext, Deadline, Dependency, Flow, Nothing, Result, SetResult, SetStep, SetTx, StepError, done, legible,
};
use serde::{Deserialize, Serialize};

use super::{
    attempt::{Attempt, Window},
    pay::{PaymentOutcome, SIGNAL, Word, too_late},
};
use crate::{
    desk::Desk,
    fraud::{self, Screening},
    store::{orders, payments},
};

/// How long the gateway may take to take what somebody has approved.
const TAKING: TimeDelta = TimeDelta::minutes(10);

/// How often a payment may move on before it is closed: a gateway that goes round in circles ends there.
const ROUNDS: usize = 20;

/// A payment that has been begun.
pub(super) struct Completing<'a> {
    pub(super) order_id: OrderId,
    pub(super) attempt: &'a Attempt,
    /// The gateway's payments of the attempts before.
    pub(super) earlier: &'a [String],
    pub(super) intent: &'a GatewayPayment,
    pub(super) quote: &'a Quote,
    pub(super) screening: Screening,
    pub(super) window: Window,
    pub(super) desk: &'a Desk<'a>,
}

impl Completing<'_> {
    /// Waits for the shopper, takes what they have agreed to pay, and returns how it ended.
    pub(super) async fn outcome(&self, flow: &mut Flow) -> Result<PaymentOutcome> {
        let mut is_reviewed = false;
        let outcome = self.end(flow, &mut is_reviewed).await?;
        // Not every gateway, nor every way to pay, sets aside what it is asked to set aside.
        let is_doubtful = self.screening.decision == Decision::Review && !is_reviewed;
        if is_doubtful && outcome.captured.as_ref() == Some(&self.due()) {
            reviewed(flow, self.order_id, self.screening).await?;
        }
        Ok(outcome)
    }

    fn due(&self) -> Money {
        Money::rounded(self.quote.total, self.quote.currency)
    }

    async fn end(&self, flow: &mut Flow, is_reviewed: &mut bool) -> Result<PaymentOutcome> {
        let mut payment = self.intent.clone();
        for _ in 0..ROUNDS {
            if let Some(outcome) = PaymentOutcome::known(&payment) {
                return Ok(outcome);
            }
            let went_on = match payment.status {
                GatewayPaymentStatus::Approved | GatewayPaymentStatus::Authorized => {
                    self.proceed(flow, &payment, is_reviewed).await?
                }
                GatewayPaymentStatus::Pending
                | GatewayPaymentStatus::RequiresAction
                | GatewayPaymentStatus::Captured
                | GatewayPaymentStatus::Failed
                | GatewayPaymentStatus::Closed => self.wait(flow).await?,
            };
            match went_on {
                WentOn::To(next) => payment = next,
                WentOn::Ended(outcome) => return Ok(outcome),
                WentOn::Nowhere { why } => return self.close(flow, why).await,
            }
        }
        self.close(flow, None).await
    }

    /// Takes what was agreed to, if it is what is due: of a doubtful order once somebody has looked at it.
    async fn proceed(&self, flow: &mut Flow, payment: &GatewayPayment, is_reviewed: &mut bool) -> Result<WentOn> {
        let due = self.due();
        if payment.amount != due {
            let why = format!("{} was set aside, {due} was due", payment.amount);
            return Ok(WentOn::Nowhere { why: Some(why) });
        }
        let (capture, by) = match (self.screening.decision, payment.status) {
            (Decision::Review, GatewayPaymentStatus::Authorized) => {
                let by = reviewed(flow, self.order_id, self.screening).await?;
                *is_reviewed = true;
                (Capture::Take, by)
            }
            (Decision::Review, _) => (Capture::Hold, self.window.close_by(self.attempt.number)),
            (Decision::Allow | Decision::Deny, _) => (Capture::Take, self.window.close_by(self.attempt.number)),
        };
        let proceeding = Proceeding {
            order_id: self.order_id,
            gateway_payment_id: payment.gateway_payment_id.clone(),
            amount: due,
            capture,
        };
        Ok(match flow.call(ProceedPayment { proceeding: &proceeding, by, desk: self.desk }).undo(Nothing).await? {
            Proceeded::To(payment) => WentOn::To(payment),
            Proceeded::Refused { why } => WentOn::Nowhere { why: Some(why) },
        })
    }

    /// Waits for word of this attempt's payment, and asks the gateway now and then, lest a lost webhook
    /// cost the shopper the whole window. What is said late of an earlier attempt is not about this one.
    async fn wait(&self, flow: &mut Flow) -> Result<WentOn> {
        let until = self.window.until(self.attempt.number);
        let ask = AskGateway { intent: self.intent, desk: self.desk };
        loop {
            // Ends: each payment has a few things to be told of, and who only comes back is heard a few times.
            let word = match flow.wait_until_asking::<Word, _>(SIGNAL, until, &ask, ask_next).await? {
                Some(Word::Look) => match flow.call(LookNow(ask.clone())).undo(Nothing).await? {
                    Looked::Heard(word) => word,
                    Looked::Nothing | Looked::Silence => continue,
                },
                Some(word @ (Word::Ended(_) | Word::Stands(_))) => word,
                // Silence is not "unpaid": who agreed in time, while nobody was there to hear it, has the order.
                None => match flow.call(LookNow(ask.clone())).undo(Nothing).await? {
                    Looked::Heard(word) => word,
                    Looked::Nothing | Looked::Silence => return Ok(WentOn::Nowhere { why: None }),
                },
            };
            match word {
                Word::Look => {}
                Word::Ended(outcome) if self.earlier.contains(&outcome.gateway_payment_id) => {}
                // Nor is word of another payment.
                Word::Ended(outcome) if outcome.gateway_payment_id != self.intent.gateway_payment_id => {
                    return Ok(WentOn::Nowhere { why: None });
                }
                Word::Ended(outcome) if outcome.captured.is_some() => return Ok(WentOn::Ended(outcome)),
                // A try that failed may be followed by another, until the payment is closed.
                Word::Ended(outcome) => return Ok(WentOn::Nowhere { why: outcome.failure }),
                Word::Stands(payment) => return Ok(WentOn::To(payment)),
            }
        }
    }

    /// Tells the gateway to close the payment, and learns how it ended: if it was not captured, for `why`, or
    /// because nobody paid in time.
    async fn close(&self, flow: &mut Flow, why: Option<String>) -> Result<PaymentOutcome> {
        let by = self.window.close_by(self.attempt.number);
        let close = ClosePayment { order_id: self.order_id, intent: self.intent, by, desk: self.desk };
        let outcome = flow.call(close).undo(Nothing).await?;
        Ok(match why {
            Some(why) if outcome.captured.is_none() => PaymentOutcome { failure: Some(why), expired: false, ..outcome },
            Some(_) | None => outcome,
        })
    }
}

/// Keeps the stock, and shows the money as set aside, until the staff have said that the order may be had. Returns until
/// when the stock is kept.
pub(super) async fn reviewed(flow: &mut Flow, order_id: OrderId, screening: Screening) -> Result<DateTime<Utc>> {
    let opened = fraud::open_review(flow, order_id, screening.review_deadline_s).await?;
    let until = opened.held_until + TAKING;
    flow.tx(SetAside { order_id, until }).undo(Nothing).await?;
    fraud::review(flow, order_id, opened).await?;
    Ok(until)
}

/// What a doubtful order holds, it holds until somebody has looked at it.
struct SetAside {
    order_id: OrderId,
    until: DateTime<Utc>,
}

impl SetStep for SetAside {
    const NAME: &'static str = "SetAside";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.order_id).collect(), tx.now());
        orders::lock_many(tx.conn(), &orders).await?;
        let aside: Vec<_> = rows.iter().map(|row| (row.order_id, row.until)).collect();
        payments::set_aside(tx.conn(), &aside, now).await?;
        done(rows)
    }
}

/// What became of a payment that was waited for, or proceeded with.
enum WentOn {
    /// It stands so.
    To(GatewayPayment),
    /// It ended so.
    Ended(PaymentOutcome),
    /// It is to be closed.
    Nowhere {
        /// Why, if not because nobody paid.
        why: Option<String>,
    },
}

/// The gateway is asked after 5, 15 and 45 seconds, then each minute: when next, after so long.
fn ask_next(waited: Duration) -> Duration {
    let waited = waited.as_secs();
    let first = [5, 15, 45].into_iter().find(|at| *at > waited);
    Duration::from_secs(first.unwrap_or_else(|| 45 + 60 * ((waited - 45) / 60 + 1)))
}

/// Asks how the payment stands, while its run waits to be told. Changes nothing.
#[derive(Clone)]
struct AskGateway<'a> {
    intent: &'a GatewayPayment,
    desk: &'a Desk<'a>,
}

impl Call for AskGateway<'_> {
    const NAME: &'static str = "AskGateway";
    /// None while nothing has come of it.
    type Output = Option<Word>;

    fn dependency(&self) -> Option<Dependency> {
        self.desk.dependency()
    }

    async fn run(&self, context: &CallContext) -> Result<Option<Word>, StepError> {
        let lookup = self.desk.lookup(self.intent.order_id, context.now).await?;
        let payments = self.desk.read(self.desk.gateway()?.find(&lookup).await, context.now).await?;
        let own = payments.into_iter().find(|found| found.gateway_payment_id == self.intent.gateway_payment_id);
        Ok(own.and_then(|payment| match payment.status {
            GatewayPaymentStatus::Pending | GatewayPaymentStatus::RequiresAction => None,
            GatewayPaymentStatus::Approved
            | GatewayPaymentStatus::Authorized
            | GatewayPaymentStatus::Captured
            | GatewayPaymentStatus::Failed
            | GatewayPaymentStatus::Closed => Some(Word::Stands(payment)),
        }))
    }
}

/// What came of looking at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Looked {
    /// This.
    Heard(Word),
    /// The payment stands where it stood.
    Nothing,
    /// The gateway did not say: it is asked again in its time.
    Silence,
}

/// The same at once, because something is said to have happened.
struct LookNow<'a>(AskGateway<'a>);

impl Call for LookNow<'_> {
    const NAME: &'static str = "LookAtPayment";
    type Output = Looked;

    fn dependency(&self) -> Option<Dependency> {
        self.0.dependency()
    }

    fn heard_in(&self, looked: &Looked) -> bool {
        !matches!(looked, Looked::Silence)
    }

    async fn run(&self, context: &CallContext) -> Result<Looked, StepError> {
        Ok(match self.0.run(context).await {
            Ok(Some(word)) => Looked::Heard(word),
            Ok(None) => Looked::Nothing,
            Err(error) => {
                tracing::info!(order_id = %self.0.intent.order_id, %error, "the gateway does not say how a payment stands");
                Looked::Silence
            }
        })
    }
}

/// What came of proceeding.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Proceeded {
    /// The payment stands so.
    To(GatewayPayment),
    /// The gateway will not.
    Refused {
        /// Its words.
        why: String,
    },
}

/// Takes what the shopper has agreed to pay.
struct ProceedPayment<'a> {
    proceeding: &'a Proceeding,
    /// Until when the gateway's word is waited for.
    by: DateTime<Utc>,
    desk: &'a Desk<'a>,
}

impl Call for ProceedPayment<'_> {
    const NAME: &'static str = "ProceedPayment";
    type Output = Proceeded;

    fn dependency(&self) -> Option<Dependency> {
        self.desk.dependency()
    }

    fn deadline(&self) -> Option<Deadline> {
        too_late(self.by)
    }

    async fn run(&self, context: &CallContext) -> Result<Proceeded, StepError> {
        match self.desk.gateway()?.proceed(context.idempotency_key, self.proceeding).await {
            Err(GatewayError::Refused { code, detail }) => {
                Ok(Proceeded::Refused { why: legible(&format!("{code}: {detail}")).into_owned() })
            }
            other => self.desk.read(other, context.now).await.map(Proceeded::To),
        }
    }
}

/// Closes the payment at the gateway and learns how it ended.
struct ClosePayment<'a> {
    order_id: OrderId,
    intent: &'a GatewayPayment,
    /// Until when the gateway's word is waited for.
    by: DateTime<Utc>,
    desk: &'a Desk<'a>,
}

impl Call for ClosePayment<'_> {
    const NAME: &'static str = "ClosePayment";
    type Output = PaymentOutcome;

    fn dependency(&self) -> Option<Dependency> {
        self.desk.dependency()
    }

    fn deadline(&self) -> Option<Deadline> {
        too_late(self.by)
    }

    async fn run(&self, context: &CallContext) -> Result<PaymentOutcome, StepError> {
        let lookup = self.desk.lookup(self.order_id, context.now).await?;
        let closed = self.desk.gateway()?.close(context.idempotency_key, &lookup).await;
        let payments = self.desk.read(closed, context.now).await?;
        let captured = payments.iter().find(|payment| payment.status == GatewayPaymentStatus::Captured);
        let own = payments.iter().find(|payment| payment.gateway_payment_id == self.intent.gateway_payment_id);
        let outcome = captured.or(own).or(payments.first()).and_then(PaymentOutcome::known);
        outcome.ok_or_else(|| StepError::Unknown("the gateway has not closed the payment yet".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_asked_soon_and_then_each_minute() {
        let mut asked = vec![ask_next(Duration::ZERO).as_secs()];
        while asked.len() < 6 {
            asked.push(ask_next(Duration::from_secs(asked[asked.len() - 1])).as_secs());
        }
        assert_eq!(asked, [5, 15, 45, 105, 165, 225]);
    }
}
