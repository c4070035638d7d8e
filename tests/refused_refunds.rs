//! Refunds that the gateway refuses for good: they are seen, they hold up nothing, and people have two ways
//! out of them.

use std::time::Duration;

use domain::{
    ids::OrderId,
    money::{Currency, Money},
    order::Actor,
    refund::{InvalidRefundTransition, RefundStatus},
};
use engine::testing::advance_clock;
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    Rules,
    cancellation::{self, CancelRequest},
    pay_back,
    refund::desk::{self, Decision, RefundRefusal},
    store::refunds::{
        ClaimError,
        held::{self, Held, RefundHead},
    },
};

use crate::{gateway::Weather, world::World};

const STAFF: &str = "staff@example.com";

async fn shop() -> World {
    let rules =
        Rules { default_gateway: "scripted".to_owned(), staff_email: Some(STAFF.to_owned()), ..Rules::default() };
    World::with(rules).await
}

/// A paid and confirmed order, and what it cost.
async fn paid(world: &World) -> (OrderId, Decimal) {
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let order_id = world.checkout(user, cart, "tok_ok").await.expect("accepted").order_id;
    world.settle().await;
    (order_id, world.gateway.net(order_id))
}

async fn ask(world: &World, order_id: OrderId, amount: i64) -> Result<Uuid, ClaimError> {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let run_id = pay_back::accept(&mut tx, order_id, Decimal::from(amount), "user:clerk", "goodwill").await?;
    tx.commit().await.expect("committed");
    Ok(run_id)
}

async fn decide(world: &World, refund_id: Uuid, decision: Decision) -> Result<RefundHead, RefundRefusal> {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let head = desk::decide(&mut tx, refund_id, decision, "user:ben", "the bank was called").await?;
    tx.commit().await.expect("committed");
    Ok(head)
}

async fn held_now(world: &World) -> Vec<Held> {
    let mut conn = world.pool.acquire().await.expect("a connection");
    held::held(&mut conn, Uuid::nil(), 10).await.expect("what is held")
}

/// A refund of this order that the gateway has refused, and the run that waits for a person.
async fn refused(world: &World, order_id: OrderId, amount: i64) -> (Uuid, Uuid) {
    world.gateway.refuse_refunds(true);
    let run_id = ask(world, order_id, amount).await.expect("accepted");
    world.settle().await;
    (held_now(world).await[0].refund_id, run_id)
}

/// The customer cancels; the run that does it, as far as it comes.
async fn cancelled(world: &World, order_id: OrderId) -> Uuid {
    let (actor, by, reason) = (Actor::Customer, "user:asha".to_owned(), "a change of mind".to_owned());
    let request = CancelRequest { order_id, actor, by, reason };
    let mut tx = world.pool.begin().await.expect("a transaction");
    let accepted = cancellation::accept::accept(&mut tx, &world.shop.rules, &request, |_| true).await;
    tx.commit().await.expect("committed");
    world.settle().await;
    accepted.expect("accepted").workflow_id
}

fn given_back(world: &World, order_id: OrderId) -> Decimal {
    world.gateway.payments(order_id).iter().map(|payment| payment.refunded).sum()
}

#[tokio::test]
async fn what_the_gateway_refuses_is_seen_stays_claimed_and_holds_up_no_other_refund() {
    let world = shop().await;
    let (order_id, total) = paid(&world).await;
    let (refund_id, run_id) = refused(&world, order_id, 1_000).await;
    assert_eq!(world.status(run_id).await, "WAITING", "no worker, and no attempt after attempt");
    let held = held_now(&world).await;
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].refund_id, held[0].run_id), (refund_id, run_id));
    assert_eq!(held[0].failure.as_deref(), Some("charge-too-old: it was long ago"));
    let mails = world.mails.to(STAFF);
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(mails[0].text.contains(&refund_id.to_string()), "{}", mails[0].text);
    world.assert_books("while it waits for a person").await;

    world.gateway.refuse_refunds(false);
    let later = ask(&world, order_id, 50).await.expect("accepted");
    world.settle().await;
    assert_eq!(world.status(later).await, "COMPLETED", "it does not wait for the refused one");
    assert_eq!(given_back(&world, order_id), Decimal::from(50));
    let mut conn = world.pool.acquire().await.expect("a connection");
    let claim = workflows::store::refunds::Claim { run_id: Uuid::now_v7(), order_id, reason: "all", reference: None };
    let refused = workflows::store::refunds::claim_amount(&mut conn, claim, total, chrono::Utc::now()).await;
    assert!(
        matches!(refused, Err(ClaimError::ExceedsCaptured { left }) if left.amount() == total - Decimal::from(1_050)),
        "what was refused is owed all the same"
    );
    world.assert_books("after the later one").await;
}

