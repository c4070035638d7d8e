//! Money that has gone back without us, by the shopper's bank or on the provider's own site: it goes back once.

use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;
use workflows::{
    pay_back,
    refund::desk::{self, Decision},
    store::refunds::ClaimError,
};

use super::{
    sale::{STRANGERS, Sale},
    till::{Course, first_payment},
};
use crate::{
    misfortune::Story as _,
    provider::{PROVIDERS, Provider},
};

/// A refund on the books.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
struct Row {
    amount: Decimal,
    status: String,
    by_hand: bool,
}

impl Sale {
    /// A confirmed order.
    async fn sold(provider: Provider, when: &str) -> (Sale, String) {
        let sale = Sale::begin(provider, Course::Asked).await;
        let payment = sale.pays().await;
        sale.judge(when).await;
        (sale, payment)
    }

    async fn cancel(&self) -> Decimal {
        self.till.cancel(&self.world, self.order_id()).await
    }

    /// The bank's word, as soon as the shop has heard it and has done what follows.
    async fn dispute(&self, payment: &str, word: &str) {
        self.account.site.dispute(payment, word).await;
        self.account.all_told().await;
        self.world.settle().await;
    }

    /// The shop hears what there is to hear, and does what follows.
    async fn rest(&self) {
        self.account.all_told().await;
        self.world.settle().await;
        self.account.all_told().await;
        self.world.settle().await;
    }

    /// The provider's word on one of its refunds.
    async fn refund_ends(&self, which: usize, word: &str) {
        let refund = self.account.site.ledger().await.of("refunds")[which]["id"].as_str().expect("an id").to_owned();
        assert!(self.account.site.fate(&format!("refunds/{refund}"), json!({ "event": word })).await.is_success());
        self.rest().await;
    }

    async fn give_back(&self, amount: Decimal) -> Result<Uuid, ClaimError> {
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let accepted = pay_back::accept(&mut tx, self.order_id(), amount, "user:clerk", "a scratch").await;
        if accepted.is_ok() {
            tx.commit().await.expect("committed");
        }
        accepted
    }

    /// The largest first.
    async fn refunds(&self) -> Vec<Row> {
        let refunds = "select r.amount, r.status, r.by_hand from refunds r join payments p on p.id = r.payment_id
                        where p.order_id = $1 order by r.amount desc";
        let refunds = sqlx::query_as(refunds).bind(Uuid::from(self.order_id()));
        refunds.fetch_all(&self.world.pool).await.expect("refunds")
    }

    /// What the provider has of it: banks not counted.
    async fn net(&self) -> Decimal {
        self.account.site.holds(self.order_id()).await.net
    }

    /// It is CANCELLED, and all of its money has gone back, so.
    async fn assert_taken_back(&self, refunds: &[Row], net: Decimal, when: &str) {
        self.world.assert_books(when).await;
        assert_eq!(self.refunds().await, refunds, "{when}");
        assert_eq!(self.net().await, net, "{when}");
        let status: (String, String) = sqlx::query_as("select order_status, payment_status from orders where id = $1")
            .bind(Uuid::from(self.order_id()))
            .fetch_one(&self.world.pool)
            .await
            .expect("an order");
        assert_eq!(status, ("CANCELLED".to_owned(), "REFUNDED".to_owned()), "{when}");
        let live = "select count(*) from engine.runs where $1::uuid is not null";
        assert_eq!(self.count(live).await, 0, "{when}: runs that still wait");
    }
}

fn row(amount: Decimal, status: &str, by_hand: bool) -> Row {
    Row { amount, status: status.to_owned(), by_hand }
}

