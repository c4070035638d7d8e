//! Requests for a checkout that come at the same time: they share a transaction, and each is answered as if it
//! had come alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    accepts::{Accepts, Reply, Request},
    idempotency::IdempotencyKey,
};
use domain::ids::{CartId, UserId};
use futures::future::join_all;
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::checkout::accept::Order;

use crate::world::{World, order, until_blocked};

fn counter(world: &World) -> Accepts {
    Accepts::new(world.pool.clone(), Arc::clone(&world.shop), 5_000, Duration::from_secs(14))
}

fn request(user: UserId, key: &str, hash: u8, order: Order) -> Request {
    Request { caller: format!("user:{user}"), key: IdempotencyKey::new(key.to_owned(), [hash; 32]), order }
}

/// The run that was started, or the code of the refusal.
type Outcome = Result<Uuid, String>;

fn outcome(reply: Result<Reply, api::error::ApiError>) -> Outcome {
    let view = match reply {
        Ok(Reply::Accepted(view)) => view,
        Ok(Reply::Replay(replay)) => replay.body,
        Err(error) => return Err(error.code().to_owned()),
    };
    Ok(serde_json::from_value(view["workflowId"].clone()).expect("a run"))
}

/// All in one breath: on a runtime of one thread they are waiting before anybody is served.
async fn together(counter: &Accepts, requests: impl IntoIterator<Item = Request>) -> Vec<Outcome> {
    join_all(requests.into_iter().map(|request| counter.accept(request))).await.into_iter().map(outcome).collect()
}

/// Transactions that have started checkouts.
async fn transactions(world: &World) -> i64 {
    sqlx::query_scalar("select count(distinct xmin::text) from engine.runs where workflow = 'checkout'")
        .fetch_one(&world.pool)
        .await
        .expect("counted")
}

/// Each with a laptop in the cart.
async fn crowd(world: &World, many: usize) -> Vec<(UserId, CartId)> {
    let mut crowd = Vec::with_capacity(many);
    for _ in 0..many {
        crowd.push(world.shopper(&[("LAP-001", 1)]).await);
    }
    crowd
}

#[tokio::test]
async fn who_comes_with_others_hears_what_they_would_hear_alone() {
    let world = World::new().await;
    let counter = counter(&world);
    let crowd = crowd(&world, 20).await;
    let [(user, cart), (second, its_cart), (third, stays), ..] = crowd[..] else { panic!("a crowd") };
    let (empty_handed, empty) = world.shopper(&[]).await;
    let (greedy, too_much) = world.shopper(&[("BAG-001", 1)]).await;
    sqlx::query("update product_variants set is_active = false where sku = 'BAG-001'")
        .execute(&world.pool)
        .await
        .expect("not for sale");
    let mut requests: Vec<Request> =
        crowd.iter().map(|&(user, cart)| request(user, "k", 1, order(user, cart))).collect();
    requests.extend([
        // The same again; the same under another key; another request for the cart; another under the key.
        request(user, "k", 1, order(user, cart)),
        request(user, "again", 1, order(user, cart)),
        request(second, "other", 2, Order { fingerprint: "another".to_owned(), ..order(second, its_cart) }),
        request(third, "k", 3, order(third, stays)),
        // What cannot be sold.
        request(empty_handed, "k", 1, order(empty_handed, empty)),
        request(greedy, "k", 1, order(greedy, too_much)),
        request(greedy, "k2", 1, order(greedy, CartId::generate())),
        request(greedy, "k3", 1, order(greedy, its_cart)),
    ]);
    let (dear, its) = world.shopper(&[("MOU-001", 1)]).await;
    requests.extend([
        request(dear, "a", 1, Order { expected_total: Some(Decimal::ONE), ..order(dear, its) }),
        request(dear, "b", 1, Order { coupon_codes: vec!["NONE".to_owned()], ..order(dear, its) }),
        request(dear, "c", 1, Order { payment_gateway: Some("none".to_owned()), ..order(dear, its) }),
    ]);

    let outcomes = together(&counter, requests).await;
    let runs: Vec<Uuid> = outcomes[..20].iter().map(|outcome| *outcome.as_ref().expect("accepted")).collect();
    assert_eq!(transactions(&world).await, 1, "they shared a transaction");
    assert_eq!((&outcomes[20], &outcomes[21]), (&Ok(runs[0]), &Ok(runs[0])), "the same request is the same run");
    let refused: Vec<&str> =
        outcomes[22..].iter().map(|outcome| outcome.as_ref().expect_err("refused").as_str()).collect();
    assert_eq!(
        refused,
        [
            "cart-in-checkout",
            "idempotency-key-reused",
            "cart-empty",
            "out-of-stock",
            "cart-not-found",
            "cart-not-found",
            "price-changed",
            "coupon-invalid",
            "gateway-unknown",
        ]
    );
    world.carry_on(20).await;
    world.assert_books("after all of them").await;
    let confirmed: i64 = sqlx::query_scalar("select count(*) from orders where order_status = 'CONFIRMED'")
        .fetch_one(&world.pool)
        .await
        .expect("counted");
    assert_eq!(confirmed, 20);
}

