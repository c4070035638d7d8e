//! Returns over HTTP: customers ask, staff decide.

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use domain::{ids::OrderId, money::to_wire};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::{
    order_return::desk::{self, Decision, ReturnRefusal},
    store::returns::{self, ReturnHead},
};

use crate::{
    caller::Caller,
    error::ApiError,
    extract::{Json, Path},
    openapi::Problem,
    orders::{
        self, OrderChange,
        pieces::{Pieces, PiecesBody, pieces, unknown_line},
    },
    state::AppState,
    valid::{checked_reason, optional_reason},
    write::begun,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(request, list))
        .routes(routes!(approve))
        .routes(routes!(receive))
        .routes(routes!(reject))
}

/// What the customer wants to send back.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReturnBody {
    items: Vec<PiecesBody>,
    #[schema(min_length = 1, max_length = 500, examples("The screen has a dead pixel"))]
    reason: String,
}

/// Goods that come back.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReturnView {
    return_id: Uuid,
    order_id: Uuid,
    /// The run that settles it.
    workflow_id: Uuid,
    /// REQUESTED, APPROVED, RECEIVED, REFUNDED or REJECTED.
    #[schema(examples("REQUESTED"))]
    status: String,
    items: Vec<Pieces>,
    reason: String,
    /// What the staff said.
    note: Option<String>,
    /// What goes back, once the goods are here: exactly the lines' share of what they cost.
    #[schema(examples("59000.00"))]
    refund_amount: Option<String>,
    #[schema(examples("INR"))]
    currency: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// Every return of an order, oldest first.
#[derive(Serialize, ToSchema)]
struct ReturnsAnswer {
    items: Vec<ReturnView>,
}

impl From<ReturnHead> for ReturnView {
    fn from(head: ReturnHead) -> Self {
        ReturnView {
            return_id: head.id,
            order_id: head.order_id.into(),
            workflow_id: head.run_id,
            status: head.status.to_string(),
            items: head.items.into_iter().map(Pieces::from).collect(),
            reason: head.reason,
            note: head.note,
            refund_amount: head.refund_amount.map(|amount| to_wire(amount, head.currency)),
            currency: head.currency.to_string(),
            created_at: head.created_at,
            updated_at: head.updated_at,
        }
    }
}

