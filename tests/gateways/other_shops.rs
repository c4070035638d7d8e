//! What has gone wrong in other shops, each once at every gateway where it can: two orders of one payment, two payments
//! of one order, money kept for goods that were never sent, goods sent for money that never came.

use std::time::Duration;

use axum::http::StatusCode;
use domain::{
    money::Money,
    ports::{Capture, GatewayPaymentStatus, GatewayRefundStatus, Proceeding, RefundOrder},
};
use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;
use workflows::{
    checkout::webhook,
    fraud::{self, StaffDecision},
    pay_back,
};

use super::{
    sale::{STRANGERS, Sale},
    till::{Course, Till, first_payment},
};
use crate::{
    misfortune::Story as _,
    patience::until,
    provider::{PROVIDERS, Provider},
};

/// Refunds of an order.
const REFUNDS: &str = "select count(*) from refunds r join payments p on p.id = r.payment_id where p.order_id = $1";

async fn money(sale: &Sale) -> Money {
    Money::new(sale.total().await, "USD".parse().expect("a currency")).expect("an amount")
}

/// The shopper is back at the shop at the moment the webhook arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_and_a_returning_shopper_complete_one_order_once() {
    for provider in PROVIDERS {
        let (sale, when) = (Sale::begin(provider, Course::Asked).await, format!("{provider:?}"));
        sale.turn().await;
        let payment = first_payment(&sale.world, sale.order_id()).await;
        let back = async || {
            let mut tx = sale.world.pool.begin().await.expect("a transaction");
            webhook::returned(&mut tx, sale.order_id()).await.expect("heard");
            tx.commit().await.expect("committed");
        };
        let go_on = async || sale.turn().await;
        tokio::join!(sale.account.site.agree(&payment), back(), go_on(), back());
        sale.account.all_told().await;
        tokio::join!(go_on(), back(), go_on());
        sale.drain().await;
        sale.assert_sold_once(&when).await;
        sale.judge(&when).await;
    }
}

/// Razorpay says of each payment that it was captured, and that its order is paid.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_of_which_two_kinds_of_events_tell_makes_one_order() {
    let sale = Sale::begin(Provider::Razorpay, Course::Asked).await;
    sale.pays().await;
    sale.drain().await;
    sale.account.all_told().await;
    for kind in ["payment.captured", "order.paid"] {
        let [event] = &sale.events(kind).await[..] else { panic!("{kind} is told once") };
        assert_eq!(sale.account.site.resend(event, 0, false).await, 200);
    }
    sale.drain().await;
    sale.assert_sold_once("told twice in two words").await;
    let orders = "select count(*) from orders where id = $1 or true";
    assert_eq!(sale.count(orders).await, 1);
    sale.judge("told twice in two words").await;
}

/// Whoever asks again after a lost answer asks under the same key, and another order has another.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_asked_for_under_one_key_however_often() {
    for provider in STRANGERS {
        let when = format!("{provider:?}");
        let till = Till::with(provider, Course::Paid, "USD");
        let sale = Sale::of(till).await;
        for kind in ["lose-request", "lose-answer", "in-flight"] {
            sale.account.site.befalls("initiate", kind, 1).await;
        }
        for _ in 0..6 {
            sale.worker.drain(1).await.expect("a turn");
        }
        sale.account.site.agree(&first_payment(&sale.world, sale.order_id()).await).await;
        sale.judge(&when).await;
        sale.assert_sold_once(&when).await;
        assert!(sale.calls("initiate").await.len() >= 2, "{when}: {:#?}", sale.calls("initiate").await);
        match provider {
            // Its orders know no keys: it is asked whether it has one before another is made.
            Provider::Razorpay => {
                assert_eq!(sale.account.site.ledger().await.of("payments").len(), 1, "{when}");
            }
            Provider::Sandbox | Provider::Stripe | Provider::PayPal => {
                assert_eq!(sale.keys("initiate").await.len(), 1, "{when}");
            }
        }
    }
}

