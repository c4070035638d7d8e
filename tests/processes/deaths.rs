//! A worker process aborts at every point of a checkout, or of a cancellation; another process finishes it.

use std::{os::unix::process::ExitStatusExt, sync::Arc};

use adapters::{notify::DevMailbox, payments::SandboxGateway};
use domain::order::Actor;
use engine::testing::{Fault, Faults, Point, Recorder, TestWorker};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::process::Command;
use uuid::Uuid;
use workflows::{
    Rules, Shop, cancellation,
    checkout::accept::{self, Order},
};

use super::{
    child::Child,
    deployment::{Deployment, client},
    nightly,
    shoppers::with_full_carts,
    stage::stage,
};
use crate::{patience::eventually, world::order};

/// Tells this binary, started as a worker, what to do. Without it [`the_worker_that_dies`] does nothing.
const DOOM: &str = "CART_ENGINE_TEST_DOOM";
/// What the sandbox of a development shop signs its webhooks with.
const WEBHOOK_SECRET: &str = "whsec_ZGV2LXNlY3JldA==";
/// Doomed processes at the same time.
const AT_ONCE: usize = 6;
/// How libc numbers SIGABRT.
const ABORTED: i32 = 6;

/// Where a worker dies.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Doom {
    database_url: String,
    sandbox_url: String,
    run_id: Uuid,
    /// As its name in [`Point`].
    point: String,
    step: String,
    fusion: bool,
}

impl Faults for Doom {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        if step == self.step && format!("{point:?}") == self.point {
            // Nothing is dropped, flushed or released.
            std::process::abort();
        }
        None
    }
}

fn shop(pool: &PgPool, sandbox_url: &str) -> Arc<Shop> {
    let rules = Rules::default();
    let gateway = SandboxGateway::new(sandbox_url, &WEBHOOK_SECRET.into(), client()).expect("a gateway");
    let mailbox = DevMailbox::new(pool.clone(), &rules.mail_from).expect("a mailbox");
    Shop::new(rules, vec![Arc::new(gateway)], Some(Arc::new(mailbox)))
}

/// Not a test of its own: the body of the processes that [`a_worker_may_die_at_any_point`] starts.
#[tokio::test]
async fn the_worker_that_dies() {
    let Ok(doom) = std::env::var(DOOM) else { return };
    let doom: Doom = serde_json::from_str(&doom).expect("what to do");
    let pool = PgPool::connect(&doom.database_url).await.expect("a database");
    let registry = workflows::registry(&shop(&pool, &doom.sandbox_url));
    let worker = TestWorker::new(&pool, registry, doom.fusion, Some(Arc::new(doom.clone()))).await.expect("a worker");
    for _ in 0..20 {
        // The checkout, and what it starts.
        let runs: Vec<Uuid> =
            sqlx::query_scalar("select id from engine.runs where $1 in (id, parent_id) order by created_at")
                .bind(doom.run_id)
                .fetch_all(&pool)
                .await
                .expect("runs");
        for run in runs {
            worker.turn(run).await.expect("a turn");
        }
    }
    panic!("{doom:?}: the point was never passed");
}

/// What a worker dies over.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Story {
    Paid,
    Declined,
    /// A paid order that is cancelled: the worker dies over the cancellation.
    Cancelled,
}

/// An order, and the run that a worker is to die over.
struct Row {
    order_id: Uuid,
    run_id: Uuid,
}

/// Accepts checkouts in this process, where no worker lives that could take them; orders that are to be
/// cancelled are confirmed first.
async fn accepted(pool: &PgPool, shop: &Arc<Shop>, story: Story, count: usize) -> Vec<Row> {
    let token = if story == Story::Declined { "tok_declined" } else { "tok_ok" };
    let mut rows = Vec::with_capacity(count);
    for shopper in with_full_carts(pool, count).await {
        let order = Order { payment_token: Some(token.to_owned()), ..order(shopper.user, shopper.cart.into()) };
        let mut tx = pool.begin().await.expect("a transaction");
        let accepted = accept::accept(&mut tx, shop, order).await.expect("accepted");
        tx.commit().await.expect("committed");
        rows.push(Row { order_id: accepted.order_id.into(), run_id: accepted.workflow_id });
    }
    if story == Story::Cancelled {
        let worker = TestWorker::new(pool, workflows::registry(shop), true, None).await.expect("a worker");
        let most = count * 10;
        assert!(worker.drain(most).await.expect("drained") < most, "runs that never end");
        worker.die().await.expect("dead");
        // Word of a capture that comes after the cancellation starts a refund run of its own.
        let orders: Vec<Uuid> = rows.iter().map(|row| row.order_id).collect();
        eventually("the gateway has told of every capture", async || {
            let told: i64 = sqlx::query_scalar("select count(*) from webhook_inbox where order_id = any($1)")
                .bind(&orders)
                .fetch_one(pool)
                .await
                .expect("a count");
            told >= count.try_into().expect("a few")
        })
        .await;
        for row in &mut rows {
            let order_id = row.order_id.into();
            let (by, reason) = ("user:somebody".to_owned(), "a change of mind".to_owned());
            let request = cancellation::CancelRequest { order_id, actor: Actor::Customer, by, reason };
            let mut tx = pool.begin().await.expect("a transaction");
            let cancelling = cancellation::accept::accept(&mut tx, &shop.rules, &request, |_| true).await;
            tx.commit().await.expect("committed");
            row.run_id = cancelling.expect("accepted").workflow_id;
        }
    }
    rows
}

