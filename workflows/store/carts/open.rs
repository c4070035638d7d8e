//! The one open cart of an owner: finding or making it, and saving what changed in it.

use chrono::{DateTime, Utc};
use domain::{
    cart::CartStatus,
    ids::{CartId, CouponId, VariantId},
    money::Currency,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CartLine, Owner, full_name};

/// What a cart was read under. While Postgres says the same, nothing that decides its lines and prices has
/// changed: not the cart, nor the catalogue, nor how often its owner has used which coupon (to use another
/// one, they have to check out, which raises the cart's version).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Of the cart: raised by every write.
    pub version: i64,
    /// When that was: a database restored from a backup may come to the same version by another way.
    pub updated_at: DateTime<Utc>,
    /// Of the catalogue and the coupons.
    pub catalogue: i64,
    /// Coupons the owner has used or holds.
    pub redemptions: i64,
}

/// The row of an owner's open cart.
#[derive(Debug, Clone, Copy)]
pub struct OpenCart {
    /// Its id.
    pub id: CartId,
    /// ACTIVE, CHECKOUT or ABANDONED.
    pub status: CartStatus,
    /// What it is read under.
    pub stamp: Stamp,
    /// The run that holds it while in CHECKOUT.
    pub checkout_run_id: Option<Uuid>,
    /// A cart whose time is over, though no sweep has noticed: as good as gone.
    pub is_stale: bool,
    /// The engine's clock.
    pub now: DateTime<Utc>,
}

// The two halves of the `or` are each answered by their own partial unique index.
macro_rules! open_cart {
    ($conn:expr, $owner:expr, $lock:literal) => {{
        let (user_id, session_hash) = $owner.columns();
        let row = sqlx::query!(
            r#"
            select id, status, version, updated_at, checkout_run_id, engine.now() as "now!",
                   (select version from catalogue_version) as "catalogue!",
                   (select count(*) from coupon_redemption_log l
                     where (l.user_id = $1 or l.redeemer = (select coupon_redeemer(u.email) from users u where u.id = $1))
                       and l.status in ('HELD', 'SUCCESS')) as "redemptions!",
                   coalesce(expires_at <= engine.now() and status <> 'CHECKOUT', false) as "is_stale!"
              from carts
             where (user_id = $1 or (session_hash = $2 and user_id is null))
               and status in ('ACTIVE', 'CHECKOUT', 'ABANDONED')
            "# + $lock,
            user_id,
            session_hash
        )
        .fetch_optional($conn)
        .await?;
        row.map(|row| {
            Ok(OpenCart {
                id: row.id.into(),
                status: open_status(&row.status)?,
                stamp: Stamp {
                    version: row.version,
                    updated_at: row.updated_at,
                    catalogue: row.catalogue,
                    redemptions: row.redemptions,
                },
                checkout_run_id: row.checkout_run_id,
                is_stale: row.is_stale,
                now: row.now,
            })
        })
        .transpose()
    }};
}

/// The owner's open cart, if there is one.
///
/// # Errors
/// The database's own.
pub async fn find_open(conn: &mut PgConnection, owner: &Owner) -> Result<Option<OpenCart>, sqlx::Error> {
    open_cart!(conn, owner, "")
}

/// The same, its row locked until the transaction ends.
///
/// # Errors
/// The database's own.
pub async fn lock_open(conn: &mut PgConnection, owner: &Owner) -> Result<Option<OpenCart>, sqlx::Error> {
    open_cart!(conn, owner, "for update")
}

/// Whether a cart has ever been made under this session, whatever has become of it.
///
/// # Errors
/// The database's own.
pub async fn is_known_session(conn: &mut PgConnection, session_hash: &[u8]) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select exists (select from carts where session_hash = $1) as "is_known!""#, session_hash)
        .fetch_one(conn)
        .await
}