/// The bank has given the shopper their money: nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_bank_has_taken_is_not_paid_back_again() {
    for provider in PROVIDERS {
        let when = format!("{provider:?}");
        let (sale, payment) = Sale::sold(provider, &when).await;
        let total = sale.total().await;
        sale.dispute(&payment, "open").await;
        sale.dispute(&payment, "lost").await;
        assert_eq!(sale.status().await.as_deref(), Some("CONFIRMED"), "{when}");
        let taken = [row(total, "SUCCEEDED", true)];
        assert_eq!(sale.refunds().await, taken, "{when}");
        sale.world.assert_books(&when).await;
        let more = sale.give_back(Decimal::ONE).await;
        assert!(matches!(more, Err(ClaimError::ExceedsCaptured { .. })), "{when}: {more:?}");
        assert_eq!(sale.cancel().await, Decimal::ZERO, "{when}: nothing is promised");
        sale.world.settle().await;
        sale.assert_taken_back(&taken, total, &when).await;
    }
}

/// What went back before is not taken into account twice, and the rest is gone.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_dispute_that_is_lost_no_more_is_booked_than_was_left() {
    for provider in PROVIDERS {
        let when = format!("{provider:?}");
        let (sale, payment) = Sale::sold(provider, &when).await;
        let (total, part) = (sale.total().await, Decimal::from(100));
        sale.give_back(part).await.expect("promised");
        sale.world.settle().await;
        sale.dispute(&payment, "open").await;
        sale.dispute(&payment, "lost").await;
        assert_eq!(sale.cancel().await, Decimal::ZERO, "{when}");
        sale.world.settle().await;
        let both = [row(total - part, "SUCCEEDED", true), row(part, "SUCCEEDED", false)];
        sale.assert_taken_back(&both, total - part, &when).await;
    }
}

/// While the bank wants the money it is not paid back; then it is, or it need not be.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_back_of_a_payment_that_the_bank_wants() {
    for (provider, word) in PROVIDERS.into_iter().flat_map(|one| [(one, "won"), (one, "lost")]) {
        let when = format!("{provider:?}, {word}");
        let (sale, payment) = Sale::sold(provider, &when).await;
        let total = sale.total().await;
        sale.dispute(&payment, "open").await;
        assert_eq!(sale.cancel().await, total, "{when}");
        sale.world.settle().await;
        assert_eq!(sale.refunds().await, [row(total, "PENDING", false)], "{when}: it waits");
        assert_eq!((sale.net().await, sale.calls("refund").await.len()), (total, 0), "{when}");
        sale.world.assert_books(&when).await;
        sale.dispute(&payment, word).await;
        let (by_bank, net) = if word == "lost" { (true, total) } else { (false, Decimal::ZERO) };
        sale.assert_taken_back(&[row(total, "SUCCEEDED", by_bank)], net, &when).await;
    }
}

/// Stripe refuses to give back what is disputed, and the shop need not have heard why.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_was_refused_for_a_dispute_ends_with_it() {
    for word in ["won", "lost"] {
        let (sale, payment) = Sale::sold(Provider::Stripe, word).await;
        let total = sale.total().await;
        sale.account.site.webhooks(json!({ "mode": "none" })).await;
        sale.account.site.dispute(&payment, "open").await;
        sale.cancel().await;
        sale.world.settle().await;
        assert_eq!(sale.refunds().await, [row(total, "FAILED", false)], "{word}");
        sale.account.site.webhooks(json!({ "mode": "normal" })).await;
        sale.dispute(&payment, word).await;
        let (by_bank, net) = if word == "lost" { (true, total) } else { (false, Decimal::ZERO) };
        sale.assert_taken_back(&[row(total, "SUCCEEDED", by_bank)], net, word).await;
    }
}

/// Given back on the provider's own site, of which nobody told: the rest goes back, and the part is booked once.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_whose_word_was_lost_is_found_when_the_order_is_cancelled() {
    for provider in STRANGERS {
        for is_whole in [false, true] {
            let when = format!("{provider:?}, all of it: {is_whole}");
            let (sale, payment) = Sale::sold(provider, &when).await;
            let total = sale.total().await;
            let part = if is_whole { total } else { Decimal::from(100) };
            sale.account.site.webhooks(json!({ "mode": "none" })).await;
            sale.account.site.turns(&payment, json!({ "event": "refund", "amount": part.to_string() })).await;
            sale.account.site.webhooks(json!({ "mode": "normal" })).await;
            sale.cancel().await;
            sale.world.settle().await;
            sale.account.all_told().await;
            sale.world.settle().await;
            let mut went = vec![row(total - part, "SUCCEEDED", false), row(part, "SUCCEEDED", false)];
            went.retain(|row| !row.amount.is_zero());
            sale.assert_taken_back(&went, Decimal::ZERO, &when).await;
            // Its word comes after all.
            for event in sale.account.site.events().await {
                sale.account.site.resend(event["id"].as_str().expect("an id"), 0, false).await;
            }
            sale.world.settle().await;
            sale.assert_taken_back(&went, Decimal::ZERO, &format!("{when}, told late")).await;
        }
    }
}

