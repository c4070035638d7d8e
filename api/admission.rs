//! A place among the requests in hand: taken when the request is all here, and never by waiting for the
//! client.
//!
//! A body first comes in, in its time and within its size, and only then counts as in hand; so whoever
//! trickles holds a connection and nothing else. Long polls have places of their own: they do nothing most
//! of the time, and there may be many.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use futures::StreamExt as _;
use serving::TooSlow;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{error::ApiError, state::AppState, watch::LONGEST_WAIT_S};

/// Takes the body in. What has come of all bodies together is bounded as well.
///
/// # Errors
/// 413 `body-too-large`, 408 `request-timeout`, 400 `malformed-body` when the connection broke, 503
/// `overloaded`.
pub(crate) async fn receive(State(state): State<AppState>, request: Request, next: Next) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let most = state.config.max_body_bytes;
    if declared_length(&parts.headers) > most {
        return Err(ApiError::body_too_large(most));
    }
    let (body, _room) = collect(body, most, &state.arriving).await?;
    Ok(next.run(Request::from_parts(parts, body.into())).await)
}

async fn collect(
    body: Body,
    most: usize,
    arriving: &Semaphore,
) -> Result<(Bytes, Option<SemaphorePermit<'_>>), ApiError> {
    if body.is_end_stream() {
        return Ok((Bytes::new(), None));
    }
    let (mut whole, mut room) = (Vec::new(), None::<SemaphorePermit<'_>>);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(unreadable)?;
        if whole.len() + chunk.len() > most {
            return Err(ApiError::body_too_large(most));
        }
        // A chunk is smaller than a body.
        let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let more = arriving.try_acquire_many(bytes).map_err(|_| shed())?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        whole.extend_from_slice(&chunk);
    }
    Ok((whole.into(), room))
}

fn declared_length(headers: &HeaderMap) -> usize {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or_default()
}

fn unreadable(error: axum::Error) -> ApiError {
    let error = error.into_inner();
    if error.is::<TooSlow>() {
        return ApiError::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "The body took too long to arrive.");
    }
    ApiError::bad_request("malformed-body", "The body could not be read.").caused_by(error)
}

fn shed() -> ApiError {
    metrics::counter!("cart_engine_http_shed_total").increment(1);
    ApiError::overloaded()
}

/// Bounds what is in hand at once, and how long each takes.
///
/// # Errors
/// 503 `overloaded` before anything was done; 503 `timeout`: the transaction was rolled back, or had
/// already committed.
pub(crate) async fn admit(State(state): State<AppState>, request: Request, next: Next) -> Result<Response, ApiError> {
    let places = if is_long_poll(&request) { &state.polls } else { &state.admission };
    let _place = places.try_acquire().map_err(|_| shed())?;
    let patience = state.config.request_timeout + awaited(request.uri().query().unwrap_or_default());
    tokio::time::timeout(patience, next.run(request)).await.map_err(|_| ApiError::timeout())
}

/// How long a long poll asks to be kept waiting.
fn awaited(query: &str) -> Duration {
    let seconds = query.split('&').find_map(|pair| pair.strip_prefix("wait=")?.parse().ok()).unwrap_or_default();
    Duration::from_secs(LONGEST_WAIT_S.min(seconds))
}

fn is_long_poll(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == Method::GET
        && request.uri().path().starts_with("/api/checkout/")
        && query.split('&').any(|parameter| parameter.starts_with("wait="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_poll_is_given_the_time_it_asks_for_and_no_more() {
        for (query, seconds) in
            [("", 0), ("wait=20&for=end", 20), ("for=end&wait=31", 30), ("wait=x", 0), ("await=9", 0)]
        {
            assert_eq!(awaited(query), Duration::from_secs(seconds), "{query}");
        }
    }

    #[test]
    fn a_long_poll_is_known_by_its_wait() {
        for (target, is_one) in [
            ("/api/checkout/x?wait=30", true),
            ("/api/checkout/x?for=end&wait=30", true),
            ("/api/checkout/x?for=end", false),
            ("/api/products?wait=30", false),
        ] {
            let request = Request::get(target).body(Body::empty()).expect("a request");
            assert_eq!(is_long_poll(&request), is_one, "{target}");
        }
    }
}
