//! Products: what shoppers read of them. What staff write is in `staff`.

mod staff;

use std::collections::HashMap;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use domain::{
    ids::ProductId,
    money::{Currency, to_wire},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::catalogue::{self, Product, Shown, Variant};

use crate::{
    caller::Caller,
    error::ApiError,
    etag::etag,
    extract::{Json, Path, Query},
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).merge(staff::routes())
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
    /// Whether it is on sale; only staff see what is not.
    is_active: bool,
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
    /// Whether it is on sale, as far as its product is.
    is_active: bool,
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
            is_active: product.is_active,
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
            is_active: variant.is_active,
            available_quantity: variant.available,
            in_stock: variant.available > 0,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    /// Items wanted, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// Also what is not on sale; for staff.
    include_inactive: Option<bool>,
}

/// The products that are sold, oldest first.
#[utoipa::path(
    get, path = "/api/products", tag = "Catalogue", params(ListQuery), security((), ("bearer" = [])),
    responses(
        (status = 200, description = "A page of products", body = Page<ProductView>),
        (status = 403, description = "`forbidden`: only staff see what is not on sale", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ProductView>>, ApiError> {
    let shown = if query.include_inactive.unwrap_or_default() {
        caller.require_staff()?;
        Shown::Everything
    } else {
        Shown::OnSale
    };
    let query = PageQuery { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (query.limit()?, query.after::<ProductId>()?);
    let mut conn = state.pool.acquire().await?;
    let products = catalogue::list_products(&mut conn, shown, after, limit + 1).await?;
    let page = Page::cut(products, limit, |last| last.id);
    let ids: Vec<ProductId> = page.items.iter().map(|product| product.id).collect();
    let mut variants: HashMap<ProductId, Vec<Variant>> = HashMap::new();
    for variant in catalogue::variants_of(&mut conn, shown, &ids).await? {
        variants.entry(variant.product_id).or_default().push(variant);
    }
    Ok(Json(page.map(|product| {
        let own = variants.remove(&product.id).unwrap_or_default();
        ProductView::new(product, own)
    })))
}

/// One product with its variants; `id` may be its id, its SKU, or the SKU of one of its variants. Staff
/// also see what is not on sale.
#[utoipa::path(
    get, path = "/api/products/{id}", tag = "Catalogue", params(("id" = String, Path, description = "Id or SKU")),
    security((), ("bearer" = [])),
    responses(
        (status = 200, description = "The product; its last change is the ETag", body = ProductView),
        (status = 404, description = "`product-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let shown = if caller.is_staff() { Shown::Everything } else { Shown::OnSale };
    let mut conn = state.pool.acquire().await?;
    let product = catalogue::find_product(&mut conn, shown, &id).await?.ok_or_else(product_not_found)?;
    let version = version_of(&product);
    let view = with_variants(&mut conn, shown, product).await?;
    Ok(([(header::ETAG, etag(version))], axum::Json(view)).into_response())
}

fn product_not_found() -> ApiError {
    ApiError::not_found("product-not-found", "There is no such product.")
}

/// Its last change, that of a variant included.
fn version_of(product: &Product) -> i64 {
    product.updated_at.timestamp_micros()
}

async fn with_variants(conn: &mut PgConnection, shown: Shown, product: Product) -> Result<ProductView, ApiError> {
    let variants = catalogue::variants_of(conn, shown, &[product.id]).await?;
    Ok(ProductView::new(product, variants))
}
