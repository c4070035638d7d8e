//! The figures of a bench run, and the counters of Postgres they come from.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;
use sqlx::PgPool;

use super::{
    World,
    limit::{LimitFigures, SET},
};

/// What a run found. The names are those of `bench --json`, which scripts read.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Checkouts a second.
    pub(crate) checkouts_per_s: f64,
    /// Checkouts a second at the limit.
    pub(crate) limit_per_s: f64,
    /// The one as a part of the other.
    pub(crate) ratio: f64,
    /// Checkouts a second at the limit for sets.
    pub(crate) set_limit_per_s: f64,
    /// Checkouts a second as a part of it.
    pub(crate) set_ratio: f64,
    /// Commits a checkout.
    pub(crate) commits_per_checkout: f64,
    /// Bytes of write-ahead log a checkout.
    pub(crate) wal_bytes_per_checkout: f64,
    /// Statements a checkout; none where the server does not count them.
    pub(crate) statements_per_checkout: Option<f64>,
    /// Median from accepted to completed, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile of the same.
    pub(crate) p99_ms: f64,
    /// Median of a one-row commit, in milliseconds.
    pub(crate) commit_ms: f64,
    /// Whether the books balanced after the load.
    pub(crate) books_balanced: bool,
    /// What was run, and on what server settings.
    pub(crate) settings: BTreeMap<String, String>,
}

impl Figures {
    /// The limit measured against itself.
    pub(crate) fn of_limit(limit: &LimitFigures, books_balanced: bool, settings: BTreeMap<String, String>) -> Self {
        Figures {
            checkouts_per_s: limit.checkouts_per_s,
            limit_per_s: limit.checkouts_per_s,
            ratio: 1.0,
            set_limit_per_s: limit.sets.checkouts_per_s,
            set_ratio: limit.checkouts_per_s / limit.sets.checkouts_per_s,
            commits_per_checkout: limit.commits_per_checkout,
            wal_bytes_per_checkout: limit.wal_bytes_per_checkout,
            statements_per_checkout: Some(limit.statements_per_checkout),
            p50_ms: limit.p50_ms,
            p99_ms: limit.p99_ms,
            commit_ms: limit.commit_ms,
            books_balanced,
            settings,
        }
    }

    /// Whether the books balanced.
    pub fn is_sound(&self) -> bool {
        self.books_balanced
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statements = self.statements_per_checkout.map_or("not counted".to_owned(), |count| format!("{count:.1}"));
        writeln!(f, "checkouts            {:>12.0} /s", self.checkouts_per_s)?;
        writeln!(f, "limit                {:>12.0} /s", self.limit_per_s)?;
        writeln!(f, "ratio                {:>12.2}", self.ratio)?;
        writeln!(f, "limit for sets       {:>12.0} /s", self.set_limit_per_s)?;
        writeln!(f, "ratio to it          {:>12.2}", self.set_ratio)?;
        writeln!(f, "commits a checkout   {:>12.2}", self.commits_per_checkout)?;
        writeln!(f, "WAL a checkout       {:>12.0} bytes", self.wal_bytes_per_checkout)?;
        writeln!(f, "statements a checkout{statements:>12}")?;
        writeln!(f, "p50                  {:>12.2} ms", self.p50_ms)?;
        writeln!(f, "p99                  {:>12.2} ms", self.p99_ms)?;
        writeln!(f, "one commit           {:>12.2} ms", self.commit_ms)?;
        writeln!(f, "books                {:>12}", if self.books_balanced { "balanced" } else { "NOT BALANCED" })?;
        for (name, value) in &self.settings {
            writeln!(f, "  {name:<32} {value}")?;
        }
        Ok(())
    }
}

/// For microseconds up to a minute; longer ones count as a minute. (Without bounds a histogram is as
/// narrow as it can be, and recording into it saturates at once.)
pub(crate) fn latencies() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, 60_000_000, 3)
}

/// A percentile (0 to 1) of recorded microseconds, in milliseconds.
pub(crate) fn millis(latency_us: &Histogram<u64>, quantile: f64) -> f64 {
    latency_us.value_at_quantile(quantile) as f64 / 1_000.0
}

/// What was run, on which build and with how much behind it, and the server's settings that decide over the
/// figures.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn settings(pool: &PgPool, work: &str, world: World) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select name, current_setting(name) from pg_settings
          where name in ('server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers',
                         'max_wal_size', 'wal_level')",
    )
    .fetch_all(pool)
    .await?;
    let mut settings: BTreeMap<String, String> = rows.into_iter().collect();
    settings.extend([
        ("work".to_owned(), work.to_owned()),
        ("past_orders".to_owned(), world.past_orders.to_string()),
        ("build".to_owned(), if cfg!(debug_assertions) { "debug: not for comparison" } else { "release" }.to_owned()),
    ]);
    if world.quick {
        settings.insert("quick".to_owned(), "not for quoting".to_owned());
    }
    Ok(settings)
}

/// What is to be known about the limits of a run.
pub(crate) fn limit_settings(limit: &LimitFigures) -> [(String, String); 6] {
    let sets = &limit.sets;
    [
        ("limit_clients".to_owned(), limit.clients.to_string()),
        ("limit_wal_bytes_per_checkout".to_owned(), format!("{:.0}", limit.wal_bytes_per_checkout)),
        ("set_limit_clients".to_owned(), format!("{}, sets of {SET}", sets.clients)),
        ("set_limit_commits_per_checkout".to_owned(), format!("{:.3}", sets.commits_per_checkout)),
        ("set_limit_wal_bytes_per_checkout".to_owned(), format!("{:.0}", sets.wal_bytes_per_checkout)),
        ("set_limit_p50_ms".to_owned(), format!("{:.1}", sets.p50_ms)),
    ]
}

/// What Postgres has counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Commits in this database.
    pub(crate) commits: i64,
    /// Bytes of write-ahead log, of the whole cluster.
    pub(crate) wal_bytes: i64,
    /// Statements in this database, where `pg_stat_statements` counts them.
    pub(crate) statements: Option<i64>,
}

impl Counters {
    /// Reads them once nobody else has any to hand in. A backend hands its own in when it ends, or
    /// within ten idle seconds: close the pools first, and what is left is the bench's own. When there is
    /// little time, that is not waited for.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn settled(pool: &PgPool, world: World) -> Result<Self, sqlx::Error> {
        let start = Instant::now();
        let patience = Duration::from_secs(if world.quick { 1 } else { 12 });
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let others: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
                  where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
                    and (state <> 'idle' or state_change > now() - interval '11 seconds')",
            )
            .fetch_one(pool)
            .await?;
            if others == 0 || start.elapsed() > patience {
                break;
            }
        }
        let (commits, wal_bytes) = sqlx::query_as(
            "select xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint
               from pg_stat_database where datname = current_database()",
        )
        .fetch_one(pool)
        .await?;
        let counted: bool =
            sqlx::query_scalar("select to_regclass('pg_stat_statements') is not null").fetch_one(pool).await?;
        let statements = if counted {
            sqlx::query_scalar(
                "select sum(s.calls)::bigint from pg_stat_statements s
                  where s.dbid = (select oid from pg_database where datname = current_database())",
            )
            .fetch_one(pool)
            .await?
        } else {
            None
        };
        Ok(Counters { commits, wal_bytes, statements })
    }

    /// What was counted between the two readings.
    pub(crate) fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            commits: self.commits - earlier.commits,
            wal_bytes: self.wal_bytes - earlier.wal_bytes,
            statements: self.statements.zip(earlier.statements).map(|(now, then)| now - then),
        }
    }
}
