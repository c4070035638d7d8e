//! Cancelling an order over HTTP (workflow 3): the POST decides and answers 202, a run does the rest.

use axum::{extract::State, http::StatusCode, response::Response};
use domain::{
    money::{Currency, to_wire},
    order::Actor,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::cancellation::{
    CancelRequest, REFUND_ETA,
    accept::{self, Accepted, CancelError},
};

use super::{is_owner, order_not_found, visible};
use crate::{
    caller::Caller,
    error::{ApiError, FieldError},
    etag::IfMatch,
    extract::{Json, Path},
    idempotency::IdempotencyKey,
    openapi::Problem,
    state::AppState,
    valid::checked_reason,
    write::{Write, begun},
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(cancel))
}

/// Why an order is cancelled.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CancelBody {
    /// For people; 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500, examples("Ordered by mistake"))]
    reason: String,
}

/// A cancellation that is under way, or done.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CancelAnswer {
    /// The run: the cancellation, or the checkout of an order that was still PENDING.
    workflow_id: Uuid,
    /// RUNNING, COMPLETED, or CANCELLED for a checkout that was taken back.
    #[schema(examples("RUNNING"))]
    status: &'static str,
    /// What goes back; 0.00 when nothing had been captured.
    #[schema(examples("59050.00"))]
    refund_amount: String,
    #[schema(examples("INR"))]
    currency: String,
    /// When it should arrive; null when nothing goes back.
    #[serde(rename = "refundETA")]
    #[schema(examples("5-7 business days"))]
    refund_eta: Option<&'static str>,
}

impl From<Accepted> for CancelAnswer {
    fn from(accepted: Accepted) -> Self {
        let Accepted { workflow_id, status, refund_amount, currency } = accepted;
        CancelAnswer {
            workflow_id,
            status: status.as_str(),
            refund_eta: (!refund_amount.is_zero()).then_some(REFUND_ETA),
            refund_amount: to_wire(refund_amount, currency.parse().unwrap_or(Currency::INR)),
            currency,
        }
    }
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::NotFound => order_not_found(),
            CancelError::Changed => ApiError::precondition_failed("The order has changed meanwhile."),
            CancelError::Refused(refusal) => {
                ApiError::conflict(workflows::cancellation::compensate::NOT_CANCELLABLE, refusal.to_string())
            }
            CancelError::InHand => {
                ApiError::conflict("order-in-hand", "The order is being worked on; try again.").retry_after(1)
            }
            CancelError::Unkeepable => ApiError::invalid(vec![FieldError::new("/reason", error.to_string())]),
            CancelError::Database(error) => error.into(),
        }
    }
}

/// Cancels an order: by its owner until it is packed, by staff until a parcel has left. The answer is a
/// promise: from then on nothing of it is packed, leaves or arrives (`order-being-cancelled`). Stock and
/// coupons are free at once; the money follows. Repeating it answers with the same run and amount.
#[utoipa::path(
    post, path = "/api/orders/{id}/cancel", tag = "Orders", request_body = CancelBody,
    security(("bearer" = []), ("cartSession" = [])),
    params(
        ("id" = String, Path, description = "Id or order number"),
        ("Idempotency-Key" = String, Header, description = "The same key and body get the same answer"),
        ("If-Match" = Option<String>, Header, description = "The version to cancel"),
    ),
    responses(
        (status = 202, description = "Under way: poll the order until it is CANCELLED", body = CancelAnswer),
        (status = 400, description = "`idempotency-key-required`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`order-not-cancellable`, `order-in-hand`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    key: IdempotencyKey,
    if_match: IfMatch,
    Json(body): Json<CancelBody>,
) -> Result<Response, ApiError> {
    let reason = checked_reason(body.reason)?;
    let order = visible(&state, &caller, &id).await?;
    let actor = if caller.is_staff() { Actor::Staff } else { Actor::Customer };
    let by = if is_owner(&caller, &order) && order.user_id.is_none() { "guest".to_owned() } else { caller.key()? };
    let mut write = begun!(Write::begin(&state, &caller, Some(key)).await?);
    let request = CancelRequest { order_id: order.id.into(), actor, by, reason };
    let is_wanted = |changed: chrono::DateTime<chrono::Utc>| if_match.allows(changed.timestamp_micros());
    let accepted = accept::accept(write.conn(), &state.shop.rules, &request, is_wanted).await?;
    write.answer(StatusCode::ACCEPTED, &CancelAnswer::from(accepted)).await
}
