//! What a gateway says after its answer: duplicates, out of order, late, or about nothing we know.

use chrono::TimeDelta;
use domain::{
    ids::OrderId,
    money::{Money, to_wire},
    notification::StaffReport,
    payment::DisputeStatus,
    ports::{WebhookEvent, WebhookKind, WebhookSubject},
    refund::RefundStatus,
};
use engine::{Failure, Start, run::Delivery};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::pay::{PaymentOutcome, SIGNAL, Word};
use crate::{
    notification::Notice,
    refund::{
        RefundPayment, RefundRequest,
        desk::{Decision, NEWS, News},
    },
    store::{
        disputes::{self, Dispute},
        orders,
        payments::{self, OrderOfPayment},
        reconciliation::checks,
        refunds::{
            self, Booking, DueRefund, Elsewhere,
            otherwise::{self, Then},
        },
        webhook_inbox,
    },
};

/// It is about an order, or a payment, that we do not know: it is tried again for a while, and then the staff's.
pub const UNMATCHED: &str = "UNMATCHED";
/// It was rightly signed, and says nothing that we understand.
pub const UNREADABLE: &str = "UNREADABLE";

/// Times an event that found no order is tried again before it is a person's: for eight hours and a half.
pub(crate) const TIMES: i32 = 9;

/// How long after it has been tried so many times an event is tried again: a minute at first, and each time
/// twice as long.
pub(crate) fn delay(time: i32) -> TimeDelta {
    TimeDelta::minutes(2_i64.pow(u32::try_from(time.clamp(0, TIMES)).unwrap_or_default()))
}

/// Keeps a verified event, and hands it to whom it concerns, in one transaction. Returns what became of it;
/// none when it was kept before.
///
/// # Errors
/// The database's own.
pub async fn keep(
    conn: &mut PgConnection,
    gateway: &str,
    event: &WebhookEvent,
    raw: &Value,
) -> Result<Option<&'static str>, sqlx::Error> {
    if !webhook_inbox::keep(conn, gateway, &event.event_id, Some(event), raw).await? {
        return Ok(None);
    }
    let outcome = receive(conn, gateway, event).await?;
    let try_at = if outcome == UNMATCHED {
        metrics::counter!("cart_engine_webhooks_unmatched_total", "gateway" => gateway.to_owned()).increment(1);
        Some(engine::now(&mut *conn).await? + delay(0))
    } else {
        None
    };
    webhook_inbox::record_outcome(conn, gateway, &event.event_id, outcome, try_at).await?;
    Ok(Some(outcome))
}

/// Keeps what was rightly signed and cannot be read, and tells the staff of it, once a gateway and day. False
/// when it was kept before.
///
/// # Errors
/// The database's own.
pub async fn keep_unreadable(
    conn: &mut PgConnection,
    gateway: &str,
    event_id: &str,
    why: &str,
    raw: &Value,
) -> Result<bool, sqlx::Error> {
    if !webhook_inbox::keep(conn, gateway, event_id, None, raw).await? {
        return Ok(false);
    }
    metrics::counter!("cart_engine_webhooks_unreadable_total", "gateway" => gateway.to_owned()).increment(1);
    let day = engine::now(&mut *conn).await?.date_naive();
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{gateway}/{day}").as_bytes());
    let subject = format!("The gateway {gateway} says what the shop does not understand");
    let text = format!(
        "A webhook was rightly signed, and is of no shape that the shop knows. It was kept; nothing came of it.\n\n\
         Gateway: {gateway}\nEvent: {event_id}\nWhy: {why}\n\n\
         `cart-engine inspect money` shows it, and what else came that day.\n"
    );
    Notice::to_staff("webhook.unreadable", StaffReport { id, subject, text }).tell(conn).await?;
    Ok(true)
}

/// Turns what a gateway says into a signal for the run it concerns, in the caller's transaction.
/// Money for an order that is not to be had starts a refund. Returns what became of it.
pub async fn receive(
    conn: &mut PgConnection,
    gateway: &str,
    event: &WebhookEvent,
) -> Result<&'static str, sqlx::Error> {
    hear(conn, gateway, event, false).await
}

