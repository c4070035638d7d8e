//! Checks webhooks signed by the Standard Webhooks scheme: HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use domain::ports::WebhookError;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use super::ConfigError;
use super::reading::header;

/// How far a webhook's time may be from ours, either way: the scheme's own recommendation.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// The key behind a `whsec_…` secret. Has no `Debug`, so that it cannot reach a log.
#[derive(Clone)]
pub(super) struct VerifyingKey(Hmac<Sha256>);

impl VerifyingKey {
    /// Reads `whsec_<base64>`; the prefix may be missing, as in the scheme's own libraries.
    pub(super) fn parse(secret: &SecretString) -> Result<VerifyingKey, ConfigError> {
        let secret = secret.expose_secret();
        let key =
            BASE64.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).map_err(|_| ConfigError::WebhookSecret)?;
        if key.is_empty() {
            return Err(ConfigError::WebhookSecret);
        }
        Hmac::new_from_slice(&key).map(VerifyingKey).map_err(|_| ConfigError::WebhookSecret)
    }

    /// The event's id, once one of the signatures fits and the time is near `now`. The signature is
    /// checked first: who cannot sign learns nothing of our clock.
    pub(super) fn verify<'h>(
        &self,
        headers: &'h [(String, String)],
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<&'h str, WebhookError> {
        let id = header(headers, "webhook-id")?;
        let timestamp = header(headers, "webhook-timestamp")?;
        let signatures = header(headers, "webhook-signature")?;

        // While a secret is rotated the sender signs with both, separated by spaces.
        let fits = signatures
            .split(' ')
            .filter_map(|signature| BASE64.decode(signature.strip_prefix("v1,")?).ok())
            .any(|signature| {
                let mut mac = self.0.clone();
                for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                    mac.update(part);
                }
                // In constant time.
                mac.verify_slice(&signature).is_ok()
            });
        if !fits {
            return Err(WebhookError::BadSignature);
        }

        let sent = timestamp
            .parse()
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            // Nobody can say how old it is.
            .ok_or(WebhookError::TooOld)?;
        if (now - sent).abs() > TOLERANCE {
            return Err(WebhookError::TooOld);
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scheme's published test vector.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SENT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn headers(signature: &str) -> Vec<(String, String)> {
        [
            ("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn verify(headers: &[(String, String)], body: &[u8], seconds_later: i64) -> Result<String, WebhookError> {
        let key = VerifyingKey::parse(&SecretString::from(SECRET)).expect("a key");
        let now = DateTime::from_timestamp(SENT + seconds_later, 0).expect("a time");
        key.verify(headers, body, now).map(str::to_owned)
    }

    #[test]
    fn the_published_test_vector_is_accepted() {
        assert_eq!(verify(&headers(SIGNATURE), BODY, 0).expect("an id"), "msg_p5jXN8AQM9LWM0D4loKWxJek");
    }

    #[test]
    fn one_fitting_signature_among_several_is_enough() {
        let several = format!("v1a,AAAA v1,AAAA {SIGNATURE}");
        assert!(verify(&headers(&several), BODY, 0).is_ok());
    }

    #[test]
    fn a_changed_body_or_signature_is_refused() {
        assert!(matches!(verify(&headers(SIGNATURE), b"{}", 0), Err(WebhookError::BadSignature)));
        for bad in ["", "v1,", "v1,AAAA", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] {
            assert!(matches!(verify(&headers(bad), BODY, 0), Err(WebhookError::BadSignature)), "{bad:?}");
        }
    }

    #[test]
    fn missing_and_doubled_headers_are_refused() {
        for missing in 0..3 {
            let mut headers = headers(SIGNATURE);
            headers.remove(missing);
            assert!(matches!(verify(&headers, BODY, 0), Err(WebhookError::BadSignature)));
        }
        let mut doubled = headers(SIGNATURE);
        doubled.push(("webhook-id".to_owned(), "other".to_owned()));
        assert!(matches!(verify(&doubled, BODY, 0), Err(WebhookError::BadSignature)));
    }

    #[test]
    fn five_minutes_either_way_are_tolerated_and_no_more() {
        for (seconds, result) in [(300, true), (301, false), (-300, true), (-301, false)] {
            assert_eq!(verify(&headers(SIGNATURE), BODY, seconds).is_ok(), result, "{seconds} s later");
        }
        assert!(matches!(verify(&headers(SIGNATURE), BODY, 301), Err(WebhookError::TooOld)));
    }

    #[test]
    fn a_secret_that_is_no_base64_or_empty_is_refused() {
        for bad in ["whsec_***", "whsec_", ""] {
            assert!(VerifyingKey::parse(&SecretString::from(bad)).is_err(), "{bad:?}");
        }
    }
}
