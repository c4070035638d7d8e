//! What an operator does to a run: have it tried again, let it go on, call it off, tell it something. Each is
//! written down with who and why, in the transaction that does it.
//!
//! Whoever offers these to people, be it a command line or a page, comes here.

use engine::{
    RunStatus, Workflow as _,
    park::{self, Unparked},
    run::{self, Delivery, Glance},
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    cancellation::Cancellation,
    checkout::{
        Checkout, attempt,
        pay::{self, Word},
    },
    fraud,
    order_return::{ARRIVAL, DECISION, OrderReturn},
    refund::{RefundPayment, desk::NEWS},
    store::audit_log::{self, Action},
};

/// Longest reason, in characters.
pub const MAX_REASON_CHARS: usize = 500;
/// Longest name of a signal, in characters.
const MAX_NAME_CHARS: usize = 100;

/// Who does it, and why.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'a> {
    by: &'a str,
    reason: &'a str,
}

impl<'a> Operator<'a> {
    /// `by` as the audit log names people, e.g. `user:<id>` or `operator:<name>`.
    ///
    /// # Errors
    /// [`OperationError::Reason`], [`OperationError::Nobody`].
    pub fn new(by: &'a str, reason: &'a str) -> Result<Self, OperationError> {
        let (by, reason) = (by.trim(), reason.trim());
        if by.is_empty() || by.contains('\0') {
            return Err(OperationError::Nobody);
        }
        if reason.is_empty() || reason.contains('\0') || reason.chars().count() > MAX_REASON_CHARS {
            return Err(OperationError::Reason);
        }
        Ok(Operator { by, reason })
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// A parked run goes on where its journal ends.
    GoesOn,
    /// A run that backed off is tried again now.
    TriedNow,
    /// It unwinds at its next safe point.
    Unwinds,
    /// It was unwinding, or asked to, before.
    UnwoundBefore,
    /// It has the signal, or will find it.
    Told,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There is no such run, or not any more.
    #[error("there is no run {0}")]
    Unknown(Uuid),
    /// It is over.
    #[error("run {run_id} has ended: it is {status}")]
    Ended {
        /// Which.
        run_id: Uuid,
        /// COMPLETED, FAILED or CANCELLED.
        status: RunStatus,
    },
    /// Only a parked run can be let go on.
    #[error("run {run_id} is not parked: it is {status}")]
    NotParked {
        /// Which.
        run_id: Uuid,
        /// Where it stands.
        status: RunStatus,
    },
    /// Nothing of it has failed.
    #[error("run {run_id} waits for no other attempt: it is {status}")]
    NothingToRetry {
        /// Which.
        run_id: Uuid,
        /// Where it stands.
        status: RunStatus,
    },
    /// It only goes forward.
    #[error("run {0} has passed its point of no return, and cannot be cancelled any more")]
    Forward(Uuid),
    /// It has a thousand signals.
    #[error("run {0} takes no more signals")]
    Full(Uuid),
    /// The name of a signal is none.
    #[error("a signal's name has 1 to {MAX_NAME_CHARS} characters")]
    Name,
    /// Runs of this workflow never wait for it.
    #[error("run {run_id} never waits for {name}")]
    Unawaited {
        /// Which.
        run_id: Uuid,
        /// The signal's name.
        name: String,
    },
    /// More than the run must hear of it.
    #[error("{name} is decided at {desk}")]
    Elsewhere {
        /// The signal's name.
        name: String,
        /// Where.
        desk: &'static str,
    },
    /// The payload of a signal is not what the run could read, is too large, or has what Postgres cannot keep.
    #[error("that is no payload of this signal: the run could not read it")]
    Payload,
    /// Nobody says why.
    #[error("a reason of 1 to {MAX_REASON_CHARS} characters is required")]
    Reason,
    /// Nobody says who.
    #[error("somebody must have done it")]
    Nobody,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Has a run tried again at once: one that backs off after a failed attempt, or is parked.
///
/// # Errors
/// [`OperationError`]; nothing is written then.
pub async fn retry(conn: &mut PgConnection, run_id: Uuid, operator: Operator<'_>) -> Result<Done, OperationError> {
    let done = if park::hurry(conn, run_id).await? {
        Done::TriedNow
    } else {
        match park::unpark(conn, run_id, operator.by, operator.reason).await? {
            Unparked::Resumed => Done::GoesOn,
            Unparked::NotParked | Unparked::Unknown => {
                let Glance { status, .. } = living(conn, run_id).await?;
                return Err(OperationError::NothingToRetry { run_id, status });
            }
        }
    };
    note(conn, "run.retry", run_id, operator, None).await?;
    Ok(done)
}

/// Lets a parked run go on where its journal ends: forward, or with its unwinding if that is what it was at.
///
/// # Errors
/// [`OperationError`]; nothing is written then.
pub async fn resume(conn: &mut PgConnection, run_id: Uuid, operator: Operator<'_>) -> Result<Done, OperationError> {
    match park::unpark(conn, run_id, operator.by, operator.reason).await? {
        Unparked::Resumed => {}
        Unparked::NotParked | Unparked::Unknown => {
            let Glance { status, .. } = living(conn, run_id).await?;
            return Err(OperationError::NotParked { run_id, status });
        }
    }
    note(conn, "run.resume", run_id, operator, None).await?;
    Ok(Done::GoesOn)
}

/// Has a run take back what it did. One that is parked goes on in order to.
///
/// # Errors
/// [`OperationError`]; nothing is written then.
pub async fn cancel(conn: &mut PgConnection, run_id: Uuid, operator: Operator<'_>) -> Result<Done, OperationError> {
    let done = match run::cancel(conn, run_id, operator.reason).await? {
        Delivery::Delivered => Done::Unwinds,
        Delivery::Duplicate => Done::UnwoundBefore,
        Delivery::Refused => return Err(OperationError::Forward(run_id)),
        Delivery::Invalid => return Err(OperationError::Payload),
        Delivery::Finished | Delivery::Unknown => return Err(gone(conn, run_id).await?),
    };
    park::unpark(conn, run_id, operator.by, operator.reason).await?;
    note(conn, "run.cancel", run_id, operator, None).await?;
    Ok(done)
}

/// Signals by their workflow, and what an operator may say with them. What is decided at a desk of its own
/// is decided there: more than the run must hear of it.
const SIGNALS: &[(&str, &str, Sayable)] = &[
    (Checkout::NAME, pay::SIGNAL, Sayable::By(|payload| Word::deserialize(payload).is_ok())),
    (Checkout::NAME, attempt::SIGNAL, Sayable::At("POST /api/payments/process")),
    (Checkout::NAME, fraud::SIGNAL, Sayable::At("POST /api/orders/{id}/review")),
    (RefundPayment::NAME, NEWS, Sayable::At("POST /api/refunds/{id}/resend or /settle")),
    (Cancellation::NAME, NEWS, Sayable::At("POST /api/refunds/{id}/resend or /settle")),
    (OrderReturn::NAME, NEWS, Sayable::At("POST /api/refunds/{id}/resend or /settle")),
    (OrderReturn::NAME, DECISION, Sayable::At("POST /api/returns/{id}/approve or /reject")),
    (OrderReturn::NAME, ARRIVAL, Sayable::At("POST /api/returns/{id}/receive or /reject")),
];

/// What an operator may say.
enum Sayable {
    /// What this takes for a payload of it.
    By(fn(&Value) -> bool),
    /// Nothing here: there.
    At(&'static str),
}

/// Tells a run what it waits for, as whoever it waits for would.
///
/// # Errors
/// [`OperationError`]; nothing is written then.
pub async fn signal(
    conn: &mut PgConnection,
    run_id: Uuid,
    name: &str,
    payload: &Value,
    operator: Operator<'_>,
) -> Result<Done, OperationError> {
    if name.is_empty() || name.contains('\0') || name.chars().count() > MAX_NAME_CHARS {
        return Err(OperationError::Name);
    }
    let run = living(conn, run_id).await?;
    match SIGNALS.iter().find(|(workflow, signal, _)| *workflow == run.workflow && *signal == name) {
        Some((_, _, Sayable::By(is_readable))) if is_readable(payload) => {}
        Some((_, _, Sayable::By(_))) => return Err(OperationError::Payload),
        Some((_, _, Sayable::At(desk))) => return Err(OperationError::Elsewhere { name: name.to_owned(), desk }),
        None => return Err(OperationError::Unawaited { run_id, name: name.to_owned() }),
    }
    let key = format!("operator/{}", Uuid::now_v7());
    match run::signal(conn, run_id, name, &key, payload).await? {
        Delivery::Delivered | Delivery::Duplicate => {}
        Delivery::Refused => return Err(OperationError::Full(run_id)),
        Delivery::Invalid => return Err(OperationError::Payload),
        Delivery::Finished | Delivery::Unknown => return Err(gone(conn, run_id).await?),
    }
    note(conn, "run.signal", run_id, operator, Some(&json!({ "signal": name, "payload": payload }))).await?;
    Ok(Done::Told)
}

/// Where a living run stands.
async fn living(conn: &mut PgConnection, run_id: Uuid) -> Result<Glance, OperationError> {
    match run::glance(conn, run_id).await? {
        Some(run) if !run.status.has_ended() => Ok(run),
        Some(run) => Err(OperationError::Ended { run_id, status: run.status }),
        None => Err(OperationError::Unknown(run_id)),
    }
}

/// Why there is nobody to be told.
async fn gone(conn: &mut PgConnection, run_id: Uuid) -> Result<OperationError, OperationError> {
    living(conn, run_id).await.map(|_| OperationError::Unknown(run_id)).or_else(Ok)
}

async fn note(
    conn: &mut PgConnection,
    action: &str,
    run_id: Uuid,
    Operator { by, reason }: Operator<'_>,
    details: Option<&Value>,
) -> Result<(), OperationError> {
    let subject = format!("run:{run_id}");
    let action = Action { actor: by, action, subject: &subject, reason: Some(reason), details };
    Ok(audit_log::record(conn, action).await?)
}