/// The same of what was found while the order's books are compared with the gateway: what does not fit does not have
/// them compared once more.
pub(crate) async fn receive_compared(
    conn: &mut PgConnection,
    gateway: &str,
    event: &WebhookEvent,
) -> Result<&'static str, sqlx::Error> {
    hear(conn, gateway, event, true).await
}

async fn hear(
    conn: &mut PgConnection,
    gateway: &str,
    event: &WebhookEvent,
    is_compared: bool,
) -> Result<&'static str, sqlx::Error> {
    if matches!(event.kind, WebhookKind::Other(_)) {
        return Ok("IGNORED");
    }
    // Whose payment it is we know best ourselves; of one whose answer never came only the gateway knows.
    let known = payments::order_by_payment(conn, gateway, &event.gateway_payment_id).await?;
    let Some(order_id) = known.or(event.order_id) else { return Ok(UNMATCHED) };
    let Some(order) = payments::order_of(conn, order_id).await? else { return Ok(UNMATCHED) };
    let said = Said { gateway, event, order_id, order, is_compared };
    match &event.kind {
        // Of how much it does not say, and it is no decline: the gateway is asked.
        WebhookKind::PaymentCaptured if event.amount.is_none() => said.compare_again(conn).await,
        WebhookKind::PaymentCaptured => said.captured(conn, event.amount.clone()).await,
        WebhookKind::PaymentFailed => said.failed(conn).await,
        WebhookKind::PaymentApproved | WebhookKind::PaymentAuthorized => said.agreed(conn).await,
        WebhookKind::PaymentClosed => said.look(conn, "closed").await,
        WebhookKind::RefundPending | WebhookKind::RefundSucceeded | WebhookKind::RefundFailed => {
            said.of_refund(conn).await
        }
        WebhookKind::DisputeOpened => said.disputed(conn, DisputeStatus::Opened).await,
        WebhookKind::DisputeWon => said.disputed(conn, DisputeStatus::Won).await,
        WebhookKind::DisputeLost => said.disputed(conn, DisputeStatus::Lost).await,
        WebhookKind::Other(_) => Ok("IGNORED"),
    }
}

/// Wakes the checkout of an order whose shopper has come back from the gateway's page: its run asks the gateway.
/// Nothing that the shopper, or whoever says to be them, brings along is believed. False when nobody waits.
///
/// # Errors
/// The database's own.
pub async fn returned(conn: &mut PgConnection, order_id: OrderId) -> Result<bool, sqlx::Error> {
    let Some(order) = payments::order_of(conn, order_id).await? else { return Ok(false) };
    if order.order_status != "PENDING" {
        return Ok(false);
    }
    // Whoever comes back again and again is heard once in ten seconds.
    let moment = engine::now(&mut *conn).await?.timestamp() / 10;
    let key = format!("returned/{moment}");
    let delivery = engine::run::signal(conn, order.checkout_run_id, SIGNAL, &key, &Word::Look).await?;
    Ok(delivery == Delivery::Delivered)
}

/// An event, and the order it is about.
struct Said<'a> {
    gateway: &'a str,
    event: &'a WebhookEvent,
    order_id: OrderId,
    order: OrderOfPayment,
    /// It was found in a comparison.
    is_compared: bool,
}

