//! Stock that other services of the shop hold, without an order.

use std::collections::{BTreeMap, HashMap};

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::VariantId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::inventory::services::{self, Let};

use super::variant_not_found;
use crate::{
    caller::{Caller, Scope},
    error::{ApiError, FieldError},
    extract::Json,
    idempotency::IdempotencyKey,
    openapi::Problem,
    state::AppState,
    write::{Write, begun},
};

/// Most items of one reservation.
const MAX_ITEMS: usize = 200;

/// Longest a service may hold stock, in seconds.
const LONGEST_HOLD_S: i64 = 3_600;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(reserve)).routes(routes!(release))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReserveBody {
    /// 1 to 200; the same variant twice counts as both together.
    #[schema(min_items = 1, max_items = 200)]
    items: Vec<ReserveItem>,
    /// Seconds until the hold ends by itself, 1 to 3600.
    #[schema(minimum = 1, maximum = 3600, examples(600))]
    ttl_seconds: i64,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReserveItem {
    /// Id or SKU.
    #[schema(examples("LAP-001"))]
    variant_id: String,
    #[schema(minimum = 1, maximum = 999, examples(2))]
    quantity: i64,
}

/// A service's hold.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Reservation {
    reservation_id: Uuid,
    /// From then on the stock is everybody's again.
    expires_at: DateTime<Utc>,
}

/// Holds stock for another service: all of it, or nothing.
#[utoipa::path(
    post, path = "/api/inventory/reserve", tag = "Inventory", request_body = ReserveBody, security(("apiKey" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key reserves once")),
    responses(
        (status = 201, description = "Held", body = Reservation),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: no key with the scope `inventory`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`variant-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`out-of-stock` with `available` and `lines`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `quantity-invalid`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn reserve(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Json(body): Json<ReserveBody>,
) -> Result<Response, ApiError> {
    let api_key_id = caller.require_scope(Scope::Inventory)?;
    let ReserveBody { items, ttl_seconds } = body;
    refuse_odd(&items, ttl_seconds)?;
    let mut write = begun!(Write::begin(&state, &caller, key).await?);
    let names: Vec<String> = items.iter().map(|item| item.variant_id.clone()).collect();
    let found = services::find_variants(write.conn(), &names).await?;
    let mut by_name: HashMap<String, VariantId> = HashMap::new();
    for named in &found {
        by_name.insert(named.variant_id.to_string(), named.variant_id);
        by_name.insert(named.sku.clone(), named.variant_id);
    }
    let mut units: BTreeMap<VariantId, i32> = BTreeMap::new();
    for item in &items {
        let name = Uuid::parse_str(&item.variant_id).map_or_else(|_| item.variant_id.clone(), |id| id.to_string());
        let variant_id = by_name.get(&name).ok_or_else(|| variant_not_found().with("variantId", name))?;
        // At most 200 × 999.
        *units.entry(*variant_id).or_default() += i32::try_from(item.quantity).unwrap_or(i32::MAX);
    }
    let now = engine::now(write.conn()).await?;
    let reservation = Reservation { reservation_id: Uuid::now_v7(), expires_at: now + TimeDelta::seconds(ttl_seconds) };
    let Reservation { reservation_id, expires_at } = reservation;
    let short = services::reserve(write.conn(), reservation_id, api_key_id, &units, now, expires_at).await?;
    if let Some(first) = short.first() {
        let sku = |id| found.iter().find(|named| named.variant_id == id).map(|named| named.sku.as_str());
        let lines: Vec<_> = short
            .iter()
            .map(|short| {
                let (id, available) = (short.variant_id, short.available);
                json!({ "variantId": id, "sku": sku(id), "requested": units.get(&id), "available": available })
            })
            .collect();
        return Err(ApiError::conflict("out-of-stock", "Out of stock")
            .with("available", first.available)
            .with("lines", lines));
    }
    write.answer(StatusCode::CREATED, &reservation).await
}

fn refuse_odd(items: &[ReserveItem], ttl_seconds: i64) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    if !(1..=MAX_ITEMS).contains(&items.len()) {
        errors.push(FieldError::new("/items", format!("must have 1 to {MAX_ITEMS} items")));
    }
    if !(1..=LONGEST_HOLD_S).contains(&ttl_seconds) {
        errors.push(FieldError::new("/ttlSeconds", format!("must be 1 to {LONGEST_HOLD_S}")));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let most = i64::from(domain::cart::MAX_QUANTITY);
    let odd = items.iter().enumerate().filter(|(_, item)| !(1..=most).contains(&item.quantity));
    let errors: Vec<FieldError> = odd
        .map(|(index, _)| FieldError::new(format!("/items/{index}/quantity"), format!("must be 1 to {most}")))
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::unprocessable("quantity-invalid", "That is no quantity.").with_errors(errors))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReleaseBody {
    reservation_id: Uuid,
}

/// What became of a service's hold.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Released {
    reservation_id: Uuid,
    /// RELEASED, or EXPIRED when its time had run out before.
    status: &'static str,
}

/// Gives back what a service holds. Releasing twice is harmless.
#[utoipa::path(
    post, path = "/api/inventory/release", tag = "Inventory", request_body = ReleaseBody, security(("apiKey" = [])),
    responses(
        (status = 200, description = "Given back", body = Released),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: no key with the scope `inventory`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`reservation-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn release(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<ReleaseBody>,
) -> Result<Json<Released>, ApiError> {
    let api_key_id = caller.require_scope(Scope::Inventory)?;
    let mut tx = state.pool.begin().await?;
    let now = engine::now(&mut *tx).await?;
    let left = services::release(&mut tx, body.reservation_id, api_key_id, now)
        .await?
        .ok_or_else(|| ApiError::not_found("reservation-not-found", "There is no such reservation."))?;
    tx.commit().await?;
    let status = match left {
        Let::Released => "RELEASED",
        Let::Expired => "EXPIRED",
    };
    Ok(Json(Released { reservation_id: body.reservation_id, status }))
}
