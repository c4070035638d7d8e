//! Pages of other sites that may ask from a browser, as the configuration names them.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

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

    /// Whether pages of this origin may ask.
    pub(crate) fn allows(&self, origin: &str) -> bool {
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
}