impl Said<'_> {
    /// Word of a payment that is not this checkout's neither confirms nor fails it, however well signed.
    fn is_of_another(&self) -> bool {
        self.order.order_status == "PENDING"
            && self.order.gateway_payment_id.as_ref().is_some_and(|own| *own != self.event.gateway_payment_id)
    }

    /// One payment ends once: its id and end are the signal's key, whatever the event's.
    async fn signal(&self, conn: &mut PgConnection, what: &str, word: &Word) -> Result<Delivery, sqlx::Error> {
        let key = format!("{}/{what}", self.event.gateway_payment_id);
        engine::run::signal(conn, self.order.checkout_run_id, SIGNAL, &key, word).await
    }

    /// The run is told to look.
    async fn look(&self, conn: &mut PgConnection, what: &str) -> Result<&'static str, sqlx::Error> {
        if self.is_of_another() || self.order.order_status != "PENDING" {
            return Ok("IGNORED");
        }
        Ok(told(self.signal(conn, what, &Word::Look).await?))
    }

    async fn failed(&self, conn: &mut PgConnection) -> Result<&'static str, sqlx::Error> {
        if self.is_of_another() {
            return Ok("IGNORED");
        }
        let outcome = PaymentOutcome {
            gateway_payment_id: self.event.gateway_payment_id.clone(),
            captured: None,
            failure: Some(self.event.failure.clone().unwrap_or_else(|| "declined".to_owned())),
            expired: false,
        };
        Ok(told(self.signal(conn, "failed", &Word::Ended(outcome)).await?))
    }

    /// The shopper has agreed: the run takes the money; without a run that does, it is let go.
    async fn agreed(&self, conn: &mut PgConnection) -> Result<&'static str, sqlx::Error> {
        if self.is_of_another() {
            return Ok("IGNORED");
        }
        let what = if self.event.kind == WebhookKind::PaymentApproved { "approved" } else { "authorized" };
        let delivery = self.signal(conn, what, &Word::Look).await?;
        if delivery != Delivery::Invalid && self.is_unwanted(conn, delivery).await? {
            return self.give_back(conn, "agreed").await;
        }
        Ok(told(delivery))
    }

    async fn captured(&self, conn: &mut PgConnection, captured: Option<Money>) -> Result<&'static str, sqlx::Error> {
        if self.is_of_another() {
            return Ok("IGNORED");
        }
        let gateway_payment_id = self.event.gateway_payment_id.clone();
        let outcome = PaymentOutcome { gateway_payment_id, captured, failure: None, expired: false };
        let delivery = self.signal(conn, "captured", &Word::Ended(outcome)).await?;
        if delivery != Delivery::Invalid && self.is_unwanted(conn, delivery).await? {
            return self.give_back(conn, "late").await;
        }
        Ok(told(delivery))
    }

    /// Whether nobody has a use for this money. The signal has locked the run's row, or the run has ended: what the
    /// order says now stays true.
    async fn is_unwanted(&self, conn: &mut PgConnection, delivery: Delivery) -> Result<bool, sqlx::Error> {
        let unwinding = engine::run::is_unwinding(conn, self.order.checkout_run_id).await?;
        let order = payments::order_of(conn, self.order_id).await?.unwrap_or_else(|| self.order.clone());
        Ok(match (order.order_status.as_str(), order.confirmed_by.as_deref()) {
            ("CANCELLED", _) => true,
            (_, Some(payment_id)) => payment_id != self.event.gateway_payment_id,
            (_, None) => match delivery {
                Delivery::Delivered | Delivery::Duplicate | Delivery::Refused => unwinding,
                Delivery::Finished | Delivery::Unknown | Delivery::Invalid => true,
            },
        })
    }

    /// Once for each word: what was only agreed to is let go of, and may be captured all the same.
    async fn give_back(&self, conn: &mut PgConnection, word: &str) -> Result<&'static str, sqlx::Error> {
        let is_paid = payments::order_of(conn, self.order_id).await?.is_some_and(|order| order.confirmed_by.is_some());
        let reason = if is_paid { "the order was paid already" } else { "the order is not to be had" };
        let everything = RefundRequest::everything(self.order_id, Some(self.gateway.to_owned()), reason.to_owned());
        let request = RefundRequest { gateway_payment_id: Some(self.event.gateway_payment_id.clone()), ..everything };
        let key = format!("{}/{word}/{}", self.order_id, self.event.gateway_payment_id);
        engine::start(conn, &Start::<RefundPayment>::new(key, &request).map_err(encoding)?).await?;
        Ok("STARTED_REFUND")
    }

    /// The word alone does not say what to do: the order's books are compared with the gateway.
    async fn compare_again(&self, conn: &mut PgConnection) -> Result<&'static str, sqlx::Error> {
        if !self.is_compared {
            checks::check_again(conn, self.order_id).await?;
        }
        Ok("COMPARED")
    }

    /// One of ours that is under way is looked at by its run; one that was made elsewhere is booked.
    async fn of_refund(&self, conn: &mut PgConnection) -> Result<&'static str, sqlx::Error> {
        let own = match &self.event.about {
            Some(about) => refunds::of_gateway(conn, self.order_id, about).await?,
            None => None,
        };
        // What was made elsewhere may stand there in part only.
        let Some(own) = own.filter(|own| !own.is_elsewhere) else { return self.elsewhere(conn).await };
        match (own.status, &self.event.kind) {
            // Its run has its answer, or will have.
            (RefundStatus::Pending, _) if !own.is_noted => Ok("IGNORED"),
            (RefundStatus::Pending, WebhookKind::RefundPending) => Ok("IGNORED"),
            (RefundStatus::Pending, kind) => {
                let how = if *kind == WebhookKind::RefundFailed { "failed" } else { "succeeded" };
                let key = format!("{}/{how}", own.refund_id);
                let news = News { refund_id: own.refund_id, decision: None };
                Ok(told(engine::run::signal(conn, own.run_id, NEWS, &key, &news).await?))
            }
            // Banks send some back long after they had arrived.
            (RefundStatus::Succeeded, WebhookKind::RefundFailed) if own.is_latest => self.came_back(conn).await,
            // The books may say that it went through.
            (RefundStatus::Succeeded, WebhookKind::RefundFailed) => self.compare_again(conn).await,
            (RefundStatus::Succeeded | RefundStatus::Failed, _) => Ok("IGNORED"),
        }
    }

    /// A refund that we have not asked for.
    async fn elsewhere(&self, conn: &mut PgConnection) -> Result<&'static str, sqlx::Error> {
        match (&self.event.kind, &self.event.about, &self.event.amount) {
            (WebhookKind::RefundSucceeded, Some(about), Some(amount)) => self.made_elsewhere(conn, about, amount).await,
            (WebhookKind::RefundFailed, Some(about), _) => {
                // One of ours may have waited for it.
                self.wake_refunds(conn, &format!("{}/failed", about.gateway_id)).await?;
                self.came_back(conn).await
            }
            _ => Ok("IGNORED"),
        }
    }

    /// What was on the books as gone back has not, or is back: it is off them, and where it was owed a person decides.
    async fn came_back(&self, conn: &mut PgConnection) -> Result<&'static str, sqlx::Error> {
        let Some(about) = &self.event.about else { return Ok("IGNORED") };
        orders::lock(&mut *conn, self.order_id).await?;
        let settled = otherwise::settled_as(conn, self.order_id, &about.gateway_id).await?;
        if settled.is_empty() {
            return Ok("IGNORED");
        }
        let why = self.event.failure.as_deref().unwrap_or("it did not arrive");
        let why = format!("it had gone back, and came back: {why}");
        for refund_id in settled {
            self.take_off(conn, refund_id, Then::Ask, &why).await?;
        }
        Ok("BOOKED")
    }

    async fn take_off(
        &self,
        conn: &mut PgConnection,
        refund_id: Uuid,
        then: Then,
        why: &str,
    ) -> Result<(), sqlx::Error> {
        let (run_id, now) = (Uuid::now_v7(), engine::now(&mut *conn).await?);
        if otherwise::take_off(conn, self.order_id, refund_id, (then, why), run_id, now).await? {
            let gateway = payments::gateway_of(conn, self.order_id).await?;
            let request = RefundRequest {
                taken_up: Some(refund_id),
                is_sent: then == Then::Send,
                ..RefundRequest::everything(self.order_id, gateway, why.to_owned())
            };
            let key = format!("{}/back/{run_id}", self.order_id);
            let start = Start::<RefundPayment>::new(key, &request).map_err(encoding)?.with_id(run_id);
            engine::start_at(conn, &start, now).await?;
        } else {
            let notice = off_the_books(self.order_id, self.event, refund_id, why);
            notice.tell(conn).await?;
        }
        Ok(())
    }

    async fn made_elsewhere(
        &self,
        conn: &mut PgConnection,
        about: &WebhookSubject,
        amount: &Money,
    ) -> Result<&'static str, sqlx::Error> {
        let now = engine::now(&mut *conn).await?;
        let elsewhere = Elsewhere {
            order_id: self.order_id,
            gateway_payment_id: &self.event.gateway_payment_id,
            gateway_refund_id: &about.gateway_id,
            amount,
        };
        match refunds::book_elsewhere(conn, elsewhere, now).await? {
            Booking::Booked(refund) => {
                let notice = made_elsewhere(self.order_id, &refund);
                notice.tell(conn).await?;
                Ok("BOOKED")
            }
            Booking::Known => Ok("IGNORED"),
            // It may be what a refund of ours was refused for, which finds it when it is tried again. Or there is not so
            // much, or it is of a payment that we do not know: a person finds out.
            Booking::DoesNotFit => {
                self.wake_refunds(conn, &about.gateway_id).await?;
                self.compare_again(conn).await
            }
        }
    }

    /// The order stays as it is: whether goods are kept back is the staff's to decide. What the bank has taken counts as
    /// given back, and refunds of the payment wait until it is known who keeps the money.
    async fn disputed(&self, conn: &mut PgConnection, status: DisputeStatus) -> Result<&'static str, sqlx::Error> {
        let Some(about) = &self.event.about else { return self.compare_again(conn).await };
        let (payment, now) = (&self.event.gateway_payment_id, engine::now(&mut *conn).await?);
        // Before the dispute, as whoever books refunds takes them.
        orders::lock(&mut *conn, self.order_id).await?;
        let dispute = Dispute {
            gateway: self.gateway,
            gateway_dispute_id: &about.gateway_id,
            order_id: self.order_id,
            gateway_payment_id: payment,
            amount: self.event.amount.as_ref(),
            reason: self.event.failure.as_deref(),
            status,
            said_at: self.event.at,
        };
        if !disputes::record(conn, dispute, now).await? {
            return Ok("IGNORED");
        }
        // If we have not heard that it was paid, the gateway is to say what is in it.
        if self.order.confirmed_by.as_ref() != Some(payment) {
            checks::check_again(conn, self.order_id).await?;
        }
        if status == DisputeStatus::Won {
            // It may have been lost before.
            for refund_id in otherwise::taken(conn, self.order_id, payment).await? {
                self.take_off(conn, refund_id, Then::Send, "the shopper's bank has given it back").await?;
            }
        }
        otherwise::book_taken(conn, self.order_id, payment, now).await?;
        if status != DisputeStatus::Opened {
            self.wake_refunds(conn, &format!("{}/{}", about.gateway_id, status.as_str())).await?;
        }
        let twice = if status == DisputeStatus::Lost { self.paid_twice(conn).await? } else { None };
        let notice = disputed(self.gateway, (self.order_id, self.event), &about.gateway_id, status, twice);
        notice.tell(conn).await?;
        Ok("BOOKED")
    }

    /// What both the bank and the shop have given the shopper, if they have: what the bank took, and nothing is left of
    /// that could take its place.
    async fn paid_twice(&self, conn: &mut PgConnection) -> Result<Option<Decimal>, sqlx::Error> {
        let payment = &self.event.gateway_payment_id;
        let taken = disputes::contested(conn, self.order_id, payment).await?.unbooked;
        let open = refunds::unsettled(conn, self.order_id, payment).await?;
        Ok((taken > Decimal::ZERO && open.is_empty()).then_some(taken))
    }

    /// Has those that wait, or were refused, tried again: because of `what`, they may go through now, or need not.
    async fn wake_refunds(&self, conn: &mut PgConnection, what: &str) -> Result<(), sqlx::Error> {
        let now = engine::now(&mut *conn).await?;
        for (refund_id, run_id, status) in
            refunds::unsettled(conn, self.order_id, &self.event.gateway_payment_id).await?
        {
            let decision = (status == RefundStatus::Failed).then_some(Decision::Resend);
            let news = News { refund_id, decision };
            let delivery = engine::run::signal(conn, run_id, NEWS, &format!("{refund_id}/{what}"), &news).await?;
            if decision.is_some() && delivery == Delivery::Delivered {
                refunds::reopen(conn, refund_id, now).await?;
            }
        }
        Ok(())
    }
}

