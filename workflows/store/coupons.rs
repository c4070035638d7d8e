//! `coupons`, `coupon_redemption_log`.
//!
//! Coupon rows are locked in id order, before any stock, and `held + used ≤ limit` is a constraint besides.

/// The coupon in a row; where it is none, an error for the caller's `?`.
macro_rules! coupon {
    ($row:expr) => {{
        let row = $row;
        let unknown = || sqlx::Error::Decode(format!("an unknown kind of coupon: {}", row.kind).into());
        Coupon {
            kind: kind(&row.kind).ok_or_else(unknown)?,
            scope: scope(&row.scope, &row.scope_ids).ok_or_else(unknown)?,
            id: row.id.into(),
            code: row.code,
            currency: row.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            value: row.value,
            min_order_value: row.min_order_value,
            max_discount: row.max_discount,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            usage_limit: row.usage_limit,
            per_user_limit: row.per_user_limit,
            current_usage_count: row.current_usage_count,
            held_count: row.held_count,
            stackable: row.stackable,
            auto_apply: row.auto_apply,
            buy_quantity: row.buy_quantity.and_then(|n| u32::try_from(n).ok()),
            get_quantity: row.get_quantity.and_then(|n| u32::try_from(n).ok()),
            is_active: row.is_active,
        }
    }};
}

pub mod terms;

use chrono::{DateTime, Utc};
use domain::{
    coupon::{Coupon, CouponKind, CouponScope},
    ids::{CartId, OrderId, UserId},
    pricing::AppliedCoupon,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// A coupon that may apply, and how often this user has it in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Candidate {
    /// The coupon.
    pub coupon: Coupon,
    /// Redemptions of this customer, held ones included.
    pub redeemed_by_user: i64,
}

/// Whom a limit per customer binds: the account, and whoever has its e-mail address, before or after.
#[derive(Debug, Clone, Copy)]
pub struct Customer<'a> {
    /// Logged in as.
    pub user_id: Option<UserId>,
    /// What a guest has given; without it the account's own.
    pub email: Option<&'a str>,
}

impl Customer<'static> {
    /// As a cart knows its owner.
    pub fn of(user_id: Option<UserId>) -> Self {
        Customer { user_id, email: None }
    }
}

/// Coupons that may apply to a cart: the codes given, those on the cart, and automatic ones.
pub async fn candidates(
    conn: &mut PgConnection,
    cart_id: CartId,
    customer: Customer<'_>,
    codes: &[String],
) -> Result<Vec<Candidate>, sqlx::Error> {
    let Customer { user_id, email } = customer;
    let upper = uppercase(codes);
    let rows = sqlx::query!(
        r#"
        select c.id, c.code, c.kind, c.currency as "currency!", c.value, c.min_order_value, c.max_discount, c.starts_at, c.ends_at,
               c.usage_limit, c.per_user_limit, c.current_usage_count, c.held_count, c.stackable, c.auto_apply,
               c.scope, c.scope_ids, c.buy_quantity, c.get_quantity, c.is_active,
               (select count(*) from coupon_redemption_log l
                 where l.coupon_id = c.id and l.status in ('HELD', 'SUCCESS')
                   and (l.user_id = $3 or l.redeemer = coalesce(
                        coupon_redeemer($4), (select coupon_redeemer(u.email) from users u where u.id = $3)))
               ) as "redeemed!"
          from coupons c
         where upper(c.code) = any($1)
            or c.id in (select coupon_id from cart_coupons where cart_id = $2)
            or (c.auto_apply and c.is_active)
         order by c.id
        "#,
        &upper,
        Uuid::from(cart_id),
        user_id.map(Uuid::from),
        email,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| Ok(Candidate { redeemed_by_user: row.redeemed, coupon: coupon!(row) }))
        .collect::<Result<Vec<_>, sqlx::Error>>()
}

