//! `service_reservations`: stock that another service of the shop holds, without an order.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::ids::VariantId;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Demand, Holder, Short, Wanted, give_back, hold};
use crate::messages;

/// A variant that was asked for by its id or its SKU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Which.
    pub variant_id: VariantId,
    /// The shop's own number for it.
    pub sku: String,
}

/// The variants on sale with one of those ids or SKUs.
///
/// # Errors
/// The database's own.
pub async fn find_variants(conn: &mut PgConnection, ids_or_skus: &[String]) -> Result<Vec<Named>, sqlx::Error> {
    let ids: Vec<Uuid> = ids_or_skus.iter().filter_map(|text| Uuid::parse_str(text).ok()).collect();
    let rows = sqlx::query!(
        "select v.id, v.sku
           from product_variants v join products p on p.id = v.product_id
          where (v.id = any($1) or v.sku = any($2)) and v.is_active and p.is_active",
        &ids,
        ids_or_skus
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| Named { variant_id: row.id.into(), sku: row.sku }).collect())
}

/// Holds all of it for a service until `expires_at`, or nothing: then returns what is short, and the
/// caller rolls back. The holds are expired by the same run as those of checkouts.
///
/// # Errors
/// The database's own.
pub async fn reserve(
    conn: &mut PgConnection,
    reservation_id: Uuid,
    api_key_id: Uuid,
    units: &BTreeMap<VariantId, i32>,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<Vec<Short>, sqlx::Error> {
    sqlx::query!(
        "insert into service_reservations (id, api_key_id, created_at, expires_at) values ($1, $2, $3, $4)",
        reservation_id,
        api_key_id,
        now,
        expires_at
    )
    .execute(&mut *conn)
    .await?;
    // The map's order is the order of locks.
    let wanted: Vec<Wanted> = units
        .iter()
        .map(|(&variant_id, &quantity)| Wanted { variant_id, quantity, reservation_id: Uuid::now_v7() })
        .collect();
    let demand = Demand { holder: Holder::Service(reservation_id), wanted, expires_at };
    let short = hold(conn, std::slice::from_ref(&demand), now).await?.concat();
    if short.is_empty() {
        let items: Vec<_> = demand
            .wanted
            .iter()
            .map(|wanted| json!({ "variantId": wanted.variant_id, "quantity": wanted.quantity }))
            .collect();
        let data = json!({ "reservationId": reservation_id, "items": items, "expiresAt": expires_at });
        messages::publish(conn, reservation_id, &[("inventory.reserved", data)], now).await?;
    }
    Ok(short)
}

/// What became of a service's reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Let {
    /// It was released, now or before.
    Released,
    /// It had expired before it could be released.
    Expired,
}

/// Gives back what a service still holds; releasing twice is harmless. `None` when this key has no such
/// reservation.
///
/// # Errors
/// The database's own.
pub async fn release(
    conn: &mut PgConnection,
    reservation_id: Uuid,
    api_key_id: Uuid,
    now: DateTime<Utc>,
) -> Result<Option<Let>, sqlx::Error> {
    let held = sqlx::query!(
        "select h.id, h.status
           from inventory_reservations h join service_reservations s on s.id = h.service_reservation_id
          where s.id = $1 and s.api_key_id = $2
          order by h.variant_id for update of h",
        reservation_id,
        api_key_id
    )
    .fetch_all(&mut *conn)
    .await?;
    if held.is_empty() {
        return Ok(None);
    }
    let expired = held.iter().any(|hold| hold.status == "EXPIRED");
    let active: Vec<Uuid> = held.into_iter().filter(|hold| hold.status == "ACTIVE").map(|hold| hold.id).collect();
    give_back(conn, &active, "RELEASED", now).await?;
    Ok(Some(if expired { Let::Expired } else { Let::Released }))
}
