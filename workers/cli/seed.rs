//! The demo shop's data: its people, its catalogue and its coupons.

mod catalogue;

use api::accounts::{CreateUserError, NewAccount, create_user};
use rust_decimal::Decimal;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;
use workflows::store::users::Role;

use crate::failure::Failure;

/// Somebody who may log in to a demo shop.
#[derive(Debug)]
pub(crate) struct DemoUser {
    pub(crate) email: &'static str,
    pub(crate) password: &'static str,
    pub(crate) role: Role,
    name: &'static str,
}

/// The people of the demo shop, one a role.
pub(crate) const USERS: [DemoUser; 3] = [
    DemoUser { email: "shopper@example.com", password: "shopper-demo", role: Role::Customer, name: "Asha" },
    DemoUser { email: "staff@example.com", password: "staff-demo", role: Role::Staff, name: "Sanjay" },
    DemoUser { email: "admin@example.com", password: "admin-demo", role: Role::Admin, name: "Aditi" },
];

/// The key that the demo shop's other services come with.
pub(crate) const API_KEY: &str = "dev-service-key";

/// Fills a database that sells nothing yet; returns whether it was one.
///
/// # Errors
/// The database's own.
pub(crate) async fn fill_if_empty(pool: &PgPool) -> Result<bool, Failure> {
    let empty: bool = sqlx::query_scalar("select not exists (select from products)").fetch_one(pool).await?;
    if empty {
        fill(pool).await?;
    }
    Ok(empty)
}

/// Adds whatever of the demo data is not there. What is there stays as it is, sold stock included.
///
/// # Errors
/// The database's own.
pub(crate) async fn fill(pool: &PgPool) -> Result<(), Failure> {
    for user in &USERS {
        add_user(pool, user).await?;
    }
    // The catalogue comes last and whole: a database that sells something is not filled again.
    let mut tx = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(hashtext('seed-demo'))").execute(&mut *tx).await?;
    sqlx::query(
        "insert into api_keys (id, name, key_hash, scopes) values ($1, 'dev-service', $2, '{inventory,events:read}')
         on conflict do nothing",
    )
    .bind(Uuid::now_v7())
    .bind(Sha256::digest(API_KEY).as_slice())
    .execute(&mut *tx)
    .await?;
    for coupon in &catalogue::COUPONS {
        add_coupon(&mut tx, coupon).await?;
    }
    for product in catalogue::PRODUCTS {
        add_product(&mut tx, product).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn add_user(pool: &PgPool, user: &DemoUser) -> Result<(), Failure> {
    // Asked first, because hashing a password takes its time.
    let known: bool = sqlx::query_scalar("select exists (select from users where email = $1)")
        .bind(user.email)
        .fetch_one(pool)
        .await?;
    if known {
        return Ok(());
    }
    let account = NewAccount {
        email: user.email.to_owned(),
        password: user.password.into(),
        role: user.role,
        first_name: Some(user.name.to_owned()),
        last_name: None,
        phone_number: None,
    };
    match create_user(pool, account).await {
        // Another process was as quick.
        Ok(_) | Err(CreateUserError::EmailTaken) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn add_coupon(conn: &mut PgConnection, coupon: &catalogue::Coupon) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into coupons (id, code, kind, value, min_order_value, buy_quantity, get_quantity)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
    )
    .bind(Uuid::now_v7())
    .bind(coupon.code)
    .bind(coupon.kind)
    .bind(Decimal::from(coupon.value))
    .bind(coupon.min_order_value.map(Decimal::from))
    .bind(coupon.buy_get.map(|(buy, _)| buy))
    .bind(coupon.buy_get.map(|(_, get)| get))
    .execute(conn)
    .await?;
    Ok(())
}

async fn add_product(conn: &mut PgConnection, product: &catalogue::Product) -> Result<(), sqlx::Error> {
    let category = named(conn, Named::Category, product.category).await?;
    let brand = named(conn, Named::Brand, product.brand).await?;
    let lowest = product.variants.iter().map(|variant| variant.price).min().unwrap_or_default();
    let product_id: Option<Uuid> = sqlx::query_scalar(
        "insert into products (id, sku, product_name, description, category_id, brand_id, base_price)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (sku) do nothing returning id",
    )
    .bind(Uuid::now_v7())
    .bind(product.sku)
    .bind(product.name)
    .bind(product.description)
    .bind(category)
    .bind(brand)
    .bind(Decimal::from(lowest))
    .fetch_optional(&mut *conn)
    .await?;
    // A product that is there keeps its variants as somebody made them.
    let Some(product_id) = product_id else {
        return Ok(());
    };
    for variant in product.variants {
        add_variant(conn, product_id, product.tax_percent, variant).await?;
    }
    Ok(())
}

async fn add_variant(
    conn: &mut PgConnection,
    product_id: Uuid,
    tax_percent: u32,
    variant: &catalogue::Variant,
) -> Result<(), sqlx::Error> {
    let variant_id = Uuid::now_v7();
    let attributes: Map<String, Value> =
        variant.attributes.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    sqlx::query(
        "insert into product_variants (id, product_id, sku, variant_name, attributes, price, tax_rate)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(variant_id)
    .bind(product_id)
    .bind(variant.sku)
    .bind(variant.name)
    .bind(Value::Object(attributes))
    .bind(Decimal::from(variant.price))
    .bind(Decimal::from(tax_percent))
    .execute(&mut *conn)
    .await?;
    // Stock comes in by a movement like any other: the counters are the sum of the movements.
    sqlx::query(
        "with movement as (
             insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reason, created_at)
             values ($1, 'RESTOCK', $2, 0, 'demo data', engine.now()))
         insert into inventory (variant_id, available_quantity, low_stock_threshold, last_restocked_at)
         values ($1, $2, $3, engine.now())",
    )
    .bind(variant_id)
    .bind(variant.stock)
    // A tenth of what there is, so that nothing starts out as nearly sold out.
    .bind(variant.stock / 10)
    .execute(conn)
    .await?;
    Ok(())
}

/// What a product is filed under.
#[derive(Debug, Clone, Copy)]
enum Named {
    Category,
    Brand,
}

async fn named(conn: &mut PgConnection, kind: Named, name: &str) -> Result<Uuid, sqlx::Error> {
    // The update changes nothing; without it a name that is there would return no id.
    let statement = match kind {
        Named::Category => {
            "insert into categories (id, name) values ($1, $2)
             on conflict (name) do update set name = excluded.name returning id"
        }
        Named::Brand => {
            "insert into brands (id, name) values ($1, $2)
             on conflict (name) do update set name = excluded.name returning id"
        }
    };
    sqlx::query_scalar(statement).bind(Uuid::now_v7()).bind(name).fetch_one(conn).await
}
