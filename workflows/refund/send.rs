//! Sending back what a run has claimed: until it has arrived, or a person has paid it instead.

use std::{sync::Arc, time::Duration};

use domain::{
    ids::OrderId,
    money::{Money, to_wire},
    notification::StaffReport,
    ports::{GatewayError, GatewayRefund, GatewayRefundStatus, ListedRefund, Operation, PaymentGateway, RefundOrder},
};
use engine::{
    Call, CallContext, Dependency, Forward, Result, RetryPolicy, SetResult, SetStep, SetTx, Start, StepError, done,
    legible,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    PATIENT, RefundRequest,
    desk::{Decision, NEWS, News},
};
use crate::{
    Shop,
    desk::Desk,
    notification::{Notice, Notification, Refunded},
    store::{
        disputes::Contested,
        orders,
        refunds::{self, DueRefund, PaidBack, otherwise},
    },
};

/// How often the staff hears again of a refund that was refused and that nobody has decided about.
const STAFF_PATIENCE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often the gateway is asked of a refund that it has in hand; its webhook may be lost.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sends back what this run has claimed, however long that takes, settles each refund, and tells the
/// shopper. Cash is not sent: it is recorded as paid back by hand. What the gateway refuses, at once or
/// days later, is FAILED, and holds up no other, unless the money has gone back already: given back on the gateway's own
/// site, or taken by the shopper's bank. Nothing is sent of a payment that the bank still wants back. The run waits
/// until the gateway has ended the rest, and until a person has had each of those that are FAILED sent again, or has
/// paid it.
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
    let mut open = Vec::new();
    for refund in due {
        let mut going = Going { refund: refund.clone(), stands: Stands::Refused, why: String::new(), told: 0 };
        if let Some(why) = came_back(request, refund) {
            // Nobody sends it again by themselves.
            going.why = why;
            sending.tell_staff(flow, &mut going).await?;
            open.push(going);
        } else if !sending.send(flow, &mut going).await? {
            open.push(going);
        }
    }
    while !open.is_empty() {
        let is_moving = open.iter().any(|going| going.stands != Stands::Refused);
        let news = flow.wait_for::<News>(NEWS, if is_moving { DAY } else { STAFF_PATIENCE }).await?;
        // Whoever decides has the order before this run, whose row we have heard at.
        flow.checkpoint().await?;
        match news {
            Some(news) => sending.follow(flow, &mut open, news).await?,
            None if is_moving => {
                for at in (0..open.len()).rev() {
                    if sending.go_on(flow, &mut open[at]).await? {
                        open.remove(at);
                    }
                }
            }
            None => {
                for going in &mut open {
                    sending.tell_staff(flow, going).await?;
                }
            }
        }
    }
    Ok(())
}

/// Where a refund stands that has not arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// The gateway has it in hand.
    UnderWay,
    /// It waits for how something else ends that may give back the same money.
    Waits,
    /// The gateway refuses it, and a person is to decide.
    Refused,
}

/// A refund on its way.
struct Going {
    refund: DueRefund,
    stands: Stands,
    /// What the gateway said last.
    why: String,
    /// How often the staff has heard of it.
    told: u32,
}

/// What all refunds of a run have in common.
#[derive(Clone, Copy)]
struct Sending<'a> {
    order_id: OrderId,
    gateway: Option<&'a Arc<dyn PaymentGateway>>,
}