#[tokio::test]
async fn who_waits_for_a_cart_keeps_nobody_waiting() {
    let world = World::new().await;
    let counter = counter(&world);
    let crowd = crowd(&world, 12).await;
    let (user, cart) = crowd[0];
    let mut somebody = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from carts where id = $1 for update")
        .bind(Uuid::from(cart))
        .execute(&mut *somebody)
        .await
        .expect("locked");
    let waiting = tokio::spawn({
        let counter = counter.clone();
        async move { outcome(counter.accept(request(user, "k", 1, order(user, cart))).await) }
    });
    let others = crowd[1..].iter().map(|&(user, cart)| request(user, "k", 1, order(user, cart)));
    let accepted = together(&counter, others).await;
    assert!(accepted.iter().all(Result::is_ok), "{accepted:?}");
    until_blocked(&world.pool).await;
    assert!(!waiting.is_finished(), "it waits for the cart");
    somebody.rollback().await.expect("unlocked");
    waiting.await.expect("a task").expect("accepted");
}

#[tokio::test]
async fn one_that_breaks_a_statement_breaks_it_for_itself_alone() {
    let world = World::new().await;
    let counter = counter(&world);
    let crowd = crowd(&world, 12).await;
    sqlx::raw_sql(
        "create function poison() returns trigger language plpgsql as $$
         begin
             if new.input ->> 'contactPhone' = 'poison' then raise exception 'poison'; end if;
             return new;
         end $$;
         create trigger poison before insert on engine.runs for each row execute function poison()",
    )
    .execute(&world.pool)
    .await
    .expect("a trigger");
    let (poisonous, _) = crowd[5];
    sqlx::query("update users set phone_number = 'poison' where id = $1")
        .bind(Uuid::from(poisonous))
        .execute(&world.pool)
        .await
        .expect("poisoned");
    let outcomes = together(&counter, crowd.iter().map(|&(user, cart)| request(user, "k", 1, order(user, cart)))).await;
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        let what = outcome.as_ref().map_or_else(Clone::clone, |_| "accepted".to_owned());
        assert_eq!(what == "accepted", at != 5, "{at}: {what}");
        *counted.entry(what).or_default() += 1;
    }
    assert_eq!(counted, BTreeMap::from([("accepted".to_owned(), 11), ("internal".to_owned(), 1)]));
    assert_eq!(world.cart_status(crowd[5].1).await, "ACTIVE");
}

#[tokio::test]
async fn who_goes_away_before_it_was_begun_has_asked_for_nothing() {
    let world = World::new().await;
    let counter = counter(&world);
    let crowd = crowd(&world, 3).await;
    let mut gone = Box::pin(counter.accept(request(crowd[0].0, "k", 1, order(crowd[0].0, crowd[0].1))));
    assert!(futures::poll!(&mut gone).is_pending());
    drop(gone);
    let others = crowd[1..].iter().map(|&(user, cart)| request(user, "k", 1, order(user, cart)));
    assert!(together(&counter, others).await.iter().all(Result::is_ok));
    assert_eq!(world.cart_status(crowd[0].1).await, "ACTIVE");
}
