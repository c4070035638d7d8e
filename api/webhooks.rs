//! What gateways tell us. Authenticity is checked on the raw bytes; what follows is one short
//! transaction that keeps the event and hands it to the run that waits for it.

use axum::{
    Json,
    extract::{Request, State},
    http::HeaderMap,
};
use chrono::Utc;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    extract::{Path, read_body},
    openapi::Problem,
    state::AppState,
};

mod inbox;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(receive))
}

/// What became of an event.
#[derive(Serialize, ToSchema)]
struct Receipt {
    /// SIGNALLED, STARTED_REFUND, IGNORED or DUPLICATE.
    outcome: &'static str,
}

/// Takes a gateway's webhook. Whatever was delivered once is answered 200 ever after.
#[utoipa::path(
    post, path = "/api/webhooks/{gateway}", tag = "Payments",
    params(("gateway" = String, Path, description = "stripe, razorpay, paypal or sandbox")),
    request_body(content = Object, description = "As the gateway signed it"),
    responses(
        (status = 200, description = "Kept", body = Receipt),
        (status = 400, description = "`bad-signature`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`gateway-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn receive(
    State(state): State<AppState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Receipt>, ApiError> {
    let Some(gateway) = state.shop.gateway(&name) else {
        return Err(ApiError::not_found("gateway-not-found", "There is no such gateway."));
    };
    let headers = named_values(request.headers());
    let body = read_body(request, &state).await?;
    let event = gateway.verify_webhook(&headers, &body, Utc::now()).map_err(|error| {
        ApiError::bad_request("bad-signature", "The webhook is not authentic, or too old.").caused_by(error)
    })?;
    // It was verified and understood, so it is JSON; should a gateway ever differ, its text is kept.
    let raw = serde_json::from_slice(&body).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body)));

    let mut tx = state.pool.begin().await?;
    if !inbox::keep(&mut tx, gateway.name(), &event, &raw).await? {
        return Ok(Json(Receipt { outcome: "DUPLICATE" }));
    }
    let outcome = workflows::checkout::webhook::receive(&mut tx, gateway.name(), &event).await?;
    inbox::record_outcome(&mut tx, gateway.name(), &event.event_id, outcome).await?;
    tx.commit().await?;
    tracing::info!(gateway = gateway.name(), event_id = event.event_id, outcome, "webhook received");
    Ok(Json(Receipt { outcome }))
}

/// Header values that are not text cannot be part of a signature scheme.
fn named_values(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect()
}
