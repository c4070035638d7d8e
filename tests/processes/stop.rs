//! A worker that is told to stop finishes what it has in hand and gives the rest back at once.

use std::sync::atomic::AtomicUsize;

use super::{
    deployment::Deployment,
    shoppers::{Way, check_out, with_full_carts},
    stage::stage,
};
use crate::patience::counted;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_gives_back_at_once_what_it_does_not_finish() {
    let stage = stage().await;
    let deployment = Deployment::open(&stage).await;
    // What had to be found out by a lease that runs out would come after this test has given up.
    let few = [
        ("SANDBOX_URL", &*deployment.sandbox_url),
        ("CART_ENGINE__WORKER__CONCURRENCY", "4"),
        ("CART_ENGINE__WORKER__LEASE_MS", "600000"),
        ("CART_ENGINE__WORKER__WATCHDOG_MS", "3600000"),
    ];
    let mut leaver = deployment.worker_with(&few).await;
    let stayer = deployment.worker_with(&few).await;
    let shoppers = with_full_carts(&deployment.pool, 60).await;
    let acknowledged = AtomicUsize::new(0);
    let leaving = async {
        counted("a third of them", &acknowledged, 20).await;
        leaver.process.signal("TERM");
        let ended = leaver.process.ended().await;
        assert_eq!(ended.code(), Some(0), "{}", leaver.process.heard());
        // Before it was gone, not some time after.
        let held: (i64, i64) = sqlx::query_as(
            "select (select count(*) from engine.runs r
                      where r.owner is not null and not exists (select from engine.workers w where w.id = r.owner)),
                    (select count(*) from apalis.jobs j
                      where j.lock_by is not null and not exists (select from apalis.workers w where w.id = j.lock_by))",
        )
        .fetch_one(&deployment.pool)
        .await
        .expect("a count");
        assert_eq!(held, (0, 0), "runs and tickets of a worker that has gone: {}", leaver.process.heard());
    };
    tokio::join!(check_out(&deployment, &shoppers, |_| Way::Pays, &acknowledged), leaving);
    deployment.all_ended().await;
    deployment.assert_sound("after a graceful stop").await;
    assert!(stayer.checkouts().await > 0);
}
