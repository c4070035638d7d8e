//! Carts over HTTP: workflow 1, and the coupons on a cart.

mod answer;
mod visit;

use axum::{extract::State, response::Response};
use domain::{ids::CartId, money::to_wire};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use workflows::cart::{self, Owner};

use self::{
    answer::CartAnswer,
    visit::{Change, Visit},
};
use crate::{
    caller::CartSession,
    error::{ApiError, FieldError},
    extract::{Json, Path},
    openapi::Problem,
    state::AppState,
};

pub(crate) use self::answer::{CouponSaving, PriceBreakdown};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(show, clear))
        .routes(routes!(add_item))
        .routes(routes!(set_quantity, remove_item))
        .routes(routes!(apply_coupon))
        .routes(routes!(remove_coupon))
        .routes(routes!(validate_coupon))
        .routes(routes!(merge))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ItemBody {
    /// The product the variant must belong to: id or SKU.
    #[schema(max_length = 5000)]
    product_id: Option<String>,
    /// Id or SKU.
    #[schema(max_length = 5000)]
    variant_id: String,
    /// Pieces to add.
    #[schema(minimum = 1, maximum = 999)]
    quantity: i64,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct QuantityBody {
    /// Pieces the line shall have; 0 removes it.
    #[schema(minimum = 0, maximum = 999)]
    quantity: i64,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CodeBody {
    /// Upper and lower case are the same.
    #[schema(max_length = 5000, examples("SAVE20"))]
    code: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ValidateBody {
    /// Upper and lower case are the same.
    #[schema(max_length = 5000, examples("SAVE20"))]
    code: String,
    /// The caller's open cart when left out.
    #[schema(value_type = Option<Uuid>)]
    cart_id: Option<CartId>,
}

/// What a code would do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    valid: bool,
    /// What it would save now.
    #[schema(examples("10000.00"))]
    discount: String,
    currency: String,
    /// Why it is not valid, kebab-case.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// The caller's cart at today's prices; a guest's first call also answers the `cartSession` to send from
/// then on as `X-Cart-Session`. A session that was not answered here is none, and gets a new one.
#[utoipa::path(
    get, path = "/api/cart", tag = "Cart", security(("bearer" = []), ("cartSession" = []), ()),
    responses(
        (status = 200, description = "The cart; its version is the ETag", body = CartAnswer),
        (status = 409, description = "`unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(State(state): State<AppState>, visit: Visit) -> Result<Response, ApiError> {
    let view = cart::view(&state.pool, &state.shop, &*state.carts, visit.owner()).await?;
    Ok(visit.answer(&view))
}

/// Takes everything out of the cart, coupons too.
#[utoipa::path(
    delete, path = "/api/cart", tag = "Cart", security(("bearer" = []), ("cartSession" = []), ()),
    params(("If-Match" = Option<String>, Header, description = "The version to change")),
    responses(
        (status = 200, description = "The empty cart", body = CartAnswer),
        (status = 409, description = "`cart-in-checkout` with `workflowId`, `unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`version-mismatch`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn clear(State(state): State<AppState>, visit: Visit) -> Result<Response, ApiError> {
    visit.carry_out(&state, Change::Clear).await
}

/// Adds pieces of a variant to the cart (workflow 1).
#[utoipa::path(
    post, path = "/api/cart/items", tag = "Cart", request_body = ItemBody,
    security(("bearer" = []), ("cartSession" = []), ()),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key adds once"),
        ("If-Match" = Option<String>, Header, description = "The version to change"),
    ),
    responses(
        (status = 200, description = "The cart", body = CartAnswer),
        (status = 404, description = "`variant-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`out-of-stock` with `available`, `cart-in-checkout` with `workflowId`, `too-many-lines`, `currency-mismatch`, `unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`version-mismatch`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`quantity-invalid`, `validation-failed`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn add_item(
    State(state): State<AppState>,
    visit: Visit,
    Json(body): Json<ItemBody>,
) -> Result<Response, ApiError> {
    let ItemBody { product_id, variant_id, quantity } = body;
    visit.carry_out(&state, Change::Add { product: product_id, variant: variant_id, quantity }).await
}

/// Sets the quantity of a line; 0 removes it.
#[utoipa::path(
    patch, path = "/api/cart/items/{variantId}", tag = "Cart", request_body = QuantityBody,
    security(("bearer" = []), ("cartSession" = []), ()),
    params(
        ("variantId" = String, Path, description = "Id or SKU"),
        ("If-Match" = Option<String>, Header, description = "The version to change"),
    ),
    responses(
        (status = 200, description = "The cart", body = CartAnswer),
        (status = 404, description = "`item-not-in-cart`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`out-of-stock` with `available`, `cart-in-checkout` with `workflowId`, `currency-mismatch`, `unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`version-mismatch`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`quantity-invalid`, `validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn set_quantity(
    State(state): State<AppState>,
    visit: Visit,
    Path(variant): Path<String>,
    Json(body): Json<QuantityBody>,
) -> Result<Response, ApiError> {
    visit.carry_out(&state, Change::SetQuantity { variant, quantity: body.quantity }).await
}

/// Takes a variant out of the cart.
#[utoipa::path(
    delete, path = "/api/cart/items/{variantId}", tag = "Cart",
    security(("bearer" = []), ("cartSession" = []), ()),
    params(
        ("variantId" = String, Path, description = "Id or SKU"),
        ("If-Match" = Option<String>, Header, description = "The version to change"),
    ),
    responses(
        (status = 200, description = "The cart", body = CartAnswer),
        (status = 404, description = "`item-not-in-cart`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`cart-in-checkout` with `workflowId`, `unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`version-mismatch`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn remove_item(
    State(state): State<AppState>,
    visit: Visit,
    Path(variant): Path<String>,
) -> Result<Response, ApiError> {
    visit.carry_out(&state, Change::Remove { variant }).await
}

/// Notes a coupon code on the cart.
#[utoipa::path(
    post, path = "/api/cart/coupons", tag = "Cart", request_body = CodeBody,
    security(("bearer" = []), ("cartSession" = []), ()),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key applies once"),
        ("If-Match" = Option<String>, Header, description = "The version to change"),
    ),
    responses(
        (status = 200, description = "The cart", body = CartAnswer),
        (status = 409, description = "`coupon-invalid` with `reason`, `cart-in-checkout` with `workflowId`, `currency-mismatch`, `unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`version-mismatch`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn apply_coupon(
    State(state): State<AppState>,
    visit: Visit,
    Json(body): Json<CodeBody>,
) -> Result<Response, ApiError> {
    visit.carry_out(&state, Change::ApplyCoupon { code: body.code }).await
}

/// Forgets a coupon code; one that is not on the cart is forgotten already.
#[utoipa::path(
    delete, path = "/api/cart/coupons/{code}", tag = "Cart",
    security(("bearer" = []), ("cartSession" = []), ()),
    params(
        ("code" = String, Path, description = "The code"),
        ("If-Match" = Option<String>, Header, description = "The version to change"),
    ),
    responses(
        (status = 200, description = "The cart", body = CartAnswer),
        (status = 409, description = "`cart-in-checkout` with `workflowId`, `unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`version-mismatch`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn remove_coupon(
    State(state): State<AppState>,
    visit: Visit,
    Path(code): Path<String>,
) -> Result<Response, ApiError> {
    visit.carry_out(&state, Change::RemoveCoupon { code }).await
}

/// Takes the guest's cart of `X-Cart-Session` into the logged-in user's: every line of both, as many pieces
/// as there are. Without a cart of the user's it simply becomes his. What does not fit stays in the guest's
/// cart; `adjustments` tells of every line that got fewer pieces than were asked for. Doing it again changes
/// nothing.
#[utoipa::path(
    post, path = "/api/cart/merge", tag = "Cart", security(("bearer" = [], "cartSession" = [])),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key merges once"),
        ("X-Cart-Session" = String, Header, description = "The guest's secret"),
    ),
    responses(
        (status = 200, description = "The user's cart, with `adjustments`", body = CartAnswer),
        (status = 409, description = "`cart-in-checkout` with `workflowId` for either cart, `cart-already-owned` when the session's cart has become another user's, `currency-mismatch`, `unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed` without a session, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn merge(
    State(state): State<AppState>,
    visit: Visit,
    session: Option<CartSession>,
) -> Result<Response, ApiError> {
    let Owner::User(user_id) = *visit.owner() else { return Err(ApiError::login_required()) };
    let session = session.ok_or_else(|| {
        ApiError::invalid(vec![FieldError::new("/X-Cart-Session", "is required: whose cart to merge")])
    })?;
    visit.carry_out(&state, Change::Merge { user_id, session_hash: session.hash.to_vec() }).await
}

/// Tells what a coupon code would do, and changes nothing.
#[utoipa::path(
    post, path = "/api/coupons/validate", tag = "Cart", request_body = ValidateBody,
    security(("bearer" = []), ("cartSession" = []), ()),
    responses(
        (status = 200, description = "Whether it is valid, and what it saves", body = Verdict),
        (status = 409, description = "`unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`cart-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn validate_coupon(
    State(state): State<AppState>,
    visit: Visit,
    Json(body): Json<ValidateBody>,
) -> Result<Json<Verdict>, ApiError> {
    let mut conn = state.pool.acquire().await?;
    let verdict = cart::validate_coupon(&mut conn, &state.shop, visit.owner(), &body.code, body.cart_id).await?;
    Ok(Json(Verdict {
        valid: verdict.rejection.is_none(),
        discount: to_wire(verdict.discount, verdict.currency),
        currency: verdict.currency.to_string(),
        reason: verdict.rejection.map(|rejection| rejection.reason()),
        detail: verdict.rejection.map(|rejection| rejection.to_string()),
    }))
}
