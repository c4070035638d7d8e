//! The kit for testing flows: fail at any step, die before or after any commit, run everything
//! twice, move the clock. It needs nothing but a database; tickets are answered in the test's own task.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Registry, RunStatus, inspect,
    park::unpark,
    sweep::sweep,
    ticket::ticket_id,
    turn::{Engine, Settings, Turn},
};
pub use crate::{
    clock::advance_clock,
    fault::{Fault, Faults, Point},
};

/// One fault at one point of one step, the first time it is passed.
#[derive(Debug)]
pub struct Once {
    point: Point,
    step: String,
    fault: Mutex<Option<Fault>>,
}

impl Once {
    /// The fault, armed.
    pub fn new(point: Point, step: &str, fault: Fault) -> Arc<Self> {
        Arc::new(Once { point, step: step.to_owned(), fault: Mutex::new(Some(fault)) })
    }

    /// True once it has struck.
    pub fn has_struck(&self) -> bool {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl Faults for Once {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        if point == self.point && step == self.step {
            return self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        None
    }
}

/// Every step, call and undo is carried out twice.
#[derive(Debug, Clone, Copy)]
pub struct Everything;

impl Faults for Everything {
    fn at(&self, point: Point, _: &str) -> Option<Fault> {
        (point == Point::Before).then_some(Fault::Twice)
    }
}

/// Remembers every point that was passed and injects nothing: tells a table-driven test its rows.
#[derive(Debug, Default)]
pub struct Recorder {
    seen: Mutex<Vec<(Point, String)>>,
}

impl Recorder {
    /// Points in the order they were first passed.
    pub fn points(&self) -> Vec<(Point, String)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Faults for Recorder {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        // Named by the run: the next time it is played, it is another.
        if point == Point::Replay {
            return None;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = (point, step.to_owned());
        if !seen.contains(&passed) {
            seen.push(passed);
        }
        None
    }
}

/// A program that cannot read what was written: each journal entry of each run, and each input, the first
/// time it is met again. And every commit kills its worker, so that each entry is met again, also while
/// nothing stands behind it yet.
#[derive(Debug)]
pub struct BadMemory {
    fault: Fault,
    seen: Mutex<HashSet<String>>,
    struck: Mutex<Option<String>>,
}

impl BadMemory {
    /// `fault` is [`Fault::Unreadable`] or [`Fault::Panic`].
    pub fn new(fault: Fault) -> Arc<Self> {
        Arc::new(BadMemory { fault, seen: Mutex::default(), struck: Mutex::default() })
    }

    /// What it could not read so far.
    pub fn strikes(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Gives one turn to the run that is due next, by a worker of its own; a run that parks because it
    /// could not be read is let go on. False when no live run is left.
    ///
    /// # Panics
    /// A run that could not be read and was not parked.
    pub async fn turn(self: &Arc<Self>, pool: &PgPool, registry: &Registry, fusion: bool) -> Result<bool, sqlx::Error> {
        let worker = TestWorker::new(pool, registry.clone(), fusion, Some(Arc::clone(self) as _)).await?;
        let given = worker.drain(1).await.map_err(|error| sqlx::Error::Configuration(Box::new(error)))?;
        worker.die().await?;
        let Some(struck) = self.struck.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(given > 0);
        };
        let run_id = struck.split('/').next().and_then(|id| id.parse().ok()).unwrap_or_default();
        let run = inspect::run(pool, run_id).await?;
        let status = run.map(|run| run.status);
        assert_eq!(status, Some(RunStatus::Stuck), "{struck} could not be read, and its run went on");
        let mut tx = pool.begin().await?;
        unpark(&mut tx, run_id, "test", "it can be read again").await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Gives turns until no live run is left.
    ///
    /// # Panics
    /// A run that could not be read and was not parked; runs that have not ended after `turns`.
    pub async fn drain(
        self: &Arc<Self>,
        pool: &PgPool,
        registry: &Registry,
        fusion: bool,
        turns: usize,
    ) -> Result<(), sqlx::Error> {
        for _ in 0..turns {
            if !self.turn(pool, registry, fusion).await? {
                return Ok(());
            }
        }
        panic!("not ended after {turns} turns");
    }
}

impl Faults for BadMemory {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        match point {
            Point::AfterCommit => Some(Fault::Crash),
            Point::Replay => {
                let is_new = self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(step.to_owned());
                is_new.then(|| {
                    *self.struck.lock().unwrap_or_else(PoisonError::into_inner) = Some(step.to_owned());
                    self.fault.clone()
                })
            }
            Point::Before | Point::After | Point::BeforeCommit => None,
        }
    }
}

/// A worker without a queue: it answers whatever tickets lie in the database.
#[derive(Debug)]
pub struct TestWorker {
    engine: Arc<Engine>,
}

impl TestWorker {
    /// A worker as a fresh incarnation, with faults or none.
    pub async fn new(
        pool: &PgPool,
        registry: Registry,
        fusion: bool,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<Self, sqlx::Error> {
        TestWorker::with(pool, registry, Settings { fusion, ..Settings::default() }, faults, 1).await
    }

    /// The same, whose sets wait a moment until so many runs travel together.
    pub async fn in_cohorts(
        pool: &PgPool,
        registry: Registry,
        of: usize,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<Self, sqlx::Error> {
        let settings = Settings { sets: 1, calls_inside: of.max(8), ..Settings::default() };
        TestWorker::with(pool, registry, settings, faults, of).await
    }

    async fn with(
        pool: &PgPool,
        registry: Registry,
        settings: Settings,
        faults: Option<Arc<dyn Faults>>,
        gathers: usize,
    ) -> Result<Self, sqlx::Error> {
        Ok(TestWorker { engine: Engine::with_faults(pool.clone(), registry, settings, "test", faults, gathers).await? })
    }

    /// Its engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Gives one run a turn, ticket or no ticket.
    pub async fn turn(&self, run_id: Uuid) -> Result<Turn, Arc<sqlx::Error>> {
        sqlx::query!("update apalis.jobs set status = 'Queued' where id = $1", ticket_id(run_id))
            .execute(self.engine.pool())
            .await?;
        self.engine.resume(run_id).await
    }

    /// Answers tickets, moving the clock whenever everything sleeps, until no live run is left but
    /// parked ones, or `turns` have been given. Returns the turns given.
    pub async fn drain(&self, turns: usize) -> Result<usize, Arc<sqlx::Error>> {
        let pool = self.engine.pool();
        for given in 0..turns {
            let next: Option<Uuid> = sqlx::query_scalar!(
                r#"select r.id from engine.runs r where r.status <> 'STUCK' and r.wake_at < 'infinity'
                    order by r.status = 'PENDING' desc, r.wake_at limit 1"#
            )
            .fetch_optional(pool)
            .await?;
            let Some(run_id) = next else { return Ok(given) };
            let wait = sqlx::query_scalar!(
                r#"select extract(epoch from wake_at - engine.now())::float8 as "wait!" from engine.runs where id = $1
                    and status in ('WAITING', 'RETRYING', 'COMPENSATING')"#,
                run_id
            )
            .fetch_optional(pool)
            .await?;
            if let Some(wait) = wait.filter(|wait| *wait > 0.0) {
                advance_clock(pool, Duration::from_secs_f64(wait + 0.001)).await?;
            }
            sweep(pool, self.engine.settings().lease).await?;
            self.turn(run_id).await?;
        }
        Ok(turns)
    }

    /// As [`TestWorker::drain`], but everything that is due gets its turn at the same time.
    pub async fn drain_together(&self, rounds: usize) -> Result<usize, Arc<sqlx::Error>> {
        let pool = self.engine.pool();
        for given in 0..rounds {
            let wait = sqlx::query_scalar!(
                r#"select min(case when status in ('WAITING', 'RETRYING', 'COMPENSATING')
                                   then extract(epoch from wake_at - engine.now())::float8 else 0 end)
                     from engine.runs where status <> 'STUCK' and wake_at < 'infinity'"#
            )
            .fetch_one(pool)
            .await?;
            let Some(wait) = wait else { return Ok(given) };
            if wait > 0.0 {
                advance_clock(pool, Duration::from_secs_f64(wait + 0.001)).await?;
            }
            let due = sqlx::query_scalar!(
                r#"select id from engine.runs where status <> 'STUCK' and wake_at < 'infinity'
                      and (status not in ('WAITING', 'RETRYING', 'COMPENSATING') or wake_at <= engine.now())
                    order by wake_at limit 256"#
            )
            .fetch_all(pool)
            .await?;
            // It moves what it writes tickets for.
            sweep(pool, self.engine.settings().lease).await?;
            futures::future::try_join_all(due.into_iter().map(|run_id| self.turn(run_id))).await?;
        }
        Ok(rounds)
    }

    /// The process dies: its incarnation is struck off, as the sweep would after the lease.
    pub async fn die(self) -> Result<(), sqlx::Error> {
        self.engine.incarnation().leave(self.engine.pool()).await
    }
}

/// A run's story in one line a journal entry: `TX ReserveInventory`, `UNDO ReleaseInventory`, …, then
/// its status. Made for snapshots: no ids, no times.
pub async fn trace(pool: &PgPool, run_id: Uuid) -> Result<Vec<String>, sqlx::Error> {
    let mut lines: Vec<String> = inspect::journal(pool, run_id)
        .await?
        .into_iter()
        .map(|entry| format!("{} {}", entry.kind, entry.name))
        .collect();
    if let Some(run) = inspect::run(pool, run_id).await? {
        lines.push(run.status.to_string());
    }
    Ok(lines)
}
