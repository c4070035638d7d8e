//! Payments and refunds of ours, each asked about in its time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    ids::OrderId,
    ports::{GatewayError, GatewayPayment, ListedRefund, Lookup, PaymentGateway, Window},
};
use engine::{Call, CallContext, Dependency, RetryPolicy, SetTx, Step, StepError, Tx, Undo, Undoing, legible};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::{
    Reconciled,
    compare::{Finding, Mismatch, MismatchKind, compare, refund_word},
    report,
};
use crate::{
    checkout::webhook,
    desk::dependency_of,
    rules::Reconciliation,
    store::{
        alone, disputes, payments,
        reconciliation::{
            booked,
            checks::{self, Check, Pass},
        },
        refunds::{self, otherwise},
    },
};

/// Payments asked about by one call.
const BATCH: i64 = 50;
/// Of them at the same time.
const AT_ONCE: usize = 5;
/// How long the gateway may take over one payment. All of a batch fit into one attempt of the call.
const PATIENCE: Duration = Duration::from_secs(5);
/// Which try of a comparison the staff hears of, when it does not succeed.
const TOLD_AT: i32 = 3;
/// An open payment is not asked about more often than this, whatever its patience.
const OPEN_AGAIN: TimeDelta = TimeDelta::seconds(60);

/// One gateway, one pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) name: &'a str,
    pub(super) pass: Pass,
    pub(super) rules: &'a Reconciliation,
}

impl Walk<'_> {
    /// How old what is compared must be.
    pub(super) fn patience(&self) -> TimeDelta {
        self.rules.patience(self.pass)
    }
}

/// The next comparisons of a pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Picked {
    pub(super) checks: Vec<Check>,
    /// More has moved on unasked than one commit moves.
    pub(super) has_more: bool,
}

/// Takes them in hand.
#[derive(Debug)]
pub(super) struct PickPayments<'a>(pub(super) Walk<'a>);

impl Step for PickPayments<'_> {
    const NAME: &'static str = "PickPayments";
    type Output = Picked;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Picked, StepError> {
        let Walk { name, pass, .. } = self.0;
        let before = tx.now() - self.0.patience();
        let has_more = match pass {
            Pass::Open => checks::settle_opened(tx.conn(), name, before).await?,
            Pass::Settled | Pass::DayOld | Pass::Refund => false,
        };
        Ok(Picked { checks: checks::take(tx.conn(), name, pass, before, BATCH).await?, has_more })
    }
}

/// The run comes to nothing: what it had in hand and has not compared is for another.
#[derive(Debug)]
pub(super) struct PutBack {
    pub(super) patience: TimeDelta,
}

impl Undo<Picked> for PutBack {
    const NAME: Option<&'static str> = Some("PutBack");

    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, Picked>]) -> Result<(), StepError> {
        for row in rows {
            let before = tx.now() - row.undo.patience;
            checks::give_up(tx.conn(), &row.output.checks, before, &row.failure.detail).await?;
        }
        Ok(())
    }
}

/// What the gateway knows of one order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// This.
    Found(Known),
    /// It will not say.
    Refused(String),
    /// It did not say.
    Unknown(String),
    /// It was not asked.
    Unasked,
}

/// Payments, and what went back of each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Known {
    payments: Vec<GatewayPayment>,
    /// By the gateway's ids of the payments.
    refunds: BTreeMap<String, Vec<ListedRefund>>,
}

/// What the gateway said of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    /// In the order of the checks.
    answers: Vec<Answer>,
    /// It answers nothing at all: none of these are to blame.
    pub(super) is_away: bool,
}

/// Asks the gateway about each, without touching anything there. When it answers to none of those asked
/// together, it is asked about something else: only then is it away, and not one of these bad.
pub(super) struct FindPayments<'a> {
    pub(super) checks: &'a [Check],
    pub(super) gateway: Option<&'a Arc<dyn PaymentGateway>>,
    pub(super) pool: PgPool,
}

