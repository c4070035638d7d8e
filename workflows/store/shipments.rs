//! `shipments`, `shipment_items`: parcels, and the pieces that will never be in one. Whoever writes here has
//! locked the order.

use chrono::{DateTime, Utc};
use domain::{ids::OrderId, money::to_wire, notification::ParcelLabel, order::ShipmentStatus};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::orders::LockedOrder;

/// A line of an order, and how much of it is still to be shipped.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The order's line.
    pub order_item_id: Uuid,
    /// What is in it.
    pub variant_id: Uuid,
    /// Its SKU when it was ordered.
    pub sku: String,
    /// Pieces ordered that are in no parcel, or in one that came back, and that were not called off.
    pub left: i32,
}

/// A parcel as its courier sees it.
#[derive(Debug, Clone)]
pub struct ParcelStatus {
    /// The order in it.
    pub order_id: OrderId,
    /// Where it is.
    pub status: ShipmentStatus,
}

fn status(text: &str) -> Result<ShipmentStatus, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Every line of an order, with the pieces that wait to be shipped.
///
/// # Errors
/// The database's own.
pub async fn waiting(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<Waiting>, sqlx::Error> {
    sqlx::query_as!(
        Waiting,
        r#"select i.id as order_item_id, i.variant_id, i.sku,
                  (i.quantity - i.called_off
                   - coalesce(sum(p.quantity) filter (where s.status not in ('RETURNED', 'LOST')), 0))::int as "left!"
             from order_items i
             left join shipment_items p on p.order_item_id = i.id
             left join shipments s on s.id = p.shipment_id
            where i.order_id = $1 group by i.id order by i.id"#,
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await
}

/// Writes down a READY parcel; the order shows its tracking number.
///
/// # Errors
/// The database's own.
pub async fn insert(
    conn: &mut PgConnection,
    order_id: OrderId,
    id: Uuid,
    label: &ParcelLabel,
    items: &[(Uuid, i32)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let lines: Vec<Uuid> = items.iter().map(|(line, _)| *line).collect();
    let quantities: Vec<i32> = items.iter().map(|(_, quantity)| *quantity).collect();
    sqlx::query!(
        "with parcel as (
            insert into shipments (id, order_id, courier_service, tracking_number, status, created_at)
            values ($1, $2, $3, $4, 'READY', $5)
            returning id),
         labelled as (
            update orders set tracking_number = $4, courier_service = $3, updated_at = $5 where id = $2)
         insert into shipment_items (shipment_id, order_item_id, quantity)
         select p.id, i.line, i.quantity from parcel p, unnest($6::uuid[], $7::int[]) as i(line, quantity)",
        id,
        Uuid::from(order_id),
        label.courier_service,
        label.tracking_number,
        now,
        &lines,
        &quantities
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Where a parcel is, and whose it is.
///
/// # Errors
/// The database's own.
pub async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Option<ParcelStatus>, sqlx::Error> {
    let row = sqlx::query!("select order_id, status from shipments where id = $1", id).fetch_optional(conn).await?;
    row.map(|row| Ok(ParcelStatus { order_id: row.order_id.into(), status: status(&row.status)? })).transpose()
}

/// What is written on a parcel.
///
/// # Errors
/// The database's own.
pub async fn label(conn: &mut PgConnection, id: Uuid) -> Result<Option<ParcelLabel>, sqlx::Error> {
    sqlx::query_as!(ParcelLabel, "select courier_service, tracking_number from shipments where id = $1", id)
        .fetch_optional(conn)
        .await
}

/// Where every parcel of an order is, oldest first.
///
/// # Errors
/// The database's own.
pub async fn statuses(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<ShipmentStatus>, sqlx::Error> {
    let rows =
        sqlx::query_scalar!("select status from shipments where order_id = $1 order by id", Uuid::from(order_id))
            .fetch_all(conn)
            .await?;
    rows.iter().map(|text| status(text)).collect()
}

/// What is in a parcel: lines, and how many pieces of each.
///
/// # Errors
/// The database's own.
pub async fn items(conn: &mut PgConnection, id: Uuid) -> Result<Vec<(Uuid, i32)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select order_item_id, quantity from shipment_items where shipment_id = $1 order by order_item_id",
        id
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.order_item_id, row.quantity)).collect())
}

/// Takes the pieces out of every parcel that has not left.
///
/// # Errors
/// The database's own.
pub async fn unpack(conn: &mut PgConnection, order_id: OrderId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update shipments set status = 'RETURNED' where order_id = $1 and status in ('PENDING', 'READY')",
        Uuid::from(order_id)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Pieces of a line that will never be delivered.
#[derive(Debug, Clone, Copy)]
pub struct CalledOff {
    /// The order's line.
    pub order_item_id: Uuid,
    /// How many.
    pub quantity: i32,
    /// What they were sold for, in major units.
    pub amount: Decimal,
}

/// Notes pieces that will never be delivered; those of `written_off` are not back in stock either. Returns
/// how many of the order's pieces are, or will be, delivered.
///
/// # Errors
/// The database's own.
pub async fn call_off(
    conn: &mut PgConnection,
    order_id: OrderId,
    pieces: &[CalledOff],
    is_written_off: bool,
    now: DateTime<Utc>,
) -> Result<i64, sqlx::Error> {
    let lines: Vec<Uuid> = pieces.iter().map(|piece| piece.order_item_id).collect();
    let quantities: Vec<i32> = pieces.iter().map(|piece| piece.quantity).collect();
    let amounts: Vec<Decimal> = pieces.iter().map(|piece| piece.amount).collect();
    sqlx::query!(
        "with changed as (
            update orders set updated_at = $6 where id = $1)
         update order_items i
            set called_off = i.called_off + p.quantity, called_off_amount = i.called_off_amount + p.amount,
                written_off = i.written_off + case when $5 then p.quantity else 0 end
           from unnest($2::uuid[], $3::int[], $4::numeric[]) as p(line, quantity, amount)
          where i.id = p.line and i.order_id = $1",
        Uuid::from(order_id),
        &lines,
        &quantities,
        &amounts,
        is_written_off,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        r#"select coalesce(sum(quantity - called_off), 0) as "left!" from order_items where order_id = $1"#,
        Uuid::from(order_id)
    )
    .fetch_one(conn)
    .await
}

/// Moves a parcel on, with the time it left and the time it arrived. A scan that was skipped is made up for.
///
/// # Errors
/// The database's own.
pub async fn report(
    conn: &mut PgConnection,
    id: Uuid,
    to: ShipmentStatus,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update shipments
            set status = $2,
                shipped_at = case when $3 then coalesce(shipped_at, $4) else shipped_at end,
                delivered_at = case when $2 = 'DELIVERED' then $4 else delivered_at end
          where id = $1",
        id,
        to.as_str(),
        to.has_left(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The order shows where its parcels are.
///
/// # Errors
/// The database's own.
pub async fn show(
    conn: &mut PgConnection,
    order_id: OrderId,
    status: ShipmentStatus,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update orders set shipment_status = $2, updated_at = $3 where id = $1",
        Uuid::from(order_id),
        status.as_str(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Cash on delivery: what the courier was given, for all but what was called off, is ours. PENDING → CAPTURED,
/// once, and told to the world.
///
/// # Errors
/// The database's own.
pub async fn capture_cash(conn: &mut PgConnection, order: &LockedOrder, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let currency = order.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let called_off = sqlx::query_scalar!(
        r#"select coalesce(sum(called_off_amount), 0) as "sum!" from order_items where order_id = $1"#,
        Uuid::from(order.id)
    )
    .fetch_one(&mut *conn)
    .await?;
    let due = order.total - called_off;
    sqlx::query!(
        "with payment as (
            update payments set payment_status = 'CAPTURED', captured_amount = $4, updated_at = $2
             where order_id = $1 and payment_method = 'COD' and payment_status = 'PENDING'
            returning order_id, currency),
         followed as (
            update orders o set payment_status = 'CAPTURED', updated_at = $2 from payment p where o.id = p.order_id)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), 'payment.captured', order_id::text,
                jsonb_build_object('orderId', order_id, 'amount', $3::text, 'currency', currency), $2
           from payment where $4 > 0",
        Uuid::from(order.id),
        now,
        to_wire(due, currency),
        due
    )
    .execute(conn)
    .await?;
    Ok(())
}