/// A part is to go back, and there is less left than the books say.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_no_longer_there_is_sent_as_far_as_it_is() {
    for provider in STRANGERS {
        let when = format!("{provider:?}");
        let (sale, payment) = Sale::sold(provider, &when).await;
        let (total, elsewhere) = (sale.total().await, Decimal::from(100));
        sale.account.site.webhooks(json!({ "mode": "none" })).await;
        sale.account.site.turns(&payment, json!({ "event": "refund", "amount": elsewhere.to_string() })).await;
        sale.account.site.webhooks(json!({ "mode": "normal" })).await;
        sale.give_back(total - Decimal::TEN).await.expect("promised");
        sale.world.settle().await;
        sale.account.all_told().await;
        sale.world.settle().await;
        sale.world.assert_books(&when).await;
        // Of those hundred ten were claimed by nobody.
        let went =
            [total - elsewhere, elsewhere - Decimal::TEN, Decimal::TEN].map(|amount| row(amount, "SUCCEEDED", false));
        assert_eq!(sale.refunds().await, went, "{when}");
        assert_eq!(sale.net().await, Decimal::ZERO, "{when}");
        assert_eq!(sale.status().await.as_deref(), Some("CONFIRMED"), "{when}: the order stands");
    }
}

/// The bank sends a refund back long after it had arrived: it is owed again, and a person decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_comes_back_is_owed_again() {
    for provider in STRANGERS {
        for decision in [Decision::Resend, Decision::Settle] {
            let when = format!("{provider:?}, {decision:?}");
            let (sale, _) = Sale::sold(provider, &when).await;
            let total = sale.total().await;
            sale.cancel().await;
            sale.rest().await;
            sale.assert_taken_back(&[row(total, "SUCCEEDED", false)], Decimal::ZERO, &when).await;
            sale.refund_ends(0, "fail").await;
            assert_eq!(sale.refunds().await, [row(total, "FAILED", false)], "{when}");
            assert_eq!(sale.net().await, total, "{when}");
            sale.world.assert_books(&when).await;
            let refund_id: Uuid =
                sqlx::query_scalar("select id from refunds").fetch_one(&sale.world.pool).await.expect("one");
            let mut tx = sale.world.pool.begin().await.expect("a transaction");
            desk::decide(&mut tx, refund_id, decision, "user:boss", "it is owed").await.expect("decided");
            tx.commit().await.expect("committed");
            sale.rest().await;
            let (by_hand, net) = if decision == Decision::Settle { (true, total) } else { (false, Decimal::ZERO) };
            sale.assert_taken_back(&[row(total, "SUCCEEDED", by_hand)], net, &when).await;
        }
    }
}

/// What was made on the provider's own site counts when it has arrived: until then ours waits, and goes out if it fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_made_elsewhere_that_is_under_way_is_waited_for() {
    for (provider, word) in STRANGERS.into_iter().flat_map(|one| [(one, "succeed"), (one, "fail")]) {
        let when = format!("{provider:?}, {word}");
        let (sale, payment) = Sale::sold(provider, &when).await;
        let total = sale.total().await;
        assert!(sale.account.site.fate("refunds", json!({ "begin": "pending" })).await.is_success());
        sale.account.site.turns(&payment, json!({ "event": "refund" })).await;
        assert!(sale.account.site.fate("refunds", json!({ "begin": "succeeded" })).await.is_success());
        sale.rest().await;
        assert_eq!(sale.refunds().await, [], "{when}: nothing has arrived");
        assert_eq!(sale.cancel().await, total, "{when}");
        sale.rest().await;
        assert_eq!(sale.refunds().await, [row(total, "PENDING", false)], "{when}: it waits");
        sale.refund_ends(0, word).await;
        sale.assert_taken_back(&[row(total, "SUCCEEDED", false)], Decimal::ZERO, &when).await;
        let calls = sale.calls("refund").await.iter().filter(|call| call["status"].as_u64() < Some(300)).count();
        assert_eq!(calls, usize::from(word == "fail"), "{when}: sent by us");
    }
}