/// Asks for pieces of a delivered order to be taken back. Its owner or staff.
#[utoipa::path(
    post, path = "/api/orders/{id}/returns", tag = "Returns", request_body = ReturnBody,
    security(("bearer" = []), ("cartSession" = [])),
    params(
        ("id" = String, Path, description = "Id or order number"),
        ("If-Match" = Option<String>, Header, description = "The order's ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 201, description = "It is asked for; staff decide", body = ReturnView),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`order-not-returnable`, `return-exceeds-delivered` (with `available`)", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`quantity-invalid`, `order-item-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn request(
    State(state): State<AppState>,
    change: OrderChange,
    Path(id): Path<String>,
    Json(body): Json<ReturnBody>,
) -> Result<Response, ApiError> {
    let order = orders::visible(&state, &change.caller, &id).await?;
    let reason = checked_reason(body.reason)?;
    let items = pieces(body.items)?;
    let mut write = begun!(change.begin(&state).await?);
    let order = change.lock(&mut write, OrderId::from(order.id)).await?;
    let now = engine::now(write.conn()).await?;
    let return_id = desk::request(write.conn(), &state.shop.rules, &order, &items, &reason, now).await?;
    let head = returns::find(write.conn(), return_id).await?.ok_or(ReturnRefusal::NotFound)?;
    write.answer(StatusCode::CREATED, &ReturnView::from(head)).await
}

/// The returns of an order, oldest first; at most one for each piece of it. Its owner or staff.
#[utoipa::path(
    get, path = "/api/orders/{id}/returns", tag = "Returns", security(("bearer" = []), ("cartSession" = [])),
    params(("id" = String, Path, description = "Id or order number")),
    responses(
        (status = 200, description = "All of them", body = ReturnsAnswer),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ReturnsAnswer>, ApiError> {
    let order = orders::visible(&state, &caller, &id).await?;
    let mut conn = state.pool.acquire().await?;
    let heads = returns::of_order(&mut conn, order.id.into()).await?;
    Ok(Json(ReturnsAnswer { items: heads.into_iter().map(ReturnView::from).collect() }))
}

/// What the staff say to the customer.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReturnDecision {
    #[schema(max_length = 500, examples("Send it to the address on the parcel"))]
    #[serde(default)]
    reason: Option<String>,
}

/// Lets the goods come. Staff only; twice is harmless.
#[utoipa::path(
    post, path = "/api/returns/{id}/approve", tag = "Returns", request_body = Option<ReturnDecision>,
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The return"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 200, description = "The return as it is now", body = ReturnView),
        (status = 404, description = "`return-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`invalid-transition`, `return-withdrawn`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn approve(
    State(state): State<AppState>,
    change: OrderChange,
    Path(id): Path<String>,
    body: Option<Json<ReturnDecision>>,
) -> Result<Response, ApiError> {
    decide(&state, change, &id, body, Decision::Approve).await
}

/// Notes that the goods are here: they are for sale again, and the customer is paid back. Staff only;
/// twice is harmless.
#[utoipa::path(
    post, path = "/api/returns/{id}/receive", tag = "Returns", request_body = Option<ReturnDecision>,
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The return"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 200, description = "The return as it is now; REFUNDED follows", body = ReturnView),
        (status = 404, description = "`return-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`invalid-transition`, `return-withdrawn`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn receive(
    State(state): State<AppState>,
    change: OrderChange,
    Path(id): Path<String>,
    body: Option<Json<ReturnDecision>>,
) -> Result<Response, ApiError> {
    decide(&state, change, &id, body, Decision::Receive).await
}

/// Refuses a return that was asked for, or what arrived for it. Staff only; twice is harmless.
#[utoipa::path(
    post, path = "/api/returns/{id}/reject", tag = "Returns", request_body = Option<ReturnDecision>,
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The return"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 200, description = "The return as it is now", body = ReturnView),
        (status = 404, description = "`return-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`invalid-transition`, `return-withdrawn`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn reject(
    State(state): State<AppState>,
    change: OrderChange,
    Path(id): Path<String>,
    body: Option<Json<ReturnDecision>>,
) -> Result<Response, ApiError> {
    decide(&state, change, &id, body, Decision::Reject).await
}

async fn decide(
    state: &AppState,
    change: OrderChange,
    id: &str,
    body: Option<Json<ReturnDecision>>,
    decision: Decision,
) -> Result<Response, ApiError> {
    change.caller.require_staff()?;
    let id = Uuid::parse_str(id).map_err(|_| ReturnRefusal::NotFound)?;
    let body = body.map(|Json(body)| body).unwrap_or_default();
    let note = optional_reason(body.reason)?;
    let mut write = begun!(change.begin(state).await?);
    let now = engine::now(write.conn()).await?;
    let view = ReturnView::from(desk::decide(write.conn(), id, decision, note.as_deref(), now).await?);
    let action = match decision {
        Decision::Approve => "return.approve",
        Decision::Receive => "return.receive",
        Decision::Reject => "return.reject",
    };
    let details = json!({ "orderId": view.order_id, "status": view.status, "refundAmount": view.refund_amount });
    write.note(action, &format!("return:{id}"), note.as_deref(), &details).await?;
    write.answer(StatusCode::OK, &view).await
}

impl From<ReturnRefusal> for ApiError {
    fn from(refusal: ReturnRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            ReturnRefusal::NotReturnable(status) => {
                ApiError::conflict("order-not-returnable", detail).with("orderStatus", status.as_str())
            }
            ReturnRefusal::UnknownLine { position } => unknown_line(position),
            ReturnRefusal::TooMany { order_item_id, sku: _, left } => {
                ApiError::conflict("return-exceeds-delivered", detail)
                    .with("orderItemId", order_item_id.to_string())
                    .with("available", left)
            }
            ReturnRefusal::NotFound => ApiError::not_found("return-not-found", detail),
            ReturnRefusal::Invalid(_) => ApiError::conflict("invalid-transition", detail),
            ReturnRefusal::Withdrawn => ApiError::conflict("return-withdrawn", detail),
            ReturnRefusal::Database(error) => error.into(),
        }
    }
}
