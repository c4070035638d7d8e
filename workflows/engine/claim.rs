//! Who works on what: claims in groups, and their release when nobody heard of them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

use crate::{
    Failure, RunStatus,
    clock::Clock,
    fence::Fence,
    incarnation::Incarnation,
    journal::{Entry, unreadable},
    limits::SET,
    pools::Own,
    silence::heard,
    ticket::ticket_id,
};

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
    pub(crate) status: RunStatus,
    pub(crate) input: serde_json::Value,
    pub(crate) token: Uuid,
    pub(crate) attempt: i32,
    pub(crate) crashes: i32,
    pub(crate) forward_only: bool,
    pub(crate) cancel_requested: Option<String>,
    pub(crate) failure: Option<Failure>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) journal: Vec<Entry>,
    /// Why its journal, or why it unwinds, cannot be read.
    pub(crate) unreadable: Option<Failure>,
    pub(crate) clock: Clock,
    /// Travels among so many at most.
    pub(crate) among: usize,
}

impl Fence {
    /// For a run whose journal has not been read yet.
    pub(crate) fn of(claimed: &Claimed) -> Self {
        Fence { run_id: claimed.id, token: claimed.token, written: 0 }
    }
}

type Reply = oneshot::Sender<Result<Option<(Claimed, Held)>, Arc<sqlx::Error>>>;

/// The claims this process is carrying out right now, by their tokens.
#[derive(Debug, Clone, Default)]
struct InHand(Arc<Mutex<HashSet<Uuid>>>);

impl InHand {
    fn lock(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, token: Uuid) -> Held {
        self.lock().insert(token);
        Held { token, in_hand: self.clone() }
    }
}

/// A claim is in this process' hands for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    token: Uuid,
    in_hand: InHand,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_hand.lock().remove(&self.token);
    }
}

/// A run that is asked for, and the token its claim would draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ask {
    run_id: Uuid,
    token: Uuid,
}

/// Claims that may have been made without anybody hearing of it: because their owner is alive, nobody else
/// would ever take those runs.
#[derive(Debug, Default)]
struct Unheard(HashSet<Ask>);

