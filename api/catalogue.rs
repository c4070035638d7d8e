//! Products, and how much of them there is.

use std::collections::HashMap;

use axum::extract::State;
use domain::{
    ids::ProductId,
    money::{Currency, to_wire},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::catalogue::{self, Product, StockLevel, Variant};

use crate::{
    caller::Caller,
    error::{ApiError, FieldError},
    extract::{Json, Path, Query},
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(check)).routes(routes!(stock))
}

/// A product with its variants.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ProductView {
    product_id: Uuid,
    sku: String,
    product_name: String,
    description: Option<String>,
    category_id: Option<Uuid>,
    brand_id: Option<Uuid>,
    #[schema(examples("59050.00"))]
    base_price: String,
    #[schema(examples("INR"))]
    currency: String,
    image_url: Option<String>,
    variants: Vec<VariantView>,
}

/// A variant with what can be had of it now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VariantView {
    variant_id: Uuid,
    sku: String,
    variant_name: Option<String>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Value>,
    #[schema(examples("50000.00"))]
    price: String,
    compare_at_price: Option<String>,
    currency: String,
    /// Percent.
    #[schema(examples("18"))]
    tax_rate: String,
    available_quantity: i32,
    in_stock: bool,
}

impl ProductView {
    fn new(product: Product, variants: Vec<Variant>) -> Self {
        let currency = product.currency;
        ProductView {
            product_id: product.id.0,
            sku: product.sku,
            product_name: product.name,
            description: product.description,
            category_id: product.category_id,
            brand_id: product.brand_id,
            base_price: to_wire(product.base_price, currency),
            currency: currency.to_string(),
            image_url: product.image_url,
            variants: variants.into_iter().map(|variant| VariantView::new(variant, currency)).collect(),
        }
    }
}

impl VariantView {
    fn new(variant: Variant, currency: Currency) -> Self {
        VariantView {
            variant_id: variant.id.0,
            sku: variant.sku,
            variant_name: variant.name,
            attributes: variant.attributes,
            price: to_wire(variant.price, currency),
            compare_at_price: variant.compare_at_price.map(|price| to_wire(price, currency)),
            currency: currency.to_string(),
            tax_rate: variant.tax_rate.normalize().to_string(),
            available_quantity: variant.available,
            in_stock: variant.available > 0,
        }
    }
}

/// The products that are sold, oldest first.
#[utoipa::path(
    get, path = "/api/products", tag = "Catalogue", params(PageQuery),
    responses(
        (status = 200, description = "A page of products", body = Page<ProductView>),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ProductView>>, ApiError> {
    let (limit, after) = (query.limit()?, query.after::<ProductId>()?);
    let mut conn = state.pool.acquire().await?;
    let products = catalogue::list_products(&mut conn, after, limit + 1).await?;
    let page = Page::cut(products, limit, |last| last.id);
    let ids: Vec<ProductId> = page.items.iter().map(|product| product.id).collect();
    let mut variants: HashMap<ProductId, Vec<Variant>> = HashMap::new();
    for variant in catalogue::variants_of(&mut conn, &ids).await? {
        variants.entry(variant.product_id).or_default().push(variant);
    }
    Ok(Json(page.map(|product| {
        let own = variants.remove(&product.id).unwrap_or_default();
        ProductView::new(product, own)
    })))
}

/// One product with its variants; `id` may be its id, its SKU, or the SKU of one of its variants.
#[utoipa::path(
    get, path = "/api/products/{id}", tag = "Catalogue", params(("id" = String, Path, description = "Id or SKU")),
    responses(
        (status = 200, description = "The product", body = ProductView),
        (status = 404, description = "`product-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(State(state): State<AppState>, Path(id): Path<String>) -> Result<Json<ProductView>, ApiError> {
    let mut conn = state.pool.acquire().await?;
    let product = catalogue::find_product(&mut conn, &id)
        .await?
        .ok_or_else(|| ApiError::not_found("product-not-found", "There is no such product."))?;
    let variants = catalogue::variants_of(&mut conn, &[product.id]).await?;
    Ok(Json(ProductView::new(product, variants)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CheckQuery {
    /// The SKU of a variant, or its id.
    sku: String,
    /// How many are wanted; 1 when left out.
    #[param(minimum = 1, maximum = 999)]
    quantity: Option<i64>,
}

/// Whether so many of a variant can be had.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Availability {
    sku: String,
    variant_id: Uuid,
    /// Units that can be had now.
    available: i32,
    /// Whether they suffice.
    in_stock: bool,
}

/// Asks whether so many of a variant can be had now. It promises nothing: only a checkout holds stock.
#[utoipa::path(
    get, path = "/api/inventory/check", tag = "Catalogue", params(CheckQuery),
    responses(
        (status = 200, description = "What can be had", body = Availability),
        (status = 404, description = "`variant-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`quantity-invalid`, `validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn check(State(state): State<AppState>, Query(query): Query<CheckQuery>) -> Result<Json<Availability>, ApiError> {
    let wanted = query.quantity.unwrap_or(1);
    if !(1..=i64::from(domain::cart::MAX_QUANTITY)).contains(&wanted) {
        let place = FieldError::new("/quantity", format!("must be 1 to {}", domain::cart::MAX_QUANTITY));
        return Err(ApiError::unprocessable("quantity-invalid", "That is no quantity.").with_errors(vec![place]));
    }
    let level = find_stock(&state, &query.sku).await?;
    Ok(Json(Availability {
        sku: level.sku,
        variant_id: level.variant_id.0,
        available: level.available,
        in_stock: i64::from(level.available) >= wanted,
    }))
}

/// The counters of a variant.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StockView {
    variant_id: Uuid,
    sku: String,
    /// Units that can be had now.
    available_quantity: i32,
    /// Units held for a checkout.
    reserved_quantity: i32,
    /// Both.
    total_quantity: i32,
    /// At or below this the shop is told.
    low_stock_threshold: i32,
}

/// The counters of a variant, for staff.
#[utoipa::path(
    get, path = "/api/inventory/{variantId}", tag = "Catalogue", security(("bearer" = [])),
    params(("variantId" = String, Path, description = "Id or SKU")),
    responses(
        (status = 200, description = "The counters", body = StockView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`variant-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn stock(
    State(state): State<AppState>,
    caller: Caller,
    Path(variant_id): Path<String>,
) -> Result<Json<StockView>, ApiError> {
    caller.require_staff()?;
    let level = find_stock(&state, &variant_id).await?;
    Ok(Json(StockView {
        variant_id: level.variant_id.0,
        sku: level.sku,
        available_quantity: level.available,
        reserved_quantity: level.reserved,
        total_quantity: level.available + level.reserved,
        low_stock_threshold: level.low_stock_threshold,
    }))
}

async fn find_stock(state: &AppState, id_or_sku: &str) -> Result<StockLevel, ApiError> {
    let mut conn = state.pool.acquire().await?;
    catalogue::find_stock(&mut conn, id_or_sku)
        .await?
        .ok_or_else(|| ApiError::not_found("variant-not-found", "There is no such variant."))
}
