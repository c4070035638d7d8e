//! `cart-engine dev`: a whole shop in one process, on a machine that has nothing but this binary.

mod settings;

use std::time::{Duration, Instant};

use adapters::notify::DevMailbox;
use sqlx::PgPool;
use tokio::net::TcpListener;
use url::Url;

pub(crate) use settings::{DevSettings, read as settings};

use crate::{
    config::{self, Config},
    database::{Database, IfMissing, Purpose},
    failure::Failure,
    listen::{self, listen},
    outside,
    parts::Parts,
    roles::{api, sandbox, scheduler, worker},
    say, seed,
    shutdown::Stop,
};

/// How a development shop is run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Everything that is not about development.
    pub(crate) config: Config,
    /// The database lives in a temporary folder, and is gone at the end.
    pub(crate) ephemeral: bool,
    /// How many workers run in this process; 0 when they run in others.
    pub(crate) workers: usize,
    /// Is told, in a few words, what is being done.
    pub(crate) progress: fn(&str),
}

/// A development shop that serves.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where its API is reached, without a trailing slash.
    pub(crate) base_url: String,
    /// Where its database is reached, for this and other processes.
    pub(crate) database_url: String,
    /// Where its sandbox gateway is reached.
    pub(crate) sandbox_url: String,
    /// Connections of the API, for whoever wants to look.
    pub(crate) pool: PgPool,
    shop: Parts,
    gateway: Parts,
    pools: Vec<PgPool>,
    database: Database,
}

/// Runs a development shop until it is told to stop.
///
/// # Errors
/// What keeps it from serving.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut stop = Stop::listen()?;
    let starting = start(options);
    let mut running = tokio::select! {
        started = starting => started?,
        () = stop.asked() => return Ok(()),
    };
    say(&running.welcome(begun.elapsed().as_secs_f32()));
    let failure = tokio::select! {
        () = stop.asked() => None,
        failure = running.ended() => Some(failure),
    };
    stop.exit_on_next();
    say("stopping");
    let stopped = running.stop().await;
    failure.map_or(stopped, Err)
}

/// Starts a development shop: its database, schema, demo data, sandbox gateway, API, workers and
/// scheduler.
///
/// # Errors
/// What keeps it from serving; whatever had been started is stopped again.
pub(crate) async fn start(options: Options) -> Result<Running, Failure> {
    // Before anything is started: a taken port is the likeliest thing to be wrong.
    let listener = listen(&options.config.api.listen).await?;
    let progress = options.progress;
    progress("starting PostgreSQL");
    let config = &options.config.database;
    let database = if options.ephemeral {
        if config.url.is_some() {
            return Err(Failure::new("--ephemeral and DATABASE_URL exclude each other")
                .hint("--ephemeral makes a database of its own and throws it away; unset DATABASE_URL for that"));
        }
        Database::ephemeral(config, &progress).await?
    } else {
        Database::open(config, IfMissing::Create, &progress).await?
    };
    match Assembly::make(&options, listener, &database).await {
        Ok(assembly) => Ok(assembly.on(database)),
        Err(failure) => {
            // The failure is what matters; what does not stop now goes with this process.
            if let Err(error) = database.close().await {
                tracing::warn!(%error, "the database did not stop");
            }
            Err(failure)
        }
    }
}

/// All that runs on the database.
struct Assembly {
    base_url: String,
    sandbox_url: String,
    pool: PgPool,
    shop: Parts,
    gateway: Parts,
    pools: Vec<PgPool>,
}