impl Unheard {
    async fn give_back(&mut self, pool: &PgPool) {
        let (runs, tokens): (Vec<Uuid>, Vec<Uuid>) = self.0.iter().map(|ask| (ask.run_id, ask.token)).unzip();
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
                   from unnest($1::uuid[], $2::uuid[]) as u(run_id, token)
                  where r.id = u.run_id and engine.holds(r.claim_token, u.token)",
                &runs,
                &tokens
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
    /// Each group takes one of the `places` for transactions, and gathers while it waits for it: no run gets
    /// far without one.
    pub(crate) fn new(pool: PgPool, places: Arc<Semaphore>, incarnation: Incarnation, lease: Duration) -> Self {
        let (requests, mut inbox) = mpsc::channel::<(Uuid, Reply)>(GROUP * 4);
        let mut own = Own::forgetful(&pool);
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
                    unheard.give_back(&pool).await;
                    match tokio::time::timeout(RETRY, inbox.recv_many(&mut group, GROUP)).await {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(_) => continue,
                    }
                }
                let Ok(_place) = places.acquire().await else { return };
                while group.len() < GROUP
                    && let Ok(asked) = inbox.try_recv()
                {
                    group.push(asked);
                }
                let asked: Vec<Ask> = group.iter().map(|(run_id, _)| Ask { run_id: *run_id, token: draw() }).collect();
                let held: Vec<Uuid> = in_hand.lock().iter().copied().collect();
                let claimed = async {
                    let mut connection = own.take().await?;
                    let claimed = heard(claim(&mut connection, &asked, incarnation.id(), lease, &held)).await?;
                    own.keep(connection);
                    Ok::<_, sqlx::Error>(claimed)
                };
                match claimed.await {
                    Ok(mut claimed) => {
                        for (id, reply) in group.drain(..) {
                            let claimed = claimed.remove(&id).map(|claimed| {
                                let held = in_hand.take(claimed.token);
                                (claimed, held)
                            });
                            if let Err(Ok(Some((claimed, _)))) = reply.send(Ok(claimed)) {
                                unheard.0.insert(Ask { run_id: id, token: claimed.token });
                            }
                        }
                    }
                    Err(error) => {
                        // The database may have committed before the answer was lost.
                        unheard.0.extend(asked);
                        let error = Arc::new(error);
                        for (_, reply) in group.drain(..) {
                            // Who asked and went away needs no answer.
                            let _ = reply.send(Err(Arc::clone(&error)));
                        }
                    }
                }
            }
        });
        Claimer { requests }
    }

    /// Claims a run, or returns `None`: somebody alive has it, it is parked, or it has ended.
    pub(crate) async fn claim(&self, run_id: Uuid) -> Result<Option<(Claimed, Held)>, Arc<sqlx::Error>> {
        let (reply, answer) = oneshot::channel();
        let gone = || Arc::new(sqlx::Error::WorkerCrashed);
        self.requests.send((run_id, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// A token that no other claim has had or will have, whatever the database has forgotten.
fn draw() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// Gives every run in the group that is free its new owner and token, and consumes the group's tickets.
///
/// Free is a run without an owner, or whose owner is not alive, unless that owner is this process and has
/// it `in_hand`: one that beat too late still is at work. Whether the owner lives is seen by the
/// statement's snapshot; a run that changed hands since is somebody's whom the snapshot may not know, and
/// one that its dead owner has still moved has a longer journal than the snapshot shows. So the row that
/// gets locked must still be the one that was looked at.
///
/// A run whose row somebody holds this moment (a signal, say) is skipped, and its ticket put back.
/// Only a ticket that is still as it was fetched is deleted: one that was renewed meanwhile stands for
/// a wake-up this claim has not seen.
async fn claim(
    connection: &mut PgConnection,
    asked: &[Ask],
    owner: Uuid,
    lease: Duration,
    in_hand: &[Uuid],
) -> Result<HashMap<Uuid, Claimed>, sqlx::Error> {
    let ids: Vec<Uuid> = asked.iter().map(|ask| ask.run_id).collect();
    let tokens: Vec<Uuid> = asked.iter().map(|ask| ask.token).collect();
    let tickets: Vec<String> = ids.iter().map(|id| ticket_id(*id)).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"
        with asked as (
            select * from unnest($1::uuid[], $3::text[], $5::uuid[]) as a(run_id, ticket, token)),
        ready as materialized (
            select r.id, r.claim_token, r.updated_at from engine.runs r
             where r.id = any($1) and r.status <> 'STUCK'
               and (r.owner is null
                    or r.claim_token <> all($6::uuid[])
                       and not exists (
                            select from engine.workers w
                             where w.id = r.owner and w.beat_at > now() - make_interval(secs => $4)))),
        free as materialized (
            select r.id from engine.runs r join ready y on y.id = r.id
             where r.id = any(array(select id from ready)) and r.status <> 'STUCK'
               and r.claim_token is not distinct from y.claim_token and r.updated_at = y.updated_at
             order by r.id
             for update of r skip locked),
        claimed as (
            update engine.runs r
               set owner = $2, claim_token = a.token, epoch = r.epoch + 1, waiting_for = null,
                   crashes = r.crashes + (r.owner is not null)::int,
                   status = case r.status when 'COMPENSATING' then r.status else 'RUNNING' end
              from free join asked a on a.run_id = free.id
             where r.id = free.id
            returning r.*),
        skipped as (
            update apalis.jobs j set status = 'Pending', run_at = now(), lock_by = null, lock_at = null
             where j.status <> 'Pending' and j.id = any(array(
                   select ticket from asked
                    where run_id in (select id from ready) and run_id not in (select id from free)))),
        spent as (
            -- By array, so that the tickets are found by their key: the table is small, but never tidy.
            delete from apalis.jobs j
             where j.status <> 'Pending' and j.id = any(array(
                   select ticket from asked
                    where run_id in (select id from free) or run_id not in (select id from ready))))
        select c.id as "id!", c.workflow as "workflow!", c.version as "version!", c.status as "status!: RunStatus",
               c.input as "input!", c.claim_token as "token!", c.attempt as "attempt!", c.crashes as "crashes!",
               c.forward_only as "forward_only!", c.cancel_requested, c.failure, c.created_at as "created_at!",
               engine.now() as "now!",
               case when c.epoch > 1 then (
                   select json_agg(json_build_object('seq', j.seq, 'kind', j.kind, 'name', j.name,
                                                     'output', j.output, 'recorded_at', j.recorded_at) order by j.seq)
                     from engine.journal j
                    -- The bounds leave those days aside in which none of them can be.
                    where j.run_id = c.id and j.run_id between $7 and $8) end as journal
          from claimed c
        "#,
        &ids,
        owner,
        &tickets,
        lease.as_secs_f64(),
        &tokens,
        in_hand,
        ids.iter().min().copied().unwrap_or_default(),
        ids.iter().max().copied().unwrap_or_default(),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.into())).collect())
}

