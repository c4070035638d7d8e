//! `kill -9` of workers under load, and how the living share the work.

use std::sync::atomic::AtomicUsize;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    deployment::{Deployment, Worker},
    nightly,
    shoppers::{Way, check_out, mixed, with_full_carts},
    stage::stage,
};
use crate::patience::counted;

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_at_random_under_load_lose_nothing_and_charge_nobody_twice() {
    let (count, kills) = if nightly() { (2_000, 30) } else { (240, 6) };
    let stage = stage().await;
    let deployment = Deployment::open(&stage).await;
    let shoppers = with_full_carts(&deployment.pool, count).await;
    let mut workers: Vec<Worker> = Vec::new();
    for _ in 0..3 {
        workers.push(deployment.worker().await);
    }
    let seed = 20_240_229;
    let mut random = StdRng::seed_from_u64(seed);
    let acknowledged = AtomicUsize::new(0);
    let killing = async {
        for kill in 1..=kills {
            let share = kill * count / (kills + 1);
            counted("the load goes on", &acknowledged, share).await;
            let victim = workers.swap_remove(random.random_range(0..workers.len()));
            victim.process.kill().await;
            workers.push(deployment.worker().await);
        }
    };
    let (workflows, ()) = tokio::join!(check_out(&deployment, &shoppers, mixed, &acknowledged), killing);
    deployment.all_ended().await;
    deployment.assert_sound(&format!("after {kills} kills, seed {seed}")).await;
    assert_eq!(workflows.len(), count);
    let orders = deployment.orders().await;
    // Seven of ten pay; who changes his mind may be too late.
    let confirmed = usize::try_from(orders["CONFIRMED"]).expect("a count");
    assert!((count * 7 / 10..=count * 8 / 10).contains(&confirmed), "{orders:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_work_and_one_does_it_all_when_the_other_is_killed() {
    let count = if nightly() { 1_000 } else { 300 };
    let stage = stage().await;
    let deployment = Deployment::open(&stage).await;
    // Each has hands for a part of the crowd; what a worker has no hands for is the others'.
    let hands = [("SANDBOX_URL", &*deployment.sandbox_url), ("CART_ENGINE__WORKER__CONCURRENCY", "32")];
    let (first, second) = (deployment.worker_with(&hands).await, deployment.worker_with(&hands).await);

    let shoppers = with_full_carts(&deployment.pool, count).await;
    check_out(&deployment, &shoppers, |_| Way::Pays, &AtomicUsize::new(0)).await;
    deployment.all_ended().await;
    let shares = (first.checkouts().await, second.checkouts().await);
    let count = count as u64;
    assert_eq!(shares.0 + shares.1, count, "{shares:?}");
    assert!(shares.0.min(shares.1) >= count / 4, "each ends a quarter at least: {shares:?}");

    let shoppers = with_full_carts(&deployment.pool, shoppers.len()).await;
    let acknowledged = AtomicUsize::new(0);
    let killing = async {
        let half = shoppers.len() / 2;
        counted("half of them", &acknowledged, half).await;
        second.process.kill().await;
    };
    tokio::join!(check_out(&deployment, &shoppers, |_| Way::Pays, &acknowledged), killing);
    deployment.all_ended().await;
    deployment.assert_sound("with one worker killed half-way").await;
    assert_eq!(deployment.orders().await["CONFIRMED"], i64::try_from(count * 2).expect("a count"));
}
