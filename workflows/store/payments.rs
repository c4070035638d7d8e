//! `payments`, `payment_attempts`: what a gateway's word about an order meets.

use chrono::{DateTime, Utc};
use domain::{ids::OrderId, ports::Lookup};
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

/// What a gateway that cannot find payments by our order needs to know; `now` stands in while the order has none.
///
/// # Errors
/// The database's own.
pub async fn lookup(conn: &mut PgConnection, order_id: OrderId, now: DateTime<Utc>) -> Result<Lookup, sqlx::Error> {
    lookups(conn, &[order_id], now).await?.pop().ok_or(sqlx::Error::RowNotFound)
}

/// The same of many orders, in their order.
///
/// # Errors
/// The database's own.
pub async fn lookups(
    conn: &mut PgConnection,
    orders: &[OrderId],
    now: DateTime<Utc>,
) -> Result<Vec<Lookup>, sqlx::Error> {
    let ids: Vec<Uuid> = orders.iter().copied().map(Uuid::from).collect();
    let rows = sqlx::query!(
        r#"select u.order_id as "order_id!",
                  (select min(p.created_at) from payments p where p.order_id = u.order_id) as since,
                  array(select distinct t.id
                          from payments p
                          join lateral (
                               select p.gateway_payment_id as id
                               union all select a.gateway_payment_id from payment_attempts a where a.payment_id = p.id
                               union all select r.gateway_payment_id from refunds r where r.payment_id = p.id) t
                               on t.id is not null
                         where p.order_id = u.order_id order by t.id limit 100) as "known!"
             from unnest($1::uuid[]) with ordinality as u (order_id, nth)
            order by u.nth"#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    let lookups = rows.into_iter().map(|row| {
        let since = row.since.unwrap_or(now);
        Lookup { order_id: row.order_id.into(), known: row.known, lost: false, since }
    });
    Ok(lookups.collect())
}

/// The order that a payment was made for, by the gateway's id of the payment.
///
/// # Errors
/// The database's own.
pub async fn order_by_payment(
    conn: &mut PgConnection,
    gateway: &str,
    gateway_payment_id: &str,
) -> Result<Option<OrderId>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "select p.order_id from payment_attempts a join payments p on p.id = a.payment_id
          where a.gateway_payment_id = $2 and p.payment_gateway = $1 limit 1",
        gateway,
        gateway_payment_id
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(OrderId::from))
}

/// These orders wait until somebody has decided: what they hold is held until then, and what was to be paid is
/// AUTHORIZED, unless it is cash or nothing. The caller holds the orders.
///
/// # Errors
/// The database's own.
pub async fn set_aside(
    conn: &mut PgConnection,
    orders: &[(OrderId, DateTime<Utc>)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let (ids, until): (Vec<Uuid>, Vec<DateTime<Utc>>) =
        orders.iter().map(|&(order_id, until)| (Uuid::from(order_id), until)).unzip();
    sqlx::query!(
        "with held as (
            update inventory_reservations r set expires_at = greatest(r.expires_at, u.until)
              from unnest($1::uuid[], $2::timestamptz[]) as u(order_id, until)
             where r.order_id = u.order_id and r.status = 'ACTIVE'),
         payment as (
            update payments set payment_status = 'AUTHORIZED', updated_at = $3
             where order_id = any($1) and payment_status = 'PENDING' and payment_method <> 'COD' and amount > 0
            returning order_id)
         update orders o set payment_status = 'AUTHORIZED', updated_at = $3 from payment p where o.id = p.order_id",
        &ids,
        &until,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
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
