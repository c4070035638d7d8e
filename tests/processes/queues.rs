//! A worker that serves some queues, beside one that serves all.

use std::sync::atomic::AtomicUsize;

use super::{
    deployment::Deployment,
    shoppers::{Way, check_out, with_full_carts},
    stage::stage,
};
use crate::patience::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_one_queue_says_so_and_leaves_the_others_alone() {
    let stage = stage().await;
    let deployment = Deployment::open(&stage).await;
    let only = ("CART_ENGINE__WORKER__QUEUES", "notification");
    let mails = deployment.worker_with(&[("SANDBOX_URL", &deployment.sandbox_url), only]).await;
    let queues: Vec<String> = until("it is known", async || {
        let known = sqlx::query_scalar("select queues from engine.workers").fetch_optional(&deployment.pool).await;
        known.expect("workers").ok_or("nobody is")
    })
    .await;
    assert_eq!(queues, ["notification"], "as others see it");

    let shoppers = with_full_carts(&deployment.pool, 3).await;
    check_out(&deployment, &shoppers, |_| Way::Pays, &AtomicUsize::new(0)).await;
    let all = deployment.worker().await;
    deployment.all_ended().await;
    assert_eq!((all.checkouts().await, mails.checkouts().await), (3, 0));
    let told: i64 =
        sqlx::query_scalar("select count(*) from dev.mailbox").fetch_one(&deployment.pool).await.expect("a count");
    assert_eq!(told, 3);
    deployment.assert_sound("with a worker of one queue").await;
}
