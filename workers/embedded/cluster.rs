//! The cluster a caller holds: start, connect, stop.

use std::path::Path;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::directory::DataDir;
use crate::discovery::{Found, Source, discover, examine};
use crate::launch::{PORT, Plan, Postmaster};
use crate::process::Signal;
use crate::running::{clusters, major_of, url};
use crate::{Error, NAME, Options, download};

/// A private Postgres that runs as a child of this process.
///
/// Dropping it tells the server to stop but does not wait; the next start does. On Linux the server
/// also stops when this process is killed.
#[derive(Debug)]
pub struct Cluster {
    // In this order they are dropped: the lock, in `data_dir`, is given up last.
    postmaster: Postmaster,
    plan: Plan,
    data_dir: DataDir,
}

impl Cluster {
    /// Starts the cluster of `options.data_dir`, making it first if there is none.
    ///
    /// Finds binaries (or downloads them once), recovers from whatever ended the last server, and
    /// returns when sessions are accepted. Call it from within a tokio runtime.
    ///
    /// # Errors
    /// See [`Error`]; every one says what to do about it or shows the end of the server's log.
    pub async fn start(options: &Options) -> Result<Self, Error> {
        Self::start_with(options, &|_| {}).await
    }

    /// Like [`start`](Self::start), telling `progress` in a sentence before what may take a while.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(options: &Options, progress: &(dyn Fn(&str) + Sync)) -> Result<Self, Error> {
        let progress = |message: &str| {
            tracing::info!("{message}");
            progress(message);
        };
        let wanted = options.clone();
        let data_dir = blocking(move || DataDir::open(&wanted.data_dir)).await?;
        let found = find(options, &data_dir, &progress).await?;
        let wanted = options.clone();
        let (data_dir, plan) = blocking(move || {
            let cluster = data_dir.cluster(&found, wanted.durable)?;
            let plan = Plan::new(&wanted, &data_dir, found, cluster)?;
            Ok((data_dir, plan))
        })
        .await?;
        let postmaster = plan.launch(&data_dir).await?;
        tracing::info!(
            pid = postmaster.pid,
            version = plan.found.version,
            bin_dir = %plan.found.bin_dir.display(),
            data_dir = %plan.cluster.display(),
            "the embedded PostgreSQL is ready"
        );
        Ok(Self { postmaster, plan, data_dir })
    }

    /// How to connect to a database of this cluster, as its superuser.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.plan.socket_folder)
            .port(PORT)
            .username(NAME)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// The same as a URL, for programs that take one; sqlx and libpq's `psql` both understand it.
    pub fn url(&self, database: &str) -> String {
        url(&self.plan.socket_folder, PORT, database)
    }

    /// Creates a database unless it is there.
    ///
    /// # Errors
    /// [`Error::Database`] if the server refuses.
    pub async fn ensure_database(&self, name: &str) -> Result<(), Error> {
        let mut connection = self.connect_options("postgres").connect().await?;
        let found: Option<i32> = sqlx::query_scalar("select 1 from pg_database where datname = $1")
            .bind(name)
            .fetch_optional(&mut connection)
            .await?;
        if found.is_none() {
            // `create database` takes no parameters; a doubled quote is all that can end the name.
            let create = format!("create database \"{}\"", name.replace('"', "\"\""));
            let created = sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await;
            match created {
                // Another process was as quick: that is what was asked for.
                Err(sqlx::Error::Database(error))
                    if error.code().is_some_and(|code| ["42P04", "23505"].contains(&&*code)) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        connection.close().await?;
        Ok(())
    }

    /// Ends every session and stops the server, leaving nothing to recover.
    ///
    /// # Errors
    /// [`Error::DidNotStop`] after 30 s of "fast" and 10 s of "immediate" shutdown.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.postmaster.stop(Signal::Interrupt).await
    }

    /// Crashes the server on purpose ("immediate" shutdown) and starts it again in the same place:
    /// open sessions break, and what was committed comes back by recovery (without
    /// [`Options::durable`] the last moments' commits are lost).
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`stop`](Self::stop).
    pub async fn restart_immediately(&mut self) -> Result<(), Error> {
        self.postmaster.stop(Signal::Quit).await?;
        self.postmaster = self.plan.launch(&self.data_dir).await?;
        Ok(())
    }

    /// Waits until the server ends without having been asked to, and says how it did.
    pub async fn ended(&mut self) -> String {
        self.postmaster.ended().await
    }

    /// The server's process id; another one after a restart.
    pub fn pid(&self) -> u32 {
        self.postmaster.pid
    }

    /// The server's version, e.g. `17.2`.
    pub fn version(&self) -> &str {
        &self.plan.found.version
    }

    /// Where its programs are. Downloaded binaries have no `psql`.
    pub fn bin_dir(&self) -> &Path {
        &self.plan.found.bin_dir
    }

    /// The cluster's own folder, `postgres-<major>` in [`Options::data_dir`].
    pub fn data_dir(&self) -> &Path {
        &self.plan.cluster
    }
}

/// What is on this machine, else what can be downloaded and reads the data that is there.
async fn find(options: &Options, data_dir: &DataDir, progress: &(dyn Fn(&str) + Sync)) -> Result<Found, Error> {
    let wanted = options.clone();
    let missing = match blocking(move || discover(&wanted)).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let existing = clusters(&data_dir.path);
    let readable = existing.is_empty() || existing.iter().any(|cluster| major_of(cluster) == Some(download::MAJOR));
    if !readable || options.bin_dir.is_some() {
        return Err(missing);
    }
    let tried = if let Error::NotFound { tried } = missing {
        tried
    } else if let Error::OtherMajor { found, .. } = missing {
        format!("\n  PostgreSQL {found} cannot read the data of another version")
    } else {
        return Err(missing);
    };
    let dir = download::fetch(data_dir, options.offline, tried, progress).await?;
    let identity = data_dir.identity;
    blocking(move || examine(&dir, Source::Downloaded, &identity).map_err(|reason| Error::Unusable { dir, reason }))
        .await
}

/// Runs what waits for files and programs where it keeps no other task waiting.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