/// Reads a claimed run again, for whoever still has it.
pub(crate) async fn again(pool: &PgPool, fence: Fence) -> Result<Option<Claimed>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select r.id, r.workflow, r.version, r.status as "status: RunStatus", r.input, r.claim_token as "token!", r.attempt,
               r.crashes, r.forward_only, r.cancel_requested, r.failure, r.created_at, engine.now() as "now!",
               (select json_agg(json_build_object('seq', j.seq, 'kind', j.kind, 'name', j.name,
                                                  'output', j.output, 'recorded_at', j.recorded_at) order by j.seq)
                  from engine.journal j where j.run_id = $1) as journal
          from engine.runs r
         where r.id = $1 and engine.holds(r.claim_token, $2)
        "#,
        fence.run_id,
        fence.token
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Claimed::from))
}

/// A run and its journal as they are read.
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) workflow: String,
    pub(crate) version: i32,
    pub(crate) status: RunStatus,
    pub(crate) input: Value,
    pub(crate) token: Uuid,
    pub(crate) attempt: i32,
    pub(crate) crashes: i32,
    pub(crate) forward_only: bool,
    pub(crate) cancel_requested: Option<String>,
    pub(crate) failure: Option<Value>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) now: DateTime<Utc>,
    pub(crate) journal: Option<Value>,
}

impl From<Row> for Claimed {
    /// What cannot be read is this run's trouble, not that of those it was read with.
    fn from(row: Row) -> Self {
        let (failure, journal, unreadable) = match remembered(row.failure, row.journal) {
            Ok((failure, journal)) => (failure, journal, None),
            Err(unreadable) => (None, Vec::new(), Some(unreadable)),
        };
        Claimed {
            id: row.id,
            workflow: row.workflow,
            version: row.version,
            status: row.status,
            input: row.input,
            token: row.token,
            attempt: row.attempt,
            crashes: row.crashes,
            forward_only: row.forward_only,
            cancel_requested: row.cancel_requested,
            failure,
            created_at: row.created_at,
            journal,
            unreadable,
            clock: Clock::new(row.now),
            among: SET,
        }
    }
}

fn remembered(failure: Option<Value>, journal: Option<Value>) -> Result<(Option<Failure>, Vec<Entry>), Failure> {
    let failure = failure.map(serde_json::from_value).transpose();
    let failure = failure.map_err(|error| unreadable("why it unwinds", error))?;
    let journal = journal.map(serde_json::from_value).transpose();
    let journal: Option<Vec<Entry>> = journal.map_err(|error| unreadable("the journal", error))?;
    Ok((failure, journal.unwrap_or_default()))
}
