//! `inventory`, `inventory_reservations`, `inventory_movements`.
//!
//! Lock order: reservations first, then inventory rows in variant order. Every change moves a
//! reservation by a guarded update and writes its movement, so stock is never given back twice and
//! Σ movements = counters.

pub mod low_stock;

use chrono::{DateTime, Utc};
use domain::ids::{OrderId, VariantId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

pub mod mirrored;
pub mod services;
pub mod shelf;

use super::carts::CartLine;

/// For whom stock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// For an order, by its checkout.
    Order(OrderId),
    /// For another service of the shop: the id of its reservation.
    Service(Uuid),
}

impl From<OrderId> for Holder {
    fn from(order_id: OrderId) -> Self {
        Holder::Order(order_id)
    }
}

/// Units wanted of a variant, under a reservation to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// What.
    pub variant_id: VariantId,
    /// How many.
    pub quantity: i32,
    /// The reservation's id.
    pub reservation_id: Uuid,
}

impl Wanted {
    /// One a line; lines are in variant order and name each variant once.
    pub fn of(lines: &[CartLine]) -> Vec<Wanted> {
        lines
            .iter()
            .map(|line| Wanted {
                variant_id: line.variant_id,
                quantity: i32::try_from(line.quantity).unwrap_or(i32::MAX),
                reservation_id: Uuid::now_v7(),
            })
            .collect()
    }
}

/// A variant of which there is not enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Short {
    /// What.
    pub variant_id: VariantId,
    /// What there is.
    pub available: u32,
}

/// What can be had now of each of these variants that has any stock.
pub async fn available(conn: &mut PgConnection, variants: &[Uuid]) -> Result<Vec<Short>, sqlx::Error> {
    let rows =
        sqlx::query!("select variant_id, available_quantity from inventory where variant_id = any($1)", variants)
            .fetch_all(conn)
            .await?;
    Ok(rows
        .into_iter()
        .map(|row| Short {
            variant_id: row.variant_id.into(),
            available: u32::try_from(row.available_quantity).unwrap_or_default(),
        })
        .collect())
}

