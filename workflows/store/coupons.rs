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
use sqlx::{PgConnection, types::Json};
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

/// A cart that asks for coupons.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Which.
    pub cart_id: CartId,
    /// Whose.
    pub customer: Customer<'a>,
    /// The codes typed, besides the coupons on the cart.
    pub codes: &'a [String],
}

/// What may apply to a cart that asked, in the order of ids.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// The coupons.
    pub candidates: Vec<Candidate>,
    /// Whom a limit per customer binds beside the account, as [`hold`] writes it: what two asks of a set have
    /// in common if they are one customer's. None where no coupon may apply.
    pub redeemer: Option<Vec<u8>>,
}

/// Coupons that may apply to a cart: the codes given, those on the cart, and automatic ones.
pub async fn candidates(
    conn: &mut PgConnection,
    cart_id: CartId,
    customer: Customer<'_>,
    codes: &[String],
) -> Result<Vec<Candidate>, sqlx::Error> {
    let found = candidates_many(conn, &[Ask { cart_id, customer, codes }]).await?;
    Ok(found.into_iter().flat_map(|found| found.candidates).collect())
}

/// [`candidates_many`], the coupons' rows locked until the transaction ends. They are read in a statement of their own: what the locks' last holder has redeemed is visible to no earlier one.
/// What one of these carts is about to hold, the others' numbers do not know of.
pub async fn lock_candidates(conn: &mut PgConnection, asks: &[Ask<'_>]) -> Result<Vec<Candidates>, sqlx::Error> {
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    let carts: Vec<Uuid> = asks.iter().map(|ask| ask.cart_id.into()).collect();
    let codes: Vec<String> = asks.iter().flat_map(|ask| uppercase(ask.codes)).collect();
    let locked = sqlx::query_scalar!(
        r#"select c.id from coupons c
            where c.id in (select id from coupons where upper(code) = any($1)
                 union all select coupon_id from cart_coupons where cart_id = any($2)
                 union all select id from coupons where auto_apply and is_active)
            order by c.id for no key update"#,
        &codes,
        &carts
    )
    .fetch_all(&mut *conn)
    .await?;
    if locked.is_empty() {
        return Ok(vec![Candidates::default(); asks.len()]);
    }
    let mut found = candidates_many(conn, asks).await?;
    // One that began to apply in between is not locked.
    for Candidates { candidates, .. } in &mut found {
        candidates.retain(|candidate| locked.contains(&candidate.coupon.id.into()));
    }
    Ok(found)
}

/// [`Ask`] as the statement reads it.
#[derive(Serialize)]
struct AskRow<'a> {
    position: usize,
    cart_id: CartId,
    user_id: Option<UserId>,
    email: Option<&'a str>,
    codes: Vec<String>,
}

/// The same for each of these carts, in their order.
pub async fn candidates_many(conn: &mut PgConnection, asks: &[Ask<'_>]) -> Result<Vec<Candidates>, sqlx::Error> {
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    let asked: Vec<_> = asks
        .iter()
        .enumerate()
        .map(|(position, &Ask { cart_id, customer: Customer { user_id, email }, codes })| AskRow {
            position,
            cart_id,
            user_id,
            email,
            codes: uppercase(codes),
        })
        .collect();
    let rows = sqlx::query!(
        r#"
        with asks as materialized (
            select a.position, a.cart_id, a.user_id, a.codes,
                   coalesce(coupon_redeemer(a.email), (select coupon_redeemer(u.email) from users u where u.id = a.user_id)) as redeemer
              from jsonb_to_recordset($1) as a(position bigint, cart_id uuid, user_id uuid, email text, codes text[])),
        applies as (
            select a.position, c.id from asks a, unnest(a.codes) as typed(code) join coupons c on upper(c.code) = typed.code
             union
            select a.position, k.coupon_id from asks a join cart_coupons k on k.cart_id = a.cart_id
             union
            select a.position, c.id from asks a, coupons c where c.auto_apply and c.is_active)
        select a.position as "position!", a.redeemer,
               c.id, c.code, c.kind, c.currency as "currency!", c.value, c.min_order_value, c.max_discount, c.starts_at, c.ends_at,
               c.usage_limit, c.per_user_limit, c.current_usage_count, c.held_count, c.stackable, c.auto_apply,
               c.scope, c.scope_ids, c.buy_quantity, c.get_quantity, c.is_active,
               (select count(*) from coupon_redemption_log l
                 where l.coupon_id = c.id and l.status in ('HELD', 'SUCCESS')
                   and (l.user_id = a.user_id or l.redeemer = a.redeemer)) as "redeemed!"
          from applies p join asks a using (position) join coupons c on c.id = p.id
         order by a.position, c.id
        "#,
        Json(&asked) as _,
    )
    .fetch_all(conn)
    .await?;
    let mut found = vec![Candidates::default(); asks.len()];
    for mut row in rows {
        let Some(of) = usize::try_from(row.position).ok().and_then(|position| found.get_mut(position)) else {
            continue;
        };
        of.redeemer = row.redeemer.take();
        of.candidates.push(Candidate { redeemed_by_user: row.redeemed, coupon: coupon!(row) });
    }
    Ok(found)
}

fn uppercase(codes: &[String]) -> Vec<String> {
    codes.iter().map(|code| code.trim().to_uppercase()).collect()
}

/// Coupons that an order is to hold.
#[derive(Debug, Clone, Copy)]
pub struct Hold<'a> {
    /// The order.
    pub order_id: OrderId,
    /// Who buys; none for a guest.
    pub user_id: Option<UserId>,
    /// Whom else a limit per customer binds: [`Candidates::redeemer`].
    pub redeemer: Option<&'a [u8]>,
    /// Which, each once.
    pub coupons: &'a [AppliedCoupon],
}

