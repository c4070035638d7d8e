//! Connections beside a process' pool, for what must not wait behind its transactions.

use std::{fmt, time::Instant};

use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgConnectOptions};

use crate::silence::{FRESH, connected, echo, heard};

/// A pool of so many connections like those of another.
pub fn beside(pool: &PgPool, connections: usize) -> PgPool {
    pool.options().clone().max_connections(count(connections)).connect_lazy_with((*pool.connect_options()).clone())
}

/// The same, for what may be forgotten: its commits do not wait for the disk, and a crash of Postgres undoes
/// the latest of them. A ticket's fetch is then made again. So is a claim; whoever made the forgotten one is
/// refused by the fence, as after a failover.
pub fn forgetful(pool: &PgPool, connections: usize) -> PgPool {
    pool.options().clone().max_connections(count(connections)).connect_lazy_with(unsynchronised(pool))
}

fn unsynchronised(pool: &PgPool) -> PgConnectOptions {
    (*pool.connect_options()).clone().options([("synchronous_commit", "off")])
}

fn count(connections: usize) -> u32 {
    u32::try_from(connections).unwrap_or(u32::MAX)
}

/// A connection of somebody's own, opened when it is needed. One who always has work for it is spared what
/// a pool asks of a connection each time it is lent and given back; and sqlx' pool asks the latter without a
/// deadline, so that a line which goes silent just then would be lost for ever.
pub(crate) struct Own {
    options: PgConnectOptions,
    in_company: bool,
    kept: Option<(PgConnection, Instant)>,
}

/// A session waits no longer than this for a lock.
const IN_COMPANY: &str = "select set_config('lock_timeout', '1500ms', false) from pg_settings
                           where name = 'lock_timeout' and setting::int not between 1 and 1500";

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("is_open", &self.kept.is_some()).finish_non_exhaustive()
    }
}

impl Own {
    /// One like those of a pool.
    pub(crate) fn like(pool: &PgPool) -> Self {
        Own { options: (*pool.connect_options()).clone(), in_company: false, kept: None }
    }

    /// The same, which waits less long for a lock: those who need another would wait as well.
    pub(crate) fn in_company(pool: &PgPool) -> Self {
        Own { in_company: true, ..Own::like(pool) }
    }

    /// The same, [`forgetful`].
    pub(crate) fn forgetful(pool: &PgPool) -> Self {
        Own { options: unsynchronised(pool), in_company: false, kept: None }
    }

    /// The connection, if the database is there. Whoever does not [`keep`](Own::keep) it closes it.
    pub(crate) async fn take(&mut self) -> Result<PgConnection, sqlx::Error> {
        if let Some((mut connection, used)) = self.kept.take()
            && (used.elapsed() < FRESH || echo(&mut connection).await.is_ok())
        {
            return Ok(connection);
        }
        let mut connection = connected(PgConnection::connect_with(&self.options)).await?;
        if self.in_company {
            heard(sqlx::query(IN_COMPANY).execute(&mut connection)).await?;
        }
        Ok(connection)
    }

    /// Keeps it for the next time: it has answered to everything, and has no transaction open.
    pub(crate) fn keep(&mut self, connection: PgConnection) {
        self.kept = Some((connection, Instant::now()));
    }
}
