//! How a checkout stands, for whoever waits for it.

use std::fmt;

use chrono::NaiveDate;
use domain::ids::OrderNumber;
use engine::{RunStatus, codes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Rules, fraud};

/// A checkout and whose it is.
#[derive(Debug, Clone)]
pub struct CheckoutStatus {
    /// The user it belongs to.
    pub user_id: Option<Uuid>,
    /// The guest session it belongs to.
    pub session_hash: Option<Vec<u8>>,
    /// What they may see.
    pub view: CheckoutView,
}

/// The answer to `GET /api/checkout/{workflowId}`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckoutView {
    /// The run.
    pub workflow_id: Uuid,
    /// How it stands.
    pub status: Shown,
    /// The step reached last.
    pub step: Option<String>,
    /// Parked, or held: somebody is looking at it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub delayed: bool,
    /// The order it makes.
    pub order_id: Uuid,
    /// Its number.
    pub order_number: String,
    /// The order's state, once it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderGlance>,
    /// Where the shopper must go to pay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_action: Option<Value>,
    /// Why it did not come about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Value>,
    /// When the order should arrive.
    pub estimated_delivery: Option<NaiveDate>,
    /// Where its journey can be followed.
    #[serde(rename = "trackingURL")]
    pub tracking_url: Option<String>,
}

/// An order in brief.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderGlance {
    /// Its id.
    pub order_id: Uuid,
    /// Its number.
    pub order_number: String,
    /// Its status.
    pub status: String,
    /// Its payment's status.
    pub payment_status: String,
    /// Its total.
    pub total_amount: String,
    /// Of what.
    pub currency: String,
}

/// A run's status as a shopper sees it: retrying and compensating is still RUNNING.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Shown {
    /// Under way, whatever keeps it.
    Running,
    /// Under way, and it is the shopper's turn.
    WaitingPayment,
    /// The order is confirmed.
    Completed,
    /// It came to nothing, and all is taken back.
    Failed,
    /// As failed, because somebody gave it up.
    Cancelled,
}

/// What a checkout waits for that is no longer RUNNING: the payment, another try, the staff.
const SHOWN_WAITS: [&str; 3] = [super::pay::SIGNAL, super::attempt::SIGNAL, fraud::SIGNAL];

impl Shown {
    /// Of a run that stands so, and waits for this signal if for any.
    pub fn of(run: RunStatus, waiting_for: Option<&str>) -> Self {
        match (run, waiting_for) {
            (RunStatus::Waiting, Some(signal)) if SHOWN_WAITS.contains(&signal) => Shown::WaitingPayment,
            (RunStatus::Completed, _) => Shown::Completed,
            (RunStatus::Failed, _) => Shown::Failed,
            (RunStatus::Cancelled, _) => Shown::Cancelled,
            (
                RunStatus::Pending
                | RunStatus::Running
                | RunStatus::Waiting
                | RunStatus::Retrying
                | RunStatus::Compensating
                | RunStatus::Stuck,
                _,
            ) => Shown::Running,
        }
    }