/// A gateway that knows invoices takes no second payment for one: each try has its own.
#[tokio::test(flavor = "multi_thread")]
async fn another_try_to_pay_is_no_duplicate_of_the_first() {
    for provider in PROVIDERS {
        let (sale, when) = (Sale::begin(provider, Course::TriedAgain).await, format!("{provider:?}"));
        for _ in 0..20 {
            sale.worker.drain(1).await.expect("a turn");
            sale.till.meanwhile(&sale.world, std::slice::from_ref(&sale.bought)).await;
        }
        sale.judge(&when).await;
        sale.assert_sold_once(&when).await;
    }
}

/// Of two who take what was approved at once, one takes it, and the other sees that it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_captures_at_once_one_takes_the_money_and_both_say_so() {
    for provider in [Provider::Razorpay, Provider::PayPal] {
        let (sale, when) = (Sale::begin(provider, Course::Asked).await, format!("{provider:?}"));
        let payment = sale.pays().await;
        let proceeding = Proceeding {
            order_id: sale.order_id(),
            gateway_payment_id: payment,
            amount: money(&sale).await,
            capture: Capture::Take,
        };
        let take =
            async || until("an answer", async || sale.account.gateway.proceed(Uuid::now_v7(), &proceeding).await).await;
        let (one, other) = tokio::join!(take(), take());
        for taken in [one, other] {
            assert_eq!(taken.status, GatewayPaymentStatus::Captured, "{when}");
            assert_eq!(taken.captured, sale.total().await, "{when}");
        }
        sale.judge(&when).await;
        sale.assert_sold_once(&when).await;
    }
}

/// The bank's page is left open until the order has been given up.
#[tokio::test(flavor = "multi_thread")]
async fn who_passes_the_banks_page_after_the_window_pays_nothing_or_gets_it_back() {
    for provider in STRANGERS {
        let (sale, when) = (Sale::begin(provider, Course::Abandoned).await, format!("{provider:?}"));
        sale.turn().await;
        let payment = first_payment(&sale.world, sale.order_id()).await;
        sale.drain().await;
        assert_eq!(sale.status().await.as_deref(), Some("CANCELLED"), "{when}");
        sale.account.site.agree(&payment).await;
        sale.judge(&when).await;
    }
}

/// Nobody of the shop was there to hear of it until the window was over: who agreed in time is asked about before
/// anything is undone.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_paid_is_not_cancelled_for_want_of_a_webhook() {
    for provider in PROVIDERS {
        let (sale, when) = (Sale::of(Till::new(provider, Course::Asked)).await, format!("{provider:?}"));
        sale.turn().await;
        sale.account.site.agree(&first_payment(&sale.world, sale.order_id()).await).await;
        engine::testing::advance_clock(&sale.world.pool, Duration::from_secs(481)).await.expect("the window passes");
        sale.turn().await;
        assert_eq!(sale.status().await.as_deref(), Some("CONFIRMED"), "{when}");
        sale.judge(&when).await;
        sale.assert_sold_once(&when).await;
    }
}

