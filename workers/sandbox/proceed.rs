//! `POST /v1/payments/{id}/proceed`: takes, or sets aside, what the shopper has agreed to pay.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use rust_decimal::Decimal;
use serde::Deserialize;

use crate::Gateway;
use crate::payment::{self, Status, parse_amount};
use crate::refusal::Refusal;
use crate::request::{Body, IdempotencyKey};
use crate::token::Capture;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proceeding {
    amount: String,
    capture: Capture,
}

/// Where it leads to from there; `None` when there is nothing to do.
fn next(status: Status, capture: Capture) -> Option<Status> {
    match (status, capture) {
        (Status::Approved | Status::Authorized, Capture::Take) => Some(Status::Captured),
        (Status::Approved, Capture::Hold) => Some(Status::Authorized),
        (Status::Authorized, Capture::Hold)
        | (Status::Pending | Status::RequiresAction | Status::Captured | Status::Failed | Status::Closed, _) => None,
    }
}

/// The same done again changes nothing, whatever its key: where the payment stands says what there is to do.
pub(crate) async fn proceed(
    State(gateway): State<Gateway>,
    Path(payment_id): Path<String>,
    _: IdempotencyKey,
    Body(Proceeding { amount, capture }): Body<Proceeding>,
) -> Result<Response, Refusal> {
    let amount = parse_amount(&amount)?;
    let mut tx = gateway.pool.begin().await?;
    let (status, due): (Status, Decimal) =
        sqlx::query_as("select status, amount from sandbox.payments where payment_id = $1 for update")
            .bind(&payment_id)
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(Refusal::NotFound)?;
    if amount != due {
        return Err(Refusal::Invalid("amount must be all that was agreed to"));
    }
    if let Some(status) = next(status, capture) {
        sqlx::query(
            "update sandbox.payments
             set status = $2, captured_amount = case $2 when 'CAPTURED' then capture_amount else 0 end
             where payment_id = $1",
        )
        .bind(&payment_id)
        .bind(status)
        .execute(&mut *tx)
        .await?;
    }
    let payment = payment::by_id(&mut *tx, &payment_id).await?.ok_or(Refusal::NotFound)?;
    tx.commit().await?;
    Ok(Json(payment.view(&gateway.config.public_url)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_agreed_to_goes_on_and_only_once() {
        let table = [
            (Status::Pending, None, None),
            (Status::RequiresAction, None, None),
            (Status::Approved, Some(Status::Captured), Some(Status::Authorized)),
            (Status::Authorized, Some(Status::Captured), None),
            (Status::Captured, None, None),
            (Status::Failed, None, None),
            (Status::Closed, None, None),
        ];
        for (status, taken, held) in table {
            assert_eq!((next(status, Capture::Take), next(status, Capture::Hold)), (taken, held), "{status:?}");
        }
    }
}
