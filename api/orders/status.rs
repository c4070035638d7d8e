//! Staff move an order along its way.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::Response,
};
use domain::order::OrderStatus;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use workflows::{
    fulfilment::{self, StaffRefusal},
    store::{
        orders,
        orders::{By, MoveError},
    },
};

use super::{
    answer::OrderView,
    change::{BEING_CANCELLED, OrderChange, order_not_found},
};
use crate::{
    error::ApiError,
    etag::etag,
    extract::{Json, Path},
    openapi::Problem,
    state::AppState,
    valid::optional_reason,
    write::begun,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(move_to))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StatusBody {
    /// PROCESSING, SHIPPED or DELIVERED; the others are reached by paying, cancelling and returning.
    #[schema(value_type = String, examples("PROCESSING"))]
    status: OrderStatus,
    /// For the order's history.
    #[schema(max_length = 500, examples("packed by hand"))]
    #[serde(default)]
    reason: Option<String>,
}

/// Moves an order to a status that its present one leads to; one with parcels is SHIPPED and DELIVERED by
/// them. Staff only.
#[utoipa::path(
    post, path = "/api/orders/{id}/status", tag = "Orders", request_body = StatusBody, security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or order number"),
        ("If-Match" = Option<String>, Header, description = "The order's ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 200, description = "The order as it is now", body = OrderView),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`order-being-cancelled`, `invalid-transition`, `order-in-checkout`, `cancellation-required`, `return-required`, `parcels-decide`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn move_to(
    State(state): State<AppState>,
    change: OrderChange,
    Path(id): Path<String>,
    Json(body): Json<StatusBody>,
) -> Result<Response, ApiError> {
    change.caller.require_staff()?;
    let reason = optional_reason(body.reason)?;
    let actor = change.caller.key()?;
    let mut write = begun!(change.begin(&state).await?);
    let (mut order, now) = change.order(&mut write, &id).await?;
    let by = By { actor: &actor, reason: reason.as_deref(), metadata: None };
    fulfilment::staff_move(write.conn(), &mut order, body.status, by, now)
        .await
        .map_err(|refusal| refuse(refusal, &id))?;
    let moved = orders::read::find(write.conn(), &id).await?.ok_or_else(order_not_found)?;
    let version = moved.updated_at.timestamp_micros();
    let mut parts = orders::read::parts(write.conn(), &[moved.id]).await?;
    let mut response = write.answer(StatusCode::OK, &OrderView::new(moved, &mut parts)).await?;
    response.headers_mut().insert(header::ETAG, etag(version));
    Ok(response)
}

fn refuse(refusal: StaffRefusal, id: &str) -> ApiError {
    let detail = refusal.to_string();
    match refusal {
        StaffRefusal::Move(MoveError::Invalid(_)) => ApiError::conflict("invalid-transition", detail),
        StaffRefusal::Move(MoveError::BeingCancelled) => ApiError::conflict(BEING_CANCELLED, detail),
        StaffRefusal::Move(MoveError::Database(error)) => error.into(),
        StaffRefusal::InCheckout => ApiError::conflict("order-in-checkout", detail),
        StaffRefusal::IsCancellation => {
            ApiError::conflict("cancellation-required", detail).with("cancel", format!("/api/orders/{id}/cancel"))
        }
        StaffRefusal::FollowsParcels => ApiError::conflict("parcels-decide", detail),
        StaffRefusal::NeedsReturn => {
            ApiError::conflict("return-required", detail).with("returns", format!("/api/orders/{id}/returns"))
        }
    }
}
