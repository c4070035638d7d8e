//! `cart-engine api`: the HTTP API alone.

use std::sync::Arc;

use adapters::notify::DevMailbox;
use api::{ApiConfig, AppState, AuthKeys, DevState};
use sqlx::PgPool;
use tokio::net::TcpListener;
use workflows::Shop;

use super::metrics;
use crate::{
    config::Config,
    database::{Database, Purpose},
    dev::{self, DevSettings},
    failure::Failure,
    listen::{self, listen},
    outside,
    parts::Parts,
    say,
    shutdown::Stop,
};

/// Serves until it is told to stop.
///
/// # Errors
/// What keeps it from serving.
pub(crate) async fn run(config: &Config) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let database = Database::shared(&config.database).await?;
    let listener = listen(&config.api.listen).await?;
    let url = listen::url(&listener)?;
    let pool = database.pool("api", config.api.connections, Purpose::Serve);
    migrations::check(&pool).await?;
    let dev = dev::settings(&pool).await?;
    let shop = outside::shop(config, dev.as_ref(), &pool)?;
    let mut parts = Parts::default();
    start(&mut parts, listener, state(config, &pool, shop, dev.as_ref()).await?)?;
    say(&format!("the API is ready at {url}"));
    let ended = parts.run(stop).await;
    pool.close().await;
    ended
}

/// What the API works with. Its routes of development exist only in a development shop's database.
///
/// # Errors
/// No usable JWT secret, or a Redis address that makes no sense.
pub(crate) async fn state(
    config: &Config,
    pool: &PgPool,
    shop: Arc<Shop>,
    dev: Option<&DevSettings>,
) -> Result<AppState, Failure> {
    let advice =
        "set it to at least 32 random bytes, e.g. JWT_SECRET=$(openssl rand -hex 32), the same for every API process";
    let secret = config
        .auth
        .jwt_secret
        .clone()
        .or_else(|| Some(dev?.jwt_secret.clone()))
        .ok_or_else(|| Failure::new("JWT_SECRET is not set").hint(advice))?;
    let keys = AuthKeys::new(&secret).map_err(|error| Failure::caused_by("JWT_SECRET", &error).hint(advice))?;
    let keys = match &config.auth.jwt_secret_previous {
        Some(previous) => {
            keys.with_previous(previous).map_err(|error| Failure::caused_by("JWT_SECRET_PREVIOUS", &error))?
        }
        None => keys,
    };
    let mut limits = ApiConfig {
        connections: serving::Limits {
            connections: config.api.max_connections,
            per_address: Some(config.api.max_connections_per_address),
            ..serving::Limits::default()
        },
        max_concurrency: config.api.max_concurrency,
        max_polls: config.api.max_polls,
        max_backlog: config.api.max_backlog.into(),
        allowed_origins: config.api.allowed_origins.clone(),
        trusted_proxies: config.api.trusted_proxies,
        ..ApiConfig::default()
    };
    if !config.api.rate_limit {
        limits.rate_limits = None;
    }
    let mut state = AppState::new(pool.clone(), shop, keys, limits).with_metrics(metrics::handle()?);
    if let Some(redis) = outside::redis(config).await? {
        state = state.with_redis(redis);
    }
    match outside::sandbox_url(config, dev) {
        Some(sandbox_url) if dev.is_some() => Ok(state.with_dev(DevState {
            client: outside::client(&sandbox_url)?,
            sandbox_url,
            mailbox: DevMailbox::new(pool.clone(), &config.shop.mail_from)?,
        })),
        Some(_) | None => Ok(state),
    }
}

/// Adds the API to the parts of this process.
///
/// # Errors
/// Metrics that cannot be recorded.
pub(crate) fn start(parts: &mut Parts, listener: TcpListener, state: AppState) -> Result<(), Failure> {
    let rules = &state.shop.rules;
    if !state.shop.gateways.contains_key(rules.default_gateway.as_str()) {
        tracing::warn!(
            default = rules.default_gateway,
            "shop.default_gateway is not set up: a checkout that names no other is refused, unless it is paid in cash"
        );
    }
    let stop = parts.token();
    parts.start("metrics", metrics::keep_up(metrics::handle()?, parts.token()));
    let gauges = metrics::follow_database(state.pool.clone(), Arc::clone(&state.shop), parts.token());
    parts.start("gauges of the database", gauges);
    parts.start("API", api::serve(listener, state, async move { stop.cancelled().await }));
    Ok(())
}
