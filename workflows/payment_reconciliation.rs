//! Payment reconciliation: what the books say of money, held against what the gateway says.
//!
//! Webhooks get lost, answers too. What the gateway knows and nobody here does is passed on as if its
//! webhook came now, so that the checkout run, or a refund run, does what it always does; nothing is
//! written over. What no run can mend is counted, logged, and told to the staff, once.

mod compare;

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use domain::{
    ids::OrderId,
    notification::StaffReport,
    ports::{GatewayError, GatewayPayment, PaymentGateway},
};
use engine::{Call, CallContext, Flow, Nothing, Result, RetryPolicy, Start, Step, StepError, Tx, Workflow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::compare::{Finding, compare};
pub use self::compare::{Mismatch, MismatchKind};
use crate::{
    Shop,
    checkout::webhook,
    notification::{Notice, Notification},
    rules::Reconciliation,
    store::reconciliation::{self, Pass, Pick, Reached},
};

/// Payments asked about by one call.
const BATCH: i64 = 20;
/// Calls of one pass in one run; what is left then is the next run's. All passes together stay well
/// below the journal's limit for up to fifteen gateways.
const BATCHES: usize = 5;
/// How long the gateway may take over one payment. All of a batch fit into one attempt of the call.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a reconciliation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    /// Orders whose books were compared.
    pub compared: u64,
    /// Words of the gateway that nobody had heard, passed on.
    pub told: u64,
    /// Differences reported to the staff.
    pub mismatches: u64,
}

/// `payment_reconciliation/v1`, started by its schedule.
#[derive(Debug, Clone)]
pub struct PaymentReconciliation(pub Arc<Shop>);

impl Workflow for PaymentReconciliation {
    const NAME: &'static str = "payment_reconciliation";
    const QUEUE: &'static str = "maintenance";
    type Input = ();
    type Output = Reconciled;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<Reconciled> {
        let mut sum = Reconciled::default();
        // Journalled: another worker may be configured otherwise.
        let gateways: Vec<String> = flow.value("gateways", || self.0.gateways.keys().cloned().collect()).await?;
        for name in &gateways {
            for pass in Pass::ALL {
                for _ in 0..BATCHES {
                    let gateway = Walk { name, pass, rules: &self.0.rules.reconciliation };
                    let found = flow.tx(PickPayments(gateway)).undo(Nothing).await?;
                    if found.picks.is_empty() {
                        break;
                    }
                    let picks = &found.picks;
                    let answers =
                        flow.call(FindPayments { picks, gateway: self.0.gateway(name) }).undo(Nothing).await?;
                    // The gateway is away: it is asked again by the next run.
                    let Some(answers) = answers else { break };
                    let compared =
                        flow.tx(CompareBooks { walk: gateway, found: &found, answers: &answers }).undo(Nothing).await?;
                    flow.checkpoint().await?;
                    sum.compared += compared.compared;
                    sum.told += compared.told;
                    sum.mismatches += compared.mismatches;
                    if found.is_last {
                        break;
                    }
                }
            }
        }
        Ok(sum)
    }
}

/// One gateway, one pass.
#[derive(Debug, Clone, Copy)]
struct Walk<'a> {
    name: &'a str,
    pass: Pass,
    rules: &'a Reconciliation,
}

/// The next payments of a pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Picked {
    from: Reached,
    picks: Vec<Pick>,
    is_last: bool,
}

/// Reads on where the pass stands. Changes nothing: the pass moves when they have been compared.
#[derive(Debug)]
struct PickPayments<'a>(Walk<'a>);

impl Step for PickPayments<'_> {
    const NAME: &'static str = "PickPayments";
    type Output = Picked;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Picked, StepError> {
        let Walk { name, pass, rules } = self.0;
        let now = tx.now();
        let after = |seconds: u32| now - TimeDelta::seconds(seconds.into());
        let settled = after(rules.settled_after_s);
        let from = reconciliation::reached(tx.conn(), name, pass).await?;
        let picks = match pass {
            Pass::Open => {
                reconciliation::open_payments(tx.conn(), name, from, after(rules.open_after_s), BATCH).await?
            }
            Pass::Settled => reconciliation::payments_made(tx.conn(), name, from, settled, BATCH).await?,
            Pass::DayOld => {
                reconciliation::payments_made(tx.conn(), name, from, settled - TimeDelta::days(1), BATCH).await?
            }
            Pass::Refunds => reconciliation::refunds_made(tx.conn(), name, from, settled, BATCH).await?,
        };
        let is_last = i64::try_from(picks.len()).unwrap_or_default() < BATCH;
        if picks.is_empty() && pass == Pass::Open && from != Reached::default() {
            // Round it goes.
            reconciliation::move_on(tx.conn(), name, pass, from, Reached::default()).await?;
        }
        Ok(Picked { from, picks, is_last })
    }
}

