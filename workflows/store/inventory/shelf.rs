//! Stock that comes in, is counted anew, and its ledger.

use chrono::{DateTime, Utc};
use domain::ids::VariantId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::catalogue::StockLevel;

/// Most units of one variant, available and reserved together: far below where the counters end.
const MOST_UNITS: i64 = 1_000_000_000;

/// Why units come or go without an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause<'a> {
    /// A delivery.
    Restock,
    /// A count that found another number, breakage, theft: with the reason.
    Adjust(&'a str),
}

/// Why a counter was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// More would leave the shelf than stands on it.
    #[error("only {available} can be had")]
    BelowZero {
        /// Units that can be had now.
        available: i32,
    },
    /// More than a shelf holds (a billion).
    #[error("a variant cannot have more than {MOST_UNITS} units")]
    TooMany,
    /// Postgres failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Changes what can be had of a variant, with its movement, and raises `inventory.low_stock` if this
/// takes it from above its threshold to the threshold or below. Units that are held stay held.
///
/// # Errors
/// See [`ShelfError`].
pub async fn change(
    conn: &mut PgConnection,
    variant_id: VariantId,
    delta: i32,
    cause: Cause<'_>,
) -> Result<(), ShelfError> {
    let (kind, reason) = match cause {
        Cause::Restock => ("RESTOCK", None),
        Cause::Adjust(reason) => ("ADJUST", Some(reason)),
    };
    // A variant that was never stocked has no counters yet.
    sqlx::query!("insert into inventory (variant_id) values ($1) on conflict (variant_id) do nothing", variant_id.0)
        .execute(&mut *conn)
        .await?;
    let level = sqlx::query!(
        r#"select available_quantity, reserved_quantity from inventory where variant_id = $1 for update"#,
        variant_id.0
    )
    .fetch_one(&mut *conn)
    .await?;
    let after = i64::from(level.available_quantity) + i64::from(delta);
    if after < 0 {
        return Err(ShelfError::BelowZero { available: level.available_quantity });
    }
    if after + i64::from(level.reserved_quantity) > MOST_UNITS {
        return Err(ShelfError::TooMany);
    }
    sqlx::query!(
        "with changed as (
            update inventory
               set available_quantity = available_quantity + $2, version = version + 1, updated_at = engine.now(),
                   last_restocked_at = case when $3 = 'RESTOCK' then engine.now() else last_restocked_at end
             where variant_id = $1
            returning available_quantity as left_over, low_stock_threshold),
         alerted as (
            insert into outbox_events (event_id, event_type, subject, data, occurred_at)
            select gen_random_uuid(), 'inventory.low_stock', $1::uuid::text,
                   jsonb_build_object('variantId', $1::uuid, 'available', left_over, 'threshold', low_stock_threshold),
                   engine.now()
              from changed
             where left_over <= low_stock_threshold and left_over - $2 > low_stock_threshold)
         insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reason, created_at)
         values ($1, $3, $2, 0, $4, engine.now())",
        variant_id.0,
        delta,
        kind,
        reason
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets at which level the shop wants to be told; it is told at the next crossing.
///
/// # Errors
/// The database's own.
pub async fn set_threshold(conn: &mut PgConnection, variant_id: VariantId, threshold: i32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into inventory (variant_id, low_stock_threshold) values ($1, $2)
         on conflict (variant_id) do update set low_stock_threshold = excluded.low_stock_threshold",
        variant_id.0,
        threshold
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The counters of a variant under its id.
///
/// # Errors
/// The database's own.
pub async fn level(conn: &mut PgConnection, variant_id: VariantId) -> Result<StockLevel, sqlx::Error> {
    let row = sqlx::query!(
        "select v.sku, i.available_quantity, i.reserved_quantity, i.low_stock_threshold
           from inventory i join product_variants v on v.id = i.variant_id where i.variant_id = $1",
        variant_id.0
    )
    .fetch_one(conn)
    .await?;
    Ok(StockLevel {
        variant_id,
        sku: row.sku,
        available: row.available_quantity,
        reserved: row.reserved_quantity,
        low_stock_threshold: row.low_stock_threshold,
    })
}

/// One line of a variant's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Its number.
    pub id: i64,
    /// RESTOCK, ADJUST, HOLD, COMMIT, RELEASE, EXPIRE or RETURN.
    pub kind: String,
    /// Change of what can be had.
    pub available_delta: i32,
    /// Change of what is held.
    pub reserved_delta: i32,
    /// The hold it belongs to.
    pub reservation_id: Option<Uuid>,
    /// The order the hold was for.
    pub order_id: Option<Uuid>,
    /// Why, for an adjustment.
    pub reason: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// A variant's ledger, newest first, before the given line.
///
/// # Errors
/// The database's own.
pub async fn ledger(
    conn: &mut PgConnection,
    variant_id: VariantId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Movement>, sqlx::Error> {
    sqlx::query_as!(
        Movement,
        r#"select m.id, m.kind, m.available_delta, m.reserved_delta, m.reservation_id, r.order_id as "order_id?",
                  m.reason, m.created_at
             from inventory_movements m left join inventory_reservations r on r.id = m.reservation_id
            where m.variant_id = $1 and ($2::bigint is null or m.id < $2)
            order by m.id desc limit $3"#,
        variant_id.0,
        before,
        limit
    )
    .fetch_all(conn)
    .await
}
