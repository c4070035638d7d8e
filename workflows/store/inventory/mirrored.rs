//! What a mirror of the holds is told.

use domain::ports::MirroredHold;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::Position;

/// The place in the feed of events before the oldest hold that still counts; without one the present.
///
/// # Errors
/// The database's own.
pub async fn oldest_hold(conn: &mut PgConnection) -> Result<Position, sqlx::Error> {
    let before = sqlx::query_scalar!(
        r#"
        with holders as (
            select distinct coalesce(order_id, service_reservation_id)::text as holder
              from inventory_reservations
             where status = 'ACTIVE' and expires_at > engine.now()),
        oldest as (
            select e.xid from outbox_events e join holders h on e.subject = h.holder
             where e.event_type = 'inventory.reserved'
             order by e.xid limit 1)
        -- Of that transaction itself every event counts: their numbers are above zero.
        select coalesce((select xid from oldest), pg_snapshot_xmin(pg_current_snapshot()))::text as "xid!"
        "#
    )
    .fetch_one(conn)
    .await?;
    let xid = before.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Position { xid, id: 0 })
}

/// How the holds of these orders, or of other services' reservations, stand now; one each, in order.
///
/// # Errors
/// The database's own.
pub async fn holds_of(conn: &mut PgConnection, holders: &[Uuid]) -> Result<Vec<MirroredHold>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        select h.holder as "holder!", r.body,
               coalesce(ceil(extract(epoch from r.expires_at - engine.now()))::bigint, 0) as "remaining_s!"
          from unnest($1::uuid[]) as h(holder)
          left join lateral (
               select min(i.expires_at) as expires_at,
                      jsonb_build_object(
                          'reservationId', h.holder, 'expiresAt', min(i.expires_at),
                          'items', jsonb_agg(jsonb_build_object(
                              'variantId', i.variant_id, 'quantity', i.quantity_reserved) order by i.variant_id))::text as body
                 from inventory_reservations i
                where (i.order_id = h.holder or i.service_reservation_id = h.holder)
                  and i.status = 'ACTIVE' and i.expires_at > engine.now()
               having count(*) > 0) r on true
         order by h.holder
        "#,
        holders
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| MirroredHold {
            holder: row.holder,
            body: row.body,
            remaining_s: u64::try_from(row.remaining_s).unwrap_or_default(),
        })
        .collect())
}