/// Every point of such a story and of what it starts.
async fn points(deployment: &Deployment, shop: &Arc<Shop>, story: Story, fusion: bool) -> Vec<(Point, String)> {
    let pool = &deployment.pool;
    let recorder = Arc::new(Recorder::default());
    accepted(pool, shop, story, 1).await;
    let worker = TestWorker::new(pool, workflows::registry(shop), fusion, Some(Arc::clone(&recorder) as _))
        .await
        .expect("a worker");
    let turns = worker.drain(50).await.expect("drained");
    assert!(turns < 50, "{story:?}: runs that never end: {:?}", deployment.live_runs().await);
    worker.die().await.expect("dead");
    recorder.points()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_die_at_any_point_and_another_finishes_the_order() {
    let stage = stage().await;
    for fusion in if nightly() { &[true, false][..] } else { &[true] } {
        let deployment = Deployment::open(&stage).await;
        every_point(&deployment, *fusion).await;
    }
}

async fn every_point(deployment: &Deployment, fusion: bool) {
    let pool = &deployment.pool;
    let shop = shop(pool, &deployment.sandbox_url);
    let mut table = Vec::new();
    // Cancellations first: their orders are confirmed by a worker that would take any run.
    for story in [Story::Cancelled, Story::Paid, Story::Declined] {
        table.push((story, points(deployment, &shop, story, fusion).await));
    }
    let mut rows = Vec::new();
    for (story, points) in table {
        assert!(points.len() > 25, "{story:?}: only {} points", points.len());
        let accepted = accepted(pool, &shop, story, points.len()).await;
        for ((point, step), row) in points.into_iter().zip(accepted) {
            let (database_url, sandbox_url) = (deployment.database_url.clone(), deployment.sandbox_url.clone());
            let point = format!("{point:?}");
            rows.push((
                story,
                row.order_id,
                Doom { database_url, sandbox_url, run_id: row.run_id, point, step, fusion },
            ));
        }
    }

    let deaths = rows.iter().map(|(story, _, doom)| async move {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "processes::deaths::the_worker_that_dies", "--nocapture"]);
        command.env(DOOM, serde_json::to_string(doom).expect("JSON"));
        let mut process = Child::spawn("the worker that dies", command);
        let ended = process.ended().await;
        assert_eq!(ended.signal(), Some(ABORTED), "{story:?} {doom:?}: {ended}: {}", process.heard());
    });
    stream::iter(deaths).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;

    // The last of them has died just now: nobody knows it yet, its lease still runs.
    let _healthy = deployment.worker().await;
    deployment.all_ended().await;
    deployment.assert_sound(&format!("after {} deaths", rows.len())).await;
    for (story, order, doom) in &rows {
        let when = format!("{story:?}, died at {} {}", doom.point, doom.step);
        let status: Option<String> = sqlx::query_scalar("select order_status from orders where id = $1")
            .bind(order)
            .fetch_optional(pool)
            .await
            .expect("an order");
        let mails: Vec<String> = sqlx::query_scalar("select event from dev.mailbox where order_id = $1 order by event")
            .bind(order)
            .fetch_all(pool)
            .await
            .expect("mails");
        let (ends, told): (&str, &[&str]) = match story {
            Story::Paid => ("CONFIRMED", &["order.confirmed"]),
            Story::Declined => ("CANCELLED", &["order.cancelled"]),
            Story::Cancelled => ("CANCELLED", &["order.cancelled", "order.confirmed", "payment.refunded"]),
        };
        assert_eq!(
            (status.as_deref(), &*mails),
            (Some(ends), &*told.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()),
            "{when}"
        );
    }
}