/// What was made on the provider's own site and did not arrive after all was owed to nobody: it is off the books.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_made_elsewhere_that_comes_back_is_off_the_books() {
    for provider in STRANGERS {
        let when = format!("{provider:?}");
        let (sale, payment) = Sale::sold(provider, &when).await;
        let total = sale.total().await;
        sale.account.site.turns(&payment, json!({ "event": "refund", "amount": "100.00" })).await;
        sale.rest().await;
        assert_eq!(sale.refunds().await, [row(Decimal::from(100), "SUCCEEDED", false)], "{when}");
        sale.refund_ends(0, "fail").await;
        assert_eq!(sale.refunds().await, [], "{when}");
        sale.world.assert_books(&when).await;
        assert_eq!(sale.cancel().await, total, "{when}: all of it is there to be given back");
        sale.rest().await;
        sale.assert_taken_back(&[row(total, "SUCCEEDED", false)], Decimal::ZERO, &when).await;
    }
}

/// Goods come back, and a part of their price had gone back unheard: the return is paid, and the books know how.
#[tokio::test(flavor = "multi_thread")]
async fn a_return_counts_what_had_gone_back_unheard() {
    for provider in STRANGERS {
        let when = format!("{provider:?}");
        let sale = Sale::begin(provider, Course::Returned).await;
        let payment = first_payment(&sale.world, sale.order_id()).await;
        let elsewhere = sale.total().await - Decimal::ONE;
        sale.account.site.webhooks(json!({ "mode": "none" })).await;
        sale.account.site.turns(&payment, json!({ "event": "refund", "amount": elsewhere.to_string() })).await;
        sale.account.site.webhooks(json!({ "mode": "normal" })).await;
        // Approved, and received.
        for _ in 0..2 {
            sale.till.meanwhile(&sale.world, std::slice::from_ref(&sale.bought)).await;
            sale.world.settle().await;
        }
        sale.rest().await;
        sale.world.assert_books(&when).await;
        assert_eq!(sale.net().await, Decimal::ZERO, "{when}: the rest was sent");
    }
}

/// The bank gives back what it had taken: what is owed goes out after all.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_that_is_won_after_it_was_lost_gives_the_money_back_to_whom_it_is_owed() {
    for (provider, is_cancelled) in STRANGERS.into_iter().flat_map(|one| [(one, false), (one, true)]) {
        let when = format!("{provider:?}, cancelled: {is_cancelled}");
        let (sale, payment) = Sale::sold(provider, &when).await;
        let total = sale.total().await;
        sale.dispute(&payment, "open").await;
        if is_cancelled {
            assert_eq!(sale.cancel().await, total, "{when}");
            sale.rest().await;
        }
        sale.dispute(&payment, "lost").await;
        assert_eq!(sale.refunds().await, [row(total, "SUCCEEDED", true)], "{when}");
        assert!(sale.account.site.fate("clock", json!({ "aheadMs": 5_000 })).await.is_success());
        sale.dispute(&payment, "won").await;
        if !is_cancelled {
            assert_eq!(sale.refunds().await, [], "{when}");
            sale.world.assert_books(&when).await;
            assert_eq!(sale.cancel().await, total, "{when}");
            sale.rest().await;
        }
        sale.assert_taken_back(&[row(total, "SUCCEEDED", false)], Decimal::ZERO, &when).await;
    }
}
