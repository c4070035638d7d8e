//! The same key and the same request get the same answer, however often they come.
//!
//! The answer is stored in the transaction whose effect it describes: no answer without its effect, no
//! effect without its answer. Only 2xx answers are kept, for 24 hours, per caller.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use sqlx::PgConnection;

use crate::error::ApiError;

mod answers;

use answers::{Kept, LockError};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A client's key together with the digest of what it was sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    key: String,
    request_hash: [u8; 32],
}

impl IdempotencyKey {
    /// A key, and the digest of what came with it.
    pub fn new(key: String, request_hash: [u8; 32]) -> Self {
        IdempotencyKey { key, request_hash }
    }
}

/// An answer given before; as a response it says `Idempotent-Replayed: true`.
#[derive(Debug)]
pub struct Replay {
    /// The status it had.
    pub status: StatusCode,
    /// The body it had.
    pub body: Value,
}

/// Whether a request is new.
#[derive(Debug)]
pub enum Begun {
    /// Never answered: do it, then [`finish`].
    Fresh,
    /// Answered before: answer the same, change nothing.
    Replay(Replay),
}

impl IntoResponse for Replay {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body)).into_response();
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

/// Takes hold of the key until the transaction of `conn` ends, then looks for an earlier answer.
///
/// `caller` is what `Caller::key` says. Waits at most two seconds for a request that has the key in hand,
/// and leaves that limit on every later lock of the transaction.
///
/// # Errors
/// 409 `idempotency-in-progress` with `Retry-After` while another request with the key is under way;
/// 422 `idempotency-key-reused` when the key came with another request before.
pub async fn begin(conn: &mut PgConnection, caller: &str, key: &IdempotencyKey) -> Result<Begun, ApiError> {
    if let Err(error) = answers::lock(conn, caller, &key.key).await {
        return Err(match error {
            LockError::InHand => {
                ApiError::conflict("idempotency-in-progress", "A request with this key is still being carried out.")
                    .retry_after(1)
            }
            LockError::Database(error) => error.into(),
        });
    }
    let found = answers::find(conn, &[caller.to_owned()], std::slice::from_ref(&key.key)).await?;
    as_begun(found.into_iter().next().flatten(), key)
}

fn as_begun(answer: Option<answers::Answer>, key: &IdempotencyKey) -> Result<Begun, ApiError> {
    let Some(answer) = answer else { return Ok(Begun::Fresh) };
    if answer.request_hash != key.request_hash {
        return Err(ApiError::unprocessable(
            "idempotency-key-reused",
            "This key was used for another request; draw a new one.",
        ));
    }
    let status = u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    Ok(Begun::Replay(Replay { status: status.unwrap_or(StatusCode::OK), body: answer.body }))
}

/// [`begin`] for many requests of one transaction, in their order. Keys that somebody else has in hand are
/// not waited for: `None`.
///
/// # Errors
/// The database's own.
pub(crate) async fn begin_many(
    conn: &mut PgConnection,
    requests: &[(&str, &IdempotencyKey)],
) -> Result<Vec<Option<Result<Begun, ApiError>>>, sqlx::Error> {
    let callers: Vec<String> = requests.iter().map(|(caller, _)| (*caller).to_owned()).collect();
    let keys: Vec<String> = requests.iter().map(|(_, key)| key.key.clone()).collect();
    let locked = answers::try_lock(conn, &callers, &keys).await?;
    // Another statement: what a lock's last holder has kept is visible to no earlier one.
    let found = answers::find(conn, &callers, &keys).await?;
    let each = requests.iter().zip(locked).zip(found);
    Ok(each.map(|(((_, key), is_locked), answer)| is_locked.then(|| as_begun(answer, key))).collect())
}

/// Keeps a 2xx answer; the transaction of `conn` must be the one that made it true.
///
/// # Errors
/// The database's own.
pub async fn finish(
    conn: &mut PgConnection,
    caller: &str,
    key: &IdempotencyKey,
    status: StatusCode,
    body: &Value,
) -> Result<(), ApiError> {
    debug_assert!(status.is_success(), "only what happened is kept");
    Ok(finish_many(conn, status, &[(caller, key, body)]).await?)
}

/// [`finish`] for many requests of one transaction, each with its own answer.
///
/// # Errors
/// The database's own.
pub(crate) async fn finish_many(
    conn: &mut PgConnection,
    status: StatusCode,
    answered: &[(&str, &IdempotencyKey, &Value)],
) -> Result<(), sqlx::Error> {
    let status = i32::from(status.as_u16());
    let kept: Vec<Kept<'_>> = answered
        .iter()
        .map(|(caller, key, body)| Kept { caller, key: &key.key, request_hash: &key.request_hash, status, body })
        .collect();
    answers::keep(conn, &kept).await
}