impl Sending<'_> {
    /// Sends one refund; true when it has arrived.
    async fn send(&self, flow: &mut Forward<'_>, going: &mut Going) -> Result<bool> {
        // Ends: each time is further from the one before, or over less; and the journal is finite.
        for time in 0_u32.. {
            let Some(order) = self.order(&going.refund) else { return self.settle(flow, &going.refund, None).await };
            let desk = Desk::new(flow.pool(), self.gateway);
            match flow.call(SendRefund { order: &order, desk: &desk }).await? {
                Sent::Accepted(sent) => return self.come_to(flow, going, sent).await,
                Sent::Waits { why } => {
                    tracing::info!(order_id = %self.order_id, refund_id = %order.refund_id, why, "a refund waits");
                    going.stands = Stands::Waits;
                    return Ok(false);
                }
                Sent::Refused { why, made } => match self.refused(flow, going, why, made).await? {
                    // A part of it has gone back otherwise: the rest is another call.
                    Refused::InPart => {}
                    Refused::Whole => return Ok(false),
                    Refused::GoneBack => return Ok(true),
                },
                Sent::NotNow { why, after_s } => {
                    tracing::info!(order_id = %self.order_id, refund_id = %order.refund_id, why, "a refund must wait");
                    flow.sleep(LATER, later(after_s, time)).await?;
                }
            }
        }
        Ok(false)
    }

    /// What the gateway is asked for; none for cash.
    fn order(&self, refund: &DueRefund) -> Option<RefundOrder> {
        Some(RefundOrder {
            refund_id: refund.refund_id,
            order_id: self.order_id,
            gateway_payment_id: refund.gateway_payment_id.clone()?,
            amount: Money::rounded(refund.amount, refund.currency),
        })
    }

    /// Does what the gateway's word on a refund leads to; true when it has arrived.
    async fn come_to(&self, flow: &mut Forward<'_>, going: &mut Going, sent: GatewayRefund) -> Result<bool> {
        match sent.status {
            GatewayRefundStatus::Succeeded => self.settle(flow, &going.refund, Some(sent)).await,
            GatewayRefundStatus::Pending => {
                going.stands = Stands::UnderWay;
                flow.tx(NoteRefund { refund_id: going.refund.refund_id, sent }).await?;
                Ok(false)
            }
            GatewayRefundStatus::Failed => {
                let why = sent.failure.unwrap_or_else(|| "it did not go through".to_owned());
                match self.refused(flow, going, why, Vec::new()).await? {
                    Refused::GoneBack => Ok(true),
                    Refused::InPart => Box::pin(self.send(flow, going)).await,
                    Refused::Whole => Ok(false),
                }
            }
        }
    }

    async fn settle(&self, flow: &mut Forward<'_>, refund: &DueRefund, sent: Option<GatewayRefund>) -> Result<bool> {
        flow.tx(SettleRefund { order_id: self.order_id, refund: refund.clone(), sent }).await?;
        self.tell(flow, refund).await?;
        Ok(true)
    }

    /// The gateway says no. If that is because of what has gone back otherwise, of which `made` is what it lists, the
    /// refund gives way to that; otherwise the staff hears of it, each time.
    async fn refused(
        &self,
        flow: &mut Forward<'_>,
        going: &mut Going,
        why: String,
        made: Vec<ListedRefund>,
    ) -> Result<Refused> {
        let (order_id, refund) = (self.order_id, going.refund.clone());
        let rest = flow.tx(FailRefund { order_id, refund, why: why.clone(), made }).await?;
        let Some(rest) = rest else {
            (going.why, going.stands) = (why, Stands::Refused);
            self.tell_staff(flow, going).await?;
            return Ok(Refused::Whole);
        };
        let notice = gone_back(order_id, &going.refund, rest);
        flow.start(Start::<Notification>::new(notice.key(), &notice)).await?;
        going.refund.amount = rest;
        Ok(if rest.is_zero() { Refused::GoneBack } else { Refused::InPart })
    }

    /// Does what a day without news asks for; true when the refund has arrived.
    async fn go_on(&self, flow: &mut Forward<'_>, going: &mut Going) -> Result<bool> {
        match going.stands {
            Stands::UnderWay => self.ask(flow, going).await,
            Stands::Waits => self.send(flow, going).await,
            Stands::Refused => Ok(false),
        }
    }

    /// Asks the gateway about a refund that it has in hand; true when it has arrived.
    async fn ask(&self, flow: &mut Forward<'_>, going: &mut Going) -> Result<bool> {
        let Some(order) = self.order(&going.refund) else { return Ok(false) };
        let desk = Desk::new(flow.pool(), self.gateway);
        match flow.call(FindRefund { order: &order, desk: &desk }).await? {
            Some(found) if found.status != GatewayRefundStatus::Pending => self.come_to(flow, going, found).await,
            Some(_) | None => Ok(false),
        }
    }

    /// Does what is to be done about one of those that have not arrived.
    async fn follow(&self, flow: &mut Forward<'_>, open: &mut Vec<Going>, news: News) -> Result<()> {
        let Some(at) = open.iter().position(|going| going.refund.refund_id == news.refund_id) else {
            return Ok(());
        };
        let has_arrived = match news.decision {
            Some(Decision::Settle) => {
                self.tell(flow, &open[at].refund).await?;
                true
            }
            Some(Decision::Resend) => self.send(flow, &mut open[at]).await?,
            None => self.go_on(flow, &mut open[at]).await?,
        };
        if has_arrived {
            open.remove(at);
        }
        Ok(())
    }

    async fn tell_staff(&self, flow: &mut Forward<'_>, going: &mut Going) -> Result<()> {
        going.told += 1;
        let notice = refused(self.order_id, &going.refund, &going.why, going.told);
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

/// Why a refund that was taken up is the staff's: none of one that is sent.
fn came_back(request: &RefundRequest, refund: &DueRefund) -> Option<String> {
    (request.taken_up == Some(refund.refund_id) && !request.is_sent).then(|| request.reason.clone())
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
         means and have an admin say so (POST /api/refunds/{refund_id}/settle). Until then it waits.\n"
    );
    let id = Uuid::new_v5(refund_id, &time.to_be_bytes());
    let subject = format!("A refund of {amount} {currency} was refused");
    Notice::to_staff("refund.failed", StaffReport { id, subject, text })
}

