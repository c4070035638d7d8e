//! A place among the requests in hand: taken when the request is all here, and never by waiting for the
//! client.
//!
//! A body first comes in, in its time and within its size, and only then counts as in hand; so whoever
//! trickles holds a connection and nothing else. Long polls have places of their own: they do nothing most
//! of the time, and there may be many.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{Query, Request, State},
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
        return Err(ApiError::body_too_large(most).closing());
    }
    let (body, _room) = collect(body, most, &state.arriving).await.map_err(ApiError::closing)?;
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
    let (places, awaited) = match asked_to_wait(&request) {
        Some(awaited) => (&state.polls, awaited),
        None => (&state.admission, Duration::ZERO),
    };
    let _place = places.try_acquire().map_err(|_| shed())?;
    let patience = state.config.request_timeout + awaited;
    tokio::time::timeout(patience, next.run(request)).await.map_err(|_| ApiError::timeout())
}

/// How long a long poll asks to be kept waiting; none if the request is none. The query is read as the
/// handlers read it, and a HEAD is served by them as a GET.
fn asked_to_wait(request: &Request) -> Option<Duration> {
    let uri = request.uri();
    let may_wait = uri.path() == "/api/events" || uri.path().starts_with("/api/checkout/");
    if !may_wait || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let seconds = pairs.iter().find(|(name, _)| name == "wait")?.1.parse().ok()?;
    Some(Duration::from_secs(LONGEST_WAIT_S.min(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_poll_is_given_the_time_it_asks_for_and_nothing_else_is() {
        for (method, target, seconds) in [
            ("GET", "/api/checkout/x?wait=20", Some(20)),
            ("GET", "/api/checkout/x?for=end&wait=31", Some(30)),
            ("HEAD", "/api/checkout/x?wait=30&for=end", Some(30)),
            ("GET", "/api/checkout/x?%77ait=%330", Some(30)),
            ("GET", "/api/events?wait=5&after=x", Some(5)),
            ("GET", "/api/checkout/x", None),
            ("GET", "/api/checkout/x?for=end&await=9", None),
            ("GET", "/api/checkout/x?wait=x", None),
            ("GET", "/api/products?wait=30", None),
            ("POST", "/api/checkout?wait=30", None),
            ("DELETE", "/api/checkout/x?wait=30", None),
        ] {
            let request = Request::builder().method(method).uri(target).body(Body::empty()).expect("a request");
            assert_eq!(asked_to_wait(&request), seconds.map(Duration::from_secs), "{method} {target}");
        }
    }
}
