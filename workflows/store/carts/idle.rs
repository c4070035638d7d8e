//! Carts that nobody touches: left behind, and expired.

use chrono::{DateTime, Utc};
use domain::{
    cart::CartStatus,
    ids::CartId,
    money::Currency,
    notification::{CartSummary, SummaryLine},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoredCart;

/// How a cart stands that was left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Standing {
    /// As it was left.
    Idle,
    /// Its owner has done something since.
    Touched,
    /// It has become an order.
    Bought,
    /// Its time is over.
    Expired,
    /// There is nothing in it, or nothing that is for sale.
    Emptied,
    /// Its owner does not want reminders.
    OptedOut,
    /// It has no owner with an address.
    Unreachable,
}

/// A cart that was left behind, looked at again.
#[derive(Debug, Clone)]
pub struct Look {
    /// How it stands.
    pub standing: Standing,
    /// Its owner.
    pub user_id: Option<Uuid>,
    /// The owner's address, if they are an active user.
    pub email: Option<String>,
    /// The owner's name.
    pub first_name: Option<String>,
}

/// Looks again at carts, each left at its moment. Returns what was seen of each, in their order.
///
/// # Errors
/// The database's own.
pub async fn look(conn: &mut PgConnection, left: &[(CartId, DateTime<Utc>)]) -> Result<Vec<Look>, sqlx::Error> {
    let ids: Vec<Uuid> = left.iter().map(|(cart_id, _)| (*cart_id).into()).collect();
    let rows = sqlx::query!(
        r#"
        select a.position as "position!", c.status, c.last_activity_at, u.id as "user_id?", u.email as "email?", u.first_name,
               exists (select from cart_items i
                         join product_variants v on v.id = i.variant_id and v.is_active
                         join products p on p.id = v.product_id and p.is_active
                        where i.cart_id = c.id) as "has_lines!",
               exists (select from notification_preferences n
                        where n.user_id = c.user_id and n.channel = 'EMAIL') as "opted_out!"
          from unnest($1::uuid[]) with ordinality as a(cart_id, position)
          join carts c on c.id = a.cart_id
          left join users u on u.id = c.user_id and u.is_active and u.anonymised_at is null
        "#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    let gone = Look { standing: Standing::Expired, user_id: None, email: None, first_name: None };
    let mut looks = vec![gone; left.len()];
    for row in rows {
        let at = usize::try_from(row.position - 1).unwrap_or(usize::MAX);
        let (Some(look), Some((_, idle_since))) = (looks.get_mut(at), left.get(at)) else { continue };
        let status: CartStatus =
            row.status.parse().map_err(|_| sqlx::Error::Decode("an unknown cart status".into()))?;
        let standing = match status {
            CartStatus::Converted => Standing::Bought,
            CartStatus::Expired => Standing::Expired,
            CartStatus::Active | CartStatus::Checkout => Standing::Touched,
            CartStatus::Abandoned if row.last_activity_at != *idle_since => Standing::Touched,
            CartStatus::Abandoned if !row.has_lines => Standing::Emptied,
            CartStatus::Abandoned if row.email.is_none() => Standing::Unreachable,
            CartStatus::Abandoned if row.opted_out => Standing::OptedOut,
            CartStatus::Abandoned => Standing::Idle,
        };
        *look = Look { standing, user_id: row.user_id, email: row.email, first_name: row.first_name };
    }
    Ok(looks)
}

/// What a cart holds of what is for sale, at today's prices, in variant order, as a reminder tells it.
///
/// # Errors
/// A cart in a currency that is none.
pub fn summary(cart: &StoredCart, first_name: Option<String>) -> Result<CartSummary, sqlx::Error> {
    let currency: Currency =
        cart.currency.parse().map_err(|_| sqlx::Error::Decode("the cart's currency is not one".into()))?;
    let lines = cart
        .lines
        .iter()
        .filter(|line| line.is_active)
        .map(|line| SummaryLine {
            name: line.name.clone(),
            sku: line.sku.clone(),
            quantity: line.quantity,
            total: line.total(),
        })
        .collect();
    Ok(CartSummary { first_name, lines, currency })
}

/// A cart that has just been found left behind.
#[derive(Debug, Clone, Copy)]
pub struct Abandoned {
    /// Which.
    pub cart_id: CartId,
    /// When its owner last did something.
    pub idle_since: DateTime<Utc>,
    /// There is somebody to remind.
    pub is_reachable: bool,
}

/// ACTIVE → ABANDONED for up to `batch` carts with lines, untouched since `idle_since` or longer, the
/// longest first; each with its event. A cart that somebody has in hand right now is not idle.
///
/// # Errors
/// The database's own.
pub async fn abandon(
    conn: &mut PgConnection,
    batch: i64,
    idle_since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<Abandoned>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        with idle as (
            select c.id from carts c
             where c.status = 'ACTIVE' and c.last_activity_at <= $1
               and exists (select from cart_items i where i.cart_id = c.id)
             order by c.last_activity_at limit $2
               for update skip locked),
        abandoned as (
            update carts c set status = 'ABANDONED', version = c.version + 1, updated_at = $3
              from idle where c.id = idle.id and (c.status = 'ACTIVE') is true and c.last_activity_at <= $1
            returning c.id, c.user_id, c.last_activity_at),
        told as (
            insert into outbox_events (event_id, event_type, subject, data, occurred_at)
            select gen_random_uuid(), 'cart.abandoned', id::text,
                   jsonb_build_object('cartId', id, 'userId', user_id, 'lastActivityAt', last_activity_at), $3
              from abandoned)
        select a.id, a.last_activity_at, u.id is not null as "is_reachable!"
          from abandoned a left join users u on u.id = a.user_id and u.is_active and u.anonymised_at is null
         order by a.last_activity_at, a.id
        "#,
        idle_since,
        batch,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Abandoned {
            cart_id: row.id.into(),
            idle_since: row.last_activity_at,
            is_reachable: row.is_reachable,
        })
        .collect())
}

