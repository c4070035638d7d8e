//! `payment_attempts`: the tries to pay one order.

use chrono::{DateTime, Utc};
use domain::{ids::OrderId, money::Money};
use sqlx::PgConnection;
use uuid::Uuid;

/// What an order costs, and whose it is while PENDING.
#[derive(Debug, Clone)]
pub struct Payable {
    /// By the name in the database.
    pub status: String,
    /// What it costs.
    pub total: Money,
    /// The run it belongs to while PENDING.
    pub checkout_run_id: Uuid,
}

/// An order as somebody who wants to pay for it sees it.
///
/// # Errors
/// The database's own.
pub async fn payable(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<Payable>, sqlx::Error> {
    let row = sqlx::query!(
        "select order_status, total_amount, currency, checkout_run_id from orders where id = $1",
        Uuid::from(order_id)
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let currency = row.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let total = Money::rounded(row.total_amount, currency);
        Ok(Payable { status: row.order_status, total, checkout_run_id: row.checkout_run_id })
    })
    .transpose()
}

/// The tries an order has seen.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// How many.
    pub count: u32,
    /// The last is still under way.
    pub is_open: bool,
}

/// Counts the tries of an order.
///
/// # Errors
/// The database's own.
pub async fn made(conn: &mut PgConnection, order_id: OrderId) -> Result<Made, sqlx::Error> {
    let row = sqlx::query!(
        r#"select coalesce(max(a.attempt), 0) as "count!", coalesce(bool_or(a.status in ('PENDING', 'CAPTURED')), false) as "open!"
             from payment_attempts a join payments p on p.id = a.payment_id where p.order_id = $1"#,
        Uuid::from(order_id)
    )
    .fetch_one(conn)
    .await?;
    Ok(Made { count: u32::try_from(row.count).unwrap_or_default(), is_open: row.open })
}

/// A try was declined, and the order waits for another: PENDING → FAILED for it, an event, and no payment
/// of the gateway's is the order's own until the next.
///
/// # Errors
/// The database's own.
pub async fn record_decline(
    conn: &mut PgConnection,
    order_id: OrderId,
    number: u32,
    gateway_payment_id: &str,
    why: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with payment as (
            update payments set gateway_payment_id = null, failure_reason = $4, updated_at = $5
             where order_id = $1 and gateway_payment_id = $3
            returning id, order_id),
         attempt as (
            update payment_attempts a
               set status = 'FAILED', next_action = null, failure_reason = coalesce(a.failure_reason, $4), updated_at = $5
              from payment p where a.payment_id = p.id and a.attempt = $2)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), 'payment.failed', order_id::text,
                jsonb_build_object('orderId', order_id, 'code', 'payment-declined', 'reason', $4::text, 'attempt', $2::int), $5
           from payment",
        Uuid::from(order_id),
        i32::try_from(number).unwrap_or(i32::MAX),
        gateway_payment_id,
        why,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