impl Call for FindPayments<'_> {
    const NAME: &'static str = "FindPayments";
    type Output = Asked;

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { timeout: Duration::from_secs(120), ..RetryPolicy::default() }
    }

    fn dependency(&self) -> Option<Dependency> {
        dependency_of(self.gateway)
    }

    fn heard_in(&self, asked: &Asked) -> bool {
        !asked.is_away
    }

    async fn run(&self, context: &CallContext) -> Result<Asked, StepError> {
        let mut asked = Asked { answers: vec![Answer::Unasked; self.checks.len()], is_away: false };
        let Some(gateway) = self.gateway else {
            // Another worker of the pool may have it.
            asked.is_away = true;
            return Ok(asked);
        };
        let orders: Vec<_> = self.checks.iter().map(|check| check.order_id).collect();
        let (lookups, refunded) = {
            let mut conn = self.pool.acquire().await?;
            (payments::lookups(&mut conn, &orders, context.now).await?, refunds::orders_with(&mut conn, &orders).await?)
        };
        let find = |lookup| find(&**gateway, lookup, &refunded);
        for (lookups, answers) in lookups.chunks(AT_ONCE).zip(asked.answers.chunks_mut(AT_ONCE)) {
            let found = futures::future::join_all(lookups.iter().map(find)).await;
            for (answer, found) in answers.iter_mut().zip(found) {
                *answer = found;
            }
            let is_silent = answers.iter().all(|answer| matches!(answer, Answer::Unknown(_)));
            if is_silent && !is_there(&**gateway, context.now).await {
                tracing::info!(gateway = gateway.name(), "the gateway is away; the comparison waits");
                asked.is_away = true;
                break;
            }
        }
        Ok(asked)
    }
}

async fn find(gateway: &dyn PaymentGateway, lookup: &Lookup, refunded: &HashSet<OrderId>) -> Answer {
    let found = tokio::time::timeout(PATIENCE, known(gateway, lookup, refunded.contains(&lookup.order_id))).await;
    match found.unwrap_or_else(|_| Err(GatewayError::Unknown("it took too long".to_owned()))) {
        Ok(found) => Answer::Found(found),
        Err(error @ GatewayError::Refused { .. }) => {
            tracing::warn!(order_id = %lookup.order_id, %error, "the gateway will not say what it knows");
            Answer::Refused(legible(&error.to_string()).into_owned())
        }
        Err(
            error @ (GatewayError::Unknown(_)
            | GatewayError::Busy { .. }
            | GatewayError::NotNow { .. }
            | GatewayError::Misconfigured(_)),
        ) => {
            tracing::info!(order_id = %lookup.order_id, %error, "the gateway does not say what it knows");
            Answer::Unknown(legible(&error.to_string()).into_owned())
        }
    }
}

/// With the refunds, where there may be some: by the gateway's word, or because the books have some.
async fn known(gateway: &dyn PaymentGateway, lookup: &Lookup, has_refunds: bool) -> Result<Known, GatewayError> {
    let (payments, mut refunds) = (gateway.find(lookup).await?, BTreeMap::new());
    for payment in payments.iter().filter(|payment| has_refunds || payment.refunded > Decimal::ZERO) {
        let id = &payment.gateway_payment_id;
        refunds.insert(id.clone(), gateway.refunds(id).await?);
    }
    Ok(Known { payments, refunds })
}

/// Whether it answers at all: asked what was paid a moment ago, a refusal is an answer too.
pub(super) async fn is_there(gateway: &dyn PaymentGateway, now: DateTime<Utc>) -> bool {
    let window = Window { from: now - TimeDelta::seconds(1), until: now };
    let listed = tokio::time::timeout(PATIENCE, gateway.list(window, None)).await;
    match listed {
        Ok(Ok(_) | Err(GatewayError::Refused { .. })) => true,
        Ok(Err(
            GatewayError::Unknown(_)
            | GatewayError::Busy { .. }
            | GatewayError::NotNow { .. }
            | GatewayError::Misconfigured(_),
        ))
        | Err(_) => false,
    }
}

/// Passes on what nobody knew, reports what nobody can mend, and lets the comparisons go, in one commit.
pub(super) struct CompareBooks<'a> {
    pub(super) walk: Walk<'a>,
    pub(super) found: &'a Picked,
    pub(super) asked: &'a Asked,
}

