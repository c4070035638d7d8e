//! What every handler shares.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use adapters::{
    carts::{LocalCarts, RedisCarts},
    notify::DevMailbox,
    redis::Redis,
};
use domain::ports::CartCopies;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use workflows::Shop;

use crate::{
    accepts::Accepts,
    buckets::{Buckets, RateLimits},
    origins::AllowedOrigins,
    tokens::AuthKeys,
};

/// Bodies that are here at once, in bytes: twice what one address can send on all its connections.
const MAX_ARRIVING_BYTES: usize = 128 * 1024 * 1024;

/// The shared state. Cloning it copies a handful of reference counts.
#[derive(Clone)]
pub struct AppState {
    /// The database, whose schema the caller has already checked.
    pub pool: PgPool,
    /// The shop's rules and its gateways.
    pub shop: Arc<Shop>,
    /// Signs and verifies access tokens.
    pub auth: Arc<AuthKeys>,
    /// Development helpers; without it their routes do not exist.
    pub dev: Option<Arc<DevState>>,
    /// Limits on requests.
    pub config: Arc<ApiConfig>,
    /// Copies of carts.
    pub carts: Arc<dyn CartCopies>,
    /// What several API processes share beside the database; without it each has its own.
    pub redis: Option<Redis>,
    /// Renders `/metrics`.
    pub metrics: Option<PrometheusHandle>,
    /// Requests that may be in hand at once.
    pub(crate) admission: Arc<Semaphore>,
    /// Long polls that may be open at once.
    pub(crate) polls: Arc<Semaphore>,
    /// Bytes of bodies that may be here at once.
    pub(crate) arriving: Arc<Semaphore>,
    /// Where checkouts are accepted.
    pub(crate) accepts: Accepts,
    /// Who asked how often; none when nobody is limited.
    pub(crate) buckets: Option<Arc<Buckets>>,
    draining: Arc<AtomicBool>,
}

/// Limits of the API. Every one of them has a default that suits one small machine.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Connections and their times.
    pub connections: serving::Limits,
    /// Requests in hand at once; one more is answered 503 `overloaded`.
    pub max_concurrency: usize,
    /// Long polls at once besides; one more is answered 503 `overloaded`.
    pub max_polls: usize,
    /// Checkouts that may wait for a worker; past it new ones are answered 503 `backlog-full`.
    pub max_backlog: i64,
    /// A request that takes longer is answered 503 `timeout`; a long poll has the time it asked for on top.
    /// Longer than a statement may take.
    pub request_timeout: Duration,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// How long a graceful stop waits for the requests in hand.
    pub drain_limit: Duration,
    /// How often one caller may ask; `None` limits nobody.
    pub rate_limits: Option<RateLimits>,
    /// Pages of which other sites may ask; development adds every page served from this machine.
    pub allowed_origins: AllowedOrigins,
    /// Proxies in front of this process whose word on who is asking is believed: the address so many from
    /// the end of `X-Forwarded-For`. With 0 it is whoever has connected. With one or more every connection is
    /// a proxy's, and their number from one address is not limited.
    pub trusted_proxies: usize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig {
            connections: serving::Limits::default(),
            max_concurrency: 512,
            max_polls: 1024,
            max_backlog: 5_000,
            request_timeout: Duration::from_secs(14),
            max_body_bytes: 256 * 1024,
            drain_limit: Duration::from_secs(10),
            rate_limits: Some(RateLimits::default()),
            allowed_origins: AllowedOrigins::default(),
            trusted_proxies: 0,
        }
    }
}

impl ApiConfig {
    /// What one listener allows.
    pub(crate) fn connections(&self) -> serving::Limits {
        let per_address = self.connections.per_address.filter(|_| self.trusted_proxies == 0);
        serving::Limits { per_address, ..self.connections }
    }
}

/// What only development has.
pub struct DevState {
    /// Base URL of the sandbox gateway, without a trailing slash.
    pub sandbox_url: String,
    /// Every e-mail the shop would have sent.
    pub mailbox: DevMailbox,
    /// Asks the sandbox.
    pub client: reqwest::Client,
}

impl AppState {
    /// State for one API process. The schema of the database behind `pool` must have been checked.
    pub fn new(pool: PgPool, shop: Arc<Shop>, auth: AuthKeys, config: ApiConfig) -> Self {
        AppState {
            accepts: Accepts::new(pool.clone(), Arc::clone(&shop), config.max_backlog, config.request_timeout),
            pool,
            shop,
            auth: Arc::new(auth),
            dev: None,
            buckets: config.rate_limits.map(|limits| Arc::new(Buckets::new(limits))),
            admission: Arc::new(Semaphore::new(config.max_concurrency)),
            polls: Arc::new(Semaphore::new(config.max_polls)),
            arriving: Arc::new(Semaphore::new(MAX_ARRIVING_BYTES)),
            config: Arc::new(config),
            carts: Arc::new(LocalCarts::default()),
            redis: None,
            metrics: None,
            draining: Arc::default(),
        }
    }

    /// The same with the routes of development, and with limits that hundreds of shoppers played from one
    /// address do not reach.
    #[must_use]
    pub fn with_dev(mut self, dev: DevState) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.rate_limits = config.rate_limits.map(|_| RateLimits::WIDE);
        config.connections.per_address = None;
        self.buckets = config.rate_limits.map(|limits| Arc::new(Buckets::new(limits)));
        self.dev = Some(Arc::new(dev));
        self
    }

    /// The same with a Redis.
    #[must_use]
    pub fn with_redis(mut self, redis: Redis) -> Self {
        self.carts = Arc::new(RedisCarts::new(redis.clone()));
        self.redis = Some(redis);
        self
    }

    /// The same with `/metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: PrometheusHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// From now on `/readyz` answers 503, so that a load balancer looks elsewhere.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether this process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState").field("shop", &self.shop).field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for DevState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevState").field("sandbox_url", &self.sandbox_url).finish_non_exhaustive()
    }
}
