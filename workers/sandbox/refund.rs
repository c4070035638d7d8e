//! `POST /v1/payments/{id}/refunds`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Gateway;
use crate::payment::{Status, parse_amount};
use crate::refusal::Refusal;
use crate::request::{Body, IdempotencyKey};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRefund {
    amount: String,
}

#[derive(sqlx::FromRow)]
struct Refundable {
    status: Status,
    currency: String,
    captured_amount: Decimal,
    refunded_amount: Decimal,
    refund_failures: i32,
}

impl Refundable {
    /// Money can go back once it came, and never more of it than came.
    fn allows(&self, amount: Decimal) -> Result<(), Refusal> {
        if self.status != Status::Captured {
            return Err(Refusal::NotCaptured);
        }
        match self.refunded_amount.checked_add(amount) {
            Some(total) if total <= self.captured_amount => Ok(()),
            Some(_) | None => Err(Refusal::RefundTooLarge),
        }
    }
}

pub(crate) async fn refund(
    State(gateway): State<Gateway>,
    Path(payment_id): Path<String>,
    key: IdempotencyKey,
    Body(NewRefund { amount }): Body<NewRefund>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let amount = parse_amount(&amount)?;
    let refund_id = key.names("sbxr");
    let mut tx = gateway.pool.begin().await?;

    // The payment's row lock makes the sum of its refunds exact.
    let payment: Refundable = sqlx::query_as(
        "select status, currency, captured_amount, refunded_amount, refund_failures
         from sandbox.payments where payment_id = $1 for update",
    )
    .bind(&payment_id)
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Refusal::NotFound)?;
    let answer = json!({ "gatewayRefundId": refund_id, "gatewayPaymentId": payment_id, "status": "SUCCEEDED",
                         "amount": amount.to_string(), "currency": payment.currency });

    let known: Option<bool> =
        sqlx::query_scalar("select payment_id = $2 and amount = $3 from sandbox.refunds where refund_id = $1")
            .bind(&refund_id)
            .bind(&payment_id)
            .bind(amount)
            .fetch_optional(&mut *tx)
            .await?;
    match known {
        Some(true) => return Ok((StatusCode::OK, Json(answer))),
        Some(false) => return Err(Refusal::KeyReused),
        None => payment.allows(amount)?,
    }

    if payment.refund_failures > 0 {
        sqlx::query("update sandbox.payments set refund_failures = refund_failures - 1 where payment_id = $1")
            .bind(&payment_id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        return Err(Refusal::RefundFails);
    }

    let made = sqlx::query(
        "insert into sandbox.refunds (refund_id, payment_id, amount) values ($1, $2, $3) on conflict do nothing",
    )
    .bind(&refund_id)
    .bind(&payment_id)
    .bind(amount)
    .execute(&mut *tx)
    .await?;
    if made.rows_affected() == 0 {
        // Only a simultaneous call under this key for another payment can have made it meanwhile.
        return Err(Refusal::KeyReused);
    }
    sqlx::query("update sandbox.payments set refunded_amount = refunded_amount + $2 where payment_id = $1")
        .bind(&payment_id)
        .bind(amount)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(captured: i64, refunded: i64) -> Refundable {
        Refundable {
            status: Status::Captured,
            currency: "INR".into(),
            captured_amount: Decimal::from(captured),
            refunded_amount: Decimal::from(refunded),
            refund_failures: 0,
        }
    }

    #[test]
    fn refunds_may_add_up_to_the_capture_and_no_further() {
        assert!(payment(100, 60).allows(Decimal::from(40)).is_ok());
        assert!(matches!(payment(100, 60).allows(Decimal::new(4001, 2)), Err(Refusal::RefundTooLarge)));
        assert!(matches!(payment(100, 100).allows(Decimal::MAX), Err(Refusal::RefundTooLarge)));
    }

    #[test]
    fn what_was_never_captured_cannot_be_refunded() {
        for status in [Status::Pending, Status::RequiresAction, Status::Failed, Status::Closed] {
            let payment = Refundable { status, ..payment(0, 0) };
            assert!(matches!(payment.allows(Decimal::ONE), Err(Refusal::NotCaptured)), "{status:?}");
        }
    }
}
