//! The lived-in database every bench runs on.

use sqlx::{Connection, PgPool};
use uuid::Uuid;

/// A cart to be checked out, and whose it is.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(crate) struct Cart {
    /// The shopper.
    pub(crate) user_id: Uuid,
    /// The cart: ACTIVE, of 3 lines, or of 1 when hot.
    pub(crate) cart_id: Uuid,
}

/// Fills an empty migrated database: 1,000 variants, 20,000 users and that many past orders, whose
/// books balance; vacuumed and analysed.
///
/// # Errors
/// When a statement fails: most likely the database was not empty.
pub(crate) async fn build(pool: &PgPool, past_orders: i32) -> Result<(), sqlx::Error> {
    let mut conn = pool.acquire().await?;
    // Rows made from one another need no foreign key checks, and without them this takes half the
    // time. Only a superuser may say so; for anybody else it merely takes longer.
    let trusted = sqlx::raw_sql("set session_replication_role = replica").execute(&mut *conn).await;
    if let Err(error) = trusted {
        tracing::debug!(%error, "foreign keys are checked while the past is written");
    }
    let mut tx = conn.begin().await?;
    sqlx::query("select set_config('bench.orders', $1, true)").bind(past_orders.to_string()).execute(&mut *tx).await?;
    sqlx::raw_sql(include_str!("world.sql")).execute(&mut *tx).await?;
    sqlx::raw_sql(include_str!("limit.sql")).execute(&mut *tx).await?;
    sqlx::raw_sql(include_str!("limit_sets.sql")).execute(&mut *tx).await?;
    tx.commit().await?;
    sqlx::raw_sql("vacuum analyze").execute(&mut *conn).await?;
    // The connection goes, and its trust in our rows with it.
    conn.close().await
}

/// Writes carts to be checked out, in bulk: of 3 different variants each, one piece a line; `hot`
/// carts are one piece of the same variant all. The same seed draws the same carts.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn prepare_carts(pool: &PgPool, count: i32, hot: bool, seed: i64) -> Result<Vec<Cart>, sqlx::Error> {
    let carts = sqlx::query_as("select user_id, cart_id from bench.prepare_carts($1, $2, $3)")
        .bind(count)
        .bind(hot)
        .bind(seed)
        .fetch_all(pool)
        .await?;
    sqlx::raw_sql("vacuum analyze carts, cart_items, users").execute(pool).await?;
    Ok(carts)
}
