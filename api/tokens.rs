//! Access tokens (JWT, HS256, short-lived) and random secrets of which only a hash is kept.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::UserId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::CryptoRng;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use workflows::store::users::Role;

/// Shortest JWT secret, in bytes: as long as what HS256 puts out (RFC 7518 §3.2).
pub const LEAST_SECRET_BYTES: usize = 32;

/// Who issues access tokens, and for whom: a token of another system that shares the secret is refused.
const ISSUER: &str = "cart-engine";
const AUDIENCE: &str = "cart-engine-api";

/// How far ahead the clock of the host that issued a token may be, in seconds. The expiry has no such
/// leeway: who hears 401 refreshes.
const CLOCK_LEEWAY_S: i64 = 60;

/// Signs and verifies access tokens.
pub struct AuthKeys {
    signing: EncodingKey,
    /// Named in each token's header (`kid`), so that a secret can be replaced without logging anybody out.
    signing_id: String,
    accepted: Vec<(String, DecodingKey)>,
    /// The same secrets, the signing one first, for tokens that are not JWTs.
    macs: Vec<Mac>,
    /// Life of an access token.
    pub access_ttl: TimeDelta,
    /// Life of a refresh token.
    pub refresh_ttl: TimeDelta,
}

/// The JWT secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("a JWT secret has at least {LEAST_SECRET_BYTES} bytes")]
pub struct ShortSecret;

/// The bytes of a secret that is long enough.
fn long_enough(secret: &SecretString) -> Result<&[u8], ShortSecret> {
    let secret = secret.expose_secret().as_bytes();
    if secret.len() < LEAST_SECRET_BYTES { Err(ShortSecret) } else { Ok(secret) }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: UserId,
    role: Role,
    iss: Cow<'static, str>,
    aud: Cow<'static, str>,
    iat: i64,
    exp: i64,
}

impl AuthKeys {
    /// Keys from the configured secret; tokens live 15 minutes, refresh tokens 30 days.
    ///
    /// # Errors
    /// [`ShortSecret`].
    pub fn new(secret: &SecretString) -> Result<Self, ShortSecret> {
        let secret = long_enough(secret)?;
        Ok(AuthKeys {
            signing: EncodingKey::from_secret(secret),
            signing_id: key_id(secret),
            accepted: vec![(key_id(secret), DecodingKey::from_secret(secret))],
            macs: vec![mac(secret)],
            access_ttl: TimeDelta::minutes(15),
            refresh_ttl: TimeDelta::days(30),
        })
    }

    /// The same, accepting what the secret before this one signed. Keep it for as long as an access token
    /// lives after the last API process took up the new secret.
    ///
    /// # Errors
    /// [`ShortSecret`].
    pub fn with_previous(mut self, secret: &SecretString) -> Result<Self, ShortSecret> {
        let secret = long_enough(secret)?;
        self.accepted.push((key_id(secret), DecodingKey::from_secret(secret)));
        self.macs.push(mac(secret));
        Ok(self)
    }

    /// An access token for a user, valid from `now` (real time: moving the development clock logs
    /// nobody out).
    ///
    /// # Errors
    /// The JWT library's own; none is expected with an HMAC key.
    pub fn issue(&self, user: UserId, role: Role, now: DateTime<Utc>) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims {
            sub: user,
            role,
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            iat: now.timestamp(),
            exp: (now + self.access_ttl).timestamp(),
        };
        let header = Header { kid: Some(self.signing_id.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &self.signing)
    }

    /// Whose token it is; `None` when it is forged, malformed, expired, from the future, meant for another
    /// system, or signed some other way than by a secret of ours under HS256.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Option<(UserId, Role)> {
        let id = jsonwebtoken::decode_header(token).ok()?.kid?;
        let (_, key) = self.accepted.iter().find(|(accepted, _)| *accepted == id)?;
        let mut validation = Validation::new(Algorithm::HS256);
        // The library reads the system's clock; ours is given.
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?.claims;
        let now = now.timestamp();
        (claims.exp > now && claims.iat <= now + CLOCK_LEEWAY_S).then_some((claims.sub, claims.role))
    }
}

/// What is signed besides JWTs begins so, which no JWT does: a signature for one is none for another.
const SESSION: &[u8] = b"cart-session:";
const REFRESH: &[u8] = b"refresh-token:";

