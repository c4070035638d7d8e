//! Fraud screening over HTTP: the staff's queue here, the rules in a file of their own. Shoppers see none of it.

mod rules;

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use domain::{fraud::Reason, ids::OrderId, money::to_wire};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::{
    fraud::{self, ReviewRefusal, StaffDecision},
    store::fraud::reviews::{self, Waiting},
};

use crate::{
    caller::Caller,
    error::ApiError,
    extract::{Json, Path, Query},
    idempotency::IdempotencyKey,
    openapi::Problem,
    orders::{order_not_found, visible},
    page::{Page, PageQuery},
    state::AppState,
    valid::checked_reason,
    write::{Write, begun},
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(decide)).merge(rules::routes())
}

/// Why a checkout has points.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReasonView {
    /// The rule's name.
    #[schema(examples("Much for a new account"))]
    rule: String,
    /// Below zero for an allow list.
    #[schema(examples(30))]
    points: i64,
    /// What the rule saw.
    #[schema(examples("590500.00 INR by a guest"))]
    detail: String,
}

/// What was known of a checkout, as a block or an allow list takes it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FactsView {
    /// Since when there is the account.
    account_since: Option<DateTime<Utc>>,
    /// SHA-256, in hexadecimal.
    email: Option<String>,
    /// SHA-256 of where it goes, in hexadecimal.
    address: Option<String>,
    /// The /24 or /48 it came from.
    #[schema(examples("203.0.113.0/24"))]
    network: Option<String>,
    /// SHA-256, in hexadecimal.
    token: Option<String>,
    #[schema(examples("India"))]
    billing_country: String,
    #[schema(examples("India"))]
    shipping_country: String,
}

/// An order whose money is set aside until somebody has looked at it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReviewView {
    order_id: Uuid,
    order_number: String,
    /// Null for a guest.
    user_id: Option<Uuid>,
    amount: String,
    currency: String,
    /// The sum of its reasons.
    #[schema(examples(60))]
    score: i64,
    reasons: Vec<ReasonView>,
    /// The rules it was scored by.
    #[schema(examples(1))]
    rules_version: i32,
    facts: FactsView,
    opened_at: DateTime<Utc>,
    /// Without a decision until then the money goes back.
    held_until: DateTime<Utc>,
}

impl From<Waiting> for ReviewView {
    fn from(waiting: Waiting) -> Self {
        let Waiting { facts, currency, .. } = waiting;
        let reason = |Reason { rule, points, detail }: Reason| ReasonView { rule, points, detail };
        ReviewView {
            order_id: waiting.order_id.into(),
            order_number: waiting.order_number,
            user_id: facts.user_id.map(Uuid::from),
            amount: to_wire(waiting.total, currency),
            currency: currency.to_string(),
            score: waiting.points,
            reasons: waiting.reasons.into_iter().map(reason).collect(),
            rules_version: waiting.rules_version,
            facts: FactsView {
                account_since: facts.account_since,
                email: facts.email.map(String::from),
                address: facts.address.map(String::from),
                network: facts.network.map(String::from),
                token: facts.token.map(String::from),
                billing_country: facts.billing_country,
                shipping_country: facts.shipping_country,
            },
            opened_at: waiting.opened_at,
            held_until: waiting.held_until,
        }
    }
}

/// What becomes of the money.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReviewBody {
    /// APPROVE or REJECT.
    #[schema(value_type = String, examples("APPROVE"))]
    decision: StaffDecision,
    /// For the audit log; the shopper is not told. 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500, examples("Called back: she knows of the order"))]
    reason: String,
}

/// A decision that the order's checkout hears of.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReviewAnswer {
    order_id: Uuid,
    /// The checkout that carries it out.
    workflow_id: Uuid,
    /// APPROVE or REJECT.
    #[schema(value_type = String, examples("APPROVE"))]
    decision: StaffDecision,
}

impl From<ReviewRefusal> for ApiError {
    fn from(refusal: ReviewRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            ReviewRefusal::NotFound => order_not_found(),
            ReviewRefusal::NotUnderReview | ReviewRefusal::NobodyWaits => {
                ApiError::conflict("order-not-under-review", detail)
            }
            ReviewRefusal::Ended { status } => {
                ApiError::conflict("review-ended", detail).with("reviewStatus", status.as_str())
            }
            ReviewRefusal::Late { held_until } => {
                ApiError::conflict("review-ended", detail).with("heldUntil", held_until.to_rfc3339())
            }
            ReviewRefusal::Database(error) => error.into(),
        }
    }
}

/// Orders that wait for somebody to look at them, the most urgent first. Staff only.
#[utoipa::path(
    get, path = "/api/fraud/reviews", tag = "Fraud", security(("bearer" = [])), params(PageQuery),
    responses(
        (status = 200, description = "A page of orders under review", body = Page<ReviewView>),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ReviewView>>, ApiError> {
    caller.require_staff()?;
    let (limit, after) = (query.limit()?, query.after::<(DateTime<Utc>, OrderId)>()?);
    let found = reviews::list(&mut *state.pool.acquire().await?, after, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| (last.held_until, last.order_id)).map(ReviewView::from)))
}

/// Takes the money of an order under review, or lets it go back and the order with it. Decided once: whoever comes
/// second, or late, is told so. Staff only.
#[utoipa::path(
    post, path = "/api/orders/{id}/review", tag = "Fraud", request_body = ReviewBody, security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or order number"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body get the same answer"),
    ),
    responses(
        (status = 202, description = "Decided: the order's checkout carries it out", body = ReviewAnswer),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`order-not-under-review`; `review-ended` with `reviewStatus`, or with `heldUntil` if its time was over", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn decide(
    State(state): State<AppState>,
    caller: Caller,
    key: Option<IdempotencyKey>,
    Path(id): Path<String>,
    Json(body): Json<ReviewBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let ReviewBody { decision, reason } = body;
    let reason = checked_reason(reason)?;
    let order_id = visible(&state, &caller, &id).await?.id;
    let mut write = begun!(Write::begin(&state, &caller, key).await?);
    let now = engine::now(&mut *write.conn()).await?;
    let workflow_id = fraud::decide(write.conn(), order_id.into(), decision, &reason, &caller.key()?, now).await?;
    write.answer(StatusCode::ACCEPTED, &ReviewAnswer { order_id, workflow_id, decision }).await
}