impl Step for CompareBooks<'_> {
    const NAME: &'static str = "CompareBooks";
    type Output = Reconciled;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Reconciled, StepError> {
        let Walk { name, pass, .. } = self.walk;
        let now = tx.now();
        let before = now - self.walk.patience();
        let mut sum = Reconciled::default();
        let (mut compared, mut unasked) = (Vec::new(), Vec::new());
        for (check, answer) in self.found.checks.iter().zip(&self.asked.answers) {
            let problem = match answer {
                Answer::Found(found) => {
                    alone::begin(tx).await?;
                    let settled = settle(tx, name, check, found).await;
                    match alone::end(tx, settled).await? {
                        Ok(settled) => {
                            sum += settled;
                            compared.push(*check);
                            continue;
                        }
                        Err(problem) => problem,
                    }
                }
                Answer::Unasked => {
                    unasked.push(*check);
                    continue;
                }
                Answer::Unknown(_) if self.asked.is_away => {
                    unasked.push(*check);
                    continue;
                }
                Answer::Unknown(problem) | Answer::Refused(problem) => problem.clone(),
            };
            checks::set_aside(tx.conn(), check, before, &problem).await?;
            sum.set_aside += 1;
            if check.attempts >= TOLD_AT || matches!(answer, Answer::Refused(_)) {
                let mismatch = Mismatch { kind: MismatchKind::Unanswered, detail: problem };
                sum.mismatches += u64::from(report(tx, name, check.order_id, &mismatch).await?);
            }
        }
        checks::compared(tx.conn(), &compared, pass, now.max(before + OPEN_AGAIN)).await?;
        checks::put_back(tx.conn(), &unasked).await?;
        Ok(sum)
    }
}

/// What follows from the gateway's answer about one order.
async fn settle(tx: &mut Tx<'_>, gateway: &str, check: &Check, found: &Known) -> Result<Reconciled, StepError> {
    let (mut sum, order_id, now) = (Reconciled::default(), check.order_id, tx.now());
    for payment in disputes::lost(tx.conn(), order_id).await? {
        otherwise::book_taken(tx.conn(), order_id, &payment, now).await?;
    }
    let Some(books) = booked(tx.conn(), order_id).await? else { return Ok(sum) };
    sum.compared += 1;
    let mut findings = compare(&books, &found.payments);
    if findings.iter().any(Finding::is_of_refunds)
        && pass_on_refunds(tx, gateway, order_id, &found.refunds, &mut sum).await?
    {
        let Some(books) = booked(tx.conn(), order_id).await? else { return Ok(sum) };
        findings = compare(&books, &found.payments);
    }
    for finding in findings {
        match finding {
            Finding::Untold(event) => {
                let outcome = webhook::receive(tx.conn(), gateway, &event).await?;
                tracing::info!(%order_id, payment = event.gateway_payment_id, outcome,
                    "the gateway's word had not been heard; passed on");
                sum.told += u64::from(outcome != "IGNORED");
            }
            Finding::Mismatch(mismatch) => {
                sum.mismatches += u64::from(report(tx, gateway, order_id, &mismatch).await?);
            }
        }
    }
    Ok(sum)
}

/// Refunds that the gateway lists, as if it told of them now; true when one was booked that nobody here had heard of.
async fn pass_on_refunds(
    tx: &mut Tx<'_>,
    gateway: &str,
    order_id: OrderId,
    refunds: &BTreeMap<String, Vec<ListedRefund>>,
    sum: &mut Reconciled,
) -> Result<bool, StepError> {
    let mut has_booked = false;
    for (payment, listed) in refunds {
        for made in listed {
            let word = refund_word(order_id, payment, made);
            let outcome = webhook::receive_compared(tx.conn(), gateway, &word).await?;
            tracing::info!(%order_id, payment, outcome, "a refund may not have been heard of; passed on");
            sum.told += u64::from(outcome == "BOOKED");
            has_booked |= outcome == "BOOKED";
        }
    }
    Ok(has_booked)
}
