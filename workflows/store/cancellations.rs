//! What a cancellation needs to know of an order.

use std::collections::HashMap;

use domain::ids::OrderId;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::inventory::Piece;

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

/// Who has the money of these orders, and whom to tell.
///
/// # Errors
/// The database's own.
pub async fn owed(conn: &mut PgConnection, orders: &[OrderId]) -> Result<HashMap<OrderId, Owed>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select o.id, p.payment_gateway as gateway, p.captured_amount > 0 as "is_captured!", o.contact_phone
             from orders o join payments p on p.order_id = o.id where o.id = any($1)"#,
        &uuids(orders)
    )
    .fetch_all(conn)
    .await?;
    let owed = rows.into_iter().map(|row| {
        let owed = Owed { gateway: row.gateway, is_captured: row.is_captured, contact_phone: row.contact_phone };
        (OrderId::from(row.id), owed)
    });
    Ok(owed.collect())
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

/// What cancelled orders give back to stock: their pieces by variant, but for those that were called off.
///
/// # Errors
/// The database's own.
pub async fn goods(conn: &mut PgConnection, orders: &[OrderId]) -> Result<Vec<Piece>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select order_id, variant_id, sum(quantity - called_off)::int as "quantity!" from order_items
            where order_id = any($1) group by order_id, variant_id having sum(quantity - called_off) > 0
            order by variant_id, order_id"#,
        &uuids(orders)
    )
    .fetch_all(conn)
    .await?;
    let piece = |order_id: Uuid, variant_id: Uuid, quantity| Piece {
        order_id: order_id.into(),
        variant_id: variant_id.into(),
        quantity,
    };
    Ok(rows.into_iter().map(|row| piece(row.order_id, row.variant_id, row.quantity)).collect())
}

fn uuids(orders: &[OrderId]) -> Vec<Uuid> {
    orders.iter().copied().map(Uuid::from).collect()
}
