//! Stripe's webhooks: who has signed them (its page "Verify webhook signatures manually"), and where they are read.

use chrono::{DateTime, TimeDelta, Utc};
use domain::ports::{Webhook, WebhookError};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::Sha256;
use uuid::Uuid;

use super::super::ConfigError;
use super::super::reading::{self, header};
use super::events;

/// How far a webhook's time may be from ours, either way. Stripe signs each delivery anew.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// What a secret begins with. It is part of the key, unlike in Standard Webhooks.
const SECRET: &str = "whsec_";

/// The keys behind our endpoint's secrets. Has no `Debug`, so that they cannot reach a log.
#[derive(Clone)]
pub(super) struct VerifyingKeys(Vec<Hmac<Sha256>>);

impl VerifyingKeys {
    /// Reads `whsec_…` secrets: several while they are rotated.
    pub(super) fn parse(secrets: &[SecretString]) -> Result<VerifyingKeys, ConfigError> {
        if secrets.is_empty() {
            return Err(ConfigError::WebhookSecret);
        }
        let key = |secret: &SecretString| {
            let secret = secret.expose_secret();
            match secret.strip_prefix(SECRET) {
                Some(rest) if !rest.is_empty() => {
                    Hmac::new_from_slice(secret.as_bytes()).map_err(|_| ConfigError::WebhookSecret)
                }
                Some(_) | None => Err(ConfigError::WebhookSecret),
            }
        };
        secrets.iter().map(key).collect::<Result<_, _>>().map(VerifyingKeys)
    }

