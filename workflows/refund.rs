//! Refund: money that goes back, however long the gateway takes.
//!
//! Started by the undo of a payment, by a webhook that reports money nobody waits for, and by people who
//! give back a part. Its steps serve other flows too: `claim_everything`, then `give_back`. What the gateway
//! refuses to send waits, claimed and without a worker, for a person's word ([`desk`]).

pub mod accept;
pub mod desk;
mod send;

use std::{sync::Arc, time::Duration};

use domain::{ids::OrderId, ports::GatewayPayment, refund::RefundStatus};
use engine::{
    Call, CallContext, Dependency, Flow, Forward, Result, RetryPolicy, SetResult, SetStep, SetTx, Step, StepError, Tx,
    Workflow, done,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use self::send::give_back;
pub use crate::store::refunds::DueRefund;
use crate::{
    Shop,
    desk::Desk,
    store::{
        orders,
        refunds::{self, Claim, held},
    },
};

/// What a refund is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundRequest {
    /// The order.
    pub order_id: OrderId,
    /// The gateway that may hold money for it; none for cash.
    pub gateway: Option<String>,
    /// Why.
    pub reason: String,
    /// How much, in major units of the order's currency; none means whatever the gateway has captured
    /// that the order does not stand for.
    #[serde(default)]
    pub amount: Option<Decimal>,
    /// What it is for besides the order, e.g. a return.
    #[serde(default)]
    pub reference: Option<String>,
    /// A payment was begun whose answer never came.
    #[serde(default)]
    pub answer_lost: bool,
    /// The gateway's id of a payment that need not be on our books.
    #[serde(default)]
    pub gateway_payment_id: Option<String>,
    /// A refund that had gone back, and came back: it is taken up where it stands.
    #[serde(default)]
    pub taken_up: Option<Uuid>,
    /// It is sent at once; otherwise a person is to decide.
    #[serde(default)]
    pub is_sent: bool,
}

/// `refund/v1`.
#[derive(Debug, Clone)]
pub struct RefundPayment(pub Arc<Shop>);

impl Workflow for RefundPayment {
    const NAME: &'static str = "refund";
    const QUEUE: &'static str = "refund";
    const ONLY_FORWARD: bool = true;
    type Input = RefundRequest;
    /// Refunds that went through.
    type Output = usize;

    async fn run(&self, flow: &mut Flow, request: RefundRequest) -> Result<usize> {
        // Money owed is never forgotten: from the start this run only goes forward, or parks.
        let mut flow = flow.point_of_no_return(BeginRefund).await?;
        let request = Arc::new(request);
        let due = match (request.taken_up, request.amount) {
            (Some(refund_id), _) => flow.tx(TakeUp { refund_id }).await?,
            (None, Some(amount)) => flow.tx(ClaimAmount { request: &request, amount }).await?,
            (None, None) => claim_everything(&mut flow, &self.0, &request).await?,
        };
        give_back(&mut flow, &self.0, &request, &due).await?;
        Ok(due.len())
    }
}

/// Closes what is still open at the gateway, learns what was captured, and claims all that the order
/// does not stand for.
///
/// # Errors
/// Ends the turn or parks the run, as any step of a flow that only goes forward.
pub(crate) async fn claim_everything(
    flow: &mut Forward<'_>,
    shop: &Shop,
    request: &Arc<RefundRequest>,
) -> Result<Vec<DueRefund>> {
    let payments = match &request.gateway {
        Some(name) => {
            let desk = Desk::new(flow.pool(), shop.gateway(name));
            flow.call(ClosePayments { request, desk: &desk }).await?
        }
        None => Vec::new(),
    };
    flow.tx(ClaimRefunds { run_id: flow.id(), request: Arc::clone(request), payments }).await
}

/// Passes the point of no return; there is nothing else to do yet.
#[derive(Debug)]
struct BeginRefund;

impl SetStep for BeginRefund {
    const NAME: &'static str = "BeginRefund";
    type Output = ();

    async fn run(_: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        done(rows)
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
    request: &'a RefundRequest,
    desk: &'a Desk<'a>,
}

impl Call for ClosePayments<'_> {
    const NAME: &'static str = "ClosePayments";
    type Output = Vec<GatewayPayment>;

    fn policy(&self) -> RetryPolicy {
        PATIENT
    }

    fn dependency(&self) -> Option<Dependency> {
        self.desk.dependency()
    }

    async fn run(&self, context: &CallContext) -> Result<Vec<GatewayPayment>, StepError> {
        let RefundRequest { order_id, answer_lost, gateway_payment_id, .. } = self.request;
        let mut lookup = self.desk.lookup(*order_id, context.now).await?;
        lookup.lost = *answer_lost;
        lookup
            .known
            .extend(gateway_payment_id.iter().filter(|id| !lookup.known.contains(id)).cloned().collect::<Vec<_>>());
        let closed = self.desk.gateway()?.close(context.idempotency_key, &lookup).await;
        self.desk.read(closed, context.now).await
    }
}

struct ClaimRefunds {
    run_id: Uuid,
    request: Arc<RefundRequest>,
    payments: Vec<GatewayPayment>,
}

/// The orders are locked together, in the order of their ids; then each claims for itself.
impl SetStep for ClaimRefunds {
    const NAME: &'static str = "ClaimRefunds";
    type Output = Vec<DueRefund>;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Vec<DueRefund>> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.request.order_id).collect(), tx.now());
        orders::lock_many(tx.conn(), &orders).await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in rows {
            let claim = row.request.claim(row.run_id);
            due.push(Ok(refunds::claim_everything(tx.conn(), claim, &row.payments, now).await?));
        }
        Ok(due)
    }
}

/// A part. Whoever started the run may have claimed it already, in the transaction that started it.
struct ClaimAmount<'a> {
    request: &'a RefundRequest,
    amount: Decimal,
}

impl Step for ClaimAmount<'_> {
    const NAME: &'static str = "ClaimAmount";
    type Output = Vec<DueRefund>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<DueRefund>, StepError> {
        let (claim, now) = (self.request.claim(tx.run_id()), tx.now());
        let claimed = refunds::claims_of(tx.conn(), claim.run_id).await?;
        if !claimed.is_empty() {
            return Ok(claimed);
        }
        Ok(vec![refunds::claim_amount(tx.conn(), claim, self.amount, now).await?])
    }
}

/// What came back is as it was left.
struct TakeUp {
    refund_id: Uuid,
}

impl Step for TakeUp {
    const NAME: &'static str = "TakeUp";
    type Output = Vec<DueRefund>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<DueRefund>, StepError> {
        let found = held::find(tx.conn(), self.refund_id).await?;
        Ok(found.filter(|found| found.status != RefundStatus::Succeeded).map(|found| found.due()).into_iter().collect())
    }
}

impl RefundRequest {
    /// Whatever the gateway has captured that the order does not stand for.
    pub fn everything(order_id: OrderId, gateway: Option<String>, reason: String) -> Self {
        RefundRequest {
            order_id,
            gateway,
            reason,
            amount: None,
            reference: None,
            answer_lost: false,
            gateway_payment_id: None,
            taken_up: None,
            is_sent: false,
        }
    }

    fn claim(&self, run_id: Uuid) -> Claim<'_> {
        let RefundRequest { order_id, reason, reference, .. } = self;
        Claim { run_id, order_id: *order_id, reason, reference: reference.as_deref() }
    }
}
