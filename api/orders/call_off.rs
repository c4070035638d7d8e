//! Staff call off pieces that will not be delivered.

use axum::{extract::State, http::StatusCode, response::Response};
use domain::money::{Currency, to_wire};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::fulfilment::call_off;

use super::{
    change::OrderChange,
    pieces::{Pieces, PiecesBody, pieces},
};
use crate::{
    error::ApiError,
    extract::{Json, Path},
    openapi::Problem,
    state::AppState,
    valid::checked_reason,
    write::begun,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(call_off))
}

/// What will not be delivered.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CallOffBody {
    /// Pieces that are in no parcel. When left out: all that have not left, and parcels that wait for their
    /// courier are unpacked.
    #[serde(default)]
    items: Option<Vec<PiecesBody>>,
    /// Whether they are not for sale again.
    #[serde(default)]
    write_off: bool,
    /// For people; 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500, examples("Came back, and cannot be had again"))]
    reason: String,
}

/// What was called off, and where the order stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CallOffAnswer {
    order_id: Uuid,
    #[schema(examples("DELIVERED"))]
    order_status: String,
    items: Vec<Pieces>,
    /// What goes back; 0.00 when nothing had been captured.
    #[schema(examples("59000.00"))]
    refund_amount: String,
    #[schema(examples("INR"))]
    currency: String,
}

/// Calls off pieces that came back or were never sent: they are for sale again or written off, their share of
/// the price goes back or is never collected, and an order of which all else has arrived is DELIVERED. Staff
/// only.
#[utoipa::path(
    post, path = "/api/orders/{id}/call-off", tag = "Orders", request_body = CallOffBody, security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or order number"),
        ("If-Match" = Option<String>, Header, description = "The order's ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 200, description = "Called off; the money is under way", body = CallOffAnswer),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`order-being-cancelled`, `order-not-shippable`, `nothing-to-ship`, `shipment-exceeds-order` (with `available`), `cancellation-required`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`quantity-invalid`, `order-item-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn call_off(
    State(state): State<AppState>,
    change: OrderChange,
    Path(id): Path<String>,
    Json(body): Json<CallOffBody>,
) -> Result<Response, ApiError> {
    change.caller.require_staff()?;
    let CallOffBody { items, write_off, reason } = body;
    let (items, reason) = (items.map(pieces).transpose()?, checked_reason(reason)?);
    let mut write = begun!(change.begin(&state).await?);
    let (mut order, now) = change.order(&mut write, &id).await?;
    let called = call_off::call_off(write.conn(), &mut order, items.as_deref(), write_off, &reason, now).await?;
    let refund_amount = to_wire(called.refund_amount, order.currency.parse().unwrap_or(Currency::INR));
    let answer = CallOffAnswer {
        order_id: order.id.into(),
        order_status: order.status.to_string(),
        items: called.items.into_iter().map(Pieces::from).collect(),
        refund_amount,
        currency: order.currency,
    };
    let details = json!({ "writeOff": write_off, "items": answer.items, "refundAmount": answer.refund_amount });
    write.note("order.call-off", &format!("order:{}", answer.order_id), Some(&reason), &details).await?;
    write.answer(StatusCode::OK, &answer).await
}
