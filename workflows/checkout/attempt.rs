//! More than one try to pay: a declined payment leaves the order PENDING, and its run waits, holding no
//! worker, for the shopper to send another.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    ids::OrderId,
    money::Money,
    payment::PaymentMethod,
    ports::{GatewayPayment, Unsupported},
};
use engine::{
    Failure, Flow, Nothing, Result as FlowResult, RunStatus, SetResult, SetStep, SetTx, Start, done,
    run::{self, Delivery},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Request;
use crate::{
    Shop,
    refund::{RefundPayment, RefundRequest},
    store::attempts,
};

/// The signal another try becomes.
pub const SIGNAL: &str = "attempt";

/// One try to pay an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// How it is paid.
    pub method: PaymentMethod,
    /// The gateway's token for what the shopper pays with; never a card number.
    pub token: Option<String>,
}

impl Attempt {
    /// The one the checkout came with.
    pub(super) fn first(request: &Request) -> Self {
        Attempt { number: 1, method: request.payment_method, token: request.payment_token.clone() }
    }

    /// The attempt after this one, which was declined, if the shopper sends one while the payment window
    /// is open. Without, or when all are used up, the decline stands.
    pub(super) async fn next(
        self,
        flow: &mut Flow,
        request: &Request,
        window: Window,
        intent: &GatewayPayment,
        declined: Failure,
    ) -> FlowResult<Attempt> {
        if declined.code != "payment-declined" || request.payment_attempts <= 1 {
            return Err(declined);
        }
        if self.number >= request.payment_attempts {
            // What was tried is on record, also when the rest of its commit is not to be.
            flow.checkpoint().await?;
            return Err(declined);
        }
        let decline = RecordDecline {
            order_id: request.order_id,
            number: self.number,
            gateway_payment_id: intent.gateway_payment_id.clone(),
            why: declined.detail.clone(),
        };
        flow.tx(decline).undo(Nothing).await?;
        flow.wait_until(SIGNAL, window.closes).await?.ok_or(declined)
    }
}

/// When the phase of payment is over, whatever the gateway does: counted from when the stock was held.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// The first attempt is to be paid by then, and others are to be begun.
    closes: DateTime<Utc>,
    /// A later attempt is to be paid by then.
    hold_ends: DateTime<Utc>,
}

/// The least time a silent gateway is asked how a payment has ended.
const CLOSING: TimeDelta = TimeDelta::seconds(30);

impl Window {
    pub(super) fn new(held_since: DateTime<Utc>, window: Duration, hold: Duration) -> Self {
        let after = |duration| held_since + TimeDelta::from_std(duration).unwrap_or(TimeDelta::days(365));
        Window { closes: after(window), hold_ends: after(hold.max(window)) }
    }

    /// Until when this attempt may be paid.
    pub(super) fn until(self, attempt: u32) -> DateTime<Utc> {
        if attempt == 1 { self.closes } else { self.hold_ends }
    }

    /// Until when the gateway is asked how this attempt has ended: for the first, no longer than the
    /// stock is held.
    pub(super) fn close_by(self, attempt: u32) -> DateTime<Utc> {
        self.until(attempt) + (self.hold_ends - self.closes).max(CLOSING)
    }
}

/// This attempt is FAILED and said so; the order waits for another.
struct RecordDecline {
    order_id: OrderId,
    number: u32,
    gateway_payment_id: String,
    why: String,
}

impl SetStep for RecordDecline {
    const NAME: &'static str = "RecordDecline";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        for RecordDecline { order_id, number, gateway_payment_id, why } in rows {
            attempts::record_decline(tx.conn(), *order_id, *number, gateway_payment_id, why, now).await?;
        }
        done(rows)
    }
}

/// Money of an earlier attempt may have come late, unheard while a later one was under way: what the
/// order does not stand for goes back.
pub(super) fn refund_of_earlier(request: &Request) -> FlowResult<Start<RefundPayment>> {
    let reason = "an earlier attempt to pay".to_owned();
    let refund = RefundRequest::everything(request.order_id, Some(request.gateway.clone()), reason);
    Start::new(format!("{}/earlier", request.order_id), &refund)
}

/// Another try, as the shopper sends it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The order.
    pub order_id: OrderId,
    /// What the shopper means to pay, in major units of the order's currency.
    pub amount: Decimal,
    /// How.
    pub method: PaymentMethod,
    /// The gateway's token; never a card number.
    pub token: Option<String>,
}

/// Why an order takes no other payment now.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// It is not, or not any more, waiting to be paid.
    #[error("the order is not waiting for a payment")]
    NotPending,
    /// A payment is under way.
    #[error("a payment for this order is under way")]
    InProgress,
    /// The shop allows no more.
    #[error("the order may not be paid for again")]
    UsedUp,
    /// The gateway cannot collect it that way.
    #[error("it cannot be paid that way: {0}")]
    Unsupported(#[from] Unsupported),
    /// It is not what the order costs.
    #[error("{} {} is due", .due.amount(), .due.currency())]
    AmountMismatch {
        /// What it costs.
        due: Money,
    },
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Hands another try to the checkout that waits for it; returns that run. Decided under the run's lock:
/// of two tries at the same time one is taken.
///
/// # Errors
/// [`OfferError`]; nothing is written then.
pub async fn offer(conn: &mut PgConnection, shop: &Shop, offer: Offer) -> Result<Uuid, OfferError> {
    let order = attempts::payable(conn, offer.order_id).await?.ok_or(OfferError::NotFound)?;
    if order.status != "PENDING" {
        return Err(OfferError::NotPending);
    }
    if offer.amount != order.total.amount() {
        return Err(OfferError::AmountMismatch { due: order.total });
    }
    let run = run::lock(conn, order.checkout_run_id).await?.ok_or(OfferError::NotPending)?;
    if run.status == RunStatus::Compensating || run.is_asked_to_stop {
        return Err(OfferError::NotPending);
    }
    let made = attempts::made(conn, offer.order_id).await?;
    if run.status != RunStatus::Waiting || run.waiting_for.as_deref() != Some(SIGNAL) {
        let allowed = run.input["paymentAttempts"].as_u64().unwrap_or(1);
        let is_used_up = u64::from(made.count) >= allowed && !made.is_open;
        return Err(if is_used_up { OfferError::UsedUp } else { OfferError::InProgress });
    }
    if let Some(gateway) = run.input["gateway"].as_str().and_then(|name| shop.gateway(name)) {
        gateway.accepts(offer.method, &order.total)?;
    }
    let number = made.count + 1;
    let attempt = Attempt { number, method: offer.method, token: offer.token };
    match run::signal(conn, order.checkout_run_id, SIGNAL, &number.to_string(), &attempt).await? {
        Delivery::Delivered => Ok(order.checkout_run_id),
        Delivery::Duplicate => Err(OfferError::InProgress),
        Delivery::Finished | Delivery::Refused | Delivery::Unknown | Delivery::Invalid => Err(OfferError::NotPending),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_gateway_is_asked_no_longer_than_the_stock_is_held() {
        let held = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let window = Window::new(held, Duration::from_secs(480), Duration::from_secs(600));
        assert_eq!(window.until(1), held + TimeDelta::seconds(480));
        assert_eq!(window.close_by(1), held + TimeDelta::seconds(600));
        assert_eq!(window.until(2), held + TimeDelta::seconds(600));
        let narrow = Window::new(held, Duration::from_secs(480), Duration::from_secs(480));
        assert_eq!(narrow.close_by(1), held + TimeDelta::seconds(480) + CLOSING);
    }
}
