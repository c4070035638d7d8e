//! More than one try to pay: a declined payment leaves the order PENDING, and its run waits, holding no
//! worker, for the shopper to send another.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{ids::OrderId, money::Money, payment::PaymentMethod, ports::GatewayPayment};
use engine::{Delivery, Failure, Flow, Nothing, Result as FlowResult, Start, Step, StepError, Tx};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Request,
    pay::{self, PaymentOutcome},
};
use crate::{
    Rules,
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

    /// Waits for word of this attempt's payment. A later attempt has until the stock is no longer held;
    /// what is said late of an earlier one is not about it.
    pub(super) async fn wait(
        &self,
        flow: &mut Flow,
        rules: &Rules,
        earlier: &[String],
    ) -> FlowResult<Option<PaymentOutcome>> {
        if self.number == 1 {
            return flow.wait_for(pay::SIGNAL, rules.payment_window()).await;
        }
        let until = after(flow.started_at(), rules.hold());
        loop {
            // Ends: each payment has at most two ends to be told of.
            match flow.wait_until::<PaymentOutcome>(pay::SIGNAL, until).await? {
                Some(outcome) if earlier.contains(&outcome.gateway_payment_id) => {}
                heard => return Ok(heard),
            }
        }
    }

    /// The attempt after this one, which was declined, if the shopper sends one while the payment window
    /// is open. Without, or when all are used up, the decline stands.
    pub(super) async fn next(
        self,
        flow: &mut Flow,
        request: &Request,
        rules: &Rules,
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
        let decline = RecordDecline { order_id: request.order_id, number: self.number, intent, why: &declined.detail };
        flow.tx(decline).undo(Nothing).await?;
        let until = after(flow.started_at(), rules.payment_window());
        flow.wait_until(SIGNAL, until).await?.ok_or(declined)
    }
}

fn after(start: DateTime<Utc>, window: std::time::Duration) -> DateTime<Utc> {
    start + TimeDelta::from_std(window).unwrap_or(TimeDelta::MAX)
}

/// This attempt is FAILED and said so; the order waits for another.
struct RecordDecline<'a> {
    order_id: OrderId,
    number: u32,
    intent: &'a GatewayPayment,
    why: &'a str,
}

impl Step for RecordDecline<'_> {
    const NAME: &'static str = "RecordDecline";
    type Output = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StepError> {
        let now = tx.now();
        let payment_id = &self.intent.gateway_payment_id;
        attempts::record_decline(tx.conn(), self.order_id, self.number, payment_id, self.why, now).await?;
        Ok(())
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

/// Hands another try to the checkout that waits for it; answers that run. Decided under the run's lock:
/// of two tries at the same time one is taken.
///
/// # Errors
/// [`OfferError`]; nothing is written then.
pub async fn offer(conn: &mut PgConnection, offer: Offer) -> Result<Uuid, OfferError> {
    let order = attempts::payable(conn, offer.order_id).await?.ok_or(OfferError::NotFound)?;
    if order.status != "PENDING" {
        return Err(OfferError::NotPending);
    }
    if offer.amount != order.total.amount() {
        return Err(OfferError::AmountMismatch { due: order.total });
    }
    let run = attempts::lock_run(conn, order.checkout_run_id).await?.ok_or(OfferError::NotPending)?;
    if run.is_giving_up {
        return Err(OfferError::NotPending);
    }
    let made = attempts::made(conn, offer.order_id).await?;
    if !run.waits_for_attempt {
        let is_used_up = made.count >= run.allowed && !made.is_open;
        return Err(if is_used_up { OfferError::UsedUp } else { OfferError::InProgress });
    }
    let number = made.count + 1;
    let attempt = Attempt { number, method: offer.method, token: offer.token };
    match engine::signal(conn, order.checkout_run_id, SIGNAL, &number.to_string(), &attempt).await? {
        Delivery::Delivered => Ok(order.checkout_run_id),
        Delivery::Duplicate => Err(OfferError::InProgress),
        Delivery::Finished | Delivery::Refused | Delivery::Unknown => Err(OfferError::NotPending),
    }
}