/// Bytes of a cart session that are random, and then that many of their signature.
const SESSION_HALF: usize = 24;

type Mac = Hmac<Sha256>;

fn mac(secret: &[u8]) -> Mac {
    Mac::new_from_slice(secret).expect("HMAC takes a key of any length")
}

fn sign(mac: &Mac, what: &[u8], text: &[u8]) -> [u8; 32] {
    mac.clone().chain_update(what).chain_update(text).finalize().into_bytes().into()
}

impl AuthKeys {
    /// A guest's secret: random, and signed, so that nothing need be kept to know it again.
    pub fn issue_session(&self, rng: &mut (impl CryptoRng + ?Sized)) -> String {
        let mut bytes = [0; 2 * SESSION_HALF];
        let (drawn, signature) = bytes.split_at_mut(SESSION_HALF);
        rng.fill_bytes(drawn);
        signature.copy_from_slice(&sign(&self.macs[0], SESSION, drawn)[..SESSION_HALF]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether a secret that we accept signed this session.
    pub fn is_session(&self, token: &str) -> bool {
        let Ok(bytes) = BASE64_URL_SAFE_NO_PAD.decode(token) else { return false };
        bytes.len() == 2 * SESSION_HALF && {
            let (drawn, signature) = bytes.split_at(SESSION_HALF);
            let signed = |mac: &Mac| mac.clone().chain_update(SESSION).chain_update(drawn);
            self.macs.iter().any(|mac| signed(mac).verify_truncated_left(signature).is_ok())
        }
    }

    /// What may follow a refresh token: first what follows it here, then what a process that signs by the
    /// secret before has given out. Whoever shows that token again at once, from another tab, is given the
    /// same; without our secret nobody can tell it from the one before.
    pub fn successors(&self, refresh_token: &str) -> Vec<String> {
        let signed = |mac| BASE64_URL_SAFE_NO_PAD.encode(sign(mac, REFRESH, refresh_token.as_bytes()));
        self.macs.iter().map(signed).collect()
    }
}

/// Names a secret without telling it.
fn key_id(secret: &[u8]) -> String {
    let digest = Sha256::new().chain_update(b"kid:").chain_update(secret).finalize();
    hex::encode(&digest[..8])
}

impl std::fmt::Debug for AuthKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthKeys").field("access_ttl", &self.access_ttl).finish_non_exhaustive()
    }
}

