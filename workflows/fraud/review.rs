//! Money that is set aside until somebody has looked: the checkout's wait, and the staff's word.

use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use engine::{
    Failure, Flow, Nothing, RunStatus, SetResult, SetStep, SetTx, StepError, Undo, Undoing,
    run::{self, Delivery},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::refusal;
use crate::store::{
    attempts,
    audit_log::{self, Action},
    fraud::reviews::{self, NewReview, ReviewStatus, Standing},
};

/// The signal that a checkout under review waits for.
pub const SIGNAL: &str = "review";

/// What the staff say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StaffDecision {
    /// The money is taken.
    Approve,
    /// It goes back, and so does the order.
    Reject,
}

impl StaffDecision {
    fn leads_to(self) -> ReviewStatus {
        match self {
            StaffDecision::Approve => ReviewStatus::Approved,
            StaffDecision::Reject => ReviewStatus::Rejected,
        }
    }
}

/// What the signal says: not why, which is the staff's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the money is taken.
    pub decision: StaffDecision,
}

/// The order comes into the staff's queue. One that has been looked at does not come again.
#[derive(Debug)]
pub struct OpenReview {
    /// Which.
    pub order_id: OrderId,
    /// The checkout that waits.
    pub run_id: Uuid,
    /// How long, in seconds: [`super::Screening::review_deadline_s`].
    pub deadline_s: i32,
}

impl SetStep for OpenReview {
    const NAME: &'static str = "OpenReview";
    type Output = Standing;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Standing> {
        let now = tx.now();
        let new: Vec<NewReview> = rows
            .iter()
            .map(|&OpenReview { order_id, run_id, deadline_s }| NewReview { order_id, run_id, deadline_s })
            .collect();
        Ok(reviews::open(tx.conn(), &new, now).await?.into_iter().map(Ok).collect())
    }
}

/// Nobody need look at it any more. What the staff have said stays.
#[derive(Debug)]
pub struct CloseReview {
    /// Which.
    pub order_id: OrderId,
}

impl Undo<Standing> for CloseReview {
    const NAME: Option<&'static str> = Some("CloseReview");

    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, Standing>]) -> Result<(), StepError> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.undo.order_id).collect(), tx.now());
        reviews::end(tx.conn(), &orders, ReviewStatus::Withdrawn, now).await?;
        Ok(())
    }
}

/// Nobody has looked in time. Returns how the review has ended: if somebody has, as they said.
#[derive(Debug)]
pub struct ExpireReview {
    /// Which.
    pub order_id: OrderId,
}

impl SetStep for ExpireReview {
    const NAME: &'static str = "ExpireReview";
    type Output = ReviewStatus;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<ReviewStatus> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.order_id).collect(), tx.now());
        let ended = reviews::end(tx.conn(), &orders, ReviewStatus::Expired, now).await?;
        let status =
            |ended: Option<ReviewStatus>| ended.ok_or_else(|| Failure::new("review-missing", "it was never opened"));
        Ok(ended.into_iter().map(status).collect())
    }
}

/// Whether the money may be taken.
///
/// # Errors
/// [`refusal`] if not.
pub fn passed(status: ReviewStatus) -> Result<(), Failure> {
    match status {
        ReviewStatus::Approved => Ok(()),
        ReviewStatus::Rejected | ReviewStatus::Expired | ReviewStatus::Withdrawn | ReviewStatus::Open => Err(refusal()),
    }
}

/// Puts the order of a run whose payment is authorised into the staff's queue; returns how that stands.
///
/// # Errors
/// Ends the turn, as any step.
pub async fn open_review(flow: &mut Flow, order_id: OrderId, deadline_s: i32) -> engine::Result<Standing> {
    let open = OpenReview { order_id, run_id: flow.id(), deadline_s };
    flow.tx(open).undo(CloseReview { order_id }).await
}

/// Waits, holding no worker, until the staff have said that the money may be taken, and not for longer than the
/// order's rules say.
///
/// # Errors
/// [`refusal`] if they say no, or nothing in time: the run unwinds, and with it the payment.
pub async fn review(flow: &mut Flow, order_id: OrderId, opened: Standing) -> engine::Result<()> {
    let Standing { status, held_until } = opened;
    match status {
        ReviewStatus::Open => {}
        ReviewStatus::Approved | ReviewStatus::Rejected | ReviewStatus::Expired | ReviewStatus::Withdrawn => {
            return passed(status);
        }
    }
    match flow.wait_until::<Verdict>(SIGNAL, held_until).await? {
        Some(Verdict { decision }) => passed(decision.leads_to()),
        None => {
            let ended = flow.tx(ExpireReview { order_id }).undo(Nothing).await?;
            // On record, also when the rest of its commit is not to be.
            flow.checkpoint().await?;
            passed(ended)
        }
    }
}

/// Why the staff's word was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReviewRefusal {
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// It never was under review.
    #[error("the order is not under review")]
    NotUnderReview,
    /// It has ended before.
    #[error("the review has ended: it is {status}")]
    Ended {
        /// How.
        status: ReviewStatus,
    },
    /// Its time is over.
    #[error("the review's time was over at {held_until}")]
    Late {
        /// When.
        held_until: DateTime<Utc>,
    },
    /// The order is being given up, or its checkout does not wait.
    #[error("the order's checkout does not wait for a review")]
    NobodyWaits,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// The staff decide: the review ends, its checkout hears of it, and the audit log says who and why; or none of it.
/// Under the locks of the review and then of the run: of two at the same time one is heard. Returns the run.
///
/// # Errors
/// [`ReviewRefusal`]; the caller rolls back then.
pub async fn decide(
    conn: &mut PgConnection,
    order_id: OrderId,
    decision: StaffDecision,
    reason: &str,
    who: &str,
    now: DateTime<Utc>,
) -> Result<Uuid, ReviewRefusal> {
    let Some(review) = reviews::lock(conn, order_id).await? else {
        let is_known = attempts::payable(conn, order_id).await?.is_some();
        return Err(if is_known { ReviewRefusal::NotUnderReview } else { ReviewRefusal::NotFound });
    };
    let Standing { status, held_until } = review.standing;
    match status {
        ReviewStatus::Open if now >= held_until => return Err(ReviewRefusal::Late { held_until }),
        ReviewStatus::Open => {}
        ReviewStatus::Approved | ReviewStatus::Rejected | ReviewStatus::Expired | ReviewStatus::Withdrawn => {
            return Err(ReviewRefusal::Ended { status });
        }
    }
    let run = run::lock(conn, review.run_id).await?.ok_or(ReviewRefusal::NobodyWaits)?;
    let is_waiting = run.status == RunStatus::Waiting && run.waiting_for.as_deref() == Some(SIGNAL);
    if !is_waiting || run.is_asked_to_stop {
        return Err(ReviewRefusal::NobodyWaits);
    }
    if !reviews::decide(conn, order_id, decision.leads_to(), who, reason, now).await? {
        return Err(ReviewRefusal::NobodyWaits);
    }
    match run::signal(conn, review.run_id, SIGNAL, &order_id.to_string(), &Verdict { decision }).await? {
        Delivery::Delivered => {}
        Delivery::Duplicate | Delivery::Finished | Delivery::Refused | Delivery::Unknown | Delivery::Invalid => {
            return Err(ReviewRefusal::NobodyWaits);
        }
    }
    let (subject, details) =
        (format!("order:{order_id}"), json!({ "decision": decision, "workflowId": review.run_id }));
    let action =
        Action { actor: who, action: "order.review", subject: &subject, reason: Some(reason), details: Some(&details) };
    audit_log::record(conn, action).await?;
    Ok(review.run_id)
}
