//! Refund: money that an order no longer stands for goes back, however long the gateway takes.
//!
//! Started by the undo of a payment, and by a webhook that reports money after the order was cancelled.

use std::{sync::Arc, time::Duration};

use domain::{
    ids::OrderId,
    money::{Currency, Money},
    ports::{GatewayPayment, GatewayRefund, PaymentGateway},
};
use engine::{Call, CallContext, Flow, Result, RetryPolicy, Start, Step, StepError, Tx, Workflow};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Shop,
    checkout::pay::{configured, unless_refused},
    notification::{Notice, Notification},
    store::payments,
};

/// What a refund is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundRequest {
    /// The order that is not to be had.
    pub order_id: OrderId,
    /// The gateway that may hold money for it.
    pub gateway: String,
    /// Why.
    pub reason: String,
}

/// A refund this run has claimed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DueRefund {
    /// Our id of it.
    pub refund_id: Uuid,
    /// The payment it takes back.
    pub gateway_payment_id: String,
    /// How much.
    pub amount: Decimal,
    /// Of what.
    pub currency: Currency,
}

/// `refund/v1`.
#[derive(Debug, Clone)]
pub struct RefundPayment(pub Arc<Shop>);

impl Workflow for RefundPayment {
    const NAME: &'static str = "refund";
    const QUEUE: &'static str = "refund";
    type Input = RefundRequest;
    type Output = u32;

    async fn run(&self, flow: &mut Flow, request: RefundRequest) -> Result<u32> {
        let gateway = self.0.gateway(&request.gateway);
        let order_id = request.order_id;
        // Money owed is never forgotten: from the start this run only goes forward, or parks.
        let mut flow = flow.point_of_no_return(BeginRefund).await?;
        let payments = flow.call(ClosePayments { order_id, gateway }).await?;
        let due = flow.tx(ClaimRefunds { request: &request, payments: &payments }).await?;
        let mut refunded = 0;
        for refund in &due {
            let sent = flow.call(SendRefund { refund, gateway }).await?;
            flow.tx(SettleRefund { order_id, refund, sent: &sent }).await?;
            refunded += 1;
        }
        if refunded > 0 {
            let notice = Notice::of_order("payment.refunded", order_id);
            flow.start(Start::<Notification>::new(format!("{}/{}", notice.key(), flow_key(&due)), &notice)).await?;
        }
        Ok(refunded)
    }
}

fn flow_key(due: &[DueRefund]) -> String {
    due.first().map(|refund| refund.refund_id.to_string()).unwrap_or_default()
}

/// Passes the point of no return; there is nothing else to do yet.
#[derive(Debug)]
struct BeginRefund;

impl Step for BeginRefund {
    const NAME: &'static str = "BeginRefund";
    type Output = ();

    async fn run(&self, _: &mut Tx<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

/// A gateway may be away for days; money owed waits for it.
const PATIENT: RetryPolicy = RetryPolicy {
    max_attempts: 10_000,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(300),
    timeout: Duration::from_secs(10),
};

/// Closes what is still open and learns what was captured.
struct ClosePayments<'a> {
    order_id: OrderId,
    gateway: Option<&'a Arc<dyn PaymentGateway>>,
}

impl Call for ClosePayments<'_> {
    const NAME: &'static str = "ClosePayments";
    type Output = Vec<GatewayPayment>;

    fn policy(&self) -> RetryPolicy {
        PATIENT
    }

    async fn run(&self, context: &CallContext) -> Result<Vec<GatewayPayment>, StepError> {
        configured(self.gateway)?.close(context.idempotency_key, self.order_id).await.map_err(unless_refused)
    }
}

struct ClaimRefunds<'a> {
    request: &'a RefundRequest,
    payments: &'a [GatewayPayment],
}

impl Step for ClaimRefunds<'_> {
    const NAME: &'static str = "ClaimRefunds";
    type Output = Vec<DueRefund>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<DueRefund>, StepError> {
        let (run_id, now) = (tx.run_id(), tx.now());
        let RefundRequest { order_id, reason, .. } = self.request;
        payments::claim_refunds(tx.conn(), run_id, *order_id, self.payments, reason, now).await
    }
}

struct SendRefund<'a> {
    refund: &'a DueRefund,
    gateway: Option<&'a Arc<dyn PaymentGateway>>,
}

impl Call for SendRefund<'_> {
    const NAME: &'static str = "SendRefund";
    type Output = GatewayRefund;

    fn policy(&self) -> RetryPolicy {
        PATIENT
    }

    async fn run(&self, context: &CallContext) -> Result<GatewayRefund, StepError> {
        let amount = Money::rounded(self.refund.amount, self.refund.currency);
        configured(self.gateway)?
            .refund(context.idempotency_key, &self.refund.gateway_payment_id, &amount)
            .await
            .map_err(unless_refused)
    }
}

struct SettleRefund<'a> {
    order_id: OrderId,
    refund: &'a DueRefund,
    sent: &'a GatewayRefund,
}

impl Step for SettleRefund<'_> {
    const NAME: &'static str = "SettleRefund";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        payments::settle_refund(tx.conn(), self.order_id, self.refund.refund_id, &self.sent.gateway_refund_id, now)
            .await?;
        Ok(())
    }
}
