//! What must be true when everything has come to its end, and what must be true all along.

use domain::money::Money;
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{audit, fraud::StaffDecision};

use super::{
    floor::{SKUS, variant},
    history::History,
};

/// Why a checkout may fail without anybody having made a mistake.
const REASONS: &[&str] = &[
    "cancelled",
    "cart-empty",
    "cod-limit-exceeded",
    "coupon-invalid",
    "fraud-denied",
    "minimum-order-value",
    "out-of-stock",
    "payment-declined",
    "payment-expired",
    "price-changed",
];

fn is_reason(workflow: &str, code: &str) -> bool {
    match workflow {
        "checkout" => REASONS.contains(&code),
        _ => false,
    }
}

/// An attempt may fail for these reasons; any other is a defect that a retry hides.
const EXCUSES: &[&str] = &[
    "injected",
    "the gateway is away",
    "the answer was lost",
    "too many requests",
    "another call has it in hand",
    "has not closed the payment yet",
    // Those of one payment are sent in the order they were claimed.
    "an earlier refund of this payment is not settled yet",
];

/// What is still kept from others when nothing is under way.
const LOCKED: &str = "
    select 'cart ' || id || ' is in CHECKOUT' from carts where status = 'CHECKOUT'
    union all select 'coupon ' || code || ' is held ' || held_count || ' times' from coupons where held_count <> 0
    union all select 'a coupon is HELD for order ' || order_id from coupon_redemption_log where status = 'HELD'
    union all select 'a hold on stock is ACTIVE: ' || id from inventory_reservations where status = 'ACTIVE'
    union all select 'order ' || id || ' is PENDING' from orders where order_status = 'PENDING'
    union all select 'order ' || order_id || ' is under review' from order_reviews where status = 'OPEN'
    union all select 'a refund is ' || status from refunds where status <> 'SUCCEEDED'";

#[derive(Debug, sqlx::FromRow)]
struct Outcome {
    order_status: String,
    total: Decimal,
    refunded: Decimal,
    /// Paid back for goods that came back.
    returned: Decimal,
    /// Paid back by other means, because the gateway had refused to.
    by_hand: Decimal,
    /// Of that, taken by shoppers' banks.
    taken: Decimal,
    /// Given back on the gateway's own site, as far as it is booked.
    elsewhere: Decimal,
    is_lost: bool,
    is_doubtful: bool,
    was_confirmed: bool,
    has_left: bool,
}

impl Outcome {
    /// The shop keeps its money, or what is left of it.
    fn is_sold(&self) -> bool {
        ["CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED", "REFUNDED"].contains(&&*self.order_status)
    }
}

impl History {
    /// The books in the middle of a history: every rule holds after each commit, but those on how long
    /// something may take; here the clock jumps without giving anybody the time.
    pub async fn books_balance_midway(&self) -> Result<(), String> {
        let books = audit::books(&self.world.pool).await.expect("the books");
        let breaches: Vec<_> =
            books.breaches.iter().filter(|b| !matches!(b.check, "runs_owners" | "runs_parked")).collect();
        if breaches.is_empty() {
            Ok(())
        } else {
            Err(format!("in the middle, the books do not balance: {breaches:#?}"))
        }
    }

