//! Refunds over HTTP: staff see them, and decide what becomes of one that the gateway has refused.

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use domain::{money::to_wire, refund::RefundStatus};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::{
    refund::desk::{self, Decision, RefundRefusal},
    store::refunds::held::{self, RefundHead},
};

use crate::{
    caller::Caller,
    error::{ApiError, FieldError},
    extract::{Json, Path, Query},
    idempotency::IdempotencyKey,
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
    valid::checked_reason,
    write::{Write, begun},
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(resend)).routes(routes!(settle))
}

/// Money that goes back, or has gone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RefundView {
    refund_id: Uuid,
    order_id: Uuid,
    /// The run that sends it.
    workflow_id: Uuid,
    /// PENDING, SUCCEEDED or FAILED.
    #[schema(examples("FAILED"))]
    status: &'static str,
    /// The gateway's payment it takes back; null for cash.
    gateway_payment_id: Option<String>,
    amount: String,
    currency: String,
    /// Why it goes back.
    reason: String,
    /// Why the gateway refused it, the last time it did.
    failure: Option<String>,
    /// Not by the gateway: paid back by a person, or taken by the shopper's bank.
    by_hand: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<RefundHead> for RefundView {
    fn from(head: RefundHead) -> Self {
        RefundView {
            refund_id: head.refund_id,
            order_id: head.order_id,
            workflow_id: head.run_id,
            status: head.status.as_str(),
            gateway_payment_id: head.gateway_payment_id,
            amount: to_wire(head.amount, head.currency),
            currency: head.currency.to_string(),
            reason: head.reason,
            failure: head.failure,
            by_hand: head.by_hand,
            created_at: head.created_at,
            updated_at: head.updated_at,
        }
    }
}

/// Which refunds.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RefundQuery {
    /// Items wanted, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// PENDING, SUCCEEDED or FAILED only.
    status: Option<String>,
}

/// Why it is done.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RefundDecision {
    /// For the audit log; 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500, examples("Paid by bank transfer, reference 4711"))]
    reason: String,
}

impl From<RefundRefusal> for ApiError {
    fn from(refusal: RefundRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            RefundRefusal::NotFound => ApiError::not_found("refund-not-found", detail),
            RefundRefusal::Invalid(_) | RefundRefusal::NobodyWaits => ApiError::conflict("invalid-transition", detail),
            RefundRefusal::Database(error) => error.into(),
        }
    }
}

/// Refunds, the newest first. FAILED ones wait for a decision of the staff.
#[utoipa::path(
    get, path = "/api/refunds", tag = "Payments", security(("bearer" = [])), params(RefundQuery),
    responses(
        (status = 200, description = "A page of refunds", body = Page<RefundView>),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<RefundQuery>,
) -> Result<Json<Page<RefundView>>, ApiError> {
    caller.require_staff()?;
    let status = query
        .status
        .as_deref()
        .map(str::parse::<RefundStatus>)
        .transpose()
        .map_err(|_| ApiError::invalid(vec![FieldError::new("/status", "must be PENDING, SUCCEEDED or FAILED")]))?;
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let (limit, before) = (page.limit()?, page.after::<Uuid>()?);
    let found = held::list(&mut *state.pool.acquire().await?, status, before, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| last.refund_id).map(RefundView::from)))
}

/// Sends a refund again that the gateway has refused, under a key of its own. Staff only.
#[utoipa::path(
    post, path = "/api/refunds/{id}/resend", tag = "Payments", request_body = RefundDecision,
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The refund"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 202, description = "PENDING again: its run sends it", body = RefundView),
        (status = 404, description = "`refund-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`invalid-transition`: the gateway has not refused it", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn resend(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Path(id): Path<Uuid>,
    Json(body): Json<RefundDecision>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    decide(&state, &caller, key, id, Decision::Resend, body).await
}

/// Takes note that a refund the gateway has refused was paid by other means. Admins only.
#[utoipa::path(
    post, path = "/api/refunds/{id}/settle", tag = "Payments", request_body = RefundDecision,
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The refund"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 202, description = "SUCCEEDED, by hand: its run goes on", body = RefundView),
        (status = 404, description = "`refund-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`invalid-transition`: the gateway has not refused it", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn settle(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Path(id): Path<Uuid>,
    Json(body): Json<RefundDecision>,
) -> Result<Response, ApiError> {
    caller.require_admin()?;
    decide(&state, &caller, key, id, Decision::Settle, body).await
}

async fn decide(
    state: &AppState,
    caller: &Caller,
    key: Option<IdempotencyKey>,
    refund_id: Uuid,
    decision: Decision,
    body: RefundDecision,
) -> Result<Response, ApiError> {
    let reason = checked_reason(body.reason)?;
    let mut write = begun!(Write::begin(state, caller, key).await?);
    let decided = desk::decide(write.conn(), refund_id, decision, &caller.key()?, &reason).await?;
    write.answer(StatusCode::ACCEPTED, &RefundView::from(decided)).await
}
