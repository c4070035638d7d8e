//! A coupon for a thousand, and eleven hundred who want it at the same time.

use std::sync::Arc;

use domain::ids::{CartId, UserId};
use futures::{StreamExt, stream};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use workers::PoolOptions;
use workflows::checkout::accept::{Order, Refusal};

use crate::{
    patience::until,
    world::{World, order},
};

const USES: i64 = 1_000;
const SHOPPERS: i32 = 1_100;

/// Users with one mouse in the cart, all of them at once.
async fn crowd(pool: &PgPool) -> Vec<(UserId, CartId)> {
    let crowd: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "with people as materialized (
            select gen_random_uuid() as user_id, gen_random_uuid() as cart_id, n from generate_series(1, $1) as n),
         users as (
            insert into users (id, email, password_hash) select user_id, n || '@example.com', 'x' from people returning id),
         carts as (
            insert into carts (id, user_id) select cart_id, user_id from people join users on users.id = user_id returning id),
         lines as (
            insert into cart_items (cart_id, variant_id, quantity, price)
            select carts.id, v.id, 1, v.price from carts, product_variants v where v.sku = 'MOU-001')
         select user_id, cart_id from people",
    )
    .bind(SHOPPERS)
    .fetch_all(pool)
    .await
    .expect("a crowd");
    crowd.into_iter().map(|(user, cart)| (user.into(), cart.into())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_for_a_thousand_is_used_a_thousand_times_by_eleven_hundred() {
    let world = World::new().await;
    sqlx::query("insert into coupons (id, code, kind, value, usage_limit) values ($1, 'RUSH', 'PERCENT', 10, $2)")
        .bind(Uuid::now_v7())
        .bind(i32::try_from(USES).expect("small"))
        .execute(&world.pool)
        .await
        .expect("a coupon");
    let crowd = crowd(&world.pool).await;
    let stop = CancellationToken::new();
    let pools: Vec<_> = (0..3)
        .map(|_| {
            let options = PoolOptions { concurrency: 8, ..PoolOptions::default() };
            tokio::spawn(workers::run(world.pool.clone(), workflows::registry(&world.shop), options, stop.clone()))
        })
        .collect();

    let world = Arc::new(world);
    let refused: usize = stream::iter(crowd)
        .map(|(user, cart)| {
            let world = Arc::clone(&world);
            async move {
                let wish = Order { coupon_codes: vec!["rush".to_owned()], ..order(user, cart) };
                match world.checkout_as(wish).await {
                    Ok(_) => 0,
                    Err(Refusal::CouponInvalid { reason, .. }) if reason == "usage-limit-reached" => 1,
                    Err(other) => panic!("{other}"),
                }
            }
        })
        .buffer_unordered(12)
        .collect::<Vec<usize>>()
        .await
        .into_iter()
        .sum();

    until("every checkout has ended", async || {
        let alive: i64 = sqlx::query_scalar("select count(*) from engine.runs where workflow = 'checkout'")
            .fetch_one(&world.pool)
            .await
            .expect("a count");
        if alive == 0 { Ok(()) } else { Err(format!("{alive} are still under way")) }
    })
    .await;
    stop.cancel();
    for pool in pools {
        pool.await.expect("no panic").expect("a graceful end");
    }

    let count =
        async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(&world.pool).await.expect("a count") };
    assert_eq!(count("select count(*) from coupon_redemption_log where status = 'SUCCESS'").await, USES);
    assert_eq!(count("select current_usage_count::bigint from coupons where code = 'RUSH'").await, USES);
    assert_eq!(count("select held_count::bigint from coupons where code = 'RUSH'").await, 0);
    assert_eq!(count("select count(*) from orders where order_status = 'CONFIRMED'").await, USES);
    let failed = count(
        "select count(*) from engine.finished_runs
          where workflow = 'checkout' and status = 'FAILED' and failure ->> 'code' = 'coupon-invalid'",
    )
    .await;
    assert_eq!(i64::try_from(refused).expect("small") + failed, i64::from(SHOPPERS) - USES);
    assert_eq!(count("select count(*) from carts where status = 'ACTIVE'").await, i64::from(SHOPPERS) - USES);
    world.assert_books("after the rush").await;
}
