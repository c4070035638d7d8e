//! Who works on what: heartbeats, claims in groups, releases.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{Failure, journal::Entry, silence::heard, start::ticket_id};

/// Claims answered by one statement at most.
const GROUP: usize = 64;

/// Between two attempts to give runs back to a database that is away.
const RETRY: Duration = Duration::from_millis(500);

/// A claimed run: everything needed to carry it on.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) id: Uuid,
    pub(crate) workflow: String,
    pub(crate) version: i32,
    pub(crate) status: String,
    pub(crate) input: serde_json::Value,
    pub(crate) epoch: i32,
    pub(crate) attempt: i32,
    pub(crate) crashes: i32,
    pub(crate) forward_only: bool,
    pub(crate) cancel_requested: Option<String>,
    pub(crate) failure: Option<Failure>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) journal: Vec<Entry>,
    pub(crate) clock: Clock,
}

/// The engine's clock as read at the claim, carried on by a monotonic one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    read: DateTime<Utc>,
    at: Instant,
}

impl Clock {
    pub(crate) fn new(read: DateTime<Utc>) -> Self {
        Clock { read, at: Instant::now() }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.read + self.at.elapsed()
    }
}

/// One process incarnation as the database knows it: a row that beats. Dead is who has not beaten
/// within the lease; a dead incarnation's runs are anybody's, and its id is never used again.
#[derive(Debug, Clone)]
pub struct Incarnation {
    id: Arc<Mutex<Uuid>>,
    name: String,
    queues: Vec<String>,
}

impl Incarnation {
    /// Registers a new incarnation.
    pub async fn register(pool: &PgPool, name: &str, queues: &[String]) -> Result<Self, sqlx::Error> {
        let incarnation =
            Incarnation { id: Arc::new(Mutex::new(Uuid::now_v7())), name: name.to_owned(), queues: queues.to_vec() };
        incarnation.insert(pool).await?;
        Ok(incarnation)
    }