    /// Whether one of the signatures fits one of the keys, and the time is near `now`. The signature is checked
    /// first: who cannot sign learns nothing of our clock.
    pub(super) fn verify(
        &self,
        headers: &[(String, String)],
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), WebhookError> {
        let Signed { timestamp, signatures } = Signed::parse(header(headers, "stripe-signature")?)?;
        let fits = self.0.iter().any(|key| {
            let mut mac = key.clone();
            for part in [timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            // In constant time.
            signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
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
        Ok(())
    }
}

/// `t=<seconds>,v1=<hex>,v1=<hex>,…`
struct Signed<'h> {
    timestamp: &'h str,
    signatures: Vec<Vec<u8>>,
}

impl<'h> Signed<'h> {
    fn parse(header: &'h str) -> Result<Signed<'h>, WebhookError> {
        let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
        let mut timestamps = parts().filter(|(scheme, _)| *scheme == "t");
        let (Some((_, timestamp)), None) = (timestamps.next(), timestamps.next()) else {
            return Err(WebhookError::BadSignature);
        };
        // Other schemes are for tests only: to heed them would let a sender choose the weakest.
        let signatures = parts().filter(|(scheme, _)| *scheme == "v1").filter_map(|(_, hex)| hex::decode(hex).ok());
        Ok(Signed { timestamp, signatures: signatures.collect() })
    }
}

/// What was rightly signed, read as far as it can be. `is_live`: whether our own key moves real money.
pub(super) fn read(body: &[u8], is_live: bool) -> Webhook {
    let body_id = || Uuid::new_v5(&Uuid::NAMESPACE_OID, body).to_string();
    let event: Value = match serde_json::from_slice(body) {
        Ok(event) => event,
        Err(error) => return Webhook::Unreadable { event_id: body_id(), why: error.to_string() },
    };
    let named = event["id"].as_str().filter(|id| !id.is_empty() && !id.contains('\0'));
    let event_id = named.map_or_else(body_id, reading::event_id);
    match events::read(event, &event_id, is_live) {
        Ok(event) => Webhook::Event(event),
        Err(why) => Webhook::Unreadable { event_id, why },
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Headers and bodies with the verdict of Stripe's own library on each.
    #[derive(Deserialize)]
    struct Vectors {
        secret: String,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        name: String,
        header: String,
        body: String,
        received_at: i64,
        accepted: bool,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("vectors.json")).expect("vectors")
    }

    fn keys(secrets: &[&str]) -> Result<VerifyingKeys, ConfigError> {
        VerifyingKeys::parse(&secrets.iter().map(|secret| SecretString::from(*secret)).collect::<Vec<_>>())
    }

    fn signed(header: &str) -> Vec<(String, String)> {
        vec![("Stripe-Signature".to_owned(), header.to_owned())]
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    /// The first vector, under these secrets and with this header, received so many seconds after it was sent.
    fn verify(secrets: &[&str], header: &str, later: i64) -> Result<(), WebhookError> {
        let case = vectors().cases.remove(0);
        keys(secrets).expect("keys").verify(&signed(header), case.body.as_bytes(), at(case.received_at + later))
    }

    fn good_header() -> String {
        vectors().cases.remove(0).header
    }

    #[test]
    fn the_verdicts_are_those_of_stripes_library() {
        let Vectors { secret, cases } = vectors();
        assert!(cases.iter().any(|case| case.accepted) && cases.iter().any(|case| !case.accepted));
        for case in cases {
            let verdict = keys(&[&secret]).expect("keys").verify(
                &signed(&case.header),
                case.body.as_bytes(),
                at(case.received_at),
            );
            assert_eq!(verdict.is_ok(), case.accepted, "{}: {verdict:?}", case.name);
        }
    }

    #[test]
    fn any_of_several_secrets_will_do() {
        let header = good_header();
        assert_eq!(verify(&["whsec_old", "whsec_test_secret"], &header, 0), Ok(()));
        assert_eq!(verify(&["whsec_test_secret", "whsec_new"], &header, 0), Ok(()));
        assert_eq!(verify(&["whsec_old", "whsec_new"], &header, 0), Err(WebhookError::BadSignature));
    }

    #[test]
    fn five_minutes_either_way_are_tolerated_and_no_more() {
        let header = good_header();
        for (later, expected) in
            [(300, Ok(())), (301, Err(WebhookError::TooOld)), (-300, Ok(())), (-301, Err(WebhookError::TooOld))]
        {
            assert_eq!(verify(&["whsec_test_secret"], &header, later), expected, "{later} s later");
        }
    }

    #[test]
    fn a_forger_learns_nothing_of_our_clock() {
        assert_eq!(verify(&["whsec_other"], &good_header(), 1_000_000), Err(WebhookError::BadSignature));
    }

    #[test]
    fn what_cannot_be_verified_is_refused() {
        let good = good_header();
        let signature = good.strip_prefix("t=1800000000,").expect("a time");
        for bad in [
            "",
            "t=1800000000",
            signature,
            &format!("t=1800000001,{signature}"),
            &format!("t=1800000000,t=1800000000,{signature}"),
            &good.replace("v1=", "v0="),
            &good.replace("v1=4b", "v1=4"),
            "t=1800000000,v1=",
        ] {
            assert_eq!(verify(&["whsec_test_secret"], bad, 0), Err(WebhookError::BadSignature), "{bad}");
        }
        let case = vectors().cases.remove(0);
        let verify = |headers: &[(String, String)]| {
            keys(&["whsec_test_secret"]).expect("keys").verify(headers, case.body.as_bytes(), at(case.received_at))
        };
        assert_eq!(verify(&[]), Err(WebhookError::BadSignature));
        assert_eq!(verify(&[signed(&good), signed(&good)].concat()), Err(WebhookError::BadSignature));
    }

    #[test]
    fn a_secret_that_is_not_stripes_is_refused() {
        assert!(keys(&["whsec_1", "whsec_2"]).is_ok());
        for bad in [&[][..], &[""], &["whsec_"], &["we_123"], &["whsec_1", ""]] {
            assert!(matches!(keys(bad), Err(ConfigError::WebhookSecret)), "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_kept_under_a_name_of_its_own() {
        let name = |body: &[u8]| match read(body, false) {
            Webhook::Unreadable { event_id, .. } => event_id,
            Webhook::Event(event) => panic!("{event:?}"),
        };
        assert_eq!(name(b"{\"id\":\"evt_1\"}"), "evt_1");
        assert_eq!(name(b"not JSON"), name(b"not JSON"), "the same may arrive many times");
        assert_ne!(name(b"not JSON"), name(b"no JSON"));
        assert_ne!(name(b"{}"), name(b"[]"));
        for body in ["\u{0}", r#"{"id":""}"#, r#"{"id":"evt\u0000"}"#, r#"{"id":7}"#] {
            assert_eq!(name(body.as_bytes()).len(), 36, "{body}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(reading::MAX_ID + 1));
        assert_eq!(name(long.as_bytes()), reading::event_id(&"x".repeat(reading::MAX_ID + 1)));
    }
}
