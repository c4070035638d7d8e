//! Saved addresses over HTTP. A checkout names one by `shippingAddressId` or `billingAddressId`.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    address::Address,
    ids::{AddressId, UserId},
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::addresses::{self, MAX_ADDRESSES, SavedAddress};

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

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, forget))
}

/// What an address is for.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum AddressType {
    Shipping,
    Billing,
    #[default]
    Both,
}

impl AddressType {
    const fn as_str(self) -> &'static str {
        match self {
            AddressType::Shipping => "SHIPPING",
            AddressType::Billing => "BILLING",
            AddressType::Both => "BOTH",
        }
    }
}

/// An address to be saved.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewAddress {
    #[schema(max_length = 100, examples("Asha Rao"))]
    recipient_name: String,
    #[schema(max_length = 255, examples("1 Marine Drive"))]
    address_line1: String,
    #[schema(max_length = 255)]
    address_line2: Option<String>,
    #[schema(max_length = 100, examples("Mumbai"))]
    city: String,
    #[schema(max_length = 100, examples("Maharashtra"))]
    state: String,
    #[schema(max_length = 20, examples("400001"))]
    postal_code: String,
    #[schema(max_length = 100, examples("IN"))]
    country: String,
    #[schema(max_length = 20, examples("+919876543210"))]
    phone_number: String,
    /// Replaces the default before; the first address is the default anyway.
    #[serde(default)]
    is_default: bool,
    #[serde(default)]
    address_type: AddressType,
}

/// What changes in an address; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AddressChange {
    #[schema(max_length = 100)]
    recipient_name: Option<String>,
    #[schema(max_length = 255)]
    address_line1: Option<String>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 255)]
    address_line2: Option<Option<String>>,
    #[schema(max_length = 100)]
    city: Option<String>,
    #[schema(max_length = 100)]
    state: Option<String>,
    #[schema(max_length = 20)]
    postal_code: Option<String>,
    #[schema(max_length = 100)]
    country: Option<String>,
    #[schema(max_length = 20)]
    phone_number: Option<String>,
    /// True replaces the default before.
    is_default: Option<bool>,
    address_type: Option<AddressType>,
}

/// Tells null from left out.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A saved address.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AddressView {
    address_id: Uuid,
    #[schema(examples("Asha Rao"))]
    recipient_name: String,
    #[schema(examples("1 Marine Drive"))]
    address_line1: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address_line2: Option<String>,
    #[schema(examples("Mumbai"))]
    city: String,
    #[schema(examples("Maharashtra"))]
    state: String,
    #[schema(examples("400001"))]
    postal_code: String,
    #[schema(examples("IN"))]
    country: String,
    #[schema(examples("+919876543210"))]
    phone_number: String,
    is_default: bool,
    /// SHIPPING, BILLING or BOTH.
    #[schema(examples("BOTH"))]
    address_type: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<SavedAddress> for AddressView {
    fn from(saved: SavedAddress) -> Self {
        let SavedAddress { id, address, is_default, address_type, created_at, updated_at } = saved;
        AddressView {
            address_id: id.into(),
            recipient_name: address.recipient_name,
            address_line1: address.address_line1,
            address_line2: address.address_line2,
            city: address.city,
            state: address.state,
            postal_code: address.postal_code,
            country: address.country,
            phone_number: address.phone_number,
            is_default,
            address_type,
            created_at,
            updated_at,
        }
    }
}

/// The caller's saved addresses, the latest first.
#[utoipa::path(
    get, path = "/api/addresses", tag = "Addresses", security(("bearer" = [])), params(PageQuery),
    responses(
        (status = 200, description = "A page of addresses", body = Page<AddressView>),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<AddressView>>, ApiError> {
    let user_id = caller.require_user()?;
    let (limit, after) = (query.limit()?, query.after::<AddressId>()?);
    let mut conn = state.pool.acquire().await?;
    let found = addresses::list(&mut conn, user_id, after, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| last.id).map(AddressView::from)))
}

