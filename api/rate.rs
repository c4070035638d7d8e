//! How often one caller may ask: a bucket per user or service, and per address for whoever is neither.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::Utc;
use serving::network;

use crate::{
    buckets::{Bucket, Buckets, Kind},
    caller::{bearer_user, client_address},
    error::ApiError,
    state::AppState,
};

/// Refuses who asks too often with 429 `rate-limited` and `Retry-After`, and tells everybody else what is
/// left. Webhooks pass: gateways come from few addresses, and what they say must arrive.
pub(crate) async fn limit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let Some(buckets) = state.buckets.as_deref().filter(|_| !path.starts_with("/api/webhooks/")) else {
        return next.run(request).await;
    };
    let kind = if path.starts_with("/api/auth/") { Kind::Login } else { Kind::Request };
    let bucket = bucket_of(&request, kind, &state, buckets);
    let (mut response, allowance) = match buckets.take(state.redis.as_ref(), bucket, kind).await {
        Ok(allowance) => (next.run(request).await, allowance),
        Err(allowance) => (ApiError::rate_limited(allowance.reset_s()).into_response(), allowance),
    };
    allowance.tell(response.headers_mut());
    response
}

/// Logins are always counted by address: whoever guesses has no name yet.
fn bucket_of(request: &Request, kind: Kind, state: &AppState, buckets: &Buckets) -> Bucket {
    let headers = request.headers();
    let named = match kind {
        Kind::Login => None,
        // A bearer token wins over an API key, as it does for the caller.
        Kind::Request if headers.contains_key(header::AUTHORIZATION) => {
            bearer_user(headers, &state.auth, Utc::now()).map(|(user, _)| Bucket::User(user))
        }
        Kind::Request => buckets.service(headers).map(Bucket::Service),
    };
    named.unwrap_or_else(|| {
        let address = client_address(headers, request.extensions(), state);
        Bucket::Address(network(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    })
}
