//! `payments`, `payment_attempts`: what a gateway's word about an order meets.

use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

/// A payment of exactly the order's total.
#[derive(Debug, Clone, PartialEq)]
pub struct Captured {
    /// The gateway's id.
    pub gateway_payment_id: String,
    /// What it brought.
    pub amount: Decimal,
}

/// What a gateway's message about an order meets.
#[derive(Debug, Clone)]
pub struct OrderOfPayment {
    /// The run the order belongs to while PENDING.
    pub checkout_run_id: Uuid,
    /// Where the order stands.
    pub order_status: String,
    /// The gateway's payment that its checkout asked for, once that is known.
    pub gateway_payment_id: Option<String>,
    /// The payment that confirmed it, if one did.
    pub confirmed_by: Option<String>,
}

/// The order a gateway's message is about.
pub async fn order_of(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<OrderOfPayment>, sqlx::Error> {
    sqlx::query_as!(
        OrderOfPayment,
        r#"select o.checkout_run_id, o.order_status, o.payment_id as confirmed_by, p.gateway_payment_id as "gateway_payment_id?"
             from orders o left join payments p on p.order_id = o.id
            where o.id = $1"#,
        Uuid::from(order_id)
    )
    .fetch_optional(conn)
    .await
}

/// The gateway that has, or may have, money for an order; none for cash.
///
/// # Errors
/// The database's own.
pub async fn gateway_of(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<String>, sqlx::Error> {
    let gateway = sqlx::query_scalar!("select payment_gateway from payments where order_id = $1", Uuid::from(order_id))
        .fetch_optional(conn)
        .await?;
    Ok(gateway.flatten())
}

/// An order's payment will never be needed: nothing was captured, and nothing will be. Cash that is not
/// collected is FAILED; a payment of nothing is REFUNDED.
///
/// # Errors
/// The database's own.
pub async fn give_up(
    conn: &mut PgConnection,
    orders: &[(OrderId, &str)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let (ids, reasons): (Vec<Uuid>, Vec<&str>) = orders.iter().map(|&(id, reason)| (Uuid::from(id), reason)).unzip();
    sqlx::query!(
        "with payment as (
            update payments p
               set payment_status = case p.payment_status when 'PENDING' then 'FAILED' else 'REFUNDED' end,
                   failure_reason = case p.payment_status when 'PENDING' then g.reason end, updated_at = $3
              from unnest($1::uuid[], $2::text[]) as g(order_id, reason)
             where p.order_id = g.order_id and p.captured_amount = 0 and p.payment_status in ('PENDING', 'CAPTURED')
            returning p.order_id, p.payment_status, g.reason),
         followed as (
            update orders o set payment_status = p.payment_status, updated_at = $3 from payment p where o.id = p.order_id)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), 'payment.failed', order_id::text,
                jsonb_build_object('orderId', order_id, 'code', 'cancelled', 'reason', reason), $3
           from payment where payment_status = 'FAILED'",
        &ids,
        &reasons as &[&str],
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
