//! Which pages of other sites may ask from a browser (the Fetch standard's CORS protocol). Credentials
//! travel in headers that a page must set itself, never in cookies, so no origin is trusted with more than
//! it already has.

use std::{str::FromStr, time::Duration};

use axum::http::{HeaderName, HeaderValue, Method, header};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::state::AppState;

/// How long a browser may remember a preflight.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Origins whose pages may ask, each as `scheme://host[:port]`; a single `*` means all. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AllowedOrigins(Vec<String>);

/// No browser would send that as an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin; it has the form https://shop.example or http://localhost:3000, or is * for all")]
pub struct BadOrigin(pub String);

impl AllowedOrigins {
    /// # Errors
    /// [`BadOrigin`] for the first that is none.
    pub fn new(origins: impl IntoIterator<Item = String>) -> Result<Self, BadOrigin> {
        let origins =
            origins.into_iter().map(|origin| if is_origin(&origin) { Ok(origin) } else { Err(BadOrigin(origin)) });
        origins.collect::<Result<_, _>>().map(AllowedOrigins)
    }

    fn allows(&self, origin: &str) -> bool {
        self.0.iter().any(|allowed| allowed == "*" || allowed == origin)
    }
}

impl<'de> Deserialize<'de> for AllowedOrigins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AllowedOrigins::new(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// As a browser writes it: a scheme, a host in lower case, a port if it is not the scheme's own.
fn is_origin(text: &str) -> bool {
    let host = ["https://", "http://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
    text == "*"
        || host.is_some_and(|host| {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b))
        })
}

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
    fn an_origin_is_a_scheme_a_host_and_perhaps_a_port() {
        for (text, fine) in [
            ("https://shop.example", true),
            ("http://localhost:3000", true),
            ("http://[::1]:3000", true),
            ("*", true),
            ("https://shop.example/", false),
            ("https://Shop.example", false),
            ("shop.example", false),
            ("https://", false),
            ("null", false),
            ("https://*.example", false),
        ] {
            assert_eq!(AllowedOrigins::new([text.to_owned()]).is_ok(), fine, "{text}");
        }
    }

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
