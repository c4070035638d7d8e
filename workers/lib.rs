//! Worker pools: apalis delivers tickets, the engine answers them.
//!
//! A pool is one incarnation: a heartbeat, a sweep, and one apalis worker a queue. Any number of pools
//! may run in any number of processes; they share nothing but Postgres. `pace` says when a queue is
//! polled, `lookout` sees to those that are quiet, `deliver` is everything that touches apalis.
//!
//! What must not live here: business rules, SQL on business tables, HTTP.

mod deliver;
mod lookout;
mod pace;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use engine::{
    Registry,
    pools::{beside, forgetful},
    silence::{SILENCE, heard},
    worker::{Engine, Settings, sweep},
};
use sqlx::{ConnectOptions, PgPool};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::pace::Bell;

/// How a pool works.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Turns carried out at the same time, per queue: a queue whose turns are slow leaves the others theirs.
    /// Their transactions share the pool's connections.
    pub concurrency: usize,
    /// Queues it serves; empty means all that the registry knows.
    pub queues: Vec<String>,
    /// The engine's settings.
    pub settings: Settings,
    /// How long a pool that was told to stop waits for the turns in hand. What they hold after that is ready
    /// for others at once, whatever becomes of the turns.
    pub grace: Duration,
    /// Told of every sign of life from the database, for a watchdog.
    pub pulse: Pulse,
}

impl Default for PoolOptions {
    fn default() -> Self {
        PoolOptions {
            concurrency: 256,
            queues: Vec::new(),
            settings: Settings::default(),
            grace: Duration::from_secs(20),
            pulse: Pulse::default(),
        }
    }
}

/// Whether the database has been heard of lately.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicBool>);

/// Feels a [`Pulse`]; nothing is left to feel once its pool has stopped.
#[derive(Debug)]
pub struct Finger(Weak<AtomicBool>);

impl Pulse {
    /// What feels it.
    pub fn finger(&self) -> Finger {
        Finger(Arc::downgrade(&self.0))
    }

