//! Products and variants, as staff write them. Each write is in the audit log; none touches an order.

use axum::{extract::State, http::StatusCode, response::Response};
use domain::{
    ids::{ProductId, VariantId},
    money::Currency,
    text::{MAX_CHARS, lines_problem},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::{
    catalogue::{
        Product, Shown, Variant,
        edit::{self, NewProduct, NewVariant},
    },
    inventory::shelf::{self, Cause},
};

use super::{ProductView, VariantView, product_not_found, version_of, with_variants};
use crate::{
    caller::Caller,
    error::{ApiError, FieldError, OnConstraint},
    etag::IfMatch,
    extract::{Json, Path, nullable},
    idempotency::IdempotencyKey,
    inventory::variant_not_found,
    openapi::Problem,
    state::AppState,
    valid::{Complaints, decimal, nullable_decimal, optional_decimal},
    write::{Write, begun},
};

/// The tax classes, in percent: India's GST since September 2025.
const TAX_CLASSES: [i64; 4] = [0, 5, 18, 40];
const DEFAULT_TAX_CLASS: i64 = 18;

/// Most variants that come with a new product.
const MAX_VARIANTS: usize = 100;

/// Most bytes of a variant's attributes, as JSON.
const MAX_ATTRIBUTES_BYTES: usize = 4_096;

/// Most units a new variant starts with.
const MOST_UNITS: i32 = 1_000_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(change))
        .routes(routes!(add_variant))
        .routes(routes!(change_variant))
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProductBody {
    /// Letters, digits, `-`, `_` and `.`.
    #[schema(min_length = 1, max_length = 100, examples("TAB-100"))]
    sku: String,
    #[schema(min_length = 1, max_length = 255, examples("Tablet"))]
    product_name: String,
    #[schema(max_length = 5000)]
    description: Option<String>,
    category_id: Option<Uuid>,
    brand_id: Option<Uuid>,
    #[schema(value_type = String, examples("20000.00"))]
    #[serde(deserialize_with = "decimal")]
    base_price: Decimal,
    /// The shop's currency; it is the only one the shop sells in.
    #[schema(value_type = Option<String>)]
    currency: Option<Currency>,
    #[schema(max_length = 500)]
    image_url: Option<String>,
    /// 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    variants: Vec<VariantBody>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VariantBody {
    /// Letters, digits, `-`, `_` and `.`.
    #[schema(min_length = 1, max_length = 100, examples("TAB-100-64"))]
    sku: String,
    #[schema(min_length = 1, max_length = 100, examples("64 GB"))]
    variant_name: Option<String>,
    /// In the product's currency, before tax.
    #[schema(value_type = String, examples("20000.00"))]
    #[serde(deserialize_with = "decimal")]
    price: Decimal,
    /// The price it had, for showing a discount.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "optional_decimal")]
    compare_at_price: Option<Decimal>,
    #[schema(value_type = Option<Object>, example = json!({ "storage": "64 GB" }))]
    attributes: Option<Value>,
    /// Percent: 0, 5, 18 or 40; 18 when left out.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "optional_decimal")]
    tax_rate: Option<Decimal>,
    /// Units in stock from the start; 0 when left out.
    #[schema(minimum = 0, maximum = 1_000_000)]
    stock: Option<i32>,
}

/// What changes; null empties a field that may be empty.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProductChange {
    #[schema(min_length = 1, max_length = 255)]
    product_name: Option<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 5000)]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    category_id: Option<Option<Uuid>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    brand_id: Option<Option<Uuid>>,
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "optional_decimal")]
    base_price: Option<Decimal>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 500)]
    image_url: Option<Option<String>>,
    /// False takes the product off sale; orders are not touched.
    is_active: Option<bool>,
}

/// What changes; null empties a field that may be empty.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VariantChange {
    #[schema(min_length = 1, max_length = 100)]
    variant_name: Option<String>,
    /// A new price; carts that hold the variant tell their shoppers.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "optional_decimal")]
    price: Option<Decimal>,
    #[serde(default, deserialize_with = "nullable_decimal", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    compare_at_price: Option<Option<Decimal>>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    attributes: Option<Option<Value>>,
    /// Percent: 0, 5, 18 or 40.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "optional_decimal")]
    tax_rate: Option<Decimal>,
    /// False takes the variant off sale; orders are not touched.
    is_active: Option<bool>,
    /// At or below this the shop is told.
    #[schema(minimum = 0, maximum = 1_000_000)]
    low_stock_threshold: Option<i32>,
}

