//! What happens by the clock: each schedule's workflow does its work once, whatever goes wrong, and the
//! books balance after it.

mod carts;
mod days;
mod faults;
mod payments;
mod rescue;
mod retention;
mod stock;
mod ten_days;

use std::time::Duration;

use engine::{
    Start, Workflow, inspect,
    testing::{TestWorker, advance_clock},
    worker::sweep,
};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;
use workflows::Rules;

use crate::world::World;

/// Where reports to the staff go.
const STAFF: &str = "staff@example.com";

fn rules() -> Rules {
    Rules { default_gateway: "scripted".to_owned(), staff_email: Some(STAFF.to_owned()), ..Rules::default() }
}

/// Starts a schedule's workflow, as a tick does, under a key of its own.
async fn start<W: Workflow<Input: Default>>(pool: &PgPool) -> Uuid {
    let mut tx = pool.begin().await.expect("a transaction");
    let start = Start::<W>::new(Uuid::now_v7().to_string(), &W::Input::default()).expect("a start");
    let started = engine::start(&mut tx, &start).await.expect("started");
    tx.commit().await.expect("committed");
    started.run_id
}

impl World {
    /// Runs a schedule's workflow from its beginning to its end; answers what it answered.
    async fn tick<W: Workflow<Input: Default>>(&self) -> Value {
        let run_id = start::<W>(&self.pool).await;
        self.healthy().await.turn(run_id).await.expect("a turn");
        let run = inspect::run(&self.pool, run_id).await.expect("a run").expect("a run");
        assert_eq!(run.status.as_str(), "COMPLETED", "{}: {:?}", W::NAME, run.failure);
        run.output.unwrap_or_default()
    }

    /// Gives every run that is due its turns, without moving the clock, until nothing is due.
    pub async fn settle(&self) {
        let worker = self.healthy().await;
        for _ in 0..200 {
            sweep(&self.pool, Duration::from_secs(8)).await.expect("swept");
            let due: Vec<Uuid> = sqlx::query_scalar(
                "select id from engine.runs where status = 'PENDING'
                     or status in ('RETRYING', 'COMPENSATING') and wake_at <= engine.now() order by id",
            )
            .fetch_all(&self.pool)
            .await
            .expect("what is due");
            if due.is_empty() {
                return;
            }
            for run_id in due {
                worker.turn(run_id).await.expect("a turn");
            }
        }
        panic!("the shop does not come to rest");
    }

    /// Moves the clock and does what is due then.
    async fn later(&self, seconds: u64) {
        advance_clock(&self.pool, Duration::from_secs(seconds)).await.expect("later");
        self.settle().await;
    }

    async fn count(&self, sql: &'static str, id: Uuid) -> i64 {
        sqlx::query_scalar(sql).bind(id).fetch_one(&self.pool).await.expect("a count")
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
