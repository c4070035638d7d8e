//! What surrounds every request: its id, its span, its time limit, its place among the others.

use std::{any::Any, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::{Instrument, field::Empty};
use uuid::Uuid;

use crate::{error::ApiError, state::AppState};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a client.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Gives the request an id and a span, and counts it. Neither bodies nor credentials are recorded, and
/// of the target only the path, since a query may hold somebody's address.
pub(crate) async fn record(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| is_sane(id.as_bytes()))
        .cloned()
        .unwrap_or_else(|| uuid_header(Uuid::now_v7()));
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!(
        "request",
        %method,
        path = request.uri().path(),
        request_id = id.to_str().unwrap_or_default(),
        status = Empty,
    );
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    span.record("status", status);
    span.in_scope(|| tracing::info!(elapsed_ms = elapsed.as_millis(), "answered"));
    let labels = [("method", method.to_string()), ("route", route), ("status", status.to_string())];
    metrics::counter!("cart_engine_http_requests_total", &labels).increment(1);
    metrics::histogram!("cart_engine_http_request_seconds", &labels).record(elapsed.as_secs_f64());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// An id from outside goes into logs: only what cannot break one.
fn is_sane(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
}

fn uuid_header(id: Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// Bounds what is in hand at once, how long each takes and how large it is.
///
/// # Errors
/// 503 `overloaded`, 503 `timeout`, 413 `body-too-large`; each before anything was done, the time-out
/// apart: there the transaction was rolled back, or had already committed.
pub(crate) async fn bound(State(state): State<AppState>, request: Request, next: Next) -> Result<Response, ApiError> {
    let Ok(_place) = state.admission.try_acquire() else {
        metrics::counter!("cart_engine_http_shed_total").increment(1);
        return Err(ApiError::overloaded());
    };
    if declared_length(&request) > state.config.max_body_bytes {
        return Err(ApiError::body_too_large(state.config.max_body_bytes));
    }
    tokio::time::timeout(state.config.request_timeout, next.run(request)).await.map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "The request took too long.").retry_after(1)
    })
}

fn declared_length(request: &Request) -> usize {
    request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .unwrap_or_default()
}

/// A panic in a handler is our fault and one request's end, not the process's.
#[expect(clippy::needless_pass_by_value, reason = "the signature CatchPanicLayer asks for")]
pub(crate) fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let message = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned());
    ApiError::internal(message).into_response()
}

/// Headers that cost nothing and close doors (OWASP secure headers). A page sets its own policy.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_id_that_cannot_break_a_log_is_taken_over() {
        assert!(is_sane(b"0190c1e2-7b1c-7000-8000-1234567890ab"));
        assert!(is_sane(b"trace:1.2_3"));
        assert!(!is_sane(b""));
        assert!(!is_sane(b"a b"));
        assert!(!is_sane("ü".as_bytes()));
        assert!(!is_sane(&[b'a'; 129]));
    }
}
