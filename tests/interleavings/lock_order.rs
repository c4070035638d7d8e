//! One lock order: the order first, and a run's row last. Each test lets two transactions meet that would
//! wait for each other if either took them the other way round; what is waited for is a lock, not a time.

use domain::order::Actor;
use engine::run::Delivery;
use rust_decimal::Decimal;
use workflows::{
    cancellation::{CancelRequest, accept},
    fulfilment::LineName,
    order_return::desk::{self, Decision},
    store::{orders, returns},
};

use super::capture_is_reported;
use crate::{
    return_faults::delivered,
    world::{World, until_blocked},
};

#[tokio::test]
async fn a_return_that_wakes_up_does_not_wait_for_whoever_has_its_order_and_tells_it_something() {
    let world = &World::new().await;
    let order_id = delivered(world, false).await;
    let mut tx = world.pool.begin().await.expect("a transaction");
    let now = engine::now(&mut *tx).await.expect("the time");
    let order = orders::lock(&mut tx, order_id).await.expect("an answer").expect("an order");
    let mouse = [(LineName::Variant("MOU-001".to_owned()), 1)];
    let return_id =
        desk::request(&mut tx, &world.shop.rules, &order, &mouse, "too heavy", now).await.expect("asked for");
    for decision in [Decision::Approve, Decision::Receive] {
        desk::decide(&mut tx, return_id, decision, None, now).await.expect("decided");
    }
    let run_id = returns::find(&mut tx, return_id).await.expect("an answer").expect("a return").run_id;
    tx.commit().await.expect("committed");

    let worker = world.healthy().await;
    let mut tx = world.pool.begin().await.expect("a transaction");
    orders::lock(&mut tx, order_id).await.expect("an answer").expect("an order");
    let speaker = async {
        until_blocked(&world.pool).await;
        let told = engine::run::signal(&mut tx, run_id, "a word", "once", &true).await.expect("no deadlock");
        assert_eq!(told, Delivery::Delivered);
        tx.commit().await.expect("committed");
    };
    let (turn, ()) = tokio::join!(worker.turn(run_id), speaker);
    turn.expect("a turn");
    worker.drain(50).await.expect("drained");
    let found = returns::find(&mut world.pool.acquire().await.expect("a connection"), return_id).await;
    assert_eq!(found.expect("an answer").expect("a return").status.as_str(), "REFUNDED");
    world.assert_books("after they met").await;
}

#[tokio::test]
async fn a_checkout_that_wakes_up_does_not_wait_for_whoever_has_its_order_and_cancels_it() {
    let world = &World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let bought = world.checkout(user, cart, "tok_3ds").await.expect("accepted");
    let worker = world.healthy().await;
    worker.turn(bought.workflow_id).await.expect("a turn");
    world.gateway.approve(bought.order_id);
    capture_is_reported(world, bought.order_id).await;

    let mut tx = world.pool.begin().await.expect("a transaction");
    orders::lock(&mut tx, bought.order_id).await.expect("an answer").expect("an order");
    let canceller = async {
        until_blocked(&world.pool).await;
        let (actor, by) = (Actor::Customer, format!("user:{user}"));
        let request = CancelRequest { order_id: bought.order_id, actor, by, reason: "a change of mind".to_owned() };
        let accepted = accept::accept(&mut tx, &world.shop.rules, &request, |_| true).await.expect("no deadlock");
        assert_eq!(accepted.workflow_id, bought.workflow_id);
        tx.commit().await.expect("committed");
    };
    let (turn, ()) = tokio::join!(worker.turn(bought.workflow_id), canceller);
    turn.expect("a turn");
    worker.drain(50).await.expect("drained");
    assert_eq!(world.order_status(bought.order_id.into()).await.as_deref(), Some("CANCELLED"));
    assert_eq!(world.gateway.net(bought.order_id), Decimal::ZERO);
    world.assert_books("after they met").await;
}