/// The id under which an owner's next cart is made, as long as no other comes before it: an empty cart is
/// shown under it and is no row yet.
///
/// # Errors
/// The database's own.
pub async fn next_id(conn: &mut PgConnection, owner: &Owner) -> Result<CartId, sqlx::Error> {
    let (user_id, session_hash) = owner.columns();
    let last = sqlx::query_scalar!(
        "select id from carts where user_id = $1 or session_hash = $2 order by created_at desc, id desc limit 1",
        user_id,
        session_hash
    )
    .fetch_optional(conn)
    .await?;
    let owner = user_id.as_ref().map_or(session_hash.unwrap_or_default(), |user_id| user_id.as_bytes());
    Ok(Uuid::new_v5(&last.unwrap_or(Uuid::NAMESPACE_OID), owner).into())
}

/// Makes an empty ACTIVE cart, which only its maker can see before the commit; none if the owner has an
/// open one by now, or the id is taken. It ends `ttl_s` seconds after its last activity.
///
/// # Errors
/// The database's own.
pub async fn create(
    conn: &mut PgConnection,
    id: CartId,
    owner: &Owner,
    currency: Currency,
    ttl_s: u64,
) -> Result<Option<OpenCart>, sqlx::Error> {
    let (user_id, session_hash) = owner.columns();
    let row = sqlx::query!(
        r#"insert into carts (id, user_id, session_hash, currency, created_at, updated_at, last_activity_at, expires_at)
         select $1, $2, $3, $4, t.now, t.now, t.now, t.now + make_interval(secs => $5)
           from (select engine.now() as now) t
         on conflict do nothing
         returning version, created_at, (select version from catalogue_version) as "catalogue!",
                   (select count(*) from coupon_redemption_log l
                     where (l.user_id = $2 or l.redeemer = (select coupon_redeemer(u.email) from users u where u.id = $2))
                       and l.status in ('HELD', 'SUCCESS')) as "redemptions!""#,
        Uuid::from(id),
        user_id,
        session_hash,
        currency.as_str(),
        seconds(ttl_s)
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| OpenCart {
        id,
        status: CartStatus::Active,
        stamp: Stamp {
            version: row.version,
            updated_at: row.created_at,
            catalogue: row.catalogue,
            redemptions: row.redemptions,
        },
        checkout_run_id: None,
        is_stale: false,
        now: row.created_at,
    }))
}

/// Ends a cart whose time is over; one that came back to life meanwhile stays.
///
/// # Errors
/// The database's own.
pub async fn expire(conn: &mut PgConnection, cart_id: CartId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update carts set status = 'EXPIRED', version = version + 1, updated_at = engine.now()
          where id = $1 and status in ('ACTIVE', 'ABANDONED') and expires_at <= engine.now()",
        Uuid::from(cart_id)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A variant as a cart would hold it, quantity 0, if it and its product are for sale; `variant` and
/// `product` are ids or SKUs.
///
/// # Errors
/// The database's own.
pub async fn find_variant(
    conn: &mut PgConnection,
    variant: &str,
    product: Option<&str>,
) -> Result<Option<CartLine>, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        select v.id, v.sku, v.price, v.tax_rate, v.variant_name, v.attributes, p.id as product_id, p.product_name,
               p.category_id, p.image_url, p.currency as "currency!", coalesce(s.available_quantity, 0) as "available!"
          from product_variants v
          join products p on p.id = v.product_id
          left join inventory s on s.variant_id = v.id
         where (v.id = $1 or v.sku = $2) and v.is_active and p.is_active
           and ($3::text is null or p.id::text = lower($3) or p.sku = $3)
         -- A SKU that looks like another variant's id does not hide that variant.
         order by v.id = $1 desc nulls last
         limit 1
        "#,
        Uuid::parse_str(variant).ok(),
        variant,
        product
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| CartLine {
        variant_id: row.id.into(),
        product_id: row.product_id.into(),
        category_id: row.category_id,
        quantity: 0,
        price: row.price,
        price_when_added: row.price,
        currency: row.currency,
        tax_rate: row.tax_rate,
        sku: row.sku,
        name: full_name(row.product_name, row.variant_name),
        attributes: row.attributes,
        image_url: row.image_url,
        is_active: true,
        available: u32::try_from(row.available).unwrap_or_default(),
    }))
}

