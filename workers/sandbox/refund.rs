//! `POST /v1/payments/{id}/refunds` gives money back; `GET` finds what was given back.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::Gateway;
use crate::payment::{Status, parse_amount};
use crate::refusal::Refusal;
use crate::request::{Body, IdempotencyKey, Query, bounded};
use crate::token::REFUND_PENDS;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewRefund {
    refund_id: String,
    amount: String,
}

/// `?refundId=`; without, all.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfRefund {
    refund_id: Option<String>,
}

/// A refund as the gateway keeps it.
#[derive(sqlx::FromRow)]
struct Refund {
    refund_id: String,
    payment_id: String,
    reference: String,
    amount: Decimal,
    currency: String,
    status: String,
}

impl Refund {
    fn view(&self) -> Value {
        let Refund { refund_id, payment_id, reference, amount, currency, status } = self;
        let mut view = json!({ "gatewayRefundId": refund_id, "gatewayPaymentId": payment_id, "refundId": reference,
                               "status": status, "amount": amount.to_string(), "currency": currency });
        if status == "FAILED" {
            view["failure"] = json!("account_closed");
        }
        view
    }
}

/// Refunds of a payment, by the caller's id of them or by ours; bounded, since they are few.
async fn known(
    connection: &mut PgConnection,
    payment_id: &str,
    reference: Option<&str>,
    refund_id: Option<&str>,
) -> Result<Vec<Refund>, sqlx::Error> {
    sqlx::query_as(
        "select r.refund_id, r.payment_id, r.reference, r.amount, p.currency, r.status
         from sandbox.refunds r join sandbox.payments p using (payment_id)
         where r.payment_id = $1 and ($2::text is null or r.reference = $2) and ($3::text is null or r.refund_id = $3)
         order by r.created_at, r.refund_id limit 100",
    )
    .bind(payment_id)
    .bind(reference)
    .bind(refund_id)
    .fetch_all(connection)
    .await
}

pub(crate) async fn find(
    State(gateway): State<Gateway>,
    Path(payment_id): Path<String>,
    Query(OfRefund { refund_id }): Query<OfRefund>,
) -> Result<Json<Value>, Refusal> {
    let mut connection = gateway.pool.acquire().await?;
    let refunds = known(&mut connection, &payment_id, refund_id.as_deref(), None).await?;
    Ok(Json(json!({ "items": refunds.iter().map(Refund::view).collect::<Vec<_>>() })))
}

#[derive(sqlx::FromRow)]
struct Refundable {
    status: Status,
    captured_amount: Decimal,
    refunded_amount: Decimal,
    refund_failures: i32,
    refunds_pend: bool,
    refunds_fail: i32,
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
    Body(NewRefund { refund_id: reference, amount }): Body<NewRefund>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    bounded(&reference, 64, "refundId must have 1 to 64 characters")?;
    let amount = parse_amount(&amount)?;
    let refund_id = key.names("sbxr");
    let mut tx = gateway.pool.begin().await?;

    // The payment's row lock makes the sum of its refunds exact.
    let payment: Refundable = sqlx::query_as(
        "select status, captured_amount, refunded_amount, refund_failures, refunds_pend, refunds_fail
         from sandbox.payments where payment_id = $1 for update",
    )
    .bind(&payment_id)
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Refusal::NotFound)?;
    if let Some(known) = known(&mut tx, &payment_id, None, Some(&refund_id)).await?.first() {
        let is_same = known.amount == amount && known.reference == reference;
        return if is_same { Ok((StatusCode::OK, Json(known.view()))) } else { Err(Refusal::KeyReused) };
    }
    payment.allows(amount)?;
    if payment.refund_failures > 0 {
        sqlx::query("update sandbox.payments set refund_failures = refund_failures - 1 where payment_id = $1")
            .bind(&payment_id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        return Err(Refusal::RefundFails);
    }

    let made = sqlx::query(
        "insert into sandbox.refunds (refund_id, payment_id, reference, amount, status, ends_as, ends_at)
         values ($1, $2, $3, $4, $5, $6, sandbox.now() + make_interval(secs => $7)) on conflict do nothing",
    )
    .bind(&refund_id)
    .bind(&payment_id)
    .bind(&reference)
    .bind(amount)
    .bind(if payment.refunds_pend { "PENDING" } else { "SUCCEEDED" })
    .bind(if payment.refunds_fail > 0 { "FAILED" } else { "SUCCEEDED" })
    .bind(REFUND_PENDS.as_secs_f64())
    .execute(&mut *tx)
    .await?;
    if made.rows_affected() == 0 {
        // A call under this key has made it for another payment.
        return Err(Refusal::KeyReused);
    }
    sqlx::query(
        "update sandbox.payments
         set refunded_amount = refunded_amount + $2, refunds_fail = greatest(refunds_fail - 1, 0)
         where payment_id = $1",
    )
    .bind(&payment_id)
    .bind(amount)
    .execute(&mut *tx)
    .await?;
    let refunds = known(&mut tx, &payment_id, None, Some(&refund_id)).await?;
    tx.commit().await?;
    let made = refunds.first().ok_or(Refusal::NotFound)?;
    Ok((StatusCode::CREATED, Json(made.view())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(captured: i64, refunded: i64) -> Refundable {
        Refundable {
            status: Status::Captured,
            captured_amount: Decimal::from(captured),
            refunded_amount: Decimal::from(refunded),
            refund_failures: 0,
            refunds_pend: false,
            refunds_fail: 0,
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
        for status in [Status::Pending, Status::Approved, Status::Authorized, Status::Failed, Status::Closed] {
            let payment = Refundable { status, ..payment(0, 0) };
            assert!(matches!(payment.allows(Decimal::ONE), Err(Refusal::NotCaptured)), "{status:?}");
        }
    }
}
