//! What holds for every request and answer, whichever route it is for.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header, uri::Authority},
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
    if !names_host(&request) {
        return Err(ApiError::bad_request("malformed-host", "Name the host once, in the header Host."));
    }
    if !is_framed(request.headers()) {
        let detail = "Frame the body by Content-Length, or once by Transfer-Encoding: chunked.";
        return Err(ApiError::bad_request("malformed-framing", detail));
    }
    if !is_plain(request.headers()) {
        let detail = "Send the body as it is: no Content-Encoding is understood.";
        let refusal = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail);
        return Err(refusal.header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    Ok(next.run(request).await)
}

/// One host, that could be one (RFC 9112 §3.2); before HTTP/1.1 perhaps none. Who sees another host than the
/// balancer before us saw could be told another shop's answer.
fn names_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, None) => request.version() < Version::HTTP_11,
        (Some(host), None) => Authority::try_from(host.as_bytes()).is_ok_and(|host| !host.as_str().contains('@')),
        (_, Some(_)) => false,
    }
}

/// hyper has refused lengths that disagree, and lets chunks win over a length. What else somebody may call
/// a transfer coding, a balancer could understand in another way than we do.
fn is_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

/// Nothing here unpacks a body: a small one would become as large as its sender likes.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
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
