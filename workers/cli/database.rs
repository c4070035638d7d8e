//! The database a command works on: the one that `DATABASE_URL` names, or the embedded one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use embedded::Cluster;
use engine::silence;
use secrecy::ExposeSecret;
use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tempfile::TempDir;

use crate::{config, failure::Failure};

/// How long a first connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// What to do when there is no embedded database yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMissing {
    /// Make it.
    Create,
    /// Say so: whoever wants to look at data means data that is there.
    Refuse,
}

/// What the sessions of a pool are for, and so how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Serving a shop: a statement that hangs must not hold its locks for ever.
    Serve,
    /// Carrying runs. A worker that is frozen for longer than its lease has lost them, and the locks of
    /// what it had begun must not keep others from going on.
    Carry {
        /// Its lease.
        lease_ms: u64,
    },
    /// Work that a person waits for, such as a migration or an audit: as long as it takes.
    Maintain,
}

impl Purpose {
    /// Server settings of each session; time-outs in milliseconds, keepalives in seconds.
    ///
    /// A session whose client vanished without a word must not hold its locks for long either: the server
    /// asks after it, and ends it.
    fn settings(self) -> Vec<(&'static str, String)> {
        let idle_ms = match self {
            Purpose::Serve => 15_000,
            Purpose::Carry { lease_ms } => lease_ms,
            Purpose::Maintain => return Vec::new(),
        };
        vec![
            ("statement_timeout", silence::STATEMENT_TIMEOUT.as_millis().to_string()),
            ("lock_timeout", "5000".to_owned()),
            ("idle_in_transaction_session_timeout", idle_ms.to_string()),
            ("tcp_keepalives_idle", "5".to_owned()),
            ("tcp_keepalives_interval", "2".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
            ("tcp_user_timeout", "10000".to_owned()),
        ]
    }
}

/// A database that has answered once.
#[derive(Debug)]
pub(crate) struct Database {
    options: PgConnectOptions,
    url: String,
    shown: String,
    // In this order they are dropped: the folder goes when nobody writes to it any more.
    cluster: Option<Cluster>,
    scratch: Option<TempDir>,
}

impl Database {
    /// The configured database.
    ///
    /// # Errors
    /// One that does not answer, or has no binaries to run on.
    pub(crate) async fn open(
        config: &config::Database,
        missing: IfMissing,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, Failure> {
        if let Some(url) = &config.url {
            return Self::at(url.expose_secret()).await;
        }
        let data_dir = config.data_dir.clone().unwrap_or_else(embedded::default_data_dir);
        if missing == IfMissing::Refuse {
            let folder = data_dir.clone();
            let running = tokio::task::spawn_blocking(move || embedded::running(&folder)).await;
            if let Ok(Some(url)) = running {
                return Self::at(&url).await;
            }
            if !has_cluster(&data_dir) {
                let message = format!("there is no database in {}", data_dir.display());
                return Err(Failure::new(message)
                    .hint("start `cart-engine` once to make one, or set DATABASE_URL, or name another --data-dir"));
            }
        }
        Self::run(config, data_dir, None, progress).await
    }

    /// The database that `DATABASE_URL` names; roles that share it with others do not make their own.
    ///
    /// # Errors
    /// None named, or one that does not answer.
    pub(crate) async fn shared(config: &config::Database) -> Result<Self, Failure> {
        match &config.url {
            Some(url) => Self::at(url.expose_secret()).await,
            None => Err(Failure::new("DATABASE_URL is not set")
                .hint("set DATABASE_URL=postgres://…; `cart-engine dev` prints the URL of its own")),
        }
    }

    /// A database that is gone when it is closed.
    ///
    /// # Errors
    /// One that cannot be started.
    pub(crate) async fn ephemeral(
        config: &config::Database,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, Failure> {
        let scratch = tempfile::Builder::new().prefix("cart-engine-").tempdir()?;
        let data_dir = scratch.path().to_owned();
        Self::run(config, data_dir, Some(scratch), progress).await
    }

    async fn run(
        config: &config::Database,
        data_dir: PathBuf,
        scratch: Option<TempDir>,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, Failure> {
        let options = embedded::Options {
            data_dir,
            bin_dir: config.bin_dir.clone(),
            discovery: config.discovery,
            offline: config.offline,
            // A shop's data survives a crash, in development too.
            durable: true,
            settings: Vec::new(),
        };
        let cluster = Cluster::start_with(&options, progress).await?;
        cluster.ensure_database(embedded::NAME).await?;
        let url = cluster.url(embedded::NAME);
        Ok(Database {
            options: cluster.connect_options(embedded::NAME),
            shown: url.clone(),
            url,
            cluster: Some(cluster),
            scratch,
        })
    }

    async fn at(url: &str) -> Result<Self, Failure> {
        // The URL is never repeated: it has the password in it.
        let wrong = "DATABASE_URL is not a PostgreSQL URL";
        // The driver would take another database's URL for its own and knock at the wrong door.
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(Failure::new(wrong).hint("it starts with postgres://"));
        }
        let options: PgConnectOptions = url.parse().map_err(|error| Failure::caused_by(wrong, &error))?;
        let shown = format!(
            "{}@{}:{}/{}",
            options.get_username(),
            options.get_socket().map_or_else(|| options.get_host().into(), |socket| socket.to_string_lossy()),
            options.get_port(),
            options.get_database().unwrap_or(options.get_username())
        );
        let database = Database { options, url: url.to_owned(), shown, cluster: None, scratch: None };
        database.knock().await?;
        Ok(database)
    }

    /// One connection, so that what is wrong is said at once and once.
    async fn knock(&self) -> Result<(), Failure> {
        let what = format!("cannot connect to the database {}", self.shown);
        let advice = "check DATABASE_URL, and that the server runs";
        match tokio::time::timeout(CONNECT_PATIENCE, self.options.connect()).await {
            Ok(Ok(connection)) => {
                connection.close().await?;
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::caused_by(&what, &error).hint(advice)),
            Err(_) => Err(Failure::new(format!("{what}: no answer in {} s", CONNECT_PATIENCE.as_secs())).hint(advice)),
        }
    }

    /// At most `size` sessions, which show up in `pg_stat_activity` as `cart-engine <role>`.
    pub(crate) fn pool(&self, role: &str, size: u32, purpose: Purpose) -> PgPool {
        let options = self.options.clone().application_name(&format!("cart-engine {role}")).options(purpose.settings());
        silence::careful(PgPoolOptions::new().max_connections(size)).connect_lazy_with(options)
    }

    /// How other programs connect to it. Has the password in it, if there is one.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the embedded server, if this process runs it, ends by itself.
    pub(crate) async fn ended(&mut self) -> Failure {
        match &mut self.cluster {
            Some(cluster) => Failure::new(format!("the embedded PostgreSQL has ended ({})", cluster.ended().await))
                .hint("start again: it recovers what was committed"),
            None => std::future::pending().await,
        }
    }

    /// Stops the embedded server, if this process runs it, and removes what was ephemeral.
    ///
    /// # Errors
    /// A server that does not stop.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        if let Some(cluster) = self.cluster {
            cluster.stop().await?;
        }
        if let Some(scratch) = self.scratch {
            scratch.close()?;
        }
        Ok(())
    }
}

/// Whether an earlier start has made a cluster there.
fn has_cluster(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry.file_name().to_string_lossy().starts_with("postgres-") && entry.path().join("PG_VERSION").exists()
        })
    })
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    async fn refusal(config: config::Database) -> String {
        let opened = Database::open(&config, IfMissing::Refuse, &|_| {}).await;
        opened.expect_err("nothing there").report()
    }

    #[tokio::test]
    async fn a_wrong_url_is_told_in_one_line_without_its_password() {
        for url in ["postgres://a:hunter2@127.0.0.1:1/shop", "postgres://a:hunter2@[/shop", "hunter2"] {
            let report = refusal(config::Database { url: Some(SecretString::from(url)), ..Default::default() }).await;
            assert!(report.starts_with("cart-engine: "), "{report}");
            assert!(report.lines().count() <= 2, "{report}");
            assert!(!report.contains("hunter2"), "{report}");
        }
    }

    #[tokio::test]
    async fn looking_at_a_shop_that_was_never_started_makes_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("shop");
        let report = refusal(config::Database { data_dir: Some(data_dir.clone()), ..Default::default() }).await;
        assert!(report.contains("there is no database in"), "{report}");
        assert!(!data_dir.exists());
    }
}
