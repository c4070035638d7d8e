//! Phase 4: money. Nothing here runs inside a transaction but the notes it leaves.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    money::Money,
    ports::{Capture, GatewayPayment, GatewayPaymentStatus, Lookup, Operation, PaymentRequest},
    pricing::Quote,
};
use engine::{
    Call, CallContext, Deadline, Dependency, Failure, RetryPolicy, SetResult, SetStep, SetTx, Start, StepError, Undo,
    Undoing, done,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Request,
    attempt::{Attempt, Window},
};
use crate::{
    desk::Desk,
    refund::{RefundPayment, RefundRequest},
    store::{
        orders::{self, NewIntent},
        payments::Captured,
    },
};

/// The signal a webhook becomes.
pub const SIGNAL: &str = "payment";

/// What it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Word {
    /// A payment ended so.
    Ended(PaymentOutcome),
    /// A payment stands so.
    Stands(GatewayPayment),
    /// Something has happened, and the gateway is to be asked what.
    Look,
}

/// How a payment ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentOutcome {
    /// The gateway's id.
    pub gateway_payment_id: String,
    /// What was captured, if it was.
    pub captured: Option<Money>,
    /// Why it was not.
    pub failure: Option<String>,
    /// It was not paid in time, rather than refused.
    pub expired: bool,
}

impl PaymentOutcome {
    /// What the gateway's answer already settles; `None` while the shopper or the gateway is at work.
    pub fn known(payment: &GatewayPayment) -> Option<Self> {
        let outcome = |captured, failure, expired| {
            Some(PaymentOutcome { gateway_payment_id: payment.gateway_payment_id.clone(), captured, failure, expired })
        };
        match payment.status {
            GatewayPaymentStatus::Pending
            | GatewayPaymentStatus::RequiresAction
            | GatewayPaymentStatus::Approved
            | GatewayPaymentStatus::Authorized => None,
            GatewayPaymentStatus::Captured => {
                outcome(Some(Money::rounded(payment.captured, payment.amount.currency())), None, false)
            }
            GatewayPaymentStatus::Failed => {
                outcome(None, Some(payment.failure.clone().unwrap_or_else(|| "declined".to_owned())), false)
            }
            GatewayPaymentStatus::Closed => outcome(None, Some("not paid in time".to_owned()), true),
        }
    }

    /// The captured payment, or the failure that unwinds the checkout. Another amount or currency than
    /// the order's never confirms it.
    pub fn captured(self, quote: &Quote) -> Result<Captured, Failure> {
        let PaymentOutcome { gateway_payment_id, captured, failure, expired } = self;
        match captured {
            Some(money) if money.amount() == quote.total && money.currency() == quote.currency => {
                Ok(Captured { gateway_payment_id, amount: money.amount() })
            }
            Some(money) => Err(Failure::new(
                "payment-declined",
                format!(
                    "{} {} was captured, {} was due; it is refunded",
                    money.amount(),
                    money.currency(),
                    quote.total
                ),
            )),
            None if expired => Err(Failure::new("payment-expired", "the payment was not completed in time")),
            None => Err(Failure::new(
                "payment-declined",
                format!("the payment was declined: {}", failure.unwrap_or_else(|| "no reason given".to_owned())),
            )),
        }
    }
}

pub(super) fn too_late(at: DateTime<Utc>) -> Option<Deadline> {
    let failure = Failure::new("payment-expired", "the payment gateway did not answer while the order could be paid");
    Some(Deadline { at, failure })
}

/// Box 8: asks the gateway for the money. The order id travels as metadata, so that a webhook or a
/// look-up finds its way back.
#[derive(Clone)]
pub struct InitiatePayment<'a> {
    pub(super) request: &'a Request,
    pub(super) attempt: &'a Attempt,
    /// The gateway's payments of the attempts before.
    pub(super) earlier: &'a [String],
    pub(super) quote: &'a Quote,
    /// Somebody is to look before the money is taken.
    pub(super) is_doubtful: bool,
    pub(super) window: Window,
    pub(super) desk: &'a Desk<'a>,
}

/// How long an answer may be awaited under a key before the gateway is asked whether there is a payment: some give
/// a failure again as long as they know its key.
const ASK_AFTER: Duration = Duration::from_secs(30);

