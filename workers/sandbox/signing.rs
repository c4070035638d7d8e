//! Webhook signatures by the Standard Webhooks scheme: HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The key behind a `whsec_…` secret. Has no `Debug`, so that it cannot reach a log.
#[derive(Clone)]
pub(crate) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Reads `whsec_<base64>`; the prefix may be missing, as in the scheme's own libraries.
    pub(crate) fn parse(secret: &str) -> Option<SigningKey> {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?;
        if key.is_empty() {
            return None;
        }
        Hmac::new_from_slice(&key).ok().map(SigningKey)
    }

    /// The `webhook-signature` header; `timestamp` in seconds since 1970, sent beside it.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_vector_is_met() {
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_no_base64_or_empty_is_refused() {
        assert!(SigningKey::parse("whsec_***").is_none());
        assert!(SigningKey::parse("whsec_").is_none());
        assert!(SigningKey::parse("whsec_ZGV2LXNlY3JldA==").is_some());
    }
}
