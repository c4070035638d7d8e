//! Delivery through apalis, and the ways round what its first release gets wrong:
//!
//! - nothing is written after the fetch (`lock_tasks(false)`, `persist_results(false)`): the claim that
//!   answers a ticket deletes it, in the same statement;
//! - a worker that errors is started again under a new name, because apalis keeps the jobs of a dead
//!   worker alive for a new one of the same name;
//! - a panic in a turn stays in the turn's own task;
//! - a worker whose fetch goes unanswered is given up and started again: no deadline can be set inside;
//! - our own heartbeat keeps `apalis.workers` fresh, because apalis' starves while every slot is busy.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use apalis::{layers::WorkerBuilderExt, prelude::*};
use apalis_postgres::{Config, PostgresStorage};
use engine::worker::Engine;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use uuid::Uuid;

use crate::pace::{Bell, Pace};

/// A wake-up: which run. The truth about it is in the engine's tables.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ticket {
    run_id: Uuid,
}

/// How long apalis waits for a silent worker before it gives its fetched tickets to others. The
/// engine's own sweep is the other safety net.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Tickets fetched at once. No more than free slots, or fetched tickets wait behind busy ones.
const BATCH: usize = 32;

/// A worker with a free slot that has not beaten for so long waits for an answer that will not come. It
/// beats every [`HEARTBEAT`], between two fetches.
const SILENCE: Duration = Duration::from_secs(12);

/// How often a worker's silence is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// When an apalis worker last showed that it lives, and how many of its slots are taken: with none free
/// it neither fetches nor beats.
#[derive(Debug, Clone)]
struct Life(Arc<Mutex<(Instant, usize)>>);

impl Life {
    fn new() -> Self {
        Life(Arc::new(Mutex::new((Instant::now(), 0))))
    }

    fn note(&self, change: impl FnOnce(usize) -> usize) {
        let mut life = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *life = (Instant::now(), change(life.1));
    }

    fn taken(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Returns when the worker has been silent for too long.
    async fn gone(&self, slots: usize) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let (last, taken) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if taken < slots && last.elapsed() > SILENCE {
                return;
            }
        }
    }
}

/// Names under which this process' apalis workers are registered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    fn add(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != name);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the registered workers alive, and removes those of others that died long ago.
    pub(crate) async fn beat(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "with kept as (update apalis.workers set last_seen = now() where id = any($1))
             delete from apalis.workers where last_seen < now() - interval '10 minutes'",
            &self.all()
        )
        .execute(pool)
        .await?;
        Ok(())
    }

    /// Strikes the registered workers off, and puts back the tickets they had fetched and not answered:
    /// a fetch that was under way when its worker stopped has an owner and no reader.
    pub(crate) async fn forget(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "with put_back as (
                update apalis.jobs set status = 'Pending', run_at = now(), lock_by = null, lock_at = null
                 where lock_by = any($1) and status in ('Queued', 'Running'))
             delete from apalis.workers where id = any($1)",
            &self.all()
        )
        .execute(pool)
        .await?;
        Ok(())
    }
}

/// A name no other incarnation has ever had: host, process, and a random part.
pub(crate) fn incarnation_name() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "host",
        host => host,
    };
    format!("{host}-{}-{}", std::process::id(), Uuid::now_v7().simple())
}

/// Serves one queue until told to stop, starting anew after every error.
pub(crate) async fn serve(
    engine: Arc<Engine>,
    fetching: PgPool,
    (queue, bell): (String, Bell),
    concurrency: usize,
    names: Names,
    turns: TaskTracker,
    shutdown: CancellationToken,
) {
    let mut failures: u32 = 0;
    while !shutdown.is_cancelled() {
        let name = format!("{}/{queue}", incarnation_name());
        names.add(&name);
        let started = Instant::now();
        let served = serve_once(&engine, &fetching, (&queue, &bell), &name, concurrency, &turns, &shutdown).await;
        if shutdown.is_cancelled() {
            return;
        }
        names.remove(&name);
        // A queue that worked for a while has recovered from whatever came before.
        failures = if started.elapsed() > Duration::from_secs(30) { 1 } else { failures.saturating_add(1) };
        let pause = Duration::from_millis(200).saturating_mul(1 << failures.min(5));
        tracing::warn!(queue, error = ?served.err(), ?pause, "delivery stopped; starting it anew");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn serve_once(
    engine: &Arc<Engine>,
    fetching: &PgPool,
    (queue, bell): (&str, &Bell),
    name: &str,
    concurrency: usize,
    turns: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), WorkerError> {
    let config = Config::default()
        .queue(queue)
        .batch_size(BATCH.min(concurrency))
        .heartbeat_interval(HEARTBEAT)
        .missed_heartbeats(3)
        .lock_tasks(false)
        .persist_results(false);
    let life = Life::new();
    let paced = life.clone();
    let backend = PostgresStorage::<Ticket>::new(fetching)
        .with_config(config)
        .poll_with_strategy(Pace::new(move || paced.taken(), bell.clone()));
    let stop = shutdown.clone();
    let beating = life.clone();
    let worker = WorkerBuilder::new(name)
        .backend(backend)
        .concurrency(concurrency)
        .data(Arc::clone(engine))
        .data(turns.clone())
        .data(life.clone())
        .on_event(move |_, event| {
            if matches!(event, Event::HeartBeat) {
                beating.note(|taken| taken);
            }
        })
        .build(answer);
    // apalis polls its own futures: a panic there must not end the process. It ends with whoever waits for it.
    let mut run = AbortOnDropHandle::new(tokio::spawn(worker.run_until(async move {
        stop.cancelled().await;
        Ok::<(), WorkerError>(())
    })));
    let ended = tokio::select! {
        ended = &mut run => ended,
        () = life.gone(concurrency) => {
            run.abort();
            tracing::warn!(queue, "a fetch went unanswered");
            return Ok(());
        }
    };
    match ended {
        Ok(ended) => ended,
        Err(panic) => {
            tracing::error!(queue, %panic, "delivery panicked");
            Ok(())
        }
    }
}

/// Answers one ticket in a task of its own: it may use another core, and it may panic.
async fn answer(
    ticket: Ticket,
    engine: Data<Arc<Engine>>,
    turns: Data<TaskTracker>,
    life: Data<Life>,
) -> Result<(), BoxDynError> {
    let engine = Arc::clone(&engine);
    life.note(|taken| taken + 1);
    let turn = turns.spawn(async move { engine.resume(ticket.run_id).await });
    let ended = turn.await;
    life.note(|taken| taken.saturating_sub(1));
    match ended {
        Ok(Ok(_)) => {}
        // The ticket stays where it is, or the sweep writes another: nothing is lost.
        Ok(Err(error)) => tracing::warn!(run = %ticket.run_id, %error, "a ticket could not be answered"),
        Err(panic) => tracing::error!(run = %ticket.run_id, %panic, "a turn panicked"),
    }
    Ok(())
}