    /// Everything has ended: is everything right?
    pub async fn judge(&self) -> Result<(), String> {
        let books = audit::books(&self.world.pool).await.expect("the books");
        if !books.balanced {
            return Err(format!("the books do not balance: {:#?}", books.breaches));
        }
        let mut wrong = Vec::new();
        self.judge_runs(&mut wrong).await;
        self.judge_orders(&mut wrong).await;
        self.judge_stock(&mut wrong).await;
        wrong
            .extend(sqlx::query_scalar::<_, String>(LOCKED).fetch_all(&self.world.pool).await.expect("what is locked"));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Each run ended, for a reason that a shop can name or a fault explains.
    async fn judge_runs(&self, wrong: &mut Vec<String>) {
        let ended: Vec<(Uuid, String, String, Option<String>)> =
            sqlx::query_as("select id, workflow, status, failure ->> 'code' from engine.finished_runs order by id")
                .fetch_all(&self.world.pool)
                .await
                .expect("the finished runs");
        for (id, workflow, status, code) in ended {
            let is_reasonable = match status.as_str() {
                "COMPLETED" => true,
                _ => code.as_deref().is_some_and(|code| is_reason(&workflow, code)),
            };
            if !is_reasonable && !self.borne.explains(id) {
                wrong.push(format!("a {workflow} run ended {status} ({code:?}), and no fault explains it"));
            }
        }
        let attempts: Vec<(String, String)> = sqlx::query_as(
            "select name, error ->> 'error' from engine.journal where kind = 'ATTEMPT' order by run_id, seq",
        )
        .fetch_all(&self.world.pool)
        .await
        .expect("the failed attempts");
        for (step, error) in attempts {
            if !EXCUSES.iter().any(|excuse| error.contains(excuse)) {
                wrong.push(format!("{step} failed, and was tried again: {error}"));
            }
        }
    }

    /// Each accepted checkout made a sold order with exactly its money, or none.
    async fn judge_orders(&self, wrong: &mut Vec<String>) {
        let mut all = Decimal::ZERO;
        for bought in &self.bought {
            let order_id = bought.accepted.order_id;
            let number = self.number_of(bought);
            let outcome: Option<Outcome> = sqlx::query_as(
                "select o.order_status, o.total_amount as total, coalesce(p.refund_amount, 0) as refunded,
                        (select coalesce(sum(r.refund_amount), 0) from returns r
                          where r.order_id = o.id and r.status = 'REFUNDED') as returned,
                        (select coalesce(sum(r.amount), 0) from refunds r
                          where r.payment_id = p.id and r.by_hand and r.gateway_payment_id is not null) as by_hand,
                        (select coalesce(sum(r.amount), 0) from refunds r
                          where r.payment_id = p.id and r.origin = 'BANK') as taken,
                        (select coalesce(sum(r.amount), 0) from refunds r
                          where r.payment_id = p.id and r.origin = 'GATEWAY') as elsewhere,
                        exists (select from payment_disputes d
                                 where d.order_id = o.id and d.status = 'LOST') as is_lost,
                        exists (select from order_screenings s
                                 where s.order_id = o.id and s.decision = 'REVIEW') as is_doubtful,
                        o.confirmed_at is not null as was_confirmed,
                        exists (select from shipments s where s.order_id = o.id
                                   and s.status not in ('READY', 'RETURNED', 'CANCELLED')) as has_left
                   from orders o left join payments p on p.order_id = o.id where o.id = $1",
            )
            .bind(Uuid::from(order_id))
            .fetch_optional(&self.world.pool)
            .await
            .expect("an order");
            let (net, payments) = (self.world.gateway.net(order_id), self.world.gateway.payments(order_id));
            all += net;
            let tries = 1 + self.promises.offers.get(&order_id).copied().unwrap_or_default();
            let by_hand = outcome.as_ref().map_or(Decimal::ZERO, |outcome| outcome.by_hand);
            let kept = payments.iter().filter(|p| p.captured > p.refunded).count();
            if payments.len() > tries || kept > 1 && by_hand.is_zero() {
                wrong.push(format!("checkout {number} was charged more than once in {tries} tries: {payments:?}"));
            }
            let promised = self.promises.refunds.get(&order_id).copied().unwrap_or_default();
            let given = self.promises.elsewhere.iter().filter(|event| event.order_id == Some(order_id));
            let given: Decimal = given.filter_map(|event| event.amount.as_ref()).map(Money::amount).sum();
            let sold = outcome.as_ref().filter(|outcome| outcome.is_sold());
            if let Some(sold) = sold {
                // What has gone back otherwise took the place of what was promised, or came on top.
                let (least, otherwise) = (promised + sold.returned, sold.elsewhere + sold.taken);
                if sold.refunded < least || sold.refunded > least + otherwise {
                    wrong.push(format!("checkout {number}: {promised} was promised back: {sold:?}"));
                }
            }
            // The bank may have taken what somebody had given back, too.
            let is_lost = outcome.as_ref().is_some_and(|outcome| outcome.is_lost);
            let unknown = given - outcome.as_ref().map_or(Decimal::ZERO, |outcome| outcome.elsewhere);
            if !unknown.is_zero() && !is_lost {
                wrong.push(format!("checkout {number}: {unknown} given back elsewhere are not booked: {outcome:?}"));
            }
            let due = match sold {
                Some(sold) if !bought.is_cash => sold.total - sold.refunded,
                Some(_) | None => Decimal::ZERO,
            };
            if net != due + by_hand - unknown {
                wrong.push(format!("checkout {number}: the gateway has {net}, and {due} is due: {outcome:?}"));
            }
            match self.promises.reviews.get(&order_id) {
                Some(StaffDecision::Approve) => {}
                Some(StaffDecision::Reject) if sold.is_none() => {}
                None if sold.is_none_or(|sold| !sold.is_doubtful) => {}
                decision => wrong.push(format!("checkout {number}: {decision:?} of the staff: {outcome:?}")),
            }
            if let Some(outcome) = &outcome {
                if !outcome.is_sold() && outcome.order_status != "CANCELLED" {
                    wrong.push(format!("checkout {number} ended {outcome:?}"));
                }
                if let Some(expected) = bought.expected_total.filter(|expected| outcome.total > *expected) {
                    wrong.push(format!("checkout {number} cost {}, {expected} was agreed to", outcome.total));
                }
                let cancelled = self.promises.cancelled.iter().find(|(order, _)| *order == order_id);
                if let Some((_, run)) = cancelled
                    && (outcome.order_status != "CANCELLED" || outcome.has_left)
                    && !self.borne.explains(*run)
                {
                    wrong.push(format!("checkout {number} was called off, and ended {outcome:?}"));
                }
            }
            self.judge_mails(number, order_id, outcome.as_ref().is_some_and(|o| o.was_confirmed), wrong).await;
        }
        let disputes: Vec<(String, String)> =
            sqlx::query_as("select gateway_payment_id, status from payment_disputes order by gateway_payment_id")
                .fetch_all(&self.world.pool)
                .await
                .expect("the disputes");
        let promised = self.promises.disputes.iter();
        let promised: Vec<_> = promised.map(|(id, status)| (id.clone(), status.as_str().to_owned())).collect();
        if disputes != promised {
            wrong.push(format!("disputes are {disputes:?}, and should be {promised:?}"));
        }
        if self.world.gateway.holds() != all {
            wrong.push(format!("the gateway holds {}, {all} of it for orders", self.world.gateway.holds()));
        }
    }

    /// A buyer hears of the order once, and nobody hears anything twice.
    async fn judge_mails(
        &self,
        number: usize,
        order_id: domain::ids::OrderId,
        was_confirmed: bool,
        wrong: &mut Vec<String>,
    ) {
        let mut events: Vec<String> = self.world.mails.about(order_id).into_iter().map(|mail| mail.event).collect();
        events.sort();
        let confirmations = events.iter().filter(|event| *event == "order.confirmed").count();
        if confirmations != usize::from(was_confirmed) {
            wrong.push(format!(
                "checkout {number}: {confirmations} confirmations of an order; confirmed: {was_confirmed}"
            ));
        }
        // One a refund, and one a parcel; of what the order itself went through, one each.
        events.retain(|event| event.starts_with("order.") && event != "order.shipped");
        let total = events.len();
        events.dedup();
        if events.len() != total {
            wrong.push(format!("checkout {number}: {total} e-mails about {events:?}"));
        }
    }

    /// What is on the shelf, and what was sold, is what was ever stocked.
    async fn judge_stock(&self, wrong: &mut Vec<String>) {
        for (index, (sku, _)) in SKUS.iter().enumerate() {
            let (available, reserved, sold): (i32, i32, i64) = sqlx::query_as(
                "select i.available_quantity, i.reserved_quantity,
                        (select coalesce(sum(l.quantity), 0) from order_items l join orders o on o.id = l.order_id
                          where l.variant_id = i.variant_id
                            and o.order_status in ('CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'REFUNDED'))
                      - (select coalesce(sum(b.quantity), 0) from return_items b
                           join returns r on r.id = b.return_id and r.status = 'REFUNDED'
                           join order_items l on l.id = b.order_item_id where l.variant_id = i.variant_id)
                   from inventory i where i.variant_id = $1",
            )
            .bind(variant(index))
            .fetch_one(&self.world.pool)
            .await
            .expect("the stock");
            let stocked = self.stocked[index];
            if reserved != 0 || i64::from(available) + sold != stocked {
                wrong.push(format!("{sku}: {stocked} stocked, {sold} sold, {available} left, {reserved} reserved"));
            }
        }
    }
}
