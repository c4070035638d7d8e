//! What holds for every request and answer, whichever route it is for.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::error::{ApiError, PROBLEM_JSON};

/// Longest target, in bytes; RFC 9110 §4.1 asks for at least 8,000 octets.
const MAX_TARGET_BYTES: usize = 8 * 1024;
/// All names and values of a request's headers, in bytes. A token of ours has less than one KiB.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Refuses a target or headers that nobody honest sends, before anything copies or logs them.
pub(crate) async fn admit_head(request: Request, next: Next) -> Result<Response, ApiError> {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > MAX_TARGET_BYTES {
        let detail = format!("A target may have at most {} KiB.", MAX_TARGET_BYTES / 1024);
        return Err(ApiError::new(StatusCode::URI_TOO_LONG, "uri-too-long", detail));
    }
    if weight(request.headers()) > MAX_HEADER_BYTES {
        let detail = format!("The headers may have at most {} KiB together.", MAX_HEADER_BYTES / 1024);
        return Err(ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", detail));
    }
    Ok(next.run(request).await)
}

fn weight(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Answers an OPTIONS that is no preflight: a route says what it offers, in the `Allow` that axum adds
/// (RFC 9110 §9.3.7), and where there is no route there is nothing to offer.
pub(crate) async fn offer_methods(request: Request, next: Next) -> Response {
    let is_plain =
        request.method() == Method::OPTIONS && !request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    match request.extensions().get::<MatchedPath>() {
        Some(_) if is_plain => StatusCode::NO_CONTENT.into_response(),
        None if is_plain => ApiError::not_found("not-found", "There is nothing here.").into_response(),
        Some(_) | None => next.run(request).await,
    }
}

/// Puts a refusal that a library worded into our own form, keeping its status and what else it said.
pub(crate) async fn speak_problem(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_refusal = status.is_client_error() || status.is_server_error();
    if !is_refusal || response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON) {
        return response;
    }
    let reason = status.canonical_reason().unwrap_or("Refused");
    let problem = match status {
        StatusCode::NOT_FOUND => ApiError::not_found("not-found", "There is nothing here."),
        _ => ApiError::new(status, reason.to_lowercase().replace(' ', "-"), format!("{reason}.")),
    };
    let mut problem = problem.into_response();
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            problem.headers_mut().append(name.clone(), value.clone());
        }
    }
    problem
}
