//! `cart-engine sandbox`: the built-in payment gateway, as a service of its own.

use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::{
    config::Config,
    database::{Database, Purpose},
    dev,
    failure::Failure,
    listen::{self, listen},
    outside,
    parts::Parts,
    say,
    shutdown::Stop,
};

/// Where it listens unless told otherwise.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8081";

const CONNECTIONS: u32 = 8;

/// Serves until it is told to stop.
///
/// # Errors
/// What keeps it from serving.
pub(crate) async fn run(config: &Config, address: &str) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let database = Database::shared(&config.database).await?;
    let listener = listen(address).await?;
    let url = listen::url(&listener)?;
    let pool = pool(&database);
    let secret = outside::webhook_secret(config, dev::settings(&pool).await?.as_ref())?;
    let mut parts = Parts::default();
    start(&mut parts, config, listener, &pool, &secret, webhook_url(&format!("http://{}", config.api.listen))).await?;
    say(&format!("the sandbox gateway is ready at {url}"));
    let ended = parts.run(stop).await;
    pool.close().await;
    ended
}

/// Connections for the gateway.
pub(crate) fn pool(database: &Database) -> PgPool {
    database.pool("sandbox", CONNECTIONS, Purpose::Serve)
}

/// Where an API takes the gateway's webhooks.
pub(crate) fn webhook_url(api_url: &str) -> String {
    format!("{api_url}/api/webhooks/sandbox")
}

/// Adds the gateway to the parts of this process; its schema is made first.
///
/// # Errors
/// The database's own.
pub(crate) async fn start(
    parts: &mut Parts,
    config: &Config,
    listener: TcpListener,
    pool: &PgPool,
    secret: &SecretString,
    webhook_url: String,
) -> Result<(), Failure> {
    let public_url = match &config.sandbox.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => listen::url(&listener)?,
    };
    let gateway = sandbox::Config {
        webhook_url: Some(config.sandbox.webhook_url.clone().unwrap_or(webhook_url)),
        webhook_secret: secret.expose_secret().to_owned(),
        public_url,
    };
    sandbox::setup(pool).await?;
    let stop = parts.token();
    parts.start(
        "sandbox gateway",
        sandbox::serve(listener, pool.clone(), gateway, async move { stop.cancelled().await }),
    );
    Ok(())
}