fn told(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Delivered => "SIGNALLED",
        // It is kept as it came, and silence is asked about: nothing hangs on telling it again.
        Delivery::Invalid => "REFUSED",
        Delivery::Duplicate | Delivery::Finished | Delivery::Refused | Delivery::Unknown => "IGNORED",
    }
}

fn encoding(failure: Failure) -> sqlx::Error {
    sqlx::Error::Encode(Box::new(failure))
}

fn made_elsewhere(order_id: OrderId, refund: &DueRefund) -> Notice {
    let DueRefund { refund_id, gateway_payment_id, amount, currency } = refund;
    let (amount, payment) = (to_wire(*amount, *currency), gateway_payment_id.as_deref().unwrap_or_default());
    let subject = format!("A refund of {amount} {currency} was made at the gateway");
    let text = format!(
        "Somebody has given money back on the gateway's own site. It is booked; the order stays as it is.\n\n\
         Order: {order_id}\nPayment: {payment}\nAmount: {amount} {currency}\nBooked as: {refund_id}\n"
    );
    Notice::to_staff("refund.booked", StaffReport { id: *refund_id, subject, text })
}

/// What the staff is told of a refund made elsewhere that is off the books again.
fn off_the_books(order_id: OrderId, event: &WebhookEvent, refund_id: Uuid, why: &str) -> Notice {
    let text = format!(
        "Money was booked as given back at the gateway, or as taken by the shopper's bank, and has not gone. The order \
         owes it to nobody; it is off the books.\n\nOrder: {order_id}\nPayment: {}\nWas booked as: {refund_id}\n\
         Why: {why}\n",
        event.gateway_payment_id
    );
    let id = Uuid::new_v5(&refund_id, b"off the books");
    let subject = "A refund that was booked has not gone back".to_owned();
    Notice::to_staff("refund.booked", StaffReport { id, subject, text })
}

