//! What can be configured, and where it comes from: defaults, then the file, then the environment,
//! then the flags. A later layer wins.

mod agreement;
pub(crate) mod gateways;
mod layers;
mod ranges;

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

pub(crate) use layers::{Flags, Loaded, load};

/// The effective configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the truth is kept.
    pub(crate) database: Database,
    /// The HTTP API.
    pub(crate) api: Api,
    /// Who may do what.
    pub(crate) auth: Auth,
    /// What carries the workflows.
    pub(crate) worker: Worker,
    /// The payment gateway Stripe.
    pub(crate) stripe: gateways::Stripe,
    /// The payment gateway Razorpay.
    pub(crate) razorpay: gateways::Razorpay,
    /// The payment gateway PayPal.
    pub(crate) paypal: gateways::PayPal,
    /// The sandbox payment gateway.
    pub(crate) sandbox: Sandbox,
    /// How e-mail leaves the house.
    pub(crate) mail: Mail,
    /// Where copies and counts are kept that several processes share.
    pub(crate) redis: Redis,
    /// The shop's rules.
    pub(crate) shop: workflows::Rules,
}

/// `[database]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Database {
    /// Which Postgres to use; without it the embedded one.
    #[serde(serialize_with = "masked_url")]
    pub(crate) url: Option<SecretString>,
    /// Where the embedded one lives; without it a folder for this user's application data.
    pub(crate) data_dir: Option<PathBuf>,
    /// A folder with `postgres` and `initdb` for the embedded one.
    pub(crate) bin_dir: Option<PathBuf>,
    /// Whether an installed Postgres may be used.
    pub(crate) discovery: bool,
    /// Refuses to download a Postgres.
    pub(crate) offline: bool,
}

impl Default for Database {
    fn default() -> Self {
        Database { url: None, data_dir: None, bin_dir: None, discovery: true, offline: false }
    }
}

/// `[api]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Api {
    /// Where to listen, as `host:port`.
    pub(crate) listen: String,
    /// Connections to the database.
    pub(crate) connections: u32,
    /// Requests in hand at once; one more is shed.
    pub(crate) max_concurrency: usize,
    /// Long polls at once besides; one more is shed.
    pub(crate) max_polls: usize,
    /// Connections from clients at once; whoever comes then waits.
    pub(crate) max_connections: usize,
    /// Of those from one address; one more is turned away. Of no effect behind a trusted proxy.
    pub(crate) max_connections_per_address: usize,
    /// Checkouts that may wait for a worker before new ones are refused.
    pub(crate) max_backlog: u32,
    /// Whether a caller may only ask so often.
    pub(crate) rate_limit: bool,
    /// Origins whose pages may ask from a browser, e.g. `https://shop.example`; none by default.
    pub(crate) allowed_origins: api::AllowedOrigins,
    /// Proxies in front of it whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: usize,
}

impl Default for Api {
    fn default() -> Self {
        Api {
            listen: "127.0.0.1:8080".to_owned(),
            connections: 20,
            max_concurrency: 512,
            max_polls: 1024,
            max_connections: 4096,
            max_connections_per_address: 256,
            max_backlog: 5_000,
            rate_limit: true,
            allowed_origins: api::AllowedOrigins::default(),
            trusted_proxies: 0,
        }
    }
}

/// `[auth]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    /// Signs access tokens; at least 32 bytes. Every API process needs the same.
    #[serde(serialize_with = "masked")]
    pub(crate) jwt_secret: Option<SecretString>,
    /// What signed them before, accepted while the tokens of then run out.
    #[serde(serialize_with = "masked")]
    pub(crate) jwt_secret_previous: Option<SecretString>,
}

/// `[worker]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Worker {
    /// Runs a worker has in hand at once, per queue.
    pub(crate) concurrency: usize,
    /// Connections to the database; three are kept for other things than the transactions of runs. Few are
    /// faster than many: those that meet at the same rows wait here, not in the database. Four more, and one
    /// a queue, are for beats, sweeps, claims and fetching tickets.
    pub(crate) connections: u32,
    /// Which queues it serves; empty means all.
    pub(crate) queues: Vec<String>,
    /// A worker that has not been heard of for so long, in milliseconds, is dead: others take over.
    pub(crate) lease_ms: u64,
    /// How often it is heard of, in milliseconds; well below the lease.
    pub(crate) beat_ms: u64,
    /// A worker that has heard nothing from its database for so long, in milliseconds, ends itself.
    pub(crate) watchdog_ms: u64,
    /// Where the `worker` command answers `/metrics`, as `host:port`; without it nowhere.
    pub(crate) metrics_listen: Option<String>,
}

