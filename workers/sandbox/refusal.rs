//! Why a call was refused, and how that looks on the wire: `{"code", "detail"}`.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Everything the gateway may answer besides a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the header Idempotency-Key (1 to 255 characters) is required")]
    KeyRequired,
    #[error("this idempotency key was used with another request")]
    KeyReused,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{0}")]
    Body(#[from] JsonRejection),
    #[error("{0}")]
    Query(#[from] QueryRejection),
    #[error("no such payment")]
    NotFound,
    #[error("the payment was not captured")]
    NotCaptured,
    #[error("refunds may not exceed what was captured")]
    RefundTooLarge,
    #[error("this refund failed, as its token asked; the next one works")]
    RefundFails,
    #[error("too many calls, as its token asked; the next one works")]
    TooMany,
    #[error("the gateway gave no answer in time; the outcome is unknown")]
    NoAnswer,
    #[error("the gateway's database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("the gateway keeps a record that it cannot read")]
    Unreadable(#[from] serde_json::Error),
}

impl Refusal {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Refusal::KeyRequired => (StatusCode::BAD_REQUEST, "idempotency-key-required"),
            Refusal::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused"),
            Refusal::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-request"),
            Refusal::Body(rejection) => (rejection.status(), "invalid-request"),
            Refusal::Query(rejection) => (rejection.status(), "invalid-request"),
            Refusal::NotFound => (StatusCode::NOT_FOUND, "payment-not-found"),
            Refusal::NotCaptured => (StatusCode::CONFLICT, "payment-not-captured"),
            Refusal::RefundTooLarge => (StatusCode::UNPROCESSABLE_ENTITY, "refund-exceeds-captured"),
            Refusal::TooMany => (StatusCode::TOO_MANY_REQUESTS, "rate-limited"),
            Refusal::RefundFails => (StatusCode::INTERNAL_SERVER_ERROR, "refund-failed"),
            Refusal::NoAnswer => (StatusCode::GATEWAY_TIMEOUT, "no-answer"),
            Refusal::Database(_) => (StatusCode::SERVICE_UNAVAILABLE, "database-unavailable"),
            Refusal::Unreadable(_) => (StatusCode::INTERNAL_SERVER_ERROR, "record-unreadable"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if let Refusal::Database(error) = &self {
            tracing::warn!(%error, "the sandbox gateway could not reach its database");
        }
        let (status, code) = self.status_and_code();
        let retry_after = matches!(self, Refusal::TooMany).then_some([(header::RETRY_AFTER, "1")]);
        (status, retry_after, Json(json!({ "code": code, "detail": self.to_string() }))).into_response()
    }
}