/// What happened to a cart: parts that did not change stay empty.
#[derive(Debug, Clone, Default)]
pub struct CartChange {
    /// Lines with their new quantity, and the price to remember if the line is new.
    pub put: Vec<(VariantId, u32, Decimal)>,
    /// Lines to be removed.
    pub take: Vec<VariantId>,
    /// Coupons to be noted, with what they are worth now.
    pub add_coupons: Vec<(CouponId, Decimal)>,
    /// Coupons to be forgotten.
    pub drop_coupons: Vec<CouponId>,
}

/// Saves a change in one statement, which also makes the cart ACTIVE, raises its version, notes its currency
/// and puts its end off by `ttl_s` seconds from now. The cart is locked. Returns the new version.
///
/// # Errors
/// The database's own.
pub async fn save(
    conn: &mut PgConnection,
    cart_id: CartId,
    change: &CartChange,
    currency: &str,
    ttl_s: u64,
    now: DateTime<Utc>,
) -> Result<i64, sqlx::Error> {
    let variants: Vec<Uuid> = change.put.iter().map(|&(variant_id, _, _)| variant_id.into()).collect();
    let quantities: Vec<i32> =
        change.put.iter().map(|&(_, quantity, _)| i32::try_from(quantity).unwrap_or(i32::MAX)).collect();
    let prices: Vec<Decimal> = change.put.iter().map(|&(_, _, price)| price).collect();
    let taken: Vec<Uuid> = change.take.iter().map(|&variant_id| variant_id.into()).collect();
    let noted: Vec<Uuid> = change.add_coupons.iter().map(|&(coupon_id, _)| coupon_id.into()).collect();
    let discounts: Vec<Decimal> = change.add_coupons.iter().map(|&(_, discount)| discount).collect();
    let dropped: Vec<Uuid> = change.drop_coupons.iter().map(|&coupon_id| coupon_id.into()).collect();
    sqlx::query_scalar!(
        "with taken as (
            delete from cart_items where cart_id = $1 and variant_id = any($2)),
         put as (
            insert into cart_items (cart_id, variant_id, quantity, price, added_at, updated_at)
            select $1, i.variant_id, i.quantity, i.price, $3, $3
              from unnest($4::uuid[], $5::int[], $6::numeric[]) as i(variant_id, quantity, price)
            on conflict on constraint cart_items_once do update
               set quantity = excluded.quantity, updated_at = excluded.updated_at),
         dropped as (
            delete from cart_coupons where cart_id = $1 and coupon_id = any($7)),
         added as (
            insert into cart_coupons (cart_id, coupon_id, applied_at, discount_calculated)
            select $1, c.id, $3, c.discount from unnest($8::uuid[], $9::numeric[]) as c(id, discount)
            on conflict on constraint cart_coupons_once do update set discount_calculated = excluded.discount_calculated)
         update carts
            set status = 'ACTIVE', currency = $11, version = version + 1, updated_at = $3, last_activity_at = $3,
                expires_at = $3::timestamptz + make_interval(secs => $10)
          where id = $1
         returning version",
        Uuid::from(cart_id),
        &taken,
        now,
        &variants,
        &quantities,
        &prices,
        &dropped,
        &noted,
        &discounts,
        seconds(ttl_s),
        currency
    )
    .fetch_one(conn)
    .await
}

pub(super) fn open_status(status: &str) -> Result<CartStatus, sqlx::Error> {
    status.parse().map_err(|_| sqlx::Error::Decode("an unknown cart status".into()))
}

/// As Postgres' intervals take them.
pub(super) fn seconds(seconds: u64) -> f64 {
    f64::from(u32::try_from(seconds).unwrap_or(u32::MAX))
}
