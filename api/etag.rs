//! Versions of things in HTTP: `ETag` out, `If-Match` in (RFC 9110 §8.8.3, §13.1.1).

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header, request::Parts},
};

/// The strong tag of a version.
pub(crate) fn etag(version: i64) -> HeaderValue {
    // Digits in quotes are always a header value.
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// The versions a client is ready to change; none given means any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IfMatch(Option<String>);

impl IfMatch {
    /// Whether the client set a condition.
    pub(crate) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it holds for this version. A weak tag never matches.
    pub(crate) fn allows(&self, version: i64) -> bool {
        let Some(condition) = &self.0 else { return true };
        let tag = format!("\"{version}\"");
        condition.split(',').map(str::trim).any(|given| given == "*" || given == tag)
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // What cannot be read matches nothing.
        let condition = parts.headers.get(header::IF_MATCH);
        Ok(IfMatch(condition.map(|value| value.to_str().unwrap_or_default().to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_for_the_versions_it_names() {
        for (condition, version, holds) in [
            (None, 7, true),
            (Some("*"), 7, true),
            (Some("\"7\""), 7, true),
            (Some("\"6\", \"7\""), 7, true),
            (Some("\"8\""), 7, false),
            (Some("W/\"7\""), 7, false),
            (Some("7"), 7, false),
            (Some(""), 7, false),
        ] {
            assert_eq!(IfMatch(condition.map(str::to_owned)).allows(version), holds, "{condition:?}");
        }
    }
}
