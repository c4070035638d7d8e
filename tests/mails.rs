//! A mail server that is slow, silent or away: a message is handed over twice at most.

use engine::testing::{Fault, Once, Point, TestWorker};
use uuid::Uuid;

use crate::{gateway::Relay, world::World};

/// A cash order is confirmed; how its e-mail goes is what the relay does. Answers its row: status, how often
/// it was or may have been sent, and its Message-ID.
async fn told(world: &World, ahead: impl IntoIterator<Item = Relay>, dies: usize) -> (String, i32, String) {
    let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.mails.expect(ahead);
    let registry = workflows::registry(&world.shop);
    for _ in 0..dies {
        let strike = Once::new(Point::After, "SendEmail", Fault::Crash);
        let doomed = TestWorker::new(&world.pool, registry.clone(), true, Some(strike)).await.expect("a worker");
        doomed.drain(3).await.expect("drained");
        doomed.die().await.expect("dead");
    }
    let worker = TestWorker::new(&world.pool, registry, true, None).await.expect("a worker");
    assert!(worker.drain(200).await.expect("drained") < 200, "it never ends");
    world.assert_books("after the e-mail").await;
    sqlx::query_as("select status, sends, message_id from notifications where subject_id = $1")
        .bind(Uuid::from(accepted.order_id))
        .fetch_one(&world.pool)
        .await
        .expect("a message")
}

#[tokio::test]
async fn what_was_handed_over_and_never_answered_for_is_sent_once_more_and_no_more() {
    let world = World::new().await;
    let (status, sends, id) = told(&world, [Relay::Silent; 50], 0).await;
    assert_eq!((status.as_str(), sends, world.mails.copies(&id)), ("IN_DOUBT", 2, 2));
}

#[tokio::test]
async fn a_second_copy_that_is_answered_for_settles_the_doubt() {
    let world = World::new().await;
    let (status, sends, id) = told(&world, [Relay::Silent], 0).await;
    assert_eq!((status.as_str(), sends, world.mails.copies(&id)), ("SENT", 2, 2));
}

#[tokio::test]
async fn what_was_not_handed_over_is_tried_until_it_is() {
    let world = World::new().await;
    let (status, sends, id) = told(&world, [Relay::Unreachable; 20], 0).await;
    assert_eq!((status.as_str(), sends, world.mails.copies(&id)), ("SENT", 1, 1));
}

#[tokio::test]
async fn an_answer_lost_with_its_worker_counts_as_none() {
    let world = World::new().await;
    let (status, sends, id) = told(&world, [], 1).await;
    assert_eq!((status.as_str(), sends, world.mails.copies(&id)), ("SENT", 2, 2));
    let (status, sends, id) = told(&world, [], 3).await;
    assert_eq!((status.as_str(), sends, world.mails.copies(&id)), ("IN_DOUBT", 2, 2));
}
