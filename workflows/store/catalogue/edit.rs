//! Changing what is sold. A product is locked before its variants; nothing here touches an order, which
//! has its own copy of every name and price.

use domain::{
    ids::{ProductId, VariantId},
    money::Currency,
};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Product, Shown, Variant, find_product, variants_of};

/// A product to be. Every price fits its currency.
#[derive(Debug, Clone)]
pub struct NewProduct<'a> {
    /// At most 100 characters; a taken one violates `products_sku_key`.
    pub sku: &'a str,
    /// At most 255 characters.
    pub name: &'a str,
    /// More of the same.
    pub description: Option<&'a str>,
    /// An unknown one violates `products_category_id_fkey`.
    pub category_id: Option<Uuid>,
    /// An unknown one violates `products_brand_id_fkey`.
    pub brand_id: Option<Uuid>,
    /// In `currency`.
    pub base_price: Decimal,
    /// Of every price of the product.
    pub currency: Currency,
    /// At most 500 characters.
    pub image_url: Option<&'a str>,
}

/// A variant to be, with nothing in stock.
#[derive(Debug, Clone)]
pub struct NewVariant<'a> {
    /// At most 100 characters; a taken one violates `product_variants_sku_key`.
    pub sku: &'a str,
    /// At most 100 characters.
    pub name: Option<&'a str>,
    /// An object.
    pub attributes: Option<&'a Value>,
    /// In the product's currency.
    pub price: Decimal,
    /// The price it had.
    pub compare_at_price: Option<Decimal>,
    /// Percent.
    pub tax_rate: Decimal,
}

/// Writes a new product, on sale.
///
/// # Errors
/// The database's own.
pub async fn insert_product(conn: &mut PgConnection, new: &NewProduct<'_>) -> Result<ProductId, sqlx::Error> {
    let id = ProductId::generate();
    sqlx::query!(
        "insert into products (id, sku, product_name, description, category_id, brand_id, base_price, currency,
                               image_url, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, engine.now(), engine.now())",
        id.0,
        new.sku,
        new.name,
        new.description,
        new.category_id,
        new.brand_id,
        new.base_price,
        new.currency.as_str(),
        new.image_url
    )
    .execute(conn)
    .await?;
    Ok(id)
}

/// Writes a new variant, on sale. The product's row is locked by the caller, or new.
///
/// # Errors
/// The database's own.
pub async fn insert_variant(
    conn: &mut PgConnection,
    product_id: ProductId,
    new: &NewVariant<'_>,
) -> Result<VariantId, sqlx::Error> {
    let id = VariantId::generate();
    sqlx::query!(
        "with touched as (update products set updated_at = engine.now() where id = $2)
         insert into product_variants (id, product_id, sku, variant_name, attributes, price, compare_at_price,
                                       tax_rate, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, engine.now(), engine.now())",
        id.0,
        product_id.0,
        new.sku,
        new.name,
        new.attributes,
        new.price,
        new.compare_at_price,
        new.tax_rate
    )
    .execute(conn)
    .await?;
    Ok(id)
}

/// A product, on sale or not, locked until the transaction ends.
///
/// # Errors
/// The database's own.
pub async fn lock_product(conn: &mut PgConnection, id_or_sku: &str) -> Result<Option<Product>, sqlx::Error> {
    let Some(found) = find_product(conn, Shown::Everything, id_or_sku).await? else { return Ok(None) };
    sqlx::query!("select id from products where id = $1 for update", found.id.0).fetch_one(&mut *conn).await?;
    // What another made of it while we waited.
    find_product(conn, Shown::Everything, &found.id.to_string()).await
}

/// Writes everything of a locked product but its id, SKU and currency.
///
/// # Errors
/// The database's own; an unknown category or brand violates its foreign key.
pub async fn save_product(conn: &mut PgConnection, product: &Product) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update products
            set product_name = $2, description = $3, category_id = $4, brand_id = $5, base_price = $6,
                image_url = $7, is_active = $8, updated_at = engine.now()
          where id = $1",
        product.id.0,
        product.name,
        product.description,
        product.category_id,
        product.brand_id,
        product.base_price,
        product.image_url,
        product.is_active
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A variant by its id or SKU, on sale or not, with its product; both are locked until the transaction ends.
///
/// # Errors
/// The database's own.
pub async fn lock_variant(conn: &mut PgConnection, id_or_sku: &str) -> Result<Option<(Product, Variant)>, sqlx::Error> {
    let found = sqlx::query!(
        "select id, product_id from product_variants
          where id = coalesce($1::uuid, (select s.id from product_variants s where s.sku = $2))",
        Uuid::parse_str(id_or_sku).ok(),
        id_or_sku
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(found) = found else { return Ok(None) };
    // Whoever changes a variant locks its product: no second lock is needed.
    let Some(product) = lock_product(conn, &found.product_id.to_string()).await? else { return Ok(None) };
    let variants = variants_of(conn, Shown::Everything, &[product.id]).await?;
    Ok(variants.into_iter().find(|variant| variant.id.0 == found.id).map(|variant| (product, variant)))
}

/// Writes everything of a variant but its id, SKU and stock; its product is locked. Carts notice a new
/// price by themselves: they price anew at each look.
///
/// # Errors
/// The database's own.
pub async fn save_variant(conn: &mut PgConnection, variant: &Variant) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with touched as (update products set updated_at = engine.now() where id = $8)
         update product_variants
            set variant_name = $2, attributes = $3, price = $4, compare_at_price = $5, tax_rate = $6, is_active = $7,
                updated_at = engine.now()
          where id = $1",
        variant.id.0,
        variant.name,
        variant.attributes,
        variant.price,
        variant.compare_at_price,
        variant.tax_rate,
        variant.is_active,
        variant.product_id.0
    )
    .execute(conn)
    .await?;
    Ok(())
}