    /// The id claims are made under.
    pub fn id(&self) -> Uuid {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Beats once. One that was declared dead meanwhile comes back as somebody new: what it held may
    /// have been taken over.
    pub async fn beat(&self, pool: &PgPool, lease: Duration) -> Result<(), sqlx::Error> {
        let beaten = sqlx::query!(
            "update engine.workers set beat_at = now() where id = $1 and beat_at > now() - make_interval(secs => $2)",
            self.id(),
            lease.as_secs_f64()
        )
        .execute(pool)
        .await?
        .rows_affected();
        if beaten == 0 {
            tracing::warn!(worker = %self.id(), "declared dead while alive; going on under a new id");
            *self.id.lock().unwrap_or_else(PoisonError::into_inner) = Uuid::now_v7();
            self.insert(pool).await?;
        }
        Ok(())
    }

    /// Says goodbye: what this incarnation still holds is ready at once.
    pub async fn leave(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut tx = pool.begin().await?;
        bury(&mut tx, self.id()).await?;
        tx.commit().await
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
pub(crate) async fn bury(conn: &mut sqlx::PgConnection, worker: Uuid) -> Result<u64, sqlx::Error> {
    sqlx::query!("delete from engine.workers where id = $1", worker).execute(&mut *conn).await?;
    Ok(sqlx::query!("update engine.runs set wake_at = engine.now() where owner = $1 and status <> 'STUCK'", worker)
        .execute(&mut *conn)
        .await?
        .rows_affected())
}

type Reply = oneshot::Sender<Result<Option<(Claimed, Held)>, Arc<sqlx::Error>>>;

/// The runs this process is carrying on right now.
#[derive(Debug, Clone, Default)]
struct InHand(Arc<Mutex<HashSet<Uuid>>>);

impl InHand {
    fn lock(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, run_id: Uuid) -> Held {
        self.lock().insert(run_id);
        Held { run_id, in_hand: self.clone() }
    }
}

/// A claimed run is in this process' hands for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    run_id: Uuid,
    in_hand: InHand,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_hand.lock().remove(&self.run_id);
    }
}

/// Runs that may have been claimed without anybody hearing of it, with the owner they would have:
/// because that owner is alive, nobody else would ever take them.
#[derive(Debug, Default)]
struct Unheard(HashSet<(Uuid, Uuid)>);

impl Unheard {
    /// Gives them back, those aside that this process has claimed since and holds.
    async fn give_back(&mut self, pool: &PgPool, in_hand: &InHand) {
        self.0.retain(|(run_id, _)| !in_hand.lock().contains(run_id));
        if self.0.is_empty() {
            return;
        }
        let (runs, owners): (Vec<Uuid>, Vec<Uuid>) = self.0.iter().copied().unzip();
        let given = async {
            let mut tx = pool.begin().await?;
            // The claim may still be on its way to commit, and until then its runs have no owner. The
            // locks wait for it; the update is a statement of its own so as to see what it wrote.
            sqlx::query!("select id from engine.runs where id = any($1) order by id for update", &runs)
                .fetch_all(&mut *tx)
                .await?;
            let given = sqlx::query!(
                "update engine.runs r
                    set owner = null, wake_at = engine.now(), status = case r.status when 'RUNNING' then 'PENDING' else r.status end
                   from unnest($1::uuid[], $2::uuid[]) as u(run_id, owner)
                  where r.id = u.run_id and r.owner = u.owner",
                &runs,
                &owners
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(given.rows_affected())
        };
        match heard(given).await {
            Ok(runs) => {
                self.0.clear();
                tracing::info!(runs, "gave back what was claimed without an answer");
            }
            Err(error) => tracing::debug!(%error, "cannot give back yet what was claimed without an answer"),
        }
    }
}

/// Answers claims in groups: while one statement is under way, the next group gathers.
#[derive(Debug, Clone)]
pub(crate) struct Claimer {
    requests: mpsc::Sender<(Uuid, Reply)>,
}

impl Claimer {
    pub(crate) fn new(pool: PgPool, incarnation: Incarnation, lease: Duration) -> Self {
        let (requests, mut inbox) = mpsc::channel::<(Uuid, Reply)>(GROUP * 4);
        tokio::spawn(async move {
            let (in_hand, mut unheard) = (InHand::default(), Unheard::default());
            let mut group = Vec::with_capacity(GROUP);
            loop {
                if unheard.0.is_empty() {
                    if inbox.recv_many(&mut group, GROUP).await == 0 {
                        return;
                    }
                } else {
                    // Whoever asks meanwhile is answered; nobody may ask.
                    unheard.give_back(&pool, &in_hand).await;
                    match tokio::time::timeout(RETRY, inbox.recv_many(&mut group, GROUP)).await {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(_) => continue,
                    }
                }
                let (owner, ids) = (incarnation.id(), group.iter().map(|(id, _)| *id).collect::<Vec<Uuid>>());
                match heard(claim(&pool, &ids, owner, lease)).await {
                    Ok(mut claimed) => {
                        for (id, reply) in group.drain(..) {
                            let claimed = claimed.remove(&id).map(|claimed| (claimed, in_hand.take(id)));
                            if let Err(Ok(Some(_))) = reply.send(Ok(claimed)) {
                                unheard.0.insert((id, owner));
                            }
                        }
                    }
                    Err(error) => {
                        let error = Arc::new(error);
                        for (id, reply) in group.drain(..) {
                            // The database may have committed before the answer was lost.
                            unheard.0.insert((id, owner));
                            // Who asked and went away needs no answer.
                            let _ = reply.send(Err(Arc::clone(&error)));
                        }
                    }
                }
            }
        });
        Claimer { requests }
    }