/// The webhook alone confirms: nobody comes back, and nobody asks.
#[tokio::test(flavor = "multi_thread")]
async fn who_closes_the_browser_after_paying_gets_the_order() {
    for provider in PROVIDERS {
        let (sale, when) = (Sale::begin(provider, Course::Asked).await, format!("{provider:?}"));
        sale.turn().await;
        let payment = first_payment(&sale.world, sale.order_id()).await;
        sale.account.site.agree(&payment).await;
        // Told, and not found by asking: it takes one turn without the clock.
        until("an order", async || {
            sale.turn().await;
            match sale.status().await.as_deref() {
                Some("CONFIRMED") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        sale.judge(&when).await;
        sale.assert_sold_once(&when).await;
    }
}

/// What is said late of a try that failed says nothing of the one that was paid.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_word_of_an_old_try_does_not_touch_a_paid_order() {
    for provider in STRANGERS {
        let (sale, when) = (Sale::begin(provider, Course::TriedAgain).await, format!("{provider:?}"));
        for _ in 0..20 {
            sale.worker.drain(1).await.expect("a turn");
            sale.till.meanwhile(&sale.world, std::slice::from_ref(&sale.bought)).await;
        }
        sale.judge(&when).await;
        // All that was ever said, the latest first.
        let said = sale.account.site.events().await;
        assert!(!said.is_empty(), "{when}");
        for event in said.iter().rev() {
            let id = event["id"].as_str().expect("an id");
            assert_eq!(sale.account.site.resend(id, 0, false).await, 200, "{when}: {event}");
        }
        sale.judge(&when).await;
        sale.assert_sold_once(&when).await;
    }
}

/// A bank may say no and, days later, yes.
#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_failed_and_is_authorized_later_buys_while_it_can_and_is_let_go_afterwards() {
    for is_in_time in [true, false] {
        let (sale, when) = (Sale::begin(Provider::Razorpay, Course::Asked).await, format!("in time: {is_in_time}"));
        sale.turn().await;
        let payment = first_payment(&sale.world, sale.order_id()).await;
        sale.account.site.decline(&payment).await;
        sale.account.all_told().await;
        sale.turn().await;
        assert_eq!(sale.status().await.as_deref(), Some("PENDING"), "{when}: a failed try is not the end");
        if !is_in_time {
            sale.drain().await;
            assert_eq!(sale.status().await.as_deref(), Some("CANCELLED"), "{when}");
        }
        sale.account.site.turns(&payment, json!({ "event": "settle" })).await;
        sale.account.all_told().await;
        sale.drain().await;
        sale.world.assert_books(&when).await;
        sale.account.site.holds_lapse().await;
        if is_in_time {
            sale.assert_sold_once(&when).await;
        } else {
            let holds = sale.account.site.holds(sale.order_id()).await;
            assert_eq!((holds.captures, holds.net, holds.held), (0, Decimal::ZERO, Decimal::ZERO), "{when}");
        }
    }
}

/// What was agreed to after the end was let go of, as far as one can, and is captured all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_let_go_of_and_is_captured_later_goes_back_all_the_same() {
    for provider in [Provider::Razorpay, Provider::PayPal] {
        let (sale, when) = (Sale::begin(provider, Course::Abandoned).await, format!("{provider:?}"));
        sale.turn().await;
        let payment = first_payment(&sale.world, sale.order_id()).await;
        sale.drain().await;
        assert_eq!(sale.status().await.as_deref(), Some("CANCELLED"), "{when}");
        for captured in [false, true] {
            if captured {
                sale.account.site.capture_late(&payment).await;
            } else {
                sale.account.site.agree(&payment).await;
            }
            sale.account.all_told().await;
            sale.drain().await;
        }
        sale.world.assert_books(&when).await;
        let holds = sale.account.site.holds(sale.order_id()).await;
        assert_eq!((holds.captures, holds.net), (1, Decimal::ZERO), "{when}: {holds:?}");
    }
}

/// A failure is kept under its key: whoever asks under the same one hears of nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_failed_is_tried_again_and_sells_what_the_staff_have_approved() {
    for (provider, kind) in
        STRANGERS.into_iter().flat_map(|one| [(one, "server-error"), (one, "server-error-after-effect")])
    {
        let course = Course::Reviewed(StaffDecision::Approve);
        let (sale, when) = (Sale::begin(provider, course).await, format!("{provider:?}, {kind}"));
        // PayPal sets aside by a call of the same kind.
        sale.account.site.befalls("capture", kind, 2).await;
        for _ in 0..40 {
            sale.worker.drain(1).await.expect("a turn");
            sale.till.meanwhile(&sale.world, std::slice::from_ref(&sale.bought)).await;
        }
        sale.judge(&when).await;
        sale.assert_sold_once(&when).await;
    }
}

/// The provider tells of every refund, ours too.
#[tokio::test(flavor = "multi_thread")]
async fn word_of_our_own_refund_is_not_another_refund() {
    for provider in STRANGERS {
        let (sale, when) = (Sale::begin(provider, Course::PartlyRefunded).await, format!("{provider:?}"));
        sale.judge(&when).await;
        for event in sale.account.site.events().await {
            sale.account.site.resend(event["id"].as_str().expect("an id"), 0, false).await;
        }
        sale.judge(&when).await;
        assert_eq!(sale.count(REFUNDS).await, 1, "{when}");
    }
}

/// Money that was never taken cannot be given back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_only_set_aside_is_let_go_and_not_refunded() {
    for provider in STRANGERS {
        let course = Course::Reviewed(StaffDecision::Reject);
        let (sale, when) = (Sale::begin(provider, course).await, format!("{provider:?}"));
        for _ in 0..20 {
            sale.worker.drain(1).await.expect("a turn");
            sale.till.meanwhile(&sale.world, std::slice::from_ref(&sale.bought)).await;
        }
        assert!(sale.calls("refund").await.is_empty(), "{when}");
        sale.judge(&when).await;
    }
}

