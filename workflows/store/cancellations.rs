//! What a cancellation needs to know of an order.

use domain::ids::{OrderId, VariantId};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// What a cancellation must know of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owed {
    /// The gateway that has the money; none for cash.
    pub gateway: Option<String>,
    /// Whether there is any.
    pub is_captured: bool,
    /// Where the shopper reads text messages.
    pub contact_phone: Option<String>,
}

/// Who has the order's money, and whom to tell.
///
/// # Errors
/// The database's own.
pub async fn owed(conn: &mut PgConnection, order_id: OrderId) -> Result<Owed, sqlx::Error> {
    sqlx::query_as!(
        Owed,
        r#"select p.payment_gateway as gateway, p.captured_amount > 0 as "is_captured!", o.contact_phone
             from orders o join payments p on p.order_id = o.id where o.id = $1"#,
        Uuid::from(order_id)
    )
    .fetch_one(conn)
    .await
}

/// What a cancellation gives back of an order's money, in major units of its currency: all that was
/// captured and that no other run gives back.
///
/// # Errors
/// The database's own.
pub async fn refundable(
    conn: &mut PgConnection,
    order_id: OrderId,
    cancelled_by: Option<Uuid>,
) -> Result<Decimal, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select p.captured_amount - coalesce((
                      select sum(r.amount) from refunds r
                       where r.payment_id = p.id and not r.is_extra
                         and r.run_id is distinct from $2), 0) as "left!"
             from payments p where p.order_id = $1"#,
        Uuid::from(order_id),
        cancelled_by
    )
    .fetch_one(conn)
    .await
}

/// Whether something was captured for an order, and all of it has gone back or is promised to.
///
/// # Errors
/// The database's own.
pub async fn is_paid_back(conn: &mut PgConnection, order_id: OrderId) -> Result<bool, sqlx::Error> {
    let paid_back = sqlx::query_scalar!(
        r#"select p.captured_amount > 0 and p.captured_amount <= (
                      select coalesce(sum(r.amount), 0) from refunds r
                       where r.payment_id = p.id and not r.is_extra) as "yes!"
             from payments p where p.order_id = $1"#,
        Uuid::from(order_id)
    )
    .fetch_optional(conn)
    .await?;
    Ok(paid_back.unwrap_or(false))
}

/// What a cancelled order gives back to stock: its pieces by variant, but for those that were called off.
///
/// # Errors
/// The database's own.
pub async fn goods(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<(VariantId, i32)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select variant_id, sum(quantity - called_off)::int as "quantity!" from order_items
            where order_id = $1 group by variant_id having sum(quantity - called_off) > 0 order by variant_id"#,
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.variant_id.into(), row.quantity)).collect())
}