/// The same, their rows locked until the transaction ends. In a statement of their own: what the locks' last
/// holder has redeemed is visible to no earlier one.
pub async fn lock_candidates(
    conn: &mut PgConnection,
    cart_id: CartId,
    customer: Customer<'_>,
    codes: &[String],
) -> Result<Vec<Candidate>, sqlx::Error> {
    let locked = sqlx::query_scalar!(
        r#"select c.id from coupons c
            where upper(c.code) = any($1)
               or c.id in (select coupon_id from cart_coupons where cart_id = $2)
               or (c.auto_apply and c.is_active)
            order by c.id for update"#,
        &uppercase(codes),
        Uuid::from(cart_id)
    )
    .fetch_all(&mut *conn)
    .await?;
    if locked.is_empty() {
        return Ok(Vec::new());
    }
    let mut candidates = candidates(conn, cart_id, customer, codes).await?;
    // One that began to apply in between is not locked.
    candidates.retain(|candidate| locked.contains(&candidate.coupon.id.into()));
    Ok(candidates)
}

fn uppercase(codes: &[String]) -> Vec<String> {
    codes.iter().map(|code| code.trim().to_uppercase()).collect()
}

/// Holds the applied coupons for an order: their rows are locked, and were checked under that lock.
pub async fn hold(
    conn: &mut PgConnection,
    order_id: OrderId,
    customer: Customer<'_>,
    coupons: &[AppliedCoupon],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = coupons.iter().map(|coupon| coupon.coupon_id.into()).collect();
    let discounts: Vec<_> = coupons.iter().map(|coupon| coupon.discount).collect();
    sqlx::query!(
        "with held as (
            update coupons set held_count = held_count + 1, updated_at = $5 where id = any($3) returning id)
         insert into coupon_redemption_log
                (coupon_id, user_id, redeemer, order_id, discount_applied, status, created_at, updated_at)
         select u.id, $2, coalesce(coupon_redeemer($6), (select coupon_redeemer(email) from users where id = $2)), $1,
                u.discount, 'HELD', $5, $5
           from unnest($3::uuid[], $4::numeric[]) as u(id, discount) join held on held.id = u.id",
        Uuid::from(order_id),
        customer.user_id.map(Uuid::from),
        &ids,
        &discounts,
        now,
        customer.email
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks the coupons an order holds or has used. A checkout takes its coupons before its stock, in one
/// transaction: whoever is about to touch the stock of an order, and then its coupons, comes here first.
pub async fn lock_of(conn: &mut PgConnection, order_id: OrderId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select id from coupons
          where id in (select coupon_id from coupon_redemption_log where order_id = $1 and status in ('HELD', 'SUCCESS'))
          order by id for update",
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// HELD → RELEASED, once.
pub async fn release(conn: &mut PgConnection, order_id: OrderId, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with freed as (
            update coupon_redemption_log set status = 'RELEASED', updated_at = $2
             where order_id = $1 and status = 'HELD' returning coupon_id)
         update coupons set held_count = held_count - 1, updated_at = $2 where id in (select coupon_id from freed)",
        Uuid::from(order_id),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// HELD → SUCCESS, once.
pub async fn redeem(conn: &mut PgConnection, order_id: OrderId, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with used as (
            update coupon_redemption_log set status = 'SUCCESS', updated_at = $2
             where order_id = $1 and status = 'HELD' returning coupon_id)
         update coupons set held_count = held_count - 1, current_usage_count = current_usage_count + 1, updated_at = $2
          where id in (select coupon_id from used)",
        Uuid::from(order_id),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// SUCCESS → REVERSED, once: the use is the coupon's again (seed: Workflow 3 box 5).
///
/// # Errors
/// The database's own.
pub async fn reverse(conn: &mut PgConnection, order_id: OrderId, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with freed as (
            update coupon_redemption_log set status = 'REVERSED', updated_at = $2
             where order_id = $1 and status = 'SUCCESS' returning coupon_id)
         update coupons set current_usage_count = current_usage_count - 1, updated_at = $2
          where id in (select coupon_id from freed)",
        Uuid::from(order_id),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn kind(text: &str) -> Option<CouponKind> {
    match text {
        "PERCENT" => Some(CouponKind::Percent),
        "FIXED" => Some(CouponKind::Fixed),
        "FREE_SHIPPING" => Some(CouponKind::FreeShipping),
        "BUY_X_GET_Y" => Some(CouponKind::BuyXGetY),
        _ => None,
    }
}

fn scope(text: &str, ids: &[Uuid]) -> Option<CouponScope> {
    match text {
        "ALL" => Some(CouponScope::All),
        "PRODUCTS" => Some(CouponScope::Products(ids.to_vec())),
        "CATEGORIES" => Some(CouponScope::Categories(ids.to_vec())),
        _ => None,
    }
}
