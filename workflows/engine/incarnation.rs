//! One process incarnation as the database knows it, and which database it knows.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use uuid::Uuid;

use crate::{error::is_lock_timeout, silence::heard};

/// Times that one who leaves tries to give back what it holds.
const GOODBYES: usize = 4;

/// A row that beats. Dead is who has not beaten within the lease; a dead incarnation's runs are anybody's,
/// and its id is never used again.
#[derive(Debug, Clone)]
pub struct Incarnation {
    identity: Arc<Mutex<Identity>>,
    name: String,
    queues: Vec<String>,
}

#[derive(Debug)]
struct Identity {
    id: Uuid,
    history: Option<History>,
}

/// Which course of events a database is on. A standby that is promoted begins a new timeline, and so does
/// a restore to a moment; a dump is restored into another system, or another database of the same one.
/// All three may be read by anybody who may connect, and the timeline by its newest log segment: the one
/// in the control file follows a promotion only with the next checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
struct History {
    system: Option<i64>,
    database: Option<i64>,
    timeline: String,
}

impl History {
    /// The one in force; `None` where it cannot be said: on a standby, or where a service hides it.
    async fn read(pool: &PgPool) -> Option<Self> {
        let read = sqlx::query!(
            r#"select (select system_identifier from pg_control_system()) as system,
                      (select oid::bigint from pg_database where datname = current_database()) as database,
                      case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end as timeline"#
        )
        .fetch_one(pool)
        .await;
        match read {
            Ok(row) => Some(History { system: row.system, database: row.database, timeline: row.timeline? }),
            Err(error) => {
                tracing::debug!(%error, "cannot tell which history the database has");
                None
            }
        }
    }
}

impl Incarnation {
    /// Registers a new incarnation.
    pub async fn register(pool: &PgPool, name: &str, queues: Vec<String>) -> Result<Self, sqlx::Error> {
        let identity = Identity { id: Uuid::now_v7(), history: History::read(pool).await };
        let identity = Arc::new(Mutex::new(identity));
        let incarnation = Incarnation { identity, name: name.to_owned(), queues };
        incarnation.insert(pool).await?;
        Ok(incarnation)
    }

    /// The id claims are made under.
    pub fn id(&self) -> Uuid {
        self.identity().id
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Beats once. One that was declared dead meanwhile comes back as somebody new: what it held may
    /// have been taken over. Returns how many that are alive serve any of the same queues, this one included.
    pub async fn beat(&self, pool: &PgPool, lease: Duration) -> Result<usize, sqlx::Error> {
        let beaten = sqlx::query!(
            r#"with beaten as (
                   update engine.workers set beat_at = now()
                    where id = $1 and beat_at > now() - make_interval(secs => $2) returning 1)
               select exists (select from beaten) as "is_alive!",
                      (select count(*) from engine.workers w
                        where w.queues && $3 and w.beat_at > now() - make_interval(secs => $2)) as "pools!""#,
            self.id(),
            lease.as_secs_f64(),
            &self.queues
        )
        .fetch_one(pool)
        .await?;
        if !beaten.is_alive {
            tracing::warn!(worker = %self.id(), "declared dead while alive; going on under a new id");
            self.identity().id = Uuid::now_v7();
            self.insert(pool).await?;
        }
        // One that comes back as somebody new was not among those alive.
        Ok(usize::try_from(beaten.pools).unwrap_or_default() + usize::from(!beaten.is_alive))
    }

    /// Whether the database has another history than the one this incarnation began with.
    pub(crate) async fn is_on_another_history(&self, pool: &PgPool) -> bool {
        let Some(now) = History::read(pool).await else { return false };
        let mut identity = self.identity();
        // One that could not be read at first is known from now on.
        *identity.history.get_or_insert_with(|| now.clone()) != now
    }

    /// Goes on under a new id, on the history in force; what the old one held is ready for anybody.
    pub(crate) async fn begin_anew(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let (old, history) = (self.id(), History::read(pool).await);
        self.identity().id = Uuid::now_v7();
        self.insert(pool).await?;
        bury(pool, old).await?;
        // Last: until all of it is done, it is to be done again.
        self.identity().history = history;
        Ok(())
    }

    /// Says goodbye: what this incarnation still holds is ready at once. Somebody may hold a row of it for
    /// longer than a lock is waited for; they are given some time.
    ///
    /// # Errors
    /// The database's own; then the runs wait until this incarnation is found dead.
    pub async fn leave(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut more = 1..GOODBYES;
        loop {
            match heard(bury(pool, self.id())).await.map(drop) {
                Err(error) if is_lock_timeout(&error) && more.next().is_some() => {
                    tracing::warn!(worker = %self.id(), "a run it holds is locked by somebody; trying again");
                }
                said => return said,
            }
        }
    }

    async fn insert(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "insert into engine.workers (id, name, queues) values ($1, $2, $3)",
            self.id(),
            self.name,
            &self.queues
        )
        .execute(pool)
        .await?;
        Ok(())
    }
}

/// Strikes a worker off and makes its runs due for the sweep. Scans the live runs, once per death.
///
/// It may live all the same, and hold some of them, and want others, in any order: whoever else holds a run and waits
/// for the next would wait in a circle. So those that are locked are waited for one by one, with nothing in hand. They
/// are due in some seconds even if nobody comes so far.
pub(crate) async fn bury(pool: &PgPool, worker: Uuid) -> Result<usize, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query!("delete from engine.workers where id = $1", worker).execute(&mut *tx).await?;
    let free = sqlx::query_scalar!(
        "with free as materialized (
            select id from engine.runs where owner = $1 and status <> 'STUCK' for no key update skip locked)
         update engine.runs r set wake_at = engine.now() from free f where r.id = f.id returning r.id",
        worker
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let locked = sqlx::query_scalar!(
        "select id from engine.runs where owner = $1 and status <> 'STUCK' and id <> all($2) order by id",
        worker,
        &free
    )
    .fetch_all(pool)
    .await?;
    for run_id in &locked {
        sqlx::query!(
            "update engine.runs set wake_at = engine.now() where id = $1 and owner = $2 and status <> 'STUCK'",
            run_id,
            worker
        )
        .execute(pool)
        .await?;
    }
    Ok(free.len() + locked.len())
}
