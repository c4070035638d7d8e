//! A worker that is told to stop finishes what it has in hand and gives the rest back at once.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::{
    deployment::Deployment,
    eventually,
    shoppers::{Way, check_out, with_full_carts},
    stage::stage,
};

/// The worker's own patience with the turns in hand, and a little for the rest of its goodbye.
const GRACE: Duration = Duration::from_secs(25);
/// What was given back is done by then.
const HANDED_OVER: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_gives_back_at_once_what_it_does_not_finish() {
    let mut stage = stage().await;
    let deployment = Deployment::open(&mut stage).await;
    let few = [("SANDBOX_URL", &*deployment.sandbox_url), ("CART_ENGINE__WORKER__CONCURRENCY", "4")];
    let mut leaver = deployment.worker_with(&few).await;
    let stayer = deployment.worker_with(&few).await;
    let shoppers = with_full_carts(&deployment.pool, 60).await;
    let acknowledged = AtomicUsize::new(0);
    let leaving = async {
        let patience = Duration::from_secs(60);
        eventually(patience, "a third of them", async || acknowledged.load(Ordering::Relaxed) >= 20).await;
        leaver.process.signal("TERM");
        let ended = leaver.process.ended(GRACE).await;
        assert_eq!(ended.code(), Some(0), "{}", leaver.process.heard());
        // Nobody has to find out by a time-out that it has gone.
        eventually(HANDED_OVER, "no run and no ticket of a worker that has gone", async || {
            let held: i64 = sqlx::query_scalar(
                "select (select count(*) from engine.runs r
                          where r.owner is not null and not exists (select from engine.workers w where w.id = r.owner))
                      + (select count(*) from apalis.jobs j
                          where j.lock_by is not null and not exists (select from apalis.workers w where w.id = j.lock_by))",
            )
            .fetch_one(&deployment.pool)
            .await
            .expect("a count");
            held == 0
        })
        .await;
    };
    tokio::join!(check_out(&deployment, &shoppers, |_| Way::Pays, &acknowledged), leaving);
    deployment.all_ended(HANDED_OVER).await;
    deployment.assert_sound("after a graceful stop").await;
    assert!(stayer.checkouts().await > 0);
}
