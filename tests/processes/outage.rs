//! Postgres crashes in the middle of the load, again and again; nobody helps.

use std::sync::atomic::AtomicUsize;

use uuid::Uuid;

use super::{
    child::Child,
    deployment::Deployment,
    nightly,
    shoppers::{check_out, mixed, with_full_carts},
    stage::stage_alone,
};
use crate::{patience::counted, world};

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

/// A shop does not outlive its own database: whoever supervises it starts both again.
#[tokio::test(flavor = "multi_thread")]
async fn a_shop_ends_when_its_embedded_database_does() {
    let folder = world::folder("mortal");
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--data-dir", folder.to_str().expect("a path")];
    let mut shop = Child::start(&arguments, &[]);
    shop.says("Ctrl-C stops it").await;
    let postmaster = std::fs::read_dir(&folder)
        .expect("its folder")
        .find_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("postmaster.pid")).ok())
        .expect("a server");
    let pid = postmaster.lines().next().expect("its id");
    let killed = std::process::Command::new("kill").args(["-9", pid]).status();
    assert!(killed.is_ok_and(|status| status.success()), "kill -9 {pid}");
    let ended = shop.ended().await;
    assert!(!ended.success(), "{ended}: {}", shop.heard());
    assert!(shop.heard().contains("the embedded PostgreSQL has ended"), "{}", shop.heard());
    let mut again = Child::start(&arguments, &[]);
    again.says("Ctrl-C stops it").await;
    again.signal("TERM");
    assert!(again.ended().await.success(), "{}", again.heard());
}
