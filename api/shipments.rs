//! Parcels over HTTP: staff pack them, couriers report on them.

use axum::{extract::State, http::StatusCode, response::Response};
use domain::{notification::ParcelLabel, order::ShipmentStatus, text::line_problem};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::{
    fulfilment,
    store::{orders, orders::LockedOrder},
};

use crate::{
    error::{ApiError, FieldError},
    extract::{Json, Path},
    openapi::Problem,
    orders::{
        OrderChange, ShipmentView,
        pieces::{PiecesBody, pieces},
    },
    state::AppState,
    write::begun,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(ship)).routes(routes!(report))
}

/// Longest courier's name or tracking number, in characters.
const MAX_LABEL_CHARS: usize = 100;

/// A parcel to be packed.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShipmentBody {
    /// What is in it; everything not yet shipped when left out.
    #[serde(default)]
    items: Option<Vec<PiecesBody>>,
    #[schema(min_length = 1, max_length = 100, examples("Blue Dart"))]
    courier_service: String,
    #[schema(min_length = 1, max_length = 100, examples("BD123456789IN"))]
    tracking_number: String,
}

impl ShipmentBody {
    fn label(&self) -> Result<ParcelLabel, ApiError> {
        let mut errors = Vec::new();
        let mut text = |pointer: &str, text: &str| {
            let text = text.trim();
            errors.extend(line_problem(text, MAX_LABEL_CHARS).map(|detail| FieldError::new(pointer, detail)));
            text.to_owned()
        };
        let label = ParcelLabel {
            courier_service: text("/courierService", &self.courier_service),
            tracking_number: text("/trackingNumber", &self.tracking_number),
        };
        if errors.is_empty() { Ok(label) } else { Err(ApiError::invalid(errors)) }
    }
}

/// A parcel, and where its order stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShipmentAnswer {
    order_id: Uuid,
    #[schema(examples("SHIPPED"))]
    order_status: String,
    #[serde(flatten)]
    shipment: ShipmentView,
}

/// Packs a parcel, READY for its courier. A CONFIRMED order goes to PROCESSING first. Staff only.
#[utoipa::path(
    post, path = "/api/orders/{id}/shipments", tag = "Shipments", request_body = ShipmentBody,
    security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or order number"),
        ("If-Match" = Option<String>, Header, description = "The order's ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 201, description = "The parcel", body = ShipmentAnswer),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`order-being-cancelled`, `order-not-shippable`, `nothing-to-ship`, `shipment-exceeds-order` (with `available`)", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`quantity-invalid`, `order-item-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn ship(
    State(state): State<AppState>,
    change: OrderChange,
    Path(id): Path<String>,
    Json(body): Json<ShipmentBody>,
) -> Result<Response, ApiError> {
    change.caller.require_staff()?;
    let label = body.label()?;
    let items = body.items.map(pieces).transpose()?;
    let actor = change.caller.key()?;
    let mut write = begun!(change.begin(&state).await?);
    let (mut order, now) = change.order(&mut write, &id).await?;
    let shipment_id = fulfilment::ship(write.conn(), &mut order, items.as_deref(), &label, &actor, now).await?;
    let answer = answer(write.conn(), &order, shipment_id).await?;
    write.answer(StatusCode::CREATED, &answer).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReportBody {
    /// READY, SHIPPED (it has left), IN_TRANSIT, DELIVERED, RETURNED or LOST.
    #[schema(value_type = String, examples("SHIPPED"))]
    status: ShipmentStatus,
}

/// Says where a parcel is; its order follows. A report that comes late, twice or out of order changes
/// nothing and is answered with what is known. What was in a LOST parcel is written off and paid back; an
/// order of which nothing else is left is cancelled. Staff only.
#[utoipa::path(
    post, path = "/api/shipments/{id}/status", tag = "Shipments", request_body = ReportBody, security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The parcel"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 200, description = "The parcel as it is now", body = ShipmentAnswer),
        (status = 404, description = "`shipment-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`order-being-cancelled`, `order-not-shippable`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn report(
    State(state): State<AppState>,
    change: OrderChange,
    Path(id): Path<String>,
    Json(body): Json<ReportBody>,
) -> Result<Response, ApiError> {
    change.caller.require_staff()?;
    let not_found = || ApiError::not_found("shipment-not-found", "There is no such shipment.");
    let id = Uuid::parse_str(&id).map_err(|_| not_found())?;
    let mut write = begun!(change.begin(&state).await?);
    let now = engine::now(write.conn()).await?;
    let reported = fulfilment::report(write.conn(), id, body.status, now).await?.ok_or_else(not_found)?;
    let answer = answer(write.conn(), &reported.order, id).await?;
    let details = json!({
        "reported": body.status.as_str(), "status": answer.shipment.status(),
        "orderId": answer.order_id, "orderStatus": answer.order_status,
    });
    write.note("shipment.report", &format!("shipment:{id}"), None, &details).await?;
    write.answer(StatusCode::OK, &answer).await
}

async fn answer(conn: &mut PgConnection, order: &LockedOrder, shipment_id: Uuid) -> Result<ShipmentAnswer, ApiError> {
    let order_id = Uuid::from(order.id);
    let mut parts = orders::read::parts(conn, &[order_id]).await?;
    let parcels = parts.parcels.remove(&order_id).unwrap_or_default();
    let parcel = parcels.into_iter().find(|parcel| parcel.id == shipment_id);
    let parcel = parcel.ok_or_else(|| ApiError::internal("a parcel that was just written is not there"))?;
    Ok(ShipmentAnswer { order_id, order_status: order.status.to_string(), shipment: parcel.into() })
}
