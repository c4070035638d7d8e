//! Sending back what a run has claimed: until it has arrived, or a person has paid it instead.

use std::{sync::Arc, time::Duration};

use domain::{
    ids::OrderId,
    money::{Money, to_wire},
    notification::StaffReport,
    ports::{GatewayError, GatewayRefund, PaymentGateway},
};
use engine::{
    Call, CallContext, Dependency, Forward, Result, RetryPolicy, SetResult, SetStep, SetTx, Start, StepError, done,
    legible,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    PATIENT, RefundRequest,
    desk::{DECIDED, Decided, Decision},
};
use crate::{
    Shop,
    desk::Desk,
    notification::{Notice, Notification, Refunded},
    store::{
        orders,
        refunds::{self, DueRefund, PaidBack},
    },
};

/// How often the staff hears again of a refund that was refused and that nobody has decided about.
const STAFF_PATIENCE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Sends back what this run has claimed, however long that takes, settles each refund, and tells the
/// shopper. Cash is not sent: it is recorded as paid back by hand. What the gateway refuses is FAILED, and
/// holds up no other; at the end the run waits until a person has had it sent again, or has paid it.
///
/// # Errors
/// Ends the turn, or parks the run as any step of a flow that only goes forward.
pub(crate) async fn give_back(
    flow: &mut Forward<'_>,
    shop: &Shop,
    request: &RefundRequest,
    due: &[DueRefund],
) -> Result<()> {
    let gateway = request.gateway.as_deref().and_then(|name| shop.gateway(name));
    let sending = Sending { order_id: request.order_id, gateway };
    let mut refused = Vec::new();
    for refund in due {
        let mut of_staff = OfStaff { refund, why: String::new(), told: 0 };
        if !sending.send(flow, &mut of_staff).await? {
            refused.push(of_staff);
        }
    }
    while !refused.is_empty() {
        let decided = flow.wait_for::<Decided>(DECIDED, STAFF_PATIENCE).await?;
        // Whoever decides has the order before this run, whose row we have heard at.
        flow.checkpoint().await?;
        match decided {
            Some(decided) => sending.follow(flow, &mut refused, decided).await?,
            None => {
                for of_staff in &mut refused {
                    sending.tell_staff(flow, of_staff).await?;
                }
            }
        }
    }
    Ok(())
}

/// A refund, and what the staff has heard of it so far.
struct OfStaff<'a> {
    refund: &'a DueRefund,
    /// What the gateway said last.
    why: String,
    told: u32,
}

/// What all refunds of a run have in common.
#[derive(Clone, Copy)]
struct Sending<'a> {
    order_id: OrderId,
    gateway: Option<&'a Arc<dyn PaymentGateway>>,
}

impl Sending<'_> {
    /// Sends one refund; false when the gateway has refused it, of which the staff hears each time.
    async fn send(&self, flow: &mut Forward<'_>, of_staff: &mut OfStaff<'_>) -> Result<bool> {
        let (order_id, refund) = (self.order_id, of_staff.refund);
        let sent = match &refund.gateway_payment_id {
            Some(payment_id) => {
                let (pool, desk) = (flow.pool().clone(), Desk::new(flow.pool(), self.gateway));
                Some(flow.call(SendRefund { order_id, refund, payment_id, desk: &desk, pool }).await?)
            }
            None => None,
        };
        let sent = match sent {
            Some(Sent::Accepted(sent)) => Some(sent),
            Some(Sent::Refused { why }) => {
                flow.tx(FailRefund { order_id, refund: refund.clone(), why: why.clone() }).await?;
                of_staff.why = why;
                self.tell_staff(flow, of_staff).await?;
                return Ok(false);
            }
            None => None,
        };
        flow.tx(SettleRefund { order_id, refund: refund.clone(), sent }).await?;
        self.tell(flow, refund).await?;
        Ok(true)
    }

    /// Does what a person has decided about one of those that were refused.
    async fn follow(&self, flow: &mut Forward<'_>, refused: &mut Vec<OfStaff<'_>>, decided: Decided) -> Result<()> {
        let Some(at) = refused.iter().position(|open| open.refund.refund_id == decided.refund_id) else {
            return Ok(());
        };
        let is_over = match decided.decision {
            Decision::Settle => {
                self.tell(flow, refused[at].refund).await?;
                true
            }
            Decision::Resend => self.send(flow, &mut refused[at]).await?,
        };
        if is_over {
            refused.remove(at);
        }
        Ok(())
    }

    async fn tell_staff(&self, flow: &mut Forward<'_>, of_staff: &mut OfStaff<'_>) -> Result<()> {
        of_staff.told += 1;
        let notice = refused(self.order_id, of_staff.refund, &of_staff.why, of_staff.told);
        flow.start(Start::<Notification>::new(notice.key(), &notice)).await?;
        Ok(())
    }

    async fn tell(&self, flow: &mut Forward<'_>, refund: &DueRefund) -> Result<()> {
        let refunded = Refunded { refund_id: refund.refund_id, order_id: self.order_id, amount: refund.amount };
        let notice = Notice::of_refund(refunded);
        flow.start(Start::<Notification>::new(notice.key(), &notice)).await?;
        Ok(())
    }
}