impl ProductBody {
    fn complaints(&self, currency: Currency) -> Vec<FieldError> {
        let mut complaints = Complaints::default();
        complain_of_sku(&mut complaints, "/sku", &self.sku);
        complaints.text("/productName", &self.product_name, 255);
        complain_of_texts(&mut complaints, self.description.as_deref(), self.image_url.as_deref());
        complaints.amount("/basePrice", self.base_price, currency);
        let foreign = self.currency.is_some_and(|given| given != currency);
        complaints.note(foreign, "/currency", format!("this shop sells in {currency}"));
        let count = self.variants.len();
        complaints.note(!(1..=MAX_VARIANTS).contains(&count), "/variants", "must have 1 to 100 variants");
        for (index, variant) in self.variants.iter().enumerate() {
            variant.complain(&mut complaints, &format!("/variants/{index}"), currency);
        }
        complaints.into_errors()
    }
}

impl VariantBody {
    fn complain(&self, complaints: &mut Complaints, place: &str, currency: Currency) {
        complain_of_sku(complaints, &format!("{place}/sku"), &self.sku);
        if let Some(name) = &self.variant_name {
            complaints.text(&format!("{place}/variantName"), name, 100);
        }
        complaints.amount(&format!("{place}/price"), self.price, currency);
        if let Some(price) = self.compare_at_price {
            complaints.amount(&format!("{place}/compareAtPrice"), price, currency);
        }
        complain_of_attributes(complaints, &format!("{place}/attributes"), self.attributes.as_ref());
        complain_of_tax(complaints, &format!("{place}/taxRate"), self.tax_rate);
        let odd = self.stock.is_some_and(|stock| !(0..=MOST_UNITS).contains(&stock));
        complaints.note(odd, &format!("{place}/stock"), format!("must be 0 to {MOST_UNITS}"));
    }

    /// Writes the variant and what it starts with in stock.
    async fn insert(&self, write: &mut Write, product_id: ProductId) -> Result<VariantId, ApiError> {
        let new = NewVariant {
            sku: &self.sku,
            name: self.variant_name.as_deref(),
            attributes: self.attributes.as_ref(),
            price: self.price,
            compare_at_price: self.compare_at_price,
            tax_rate: self.tax_rate.unwrap_or(DEFAULT_TAX_CLASS.into()),
        };
        let inserted = edit::insert_variant(write.conn(), product_id, &new).await;
        let id = inserted.on_constraint("product_variants_sku_key", |_| sku_taken(&self.sku))?;
        if let Some(stock) = self.stock.filter(|stock| *stock > 0) {
            shelf::change(write.conn(), id, stock, Cause::Restock).await?;
        }
        Ok(id)
    }
}

fn sku_taken(sku: &str) -> ApiError {
    ApiError::conflict("sku-taken", "There is something else with this SKU.").with("sku", sku)
}

/// A SKU stands in paths, and must not look like an id.
fn complain_of_sku(complaints: &mut Complaints, place: &str, sku: &str) {
    let is_fine = |letter: char| letter.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&letter);
    let fits = (1..=100).contains(&sku.len()) && sku.chars().all(is_fine) && Uuid::parse_str(sku).is_err();
    complaints.note(!fits, place, "must have 1 to 100 letters, digits, `-`, `_` or `.`, and be no UUID");
}

fn complain_of_texts(complaints: &mut Complaints, description: Option<&str>, image_url: Option<&str>) {
    let problem = description.and_then(|text| lines_problem(text, MAX_CHARS));
    complaints.note(problem.is_some(), "/description", problem.unwrap_or_default());
    if let Some(url) = image_url {
        complaints.text("/imageUrl", url, 500);
    }
}

fn complain_of_attributes(complaints: &mut Complaints, place: &str, attributes: Option<&Value>) {
    let Some(attributes) = attributes else { return };
    let fits = attributes.is_object() && attributes.to_string().len() <= MAX_ATTRIBUTES_BYTES;
    complaints.note(!fits, place, format!("must be an object of at most {MAX_ATTRIBUTES_BYTES} bytes"));
}

