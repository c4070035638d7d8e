//! Stock: its counters and ledger for staff, holds for other services.

mod holds;

use std::slice;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use domain::text::line_problem;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::{
    catalogue::{self, StockLevel},
    inventory::{
        services,
        shelf::{self, Cause, Movement, ShelfError},
    },
};

use crate::{
    caller::Caller,
    error::{ApiError, FieldError},
    extract::{Json, Path, Query},
    idempotency::IdempotencyKey,
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
    write::{Write, begun},
};

/// Most units that come or go by one request.
const MOST_UNITS: i64 = 1_000_000;

/// Most characters of a reason.
const MAX_REASON_CHARS: usize = 200;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(check))
        .routes(routes!(stock))
        .routes(routes!(restock))
        .routes(routes!(adjust))
        .routes(routes!(movements))
        .merge(holds::routes())
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
    get, path = "/api/inventory/check", tag = "Inventory", params(CheckQuery),
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
    let mut conn = state.pool.acquire().await?;
    let level = find_stock(&mut conn, &query.sku).await?;
    if services::find_variants(&mut conn, slice::from_ref(&level.sku)).await?.is_empty() {
        // Off sale: for everybody but staff it is not there.
        return Err(variant_not_found());
    }
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
    /// Units held for a checkout or a service.
    reserved_quantity: i32,
    /// Both.
    total_quantity: i32,
    /// At or below this the shop is told.
    low_stock_threshold: i32,
}

impl From<StockLevel> for StockView {
    fn from(level: StockLevel) -> Self {
        StockView {
            variant_id: level.variant_id.0,
            sku: level.sku,
            available_quantity: level.available,
            reserved_quantity: level.reserved,
            total_quantity: level.available + level.reserved,
            low_stock_threshold: level.low_stock_threshold,
        }
    }
}

/// The counters of a variant, for staff.
#[utoipa::path(
    get, path = "/api/inventory/{variantId}", tag = "Inventory", security(("bearer" = [])),
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
    let level = find_stock(&mut *state.pool.acquire().await?, &variant_id).await?;
    Ok(Json(level.into()))
}

async fn find_stock(conn: &mut PgConnection, id_or_sku: &str) -> Result<StockLevel, ApiError> {
    catalogue::find_stock(conn, id_or_sku).await?.ok_or_else(variant_not_found)
}