/// What the staff is told when a refund was not needed, or not all of it.
fn gone_back(order_id: OrderId, refund: &DueRefund, rest: Decimal) -> Notice {
    let DueRefund { refund_id, gateway_payment_id, amount, currency } = refund;
    let (gone, rest) = (to_wire(*amount - rest, *currency), to_wire(rest, *currency));
    let payment = gateway_payment_id.as_deref().unwrap_or_default();
    let text = format!(
        "Of what was to be given back, some had gone back already: on the gateway's own site, or the shopper's bank took \
         it. It is booked, and not sent again.\n\nRefund: {refund_id}\nOrder: {order_id}\nPayment: {payment}\n\
         Gone back: {gone} {currency}\nStill to be sent: {rest} {currency}\n"
    );
    let id = Uuid::new_v5(refund_id, format!("gone back/{rest}").as_bytes());
    let subject = format!("{gone} {currency} of a refund had gone back already");
    Notice::to_staff("refund.booked", StaffReport { id, subject, text })
}

/// What a refusal comes to.
enum Refused {
    /// A person is to decide.
    Whole,
    /// Some of it has gone back otherwise, and the rest is to be sent.
    InPart,
    /// All of it has.
    GoneBack,
}

/// What came of sending a refund.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Sent {
    /// The gateway has it.
    Accepted(GatewayRefund),
    /// It certainly does not give it back.
    Refused {
        /// Its words.
        why: String,
        /// Every refund that it knows of the payment.
        made: Vec<ListedRefund>,
    },
    /// Something else may give back the same money, and has not ended.
    Waits {
        /// What.
        why: String,
    },
    /// It certainly has not, and may another time.
    NotNow {
        /// Its words.
        why: String,
        /// When to ask again, in seconds.
        after_s: u64,
    },
}

/// The pause before a refund is sent again that could not be sent.
const LATER: &str = "refund-later";

/// How long that is: as the gateway says at first, and twice as long each time, up to a day.
fn later(after_s: u64, time: u32) -> Duration {
    Duration::from_secs(after_s.max(1).saturating_mul(1 << time.min(16))).min(DAY)
}

/// How long an answer may be awaited under a key before the gateway is asked whether there is a refund.
const ASK_AFTER: Duration = Duration::from_secs(30);
/// Where none was made in so long, and the gateway fails under this key as it failed before, the refund is sent
/// under another: gateways give a stored failure again as long as they know its key.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(600);

