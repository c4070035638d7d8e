//! What surrounds every request: its id, its span, its count, its safe headers.

use std::{any::Any, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use domain::card_data::mentions_card_number;
use tracing::{Instrument, field::Empty};
use uuid::Uuid;

use crate::error::ApiError;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a client.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Longest path that is logged; those of ours are shorter.
const MAX_LOGGED_PATH_BYTES: usize = 256;

/// Gives the request an id and a span, and counts it. Neither bodies nor credentials are recorded, and
/// of the target only the path, since a query may hold somebody's address.
pub(crate) async fn record(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| is_sane(id.as_bytes()))
        .cloned()
        .unwrap_or_else(|| uuid_header(Uuid::now_v7()));
    let method = method_name(request.method());
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!(
        "request",
        method,
        path = logged(request.uri().path()),
        request_id = id.to_str().unwrap_or_default(),
        status = Empty,
    );
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    span.record("status", status);
    span.in_scope(|| tracing::info!(elapsed_ms = elapsed.as_millis(), "answered"));
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("cart_engine_http_requests_total", &labels).increment(1);
    metrics::histogram!("cart_engine_http_request_seconds", &labels).record(elapsed.as_secs_f64());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A method as a label: anybody may make one up, and each label is kept for ever.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or("other")
}

/// The beginning of a path: it is ASCII, or it would not be one. What somebody typed into it may be a card number.
fn logged(path: &str) -> &str {
    // However its digits are written, and kept apart: %20 and the like are digits more.
    let plain = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let shown = path.get(..MAX_LOGGED_PATH_BYTES).unwrap_or(path);
    if mentions_card_number(&plain) { "(with a card number)" } else { shown }
}

/// An id from outside goes into logs: only what cannot break one, and no card number.
fn is_sane(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
        && std::str::from_utf8(id).is_ok_and(|id| !mentions_card_number(id))
}

fn uuid_header(id: Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or_else(|_| HeaderValue::from_static("none"))
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
        assert!(!is_sane(b"4111111111111111") && !is_sane(b"a:4111-1111-1111-1111"));
    }

    #[test]
    fn a_card_number_in_a_path_is_not_logged() {
        for path in ["/api/orders/ORD0000000018", "/api/carts/a1b2c3d4-4111-7111-8111-111111111111/items", "/%FF%"] {
            assert_eq!(logged(path), path);
        }
        for path in [
            "/api/orders/4111111111111111",
            "/api/orders/4111%201111%201111%201111",
            "/api/orders/4111%2e1111%2E1111%2e1111",
            "/api/orders/4111%E2%80%8B1111%E2%80%8B1111%E2%80%8B1111",
            "/api/orders/%EF%BC%94111111111111111",
            "/api/payments/tok_4111111111111111",
        ] {
            assert_eq!(logged(path), "(with a card number)");
        }
    }
}
