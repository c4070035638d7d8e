//! A payment as the gateway keeps it, and its two faces on the wire.

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::refusal::Refusal;

/// Where a payment stands; refunds do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Status {
    Pending,
    RequiresAction,
    Approved,
    Authorized,
    Captured,
    Failed,
    Closed,
}

/// One row of `sandbox.payments`, without the plan its token made.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Payment {
    pub(crate) payment_id: String,
    pub(crate) order_id: String,
    pub(crate) attempt: i32,
    pub(crate) amount: Decimal,
    pub(crate) currency: String,
    pub(crate) method: String,
    pub(crate) return_url: Option<String>,
    pub(crate) status: Status,
    pub(crate) failure: Option<String>,
    pub(crate) captured_amount: Decimal,
    pub(crate) refunded_amount: Decimal,
}

/// What the shop is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaymentView<'a> {
    gateway_payment_id: &'a str,
    order_id: &'a str,
    attempt: i32,
    status: Status,
    amount: String,
    captured_amount: String,
    refunded_amount: String,
    currency: &'a str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_action: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
}

/// What a developer is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DevView<'a> {
    gateway_payment_id: &'a str,
    order_id: &'a str,
    status: &'static str,
    amount: String,
    captured_amount: String,
    refunded_amount: String,
    currency: &'a str,
}

impl Payment {
    /// The payment as the HTTP API answers it; `public_url` is where its redirect page lives.
    pub(crate) fn view(&self, public_url: &str) -> PaymentView<'_> {
        PaymentView {
            gateway_payment_id: &self.payment_id,
            order_id: &self.order_id,
            attempt: self.attempt,
            status: self.status,
            amount: self.amount.to_string(),
            captured_amount: self.in_minor_units(self.captured_amount),
            refunded_amount: self.in_minor_units(self.refunded_amount),
            currency: &self.currency,
            method: &self.method,
            next_action: (self.status == Status::RequiresAction).then(|| {
                json!({ "type": "REDIRECT", "url": format!("{}/pay/{}", public_url.trim_end_matches('/'), self.payment_id) })
            }),
            failure: self.failure.as_deref(),
        }
    }

    pub(crate) fn dev_view(&self) -> DevView<'_> {
        DevView {
            gateway_payment_id: &self.payment_id,
            order_id: &self.order_id,
            status: self.status_with_refunds(),
            amount: self.amount.to_string(),
            captured_amount: self.in_minor_units(self.captured_amount),
            refunded_amount: self.in_minor_units(self.refunded_amount),
            currency: &self.currency,
        }
    }

    fn status_with_refunds(&self) -> &'static str {
        match self.status {
            Status::Pending => "PENDING",
            Status::RequiresAction => "REQUIRES_ACTION",
            Status::Approved => "APPROVED",
            Status::Authorized => "AUTHORIZED",
            Status::Captured if self.refunded_amount.is_zero() => "CAPTURED",
            Status::Captured if self.refunded_amount < self.captured_amount => "PARTIALLY_REFUNDED",
            Status::Captured => "REFUNDED",
            Status::Failed => "FAILED",
            Status::Closed => "CLOSED",
        }
    }

    /// With as many digits as the amount that was asked for, so that nothing reads "0.00" beside "0".
    fn in_minor_units(&self, value: Decimal) -> String {
        let mut value = value;
        value.rescale(self.amount.scale().max(value.normalize().scale()));
        value.to_string()
    }
}

/// The payment called `payment_id`, if there is one.
pub(crate) async fn by_id(
    connection: impl sqlx::PgExecutor<'_>,
    payment_id: &str,
) -> Result<Option<Payment>, sqlx::Error> {
    sqlx::query_as(
        "select payment_id, order_id, attempt, amount, currency, method, return_url, status, failure,
                captured_amount, refunded_amount
         from sandbox.payments where payment_id = $1",
    )
    .bind(payment_id)
    .fetch_optional(connection)
    .await
}

