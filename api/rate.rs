//! How often one caller may ask: a bucket per user or service, and per address for whoever is neither.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::Utc;
use serving::network;

use crate::{
    buckets::{Bucket, Buckets, Kind},
    caller::bearer_user,
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
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
        Bucket::Address(network(forwarded_for(headers, state.config.trusted_proxies).unwrap_or(peer)))
    })
}

/// Who asked the outermost proxy that is ours. Anything further left was written by whoever asked.
fn forwarded_for(headers: &HeaderMap, proxies: usize) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let addresses: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let index = addresses.len().checked_sub(proxies.max(1)).filter(|_| proxies > 0)?;
    addresses[index].parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_what_our_own_proxies_wrote_is_believed() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-forwarded-for");
        headers.append(&name, HeaderValue::from_static("6.6.6.6, 192.0.2.7"));
        headers.append(&name, HeaderValue::from_static("198.51.100.1"));
        let says = |proxies| forwarded_for(&headers, proxies).map(|address| address.to_string());
        assert_eq!(says(0), None);
        assert_eq!(says(1).as_deref(), Some("198.51.100.1"));
        assert_eq!(says(2).as_deref(), Some("192.0.2.7"));
        assert_eq!(says(4), None);
    }
}
