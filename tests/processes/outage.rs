//! Postgres crashes in the middle of the load, again and again; nobody helps.

use std::sync::atomic::AtomicUsize;

use uuid::Uuid;

use super::{
    deployment::Deployment,
    nightly,
    shoppers::{check_out, mixed, with_full_carts},
    stage::stage_alone,
};
use crate::patience::counted;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_may_crash_under_load_and_no_acknowledged_checkout_is_lost() {
    let (count, crashes) = if nightly() { (1_000, 10) } else { (240, 5) };
    let mut stage = stage_alone().await;
    let deployment = Deployment::open(&stage).await;
    let shoppers = with_full_carts(&deployment.pool, count).await;
    let mut workers = [deployment.worker().await, deployment.worker().await];
    let acknowledged = AtomicUsize::new(0);
    let crashing = async {
        for crash in 1..=crashes {
            let share = crash * count / (crashes + 1);
            counted("the load goes on", &acknowledged, share).await;
            stage.cluster.restart_immediately().await.expect("Postgres comes back");
        }
    };
    let (workflows, ()) = tokio::join!(check_out(&deployment, &shoppers, mixed, &acknowledged), crashing);
    deployment.all_ended().await;

    let kept: Vec<Uuid> = sqlx::query_scalar("select id from engine.finished_runs where id = any($1)")
        .bind(&workflows)
        .fetch_all(&deployment.pool)
        .await
        .expect("what has ended");
    assert_eq!(kept.len(), count, "an acknowledged checkout is lost");
    let all: i64 = sqlx::query_scalar("select count(*) from engine.finished_runs where workflow = 'checkout'")
        .fetch_one(&deployment.pool)
        .await
        .expect("a count");
    assert_eq!(usize::try_from(all).expect("a count"), count, "a repeated POST started a second checkout");
    deployment.assert_sound(&format!("after {crashes} crashes of Postgres")).await;
    for worker in &mut workers {
        assert!(worker.process.lives(), "a worker did not outlive Postgres: {}", worker.process.heard());
    }
}