    /// Claims a run, or answers `None`: somebody alive has it, it is parked, or it has ended.
    pub(crate) async fn claim(&self, run_id: Uuid) -> Result<Option<(Claimed, Held)>, Arc<sqlx::Error>> {
        let (reply, answer) = oneshot::channel();
        let gone = || Arc::new(sqlx::Error::WorkerCrashed);
        self.requests.send((run_id, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Raises the epoch of every run in the group that is free, and consumes the group's tickets.
///
/// A run whose row somebody holds this moment (a signal, say) is skipped, and its ticket put back.
/// Only a ticket that is still as it was fetched is deleted: one that was renewed meanwhile stands for
/// a wake-up this claim has not seen.
async fn claim(
    pool: &PgPool,
    ids: &[Uuid],
    owner: Uuid,
    lease: Duration,
) -> Result<HashMap<Uuid, Claimed>, sqlx::Error> {
    let tickets: Vec<String> = ids.iter().map(|id| ticket_id(*id)).collect();
    let rows = sqlx::query!(
        r#"
        with asked as (
            select * from unnest($1::uuid[], $3::text[]) as a(run_id, ticket)),
        ready as materialized (
            select r.id from engine.runs r
             where r.id = any($1) and r.status <> 'STUCK'
               and (r.owner is null or not exists (
                    select from engine.workers w
                     where w.id = r.owner and w.beat_at > now() - make_interval(secs => $4)))),
        free as materialized (
            select r.id from engine.runs r
             where r.id = any(array(select id from ready)) and (r.owner is null or r.owner <> $2)
             order by r.id
             for update of r skip locked),
        claimed as (
            update engine.runs r
               set owner = $2, epoch = r.epoch + 1, waiting_for = null,
                   crashes = r.crashes + (r.owner is not null)::int,
                   status = case r.status when 'COMPENSATING' then r.status else 'RUNNING' end
              from free where r.id = free.id
            returning r.*),
        skipped as (
            update apalis.jobs j set status = 'Pending', run_at = now(), lock_by = null, lock_at = null
              from asked a
             where j.id = a.ticket and j.status <> 'Pending'
               and a.run_id in (select id from ready) and a.run_id not in (select id from free)),
        spent as (
            delete from apalis.jobs j using asked a
             where j.id = a.ticket and j.status <> 'Pending'
               and (a.run_id in (select id from free) or a.run_id not in (select id from ready)))
        select c.id as "id!", c.workflow as "workflow!", c.version as "version!", c.status as "status!",
               c.input as "input!", c.epoch as "epoch!", c.attempt as "attempt!", c.crashes as "crashes!",
               c.forward_only as "forward_only!", c.cancel_requested, c.failure, c.created_at as "created_at!",
               engine.now() as "now!",
               case when c.epoch > 1 then (
                   select json_agg(json_build_object('seq', j.seq, 'kind', j.kind, 'name', j.name,
                                                     'output', j.output, 'recorded_at', j.recorded_at) order by j.seq)
                     from engine.journal j
                    -- The bounds leave those days aside in which none of them can be.
                    where j.run_id = c.id and j.run_id between $5 and $6) end as journal
          from claimed c
        "#,
        ids,
        owner,
        &tickets,
        lease.as_secs_f64(),
        ids.iter().min().copied().unwrap_or_default(),
        ids.iter().max().copied().unwrap_or_default(),
    )
    .fetch_all(pool)
    .await?;
    let parse = |error: serde_json::Error| sqlx::Error::Decode(Box::new(error));
    rows.into_iter()
        .map(|row| {
            let claimed = Claimed {
                id: row.id,
                workflow: row.workflow,
                version: row.version,
                status: row.status,
                input: row.input,
                epoch: row.epoch,
                attempt: row.attempt,
                crashes: row.crashes,
                forward_only: row.forward_only,
                cancel_requested: row.cancel_requested,
                failure: row.failure.map(serde_json::from_value).transpose().map_err(parse)?,
                created_at: row.created_at,
                journal: row.journal.map(serde_json::from_value).transpose().map_err(parse)?.unwrap_or_default(),
                clock: Clock::new(row.now),
            };
            Ok((row.id, claimed))
        })
        .collect()
}
