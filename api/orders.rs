//! Orders over HTTP, for reading.

mod answer;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::orders_read::{self, HistoryEntry, OrderHead};

use self::answer::OrderView;
use crate::{
    caller::Caller,
    error::ApiError,
    etag::etag,
    extract::{Json, Path, Query},
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(history))
}

/// One step of an order's life.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HistoryItem {
    /// Null for the first.
    from_status: Option<String>,
    to_status: String,
    changed_by: String,
    change_reason: Option<String>,
    changed_at: DateTime<Utc>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

/// Every step of an order's life, oldest first.
#[derive(Serialize, ToSchema)]
struct HistoryAnswer {
    items: Vec<HistoryItem>,
}

impl From<HistoryEntry> for HistoryItem {
    fn from(entry: HistoryEntry) -> Self {
        let HistoryEntry { from_status, to_status, changed_by, change_reason, changed_at, metadata } = entry;
        HistoryItem { from_status, to_status, changed_by, change_reason, changed_at, metadata }
    }
}

/// The caller's own orders, newest first.
#[utoipa::path(
    get, path = "/api/orders", tag = "Orders", security(("bearer" = [])), params(PageQuery),
    responses(
        (status = 200, description = "A page of orders", body = Page<OrderView>),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<OrderView>>, ApiError> {
    let user_id = caller.require_user()?;
    let (limit, after) = (query.limit()?, query.after::<(DateTime<Utc>, OrderId)>()?);
    let mut conn = state.pool.acquire().await?;
    let heads = orders_read::list(&mut conn, user_id, after, limit + 1).await?;
    let page = Page::cut(heads, limit, |last| (last.order_date, last.id));
    let ids: Vec<Uuid> = page.items.iter().map(|order| order.id).collect();
    let mut parts = orders_read::parts(&mut conn, &ids).await?;
    Ok(Json(page.map(|head| OrderView::new(head, &mut parts))))
}

/// One order, by id or by number.
#[utoipa::path(
    get, path = "/api/orders/{id}", tag = "Orders", security(("bearer" = []), ("cartSession" = [])),
    params(("id" = String, Path, description = "Id or order number")),
    responses(
        (status = 200, description = "The order; its last change is the ETag", body = OrderView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let head = visible(&state, &caller, &id).await?;
    let mut conn = state.pool.acquire().await?;
    let mut parts = orders_read::parts(&mut conn, &[head.id]).await?;
    let version = head.updated_at.timestamp_micros();
    Ok(([(header::ETAG, etag(version))], axum::Json(OrderView::new(head, &mut parts))).into_response())
}

/// How an order came to where it stands.
#[utoipa::path(
    get, path = "/api/orders/{id}/history", tag = "Orders", security(("bearer" = []), ("cartSession" = [])),
    params(("id" = String, Path, description = "Id or order number")),
    responses(
        (status = 200, description = "Every change of status, oldest first", body = HistoryAnswer),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn history(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<HistoryAnswer>, ApiError> {
    let head = visible(&state, &caller, &id).await?;
    let mut conn = state.pool.acquire().await?;
    let entries = orders_read::history(&mut conn, head.id.into()).await?;
    Ok(Json(HistoryAnswer { items: entries.into_iter().map(HistoryItem::from).collect() }))
}

/// The order, if it is the caller's or the caller works here.
async fn visible(state: &AppState, caller: &Caller, id: &str) -> Result<OrderHead, ApiError> {
    match caller {
        Caller::User { .. } | Caller::Guest(_) => {}
        Caller::Anonymous | Caller::Service { .. } => return Err(ApiError::login_required()),
    }
    let mut conn = state.pool.acquire().await?;
    orders_read::find(&mut conn, id)
        .await?
        .filter(|order| is_owner(caller, order) || caller.is_staff())
        .ok_or_else(|| ApiError::not_found("order-not-found", "There is no such order."))
}

fn is_owner(caller: &Caller, order: &OrderHead) -> bool {
    match caller {
        Caller::User { user_id, .. } => order.user_id == Some(Uuid::from(*user_id)),
        Caller::Guest(session) => {
            order.user_id.is_none() && order.session_hash.as_deref() == Some(session.hash.as_slice())
        }
        Caller::Service { .. } | Caller::Anonymous => false,
    }
}
