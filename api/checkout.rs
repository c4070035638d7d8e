//! Checkout over HTTP (workflow 2): the POST accepts and answers 202, a run does the rest, the GET tells
//! how it stands.

mod body;

use std::time::Duration;

use axum::{
    Extension,
    extract::{FromRequestParts, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use domain::ids::UserId;
use engine::run::Delivery;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::checkout::status::{self, CheckoutStatus, CheckoutView, Shown};

use self::body::CheckoutBody;
use crate::{
    accepts::{AcceptedView, Reply, Request},
    caller::{Caller, ClientNetwork},
    error::ApiError,
    extract::{CheckedJson, Path, Query},
    idempotency::IdempotencyKey,
    openapi::Problem,
    state::AppState,
    watch::{CheckoutWatch, LONGEST_WAIT_S, Stage},
};

pub(crate) use self::body::AddressBody;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(show, give_up))
        .layer(Extension(CheckoutWatch::default()))
}

/// Who may check out: a user, and where the shop allows it a guest with a cart.
#[derive(Debug)]
pub(crate) enum Buyer {
    User(UserId),
    Guest { session_hash: Vec<u8> },
}

/// Everybody else hears 401 before the body is looked at.
impl FromRequestParts<AppState> for Buyer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match Caller::from_request_parts(parts, state).await? {
            Caller::User { user_id, .. } => Ok(Buyer::User(user_id)),
            Caller::Guest(session) if state.shop.rules.allow_guest_checkout => {
                Ok(Buyer::Guest { session_hash: session.hash.to_vec() })
            }
            Caller::Guest(_) | Caller::Anonymous | Caller::Service { .. } => Err(ApiError::login_required()),
        }
    }
}

/// How a checkout stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CheckoutAnswer {
    workflow_id: Uuid,
    /// RUNNING, WAITING_PAYMENT, COMPLETED, FAILED or CANCELLED.
    status: String,
    /// The step reached last.
    step: Option<String>,
    /// True while an operator looks at it; left out otherwise.
    #[schema(required = false)]
    delayed: bool,
    order_id: Uuid,
    order_number: String,
    /// Once it exists.
    #[schema(value_type = Option<Object>)]
    order: Option<Value>,
    /// What the shopper must do to pay, e.g. `{"type": "REDIRECT", "url": …}`.
    #[schema(value_type = Option<Object>)]
    next_action: Option<Value>,
    /// `{code, detail}` of one that came to nothing.
    #[schema(value_type = Option<Object>)]
    failure: Option<Value>,
    #[schema(value_type = Option<String>, format = "date")]
    estimated_delivery: Option<String>,
    #[serde(rename = "trackingURL")]
    tracking_url: Option<String>,
}

