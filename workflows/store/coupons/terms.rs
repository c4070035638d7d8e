//! What a coupon promises, as staff write it.

use domain::{
    coupon::{Coupon, CouponScope},
    ids::CouponId,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{kind, scope};

fn columns(coupon: &Coupon) -> (&'static str, Vec<Uuid>, Option<i32>, Option<i32>) {
    let (scope, ids) = match &coupon.scope {
        CouponScope::All => ("ALL", Vec::new()),
        CouponScope::Products(ids) => ("PRODUCTS", ids.clone()),
        CouponScope::Categories(ids) => ("CATEGORIES", ids.clone()),
    };
    let pieces = |quantity: Option<u32>| quantity.and_then(|quantity| i32::try_from(quantity).ok());
    (scope, ids, pieces(coupon.buy_quantity), pieces(coupon.get_quantity))
}

/// Writes a new coupon; a taken code, in upper or lower case, violates `coupons_code_key`.
///
/// # Errors
/// The database's own.
pub async fn insert(conn: &mut PgConnection, coupon: &Coupon) -> Result<(), sqlx::Error> {
    let (scope, scope_ids, buy, get) = columns(coupon);
    sqlx::query!(
        "insert into coupons (id, code, kind, value, min_order_value, max_discount, starts_at, ends_at, usage_limit,
                              per_user_limit, stackable, auto_apply, scope, scope_ids, buy_quantity, get_quantity,
                              is_active, currency, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, engine.now(), engine.now())",
        Uuid::from(coupon.id),
        coupon.code,
        coupon.kind.as_str(),
        coupon.value,
        coupon.min_order_value,
        coupon.max_discount,
        coupon.starts_at,
        coupon.ends_at,
        coupon.usage_limit,
        coupon.per_user_limit,
        coupon.stackable,
        coupon.auto_apply,
        scope,
        &scope_ids,
        buy,
        get,
        coupon.is_active,
        coupon.currency.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes everything of a locked coupon but its code, its kind and what was made of it.
///
/// # Errors
/// The database's own.
pub async fn save(conn: &mut PgConnection, coupon: &Coupon) -> Result<(), sqlx::Error> {
    let (scope, scope_ids, buy, get) = columns(coupon);
    sqlx::query!(
        "update coupons
            set value = $2, min_order_value = $3, max_discount = $4, starts_at = $5, ends_at = $6, usage_limit = $7,
                per_user_limit = $8, stackable = $9, auto_apply = $10, scope = $11, scope_ids = $12,
                buy_quantity = $13, get_quantity = $14, is_active = $15, updated_at = engine.now()
          where id = $1",
        Uuid::from(coupon.id),
        coupon.value,
        coupon.min_order_value,
        coupon.max_discount,
        coupon.starts_at,
        coupon.ends_at,
        coupon.usage_limit,
        coupon.per_user_limit,
        coupon.stackable,
        coupon.auto_apply,
        scope,
        &scope_ids,
        buy,
        get,
        coupon.is_active
    )
    .execute(conn)
    .await?;
    Ok(())
}

macro_rules! read {
    ($conn:expr, $sql:literal, $($argument:expr),*) => {
        sqlx::query!(
            "select id, code, kind, currency, value, min_order_value, max_discount, starts_at, ends_at, usage_limit, per_user_limit,
                    current_usage_count, held_count, stackable, auto_apply, scope, scope_ids, buy_quantity, get_quantity,
                    is_active
               from coupons " + $sql,
            $($argument),*
        )
        .fetch_all($conn)
        .await?
        .into_iter()
        .map(|row| Ok(coupon!(row)))
        .collect::<Result<Vec<Coupon>, sqlx::Error>>()
    };
}

/// Coupons in order of their ids, after the given one.
///
/// # Errors
/// The database's own.
pub async fn list(conn: &mut PgConnection, after: Option<CouponId>, limit: i64) -> Result<Vec<Coupon>, sqlx::Error> {
    read!(conn, "where ($1::uuid is null or id > $1) order by id limit $2", after.map(|id| id.0), limit)
}

/// A coupon by its id or its code.
///
/// # Errors
/// The database's own.
pub async fn find(conn: &mut PgConnection, id_or_code: &str) -> Result<Option<Coupon>, sqlx::Error> {
    let id = Uuid::parse_str(id_or_code).ok();
    let found: Result<Vec<Coupon>, sqlx::Error> =
        read!(conn, "where id = $1 or upper(code) = upper($2)", id, id_or_code);
    Ok(found?.pop())
}

/// The same, locked until the transaction ends: what is used and held of it stays as it is.
///
/// # Errors
/// The database's own.
pub async fn lock(conn: &mut PgConnection, id_or_code: &str) -> Result<Option<Coupon>, sqlx::Error> {
    let id = Uuid::parse_str(id_or_code).ok();
    let found: Result<Vec<Coupon>, sqlx::Error> =
        read!(conn, "where id = $1 or upper(code) = upper($2) for no key update", id, id_or_code);
    Ok(found?.pop())
}

/// Those of these products, given by id or SKU, that there are: id and SKU.
///
/// # Errors
/// The database's own.
pub async fn find_products(
    conn: &mut PgConnection,
    ids_or_skus: &[String],
) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    let ids: Vec<Uuid> = ids_or_skus.iter().filter_map(|text| Uuid::parse_str(text).ok()).collect();
    let rows = sqlx::query!("select id, sku from products where id = any($1) or sku = any($2)", &ids, ids_or_skus)
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.sku)).collect())
}

/// Those of these categories that there are.
///
/// # Errors
/// The database's own.
pub async fn find_categories(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!("select id from categories where id = any($1)", ids).fetch_all(conn).await
}
