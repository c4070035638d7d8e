//! The gateway's process is frozen under load: cash checkouts do not notice, and card checkouts end without
//! it and keep nothing locked.

use std::{
    slice,
    sync::atomic::AtomicUsize,
    time::{Duration, Instant},
};

use futures::future::join_all;
use uuid::Uuid;

use super::{
    deployment::{Deployment, Worker},
    nightly,
    shoppers::{Way, check_out, with_full_carts},
    stage::stage,
};
use crate::patience::eventually;

/// Short, so that a silence can outlast them.
const RULES: [(&str, &str); 2] = [("CART_ENGINE__SHOP__PAYMENT_WINDOW_S", "10"), ("CART_ENGINE__SHOP__HOLD_S", "15")];
/// The hold: no checkout lasts longer, but for a call under way and a busy machine.
const BOUND: Duration = Duration::from_secs(15);
const SLACK: Duration = Duration::from_secs(20);

/// Checkouts that come at a steady pace, whatever becomes of those before: so many a second by card, and
/// half as many again for cash.
struct Load {
    a_second: usize,
    lasts: Duration,
}

impl Load {
    /// Lets them come; answers the runs of those who pay cash and of those who pay by card.
    async fn come(&self, shop: &Deployment) -> (Vec<Uuid>, Vec<Uuid>) {
        let all = self.a_second * 3 / 2 * usize::try_from(self.lasts.as_secs()).expect("a count");
        let shoppers = with_full_carts(&shop.pool, all).await;
        let begun = Instant::now();
        let way = |nth: usize| if nth.is_multiple_of(3) { Way::PaysCash } else { Way::Pays };
        let checkouts = shoppers.iter().enumerate().map(|(nth, shopper)| async move {
            let due = self.lasts * u32::try_from(nth).expect("few") / u32::try_from(all).expect("few");
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
            check_out(shop, slice::from_ref(shopper), |_| way(nth), &AtomicUsize::new(0)).await[0]
        });
        let runs = join_all(checkouts).await;
        let (cash, card) = (0..all).partition::<Vec<_>, _>(|nth| way(*nth) == Way::PaysCash);
        (cash.into_iter().map(|nth| runs[nth]).collect(), card.into_iter().map(|nth| runs[nth]).collect())
    }
}

async fn all_have_ended(shop: &Deployment, runs: &[Uuid]) -> bool {
    let ended: i64 = sqlx::query_scalar("select count(*) from engine.finished_runs where id = any($1)")
        .bind(runs)
        .fetch_one(&shop.pool)
        .await
        .expect("a count");
    usize::try_from(ended).expect("a count") == runs.len()
}

/// How long the slowest of a hundred of these took, or the slowest of all.
async fn slowest(shop: &Deployment, runs: &[Uuid], of: f64) -> Duration {
    let seconds: f64 = sqlx::query_scalar(
        "select percentile_cont($2) within group (order by extract(epoch from finished_at - created_at))::float8
           from engine.finished_runs where id = any($1)",
    )
    .bind(runs)
    .bind(of)
    .fetch_one(&shop.pool)
    .await
    .expect("times");
    Duration::from_secs_f64(seconds)
}

async fn deferred(workers: &[Worker]) -> u64 {
    let mut sum = 0;
    for worker in workers {
        sum += worker.counted("cart_engine_calls_deferred_total").await;
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_gateway_is_silent_every_checkout_ends_and_nothing_stays_locked() {
    let load = if nightly() {
        Load { a_second: 20, lasts: Duration::from_secs(60) }
    } else {
        Load { a_second: 8, lasts: Duration::from_secs(20) }
    };
    let stage = stage().await;
    let shop = Deployment::open_with(&stage, &RULES).await;
    let environment = [("SANDBOX_URL", &*shop.sandbox_url), RULES[0], RULES[1]];
    let workers = [shop.worker_with(&environment).await];

    let (cash, _) = load.come(&shop).await;
    shop.all_ended().await;
    let usual = slowest(&shop, &cash, 0.99).await;
    shop.assert_sound("before the silence").await;

    shop.sandbox.signal("STOP");
    let (cash, card) = load.come(&shop).await;
    let both = [cash.clone(), card.clone()].concat();
    eventually("every checkout ends while the gateway is silent", async || all_have_ended(&shop, &both).await).await;
    let silent = slowest(&shop, &cash, 0.99).await;
    let longest = slowest(&shop, &card, 1.0).await;
    let put_off = deferred(&workers).await;
    println!("cash p99 {usual:?}, in the silence {silent:?}; the longest card checkout {longest:?}; {put_off} put off");
    if nightly() {
        assert!(silent < usual * 4 + Duration::from_secs(2), "cash took {usual:?}, and {silent:?} in the silence");
        assert!(longest < BOUND + SLACK, "a checkout was locked for {longest:?}");
    }
    assert!(put_off > 0, "nobody was put off");
    let locked: i64 = sqlx::query_scalar(
        "select (select count(*) from carts where status = 'CHECKOUT')
              + (select count(*) from orders where order_status = 'PENDING')
              + (select coalesce(sum(reserved_quantity), 0) from inventory)",
    )
    .fetch_one(&shop.pool)
    .await
    .expect("what is locked");
    assert_eq!(locked, 0, "something is locked still");

    shop.sandbox.signal("CONT");
    // What it heard while it was frozen it does now, and tells of it.
    let quiet = "select count(*) from sandbox.webhooks where send_at is not null";
    eventually("the gateway has told everything, and all money is where it belongs", async || {
        let untold: i64 = sqlx::query_scalar(quiet).fetch_one(&shop.pool).await.expect("a count");
        untold == 0 && shop.live_runs().await.expect("runs").is_empty()
    })
    .await;
    shop.assert_sound("after the silence").await;
}