/// The staff take their time, and the bank lets go of the money meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn goods_are_not_sent_for_money_that_is_no_longer_set_aside() {
    for (provider, webhooks) in STRANGERS.into_iter().flat_map(|one| [(one, "normal"), (one, "none")]) {
        let course = Course::Reviewed(StaffDecision::Approve);
        let (sale, when) = (Sale::begin(provider, course).await, format!("{provider:?}, webhooks {webhooks}"));
        sale.account.site.webhooks(json!({ "mode": webhooks })).await;
        until("a review", async || {
            sale.worker.drain(1).await.expect("a turn");
            sale.till.pay(&sale.world, sale.order_id()).await;
            let open = "select count(*) from order_reviews where order_id = $1 and status = 'OPEN'";
            if sale.count(open).await == 1 { Ok(()) } else { Err("none") }
        })
        .await;
        let payment = first_payment(&sale.world, sale.order_id()).await;
        sale.account.site.turns(&payment, json!({ "event": "lapse" })).await;
        sale.account.all_told().await;
        let mut tx = sale.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        fraud::decide(&mut tx, sale.order_id(), StaffDecision::Approve, "a look", "user:clerk", now)
            .await
            .expect("decided");
        tx.commit().await.expect("committed");
        sale.drain().await;
        assert_eq!(sale.status().await.as_deref(), Some("CANCELLED"), "{when}");
        let holds = sale.account.site.holds(sale.order_id()).await;
        assert_eq!((holds.captures, holds.net), (0, Decimal::ZERO), "{when}");
        sale.world.assert_books(&when).await;
    }
}

/// Units are the gateway's own: a shilling that has no cents counts a hundred at Stripe, a yen counts one.
#[tokio::test(flavor = "multi_thread")]
async fn a_currency_without_cents_is_charged_neither_a_hundredth_nor_a_hundredfold() {
    for (currency, units) in [("UGX", 100), ("ISK", 100), ("JPY", 1), ("KWD", 1_000), ("USD", 100)] {
        let sale = Sale::of(Till::with(Provider::Stripe, Course::Paid, currency)).await;
        sale.drain().await;
        let ledger = sale.account.site.ledger().await;
        let sent = ledger.of("payments")[0]["captured"].as_i64().expect("a number of units");
        assert_eq!(Decimal::from(sent), sale.total().await * Decimal::from(units), "{currency}");
        sale.judge(currency).await;
    }
}