#[tokio::test]
async fn a_refused_refund_is_sent_again_under_another_key_as_often_as_it_takes() {
    let world = shop().await;
    let (order_id, _) = paid(&world).await;
    let (refund_id, run_id) = refused(&world, order_id, 1_000).await;

    assert_eq!(decide(&world, refund_id, Decision::Resend).await.expect("decided").status, RefundStatus::Pending);
    let twice = decide(&world, refund_id, Decision::Resend).await;
    assert!(matches!(twice, Err(RefundRefusal::Invalid(InvalidRefundTransition { .. }))), "{twice:?}");
    world.settle().await;
    assert_eq!(held_now(&world).await[0].refund_id, refund_id, "refused once more");
    assert_eq!(world.mails.to(STAFF).len(), 2, "and told once more");

    world.gateway.refuse_refunds(false);
    decide(&world, refund_id, Decision::Resend).await.expect("decided");
    world.settle().await;
    assert_eq!(world.status(run_id).await, "COMPLETED");
    assert_eq!(given_back(&world, order_id), Decimal::from(1_000));
    assert!(held_now(&world).await.is_empty());
    let keys = world.gateway.refund_keys();
    assert_eq!(keys.len(), 3, "each time another: {keys:?}");
    let log: Vec<(String, String)> =
        sqlx::query_as("select actor, reason from audit_log where action = 'refund.resend'")
            .fetch_all(&world.pool)
            .await
            .expect("the log");
    assert_eq!(log, vec![("user:ben".to_owned(), "the bank was called".to_owned()); 2]);
    world.assert_books("after the third time").await;
}

#[tokio::test]
async fn a_refused_refund_is_settled_by_hand_and_the_gateway_sends_nothing() {
    let world = shop().await;
    let (order_id, _) = paid(&world).await;
    let (refund_id, run_id) = refused(&world, order_id, 1_000).await;
    world.gateway.refuse_refunds(false);
    let head = decide(&world, refund_id, Decision::Settle).await.expect("decided");
    assert_eq!((head.status, head.by_hand), (RefundStatus::Succeeded, true));
    assert!(decide(&world, refund_id, Decision::Settle).await.is_err(), "once");
    world.settle().await;
    assert_eq!(world.status(run_id).await, "COMPLETED");
    assert_eq!(given_back(&world, order_id), Decimal::ZERO);
    let told = world.mails.about(order_id).iter().filter(|mail| mail.event == "payment.refunded").count();
    assert_eq!(told, 1, "the shopper hears that the money has gone");
    world.assert_books("after it was paid by hand").await;
}

#[tokio::test]
async fn a_cancelled_order_waits_for_a_person_when_its_refund_is_refused_and_then_ends() {
    for decision in [Decision::Resend, Decision::Settle] {
        let world = shop().await;
        let (order_id, total) = paid(&world).await;
        world.gateway.refuse_refunds(true);
        let run_id = cancelled(&world, order_id).await;
        assert_eq!(world.order_status(order_id.into()).await.as_deref(), Some("CANCELLED"));
        world.assert_books("while the money is owed").await;

        world.gateway.refuse_refunds(false);
        decide(&world, held_now(&world).await[0].refund_id, decision).await.expect("decided");
        world.settle().await;
        assert_eq!(world.status(run_id).await, "COMPLETED", "{decision:?}");
        let sent = if decision == Decision::Resend { total } else { Decimal::ZERO };
        assert_eq!(given_back(&world, order_id), sent, "{decision:?}");
        let paid: String = sqlx::query_scalar("select payment_status from orders where id = $1")
            .bind(Uuid::from(order_id))
            .fetch_one(&world.pool)
            .await
            .expect("an order");
        assert_eq!(paid, "REFUNDED", "{decision:?}");
        world.assert_books("after the person's word").await;
    }
}

