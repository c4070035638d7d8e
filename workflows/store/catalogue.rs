//! What is sold and how much of it there is: products, their variants, their counters.

pub mod edit;
pub mod filing;

use std::str::FromStr;

use chrono::{DateTime, Utc};
use domain::{
    ids::{ProductId, VariantId},
    money::Currency,
};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// A product, without its variants.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    /// Which.
    pub id: ProductId,
    /// The shop's own number for it.
    pub sku: String,
    /// What shoppers read.
    pub name: String,
    /// More of the same.
    pub description: Option<String>,
    /// Where it is filed.
    pub category_id: Option<Uuid>,
    /// Who makes it.
    pub brand_id: Option<Uuid>,
    /// Before variants, in `currency`.
    pub base_price: Decimal,
    /// Of every price of the product.
    pub currency: Currency,
    /// A picture.
    pub image_url: Option<String>,
    /// On sale.
    pub is_active: bool,
    /// When it, or one of its variants, was last changed.
    pub updated_at: DateTime<Utc>,
}

/// A variant with what can be had of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Which.
    pub id: VariantId,
    /// Of which product.
    pub product_id: ProductId,
    /// The shop's own number for it.
    pub sku: String,
    /// What tells it from its siblings.
    pub name: Option<String>,
    /// Such as `{"size": "L"}`.
    pub attributes: Option<Value>,
    /// In the product's currency.
    pub price: Decimal,
    /// The price it had, for showing a discount.
    pub compare_at_price: Option<Decimal>,
    /// Percent.
    pub tax_rate: Decimal,
    /// On sale, as far as its product is.
    pub is_active: bool,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// Units that can be had now.
    pub available: i32,
}

/// The counters of one variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockLevel {
    /// Which.
    pub variant_id: VariantId,
    /// The shop's own number for it.
    pub sku: String,
    /// Units that can be had now.
    pub available: i32,
    /// Units held for a checkout.
    pub reserved: i32,
    /// Below or at this the shop is told.
    pub low_stock_threshold: i32,
}

fn currency(text: &str) -> Result<Currency, sqlx::Error> {
    Currency::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// What is shown of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// What is on sale.
    OnSale,
    /// Everything, as staff see it.
    Everything,
}

impl Shown {
    fn is_everything(self) -> bool {
        match self {
            Shown::OnSale => false,
            Shown::Everything => true,
        }
    }
}

/// Products in order of their ids (which is that of their creation), after the given one.
///
/// # Errors
/// The database's own.
pub async fn list_products(
    conn: &mut PgConnection,
    shown: Shown,
    after: Option<ProductId>,
    limit: i64,
) -> Result<Vec<Product>, sqlx::Error> {
    sqlx::query!(
        "select id, sku, product_name, description, category_id, brand_id, base_price, currency, image_url,
                is_active, updated_at
           from products
          where (is_active or $3) and ($1::uuid is null or id > $1)
          order by id limit $2",
        after.map(|id| id.0),
        limit,
        shown.is_everything()
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Product {
            id: ProductId(row.id),
            sku: row.sku,
            name: row.product_name,
            description: row.description,
            category_id: row.category_id,
            brand_id: row.brand_id,
            base_price: row.base_price,
            currency: currency(&row.currency)?,
            image_url: row.image_url,
            is_active: row.is_active,
            updated_at: row.updated_at,
        })
    })
    .collect()
}

/// The product with that id, that SKU, or a variant of that SKU.
///
/// # Errors
/// The database's own.
pub async fn find_product(
    conn: &mut PgConnection,
    shown: Shown,
    id_or_sku: &str,
) -> Result<Option<Product>, sqlx::Error> {
    // Three look-ups by unique index; an `or` over two tables would scan.
    let Some(row) = sqlx::query!(
        "select id, sku, product_name, description, category_id, brand_id, base_price, currency, image_url,
                is_active, updated_at
           from products
          where (is_active or $3) and id = coalesce(
                $1::uuid,
                (select p.id from products p where p.sku = $2),
                (select v.product_id from product_variants v where v.sku = $2 and (v.is_active or $3)))",
        Uuid::parse_str(id_or_sku).ok(),
        id_or_sku,
        shown.is_everything()
    )
    .fetch_optional(conn)
    .await?
    else {
        return Ok(None);
    };
    Ok(Some(Product {
        id: ProductId(row.id),
        sku: row.sku,
        name: row.product_name,
        description: row.description,
        category_id: row.category_id,
        brand_id: row.brand_id,
        base_price: row.base_price,
        currency: currency(&row.currency)?,
        image_url: row.image_url,
        is_active: row.is_active,
        updated_at: row.updated_at,
    }))
}

/// The variants of those products, each product's in order of their ids.
///
/// # Errors
/// The database's own.
pub async fn variants_of(
    conn: &mut PgConnection,
    shown: Shown,
    products: &[ProductId],
) -> Result<Vec<Variant>, sqlx::Error> {
    let products: Vec<Uuid> = products.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"select v.id, v.product_id, v.sku, v.variant_name, v.attributes, v.price, v.compare_at_price, v.tax_rate,
                  v.is_active, v.updated_at, coalesce(i.available_quantity, 0) as "available!"
             from product_variants v
             left join inventory i on i.variant_id = v.id
            where v.product_id = any($1) and (v.is_active or $2)
            order by v.product_id, v.id"#,
        &products,
        shown.is_everything()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Variant {
            id: VariantId(row.id),
            product_id: ProductId(row.product_id),
            sku: row.sku,
            name: row.variant_name,
            attributes: row.attributes,
            price: row.price,
            compare_at_price: row.compare_at_price,
            tax_rate: row.tax_rate,
            is_active: row.is_active,
            updated_at: row.updated_at,
            available: row.available,
        })
        .collect())
}

/// The counters of a variant, by its id or its SKU; zero for one that was never stocked.
///
/// # Errors
/// The database's own.
pub async fn find_stock(conn: &mut PgConnection, id_or_sku: &str) -> Result<Option<StockLevel>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select v.id, v.sku, coalesce(i.available_quantity, 0) as "available!",
                  coalesce(i.reserved_quantity, 0) as "reserved!",
                  coalesce(i.low_stock_threshold, 10) as "low_stock_threshold!"
             from product_variants v
             left join inventory i on i.variant_id = v.id
            where v.id = coalesce($1::uuid, (select s.id from product_variants s where s.sku = $2))"#,
        Uuid::parse_str(id_or_sku).ok(),
        id_or_sku
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| StockLevel {
        variant_id: VariantId(row.id),
        sku: row.sku,
        available: row.available,
        reserved: row.reserved,
        low_stock_threshold: row.low_stock_threshold,
    }))
}