/// Holds the applied coupons for their orders: their rows are locked, and were checked under that lock.
pub async fn hold(conn: &mut PgConnection, holds: &[Hold<'_>], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let each: Vec<_> = holds.iter().flat_map(|hold| hold.coupons.iter().map(move |coupon| (hold, coupon))).collect();
    if each.is_empty() {
        return Ok(());
    }
    let orders: Vec<Uuid> = each.iter().map(|(hold, _)| hold.order_id.into()).collect();
    let users: Vec<Option<Uuid>> = each.iter().map(|(hold, _)| hold.user_id.map(Uuid::from)).collect();
    let redeemers: Vec<Option<&[u8]>> = each.iter().map(|(hold, _)| hold.redeemer).collect();
    let coupons: Vec<Uuid> = each.iter().map(|(_, coupon)| coupon.coupon_id.into()).collect();
    let discounts: Vec<_> = each.iter().map(|(_, coupon)| coupon.discount).collect();
    sqlx::query!(
        "with wanted as (
            select * from unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::uuid[], $5::numeric[])
                       as w(order_id, user_id, redeemer, coupon_id, discount)),
         held as (
            update coupons c set held_count = c.held_count + n.holds, updated_at = $6
              from (select coupon_id, count(*)::int as holds from wanted group by coupon_id) n
             where c.id = n.coupon_id returning c.id)
         insert into coupon_redemption_log
                (coupon_id, user_id, redeemer, order_id, discount_applied, status, created_at, updated_at)
         select w.coupon_id, w.user_id, w.redeemer, w.order_id, w.discount, 'HELD', $6, $6
           from wanted w join held on held.id = w.coupon_id",
        &orders,
        &users as &[Option<Uuid>],
        &redeemers as &[Option<&[u8]>],
        &coupons,
        &discounts,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks the coupons that orders hold or have used, in the order of their ids: an order may have several, and an
/// update alone would take them in any order. A checkout takes its coupons before its stock, in one transaction:
/// whoever is about to touch the stock of orders, and then their coupons, comes here first.
/// The lock leaves a coupon's key alone, which whoever writes it down (`order_coupons`, `cart_coupons`) reads in the
/// middle of a statement of theirs: they wait for nobody, with whatever they have locked.
pub async fn lock_of(conn: &mut PgConnection, orders: &[OrderId]) -> Result<(), sqlx::Error> {
    if orders.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "select id from coupons
          where id in (select coupon_id from coupon_redemption_log
                        where order_id = any($1) and status in ('HELD', 'SUCCESS'))
          order by id for no key update",
        &uuids(orders)
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

fn uuids(orders: &[OrderId]) -> Vec<Uuid> {
    orders.iter().copied().map(Uuid::from).collect()
}

/// HELD → RELEASED, once.
pub async fn release(conn: &mut PgConnection, orders: &[OrderId], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if orders.is_empty() {
        return Ok(());
    }
    lock_of(conn, orders).await?;
    sqlx::query!(
        "with freed as (
            update coupon_redemption_log set status = 'RELEASED', updated_at = $2
             where order_id = any($1) and status = 'HELD' returning coupon_id)
         update coupons c set held_count = c.held_count - n.holds, updated_at = $2
           from (select coupon_id, count(*)::int as holds from freed group by coupon_id) n
          where c.id = n.coupon_id",
        &uuids(orders),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// HELD → SUCCESS, once.
pub async fn redeem(conn: &mut PgConnection, orders: &[OrderId], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if orders.is_empty() {
        return Ok(());
    }
    lock_of(conn, orders).await?;
    sqlx::query!(
        "with used as (
            update coupon_redemption_log set status = 'SUCCESS', updated_at = $2
             where order_id = any($1) and status = 'HELD' returning coupon_id)
         update coupons c
            set held_count = c.held_count - n.uses, current_usage_count = c.current_usage_count + n.uses, updated_at = $2
           from (select coupon_id, count(*)::int as uses from used group by coupon_id) n
          where c.id = n.coupon_id",
        &uuids(orders),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// SUCCESS → REVERSED, once: the uses are the coupons' again (seed: Workflow 3 box 5).
///
/// # Errors
/// The database's own.
pub async fn reverse(conn: &mut PgConnection, orders: &[OrderId], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if orders.is_empty() {
        return Ok(());
    }
    lock_of(conn, orders).await?;
    sqlx::query!(
        "with freed as (
            update coupon_redemption_log set status = 'REVERSED', updated_at = $2
             where order_id = any($1) and status = 'SUCCESS' returning coupon_id)
         update coupons c set current_usage_count = c.current_usage_count - n.uses, updated_at = $2
           from (select coupon_id, count(*)::int as uses from freed group by coupon_id) n
          where c.id = n.coupon_id",
        &uuids(orders),
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
