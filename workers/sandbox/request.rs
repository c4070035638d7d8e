//! What every handler reads from a request before it acts.

use axum::extract::{FromRequest, FromRequestParts};
use axum::http::request::Parts;
use serde::Deserialize;
use uuid::Uuid;

use crate::refusal::Refusal;

/// A JSON body; what cannot be read is refused in the API's own error form.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Refusal))]
pub(crate) struct Body<T>(pub(crate) T);

/// A query string, likewise.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Refusal))]
pub(crate) struct Query<T>(pub(crate) T);

/// `?orderId=`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfOrder {
    pub(crate) order_id: String,
}

/// `?orderId=`, or a stretch of time.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wanted {
    pub(crate) order_id: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) until: Option<String>,
    pub(crate) after: Option<String>,
}

/// The `Idempotency-Key` header of a call that changes something.
pub(crate) struct IdempotencyKey(pub(crate) String);

impl IdempotencyKey {
    /// The id of what this key makes: the same key always names the same thing, so that even two
    /// simultaneous calls cannot make it twice.
    pub(crate) fn names(&self, prefix: &str) -> String {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{prefix}:{}", self.0).as_bytes());
        format!("{prefix}_{}", id.simple())
    }
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match parts.headers.get("idempotency-key").map(|value| value.to_str()) {
            Some(Ok(key)) if (1..=255).contains(&key.len()) => Ok(IdempotencyKey(key.to_owned())),
            Some(Ok(_)) | Some(Err(_)) | None => Err(Refusal::KeyRequired),
        }
    }
}

/// Refuses a text that is empty or longer than `limit` bytes.
pub(crate) fn bounded(text: &str, limit: usize, complaint: &'static str) -> Result<(), Refusal> {
    if (1..=limit).contains(&text.len()) { Ok(()) } else { Err(Refusal::Invalid(complaint)) }
}