fn complain_of_tax(complaints: &mut Complaints, place: &str, rate: Option<Decimal>) {
    let odd = rate.is_some_and(|rate| !TAX_CLASSES.iter().any(|class| Decimal::from(*class) == rate));
    complaints.note(odd, place, "must be 0, 5, 18 or 40");
}

/// A taken SKU, an unknown category or brand, by the constraint it violates.
fn refine<T>(result: Result<T, sqlx::Error>, sku: &str) -> Result<T, ApiError> {
    let unknown = |code: &'static str, pointer: &str, what: &str| {
        let detail = format!("There is no such {what}.");
        ApiError::unprocessable(code, detail.clone()).with_errors(vec![FieldError::new(pointer, detail)])
    };
    result.map_err(|error| match error.as_database_error().and_then(sqlx::error::DatabaseError::constraint) {
        Some("products_sku_key") => sku_taken(sku),
        Some("products_category_id_fkey") => unknown("category-not-found", "/categoryId", "category"),
        Some("products_brand_id_fkey") => unknown("brand-not-found", "/brandId", "brand"),
        Some(_) | None => error.into(),
    })
}

/// A new product with its variants, on sale at once. Stock comes in with a movement like any delivery.
#[utoipa::path(
    post, path = "/api/products", tag = "Catalogue", request_body = ProductBody, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key makes one product")),
    responses(
        (status = 201, description = "The product", body = ProductView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`sku-taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `category-not-found`, `brand-not-found`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Json(body): Json<ProductBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let currency = state.shop.pricing.policy().currency;
    let errors = body.complaints(currency);
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let mut write = begun!(Write::begin(&state, &caller, key).await?);
    let new = NewProduct {
        sku: &body.sku,
        name: &body.product_name,
        description: body.description.as_deref(),
        category_id: body.category_id,
        brand_id: body.brand_id,
        base_price: body.base_price,
        currency,
        image_url: body.image_url.as_deref(),
    };
    let id = refine(edit::insert_product(write.conn(), &new).await, &body.sku)?;
    for variant in &body.variants {
        variant.insert(&mut write, id).await?;
    }
    write.note("product.create", &format!("product:{id}"), None, &json!(body)).await?;
    let product = edit::lock_product(write.conn(), &id.to_string()).await?.ok_or_else(product_not_found)?;
    let view = with_variants(write.conn(), Shown::Everything, product).await?;
    write.answer(StatusCode::CREATED, &view).await
}

fn apply(change: &ProductChange, product: &mut Product) -> Vec<FieldError> {
    let mut complaints = Complaints::default();
    if let Some(name) = &change.product_name {
        complaints.text("/productName", name, 255);
        product.name.clone_from(name);
    }
    complain_of_texts(
        &mut complaints,
        change.description.iter().flatten().next().map(String::as_str),
        change.image_url.iter().flatten().next().map(String::as_str),
    );
    if let Some(price) = change.base_price {
        complaints.amount("/basePrice", price, product.currency);
        product.base_price = price;
    }
    product.description = change.description.clone().unwrap_or(product.description.take());
    product.image_url = change.image_url.clone().unwrap_or(product.image_url.take());
    product.category_id = change.category_id.unwrap_or(product.category_id);
    product.brand_id = change.brand_id.unwrap_or(product.brand_id);
    product.is_active = change.is_active.unwrap_or(product.is_active);
    complaints.into_errors()
}

/// Changes a product. Taken off sale, it can no longer be added or bought; orders keep their copy.
#[utoipa::path(
    patch, path = "/api/products/{id}", tag = "Catalogue", request_body = ProductChange, security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or SKU"),
        ("If-Match" = Option<String>, Header, description = "The version to change"),
    ),
    responses(
        (status = 200, description = "The product", body = ProductView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`product-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `category-not-found`, `brand-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(state): State<AppState>,
    caller: Caller,
    if_match: IfMatch,
    Path(id): Path<String>,
    Json(body): Json<ProductChange>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let mut write = Write::once(&state, &caller).await?;
    let mut product = edit::lock_product(write.conn(), &id).await?.ok_or_else(product_not_found)?;
    require(&if_match, &product)?;
    let errors = apply(&body, &mut product);
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    refine(edit::save_product(write.conn(), &product).await, &product.sku)?;
    write.note("product.change", &format!("product:{}", product.id), None, &json!(body)).await?;
    let view = with_variants(write.conn(), Shown::Everything, product).await?;
    write.answer(StatusCode::OK, &view).await
}

fn require(if_match: &IfMatch, product: &Product) -> Result<(), ApiError> {
    if if_match.allows(version_of(product)) {
        return Ok(());
    }
    Err(ApiError::precondition_failed("The product has been changed meanwhile."))
}

/// Another variant of a product.
#[utoipa::path(
    post, path = "/api/products/{id}/variants", tag = "Catalogue", request_body = VariantBody,
    security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or SKU"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key makes one variant"),
    ),
    responses(
        (status = 201, description = "The variant", body = VariantView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`product-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`sku-taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn add_variant(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Path(id): Path<String>,
    Json(body): Json<VariantBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let mut write = begun!(Write::begin(&state, &caller, key).await?);
    let product = edit::lock_product(write.conn(), &id).await?.ok_or_else(product_not_found)?;
    let mut complaints = Complaints::default();
    body.complain(&mut complaints, "", product.currency);
    let errors = complaints.into_errors();
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let variant_id = body.insert(&mut write, product.id).await?;
    write.note("variant.create", &format!("variant:{variant_id}"), None, &json!(body)).await?;
    answer_variant(write, variant_id, StatusCode::CREATED).await
}

async fn answer_variant(mut write: Write, id: VariantId, status: StatusCode) -> Result<Response, ApiError> {
    let found = edit::lock_variant(write.conn(), &id.to_string()).await?;
    let (product, variant) = found.ok_or_else(variant_not_found)?;
    write.answer(status, &VariantView::new(variant, product.currency)).await
}

fn apply_to_variant(change: &VariantChange, variant: &mut Variant, currency: Currency) -> Vec<FieldError> {
    let mut complaints = Complaints::default();
    if let Some(name) = &change.variant_name {
        complaints.text("/variantName", name, 100);
        variant.name = Some(name.clone());
    }
    if let Some(price) = change.price {
        complaints.amount("/price", price, currency);
        variant.price = price;
    }
    if let Some(Some(price)) = change.compare_at_price {
        complaints.amount("/compareAtPrice", price, currency);
    }
    complain_of_attributes(&mut complaints, "/attributes", change.attributes.iter().flatten().next());
    complain_of_tax(&mut complaints, "/taxRate", change.tax_rate);
    let odd = change.low_stock_threshold.is_some_and(|level| !(0..=MOST_UNITS).contains(&level));
    complaints.note(odd, "/lowStockThreshold", format!("must be 0 to {MOST_UNITS}"));
    variant.compare_at_price = change.compare_at_price.unwrap_or(variant.compare_at_price);
    variant.attributes = change.attributes.clone().unwrap_or(variant.attributes.take());
    variant.tax_rate = change.tax_rate.unwrap_or(variant.tax_rate);
    variant.is_active = change.is_active.unwrap_or(variant.is_active);
    complaints.into_errors()
}

/// Changes a variant. Carts show a new price at once, with a notice; orders keep their copy.
#[utoipa::path(
    patch, path = "/api/variants/{id}", tag = "Catalogue", request_body = VariantChange, security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or SKU"),
        ("If-Match" = Option<String>, Header, description = "The version of its product"),
    ),
    responses(
        (status = 200, description = "The variant", body = VariantView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`variant-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn change_variant(
    State(state): State<AppState>,
    caller: Caller,
    if_match: IfMatch,
    Path(id): Path<String>,
    Json(body): Json<VariantChange>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let mut write = Write::once(&state, &caller).await?;
    let found = edit::lock_variant(write.conn(), &id).await?;
    let (product, mut variant) = found.ok_or_else(variant_not_found)?;
    require(&if_match, &product)?;
    let errors = apply_to_variant(&body, &mut variant, product.currency);
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    edit::save_variant(write.conn(), &variant).await?;
    if let Some(threshold) = body.low_stock_threshold {
        shelf::set_threshold(write.conn(), variant.id, threshold).await?;
    }
    write.note("variant.change", &format!("variant:{}", variant.id), None, &json!(body)).await?;
    answer_variant(write, variant.id, StatusCode::OK).await
}
