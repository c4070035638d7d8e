//! The access token: one for all calls, asked for by one of them while the others wait (RFC 6749 4.4).

use std::time::{Duration, Instant};

use domain::ports::GatewayError;
use reqwest::Client;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::super::exchange::send;

/// The longest that a token is kept, whatever PayPal says of its life; it says about nine hours.
const MAX_LIFE_S: u64 = 24 * 60 * 60;

/// How we log in. Has no `Debug`, so that neither secret nor token can reach a log.
pub(super) struct Login {
    url: Url,
    client_id: String,
    client_secret: SecretString,
    client: Client,
    /// Held while one call logs in, so that the others wait for what it gets.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    token: Option<Token>,
    failure: Option<Failure>,
}

struct Token {
    text: SecretString,
    /// Before its end, so that it does not lapse on the way.
    renew_at: Instant,
}

struct Failure {
    at: Instant,
    why: GatewayError,
}

/// PayPal's answer to a login.
#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    /// Seconds.
    expires_in: u64,
}

impl Login {
    pub(super) fn new(url: Url, client_id: String, client_secret: SecretString, client: Client) -> Login {
        Login { url, client_id, client_secret, client, known: Mutex::default() }
    }

    /// The token that is good now.
    ///
    /// # Errors
    /// As [`Login::other_than`].
    pub(super) async fn token(&self) -> Result<SecretString, GatewayError> {
        self.token_unless(None).await
    }

    /// A token that is not `refused`: PayPal may drop one before its time, and one carries the permissions of the
    /// hour it was made in. When others have been refused it too, one of them logs in for all.
    ///
    /// # Errors
    /// [`GatewayError::Misconfigured`] when PayPal does not know us; [`GatewayError::Busy`] and
    /// [`GatewayError::Unknown`] as of any call. Never a refusal: nothing was said of a payment.
    pub(super) async fn other_than(&self, refused: &SecretString) -> Result<SecretString, GatewayError> {
        self.token_unless(Some(refused)).await
    }

    async fn token_unless(&self, refused: Option<&SecretString>) -> Result<SecretString, GatewayError> {
        let asked_at = Instant::now();
        let mut known = self.known.lock().await;
        if let Some(token) = &known.token
            && token.renew_at > Instant::now()
            && refused.is_none_or(|refused| refused.expose_secret() != token.text.expose_secret())
        {
            return Ok(token.text.clone());
        }
        // Whoever waited while another asked in vain would only ask in vain too, one after the other.
        if let Some(failure) = &known.failure
            && failure.at > asked_at
        {
            return Err(failure.why.clone());
        }
        match self.log_in().await {
            Ok(token) => {
                let text = token.text.clone();
                *known = Known { token: Some(token), failure: None };
                Ok(text)
            }
            Err(why) => {
                *known = Known { token: None, failure: Some(Failure { at: Instant::now(), why: why.clone() }) };
                Err(why)
            }
        }
    }

    async fn log_in(&self) -> Result<Token, GatewayError> {
        let asked_at = Instant::now();
        let request = self
            .client
            .post(self.url.clone())
            .basic_auth(&self.client_id, Some(self.client_secret.expose_secret()))
            .form(&[("grant_type", "client_credentials")]);
        let answer = send(request).await?;
        if !answer.status.is_success() {
            return Err(answer.error(None));
        }
        let Granted { access_token, expires_in } = answer.read()?;
        let life = Duration::from_secs(expires_in.min(MAX_LIFE_S));
        Ok(Token { text: access_token, renew_at: asked_at + life * 9 / 10 })
    }
}