    /// As it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Shown::Running => "RUNNING",
            Shown::WaitingPayment => "WAITING_PAYMENT",
            Shown::Completed => "COMPLETED",
            Shown::Failed => "FAILED",
            Shown::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an order's journey can be followed.
pub fn tracking_url(rules: &Rules, number: &OrderNumber) -> String {
    format!("{}/api/orders/{number}", rules.public_url.trim_end_matches('/'))
}

/// Reads one checkout; `None` if there is no such run, or it is no checkout.
pub async fn read(pool: &PgPool, rules: &Rules, workflow_id: Uuid) -> Result<Option<CheckoutStatus>, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        with run as (
            select id, status, waiting_for, input, failure, (status = 'STUCK') as is_stuck
              from engine.runs where id = $1 and workflow = 'checkout'
            union all
            select id, status, null, input, failure, false
              from engine.finished_runs where id = $1 and workflow = 'checkout')
        select r.status as "run_status!: RunStatus", r.waiting_for, r.failure, r.is_stuck as "is_stuck!",
               (r.input ->> 'orderId')::uuid as "order_id!", r.input ->> 'orderNumber' as "order_number!",
               (r.input ->> 'userId')::uuid as user_id, c.session_hash as "session_hash?",
               o.order_status as "order_status?", o.payment_status as "payment_status?", o.total_amount as "total_amount?",
               o.currency as "currency?", o.estimated_delivery_date, a.next_action,
               (select j.name from engine.journal j
                 where j.run_id = $1 and j.kind <> 'ATTEMPT' order by j.seq desc limit 1) as step
          from run r
          left join carts c on c.id = (r.input ->> 'cartId')::uuid
          left join orders o on o.id = (r.input ->> 'orderId')::uuid
          left join payments p on p.order_id = o.id
          left join payment_attempts a on a.payment_id = p.id and a.status = 'PENDING'
         limit 1
        "#,
        workflow_id
    )
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let status = Shown::of(row.run_status, row.waiting_for.as_deref());
    let completed = status == Shown::Completed;
    let order = row.order_status.map(|order_status| OrderGlance {
        order_id: row.order_id,
        order_number: row.order_number.clone(),
        status: order_status,
        payment_status: row.payment_status.unwrap_or_default(),
        total_amount: wire(row.total_amount, row.currency.as_deref()),
        currency: row.currency.clone().unwrap_or_default(),
    });
    let number: Option<OrderNumber> = row.order_number.parse().ok();
    let view = CheckoutView {
        workflow_id,
        status,
        step: row.step,
        delayed: row.is_stuck || row.waiting_for.as_deref() == Some(fraud::SIGNAL),
        order_id: row.order_id,
        order_number: row.order_number,
        order,
        next_action: match (status, row.waiting_for.as_deref()) {
            (Shown::WaitingPayment, Some(super::attempt::SIGNAL)) => Some(serde_json::json!({ "type": "PAY_AGAIN" })),
            (Shown::WaitingPayment, Some(fraud::SIGNAL)) => None,
            (Shown::WaitingPayment, _) => row.next_action,
            (Shown::Running | Shown::Completed | Shown::Failed | Shown::Cancelled, _) => None,
        },
        // While it compensates, nothing is settled yet.
        failure: matches!(status, Shown::Failed | Shown::Cancelled).then_some(row.failure).flatten().map(told),
        estimated_delivery: completed.then_some(row.estimated_delivery_date).flatten(),
        tracking_url: number.filter(|_| completed).map(|number| tracking_url(rules, &number)),
    };
    Ok(Some(CheckoutStatus { user_id: row.user_id, session_hash: row.session_hash, view }))
}

/// What failed by the shop's own fault is told without its inside, which is for operators.
const OWN_FAULTS: &[&str] = &[
    codes::CRASH_LIMIT,
    codes::FAILED,
    codes::INPUT_UNREADABLE,
    "internal",
    codes::JOURNAL_DIVERGED,
    codes::JOURNAL_FULL,
    codes::JOURNAL_UNREADABLE,
    codes::PANICKED,
    codes::PAYLOAD_INVALID,
    codes::PAYLOAD_TOO_LARGE,
    codes::STEP_FAILED,
    codes::UNDO_FAILED,
];

fn told(mut failure: Value) -> Value {
    if OWN_FAULTS.iter().any(|code| failure["code"] == *code) {
        let detail = "The shop could not carry out this checkout. Nothing was bought, and no money is kept.";
        failure = serde_json::json!({ "code": failure["code"], "detail": detail });
    }
    failure
}

fn wire(amount: Option<rust_decimal::Decimal>, currency: Option<&str>) -> String {
    let currency = currency.and_then(|code| code.parse().ok()).unwrap_or(domain::money::Currency::INR);
    domain::money::to_wire(amount.unwrap_or_default(), currency)
}

/// Of these checkouts, those that are no longer RUNNING, and whether they have ended. One statement
/// for everybody who waits.
pub async fn settled(pool: &PgPool, workflow_ids: &[Uuid]) -> Result<Vec<(Uuid, bool)>, sqlx::Error> {
    engine::run::settled(pool, workflow_ids, &SHOWN_WAITS).await
}
