//! Payments over HTTP: giving money back.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use domain::{ids::OrderId, money::to_wire};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::{refund::accept as refund, store::refunds::ClaimError};

use crate::{
    caller::Caller,
    error::{ApiError, FieldError},
    extract::CheckedJson,
    idempotency::{IdempotencyKey, Write},
    openapi::Problem,
    orders::checked_reason,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(give_back))
}

/// What is given back.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RefundBody {
    #[schema(value_type = Uuid)]
    order_id: OrderId,
    /// In the order's currency; at most what was captured and has not gone back.
    #[schema(value_type = String, examples("1000.00"))]
    amount: Decimal,
    /// For people; 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500, examples("Scratched on arrival"))]
    reason: String,
}

/// A run that moves money.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PaymentRun {
    workflow_id: Uuid,
    /// RUNNING.
    #[schema(examples("RUNNING"))]
    status: &'static str,
}

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> Self {
        let (code, detail) = (error.code(), error.to_string());
        match error {
            ClaimError::OrderNotFound => ApiError::not_found(code, "There is no such order."),
            ClaimError::NothingCaptured => ApiError::conflict(code, detail),
            ClaimError::ExceedsCaptured { left } => {
                ApiError::conflict(code, detail).with("left", to_wire(left.amount(), left.currency()))
            }
            ClaimError::NotPayable => {
                let detail = "must be more than nothing, to the last digit that the order's currency has";
                ApiError::invalid(vec![FieldError::new("/amount", detail)])
            }
            ClaimError::Database(error) => error.into(),
        }
    }
}

/// Gives back a part of what was captured for an order, or all of it; cash is paid back by hand.
#[utoipa::path(
    post, path = "/api/payments/refund", tag = "Payments", request_body = RefundBody, security(("bearer" = [])),
    params(("Idempotency-Key" = String, Header, description = "The same key and body get the same answer")),
    responses(
        (status = 202, description = "Claimed and under way: the order's `payment.refundedAmount` follows", body = PaymentRun),
        (status = 400, description = "`idempotency-key-required`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: for staff", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`refund-exceeds-captured` with `left`, `nothing-captured`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `card-data-refused`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn give_back(
    State(state): State<AppState>,
    caller: Caller,
    key: IdempotencyKey,
    CheckedJson(body): CheckedJson<RefundBody>,
) -> Result<Response, ApiError> {
    caller.require_staff()?;
    let RefundBody { order_id, amount, reason } = body;
    let reason = checked_reason(reason)?;
    let mut write = match Write::begin(&state, &caller, Some(key)).await? {
        Ok(write) => write,
        Err(replay) => return Ok(replay.into_response()),
    };
    let workflow_id = refund::accept(write.conn(), order_id, amount, &reason).await?;
    let details = serde_json::json!({ "amount": amount.to_string(), "reason": reason, "workflowId": workflow_id });
    write.note("payment.refund", &format!("order {order_id}"), &details).await?;
    write.answer(StatusCode::ACCEPTED, &PaymentRun { workflow_id, status: "RUNNING" }).await
}
