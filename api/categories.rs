//! What products are filed under: categories, which lie within each other, and brands.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::catalogue::filing::{self, Brand, Category};

use crate::{
    caller::Caller,
    error::{ApiError, FieldError},
    extract::{Json, Path, Query, nullable},
    idempotency::IdempotencyKey,
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
    valid::Complaints,
    write::{Write, begun},
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(change))
        .routes(routes!(list_brands, create_brand))
}

/// A category.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CategoryView {
    category_id: Uuid,
    #[schema(examples("Laptops"))]
    name: String,
    /// The one it is in.
    parent_id: Option<Uuid>,
}

impl From<Category> for CategoryView {
    fn from(category: Category) -> Self {
        CategoryView { category_id: category.id, name: category.name, parent_id: category.parent_id }
    }
}

/// A brand.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BrandView {
    brand_id: Uuid,
    #[schema(examples("Nimbus"))]
    name: String,
}

impl From<Brand> for BrandView {
    fn from(brand: Brand) -> Self {
        BrandView { brand_id: brand.id, name: brand.name }
    }
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CategoryBody {
    #[schema(min_length = 1, max_length = 100, examples("Laptops"))]
    name: String,
    /// The one it is in.
    parent_id: Option<Uuid>,
}

/// What changes; a parent of null takes it out of the one it was in.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CategoryChange {
    #[schema(min_length = 1, max_length = 100, examples("Notebooks"))]
    name: Option<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    parent_id: Option<Option<Uuid>>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BrandBody {
    #[schema(min_length = 1, max_length = 100, examples("Nimbus"))]
    name: String,
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let mut complaints = Complaints::default();
    complaints.text("/name", name, 100);
    let errors = complaints.into_errors();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors)) }
}

/// A taken name or an unknown parent, by the constraint it violates.
fn refine<T>(result: Result<T, sqlx::Error>) -> Result<T, ApiError> {
    result.map_err(|error| match error.as_database_error().and_then(sqlx::error::DatabaseError::constraint) {
        Some("categories_name_key" | "brands_name_key") => {
            ApiError::conflict("name-taken", "There is another one of this name.")
        }
        Some("categories_parent_id_fkey") => {
            let place = FieldError::new("/parentId", "there is no such category");
            ApiError::unprocessable("category-not-found", "There is no such category.").with_errors(vec![place])
        }
        Some(_) | None => error.into(),
    })
}

/// Every category, oldest first.
#[utoipa::path(
    get, path = "/api/categories", tag = "Catalogue", params(PageQuery),
    responses(
        (status = 200, description = "A page of categories", body = Page<CategoryView>),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<CategoryView>>, ApiError> {
    let (limit, after) = (query.limit()?, query.after::<Uuid>()?);
    let found = filing::list_categories(&mut *state.pool.acquire().await?, after, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| last.id).map(CategoryView::from)))
}

/// A new category.
#[utoipa::path(
    post, path = "/api/categories", tag = "Catalogue", request_body = CategoryBody, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key makes one category")),
    responses(
        (status = 201, description = "The category", body = CategoryView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`name-taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `category-not-found`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Json(body): Json<CategoryBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    check_name(&body.name)?;
    let mut write = begun!(Write::begin(&state, &caller, key).await?);
    let category = refine(filing::insert_category(write.conn(), body.name.trim(), body.parent_id).await)?;
    write.note("category.create", &format!("category:{}", category.id), None, &json!(body)).await?;
    write.answer(StatusCode::CREATED, &CategoryView::from(category)).await
}

/// Renames a category, or puts it elsewhere.
#[utoipa::path(
    patch, path = "/api/categories/{id}", tag = "Catalogue", request_body = CategoryChange,
    security(("bearer" = [])), params(("id" = Uuid, Path, description = "Its id")),
    responses(
        (status = 200, description = "The category", body = CategoryView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`category-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`name-taken`; `category-cycle`: it would be within itself", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `category-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<CategoryChange>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let not_found = || ApiError::not_found("category-not-found", "There is no such category.");
    let id = Uuid::parse_str(&id).map_err(|_| not_found())?;
    let mut write = Write::once(&state, &caller).await?;
    let mut category = filing::lock_category(write.conn(), id).await?.ok_or_else(not_found)?;
    if let Some(name) = &body.name {
        check_name(name)?;
        category.name = name.trim().to_owned();
    }
    if let Some(parent_id) = body.parent_id {
        if let Some(parent_id) = parent_id
            && filing::is_within(write.conn(), parent_id, id).await?
        {
            return Err(ApiError::conflict("category-cycle", "A category cannot be within itself."));
        }
        category.parent_id = parent_id;
    }
    refine(filing::save_category(write.conn(), &category).await)?;
    write.note("category.change", &format!("category:{id}"), None, &json!(body)).await?;
    write.answer(StatusCode::OK, &CategoryView::from(category)).await
}

/// Every brand, oldest first.
#[utoipa::path(
    get, path = "/api/brands", tag = "Catalogue", params(PageQuery),
    responses(
        (status = 200, description = "A page of brands", body = Page<BrandView>),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list_brands(
    State(state): State<AppState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<BrandView>>, ApiError> {
    let (limit, after) = (query.limit()?, query.after::<Uuid>()?);
    let found = filing::list_brands(&mut *state.pool.acquire().await?, after, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| last.id).map(BrandView::from)))
}

/// A new brand.
#[utoipa::path(
    post, path = "/api/brands", tag = "Catalogue", request_body = BrandBody, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key makes one brand")),
    responses(
        (status = 201, description = "The brand", body = BrandView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`name-taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create_brand(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Json(body): Json<BrandBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    check_name(&body.name)?;
    let mut write = begun!(Write::begin(&state, &caller, key).await?);
    let brand = refine(filing::insert_brand(write.conn(), body.name.trim()).await)?;
    write.note("brand.create", &format!("brand:{}", brand.id), None, &json!(body)).await?;
    write.answer(StatusCode::CREATED, &BrandView::from(brand)).await
}
