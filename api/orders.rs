//! Orders over HTTP: reading them here, each change in a file of its own.

mod answer;
mod call_off;
mod cancel;
mod change;
pub(crate) mod pieces;
mod status;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    ids::{OrderId, UserId},
    order::OrderStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::{
    disputes,
    orders::{
        self,
        read::{HistoryEntry, OrderFilter, OrderHead},
    },
};

use self::answer::OrderView;
pub(crate) use self::{
    answer::ShipmentView,
    change::{OrderChange, order_not_found},
};
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
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(history))
        .merge(status::routes())
        .merge(cancel::routes())
        .merge(call_off::routes())
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

/// Which orders a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OrdersQuery {
    /// Orders wanted, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// Only those in this status.
    #[param(value_type = Option<String>, example = "CONFIRMED")]
    status: Option<OrderStatus>,
    /// Only the one with this number.
    #[param(example = "ORD0000000018")]
    number: Option<String>,
    /// Staff: only this user's.
    #[param(value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    /// Staff: only those that are written about to this address, in upper or lower case.
    #[param(example = "asha@example.com")]
    email: Option<String>,
}

impl OrdersQuery {
    /// Customers see their own orders, staff everybody's.
    fn filter(&self, caller: &Caller) -> Result<OrderFilter, ApiError> {
        let own = caller.require_user()?;
        let user_id = if caller.is_staff() {
            self.user_id
        } else if self.user_id.is_some() || self.email.is_some() {
            return Err(ApiError::forbidden());
        } else {
            Some(own)
        };
        let email = self.email.as_ref().map(|email| email.to_lowercase());
        let number = self.number.as_ref().map(|number| number.to_uppercase());
        Ok(OrderFilter { user_id, status: self.status, email, number })
    }
}

/// The caller's own orders, newest first; staff see everybody's, and may filter them.
#[utoipa::path(
    get, path = "/api/orders", tag = "Orders", security(("bearer" = [])), params(OrdersQuery),
    responses(
        (status = 200, description = "A page of orders", body = Page<OrderView>),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: a filter for staff", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<OrdersQuery>,
) -> Result<Json<Page<OrderView>>, ApiError> {
    let filter = query.filter(&caller)?;
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (page.limit()?, page.after::<(DateTime<Utc>, OrderId)>()?);
    let mut conn = state.pool.acquire().await?;
    let heads = orders::read::list(&mut conn, &filter, after, limit + 1).await?;
    let page = Page::cut(heads, limit, |last| (last.order_date, last.id));
    let ids: Vec<Uuid> = page.items.iter().map(|order| order.id).collect();
    let mut parts = orders::read::parts(&mut conn, &ids).await?;
    Ok(Json(page.map(|head| OrderView::new(head, &mut parts))))
}

/// One order, by id or by number; staff see its disputes, too.
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
    let mut parts = orders::read::parts(&mut conn, &[head.id]).await?;
    let (version, order_id) = (head.updated_at.timestamp_micros(), OrderId::from(head.id));
    let mut order = OrderView::new(head, &mut parts);
    if caller.is_staff() {
        order = order.with_disputes(disputes::of_order(&mut conn, order_id).await?);
    }
    Ok(([(header::ETAG, etag(version))], axum::Json(order)).into_response())
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
    let entries = orders::read::history(&mut conn, head.id.into()).await?;
    Ok(Json(HistoryAnswer { items: entries.into_iter().map(HistoryItem::from).collect() }))
}

/// The order, if it is the caller's or the caller works here.
pub(crate) async fn visible(state: &AppState, caller: &Caller, id: &str) -> Result<OrderHead, ApiError> {
    match caller {
        Caller::User { .. } | Caller::Guest(_) => {}
        Caller::Anonymous | Caller::Service { .. } => return Err(ApiError::login_required()),
    }
    let mut conn = state.pool.acquire().await?;
    orders::read::find(&mut conn, id)
        .await?
        .filter(|order| is_owner(caller, order) || caller.is_staff())
        .ok_or_else(order_not_found)
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