    fn beat(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Finger {
    /// Whether there was a beat since this was asked last; `None` once there will be none any more.
    pub fn feels(&self) -> Option<bool> {
        Some(self.0.upgrade()?.swap(false, Ordering::Relaxed))
    }
}

/// Connections that turns leave to what keeps a pool going: what is given back, and two to spare for calls
/// that keep notes.
const KEPT: usize = 3;

/// How long a server may take to answer, or refuse, a new connection.
const KNOCK: Duration = Duration::from_secs(2);

/// Works until told to stop, then finishes what is in hand, gives back the rest and returns.
pub async fn run(
    pool: PgPool,
    registry: Registry,
    options: PoolOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let queues: Vec<String> = registry
        .queues()
        .iter()
        .map(|queue| (*queue).to_owned())
        .filter(|queue| options.queues.is_empty() || options.queues.contains(queue))
        .collect();
    if let Some(unknown) = options.queues.iter().find(|queue| !queues.contains(queue)) {
        anyhow::bail!("there is no queue named {unknown}; there are: {}", registry.queues().join(", "));
    }
    let name = deliver::incarnation_name();
    // A dependency that falls silent leaves every queue half of its slots.
    let settings = Settings {
        queues: queues.clone(),
        calls_inside: (options.concurrency / 2).max(1),
        transactions: at_once(&pool),
        ..options.settings.clone()
    };
    let engine = Engine::new(pool.clone(), registry, settings, &name).await?;
    tracing::info!(worker = %engine.incarnation().id(), ?queues, concurrency = options.concurrency, "working");

    // Beats, sweeps and looks have connections of their own: steps that wait for a lock must not make a worker
    // look dead.
    let upkeep = beside(&pool, 3);
    // Fetches, too, so that it can be told when none is under way; one more, for apalis' own upkeep.
    let fetching = forgetful(&pool, queues.len() + 1);
    let alive = CancellationToken::new();
    let names = deliver::Names::default();
    let keeper =
        tokio::spawn(keep_alive(Arc::clone(&engine), upkeep.clone(), names.clone(), options.pulse, alive.clone()));
    let sweeper = tokio::spawn(keep_sweeping(Arc::clone(&engine), upkeep.clone(), shutdown.clone()));
    let bells: Vec<(String, Bell)> = queues.into_iter().map(|queue| (queue, Bell::default())).collect();
    let lookout = tokio::spawn(lookout::keep(upkeep.clone(), bells.clone(), shutdown.clone()));
    let turns = TaskTracker::new();
    let mut deliveries = tokio::task::JoinSet::new();
    for queue in bells {
        deliveries.spawn(deliver::serve(
            Arc::clone(&engine),
            fetching.clone(),
            queue,
            options.concurrency,
            names.clone(),
            turns.clone(),
            shutdown.clone(),
        ));
    }
    let all_done = async {
        while deliveries.join_next().await.is_some() {}
        turns.close();
        turns.wait().await;
    };
    // A delivery lasts as long as the turns it waits for.
    let out_of_patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(options.grace).await;
    };
    tokio::select! {
        () = all_done => {}
        () = out_of_patience => {
            tracing::warn!(turns = turns.len(), "some turns did not end in time; others take them over");
        }
    }
    // No more tickets are answered.
    deliveries.shutdown().await;
    alive.cancel();
    // All end when told to; a panic in one has been logged by the runtime.
    let _ = tokio::join!(keeper, sweeper, lookout);
    engine.incarnation().leave(&upkeep).await?;
    // A fetch whose reader has gone goes on at the server, and takes its tickets when it commits.
    if tokio::time::timeout(SILENCE, at_rest(&fetching)).await.is_err() {
        tracing::warn!("a fetch is still under way; the sweep finds what it takes");
    }
    heard(names.forget(&upkeep)).await?;
    // What this pool gave back is ready now, not when the next sweep comes round.
    heard(sweep(&upkeep, options.settings.lease)).await?;
    tokio::join!(fetching.close(), upkeep.close());
    tracing::info!("stopped");
    Ok(())
}

/// Returns when no statement of a pool is under way: until then its connection has not come back.
async fn at_rest(pool: &PgPool) {
    while pool.num_idle() < usize::try_from(pool.size()).unwrap_or(usize::MAX) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Transactions that turns may have open at once.
fn at_once(pool: &PgPool) -> usize {
    let connections = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
    connections.saturating_sub(KEPT).max(connections / 2).max(1)
}

/// Beats for the engine and for apalis until the last turn has ended.
async fn keep_alive(
    engine: Arc<Engine>,
    upkeep: PgPool,
    names: deliver::Names,
    pulse: Pulse,
    alive: CancellationToken,
) {
    let settings = engine.settings();
    let mut beat = tokio::time::interval(settings.beat);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = alive.cancelled() => return,
            _ = beat.tick() => {}
        }
        let beaten = async {
            engine.beat(&upkeep).await?;
            names.beat(&upkeep).await
        };
        match tokio::time::timeout(settings.lease, beaten).await {
            Ok(Ok(())) => {
                pulse.beat();
                continue;
            }
            Ok(Err(error)) => tracing::warn!(%error, "a heartbeat failed"),
            Err(_) => tracing::warn!("a heartbeat took longer than the lease"),
        }
        // A refusal is an answer, too: who is refused hears of the server's return at once, and has no
        // need to be started anew.
        if tokio::time::timeout(KNOCK, upkeep.connect_options().connect()).await.is_ok() {
            pulse.beat();
        }
    }
}

async fn keep_sweeping(engine: Arc<Engine>, upkeep: PgPool, shutdown: CancellationToken) {
    let settings = engine.settings();
    let mut round = tokio::time::interval(settings.sweep);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = round.tick() => {}
        }
        if let Err(error) = heard(sweep(&upkeep, settings.lease)).await {
            tracing::warn!(%error, "a sweep failed");
        }
    }
}
