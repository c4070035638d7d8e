//! Connections beside a process' pool, for what must not wait behind its transactions.

use std::{fmt, time::Instant};

use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgConnectOptions};

use crate::silence::{FRESH, connected, echo};

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
    kept: Option<(PgConnection, Instant)>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("is_open", &self.kept.is_some()).finish_non_exhaustive()
    }
}

impl Own {
    /// One like those of a pool.
    pub(crate) fn like(pool: &PgPool) -> Self {
        Own { options: (*pool.connect_options()).clone(), kept: None }
    }

    /// The same, [`forgetful`].
    pub(crate) fn forgetful(pool: &PgPool) -> Self {
        Own { options: unsynchronised(pool), kept: None }
    }

    /// The connection, if the database is there. Whoever does not [`keep`](Own::keep) it closes it.
    pub(crate) async fn take(&mut self) -> Result<PgConnection, sqlx::Error> {
        if let Some((mut connection, used)) = self.kept.take()
            && (used.elapsed() < FRESH || echo(&mut connection).await.is_ok())
        {
            return Ok(connection);
        }
        connected(PgConnection::connect_with(&self.options)).await
    }

    /// Keeps it for the next time: it has answered to everything, and has no transaction open.
    pub(crate) fn keep(&mut self, connection: PgConnection) {
        self.kept = Some((connection, Instant::now()));
    }
}
