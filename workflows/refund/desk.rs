//! What people make of a refund that the gateway has refused.

use domain::{
    ids::OrderId,
    refund::{InvalidRefundTransition, RefundStatus},
};
use engine::run::Delivery;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::{
    audit_log::{self, Action},
    orders,
    refunds::{
        self, PaidBack,
        held::{self, RefundHead},
    },
};

/// A person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Decision {
    /// It is sent again, under a key of its own.
    Resend,
    /// It was paid by other means.
    Settle,
}

impl Decision {
    /// Where it leads.
    pub fn leads_to(self) -> RefundStatus {
        match self {
            Decision::Resend => RefundStatus::Pending,
            Decision::Settle => RefundStatus::Succeeded,
        }
    }

    /// As the audit log names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Resend => "refund.resend",
            Decision::Settle => "refund.settle",
        }
    }
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum RefundRefusal {
    /// There is no such refund.
    #[error("there is no such refund")]
    NotFound,
    /// It was not refused, or somebody has decided already.
    #[error(transparent)]
    Invalid(#[from] InvalidRefundTransition),
    /// Its run is not there to hear of it.
    #[error("the run of this refund does not wait for a decision")]
    NobodyWaits,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// The signal that a run waits for which has refunds under way, or refused.
pub(crate) const NEWS: &str = "refund";

/// What that signal says of one of them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct News {
    pub(crate) refund_id: Uuid,
    /// What a person has decided; without, the gateway has something to say.
    pub(crate) decision: Option<Decision>,
}

/// A person decides: the refund moves, its run hears of it, and the audit log says who and why; or none of it.
///
/// # Errors
/// [`RefundRefusal`]; the caller rolls back then.
pub async fn decide(
    conn: &mut PgConnection,
    refund_id: Uuid,
    decision: Decision,
    by: &str,
    reason: &str,
) -> Result<RefundHead, RefundRefusal> {
    let found = held::find(conn, refund_id).await?.ok_or(RefundRefusal::NotFound)?;
    let order_id = OrderId::from(found.order_id);
    orders::lock(conn, order_id).await?;
    // Again: what the lock's last holder wrote is visible to no earlier statement.
    let found = held::find(conn, refund_id).await?.ok_or(RefundRefusal::NotFound)?;
    let from = found.status;
    // PENDING → SUCCEEDED is an arrow too, but the gateway's.
    if from != RefundStatus::Failed {
        return Err(InvalidRefundTransition { from, to: decision.leads_to() }.into());
    }
    let now = engine::now(&mut *conn).await?;
    let has_moved = match decision {
        Decision::Resend => refunds::reopen(conn, refund_id, now).await?,
        Decision::Settle => refunds::settle(conn, order_id, &found.due(), PaidBack::Instead, now).await?,
    };
    if !has_moved {
        return Err(RefundRefusal::NobodyWaits);
    }
    let key = Uuid::now_v7().to_string();
    let news = News { refund_id, decision: Some(decision) };
    match engine::run::signal(conn, found.run_id, NEWS, &key, &news).await? {
        Delivery::Delivered => {}
        Delivery::Duplicate | Delivery::Finished | Delivery::Refused | Delivery::Unknown | Delivery::Invalid => {
            return Err(RefundRefusal::NobodyWaits);
        }
    }
    // It may have been parked meanwhile, over something else.
    engine::park::unpark(conn, found.run_id, by, reason).await?;
    let (subject, details) =
        (format!("refund:{refund_id}"), json!({ "orderId": found.order_id, "was": found.failure }));
    let action = Action {
        actor: by,
        action: decision.as_str(),
        subject: &subject,
        reason: Some(reason),
        details: Some(&details),
    };
    audit_log::record(conn, action).await?;
    held::find(conn, refund_id).await?.ok_or(RefundRefusal::NotFound)
}
