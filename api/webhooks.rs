//! What gateways tell us. Authenticity is checked on the raw bytes; what follows is one short
//! transaction that keeps the event and hands it to the run that waits for it.

use axum::{
    Json,
    extract::{Request, State},
    http::HeaderMap,
};
use chrono::Utc;
use domain::ports::{Webhook, WebhookError};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use workflows::checkout::webhook;

use crate::{
    error::ApiError,
    extract::{Path, read_body},
    openapi::Problem,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(receive))
}

/// What became of an event.
#[derive(Serialize, ToSchema)]
struct Receipt {
    /// SIGNALLED, STARTED_REFUND, COMPARED, BOOKED, IGNORED, REFUSED, UNMATCHED, UNREADABLE or DUPLICATE.
    outcome: &'static str,
}

/// Takes a gateway's webhook. Whatever is rightly signed is kept, whether it is understood or not; and what was
/// delivered once is answered 200 ever after.
#[utoipa::path(
    post, path = "/api/webhooks/{gateway}", tag = "Payments",
    params(("gateway" = String, Path, description = "stripe, razorpay, paypal or sandbox")),
    request_body(content = Object, description = "As the gateway signed it"),
    responses(
        (status = 200, description = "Kept", body = Receipt),
        (status = 400, description = "`bad-signature`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`gateway-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be checked now", body = Problem, content_type = "application/problem+json"),
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
    let name = gateway.name();
    let verified = gateway.verify_webhook(&headers, &body, Utc::now()).await;
    let signed = verified.map_err(|error| refused(name, error))?;
    let raw = as_it_came(&body);
    let mut tx = state.pool.begin().await?;
    let (event_id, outcome) = match &signed {
        Webhook::Event(event) => (&event.event_id, webhook::keep(&mut tx, name, event, &raw).await?),
        Webhook::Unreadable { event_id, why } => {
            tracing::warn!(gateway = name, event_id, why, "a webhook that nobody understands; kept");
            let is_new = webhook::keep_unreadable(&mut tx, name, event_id, why, &raw).await?;
            (event_id, is_new.then_some(webhook::UNREADABLE))
        }
    };
    tx.commit().await?;
    let outcome = outcome.unwrap_or("DUPLICATE");
    tracing::info!(gateway = name, event_id, outcome, "webhook received");
    Ok(Json(Receipt { outcome }))
}

/// Who may not believe a webhook says so where an operator looks: with a wrong secret none of a gateway's gets in, and
/// the gateway alone would know. Anybody can forge one, so nobody is written to.
fn refused(gateway: &'static str, error: WebhookError) -> ApiError {
    match error {
        WebhookError::BadSignature | WebhookError::TooOld => {
            metrics::counter!("cart_engine_webhooks_refused_total", "gateway" => gateway).increment(1);
            tracing::warn!(gateway, why = %error, "a webhook was refused");
            ApiError::bad_request("bad-signature", "The webhook is not authentic, or too old.").caused_by(error)
        }
        WebhookError::Unavailable(_) => ApiError::unavailable(error),
    }
}

/// The body as JSON, or else its text: also of what no JSON of Postgres' holds.
fn as_it_came(body: &[u8]) -> Value {
    let text = String::from_utf8_lossy(body).replace('\0', "\u{fffd}");
    let json = if text.contains("\\u0000") { None } else { serde_json::from_str(&text).ok() };
    json.unwrap_or(Value::String(text))
}

/// Header values that are not text cannot be part of a signature scheme.
fn named_values(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_is_not_believed_is_counted_for_its_gateway_and_what_cannot_be_checked_is_not() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            for (gateway, error, status) in [
                ("paypal", WebhookError::BadSignature, 400),
                ("paypal", WebhookError::TooOld, 400),
                ("stripe", WebhookError::BadSignature, 400),
                ("razorpay", WebhookError::Unavailable("silent".to_owned()), 503),
            ] {
                assert_eq!(refused(gateway, error).status().as_u16(), status);
            }
        });
        let page = recorder.handle().render();
        let counted: Vec<&str> = page.lines().filter(|line| line.starts_with("cart_engine_webhooks_refused")).collect();
        assert_eq!(counted.len(), 2, "{page}");
        for line in [
            "cart_engine_webhooks_refused_total{gateway=\"paypal\"} 2",
            "cart_engine_webhooks_refused_total{gateway=\"stripe\"} 1",
        ] {
            assert!(counted.contains(&line), "{page}");
        }
    }
}
