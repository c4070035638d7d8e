//! What is on the shelves, and in the baskets, beyond what every test finds there.

use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

use super::{Server, Shopper};

impl Server {
    /// So many variants at 10.00 each, 5,000 in stock; their SKUs in order.
    pub async fn add_variants(&self, count: usize) -> Vec<String> {
        let skus: Vec<String> = (0..count).map(|number| format!("BULK-{number:04}")).collect();
        sqlx::query(
            "with product as (
                insert into products (id, sku, product_name, base_price) values ($1, 'BULK', 'Bulk', 10)),
             variants as (
                insert into product_variants (id, product_id, sku, price)
                select gen_random_uuid(), $1, sku, 10 from unnest($2::text[]) as s(sku) returning id),
             stock as (
                insert into inventory (variant_id, available_quantity, low_stock_threshold)
                select id, 5000, 0 from variants)
             insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
             select id, 'RESTOCK', 5000, 0, now() from variants",
        )
        .bind(Uuid::now_v7())
        .bind(&skus)
        .execute(&self.pool)
        .await
        .expect("variants");
        skus
    }

    /// One of each in the shopper's cart, without as many requests.
    pub async fn fill(&self, shopper: &Shopper, skus: &[String]) {
        // The first makes the cart.
        let made = shopper.add(&skus[0], 1).await;
        let cart = made["cart"]["cartId"].as_str().expect("an id").parse::<Uuid>().expect("a uuid");
        sqlx::query(
            "with lines as (
                insert into cart_items (cart_id, variant_id, quantity, price)
                select $1, id, 1, price from product_variants where sku = any($2) and sku <> $3)
             update carts set version = version + 1, updated_at = clock_timestamp() where id = $1",
        )
        .bind(cart)
        .bind(skus)
        .bind(&skus[0])
        .execute(&self.pool)
        .await
        .expect("lines");
    }

    /// Counts the stock of a variant anew.
    pub async fn set_stock(&self, sku: &str, available: i32) {
        sqlx::query(
            "with variant as (
                select i.variant_id, $2 - i.available_quantity as delta
                  from inventory i join product_variants v on v.id = i.variant_id where v.sku = $1),
             counted as (
                update inventory set available_quantity = $2 where variant_id in (select variant_id from variant))
             insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reason, created_at)
             select variant_id, 'ADJUST', delta, 0, 'counted', now() from variant",
        )
        .bind(sku)
        .bind(available)
        .execute(&self.pool)
        .await
        .expect("a count");
    }

    /// A new price for a variant.
    pub async fn set_price(&self, sku: &str, price: i64) {
        sqlx::query("update product_variants set price = $2 where sku = $1")
            .bind(sku)
            .bind(Decimal::from(price))
            .execute(&self.pool)
            .await
            .expect("a price");
    }

    /// So many percent off everything.
    pub async fn add_coupon(&self, code: &str, percent: i64) {
        sqlx::query("insert into coupons (id, code, kind, value) values ($1, $2, 'PERCENT', $3)")
            .bind(Uuid::now_v7())
            .bind(code)
            .bind(Decimal::from(percent))
            .execute(&self.pool)
            .await
            .expect("a coupon");
    }

    /// Switches a coupon off.
    pub async fn end_coupon(&self, code: &str) {
        let ended = sqlx::query("update coupons set is_active = false where code = $1").bind(code).execute(&self.pool);
        assert_eq!(ended.await.expect("a coupon").rows_affected(), 1);
    }
}

/// The types of a cart's notices.
pub fn notices(cart: &Value) -> Vec<&str> {
    cart["notices"].as_array().expect("notices").iter().map(|notice| notice["type"].as_str().expect("a type")).collect()
}