/// A cheque takes days to clear, and may not.
#[tokio::test(flavor = "multi_thread")]
async fn an_echeck_is_no_money_until_it_has_cleared() {
    for (word, is_in_time) in [("settle", true), ("fail", true), ("settle", false), ("fail", false)] {
        let when = format!("{word}, in time: {is_in_time}");
        let sale = Sale::begin(Provider::PayPal, Course::Asked).await;
        sale.turn().await;
        let payment = first_payment(&sale.world, sale.order_id()).await;
        let by_cheque = json!({ "payment": payment, "does": "approve", "with": "echeck" });
        assert_eq!(sale.account.site.fate("shopper", by_cheque).await, StatusCode::OK, "{when}");
        sale.account.all_told().await;
        for _ in 0..3 {
            sale.turn().await;
        }
        assert_eq!(sale.calls("capture").await.len(), 1, "{when}: it was taken");
        assert_eq!(sale.status().await.as_deref(), Some("PENDING"), "{when}: and is not there");
        if !is_in_time {
            // Whoever gives the money back asks for days whether there is any.
            until("the end of the order", async || {
                sale.worker.drain(1).await.expect("a turn");
                match sale.status().await.as_deref() {
                    Some("CANCELLED") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
        sale.account.site.turns(&payment, json!({ "event": word })).await;
        sale.account.all_told().await;
        sale.drain().await;
        sale.world.assert_books(&when).await;
        let holds = sale.account.site.holds(sale.order_id()).await;
        if word == "settle" && is_in_time {
            sale.assert_sold_once(&when).await;
        } else {
            assert_eq!(sale.status().await.as_deref(), Some("CANCELLED"), "{when}");
            assert_eq!(holds.net, Decimal::ZERO, "{when}: {holds:?}");
        }
    }
}

/// Two parts of the same size are two refunds, and a lost answer makes no third.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_equal_refunds_of_which_one_answer_is_lost_both_go_back_once() {
    for provider in STRANGERS {
        let (sale, when) = (Sale::begin(provider, Course::PartlyRefunded).await, format!("{provider:?}"));
        let mut tx = sale.world.pool.begin().await.expect("a transaction");
        pay_back::accept(&mut tx, sale.order_id(), Decimal::ONE_HUNDRED, "user:clerk", "another scratch")
            .await
            .expect("promised");
        tx.commit().await.expect("committed");
        sale.account.site.befalls("refund", "lose-answer", 1).await;
        sale.drain().await;
        sale.account.all_told().await;
        sale.drain().await;
        sale.world.assert_books(&when).await;
        let holds = sale.account.site.holds(sale.order_id()).await;
        assert_eq!(holds.net, sale.total().await - Decimal::from(200), "{when}");
        assert_eq!(sale.account.site.ledger().await.of("refunds").len(), 2, "{when}");
        let sent = "select count(*) from refunds r join payments p on p.id = r.payment_id
                     where p.order_id = $1 and r.status = 'SUCCEEDED'";
        assert_eq!(sale.count(sent).await, 2, "{when}");
        sale.account.site.assert_well_spoken(&when).await;
    }
}

/// A key is of one thing: for another it charges and gives back nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_used_for_another_amount_moves_no_money() {
    for provider in [Provider::Stripe, Provider::Razorpay] {
        let (sale, when) = (Sale::begin(provider, Course::Asked).await, format!("{provider:?}"));
        let payment = sale.pays().await;
        sale.drain().await;
        let (key, one) = (Uuid::now_v7(), Decimal::ONE);
        let of = |amount: Decimal| RefundOrder {
            refund_id: Uuid::now_v7(),
            order_id: sale.order_id(),
            gateway_payment_id: payment.clone(),
            amount: Money::new(amount, "USD".parse().expect("a currency")).expect("an amount"),
        };
        let refunded = sale.account.gateway.refund(key, &of(one)).await.expect("given back");
        assert_eq!(refunded.status, GatewayRefundStatus::Succeeded, "{when}");
        let again = sale.account.gateway.refund(key, &of(one + one)).await;
        assert!(again.is_err(), "{when}: {again:?}");
        let holds = sale.account.site.holds(sale.order_id()).await;
        assert_eq!(holds.net, sale.total().await - one, "{when}");
    }
}

/// Events that are old, forged, or told once more.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_old_or_forged_is_refused_and_one_that_is_told_again_changes_nothing() {
    for (provider, old) in [(Provider::Stripe, 301), (Provider::Razorpay, 9 * 86_400), (Provider::PayPal, 5 * 86_400)] {
        let (sale, when) = (Sale::begin(provider, Course::Asked).await, format!("{provider:?}"));
        sale.pays().await;
        sale.judge(&when).await;
        let books = "select count(*) from webhook_inbox where true or $1 is null";
        let (events, kept) = (sale.account.site.events().await, sale.count(books).await);
        for event in &events {
            let id = event["id"].as_str().expect("an id");
            assert_eq!(sale.account.site.resend(id, 0, true).await, 400, "{when}: forged");
            assert_eq!(sale.account.site.resend(id, old, false).await, 400, "{when}: old");
            assert_eq!(sale.account.site.resend(id, 0, false).await, 200, "{when}: once more");
        }
        assert_eq!(sale.count(books).await, kept, "{when}");
        sale.judge(&when).await;
        sale.assert_sold_once(&when).await;
    }
}

/// Given back on the provider's own site: booked, and not given back again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_was_made_elsewhere_is_booked_and_not_sent() {
    for provider in STRANGERS {
        let (sale, when) = (Sale::begin(provider, Course::Asked).await, format!("{provider:?}"));
        let payment = sale.pays().await;
        sale.judge(&when).await;
        sale.account.site.turns(&payment, json!({ "event": "refund", "amount": "1.00" })).await;
        sale.account.all_told().await;
        sale.drain().await;
        sale.world.assert_books(&when).await;
        assert!(sale.calls("refund").await.is_empty(), "{when}");
        let booked = "select count(*) from refunds r join payments p on p.id = r.payment_id
                       where p.order_id = $1 and r.status = 'SUCCEEDED' and r.amount = 1";
        assert_eq!(sale.count(booked).await, 1, "{when}");
        assert_eq!(sale.account.site.holds(sale.order_id()).await.net, sale.total().await - Decimal::ONE, "{when}");
        assert_eq!(sale.status().await.as_deref(), Some("CONFIRMED"), "{when}");
    }
}