/// Holds everything wanted, or nothing: then returns what is short. One statement.
pub async fn hold(
    conn: &mut PgConnection,
    holder: impl Into<Holder>,
    wanted: &[Wanted],
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<Vec<Short>, sqlx::Error> {
    let (order_id, service_reservation_id) = match holder.into() {
        Holder::Order(order_id) => (Some(Uuid::from(order_id)), None),
        Holder::Service(reservation_id) => (None, Some(reservation_id)),
    };
    let variants: Vec<Uuid> = wanted.iter().map(|w| w.variant_id.into()).collect();
    let quantities: Vec<i32> = wanted.iter().map(|w| w.quantity).collect();
    let reservations: Vec<Uuid> = wanted.iter().map(|w| w.reservation_id).collect();
    let short = sqlx::query!(
        r#"
        with wanted as (
            select * from unnest($1::uuid[], $2::int[], $3::uuid[]) as w(variant_id, quantity, reservation_id)),
        -- Locked in variant order; what is read is what the lock's holder left.
        locked as materialized (
            select i.variant_id, i.available_quantity
              from inventory i
             where i.variant_id = any($1)
             order by i.variant_id
               for update),
        short as (
            select w.variant_id, coalesce(l.available_quantity, 0) as available
              from wanted w left join locked l using (variant_id)
             where coalesce(l.available_quantity, 0) < w.quantity),
        taken as (
            update inventory i
               set available_quantity = i.available_quantity - w.quantity,
                   reserved_quantity = i.reserved_quantity + w.quantity,
                   version = i.version + 1, updated_at = $5
              from wanted w
             where i.variant_id = w.variant_id and not exists (select from short)
            returning w.reservation_id, i.variant_id, w.quantity, i.available_quantity as left_over, i.low_stock_threshold),
        held as (
            insert into inventory_reservations
                (id, order_id, service_reservation_id, variant_id, quantity_reserved, status, created_at, expires_at)
            select reservation_id, $4, $7, variant_id, quantity, 'ACTIVE', $5, $6 from taken),
        moved as (
            insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
            select variant_id, 'HOLD', -quantity, quantity, reservation_id, $5 from taken),
        -- One alert a crossing: only the sale that takes it from above the threshold to at or below it.
        alerted as (
            insert into outbox_events (event_id, event_type, subject, data, occurred_at)
            select gen_random_uuid(), 'inventory.low_stock', variant_id::text,
                   jsonb_build_object('variantId', variant_id, 'available', left_over, 'threshold', low_stock_threshold), $5
              from taken
             where left_over <= low_stock_threshold and left_over + quantity > low_stock_threshold)
        select variant_id as "variant_id!", available as "available!" from short
        "#,
        &variants,
        &quantities,
        &reservations,
        order_id,
        now,
        expires_at,
        service_reservation_id,
    )
    .fetch_all(conn)
    .await?;
    Ok(short
        .into_iter()
        .map(|row| Short {
            variant_id: row.variant_id.into(),
            available: u32::try_from(row.available).unwrap_or_default(),
        })
        .collect())
}

/// ACTIVE → CONFIRMED, reserved −q. Returns which variants were committed; the others' holds have expired.
pub async fn commit(
    conn: &mut PgConnection,
    order_id: OrderId,
    now: DateTime<Utc>,
) -> Result<Vec<VariantId>, sqlx::Error> {
    let committed = sqlx::query_scalar!(
        r#"
        with confirmed as (
            update inventory_reservations set status = 'CONFIRMED'
             where order_id = $1 and status = 'ACTIVE'
            returning id, variant_id, quantity_reserved),
        locked as materialized (
            select i.variant_id from inventory i
             where i.variant_id in (select variant_id from confirmed)
             order by i.variant_id
               for update),
        sold as (
            update inventory i
               set reserved_quantity = i.reserved_quantity - c.quantity_reserved, version = i.version + 1, updated_at = $2
              from confirmed c join locked l using (variant_id)
             where i.variant_id = c.variant_id),
        moved as (
            insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
            select variant_id, 'COMMIT', 0, -quantity_reserved, id, $2 from confirmed)
        select variant_id as "variant_id!" from confirmed
        "#,
        Uuid::from(order_id),
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(committed.into_iter().map(VariantId::from).collect())
}

/// ACTIVE → RELEASED, available +q, reserved −q, once. Also tells the world, if anything was released.
pub async fn release(conn: &mut PgConnection, order_id: OrderId, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "select id from inventory_reservations where order_id = $1 and status = 'ACTIVE' order by variant_id for update",
        Uuid::from(order_id)
    )
    .fetch_all(&mut *conn)
    .await?;
    give_back(conn, &ids, "RELEASED", now).await
}

/// A hold whose time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overdue {
    /// When it ended.
    pub expires_at: DateTime<Utc>,
    /// Which.
    pub id: Uuid,
}

/// Locks up to `batch` holds whose time has passed, those past `after` in their order; not those that
/// somebody has in hand.
///
/// # Errors
/// The database's own.
pub async fn overdue(
    conn: &mut PgConnection,
    after: Option<Overdue>,
    batch: i64,
    now: DateTime<Utc>,
) -> Result<Vec<Overdue>, sqlx::Error> {
    sqlx::query_as!(
        Overdue,
        "select expires_at, id from inventory_reservations
          where expires_at <= $1 and status = 'ACTIVE'
            and ($2::timestamptz is null or (expires_at, id) > ($2, $3))
          order by expires_at, id limit $4
            for update skip locked",
        now,
        after.map(|after| after.expires_at),
        after.map(|after| after.id),
        batch
    )
    .fetch_all(conn)
    .await
}

/// Expires holds that [`overdue`] has locked. A run that confirms later takes the stock afresh.
///
/// # Errors
/// The database's own.
pub async fn expire(conn: &mut PgConnection, holds: &[Overdue], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = holds.iter().map(|hold| hold.id).collect();
    give_back(conn, &ids, "EXPIRED", now).await
}

