//! Coupons, as staff write them. What a code would do for a cart is answered in `cart`.

mod terms;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use domain::{
    coupon::{Coupon, CouponKind, CouponScope},
    ids::CouponId,
    money::to_wire,
};
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::coupons::terms as store;

use self::terms::{CouponBody, CouponChange, ScopeBody};
use crate::{
    caller::Caller,
    error::{ApiError, FieldError, OnConstraint},
    extract::{Json, Path, Query},
    idempotency::IdempotencyKey,
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
    write::{Write, begun},
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change))
}

/// A coupon.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CouponView {
    coupon_id: Uuid,
    code: String,
    /// PERCENT, FIXED, FREE_SHIPPING or BUY_X_GET_Y.
    #[schema(examples("PERCENT"))]
    kind: &'static str,
    /// Percent, or an amount of `currency`, by kind.
    #[schema(examples("20"))]
    value: String,
    currency: String,
    min_order_value: Option<String>,
    max_discount: Option<String>,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    usage_limit: Option<i32>,
    per_user_limit: Option<i32>,
    /// Uses by confirmed orders.
    used_count: i32,
    /// Uses held by checkouts under way.
    held_count: i32,
    stackable: bool,
    auto_apply: bool,
    scope: ScopeBody,
    buy_quantity: Option<u32>,
    get_quantity: Option<u32>,
    is_active: bool,
}

impl From<Coupon> for CouponView {
    fn from(coupon: Coupon) -> Self {
        let currency = coupon.currency;
        CouponView {
            coupon_id: coupon.id.into(),
            code: coupon.code,
            kind: coupon.kind.as_str(),
            value: match coupon.kind {
                CouponKind::Fixed => to_wire(coupon.value, currency),
                CouponKind::Percent | CouponKind::FreeShipping | CouponKind::BuyXGetY => {
                    coupon.value.normalize().to_string()
                }
            },
            currency: currency.to_string(),
            min_order_value: coupon.min_order_value.map(|amount| to_wire(amount, currency)),
            max_discount: coupon.max_discount.map(|amount| to_wire(amount, currency)),
            starts_at: coupon.starts_at,
            ends_at: coupon.ends_at,
            usage_limit: coupon.usage_limit,
            per_user_limit: coupon.per_user_limit,
            used_count: coupon.current_usage_count,
            held_count: coupon.held_count,
            stackable: coupon.stackable,
            auto_apply: coupon.auto_apply,
            scope: coupon.scope.into(),
            buy_quantity: coupon.buy_quantity,
            get_quantity: coupon.get_quantity,
            is_active: coupon.is_active,
        }
    }
}

fn coupon_not_found() -> ApiError {
    ApiError::not_found("coupon-not-found", "There is no such coupon.")
}

/// The scope by ids, each of which is known.
async fn resolve(conn: &mut PgConnection, scope: ScopeBody) -> Result<CouponScope, ApiError> {
    let unknown = |kind: &str, index: usize, code: &'static str| {
        let place = FieldError::new(format!("/scope/{kind}/{index}"), "is not known");
        ApiError::unprocessable(code, "The scope names something that is not there.").with_errors(vec![place])
    };
    match scope {
        ScopeBody::All => Ok(CouponScope::All),
        ScopeBody::Products(given) => {
            let known = store::find_products(conn, &given).await?;
            let ids = given.iter().enumerate().map(|(index, name)| {
                let given = Uuid::parse_str(name).ok();
                let found = known.iter().find(|(id, sku)| Some(*id) == given || sku == name);
                found.map(|(id, _)| *id).ok_or_else(|| unknown("products", index, "product-not-found"))
            });
            ids.collect::<Result<_, _>>().map(CouponScope::Products)
        }
        ScopeBody::Categories(given) => {
            let known = store::find_categories(conn, &given).await?;
            match given.iter().position(|id| !known.contains(id)) {
                Some(index) => Err(unknown("categories", index, "category-not-found")),
                None => Ok(CouponScope::Categories(given)),
            }
        }
    }
}

/// Every coupon, oldest first.
#[utoipa::path(
    get, path = "/api/coupons", tag = "Coupons", params(PageQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "A page of coupons", body = Page<CouponView>),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<CouponView>>, ApiError> {
    caller.require_staff()?;
    let (limit, after) = (query.limit()?, query.after::<CouponId>()?);
    let coupons = store::list(&mut *state.pool.acquire().await?, after, limit + 1).await?;
    Ok(Json(Page::cut(coupons, limit, |last| last.id).map(CouponView::from)))
}

/// A new coupon.
#[utoipa::path(
    post, path = "/api/coupons", tag = "Coupons", request_body = CouponBody, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key makes one coupon")),
    responses(
        (status = 201, description = "The coupon", body = CouponView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`coupon-code-taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `product-not-found`, `category-not-found`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Json(body): Json<CouponBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let details = json!(body);
    let (mut coupon, scope) = body.into_coupon(CouponId::generate(), state.shop.pricing.policy().currency);
    terms::check(&coupon, &scope)?;
    let mut write = begun!(Write::begin(&state, &caller, key).await?);
    coupon.scope = resolve(write.conn(), scope).await?;
    store::insert(write.conn(), &coupon).await.on_constraint("coupons_code_key", |_| {
        ApiError::conflict("coupon-code-taken", "There is another coupon with this code.")
    })?;
    write.note("coupon.create", &format!("coupon:{}", coupon.id), None, &details).await?;
    write.answer(StatusCode::CREATED, &CouponView::from(coupon)).await
}

/// A coupon, with how often it was used.
#[utoipa::path(
    get, path = "/api/coupons/{code}", tag = "Coupons", security(("bearer" = [])),
    params(("code" = String, Path, description = "Code or id")),
    responses(
        (status = 200, description = "The coupon", body = CouponView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`coupon-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path(code): Path<String>,
) -> Result<Json<CouponView>, ApiError> {
    caller.require_staff()?;
    let coupon = store::find(&mut *state.pool.acquire().await?, &code).await?.ok_or_else(coupon_not_found)?;
    Ok(Json(CouponView::from(coupon)))
}

/// Changes a coupon for every checkout from now on; what is used or held stays. Its code and kind are for
/// good: orders name them.
#[utoipa::path(
    patch, path = "/api/coupons/{code}", tag = "Coupons", request_body = CouponChange, security(("bearer" = [])),
    params(("code" = String, Path, description = "Code or id")),
    responses(
        (status = 200, description = "The coupon", body = CouponView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`coupon-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`usage-limit-too-low`: more is used and held, see `inUse`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `product-not-found`, `category-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(code): Path<String>,
    Json(body): Json<CouponChange>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let details = json!(body);
    let mut write = Write::once(&state, &caller).await?;
    let coupon = store::lock(write.conn(), &code).await?.ok_or_else(coupon_not_found)?;
    let (mut coupon, scope) = body.applied_to(coupon);
    terms::check(&coupon, &scope)?;
    coupon.scope = resolve(write.conn(), scope).await?;
    let in_use = i64::from(coupon.current_usage_count) + i64::from(coupon.held_count);
    if coupon.usage_limit.is_some_and(|limit| i64::from(limit) < in_use) {
        let detail = format!("It is used and held {in_use} times already.");
        return Err(ApiError::conflict("usage-limit-too-low", detail).with("inUse", in_use));
    }
    store::save(write.conn(), &coupon).await?;
    write.note("coupon.change", &format!("coupon:{}", coupon.id), None, &details).await?;
    write.answer(StatusCode::OK, &CouponView::from(coupon)).await
}
