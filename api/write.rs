//! Writes over HTTP: a key is read together with a digest of what it was sent with, and what is done under it is one
//! transaction with the answer that is kept for its retry.

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts, Request, State},
    http::{HeaderValue, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use domain::card_data::mentions_card_number;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Postgres, Transaction};
use workflows::store::audit_log::{self, Action};

use crate::{
    caller::Caller,
    error::ApiError,
    extract::read_body,
    idempotency::{self, Begun, IdempotencyKey, Replay},
    state::AppState,
};

const HEADER: &str = "idempotency-key";

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// What has begun; a handler whose request was answered before returns that answer.
macro_rules! begun {
    ($begun:expr) => {
        match $begun {
            Ok(write) => write,
            Err(replay) => return Ok(axum::response::IntoResponse::into_response(replay)),
        }
    };
}
pub(crate) use begun;

/// A write of a known caller, in one transaction with the answer that is kept for its retry. Without a
/// key it is an ordinary transaction.
pub(crate) struct Write {
    tx: Transaction<'static, Postgres>,
    caller: String,
    key: Option<IdempotencyKey>,
}

impl Write {
    /// Begins, or finds what was answered before.
    ///
    /// # Errors
    /// As [`idempotency::begin`]; 401 `login-required` for an anonymous caller.
    pub(crate) async fn begin(
        state: &AppState,
        caller: &Caller,
        key: Option<IdempotencyKey>,
    ) -> Result<Result<Write, Replay>, ApiError> {
        let caller = caller.key()?;
        let mut tx = state.pool.begin().await?;
        if let Some(key) = &key
            && let Begun::Replay(replay) = idempotency::begin(&mut tx, &caller, key).await?
        {
            return Ok(Err(replay));
        }
        Ok(Ok(Write { tx, caller, key }))
    }

    /// Begins a write that is the same however often it comes, and needs no key.
    ///
    /// # Errors
    /// 401 `login-required` for an anonymous caller.
    pub(crate) async fn once(state: &AppState, caller: &Caller) -> Result<Write, ApiError> {
        Ok(Write { caller: caller.key()?, tx: state.pool.begin().await?, key: None })
    }

    /// The transaction's connection.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Notes in the audit log what the caller did, to which thing (`kind:<id>`), and why, in their own words.
    ///
    /// # Errors
    /// The database's own.
    pub(crate) async fn note(
        &mut self,
        action: &str,
        subject: &str,
        reason: Option<&str>,
        details: &Value,
    ) -> Result<(), ApiError> {
        let act = Action { actor: &self.caller, action, subject, reason, details: Some(details) };
        audit_log::record(&mut self.tx, act).await?;
        Ok(())
    }

    /// Commits; there is nothing to answer.
    ///
    /// # Errors
    /// The database's own.
    pub(crate) async fn done(self) -> Result<(), ApiError> {
        self.tx.commit().await?;
        Ok(())
    }

    /// Commits, and answers.
    ///
    /// # Errors
    /// The database's own.
    pub(crate) async fn answer(mut self, status: StatusCode, view: &impl Serialize) -> Result<Response, ApiError> {
        let body = serde_json::to_value(view).map_err(ApiError::internal)?;
        if let Some(key) = &self.key {
            idempotency::finish(&mut self.tx, &self.caller, key, status, &body).await?;
        }
        self.tx.commit().await?;
        Ok((status, axum::Json(body)).into_response())
    }
}

/// Digests method, target and body of each request that carries a key, for the extractor to find.
///
/// # Errors
/// 400 `idempotency-key-invalid` for a key that is empty or too long, 413 for too large a body.
pub(crate) async fn digest_requests(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(value) = request.headers().get(HEADER) else { return Ok(next.run(request).await) };
    let key = parse(value)?;
    let (mut parts, body) = request.into_parts();
    let body = read_body(Request::from_parts(parts.clone(), body), &state).await?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let request_hash = digest(parts.method.as_str(), target, &body);
    parts.extensions.insert(IdempotencyKey::new(key, request_hash));
    Ok(next.run(Request::from_parts(parts, body.into())).await)
}

fn parse(value: &HeaderValue) -> Result<String, ApiError> {
    let key = value.to_str().unwrap_or_default().trim();
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(ApiError::bad_request(
            "idempotency-key-invalid",
            format!("Idempotency-Key must have 1 to {MAX_KEY_BYTES} printable characters."),
        ));
    }
    if mentions_card_number(key) {
        return Err(ApiError::unprocessable("card-data-refused", "The Idempotency-Key looks like card data."));
    }
    Ok(key.to_owned())
}

/// The lengths keep "/a" + "bc" apart from "/ab" + "c".
fn digest(method: &str, target: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [method.as_bytes(), target.as_bytes(), body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// As an extractor it is required (400 `idempotency-key-required`), as `Option<IdempotencyKey>` it is not. It only
/// works on routes under `digest_requests`.
impl FromRequestParts<AppState> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(|| {
            ApiError::bad_request(
                "idempotency-key-required",
                "Send an Idempotency-Key header, so that a retry cannot do this twice.",
            )
        })
    }
}

impl OptionalFromRequestParts<AppState> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Option<Self>, ApiError> {
        Ok(parts.extensions.get().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_method_path_or_body_is_another_request() {
        let base = digest("POST", "/api/checkout", b"{}");
        assert_eq!(base, digest("POST", "/api/checkout", b"{}"));
        assert_ne!(base, digest("PUT", "/api/checkout", b"{}"));
        assert_ne!(base, digest("POST", "/api/checkout{", b"}"));
    }

    #[test]
    fn a_key_has_1_to_255_characters() {
        for (key, fine) in
            [("k", true), ("", false), ("   ", false), (&"x".repeat(255), true), (&"x".repeat(256), false)]
        {
            assert_eq!(parse(&HeaderValue::from_str(key).expect("a value")).is_ok(), fine, "{key}");
        }
    }
}