/// The caller has locked these reservations, and they are ACTIVE.
async fn give_back(conn: &mut PgConnection, ids: &[Uuid], status: &str, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        with released as (
            update inventory_reservations set status = $2, released_at = $3
             where id = any($1) and status = 'ACTIVE'
            returning id, order_id, service_reservation_id, variant_id, quantity_reserved),
        units as (
            select variant_id, sum(quantity_reserved)::int as quantity from released group by variant_id),
        locked as materialized (
            select i.variant_id from inventory i
             where i.variant_id in (select variant_id from units)
             order by i.variant_id
               for update),
        returned as (
            update inventory i
               set available_quantity = i.available_quantity + u.quantity,
                   reserved_quantity = i.reserved_quantity - u.quantity, version = i.version + 1, updated_at = $3
              from units u join locked l using (variant_id)
             where i.variant_id = u.variant_id),
        moved as (
            insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
            select variant_id, case $2 when 'EXPIRED' then 'EXPIRE' else 'RELEASE' end,
                   quantity_reserved, -quantity_reserved, id, $3 from released)
        insert into outbox_events (event_id, event_type, subject, data, occurred_at)
        select gen_random_uuid(), 'inventory.released', coalesce(order_id, service_reservation_id)::text,
               jsonb_build_object('cause', $2::text,
                   'items', jsonb_agg(jsonb_build_object('variantId', variant_id, 'quantity', quantity_reserved)))
               || case when order_id is null then jsonb_build_object('reservationId', service_reservation_id)
                       else jsonb_build_object('orderId', order_id) end, $3
          from released where order_id is not null or service_reservation_id is not null
         group by order_id, service_reservation_id
        "#,
        ids,
        status,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sold pieces come back: CONFIRMED reservations give up that many, RETURNED once they have none left;
/// available +q, and the world hears of it. The variants are in order, each once.
///
/// # Errors
/// `RowNotFound` when fewer than these were sold and not yet given back; the caller rolls back then.
pub async fn take_back(
    conn: &mut PgConnection,
    order_id: OrderId,
    pieces: &[(VariantId, i32)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let variants: Vec<Uuid> = pieces.iter().map(|(variant_id, _)| (*variant_id).into()).collect();
    let quantities: Vec<i32> = pieces.iter().map(|(_, quantity)| *quantity).collect();
    let taken = sqlx::query_scalar!(
        r#"
        with pieces as (
            select * from unnest($2::uuid[], $3::int[]) as p(variant_id, quantity)),
        sold as materialized (
            select r.id from inventory_reservations r
             where r.order_id = $1 and r.variant_id = any($2) and r.status = 'CONFIRMED'
             order by r.variant_id
               for update),
        returned as (
            update inventory_reservations r
               set quantity_returned = r.quantity_returned + p.quantity,
                   status = case when r.quantity_returned + p.quantity = r.quantity_reserved then 'RETURNED' else r.status end
              from pieces p
             where r.id in (select id from sold) and r.variant_id = p.variant_id
               and r.quantity_returned + p.quantity <= r.quantity_reserved
            returning r.id, r.variant_id, p.quantity),
        locked as materialized (
            select i.variant_id from inventory i
             where i.variant_id in (select variant_id from returned)
             order by i.variant_id
               for update),
        restocked as (
            update inventory i
               set available_quantity = i.available_quantity + r.quantity, version = i.version + 1, updated_at = $4
              from returned r join locked l using (variant_id)
             where i.variant_id = r.variant_id),
        moved as (
            insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
            select variant_id, 'RETURN', quantity, 0, id, $4 from returned),
        told as (
            insert into outbox_events (event_id, event_type, subject, data, occurred_at)
            select gen_random_uuid(), 'inventory.refunded', $1::text,
                   jsonb_build_object('orderId', $1::uuid,
                       'items', jsonb_agg(jsonb_build_object('variantId', variant_id, 'quantity', quantity))), $4
              from returned having count(*) > 0)
        select count(*) as "count!" from returned
        "#,
        Uuid::from(order_id),
        &variants,
        &quantities,
        now
    )
    .fetch_one(conn)
    .await?;
    if usize::try_from(taken) == Ok(pieces.len()) { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}
