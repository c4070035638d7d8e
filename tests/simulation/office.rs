//! What goes on at the back: orders that somebody must look at, refunds that are long under way, banks that want
//! money back.

use domain::{
    payment::DisputeStatus,
    ports::{GatewayPayment, GatewayRefundStatus, WebhookEvent},
};
use rand::{RngExt as _, seq::IndexedRandom as _};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    fraud::{self, ReviewRefusal, StaffDecision},
    refund::desk::{self, Decision, RefundRefusal},
};

use super::{
    actions::draw,
    bank,
    history::{Bought, History},
    staff::CLERK,
};

impl History {
    /// Somebody of the staff looks at a doubtful order, in time or not, once or again.
    pub async fn look_at_doubtful(&mut self) -> Result<(), String> {
        let waiting = self.doubtful().await;
        let Some(bought) = waiting.choose(&mut self.rng).cloned().or_else(|| self.an_order()) else { return Ok(()) };
        self.review(&bought).await
    }

    /// Orders that somebody must look at.
    pub async fn doubtful(&self) -> Vec<Bought> {
        let open = "select order_id from order_reviews where status = 'OPEN'";
        let open: Vec<Uuid> = sqlx::query_scalar(open).fetch_all(&self.world.pool).await.expect("the queue");
        self.bought.iter().filter(|bought| open.contains(&bought.accepted.order_id.into())).cloned().collect()
    }

    /// The staff say what becomes of an order.
    pub async fn review(&mut self, bought: &Bought) -> Result<(), String> {
        let decision = draw(self, &[(StaffDecision::Approve, 3), (StaffDecision::Reject, 1)]);
        let order_id = bought.accepted.order_id;
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let told = match fraud::decide(&mut tx, order_id, decision, "looked at", CLERK, now).await {
            Ok(_) => {
                tx.commit().await.expect("committed");
                if self.promises.reviews.insert(order_id, decision).is_some() {
                    return Err(format!("order {} was decided twice", self.number_of(bought)));
                }
                "done".to_owned()
            }
            Err(ReviewRefusal::Database(error)) => return Err(format!("a review: {error}")),
            Err(ReviewRefusal::Late { .. }) => "too late".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!("the staff {decision:?} order {}: {told}", self.number_of(bought)));
        Ok(())
    }

    /// From now on refunds take their time, or arrive at once.
    pub fn banks_turn(&mut self) {
        let are_slow = self.rng.random_bool(0.6);
        self.diary.note(format!("refunds are slow: {are_slow}"));
        self.world.gateway.keep_refunds_pending(are_slow);
    }

    /// What is under way arrives, or comes back to us.
    pub fn end_refunds(&mut self) {
        let how = draw(self, &[(GatewayRefundStatus::Succeeded, 2), (GatewayRefundStatus::Failed, 1)]);
        self.diary.note(format!("refunds that are under way end {how:?}"));
        self.world.gateway.end_refunds(how);
    }

    /// The gateway says how a refund stands: early, late, twice or never.
    pub async fn hear_of_refund(&mut self) {
        let Some(bought) = self.an_order() else { return };
        let (order_id, number) = (bought.accepted.order_id, self.number_of(&bought));
        let refunds = self.world.gateway.refunds(order_id);
        let Some(refund) = refunds.choose(&mut self.rng) else { return };
        let event = bank::word_of_refund(order_id, refund, true);
        for _ in 0..self.rng.random_range(1..=2) {
            let outcome = bank::deliver(&self.world.pool, &event).await;
            self.diary.note(format!("word of a refund of order {number}: {:?}, {outcome}", event.kind));
        }
    }

    /// Of what the gateway has refused, a person has some sent again, and has paid some by other means. Returns
    /// whether anything was decided.
    pub async fn decide_on_refunds(&mut self) -> Result<bool, String> {
        let failed = "select id from refunds where status = 'FAILED' order by id";
        let failed: Vec<Uuid> = sqlx::query_scalar(failed).fetch_all(&self.world.pool).await.expect("what failed");
        let mut has_decided = false;
        for refund_id in failed {
            let decision = draw(self, &[(Decision::Resend, 3), (Decision::Settle, 1)]);
            let mut tx = self.world.pool.begin().await.expect("a transaction");
            let told = match desk::decide(&mut tx, refund_id, decision, CLERK, "looked at").await {
                Ok(head) => {
                    tx.commit().await.expect("committed");
                    has_decided = true;
                    head.status.to_string()
                }
                Err(RefundRefusal::Database(error)) => return Err(format!("a refund: {error}")),
                Err(refusal) => refusal.to_string(),
            };
            self.diary.note(format!("the staff {decision:?} a refund that failed: {told}"));
        }
        Ok(has_decided)
    }

