//! Development only: the sandbox gateway's view, the mailbox and the clock. These routes do not exist
//! elsewhere, so they ask for no login.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, State},
    http::{header, request::Parts},
    response::{Html, IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    error::{ApiError, FieldError},
    extract::{Json, Query},
    health::PAGE_POLICY,
    openapi::Problem,
    state::{AppState, DevState},
};

/// Farthest the clock may be moved at once: 366 days. It only goes forward.
const MAX_ADVANCE_S: u64 = 366 * 24 * 3600;

/// The sandbox runs beside us; one that has not answered by then is down.
const SANDBOX_PATIENCE: Duration = Duration::from_secs(5);

/// E-mails one answer lists.
const LISTED: i64 = 200;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(payments))
        .routes(routes!(mailbox))
        .routes(routes!(clock))
        .route("/dev/mailbox", axum::routing::get(mailbox_page))
}

/// Present in development only; elsewhere there is nothing here.
struct Dev(Arc<DevState>);

impl FromRequestParts<AppState> for Dev {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        state.dev.clone().map(Dev).ok_or_else(|| ApiError::not_found("not-found", "There is nothing here."))
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct PaymentsQuery {
    /// Of which order.
    order_id: Uuid,
}

/// What the sandbox gateway holds for an order.
#[utoipa::path(
    get, path = "/api/dev/gateway/payments", tag = "Development", params(PaymentsQuery),
    responses(
        (status = 200, description = "`{items: […]}`", body = Object),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn payments(Dev(dev): Dev, Query(query): Query<PaymentsQuery>) -> Result<Json<Value>, ApiError> {
    let answer = dev
        .client
        .get(format!("{}/v1/dev/payments?orderId={}", dev.sandbox_url, query.order_id))
        .timeout(SANDBOX_PATIENCE)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(ApiError::unavailable)?;
    Ok(Json(answer.json().await.map_err(ApiError::unavailable)?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MailboxQuery {
    /// One recipient's only.
    to: Option<String>,
}

/// An e-mail the shop would have sent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MailView {
    id: Uuid,
    to: String,
    subject: String,
    text: String,
    /// Such as `order.confirmed`.
    event: String,
    order_id: Option<Uuid>,
    sent_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
struct Mails {
    items: Vec<MailView>,
}

async fn mails(dev: &DevState, query: &MailboxQuery) -> Result<Vec<MailView>, ApiError> {
    let mails = dev.mailbox.list(query.to.as_deref(), LISTED).await?;
    Ok(mails
        .into_iter()
        .map(|mail| MailView {
            id: mail.id,
            to: mail.to,
            subject: mail.subject,
            text: mail.text,
            event: mail.event,
            order_id: mail.order_id,
            sent_at: mail.sent_at,
        })
        .collect())
}

/// The newest e-mails, 200 at most.
#[utoipa::path(
    get, path = "/api/dev/mailbox", tag = "Development", params(MailboxQuery),
    responses((status = 200, description = "Newest first", body = Mails))
)]
async fn mailbox(Dev(dev): Dev, Query(query): Query<MailboxQuery>) -> Result<Json<Mails>, ApiError> {
    Ok(Json(Mails { items: mails(&dev, &query).await? }))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdvanceBody {
    /// Seconds; at most 366 days' worth.
    #[schema(minimum = 0, maximum = 31_622_400)]
    advance_seconds: u64,
}

#[derive(Serialize, ToSchema)]
struct ClockView {
    /// What timers, holds, carts and schedules see from now on.
    now: DateTime<Utc>,
}

/// Moves the shop's clock forward. Token expiry and workers' heartbeats keep to real time.
#[utoipa::path(
    post, path = "/api/dev/clock", tag = "Development", request_body = AdvanceBody,
    responses(
        (status = 200, description = "The new time", body = ClockView),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn clock(
    _: Dev,
    State(state): State<AppState>,
    Json(body): Json<AdvanceBody>,
) -> Result<Json<ClockView>, ApiError> {
    if body.advance_seconds > MAX_ADVANCE_S {
        let place = FieldError::new("/advanceSeconds", format!("may be at most {MAX_ADVANCE_S}"));
        return Err(ApiError::invalid(vec![place]));
    }
    let now = engine::advance_clock(&state.pool, Duration::from_secs(body.advance_seconds)).await?;
    tracing::warn!(%now, "the development clock was moved");
    Ok(Json(ClockView { now }))
}

async fn mailbox_page(Dev(dev): Dev, Query(query): Query<MailboxQuery>) -> Result<Response, ApiError> {
    let page = page(&mails(&dev, &query).await?);
    Ok(([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(page)).into_response())
}

fn page(mails: &[MailView]) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Mailbox</title>\
         <style>body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}\
         pre{white-space:pre-wrap;background:#f6f6f6;padding:1rem}small{color:#666}</style><h1>Mailbox</h1>",
    );
    if mails.is_empty() {
        page.push_str("<p>No e-mail yet.</p>");
    }
    for mail in mails {
        // Writing into a String cannot fail.
        let _ = write!(
            page,
            "<article><h2>{}</h2><small>to {} · {} · {}</small><pre>{}</pre></article>",
            escape(&mail.subject),
            escape(&mail.to),
            escape(&mail.event),
            mail.sent_at.to_rfc3339(),
            escape(&mail.text)
        );
    }
    page
}

/// What shoppers typed ends up in e-mails: it is text here, never markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shopper_typed_is_shown_as_text() {
        let mail = MailView {
            id: Uuid::nil(),
            to: "a@example.com".to_owned(),
            subject: "<script>alert('x')</script>".to_owned(),
            text: "1 < 2 & \"3\"".to_owned(),
            event: "order.confirmed".to_owned(),
            order_id: None,
            sent_at: DateTime::UNIX_EPOCH,
        };
        let page = page(&[mail]);
        assert!(!page.contains("<script>"));
        assert!(page.contains("1 &lt; 2 &amp; &quot;3&quot;"));
    }
}
