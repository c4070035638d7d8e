//! Whether the process is up, whether it can serve, what it counted, and a page that says what this is.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::{error::ApiError, state::AppState};

/// A database that takes longer to say "1" cannot serve.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(front_page))
        .route("/healthz", get(async || axum::Json(json!({ "status": "up" }))))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// 200 while the database answers and nobody asked us to stop. The schema was checked before the
/// listener opened.
async fn ready(State(state): State<AppState>) -> Result<Response, ApiError> {
    if state.is_draining() {
        return Err(ApiError::unavailable("shutting down"));
    }
    let probe = sqlx::query_scalar!(r#"select 1 as "one!""#).fetch_one(&state.pool);
    match tokio::time::timeout(PATIENCE, probe).await {
        Ok(Ok(_)) => Ok(axum::Json(json!({ "status": "ready" })).into_response()),
        Ok(Err(error)) => Err(ApiError::unavailable(error)),
        Err(elapsed) => Err(ApiError::unavailable(elapsed)),
    }
}

/// What this process has counted, and what it last heard from the database: nobody is asked for it here.
async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let Some(metrics) = &state.metrics else {
        return Err(ApiError::not_found("not-found", "This process keeps no metrics."));
    };
    // The version is Prometheus' text format's own.
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response())
}

/// Lets a page of ours style itself, and nothing else.
pub(crate) const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

async fn front_page(State(state): State<AppState>) -> Response {
    let mailbox = if state.dev.is_some() {
        r#"<li><a href="/dev/mailbox">Mailbox</a>: every e-mail the shop would have sent</li>"#
    } else {
        ""
    };
    let page = format!(
        r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>Cart Engine</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}}</style>
<h1>Cart Engine</h1>
<p>Carts, checkout and orders as durable workflows on Postgres.</p>
<ul><li><a href="/docs">API documentation</a> (<a href="/api/openapi.json">OpenAPI</a>)</li>
{mailbox}<li><a href="/healthz">Health</a>, <a href="/readyz">readiness</a></li></ul>"#
    );
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(page)).into_response()
}
