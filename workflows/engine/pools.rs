//! Connections beside a process' pool, for what must not wait behind its transactions.

use sqlx::PgPool;

/// A pool of so many connections like those of another.
pub fn beside(pool: &PgPool, connections: usize) -> PgPool {
    pool.options().clone().max_connections(count(connections)).connect_lazy_with((*pool.connect_options()).clone())
}

/// The same, for what may be forgotten: its commits do not wait for the disk, and a crash of Postgres undoes
/// the latest of them. A ticket's fetch is then made again. So is a claim; whoever made the forgotten one is
/// refused by the fence, as after a failover.
pub fn forgetful(pool: &PgPool, connections: usize) -> PgPool {
    let options = (*pool.connect_options()).clone().options([("synchronous_commit", "off")]);
    pool.options().clone().max_connections(count(connections)).connect_lazy_with(options)
}

fn count(connections: usize) -> u32 {
    u32::try_from(connections).unwrap_or(u32::MAX)
}