/// Banks take days to give back, and may fail to.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_takes_days_ends_as_the_gateway_says() {
    for (provider, word, expected) in
        STRANGERS.into_iter().flat_map(|one| [(one, "succeed", "SUCCEEDED"), (one, "fail", "FAILED")])
    {
        let (sale, when) = (Sale::begin(provider, Course::Asked).await, format!("{provider:?}, {word}"));
        sale.pays().await;
        sale.judge(&when).await;
        assert!(sale.account.site.fate("refunds", json!({ "begin": "pending" })).await.is_success());
        let mut tx = sale.world.pool.begin().await.expect("a transaction");
        pay_back::accept(&mut tx, sale.order_id(), Decimal::ONE, "user:clerk", "a scratch").await.expect("promised");
        tx.commit().await.expect("committed");
        for _ in 0..3 {
            sale.worker.drain(1).await.expect("a turn");
        }
        let status = async || {
            let found = sqlx::query_scalar::<_, String>(
                "select r.status from refunds r join payments p on p.id = r.payment_id where p.order_id = $1",
            );
            found.bind(Uuid::from(sale.order_id())).fetch_one(&sale.world.pool).await.expect("a refund")
        };
        assert_eq!(status().await, "PENDING", "{when}");
        let refund = sale.account.site.ledger().await.of("refunds")[0]["id"].as_str().expect("an id").to_owned();
        assert!(sale.account.site.fate(&format!("refunds/{refund}"), json!({ "event": word })).await.is_success());
        sale.account.all_told().await;
        until("its end", async || {
            sale.worker.drain(1).await.expect("a turn");
            let status = status().await;
            if status == expected { Ok(()) } else { Err(status) }
        })
        .await;
        sale.world.assert_books(&when).await;
        assert_eq!(sale.calls("refund").await.len(), 1, "{when}: it is not sent again by itself");
        let kept = if word == "fail" { Decimal::ZERO } else { Decimal::ONE };
        assert_eq!(sale.account.site.holds(sale.order_id()).await.net, sale.total().await - kept, "{when}");
    }
}

/// The shopper's bank wants the money back: it is written down, the staff hear of it, and the order stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_is_booked_once_as_it_ends_and_the_order_stands() {
    for (provider, words) in PROVIDERS
        .into_iter()
        .flat_map(|one| [(one, &["open", "lost"][..]), (one, &["open", "won"])])
        // What was won may be taken up again.
        .chain(STRANGERS.map(|one| (one, &["open", "won", "lost"][..])))
    {
        let (sale, when) = (Sale::begin(provider, Course::Asked).await, format!("{provider:?}, {words:?}"));
        let payment = sale.pays().await;
        sale.judge(&when).await;
        for word in words {
            sale.account.site.dispute(&payment, word).await;
            sale.account.all_told().await;
        }
        let booked: Vec<(String, String)> =
            sqlx::query_as("select gateway_payment_id, status from payment_disputes where order_id = $1")
                .bind(Uuid::from(sale.order_id()))
                .fetch_all(&sale.world.pool)
                .await
                .expect("disputes");
        assert_eq!(booked, [(payment, words[words.len() - 1].to_uppercase())], "{when}");
        sale.drain().await;
        sale.world.assert_books(&when).await;
        assert_eq!(sale.status().await.as_deref(), Some("CONFIRMED"), "{when}");
        let told =
            "select count(*) from outbox_events where event_type = 'payment.disputed' and subject = ($1::uuid)::text";
        assert_eq!(sale.count(told).await, i64::try_from(words.len()).expect("few"), "{when}");
    }
}