impl Default for Worker {
    fn default() -> Self {
        Worker {
            concurrency: workers::PoolOptions::default().concurrency,
            connections: 20,
            queues: Vec::new(),
            lease_ms: 8_000,
            beat_ms: 2_000,
            watchdog_ms: 15_000,
            metrics_listen: None,
        }
    }
}

impl Worker {
    /// What the engine is told.
    pub(crate) fn settings(&self) -> engine::worker::Settings {
        engine::worker::Settings {
            lease: Duration::from_millis(self.lease_ms),
            beat: Duration::from_millis(self.beat_ms),
            ..engine::worker::Settings::default()
        }
    }
}

/// `[sandbox]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sandbox {
    /// Where the gateway is reached. Beside a development shop its own is found by itself.
    pub(crate) url: Option<String>,
    /// Signs its webhooks: `whsec_` and base64.
    #[serde(serialize_with = "masked")]
    pub(crate) webhook_secret: Option<SecretString>,
    /// Where the gateway sends its webhooks; without it to the API at its default address.
    pub(crate) webhook_url: Option<String>,
    /// Where a shopper's browser reaches the gateway; without it at the address it listens on.
    pub(crate) public_url: Option<String>,
}

/// `[mail]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mail {
    /// The mail server, e.g. `smtps://user:password@host`.
    #[serde(serialize_with = "masked_url")]
    pub(crate) smtp_url: Option<SecretString>,
}

/// `[redis]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redis {
    /// Which Redis, e.g. `redis://:password@host:6379`; without it each process keeps its own.
    #[serde(serialize_with = "masked_url")]
    pub(crate) url: Option<SecretString>,
}

const MASK: &str = "***";

/// A secret shows whether it is set, and nothing else.
#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn masked<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| MASK).serialize(serializer)
}

/// A URL shows all but its password.
#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn masked_url<S: Serializer>(url: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(|url| without_password(url.expose_secret())).serialize(serializer)
}

/// A URL as it may be shown.
pub(crate) fn without_password(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return MASK.to_owned();
    };
    // libpq also takes a password as a parameter.
    let in_query = parsed.query_pairs().any(|(name, _)| name.contains("password"));
    if in_query || (parsed.password().is_some() && parsed.set_password(Some(MASK)).is_err()) {
        return MASK.to_owned();
    }
    parsed.into()
}

/// Whether a URL names a user or a password, if only an empty one.
fn names_user(url: &str) -> bool {
    Url::parse(url).is_ok_and(|parsed| !parsed.username().is_empty() || parsed.password().is_some())
        || url.split(['/', '?', '#']).nth(2).is_some_and(|authority| authority.contains('@'))
}

/// A URL that was to hold no secret, as it may be shown: whose it is, and what was asked of it, perhaps are secrets.
fn without_secrets(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return MASK.to_owned();
    };
    let hidden = |part: Option<&str>| part.filter(|part| !part.is_empty()).map(|_| MASK);
    let (password, query, fragment) = (hidden(parsed.password()), hidden(parsed.query()), hidden(parsed.fragment()));
    let user = if parsed.username().is_empty() { "" } else { MASK };
    parsed.set_query(query);
    parsed.set_fragment(fragment);
    if parsed.set_username(user).and_then(|()| parsed.set_password(password)).is_err() {
        return MASK.to_owned();
    }
    parsed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_its_secrets_still_says_which_it_was() {
        for (url, shown) in [
            ("https://user:hunter2@gateway.example/v1", "https://***:***@gateway.example/v1"),
            ("https://hunter2@gateway.example:8443", "https://***@gateway.example:8443/"),
            ("https://gateway.example/?key=hunter2#hunter2", "https://gateway.example/?***#***"),
            ("mailto:hunter2@gateway.example", "***"),
            ("hunter2@gateway.example", "***"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://a:hunter2@db.example/shop", "postgres://a:***@db.example/shop"),
            ("postgres://a@db.example/shop", "postgres://a@db.example/shop"),
            ("postgres://db.example/shop?password=hunter2", "***"),
            ("host=db password=hunter2", "***"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