/// What the staff is told, each time the gateway refuses.
fn refused(order_id: OrderId, refund: &DueRefund, why: &str, time: u32) -> Notice {
    let DueRefund { refund_id, gateway_payment_id, amount, currency } = refund;
    let amount = to_wire(*amount, *currency);
    let payment = gateway_payment_id.as_deref().unwrap_or_default();
    let text = format!(
        "The gateway refuses to give money back, and it is owed all the same.\n\n\
         Refund: {refund_id}\nOrder: {order_id}\nPayment: {payment}\nAmount: {amount} {currency}\nWhy: {why}\n\n\
         Mend what it complains of and send it again (POST /api/refunds/{refund_id}/resend), or pay by other \
         means and say so (POST /api/refunds/{refund_id}/settle). Until then it waits.\n"
    );
    let id = Uuid::new_v5(refund_id, &time.to_be_bytes());
    let subject = format!("A refund of {amount} {currency} was refused");
    Notice::to_staff("refund.failed", StaffReport { id, subject, text })
}

/// What came of sending a refund.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Sent {
    /// The gateway gives it back.
    Accepted(GatewayRefund),
    /// It certainly does not.
    Refused {
        /// Its words.
        why: String,
    },
}

/// Sends one refund, those of a payment in the order they were claimed. Sent again after a refusal it has
/// another key: the call is another.
struct SendRefund<'a> {
    order_id: OrderId,
    refund: &'a DueRefund,
    payment_id: &'a str,
    desk: &'a Desk<'a>,
    pool: PgPool,
}

impl Call for SendRefund<'_> {
    const NAME: &'static str = "SendRefund";
    type Output = Sent;

    fn policy(&self) -> RetryPolicy {
        PATIENT
    }

    fn dependency(&self) -> Option<Dependency> {
        self.desk.dependency()
    }

    async fn run(&self, context: &CallContext) -> Result<Sent, StepError> {
        let gateway = self.desk.gateway()?;
        let amount = Money::rounded(self.refund.amount, self.refund.currency);
        let turn = {
            let mut conn = self.pool.acquire().await?;
            refunds::turn_of(&mut conn, self.refund).await?
        };
        if turn.must_wait {
            let why = "an earlier refund of this payment is not settled".to_owned();
            return Err(StepError::NotYet { why, after: context.patience() });
        }
        // A gateway forgets idempotency keys. Well before that we first ask whether it went through.
        let age = (context.now - context.intended_at).to_std().unwrap_or_default();
        if age > gateway.key_lifetime() / 2 {
            // Refusing to say whether is not refusing to give back.
            let found = gateway.find(self.order_id).await.map_err(|error| StepError::Unknown(error.into()))?;
            let refunded = found.iter().find(|found| found.gateway_payment_id == self.payment_id).map(|f| f.refunded);
            if refunded.is_some_and(|refunded| refunded >= turn.settled + amount.amount()) {
                // Its own id of it was in the answer that never came.
                let gateway_refund_id = format!("unheard-{}", context.idempotency_key);
                return Ok(Sent::Accepted(GatewayRefund { gateway_refund_id, amount }));
            }
        }
        match gateway.refund(context.idempotency_key, self.payment_id, &amount).await {
            Err(GatewayError::Refused { code, detail }) => {
                Ok(Sent::Refused { why: legible(&format!("{code}: {detail}")).into_owned() })
            }
            other @ (Ok(_)
            | Err(GatewayError::Unknown(_) | GatewayError::Busy { .. } | GatewayError::Misconfigured(_))) => {
                self.desk.read(other, context.now).await.map(Sent::Accepted)
            }
        }
    }
}

struct SettleRefund {
    order_id: OrderId,
    refund: DueRefund,
    /// By the gateway, as it says; otherwise in cash.
    sent: Option<GatewayRefund>,
}

impl SetStep for SettleRefund {
    const NAME: &'static str = "SettleRefund";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.order_id).collect(), tx.now());
        orders::lock_many(tx.conn(), &orders).await?;
        for row in rows {
            let paid = row.sent.as_ref().map_or(PaidBack::InCash, PaidBack::ByGateway);
            refunds::settle(tx.conn(), row.order_id, &row.refund, paid, now).await?;
        }
        done(rows)
    }
}

struct FailRefund {
    order_id: OrderId,
    refund: DueRefund,
    why: String,
}

impl SetStep for FailRefund {
    const NAME: &'static str = "FailRefund";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let now = tx.now();
        for FailRefund { order_id, refund, why } in rows {
            refunds::fail(tx.conn(), *order_id, refund, why, now).await?;
            metrics::counter!("cart_engine_refunds_failed_total").increment(1);
        }
        done(rows)
    }
}