impl Assembly {
    async fn make(options: &Options, listener: TcpListener, database: &Database) -> Result<Self, Failure> {
        let progress = options.progress;
        let config = options.config.clone();
        let base_url = listen::url(&listener)?;
        progress("bringing the schema up to date");
        let maintenance = database.pool("dev", 2, Purpose::Maintain);
        migrations::run(&maintenance).await?;
        let mut dev = settings::set_up(&maintenance).await?;
        settings::tell(&maintenance, "public_url", &base_url).await?;
        dev.public_url = Some(base_url.clone());
        DevMailbox::setup(&maintenance).await?;
        if seed::fill_if_empty(&maintenance).await? {
            progress("the demo catalogue is in the database");
        }

        let (mut shop_parts, mut gateway) = (Parts::default(), Parts::default());
        let mut pools = Vec::new();
        if config.sandbox.url.is_none() {
            progress("starting the sandbox gateway");
            let listener = sandbox_listener(dev.sandbox_url.as_deref()).await?;
            let url = listen::url(&listener)?;
            let pool = sandbox::pool(database);
            let secret = outside::webhook_secret(&config, Some(&dev))?;
            let webhooks = sandbox::webhook_url(&base_url);
            sandbox::start(&mut gateway, &config, listener, &pool, &secret, webhooks).await?;
            settings::tell(&maintenance, "sandbox_url", &url).await?;
            dev.sandbox_url = Some(url);
            pools.push(pool);
        }
        maintenance.close().await;

        progress("starting the API, workers and scheduler");
        let pool = database.pool("api", config.api.connections, Purpose::Serve);
        let shop = outside::shop(&config, Some(&dev), &pool)?;
        let state = api::state(&config, &pool, shop.clone(), Some(&dev)).await?;
        for _ in 0..options.workers {
            let pool = worker::pool(&config, database);
            worker::start(&mut shop_parts, &config, &pool, &shop)?;
            pools.push(pool);
        }
        worker::follow_holds(&mut shop_parts, &config, &pool).await?;
        let schedules = scheduler::pool(database);
        scheduler::start(&mut shop_parts, &schedules);
        pools.push(schedules);
        api::start(&mut shop_parts, listener, state)?;

        let sandbox_url = outside::sandbox_url(&config, Some(&dev)).unwrap_or_default();
        Ok(Assembly { base_url, sandbox_url, pool, shop: shop_parts, gateway, pools })
    }

    fn on(self, database: Database) -> Running {
        Running {
            base_url: self.base_url,
            database_url: database.url().to_owned(),
            sandbox_url: self.sandbox_url,
            pool: self.pool,
            shop: self.shop,
            gateway: self.gateway,
            pools: self.pools,
            database,
        }
    }
}

/// The address of the last time if it is free, so that links to a payment page outlive a restart.
async fn sandbox_listener(last_url: Option<&str>) -> Result<TcpListener, Failure> {
    let last_port = last_url.and_then(|url| Url::parse(url).ok()).and_then(|url| url.port());
    if let Some(port) = last_port
        && let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await
    {
        return Ok(listener);
    }
    listen("127.0.0.1:0").await
}

impl Running {
    fn welcome(&self, seconds: f32) -> String {
        let mut text = format!("\nThe shop is open (after {seconds:.1} s).\n\n");
        let database = config::without_password(&self.database_url);
        let base = &self.base_url;
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<10} {value}\n"));
        line("shop", base);
        line("API", &format!("{base}/docs"));
        line("mailbox", &format!("{base}/dev/mailbox"));
        line("sandbox", &self.sandbox_url);
        line("database", &database);
        for user in &seed::USERS {
            line("user", &format!("{} / {} ({})", user.email, user.password, user.role));
        }
        line("API key", seed::API_KEY);
        text.push_str("\nCtrl-C stops it.");
        text
    }

    /// Waits until a part of it ends by itself, and says why.
    pub(crate) async fn ended(&mut self) -> Failure {
        let failure = tokio::select! {
            failure = self.shop.ended() => failure,
            failure = self.gateway.ended() => failure,
            failure = self.database.ended() => return failure,
        };
        // That the database has ended may be noticed by others first.
        tokio::time::timeout(Duration::from_secs(1), self.database.ended()).await.unwrap_or(failure)
    }

    /// Stops in the order in which nothing is missed: the API takes no more requests and workers no
    /// more runs while those in hand end; then the gateway they talk to; then the database under all.
    ///
    /// # Errors
    /// A part that did not end well. The others are stopped all the same.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let shop = self.shop.stop().await;
        let gateway = self.gateway.stop().await;
        self.pool.close().await;
        for pool in self.pools {
            pool.close().await;
        }
        tracing::debug!("nobody uses the database any more");
        let database = self.database.close().await;
        shop.and(gateway).and(database)
    }
}