/// Sends one refund. Sent again after a definite no it has another key: the call is another.
struct SendRefund<'a> {
    order: &'a RefundOrder,
    desk: &'a Desk<'a>,
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
        let Contested { is_open, unbooked } = self.desk.contested(self.order).await?;
        let is_contested = is_open || unbooked > Decimal::ZERO;
        let age = (context.now - context.intended_at).to_std().unwrap_or_default();
        if is_contested || age > ASK_AFTER.min(gateway.key_lifetime(Operation::Refund) / 2) {
            // Refusing to say whether is not refusing to give back.
            let found = gateway.find_refund(self.order).await.map_err(|error| StepError::Unknown(error.into()))?;
            // One that has failed says nothing of another that is to be sent.
            if let Some(found) = found.filter(|found| !is_contested || found.status != GatewayRefundStatus::Failed) {
                return Ok(Sent::Accepted(found));
            }
        }
        if is_open {
            return Ok(Sent::Waits { why: "the shopper's bank wants the money back".to_owned() });
        }
        if is_contested {
            let why = "dispute-lost: the shopper's bank has taken it".to_owned();
            return Ok(Sent::Refused { why, made: Vec::new() });
        }
        match gateway.refund(context.idempotency_key, self.order).await {
            Err(GatewayError::Refused { code, detail }) => {
                // There may be nothing left because somebody has given it back elsewhere.
                let made = gateway.refunds(&self.order.gateway_payment_id).await;
                let made = match made {
                    Err(GatewayError::Refused { .. }) => Vec::new(),
                    made => self.desk.read(made, context.now).await?,
                };
                let why = legible(&format!("{code}: {detail}")).into_owned();
                let is_elsewhere = |one: &ListedRefund| one.refund_id.is_none();
                let is_pending = |one: &ListedRefund| one.refund.status == GatewayRefundStatus::Pending;
                Ok(if made.iter().any(|one| is_elsewhere(one) && is_pending(one)) {
                    Sent::Waits { why: format!("somebody is giving it back at the gateway: {why}") }
                } else {
                    Sent::Refused { why, made }
                })
            }
            Err(GatewayError::NotNow { code, detail, after_s }) => {
                Ok(Sent::NotNow { why: legible(&format!("{code}: {detail}")).into_owned(), after_s })
            }
            Err(GatewayError::Unknown(why)) if age > GIVEN_UP_AFTER => {
                Ok(Sent::NotNow { why: legible(&why).into_owned(), after_s: ASK_AFTER.as_secs() })
            }
            other @ (Ok(_)
            | Err(GatewayError::Unknown(_) | GatewayError::Busy { .. } | GatewayError::Misconfigured(_))) => {
                self.desk.read(other, context.now).await.map(Sent::Accepted)
            }
        }
    }
}

/// Asks how a refund stands that the gateway has in hand.
struct FindRefund<'a> {
    order: &'a RefundOrder,
    desk: &'a Desk<'a>,
}

impl Call for FindRefund<'_> {
    const NAME: &'static str = "FindRefund";
    type Output = Option<GatewayRefund>;

    fn policy(&self) -> RetryPolicy {
        PATIENT
    }

    fn dependency(&self) -> Option<Dependency> {
        self.desk.dependency()
    }

    async fn run(&self, context: &CallContext) -> Result<Option<GatewayRefund>, StepError> {
        match self.desk.gateway()?.find_refund(self.order).await {
            Err(error @ GatewayError::Refused { .. }) => Err(StepError::Unknown(error.into())),
            other => self.desk.read(other, context.now).await,
        }
    }
}

/// The gateway has it in hand.
struct NoteRefund {
    refund_id: Uuid,
    sent: GatewayRefund,
}

impl SetStep for NoteRefund {
    const NAME: &'static str = "NoteRefund";
    type Output = ();

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let (now, sent) = (tx.now(), rows.iter().map(|row| (row.refund_id, &row.sent)).collect::<Vec<_>>());
        refunds::note_sent(tx.conn(), &sent, now).await?;
        done(rows)
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
            let paid = row.sent.as_ref().map_or(PaidBack::InCash, |sent| PaidBack::ByGateway(&sent.gateway_refund_id));
            refunds::settle(tx.conn(), row.order_id, &row.refund, paid, now).await?;
        }
        done(rows)
    }
}

/// The gateway has refused it: it is FAILED, unless some of it has gone back otherwise, of which `made` is what the
/// gateway lists. Then it is over what is left.
struct FailRefund {
    order_id: OrderId,
    refund: DueRefund,
    why: String,
    made: Vec<ListedRefund>,
}

impl SetStep for FailRefund {
    const NAME: &'static str = "FailRefund";
    /// What is still to be sent; none of one that is FAILED.
    type Output = Option<Decimal>;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Option<Decimal>> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.order_id).collect(), tx.now());
        orders::lock_many(tx.conn(), &orders).await?;
        let mut results = Vec::with_capacity(rows.len());
        for FailRefund { order_id, refund, why, made } in rows {
            let rest = otherwise::give_way(tx.conn(), *order_id, refund, made, now).await?;
            if rest.is_none() {
                refunds::fail(tx.conn(), *order_id, refund, why, now).await?;
                metrics::counter!("cart_engine_refunds_failed_total").increment(1);
            }
            results.push(Ok(rest));
        }
        Ok(results)
    }
}