    /// A shopper's bank wants the money of a payment back, or says how that ended.
    pub async fn dispute(&mut self) {
        let Some(bought) = self.an_order() else { return };
        let payments = self.world.gateway.payments(bought.accepted.order_id);
        let captured: Vec<_> = payments.into_iter().filter(|payment| payment.captured > payment.refunded).collect();
        let Some(payment) = captured.choose(&mut self.rng) else { return };
        let status = draw(self, &[(DisputeStatus::Opened, 3), (DisputeStatus::Won, 1), (DisputeStatus::Lost, 1)]);
        let (payment, number) = (payment.clone(), self.number_of(&bought));
        self.say_of_dispute(number, &payment, status).await;
    }

    /// Quarrels end.
    pub async fn end_disputes(&mut self) {
        for bought in self.bought.clone() {
            for payment in self.world.gateway.payments(bought.accepted.order_id) {
                if self.promises.disputes.get(&payment.gateway_payment_id) == Some(&DisputeStatus::Opened) {
                    let status = draw(self, &[(DisputeStatus::Won, 1), (DisputeStatus::Lost, 1)]);
                    let number = self.number_of(&bought);
                    self.say_of_dispute(number, &payment, status).await;
                }
            }
        }
    }

    async fn say_of_dispute(&mut self, number: usize, payment: &GatewayPayment, status: DisputeStatus) {
        let at = engine::now(&self.world.pool).await.expect("the time");
        let event = WebhookEvent { at: Some(at), ..bank::word_of_dispute(payment, status) };
        for _ in 0..self.rng.random_range(1..=2) {
            let outcome = bank::deliver(&self.world.pool, &event).await;
            self.diary.note(format!("the payment of checkout {number} is disputed: {status:?}, {outcome}"));
        }
        let stands = self.promises.disputes.entry(payment.gateway_payment_id.clone()).or_insert(status);
        // What was won may be lost later, and what was lost may be won.
        if status != DisputeStatus::Opened {
            *stands = status;
        }
    }

    /// A refund that had arrived is sent back by the bank.
    pub async fn refund_comes_back(&mut self) {
        let Some(bought) = self.an_order() else { return };
        let (order_id, number) = (bought.accepted.order_id, self.number_of(&bought));
        let refunds = self.world.gateway.refunds(order_id);
        let arrived: Vec<_> =
            refunds.into_iter().filter(|(_, refund, _)| refund.status == GatewayRefundStatus::Succeeded).collect();
        let Some((refund_id, _, _)) = arrived.choose(&mut self.rng) else { return };
        let refund = self.world.gateway.send_back(*refund_id);
        let event = bank::word_of_refund(order_id, &refund, true);
        for _ in 0..self.rng.random_range(1..=2) {
            let outcome = bank::deliver(&self.world.pool, &event).await;
            self.diary.note(format!("a refund of order {number} comes back: {outcome}"));
        }
    }

    /// Somebody gives money back on the gateway's own site, which tells of it, twice, or never.
    pub async fn refund_elsewhere(&mut self) {
        let Some(bought) = self.an_order() else { return };
        let (order_id, number) = (bought.accepted.order_id, self.number_of(&bought));
        let payments = self.world.gateway.payments(order_id);
        let captured: Vec<_> = payments.into_iter().filter(|payment| payment.captured > payment.refunded).collect();
        let Some(payment) = captured.choose(&mut self.rng) else { return };
        let left = payment.captured - payment.refunded;
        let amount =
            if self.rng.random_bool(0.3) { left } else { left.min(Decimal::from(self.rng.random_range(1..=500))) };
        let refund = self.world.gateway.give_back_elsewhere(&payment.gateway_payment_id, amount);
        let event = bank::word_of_elsewhere(order_id, &payment.gateway_payment_id, &refund);
        self.diary.note(format!("{amount} of checkout {number} are given back elsewhere"));
        for _ in 0..self.rng.random_range(0..=2) {
            let outcome = bank::deliver(&self.world.pool, &event).await;
            self.diary.note(format!("word of it: {outcome}"));
        }
        self.promises.elsewhere.push(event);
    }

    /// The gateway tells of all that was given back elsewhere and was not booked. Returns whether there was any.
    pub async fn hear_of_elsewhere(&mut self) -> bool {
        let mut has_booked = false;
        for event in self.promises.elsewhere.clone() {
            let outcome = bank::deliver(&self.world.pool, &event).await;
            has_booked |= outcome == "BOOKED";
        }
        has_booked
    }
}