#[tokio::test]
async fn only_a_refused_refund_is_decided_about() {
    let world = shop().await;
    let (order_id, _) = paid(&world).await;
    assert!(matches!(decide(&world, Uuid::now_v7(), Decision::Resend).await, Err(RefundRefusal::NotFound)));
    ask(&world, order_id, 10).await.expect("accepted");
    let refund_id: Uuid = sqlx::query_scalar("select id from refunds").fetch_one(&world.pool).await.expect("one");
    for expected in [RefundStatus::Pending, RefundStatus::Succeeded] {
        for decision in [Decision::Resend, Decision::Settle] {
            let refused = decide(&world, refund_id, decision).await;
            assert!(
                matches!(refused, Err(RefundRefusal::Invalid(InvalidRefundTransition { from, .. })) if from == expected),
                "{decision:?} of {expected}: {refused:?}"
            );
        }
        world.settle().await;
    }
}

#[tokio::test]
async fn nobody_decides_for_ninety_days_and_is_reminded_and_then_it_is_still_to_be_decided() {
    for decision in [Decision::Resend, Decision::Settle] {
        let world = shop().await;
        let (order_id, _) = paid(&world).await;
        let (refund_id, run_id) = refused(&world, order_id, 1_000).await;
        for times in 2..4 {
            advance_clock(&world.pool, Duration::from_secs(91 * 24 * 3600)).await.expect("later");
            world.settle().await;
            assert_eq!(world.mails.to(STAFF).len(), times, "told once more");
            assert_eq!(world.status(run_id).await, "WAITING");
        }
        world.gateway.refuse_refunds(false);
        decide(&world, refund_id, decision).await.expect("decided");
        world.settle().await;
        assert_eq!(world.status(run_id).await, "COMPLETED", "{decision:?}");
        world.assert_books("after all that time").await;
    }
}

#[tokio::test]
async fn of_two_refused_refunds_of_a_run_either_is_decided_about_first() {
    let world = shop().await;
    let (order_id, total) = paid(&world).await;
    let extra = Decimal::from(77);
    world.gateway.charge_unasked(order_id, Money::rounded(extra, Currency::INR));
    world.gateway.refuse_refunds(true);
    let run_id = cancelled(&world, order_id).await;
    let held = held_now(&world).await;
    assert_eq!(held.len(), 2, "{held:?}");
    world.gateway.refuse_refunds(false);
    decide(&world, held[1].refund_id, Decision::Resend).await.expect("decided");
    world.settle().await;
    assert_eq!(given_back(&world, order_id), held[1].amount, "the other holds it up no longer");
    assert_eq!(world.status(run_id).await, "WAITING");
    decide(&world, held[0].refund_id, Decision::Resend).await.expect("decided");
    world.settle().await;
    assert_eq!((world.status(run_id).await.as_str(), given_back(&world, order_id)), ("COMPLETED", total + extra));
    world.assert_books("after both").await;
}

#[tokio::test]
async fn what_was_paid_by_hand_is_not_looked_for_at_the_gateway() {
    let world = shop().await;
    let (order_id, _) = paid(&world).await;
    let (refund_id, _) = refused(&world, order_id, 1_000).await;
    decide(&world, refund_id, Decision::Settle).await.expect("decided");
    world.gateway.refuse_refunds(false);

    // Another goes through, its answer is lost, and by the time the gateway speaks again it has forgotten the key.
    world.gateway.set_weather(Weather::Deaf);
    let run_id = ask(&world, order_id, 50).await.expect("accepted");
    world.settle().await;
    world.gateway.forget_keys();
    advance_clock(&world.pool, Duration::from_secs(13 * 3600)).await.expect("later");
    world.gateway.set_weather(Weather::Fair);
    world.settle().await;
    assert_eq!(world.status(run_id).await, "COMPLETED");
    assert_eq!(given_back(&world, order_id), Decimal::from(50), "once");
}