impl InitiatePayment<'_> {
    fn payment(&self) -> PaymentRequest {
        let Request { order_id, order_number, contact_email, contact_phone, terms, .. } = self.request;
        PaymentRequest {
            order_id: *order_id,
            order_number: order_number.to_string(),
            attempt: self.attempt.number,
            amount: Money::rounded(self.quote.total, self.quote.currency),
            capture: if self.is_doubtful { Capture::Hold } else { Capture::Take },
            method: self.attempt.method,
            token: self.attempt.token.clone(),
            return_url: terms.payment_return_url(*order_id),
            email: Some(contact_email.clone()),
            phone: contact_phone.clone(),
        }
    }
}

impl Call for InitiatePayment<'_> {
    const NAME: &'static str = "InitiatePayment";
    type Output = GatewayPayment;

    fn dependency(&self) -> Option<Dependency> {
        self.desk.dependency()
    }

    /// Without an answer the order cannot be paid any more: what was taken all the same goes back.
    fn deadline(&self) -> Option<Deadline> {
        too_late(self.window.until(self.attempt.number))
    }

    async fn run(&self, context: &CallContext) -> Result<GatewayPayment, StepError> {
        let gateway = self.desk.gateway()?;
        let (age, lifetime) = (context.now - context.intended_at, gateway.key_lifetime(Operation::Pay));
        let age = age.to_std().unwrap_or_default();
        if age > ASK_AFTER.min(lifetime / 2) {
            let known = self.desk.lookup(self.request.order_id, context.now).await?;
            let lookup = Lookup { lost: true, ..known };
            let found = self.desk.read(gateway.find(&lookup).await, context.now).await?;
            if let Some(own) = found.into_iter().find(|found| !self.earlier.contains(&found.gateway_payment_id)) {
                return Ok(own);
            }
        }
        // A gateway forgets idempotency keys. Well before that we only ask what became of the payment.
        if age > lifetime / 2 {
            return Err(Failure::new("payment-expired", "the gateway never took the payment up").into());
        }
        self.desk.read(gateway.initiate(context.idempotency_key, &self.payment()).await, context.now).await
    }

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { longest: Duration::from_secs(10), ..RetryPolicy::default() }
    }
}

/// Box 8, the note: the gateway's payment id, and where the shopper must go.
#[derive(Debug)]
pub struct StorePaymentIntent {
    pub(super) run_id: Uuid,
    pub(super) request: Arc<Request>,
    pub(super) attempt: Attempt,
    pub(super) intent: GatewayPayment,
}

impl StorePaymentIntent {
    fn intent(&self) -> NewIntent<'_> {
        let (request, attempt) = (&*self.request, &self.attempt);
        NewIntent {
            order_id: request.order_id,
            attempt: attempt.number,
            idempotency_key: CallContext::key(self.run_id, InitiatePayment::NAME, attempt.number),
            method: attempt.method,
            ordered_with: request.payment_method,
            gateway: &request.gateway,
            payment: &self.intent,
        }
    }
}

impl SetStep for StorePaymentIntent {
    const NAME: &'static str = "StorePaymentIntent";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (now, intents) = (tx.now(), rows.iter().map(StorePaymentIntent::intent).collect::<Vec<_>>());
        orders::store_intents(tx.conn(), &intents, now).await?;
        done(rows)
    }
}

/// Whatever the gateway has or will have captured goes back. A gateway may be away for days, so this
/// starts a run of its own and moves on: stock, coupons and cart are free at once.
#[derive(Debug)]
pub struct VoidOrRefund {
    order_id: OrderId,
    gateway: String,
    /// There is no other attempt whose money may have come late.
    is_sole: bool,
}

impl VoidOrRefund {
    pub(super) fn of(request: &Request) -> Self {
        let Request { order_id, gateway, payment_attempts, .. } = request;
        VoidOrRefund { order_id: *order_id, gateway: gateway.clone(), is_sole: *payment_attempts <= 1 }
    }
}

impl Undo<Option<GatewayPayment>> for VoidOrRefund {
    const NAME: Option<&'static str> = Some("VoidOrRefund");

    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, Option<GatewayPayment>>]) -> Result<(), StepError> {
        for row in rows {
            let VoidOrRefund { order_id, gateway, is_sole } = &*row.undo;
            let has_failed = row.output.as_ref().is_some_and(|payment| payment.status == GatewayPaymentStatus::Failed);
            let certainly_unpaid = *is_sole && has_failed;
            if !certainly_unpaid {
                let everything = RefundRequest::everything(*order_id, Some(gateway.clone()), row.failure.code.clone());
                let request = RefundRequest { answer_lost: row.output.is_none(), ..everything };
                tx.start(row.run_id, Start::<RefundPayment>::new(format!("{order_id}/unwind"), &request)?);
            }
        }
        Ok(())
    }
}