fn disputed(
    gateway: &str,
    (order_id, event): (OrderId, &WebhookEvent),
    dispute_id: &str,
    status: DisputeStatus,
    twice: Option<Decimal>,
) -> Notice {
    let id = Uuid::new_v5(&order_id.into(), format!("{gateway}/{dispute_id}/{}", status.as_str()).as_bytes());
    let amount = event.amount.as_ref().map_or_else(|| "unknown".to_owned(), Money::to_string);
    let reason = event.failure.as_deref().unwrap_or("none given");
    let twice =
        twice.map(|twice| format!("Given back twice, by the bank and by the shop: {twice}\n")).unwrap_or_default();
    let (subject, what) = match status {
        DisputeStatus::Opened => {
            let what = "The shopper's bank wants the money back. Answer it on the gateway's site in time. Until it has \
                        ended, no refund of this payment is sent.";
            ("opened", what)
        }
        DisputeStatus::Won => ("won", "The money stays. Refunds that waited for this are sent."),
        DisputeStatus::Lost => {
            ("lost", "The money is gone. It counts as given back: what is cancelled or returned gives back the rest.")
        }
    };
    let text = format!(
        "{what} The order stays as it is.\n\nOrder: {order_id}\nGateway: {gateway}\nPayment: {}\nDispute: \
         {dispute_id}\nAmount: {amount}\nReason: {reason}\n{twice}",
        event.gateway_payment_id
    );
    let subject = format!("A payment is disputed: {subject}");
    Notice::to_staff("payment.disputed", StaffReport { id, subject, text })
}
