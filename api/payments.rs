//! Payments over HTTP: another try to pay, and giving money back.

use axum::{
    extract::State,
    http::StatusCode,
    response::{Redirect, Response},
};
use domain::{ids::OrderId, money::to_wire, payment::PaymentMethod, text::line_problem};
use engine::RunStatus;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::{
    checkout::{
        attempt::{self, Offer, OfferError},
        webhook,
    },
    pay_back,
    store::refunds::ClaimError,
};

use crate::{
    caller::Caller,
    error::{ApiError, FieldError},
    extract::{CheckedJson, Path},
    idempotency::IdempotencyKey,
    openapi::Problem,
    orders::{order_not_found, visible},
    state::AppState,
    valid::{checked_reason, decimal},
    write::{Write, begun},
};

/// Longest token a gateway may give, in characters.
const MAX_TOKEN_CHARS: usize = 512;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(process)).routes(routes!(give_back)).routes(routes!(returned, posted_back))
}

/// Another try to pay a PENDING order.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProcessBody {
    #[schema(value_type = Uuid)]
    order_id: OrderId,
    /// What the order costs.
    #[schema(value_type = String, examples("59050.00"))]
    #[serde(deserialize_with = "decimal")]
    amount: Decimal,
    /// CREDIT_CARD, DEBIT_CARD, UPI, NET_BANKING or WALLET.
    #[schema(value_type = String, examples("CREDIT_CARD"))]
    payment_method: PaymentMethod,
    /// What the gateway gave the shopper's browser, if it gives something; never a card number.
    #[serde(default)]
    #[schema(max_length = 512, examples("tok_ok"))]
    payment_token: Option<String>,
}

/// What is given back.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RefundBody {
    #[schema(value_type = Uuid)]
    order_id: OrderId,
    /// In the order's currency; at most what was captured and has not gone back.
    #[schema(value_type = String, examples("1000.00"))]
    #[serde(deserialize_with = "decimal")]
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

impl From<OfferError> for ApiError {
    fn from(error: OfferError) -> Self {
        let detail = error.to_string();
        match error {
            OfferError::NotFound => order_not_found(),
            OfferError::NotPending => ApiError::conflict("order-not-pending", detail),
            OfferError::InProgress => ApiError::conflict("payment-in-progress", detail),
            OfferError::UsedUp => ApiError::conflict("payment-attempts-used-up", detail),
            OfferError::Unsupported(_) => ApiError::conflict("payment-method-unsupported", detail),
            OfferError::AmountMismatch { due } => ApiError::conflict("amount-mismatch", detail)
                .with("amountDue", to_wire(due.amount(), due.currency()))
                .with("currency", due.currency().as_str()),
            OfferError::Database(error) => error.into(),
        }
    }
}

/// Pays once more for an order whose payment was declined, where the shop allows it, while the payment
/// window is open. The order's checkout carries it out: poll that.
#[utoipa::path(
    post, path = "/api/payments/process", tag = "Payments", request_body = ProcessBody,
    security(("bearer" = []), ("cartSession" = [])),
    params(("Idempotency-Key" = String, Header, description = "The same key and body get the same answer")),
    responses(
        (status = 202, description = "Under way: the checkout tells how it ends", body = PaymentRun),
        (status = 400, description = "`idempotency-key-required`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`payment-in-progress`, `payment-attempts-used-up`, `payment-method-unsupported`, `order-not-pending`, `amount-mismatch` with `amountDue`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`, `card-data-refused`, `idempotency-key-reused`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn process(
    State(state): State<AppState>,
    caller: Caller,
    key: IdempotencyKey,
    CheckedJson(body): CheckedJson<ProcessBody>,
) -> Result<Response, ApiError> {
    let ProcessBody { order_id, amount, payment_method: method, payment_token: token } = body;
    let mut errors = Vec::new();
    if method == PaymentMethod::Cod {
        errors.push(FieldError::new("/paymentMethod", "cash is not paid here"));
    }
    let token_problem = token.as_deref().and_then(|token| line_problem(token, MAX_TOKEN_CHARS));
    errors.extend(token_problem.map(|detail| FieldError::new("/paymentToken", detail)));
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    visible(&state, &caller, &order_id.to_string()).await?;
    let mut write = begun!(Write::begin(&state, &caller, Some(key)).await?);
    let offer = Offer { order_id, amount, method, token };
    let workflow_id = attempt::offer(write.conn(), &state.shop, offer).await?;
    write.answer(StatusCode::ACCEPTED, &PaymentRun { workflow_id, status: RunStatus::Running.as_str() }).await
}

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> Self {
        let (code, detail) = (error.code(), error.to_string());
        match error {
            ClaimError::OrderNotFound => order_not_found(),
            ClaimError::NothingCaptured | ClaimError::BeingCancelled => ApiError::conflict(code, detail),
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

/// Gives back a part of what was captured for an order, or all of it; cash is paid back by hand. All of it
/// before anything has left cancels the order: `workflowId` is its cancellation then.
#[utoipa::path(
    post, path = "/api/payments/refund", tag = "Payments", request_body = RefundBody, security(("bearer" = [])),
    params(("Idempotency-Key" = String, Header, description = "The same key and body get the same answer")),
    responses(
        (status = 202, description = "Claimed and under way: the order's `payment.refundedAmount` follows", body = PaymentRun),
        (status = 400, description = "`idempotency-key-required`", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: for staff", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`order-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`refund-exceeds-captured` with `left`, `nothing-captured`, `order-being-cancelled`", body = Problem, content_type = "application/problem+json"),
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
    let mut write = begun!(Write::begin(&state, &caller, Some(key)).await?);
    let workflow_id = pay_back::accept(write.conn(), order_id, amount, &caller.key()?, &reason).await?;
    let details = serde_json::json!({ "amount": amount.to_string(), "workflowId": workflow_id });
    write.note("payment.refund", &format!("order:{order_id}"), Some(&reason), &details).await?;
    write.answer(StatusCode::ACCEPTED, &PaymentRun { workflow_id, status: RunStatus::Running.as_str() }).await
}

/// Where a gateway's page sends the shopper afterwards. Whatever it brings along is not believed: the checkout asks
/// the gateway. Leads on to the shop's page of the order.
#[utoipa::path(
    get, path = "/api/payments/return/{orderId}", tag = "Payments",
    params(("orderId" = Uuid, Path, description = "The order that was to be paid")),
    responses((status = 303, description = "To the shop's page of the order"))
)]
async fn returned(state: State<AppState>, order_id: Path<OrderId>) -> Result<Redirect, ApiError> {
    come_back(&state, order_id.0).await
}

/// The same for gateways whose page sends a form.
#[utoipa::path(
    post, path = "/api/payments/return/{orderId}", tag = "Payments",
    params(("orderId" = Uuid, Path, description = "The order that was to be paid")),
    responses((status = 303, description = "To the shop's page of the order"))
)]
async fn posted_back(state: State<AppState>, order_id: Path<OrderId>) -> Result<Redirect, ApiError> {
    come_back(&state, order_id.0).await
}

/// An order that nobody knows is led on just so: the page says nothing of which there are.
async fn come_back(state: &AppState, order_id: OrderId) -> Result<Redirect, ApiError> {
    let mut tx = state.pool.begin().await?;
    webhook::returned(&mut tx, order_id).await?;
    tx.commit().await?;
    Ok(Redirect::to(&state.shop.rules.order_url(order_id)))
}