/// 256 random bits as 43 URL-safe characters: a refresh token or a service's key.
pub fn random_token(rng: &mut (impl CryptoRng + ?Sized)) -> String {
    let mut bytes = [0_u8; 32];
    rng.fill_bytes(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// What is stored of a random token. A plain hash is enough for 256 random bits: there is nothing
/// to guess, so nothing to slow down.
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: &str) -> AuthKeys {
        AuthKeys::new(&SecretString::from(secret)).expect("long enough")
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_token_is_valid_until_its_last_second() {
        let (keys, user, now) = (keys(SECRET), UserId::generate(), Utc::now());
        let token = keys.issue(user, Role::Staff, now).expect("issued");
        assert_eq!(keys.verify(&token, now), Some((user, Role::Staff)));
        assert_eq!(keys.verify(&token, now + TimeDelta::seconds(899)), Some((user, Role::Staff)));
        assert_eq!(keys.verify(&token, now + TimeDelta::seconds(900)), None);
    }

    #[test]
    fn a_token_of_another_secret_or_algorithm_is_refused() {
        let (ours, now) = (keys(SECRET), Utc::now());
        let theirs = keys("another-secret-another-secret-another").issue(UserId::generate(), Role::Admin, now);
        assert_eq!(ours.verify(&theirs.expect("issued"), now), None);
        let unsigned = format!(
            "{}.{}.",
            BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#),
            BASE64_URL_SAFE_NO_PAD.encode(format!(
                r#"{{"sub":"{}","role":"ADMIN","iat":0,"exp":{}}}"#,
                UserId::generate(),
                now.timestamp() + 60
            ))
        );
        assert_eq!(ours.verify(&unsigned, now), None);
        assert_eq!(ours.verify("garbage", now), None);
    }

    #[test]
    fn a_token_for_somebody_else_without_a_key_id_or_from_the_future_is_refused() {
        let (ours, now) = (keys(SECRET), Utc::now());
        let sign = |kid: Option<String>, alg: Algorithm, claims: &serde_json::Value| {
            let header = Header { kid, ..Header::new(alg) };
            jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("signed")
        };
        let good = serde_json::json!({
            "sub": UserId::generate(), "role": "ADMIN", "iss": ISSUER, "aud": AUDIENCE,
            "iat": now.timestamp(), "exp": now.timestamp() + 60
        });
        let kid = || Some(key_id(SECRET.as_bytes()));
        assert!(ours.verify(&sign(kid(), Algorithm::HS256, &good), now).is_some());
        assert_eq!(ours.verify(&sign(None, Algorithm::HS256, &good), now), None);
        assert_eq!(ours.verify(&sign(kid(), Algorithm::HS512, &good), now), None, "the algorithm is ours to choose");
        for (claim, value) in [
            ("iss", "somebody".into()),
            ("aud", "another-api".into()),
            ("iat", (now.timestamp() + CLOCK_LEEWAY_S + 1).into()),
        ] {
            let mut claims = good.clone();
            claims[claim] = value;
            assert_eq!(ours.verify(&sign(kid(), Algorithm::HS256, &claims), now), None, "{claim}");
            claims.as_object_mut().expect("claims").remove(claim);
            assert_eq!(ours.verify(&sign(kid(), Algorithm::HS256, &claims), now), None, "no {claim}");
        }
    }

    #[test]
    fn a_replaced_secret_is_accepted_while_it_is_named_as_the_previous_one() {
        let (old, now) = (keys(SECRET), Utc::now());
        let user = UserId::generate();
        let token = old.issue(user, Role::Customer, now).expect("issued");
        let new = || keys("fedcba9876543210fedcba9876543210");
        assert_eq!(new().verify(&token, now), None);
        let rotating = new().with_previous(&SecretString::from(SECRET)).expect("a secret");
        assert_eq!(rotating.verify(&token, now), Some((user, Role::Customer)));
        let fresh = rotating.issue(user, Role::Customer, now).expect("issued");
        assert_eq!(old.verify(&fresh, now), None, "signed by the new secret");
    }

    #[test]
    fn a_session_is_ours_if_a_secret_of_ours_signed_it() {
        let (old, new) = (keys(SECRET), || keys("fedcba9876543210fedcba9876543210"));
        let session = old.issue_session(&mut rand::rng());
        assert_eq!(session.len(), 64);
        assert_ne!(session, old.issue_session(&mut rand::rng()));
        assert!(old.is_session(&session) && !new().is_session(&session));
        assert!(new().with_previous(&SecretString::from(SECRET)).expect("a secret").is_session(&session));
        let forged = format!("{}{}", if session.starts_with('A') { 'B' } else { 'A' }, &session[1..]);
        for other in [&*forged, &session[..60], "", "chosen-by-somebody-who-waits"] {
            assert!(!old.is_session(other), "{other}");
        }
    }

    #[test]
    fn a_refresh_token_has_one_successor_by_each_secret() {
        let (old, token) = (keys(SECRET), random_token(&mut rand::rng()));
        let new = || keys("fedcba9876543210fedcba9876543210");
        let by = |keys: &AuthKeys| keys.successors(&token);
        assert_eq!((by(&old).len(), by(&old)), (1, by(&old)));
        assert_ne!(by(&old), by(&new()));
        assert_ne!(by(&old), old.successors(&by(&old)[0]));
        let rotating = new().with_previous(&SecretString::from(SECRET)).expect("a secret");
        assert_eq!(by(&rotating), [by(&new()), by(&old)].concat());
    }

    #[test]
    fn a_short_secret_is_refused() {
        for (secret, is_fine) in [("", false), (&SECRET[1..], false), (SECRET, true)] {
            let secret = SecretString::from(secret);
            assert_eq!(AuthKeys::new(&secret).is_ok(), is_fine);
            assert_eq!(keys(SECRET).with_previous(&secret).is_ok(), is_fine);
        }
    }

    #[test]
    fn random_tokens_are_43_url_safe_characters() {
        let token = random_token(&mut rand::rng());
        assert_eq!(token.len(), 43);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
    }
}