/// What the gateway knows of one order; none when it would not say.
type Answer = Option<Vec<GatewayPayment>>;

/// Asks the gateway about each, without touching anything there.
struct FindPayments<'a> {
    picks: &'a [Pick],
    gateway: Option<&'a Arc<dyn PaymentGateway>>,
}

impl Call for FindPayments<'_> {
    const NAME: &'static str = "FindPayments";
    /// In the order of the picks; none when the gateway is away.
    type Output = Option<Vec<Answer>>;

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { timeout: Duration::from_secs(120), ..RetryPolicy::default() }
    }

    async fn run(&self, _: &CallContext) -> Result<Option<Vec<Answer>>, StepError> {
        let Some(gateway) = self.gateway else { return Ok(None) };
        let mut answers = Vec::with_capacity(self.picks.len());
        for pick in self.picks {
            let found = tokio::time::timeout(PATIENCE, gateway.find(pick.order_id)).await;
            let answer = match found.unwrap_or_else(|_| Err(GatewayError::Unknown("it took too long".to_owned()))) {
                Ok(found) => Some(found),
                Err(GatewayError::Refused { code, detail }) => {
                    tracing::warn!(order_id = %pick.order_id, code, detail, "the gateway will not say what it knows");
                    None
                }
                // Not one answer: it is away. After some: it has a difficulty with this one.
                Err(GatewayError::Unknown(why)) if answers.iter().all(Option::is_none) => {
                    tracing::info!(gateway = gateway.name(), why, "the gateway is away; the comparison waits");
                    return Ok(None);
                }
                Err(GatewayError::Unknown(why)) => {
                    tracing::warn!(order_id = %pick.order_id, why, "the gateway cannot say what it knows");
                    None
                }
            };
            answers.push(answer);
        }
        Ok(Some(answers))
    }
}

/// Passes on what nobody knew, reports what nobody can mend, and moves the pass, in one commit.
struct CompareBooks<'a> {
    walk: Walk<'a>,
    found: &'a Picked,
    answers: &'a [Answer],
}

impl Step for CompareBooks<'_> {
    const NAME: &'static str = "CompareBooks";
    type Output = Reconciled;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Reconciled, StepError> {
        let Walk { name, pass, .. } = self.walk;
        let mut sum = Reconciled::default();
        for (pick, answer) in self.found.picks.iter().zip(self.answers) {
            let Some(booked) = reconciliation::booked(tx.conn(), pick.order_id).await? else { continue };
            sum.compared += 1;
            let findings = match answer {
                Some(found) => compare(&booked, found),
                None => vec![Finding::Mismatch(Mismatch {
                    kind: MismatchKind::Unanswered,
                    detail: "the gateway would not say what it knows".to_owned(),
                })],
            };
            for finding in findings {
                match finding {
                    Finding::Untold(event) => {
                        let outcome = webhook::receive(tx.conn(), name, &event).await?;
                        tracing::info!(order_id = %pick.order_id, payment = event.gateway_payment_id, outcome,
                            "the gateway's word had not been heard; passed on");
                        sum.told += u64::from(outcome != "IGNORED");
                    }
                    Finding::Mismatch(mismatch) => {
                        sum.mismatches += u64::from(report(tx, name, pick.order_id, &mismatch).await?);
                    }
                }
            }
        }
        if let Some(last) = self.found.picks.last() {
            // Where another run was faster, it has compared the same; both have done no harm.
            reconciliation::move_on(tx.conn(), name, pass, self.found.from, last.reached).await?;
        }
        Ok(sum)
    }
}

/// Once an order and kind.
async fn report(tx: &mut Tx<'_>, gateway: &str, order_id: OrderId, mismatch: &Mismatch) -> Result<bool, StepError> {
    let Mismatch { kind, detail } = mismatch;
    let kind = kind.as_str();
    let id = Uuid::new_v5(&order_id.into(), kind.as_bytes());
    let subject = format!("Payments differ from the gateway's: {kind}");
    let text = format!("Order: {order_id}\nGateway: {gateway}\nWhat differs: {detail}\n");
    let notice = Notice::to_staff("payment.mismatch", StaffReport { id, subject, text });
    let is_new = tx.start(Start::<Notification>::new(notice.key(), &notice)?).await?.is_new;
    if is_new {
        tracing::warn!(%order_id, gateway, kind, detail, "books and gateway differ");
        metrics::counter!("cart_engine_payment_mismatches_total", "kind" => kind).increment(1);
    }
    Ok(is_new)
}