/// Saves an address.
#[utoipa::path(
    post, path = "/api/addresses", tag = "Addresses", request_body = NewAddress, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key saves once")),
    responses(
        (status = 201, description = "The address", body = AddressView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`too-many-addresses`: 50 are saved already", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Json(body): Json<NewAddress>,
) -> Result<Response, ApiError> {
    let user_id = caller.require_user()?;
    let address = Address {
        recipient_name: body.recipient_name,
        address_line1: body.address_line1,
        address_line2: body.address_line2,
        city: body.city,
        state: body.state,
        postal_code: body.postal_code,
        country: body.country,
        phone_number: body.phone_number,
    };
    check(&address)?;
    let mut write = begun!(Write::begin(&state, &caller, key).await?);
    let saved = addresses::count_locked(write.conn(), user_id).await?;
    if saved >= MAX_ADDRESSES {
        let detail = format!("At most {MAX_ADDRESSES} addresses can be saved; delete one first.");
        return Err(ApiError::conflict("too-many-addresses", detail));
    }
    let now = engine::now(write.conn()).await?;
    let new = SavedAddress {
        id: AddressId::generate(),
        address,
        is_default: body.is_default || saved == 0,
        address_type: body.address_type.as_str().to_owned(),
        created_at: now,
        updated_at: now,
    };
    addresses::save(write.conn(), user_id, &new).await?;
    let location = format!("/api/addresses/{}", new.id);
    let answer = write.answer(StatusCode::CREATED, &AddressView::from(new)).await?;
    Ok(([(header::LOCATION, location)], answer).into_response())
}

/// One of the caller's saved addresses.
#[utoipa::path(
    get, path = "/api/addresses/{id}", tag = "Addresses", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The address")),
    responses(
        (status = 200, description = "The address", body = AddressView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`address-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<AddressView>, ApiError> {
    let user_id = caller.require_user()?;
    let mut conn = state.pool.acquire().await?;
    Ok(Json(find(&mut conn, user_id, &id).await?.into()))
}

/// Changes a saved address; orders that have it keep theirs.
#[utoipa::path(
    patch, path = "/api/addresses/{id}", tag = "Addresses", request_body = AddressChange, security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The address")),
    responses(
        (status = 200, description = "The address", body = AddressView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`address-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<AddressChange>,
) -> Result<Json<AddressView>, ApiError> {
    let user_id = caller.require_user()?;
    let mut tx = state.pool.begin().await?;
    addresses::count_locked(&mut tx, user_id).await?;
    let before = find(&mut tx, user_id, &id).await?;
    let now = engine::now(&mut *tx).await?;
    let old = before.address;
    let address = Address {
        recipient_name: body.recipient_name.unwrap_or(old.recipient_name),
        address_line1: body.address_line1.unwrap_or(old.address_line1),
        address_line2: body.address_line2.unwrap_or(old.address_line2),
        city: body.city.unwrap_or(old.city),
        state: body.state.unwrap_or(old.state),
        postal_code: body.postal_code.unwrap_or(old.postal_code),
        country: body.country.unwrap_or(old.country),
        phone_number: body.phone_number.unwrap_or(old.phone_number),
    };
    check(&address)?;
    let changed = SavedAddress {
        address,
        is_default: body.is_default.unwrap_or(before.is_default),
        address_type: body.address_type.map_or(before.address_type, |kind| kind.as_str().to_owned()),
        updated_at: now,
        ..before
    };
    addresses::save(&mut tx, user_id, &changed).await?;
    tx.commit().await?;
    Ok(Json(changed.into()))
}

/// Forgets a saved address; orders that have it keep theirs.
#[utoipa::path(
    delete, path = "/api/addresses/{id}", tag = "Addresses", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The address")),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`address-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn forget(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let user_id = caller.require_user()?;
    let id: AddressId = id.parse().map_err(|_| unknown())?;
    let mut conn = state.pool.acquire().await?;
    if addresses::delete(&mut conn, user_id, id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

async fn find(conn: &mut sqlx::PgConnection, user_id: UserId, id: &str) -> Result<SavedAddress, ApiError> {
    let id: AddressId = id.parse().map_err(|_| unknown())?;
    addresses::saved(conn, user_id, id).await?.ok_or_else(unknown)
}

fn check(address: &Address) -> Result<(), ApiError> {
    let errors: Vec<_> =
        address.validate().into_iter().map(|(pointer, detail)| FieldError::new(pointer, detail)).collect();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors)) }
}

fn unknown() -> ApiError {
    ApiError::not_found("address-not-found", "There is no such address of yours.")
}
