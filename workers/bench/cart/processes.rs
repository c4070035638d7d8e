//! The processes that are measured: an API, and a Redis beside it.

use std::{
    io::ErrorKind,
    process::Stdio,
    time::{Duration, Instant},
};

use adapters::redis::{Redis, cmd};
use anyhow::Context as _;
use reqwest::Client;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

use crate::cart_figures::Memory;

/// How long a process may take until it serves.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long one answer may take; beyond that the request has failed.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How often what is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// This binary's `api`. Dropping it kills it.
pub(super) struct Api {
    pub(super) url: String,
    pub(super) client: Client,
    process: Child,
    // Whoever closed it would make the process' next word fail.
    _stdout: BufReader<ChildStdout>,
}

impl Api {
    /// Starts one with the settings of production but for the rate limit: everybody here has one address.
    ///
    /// # Errors
    /// When it does not serve within half a minute.
    pub(super) async fn start(
        options: &PgConnectOptions,
        secret: &SecretString,
        redis: Option<&str>,
    ) -> anyhow::Result<Api> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["api", "--listen", "127.0.0.1:0"])
            .env_clear()
            .envs(["PATH", "HOME", "TMPDIR"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("DATABASE_URL", options.to_url_lossy().as_str())
            .env("JWT_SECRET", secret.expose_secret())
            .env("CART_ENGINE_RATE_LIMIT", "off")
            .envs(redis.map(|url| ("REDIS_URL", url)))
            // A configuration file would be found in the current folder.
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It logs every request, as in production.
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut process = command.spawn().context("the API process cannot be started")?;
        let mut stdout = BufReader::new(process.stdout.take().context("no standard output")?);
        let mut said = String::new();
        tokio::time::timeout(START_PATIENCE, stdout.read_line(&mut said))
            .await
            .context("the API process does not serve")??;
        let url = said.trim_end().strip_prefix("the API is ready at ").with_context(|| {
            format!("the API process said {said:?}; `cart-engine api` on the same server may tell more")
        })?;
        let url = url.to_owned();
        let client = Client::builder().no_proxy().timeout(ANSWER_PATIENCE).build()?;
        Ok(Api { url, client, process, _stdout: stdout })
    }

    /// Ends it, and tells what memory it had at the end and at most.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub(super) async fn stop(mut self) -> anyhow::Result<Option<Memory>> {
        let ended = self.process.try_wait()?;
        anyhow::ensure!(ended.is_none(), "the API process ended by itself: {ended:?}");
        let memory = self.process.id().and_then(memory_of);
        self.process.kill().await?;
        Ok(memory)
    }
}

/// Of a process, where Linux's /proc tells.
fn memory_of(pid: u32) -> Option<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib / 1024.0)
    };
    Some(Memory { rss_mib: mib("VmRSS")?, peak_rss_mib: mib("VmHWM")? })
}

/// A Redis of this run's own, which keeps nothing on disk. Dropping it kills it.
pub(super) struct OwnRedis {
    url: String,
    process: Child,
}

impl OwnRedis {
    /// Starts the installed redis-server; none where there is none.
    ///
    /// # Errors
    /// When it does not serve.
    pub(super) async fn start() -> anyhow::Result<Option<OwnRedis>> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let process = match command.spawn() {
            Ok(process) => process,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("redis-server cannot be started"),
        };
        let deadline = Instant::now() + START_PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            anyhow::ensure!(Instant::now() < deadline, "redis-server does not serve");
            tokio::time::sleep(LOOK).await;
        }
        Ok(Some(OwnRedis { url: format!("redis://127.0.0.1:{port}"), process }))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("redis-server had ended by itself")
    }
}

/// A Redis that answers.
///
/// # Errors
/// When there is no answer within half a minute.
pub(super) async fn answering(url: &str) -> anyhow::Result<Redis> {
    let redis = Redis::at(url)?;
    let deadline = Instant::now() + START_PATIENCE;
    while !redis.is_up().await {
        anyhow::ensure!(Instant::now() < deadline, "Redis does not answer");
        tokio::time::sleep(LOOK).await;
    }
    Ok(redis)
}

/// How many keys there are: copies, in a Redis that nobody else uses.
///
/// # Errors
/// When there is no answer.
pub(super) async fn keys(redis: &Redis) -> anyhow::Result<u64> {
    Ok(redis.command("bench", &cmd("DBSIZE")).await?)
}
