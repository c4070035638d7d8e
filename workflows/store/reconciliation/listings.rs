//! `gateway_listings`: how far the payments that a gateway lists have been looked through, in its own time.

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    ports::{ListedPayment, Window},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// Where a walk through a gateway's payments stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// What is listed now; it is empty when all up to its end has been seen.
    pub window: Window,
    /// The page of it that comes next; none for the first.
    pub page: Option<String>,
}

/// Where the walk of a pass stands with a gateway.
///
/// # Errors
/// The database's own.
pub async fn place(conn: &mut PgConnection, gateway: &str, pass: &str) -> Result<Option<Place>, sqlx::Error> {
    let row = sqlx::query!(
        "select from_at, until_at, page from gateway_listings where gateway = $1 and pass = $2",
        gateway,
        pass
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Place { window: Window { from: row.from_at, until: row.until_at }, page: row.page }))
}

/// Moves it on, unless another run was faster.
///
/// # Errors
/// The database's own.
pub async fn move_on(
    conn: &mut PgConnection,
    gateway: &str,
    pass: &str,
    from: &Place,
    to: &Place,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into gateway_listings as l (gateway, pass, from_at, until_at, page) values ($1, $2, $3, $4, $5)
         on conflict (gateway, pass) do update
            set from_at = excluded.from_at, until_at = excluded.until_at, page = excluded.page
          where l.from_at <= $6 and l.until_at <= $7 and l.page is not distinct from $8",
        gateway,
        pass,
        to.window.from,
        to.window.until,
        to.page,
        from.window.from,
        from.window.until,
        from.page
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a listed payment is to the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is on the books of its order.
    Known,
    /// Its order is ours, and does not know it.
    Unbooked(OrderId),
    /// It is for no order of ours.
    Foreign,
}

/// What each of these is, in their order.
///
/// # Errors
/// The database's own.
pub async fn standings(conn: &mut PgConnection, listed: &[ListedPayment]) -> Result<Vec<Standing>, sqlx::Error> {
    let ids: Vec<String> = listed.iter().map(|payment| payment.gateway_payment_id.clone()).collect();
    let orders: Vec<Option<Uuid>> = listed.iter().map(|payment| payment.order_id.map(Uuid::from)).collect();
    let rows = sqlx::query!(
        // By the order that the gateway names; else by a payment of ours.
        r#"select p.order_id as "order_id?",
                  coalesce(p.gateway_payment_id = l.id
                           or exists (select from payment_attempts a
                                       where a.payment_id = p.id and a.gateway_payment_id = l.id)
                           or exists (select from refunds r
                                       where r.payment_id = p.id and r.gateway_payment_id = l.id), false) as "is_booked!"
             from unnest($1::text[], $2::uuid[]) with ordinality as l(id, order_id, n)
             left join payments p on p.order_id = coalesce(l.order_id,
                  (select o.order_id from payment_attempts a join payments o on o.id = a.payment_id
                    where a.gateway_payment_id = l.id limit 1))
            order by l.n"#,
        &ids,
        &orders as &[Option<Uuid>]
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| match row.order_id {
            Some(_) if row.is_booked => Standing::Known,
            Some(order_id) => Standing::Unbooked(order_id.into()),
            None => Standing::Foreign,
        })
        .collect())
}

/// From when on the gateway's payments have not been looked through yet.
///
/// # Errors
/// The database's own.
pub async fn reached(conn: &mut PgConnection, gateway: &str, pass: &str) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    Ok(place(conn, gateway, pass).await?.map(|place| place.window.from))
}
