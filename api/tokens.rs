//! Access tokens (JWT, HS256, short-lived) and random secrets of which only a hash is kept.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::UserId;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::CryptoRng;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use workflows::store::users::Role;

/// Below this a JWT secret is warned about: HS256's own output length (RFC 7518 §3.2).
pub const GOOD_SECRET_BYTES: usize = 32;

/// Signs and verifies access tokens.
pub struct AuthKeys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// Life of an access token.
    pub access_ttl: TimeDelta,
    /// Life of a refresh token.
    pub refresh_ttl: TimeDelta,
}

/// The JWT secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the JWT secret is empty")]
pub struct EmptySecret;

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: UserId,
    role: Role,
    iat: i64,
    exp: i64,
}

impl AuthKeys {
    /// Keys from the configured secret; tokens live 15 minutes, refresh tokens 30 days.
    ///
    /// # Errors
    /// [`EmptySecret`]. A short one is only warned about.
    pub fn new(secret: &SecretString) -> Result<Self, EmptySecret> {
        let secret = secret.expose_secret().as_bytes();
        if secret.is_empty() {
            return Err(EmptySecret);
        }
        if secret.len() < GOOD_SECRET_BYTES {
            tracing::warn!(
                bytes = secret.len(),
                "the JWT secret is short; use at least {GOOD_SECRET_BYTES} random bytes"
            );
        }
        Ok(AuthKeys {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            access_ttl: TimeDelta::minutes(15),
            refresh_ttl: TimeDelta::days(30),
        })
    }

    /// An access token for a user, valid from `now` (real time: moving the development clock logs
    /// nobody out).
    ///
    /// # Errors
    /// The JWT library's own; none is expected with an HMAC key.
    pub fn issue(&self, user: UserId, role: Role, now: DateTime<Utc>) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims { sub: user, role, iat: now.timestamp(), exp: (now + self.access_ttl).timestamp() };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    /// Whose token it is; `None` when it is forged, malformed, expired or signed some other way.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Option<(UserId, Role)> {
        let mut validation = Validation::new(Algorithm::HS256);
        // The library reads the system's clock; ours is given.
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation).ok()?.claims;
        (claims.exp > now.timestamp()).then_some((claims.sub, claims.role))
    }
}

impl std::fmt::Debug for AuthKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthKeys").field("access_ttl", &self.access_ttl).finish_non_exhaustive()
    }
}

/// 256 random bits as 43 URL-safe characters: a refresh token or a cart session.
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
    fn an_empty_secret_is_refused() {
        assert!(AuthKeys::new(&SecretString::from("")).is_err());
    }

    #[test]
    fn random_tokens_are_43_url_safe_characters() {
        let token = random_token(&mut rand::rng());
        assert_eq!(token.len(), 43);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
    }
}
