//! Which pages of other sites may ask from a browser (the Fetch standard's CORS protocol). Credentials
//! travel in headers that a page must set itself, never in cookies, so no origin is trusted with more than
//! it already has.

use std::{str::FromStr, time::Duration};

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::state::AppState;

/// How long a browser may remember a preflight.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A page that this machine itself serves, at any port.
fn is_local(origin: &str) -> bool {
    let host = ["https://", "http://"].into_iter().find_map(|scheme| origin.strip_prefix(scheme));
    ["localhost", "127.0.0.1", "[::1]"].into_iter().any(|local| {
        let port = host.and_then(|host| host.strip_prefix(local));
        port.is_some_and(|port| {
            port.is_empty() || port.strip_prefix(':').is_some_and(|port| u16::from_str(port).is_ok())
        })
    })
}

/// Answers preflights, and tells browsers which page may read an answer and which headers of it.
pub(crate) fn layer(state: &AppState) -> CorsLayer {
    let (origins, is_dev) = (state.config.allowed_origins.clone(), state.dev.is_some());
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin: &HeaderValue, _| {
            origin.to_str().is_ok_and(|origin| origins.allows(origin) || (is_dev && is_local(origin)))
        }))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("x-cart-session"),
            HeaderName::from_static("x-request-id"),
        ])
        .expose_headers([
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            HeaderName::from_static("idempotent-replayed"),
            HeaderName::from_static("ratelimit-limit"),
            HeaderName::from_static("ratelimit-remaining"),
            HeaderName::from_static("ratelimit-reset"),
            HeaderName::from_static("x-request-id"),
        ])
        .max_age(REMEMBERED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for (origin, local) in [
            ("http://localhost", true),
            ("http://localhost:5173", true),
            ("https://127.0.0.1:8443", true),
            ("http://localhost.evil.example", false),
            ("http://localhost:5173.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
            ("file://localhost", false),
        ] {
            assert_eq!(is_local(origin), local, "{origin}");
        }
    }
}
