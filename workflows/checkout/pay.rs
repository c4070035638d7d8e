//! Phase 4: money. Nothing here runs inside a transaction but the notes it leaves.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    money::Money,
    ports::{GatewayPayment, GatewayPaymentStatus, PaymentRequest},
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
            GatewayPaymentStatus::Pending | GatewayPaymentStatus::RequiresAction | GatewayPaymentStatus::Authorized => {
                None
            }
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

fn too_late(at: DateTime<Utc>) -> Option<Deadline> {
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
    pub(super) window: Window,
    pub(super) desk: &'a Desk<'a>,
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
        // A gateway forgets idempotency keys. Well before that we only ask what became of the payment.
        let age = (context.now - context.intended_at).to_std().unwrap_or_default();
        if age > gateway.key_lifetime() / 2 {
            let found = self.desk.read(gateway.find(self.request.order_id).await, context.now).await?;
            return found
                .into_iter()
                .find(|payment| !self.earlier.contains(&payment.gateway_payment_id))
                .ok_or_else(|| Failure::new("payment-expired", "the gateway never took the payment up").into());
        }
        let payment = PaymentRequest {
            order_id: self.request.order_id,
            attempt: self.attempt.number,
            amount: Money::rounded(self.quote.total, self.quote.currency),
            method: self.attempt.method,
            token: self.attempt.token.clone(),
            return_url: None,
        };
        self.desk.read(gateway.initiate(context.idempotency_key, &payment).await, context.now).await
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

/// Asks how the payment stands, while its run waits to be told. Changes nothing.
#[derive(Clone)]
pub struct AskGateway<'a> {
    pub(super) intent: &'a GatewayPayment,
    pub(super) desk: &'a Desk<'a>,
}

impl Call for AskGateway<'_> {
    const NAME: &'static str = "AskGateway";
    /// None while nothing has come of it.
    type Output = Option<PaymentOutcome>;

    fn dependency(&self) -> Option<Dependency> {
        self.desk.dependency()
    }

    async fn run(&self, context: &CallContext) -> Result<Option<PaymentOutcome>, StepError> {
        let found = self.desk.gateway()?.find(self.intent.order_id).await;
        let payments = self.desk.read(found, context.now).await?;
        let own = payments.iter().find(|payment| payment.gateway_payment_id == self.intent.gateway_payment_id);
        Ok(own.and_then(PaymentOutcome::known))
    }
}

/// The payment window has passed: closes the payment at the gateway and learns how it ended.
#[derive(Clone)]
pub struct ClosePayment<'a> {
    pub(super) order_id: OrderId,
    pub(super) intent: &'a GatewayPayment,
    /// Until when the gateway's word is waited for.
    pub(super) by: DateTime<Utc>,
    pub(super) desk: &'a Desk<'a>,
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
        let closed = self.desk.gateway()?.close(context.idempotency_key, self.order_id).await;
        let payments = self.desk.read(closed, context.now).await?;
        let captured = payments.iter().find(|payment| payment.status == GatewayPaymentStatus::Captured);
        let own = payments.iter().find(|payment| payment.gateway_payment_id == self.intent.gateway_payment_id);
        let outcome = captured.or(own).or(payments.first()).and_then(PaymentOutcome::known);
        outcome.ok_or_else(|| StepError::Unknown("the gateway has not closed the payment yet".into()))
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
                let request = RefundRequest::everything(*order_id, Some(gateway.clone()), row.failure.code.clone());
                tx.start(row.run_id, Start::<RefundPayment>::new(format!("{order_id}/unwind"), &request)?);
            }
        }
        Ok(())
    }
}