/// → EXPIRED for carts whose time is over: up to `batch` past their `expires_at`, and as many without one
/// that nobody has touched since `idle_since`. Never one that a checkout holds. Of those with nothing in them
/// nothing is kept, unless an order or a hold came of one. Returns how many.
///
/// # Errors
/// The database's own.
pub async fn expire_idle(
    conn: &mut PgConnection,
    batch: i64,
    idle_since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    let expired = sqlx::query!(
        "with past as (
            select id from carts
             where status in ('ACTIVE', 'ABANDONED') and expires_at <= $1
             order by expires_at limit $2
               for update skip locked),
         untouched as (
            select id from carts
             where status in ('ACTIVE', 'ABANDONED') and expires_at is null and last_activity_at <= $3
             order by last_activity_at limit $2
               for update skip locked)
         update carts c set status = 'EXPIRED', version = c.version + 1, updated_at = $1
          where c.id = any(array(select id from past union all select id from untouched))
            and c.status in ('ACTIVE', 'ABANDONED')
         returning id",
        now,
        batch,
        idle_since
    )
    .fetch_all(&mut *conn)
    .await?;
    let expired: Vec<Uuid> = expired.into_iter().map(|row| row.id).collect();
    sqlx::query!(
        "delete from carts c
          where c.id = any($1) and not exists (select from cart_items i where i.cart_id = c.id)
            and not exists (select from orders o where o.cart_id = c.id)
            and not exists (select from inventory_reservations r where r.cart_id = c.id)",
        &expired
    )
    .execute(conn)
    .await?;
    Ok(u64::try_from(expired.len()).unwrap_or(u64::MAX))
}

/// Deletes EXPIRED carts, untouched since `before`, of which no order and no hold came, of up to `batch` that
/// were not looked at yet; says how many were. What an order or a hold came of is kept, and marked as looked
/// at, or each batch would begin with all of those.
///
/// # Errors
/// The database's own.
pub async fn delete_expired(conn: &mut PgConnection, batch: i64, before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let looked_at = sqlx::query_scalar!(
        r#"with page as materialized (
            select c.id, exists (select from orders o where o.cart_id = c.id)
                         or exists (select from inventory_reservations r where r.cart_id = c.id) as is_kept
              from carts c
             where c.status = 'EXPIRED' and not c.is_kept and c.last_activity_at <= $1
             order by c.last_activity_at limit $2
               for update skip locked),
         kept as (
            update carts c set is_kept = true from page p where c.id = p.id and p.is_kept),
         deleted as (
            delete from carts c using page p where c.id = p.id and not p.is_kept)
         select count(*) as "looked_at!" from page"#,
        before,
        batch
    )
    .fetch_one(conn)
    .await?;
    Ok(u64::try_from(looked_at).unwrap_or_default())
}