/// All payments of an order, oldest first; bounded, since attempts are few.
pub(crate) async fn of_order(
    connection: impl sqlx::PgExecutor<'_>,
    order_id: &str,
) -> Result<Vec<Payment>, sqlx::Error> {
    sqlx::query_as(
        "select payment_id, order_id, attempt, amount, currency, method, return_url, status, failure,
                captured_amount, refunded_amount
         from sandbox.payments where order_id = $1 order by attempt, created_at, payment_id limit 100",
    )
    .bind(order_id)
    .fetch_all(connection)
    .await
}

/// Payments of one page of a list.
pub(crate) const PAGE: usize = 100;

/// Payments made from one moment up to another (RFC 3339), oldest first, past the one named `after`.
pub(crate) async fn made_in(
    pool: &PgPool,
    from: &str,
    until: &str,
    after: Option<&str>,
) -> Result<Vec<Payment>, Refusal> {
    let made = sqlx::query_as(
        "select payment_id, order_id, attempt, amount, currency, method, return_url, status, failure,
                captured_amount, refunded_amount
           from sandbox.payments
          where created_at >= $1::text::timestamptz and created_at < $2::text::timestamptz
            and ($3::text is null
                 or (created_at, payment_id) > (select created_at, payment_id from sandbox.payments where payment_id = $3))
          order by created_at, payment_id limit $4",
    )
    .bind(from)
    .bind(until)
    .bind(after)
    .bind(i64::try_from(PAGE).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await;
    match made {
        // Classes 22007 and 22008 of SQLSTATE: it is no time, or none there is.
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("2200")) => {
            Err(Refusal::Invalid("from and until must be times (RFC 3339)"))
        }
        made => Ok(made?),
    }
}

/// Reads a positive decimal amount of at most three decimals (no currency has more).
pub(crate) fn parse_amount(text: &str) -> Result<Decimal, Refusal> {
    match Decimal::from_str_exact(text) {
        Ok(amount) if amount > Decimal::ZERO && amount.scale() <= 3 => Ok(amount),
        Ok(_) => Err(Refusal::Invalid("amount must be positive and have at most 3 decimals")),
        Err(_) => Err(Refusal::Invalid("amount must be a decimal string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(captured: i64, refunded: i64) -> Payment {
        Payment {
            payment_id: "sbx_1".into(),
            order_id: "o".into(),
            attempt: 1,
            amount: Decimal::new(10_000, 2),
            currency: "INR".into(),
            method: "UPI".into(),
            return_url: None,
            status: Status::Captured,
            failure: None,
            captured_amount: Decimal::from(captured),
            refunded_amount: Decimal::from(refunded),
        }
    }

    #[test]
    fn developers_see_refunds_in_the_status() {
        assert_eq!(captured(100, 0).dev_view().status, "CAPTURED");
        assert_eq!(captured(100, 40).dev_view().status, "PARTIALLY_REFUNDED");
        assert_eq!(captured(100, 100).dev_view().status, "REFUNDED");
    }

    #[test]
    fn every_amount_has_the_digits_of_the_one_asked_for() {
        let payment = captured(100, 0);
        let view = payment.view("http://gateway");
        assert_eq!((view.amount.as_str(), view.refunded_amount.as_str()), ("100.00", "0.00"));
    }

    #[test]
    fn only_a_payment_that_waits_for_its_shopper_has_a_next_action() {
        let waiting = Payment { status: Status::RequiresAction, ..captured(0, 0) };
        let url = waiting.view("http://gateway/").next_action.expect("a redirect");
        assert_eq!(url, json!({ "type": "REDIRECT", "url": "http://gateway/pay/sbx_1" }));
        assert!(captured(100, 0).view("http://gateway").next_action.is_none());
    }

    #[test]
    fn amounts_are_positive_decimal_strings() {
        for bad in ["", "0", "-1.00", "1e3", "ten", "1.2345"] {
            assert!(parse_amount(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(parse_amount("59050.00").expect("an amount").to_string(), "59050.00");
    }
}