/// Accepts a checkout and starts its run.
#[utoipa::path(
    post, path = "/api/checkout", tag = "Checkout", request_body = CheckoutBody,
    security(("bearer" = []), ("cartSession" = [])),
    params(("Idempotency-Key" = String, Header, description = "The same key and body get the same answer")),
    responses(
        (status = 202, description = "Under way; `Location` tells how it stands", body = AcceptedView),
        (status = 400, description = "`idempotency-key-required`, `malformed-json`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`cart-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`cart-empty`, `out-of-stock`, `price-changed`, `coupon-invalid`, `cart-in-checkout` with `workflowId`, `cart-not-active`, `minimum-order-value`, `cod-limit-exceeded`, `currency-mismatch`, `payment-method-unsupported`, `unpriceable`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `card-data-refused`, `address-not-found`, `contact-missing`, `gateway-unknown`, `quantity-invalid` (more money than an order can hold), `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`, `backlog-full`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn start(
    State(state): State<AppState>,
    buyer: Buyer,
    caller: Caller,
    ClientNetwork(network): ClientNetwork,
    key: IdempotencyKey,
    CheckedJson(body): CheckedJson<CheckoutBody>,
) -> Result<Response, ApiError> {
    let order = body.into_order(buyer, network)?;
    let reply = state.accepts.accept(Request { caller: caller.key()?, key, order }).await?;
    Ok(match reply {
        Reply::Accepted(view) => {
            (StatusCode::ACCEPTED, [(header::LOCATION, location_of(&view))], axum::Json(view)).into_response()
        }
        Reply::Replay(replay) => ([(header::LOCATION, location_of(&replay.body))], replay).into_response(),
    })
}

fn location_of(view: &Value) -> HeaderValue {
    let this = view["links"]["self"].as_str().unwrap_or_default();
    HeaderValue::from_str(this).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What a long poll waits for.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WaitFor {
    /// Through the wait for the payment, too.
    End,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WaitQuery {
    /// Seconds to wait at most until the checkout is no longer RUNNING; 30 at most.
    wait: Option<u64>,
    /// `end`: waits through WAITING_PAYMENT too.
    #[serde(rename = "for")]
    #[param(inline, rename = "for")]
    until: Option<WaitFor>,
}

/// How a checkout stands, now or as soon as there is news.
#[utoipa::path(
    get, path = "/api/checkout/{workflowId}", tag = "Checkout",
    security(("bearer" = []), ("cartSession" = [])),
    params(("workflowId" = Uuid, Path, description = "The run"), WaitQuery),
    responses(
        (status = 200, description = "How it stands", body = CheckoutAnswer),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`checkout-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(
    State(state): State<AppState>,
    Extension(watch): Extension<CheckoutWatch>,
    caller: Caller,
    Path(workflow_id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<axum::Json<CheckoutView>, ApiError> {
    let awaited = match query.until {
        Some(WaitFor::End) => Stage::Ended,
        None => Stage::AwaitsPayment,
    };
    let wait = Duration::from_secs(query.wait.unwrap_or_default().min(LONGEST_WAIT_S));
    let deadline = Instant::now() + wait;
    loop {
        // The poll's own time is no time for a statement.
        let reading = tokio::time::timeout(state.config.request_timeout, visible(&state, &caller, &workflow_id));
        let view = reading.await.map_err(|_| ApiError::timeout())??.view;
        if stage_of(&view) >= awaited || Instant::now() >= deadline {
            return Ok(axum::Json(view));
        }
        if !watch.wait(&state, view.workflow_id, awaited, deadline).await {
            return Ok(axum::Json(view));
        }
    }
}

fn stage_of(view: &CheckoutView) -> Stage {
    match view.status {
        Shown::Completed | Shown::Failed | Shown::Cancelled => Stage::Ended,
        Shown::WaitingPayment => Stage::AwaitsPayment,
        Shown::Running => Stage::Running,
    }
}

/// Gives up a pending checkout: everything it holds goes back. Repeating it is harmless.
#[utoipa::path(
    delete, path = "/api/checkout/{workflowId}", tag = "Checkout",
    security(("bearer" = []), ("cartSession" = [])),
    params(("workflowId" = Uuid, Path, description = "The run")),
    responses(
        (status = 202, description = "It is being undone, or has been", body = CheckoutAnswer),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`checkout-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`checkout-not-cancellable`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn give_up(
    State(state): State<AppState>,
    caller: Caller,
    Path(workflow_id): Path<String>,
) -> Result<(StatusCode, axum::Json<CheckoutView>), ApiError> {
    let found = visible(&state, &caller, &workflow_id).await?;
    if !is_owner(&caller, &found) {
        // Staff may look; they cancel the order or the run, each of which asks for a reason.
        return Err(ApiError::forbidden());
    }
    let mut tx = state.pool.begin().await?;
    let delivery = engine::run::cancel(&mut tx, found.view.workflow_id, "given up by the shopper").await?;
    tx.commit().await?;
    let now = visible(&state, &caller, &workflow_id).await?.view;
    match delivery {
        Delivery::Delivered | Delivery::Duplicate => Ok((StatusCode::ACCEPTED, axum::Json(now))),
        Delivery::Finished if now.status != Shown::Completed => Ok((StatusCode::ACCEPTED, axum::Json(now))),
        Delivery::Finished | Delivery::Refused | Delivery::Invalid => {
            Err(ApiError::conflict("checkout-not-cancellable", "The order is confirmed; cancel the order instead.")
                .with("orderId", now.order_id.to_string()))
        }
        Delivery::Unknown => Err(not_found()),
    }
}

fn not_found() -> ApiError {
    ApiError::not_found("checkout-not-found", "There is no such checkout.")
}

/// The checkout, if it is the caller's or the caller works here.
async fn visible(state: &AppState, caller: &Caller, workflow_id: &str) -> Result<CheckoutStatus, ApiError> {
    match caller {
        Caller::User { .. } | Caller::Guest(_) => {}
        Caller::Anonymous | Caller::Service { .. } => return Err(ApiError::login_required()),
    }
    let workflow_id = Uuid::parse_str(workflow_id).map_err(|_| not_found())?;
    status::read(&state.pool, &state.shop.rules, workflow_id)
        .await?
        .filter(|found| is_owner(caller, found) || caller.is_staff())
        .ok_or_else(not_found)
}

fn is_owner(caller: &Caller, checkout: &CheckoutStatus) -> bool {
    match caller {
        Caller::User { user_id, .. } => checkout.user_id == Some(Uuid::from(*user_id)),
        Caller::Guest(session) => {
            checkout.user_id.is_none() && checkout.session_hash.as_deref() == Some(session.hash.as_slice())
        }
        Caller::Service { .. } | Caller::Anonymous => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use utoipa::PartialSchema as _;
    use workflows::checkout::{accept::Accepted, status::OrderGlance};

    use super::*;

    #[test]
    fn an_accepted_checkout_says_where_to_look() {
        let workflow_id = Uuid::from_u128(7);
        let view = AcceptedView::from(Accepted {
            workflow_id,
            order_id: Uuid::from_u128(8).into(),
            order_number: domain::ids::OrderNumber::from_sequence(1),
            status: Shown::Running,
        });
        let view = serde_json::to_value(view).expect("JSON");
        assert_eq!(
            view,
            json!({
                "workflowId": workflow_id, "status": "RUNNING", "orderId": Uuid::from_u128(8),
                "orderNumber": "ORD0000000018",
                "links": {
                    "self": format!("/api/checkout/{workflow_id}"),
                    "order": format!("/api/orders/{}", Uuid::from_u128(8)),
                    "workflow": format!("/api/workflows/{workflow_id}"),
                }
            })
        );
        assert_eq!(location_of(&view), format!("/api/checkout/{workflow_id}"));
    }

    #[test]
    fn the_document_names_every_field_of_a_checkout() {
        let order = OrderGlance {
            order_id: Uuid::from_u128(8),
            order_number: "ORD0000000018".to_owned(),
            status: "PENDING".to_owned(),
            payment_status: "PENDING".to_owned(),
            total_amount: "1.00".to_owned(),
            currency: "INR".to_owned(),
        };
        let view = CheckoutView {
            workflow_id: Uuid::from_u128(7),
            status: Shown::Running,
            step: None,
            delayed: true,
            order_id: order.order_id,
            order_number: order.order_number.clone(),
            order: Some(order),
            next_action: Some(json!({})),
            failure: Some(json!({})),
            estimated_delivery: None,
            tracking_url: None,
        };
        let names =
            |object: &Value| -> BTreeSet<String> { object.as_object().expect("fields").keys().cloned().collect() };
        let schema = serde_json::to_value(CheckoutAnswer::schema()).expect("JSON");
        assert_eq!(names(&schema["properties"]), names(&serde_json::to_value(view).expect("JSON")));
    }
}