pub(crate) fn variant_not_found() -> ApiError {
    ApiError::not_found("variant-not-found", "There is no such variant.")
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RestockBody {
    /// Units that came in.
    #[schema(minimum = 1, maximum = 1_000_000, examples(25))]
    quantity: i64,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdjustBody {
    /// Units more, or fewer.
    #[schema(minimum = -1_000_000, maximum = 1_000_000, examples(-2))]
    delta: i64,
    /// Why; it goes into the ledger.
    #[schema(min_length = 1, max_length = 200, examples("broken in the warehouse"))]
    reason: String,
}

/// Takes in a delivery: available + quantity, with its movement.
#[utoipa::path(
    post, path = "/api/inventory/{variantId}/restock", tag = "Inventory", request_body = RestockBody,
    security(("bearer" = [])),
    params(
        ("variantId" = String, Path, description = "Id or SKU"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key takes in once"),
    ),
    responses(
        (status = 200, description = "The counters", body = StockView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`variant-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`stock-limit-exceeded`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn restock(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Path(variant_id): Path<String>,
    Json(body): Json<RestockBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let wrong = || FieldError::new("/quantity", format!("must be 1 to {MOST_UNITS}"));
    let quantity = i32::try_from(body.quantity).ok().filter(|_| (1..=MOST_UNITS).contains(&body.quantity));
    let quantity = quantity.ok_or_else(|| ApiError::invalid(vec![wrong()]))?;
    let write = begun!(Write::begin(&state, &caller, key).await?);
    change(write, &variant_id, quantity, Cause::Restock).await
}

/// Corrects what can be had of a variant, up or down, with its movement and the reason.
#[utoipa::path(
    post, path = "/api/inventory/{variantId}/adjust", tag = "Inventory", request_body = AdjustBody,
    security(("bearer" = [])),
    params(
        ("variantId" = String, Path, description = "Id or SKU"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key adjusts once"),
    ),
    responses(
        (status = 200, description = "The counters", body = StockView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`variant-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`stock-below-zero` with `available`, `stock-limit-exceeded`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn adjust(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Path(variant_id): Path<String>,
    Json(body): Json<AdjustBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let mut errors = Vec::new();
    let delta = i32::try_from(body.delta).ok().filter(|delta| *delta != 0 && body.delta.abs() <= MOST_UNITS);
    if delta.is_none() {
        errors.push(FieldError::new("/delta", format!("must be -{MOST_UNITS} to {MOST_UNITS}, and not 0")));
    }
    let reason = body.reason.trim();
    errors.extend(line_problem(reason, MAX_REASON_CHARS).map(|detail| FieldError::new("/reason", detail)));
    let Some(delta) = delta.filter(|_| errors.is_empty()) else { return Err(ApiError::invalid(errors)) };
    let write = begun!(Write::begin(&state, &caller, key).await?);
    change(write, &variant_id, delta, Cause::Adjust(reason)).await
}

async fn change(mut write: Write, variant: &str, delta: i32, cause: Cause<'_>) -> Result<Response, ApiError> {
    let variant_id = find_stock(write.conn(), variant).await?.variant_id;
    shelf::change(write.conn(), variant_id, delta, cause).await?;
    let (action, reason, details) = match cause {
        Cause::Restock => ("inventory.restock", None, json!({ "quantity": delta })),
        Cause::Adjust(reason) => ("inventory.adjust", Some(reason), json!({ "delta": delta })),
    };
    write.note(action, &format!("variant:{variant_id}"), reason, &details).await?;
    let level = shelf::level(write.conn(), variant_id).await?;
    write.answer(StatusCode::OK, &StockView::from(level)).await
}

impl From<ShelfError> for ApiError {
    fn from(error: ShelfError) -> Self {
        let detail = error.to_string();
        match error {
            ShelfError::BelowZero { available } => {
                ApiError::conflict("stock-below-zero", detail).with("available", available)
            }
            ShelfError::TooMany => ApiError::conflict("stock-limit-exceeded", detail),
            ShelfError::Database(error) => error.into(),
        }
    }
}

/// One line of a variant's ledger.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MovementView {
    movement_id: i64,
    /// RESTOCK, ADJUST, HOLD, COMMIT, RELEASE, EXPIRE or RETURN.
    kind: String,
    /// Change of what can be had.
    available_delta: i32,
    /// Change of what is held.
    reserved_delta: i32,
    /// The order it was for, if it was for one.
    order_id: Option<Uuid>,
    /// Why, for an adjustment.
    reason: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Movement> for MovementView {
    fn from(movement: Movement) -> Self {
        let Movement { id, kind, available_delta, reserved_delta, order_id, reason, created_at, .. } = movement;
        MovementView { movement_id: id, kind, available_delta, reserved_delta, order_id, reason, created_at }
    }
}

/// The ledger of a variant, newest first. The sum of all its lines is the counters.
#[utoipa::path(
    get, path = "/api/inventory/{variantId}/movements", tag = "Inventory", security(("bearer" = [])),
    params(("variantId" = String, Path, description = "Id or SKU"), PageQuery),
    responses(
        (status = 200, description = "A page of movements", body = Page<MovementView>),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`variant-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn movements(
    State(state): State<AppState>,
    caller: Caller,
    Path(variant_id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<MovementView>>, ApiError> {
    caller.require_staff()?;
    let (limit, before) = (query.limit()?, query.after::<i64>()?);
    let mut conn = state.pool.acquire().await?;
    let variant_id = find_stock(&mut conn, &variant_id).await?.variant_id;
    let lines = shelf::ledger(&mut conn, variant_id, before, limit + 1).await?;
    Ok(Json(Page::cut(lines, limit, |last| last.id).map(MovementView::from)))
}
