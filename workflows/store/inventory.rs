//! `inventory`, `inventory_reservations`, `inventory_movements`.
//!
//! Lock order: reservations first, then inventory rows in variant order. Every change moves a
//! reservation by a guarded update and writes its movement, so stock is never given back twice and
//! Σ movements = counters.

pub mod low_stock;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use domain::ids::{OrderId, VariantId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

pub mod mirrored;
pub mod services;
pub mod shelf;

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

impl Holder {
    /// As the columns `order_id` and `service_reservation_id`.
    fn columns(self) -> (Option<Uuid>, Option<Uuid>) {
        match self {
            Holder::Order(order_id) => (Some(order_id.into()), None),
            Holder::Service(reservation_id) => (None, Some(reservation_id)),
        }
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

/// Stock that somebody wants: all of it, or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// Who.
    pub holder: Holder,
    /// What, each variant once.
    pub wanted: Vec<Wanted>,
    /// Until when.
    pub expires_at: DateTime<Utc>,
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

/// Holds for each demand everything it wants, or nothing: then says what is short for it. Answers are in the
/// demands' order, and so are those served: who is refused takes nothing away from a later one. One statement
/// where there is enough for all.
///
/// # Errors
/// The database's own.
pub async fn hold(
    conn: &mut PgConnection,
    demands: &[Demand],
    now: DateTime<Utc>,
) -> Result<Vec<Vec<Short>>, sqlx::Error> {
    let all: Vec<&Demand> = demands.iter().collect();
    // Of what is not named here there is enough for everybody.
    let mut left = take(conn, &all, now).await?;
    if left.is_empty() {
        return Ok(vec![Vec::new(); demands.len()]);
    }
    let answers: Vec<Vec<Short>> = demands.iter().map(|demand| serve(&mut left, &demand.wanted)).collect();
    let served: Vec<&Demand> =
        all.into_iter().zip(&answers).filter(|(_, short)| short.is_empty()).map(|(demand, _)| demand).collect();
    // Their rows have been locked since they were counted.
    let short = take(conn, &served, now).await?;
    if short.is_empty() { Ok(answers) } else { Err(sqlx::Error::RowNotFound) }
}

/// Takes what is wanted from what is `left`, or nothing: then returns what is short.
fn serve(left: &mut HashMap<VariantId, i64>, wanted: &[Wanted]) -> Vec<Short> {
    let short: Vec<Short> = wanted
        .iter()
        .filter_map(|wanted| Some((wanted.variant_id, *left.get(&wanted.variant_id)?, wanted.quantity)))
        .filter(|&(_, left, quantity)| left < i64::from(quantity))
        .map(|(variant_id, left, _)| Short { variant_id, available: u32::try_from(left).unwrap_or_default() })
        .collect();
    if short.is_empty() {
        for wanted in wanted {
            left.entry(wanted.variant_id).and_modify(|left| *left -= i64::from(wanted.quantity));
        }
    }
    short
}

/// Takes everything for everybody, or nothing: then returns what there is of each variant that is short of the
/// sum. Either way the variants' rows are locked from here on.
async fn take(
    conn: &mut PgConnection,
    demands: &[&Demand],
    now: DateTime<Utc>,
) -> Result<HashMap<VariantId, i64>, sqlx::Error> {
    let each: Vec<_> =
        demands.iter().flat_map(|demand| demand.wanted.iter().map(move |wanted| (demand, wanted))).collect();
    if each.is_empty() {
        return Ok(HashMap::new());
    }
    let variants: Vec<Uuid> = each.iter().map(|(_, wanted)| wanted.variant_id.into()).collect();
    let quantities: Vec<i32> = each.iter().map(|(_, wanted)| wanted.quantity).collect();
    let reservations: Vec<Uuid> = each.iter().map(|(_, wanted)| wanted.reservation_id).collect();
    let (orders, services): (Vec<Option<Uuid>>, Vec<Option<Uuid>>) =
        each.iter().map(|(demand, _)| demand.holder.columns()).unzip();
    let ends: Vec<DateTime<Utc>> = each.iter().map(|(demand, _)| demand.expires_at).collect();
    let short = sqlx::query!(
        r#"
        with wanted as (
            select * from unnest($1::uuid[], $2::int[], $3::uuid[], $4::uuid[], $5::uuid[], $6::timestamptz[])
                       as w(variant_id, quantity, reservation_id, order_id, service_reservation_id, expires_at)),
        sums as (
            select variant_id, sum(quantity) as quantity from wanted group by variant_id),
        -- Locked in variant order; what is read is what the lock's holder left.
        locked as materialized (
            select i.variant_id, i.available_quantity
              from inventory i
             where i.variant_id = any($1)
             order by i.variant_id
               for update),
        short as (
            select s.variant_id, coalesce(l.available_quantity, 0) as available
              from sums s left join locked l using (variant_id)
             where coalesce(l.available_quantity, 0) < s.quantity),
        taken as (
            update inventory i
               set available_quantity = i.available_quantity - s.quantity,
                   reserved_quantity = i.reserved_quantity + s.quantity,
                   version = i.version + 1, updated_at = $7
              from sums s
             where i.variant_id = s.variant_id and not exists (select from short)
            returning i.variant_id, s.quantity, i.available_quantity as left_over, i.low_stock_threshold),
        held as (
            insert into inventory_reservations
                (id, order_id, service_reservation_id, variant_id, quantity_reserved, status, created_at, expires_at)
            select w.reservation_id, w.order_id, w.service_reservation_id, w.variant_id, w.quantity, 'ACTIVE', $7, w.expires_at
              from wanted w
             where not exists (select from short)),
        moved as (
            insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
            select w.variant_id, 'HOLD', -w.quantity, w.quantity, w.reservation_id, $7
              from wanted w
             where not exists (select from short)),
        -- One alert a crossing: only what takes it from above the threshold to at or below it.
        alerted as (
            insert into outbox_events (event_id, event_type, subject, data, occurred_at)
            select gen_random_uuid(), 'inventory.low_stock', variant_id::text,
                   jsonb_build_object('variantId', variant_id, 'available', left_over, 'threshold', low_stock_threshold), $7
              from taken
             where left_over <= low_stock_threshold and left_over + quantity > low_stock_threshold)
        select variant_id as "variant_id!", available as "available!" from short
        "#,
        &variants,
        &quantities,
        &reservations,
        &orders as &[Option<Uuid>],
        &services as &[Option<Uuid>],
        &ends,
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(short.into_iter().map(|row| (row.variant_id.into(), i64::from(row.available))).collect())
}

/// ACTIVE → CONFIRMED, reserved −q. Returns of which orders which variants were committed; the others' holds
/// have expired.
///
/// # Errors
/// The database's own.
pub async fn commit(
    conn: &mut PgConnection,
    orders: &[OrderId],
    now: DateTime<Utc>,
) -> Result<HashSet<(OrderId, VariantId)>, sqlx::Error> {
    if orders.is_empty() {
        return Ok(HashSet::new());
    }
    let ids: Vec<Uuid> = orders.iter().copied().map(Uuid::from).collect();
    let committed = sqlx::query!(
        r#"
        with confirmed as (
            update inventory_reservations set status = 'CONFIRMED'
             where order_id = any($1) and status = 'ACTIVE'
            returning id, order_id, variant_id, quantity_reserved),
        units as (
            select variant_id, sum(quantity_reserved)::int as quantity from confirmed group by variant_id),
        locked as materialized (
            select i.variant_id, u.quantity from units u join inventory i using (variant_id)
             order by i.variant_id
               for update of i),
        sold as (
            update inventory i
               set reserved_quantity = i.reserved_quantity - l.quantity, version = i.version + 1, updated_at = $2
              from locked l
             where i.variant_id = l.variant_id),
        moved as (
            insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
            select variant_id, 'COMMIT', 0, -quantity_reserved, id, $2 from confirmed)
        select order_id as "order_id!", variant_id as "variant_id!" from confirmed
        "#,
        &ids,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(committed.into_iter().map(|row| (row.order_id.into(), row.variant_id.into())).collect())
}

/// ACTIVE → RELEASED, available +q, reserved −q, once. Also tells the world of each order of which anything was
/// released.
///
/// # Errors
/// The database's own.
pub async fn release(conn: &mut PgConnection, orders: &[OrderId], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = orders.iter().copied().map(Uuid::from).collect();
    let held = sqlx::query_scalar!(
        "select id from inventory_reservations where order_id = any($1) and status = 'ACTIVE'
          order by variant_id, id for update",
        &ids
    )
    .fetch_all(&mut *conn)
    .await?;
    give_back(conn, &held, "RELEASED", now).await
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
            select i.variant_id, u.quantity from units u join inventory i using (variant_id)
             order by i.variant_id
               for update of i),
        returned as (
            update inventory i
               set available_quantity = i.available_quantity + l.quantity,
                   reserved_quantity = i.reserved_quantity - l.quantity, version = i.version + 1, updated_at = $3
              from locked l
             where i.variant_id = l.variant_id),
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

/// Pieces of an order that come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Of which.
    pub order_id: OrderId,
    /// What.
    pub variant_id: VariantId,
    /// How many.
    pub quantity: i32,
}

/// Sold pieces come back: CONFIRMED reservations give up that many, RETURNED once they have none left;
/// available +q, and the world hears of it. Each variant of an order is named once.
///
/// # Errors
/// `RowNotFound` when fewer than these were sold and not yet given back; the caller rolls back then.
pub async fn take_back(conn: &mut PgConnection, pieces: &[Piece], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if pieces.is_empty() {
        return Ok(());
    }
    let orders: Vec<Uuid> = pieces.iter().map(|piece| piece.order_id.into()).collect();
    let variants: Vec<Uuid> = pieces.iter().map(|piece| piece.variant_id.into()).collect();
    let quantities: Vec<i32> = pieces.iter().map(|piece| piece.quantity).collect();
    let taken = sqlx::query_scalar!(
        r#"
        with pieces as (
            select * from unnest($1::uuid[], $2::uuid[], $3::int[]) as p(order_id, variant_id, quantity)),
        sold as materialized (
            select r.id from inventory_reservations r
             where r.order_id = any($1) and r.status = 'CONFIRMED'
               and (r.order_id, r.variant_id) in (select order_id, variant_id from pieces)
             order by r.variant_id, r.id
               for update),
        returned as (
            update inventory_reservations r
               set quantity_returned = r.quantity_returned + p.quantity,
                   status = case when r.quantity_returned + p.quantity = r.quantity_reserved then 'RETURNED' else r.status end
              from pieces p
             where r.id in (select id from sold) and r.order_id = p.order_id and r.variant_id = p.variant_id
               and r.quantity_returned + p.quantity <= r.quantity_reserved
            returning r.id, r.order_id, r.variant_id, p.quantity),
        units as (
            select variant_id, sum(quantity)::int as quantity from returned group by variant_id),
        locked as materialized (
            select i.variant_id, u.quantity from units u join inventory i using (variant_id)
             order by i.variant_id
               for update of i),
        restocked as (
            update inventory i
               set available_quantity = i.available_quantity + l.quantity, version = i.version + 1, updated_at = $4
              from locked l
             where i.variant_id = l.variant_id),
        moved as (
            insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reservation_id, created_at)
            select variant_id, 'RETURN', quantity, 0, id, $4 from returned),
        told as (
            insert into outbox_events (event_id, event_type, subject, data, occurred_at)
            select gen_random_uuid(), 'inventory.refunded', order_id::text,
                   jsonb_build_object('orderId', order_id,
                       'items', jsonb_agg(jsonb_build_object('variantId', variant_id, 'quantity', quantity))), $4
              from returned group by order_id)
        select count(*) as "count!" from returned
        "#,
        &orders,
        &variants,
        &quantities,
        now
    )
    .fetch_one(conn)
    .await?;
    if usize::try_from(taken) == Ok(pieces.len()) { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}
