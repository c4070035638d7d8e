//! Starting runs: the run, its business key and its ticket, in the caller's own transaction.

use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    clock,
    ticket::{UNTOUCHED_SECS, ticket_body, ticket_id},
};

/// A workflow by its name alone: whoever starts one need not know how it is carried out.
#[doc(hidden)]
pub trait Named {
    /// Family name.
    const NAME: &'static str;
}

/// A run to be started.
#[derive(Debug, Clone)]
pub struct Start<W> {
    pub(crate) run_id: Uuid,
    pub(crate) workflow: &'static str,
    pub(crate) version: i32,
    pub(crate) queue: &'static str,
    pub(crate) key: String,
    pub(crate) parent_id: Option<Uuid>,
    pub(crate) input: serde_json::Value,
    pub(crate) forward_only: bool,
    pub(crate) marker: PhantomData<fn() -> W>,
}

impl<W> Start<W> {
    /// The id the run will have if this start is the first under its key.
    pub fn run_id(&self) -> Uuid {
        self.run_id
    }

    /// The same run under an id the caller has drawn.
    #[must_use]
    pub fn with_id(mut self, run_id: Uuid) -> Self {
        self.run_id = run_id;
        self
    }

    pub(crate) fn child_of(mut self, parent: Uuid) -> Self {
        self.parent_id = Some(parent);
        self
    }

    /// The same without its type, so that starts of several workflows can stand in one table.
    pub fn untyped(self) -> Start<()> {
        let Start { run_id, workflow, version, queue, key, parent_id, input, forward_only, marker: _ } = self;
        Start { run_id, workflow, version, queue, key, parent_id, input, forward_only, marker: PhantomData }
    }
}

/// The run that has the key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub run_id: Uuid,
    /// False when it had been started before.
    pub is_new: bool,
}

/// Starts a run inside the caller's transaction: it exists if, and only if, the caller commits.
pub async fn start<W>(conn: &mut PgConnection, start: &Start<W>) -> Result<Started, sqlx::Error> {
    let now = clock::now(&mut *conn).await?;
    start_at(conn, start, now).await
}

/// [`start`], for a caller that has read the engine's clock already.
pub async fn start_at<W>(
    conn: &mut PgConnection,
    start: &Start<W>,
    now: DateTime<Utc>,
) -> Result<Started, sqlx::Error> {
    // Two rounds: a concurrent first start is invisible to this statement's snapshot, visible to the next's.
    for _ in 0..2 {
        let row = sqlx::query!(
            r#"
            with new_key as (
                insert into engine.run_keys (workflow, run_key, run_id) values ($2, $5, $1)
                on conflict do nothing
                returning run_id),
            new_run as (
                insert into engine.runs
                    (id, workflow, version, queue, run_key, parent_id, input, forward_only, wake_at, created_at, updated_at)
                select run_id, $2, $3, $4, $5, $6, $7, $12, $8::timestamptz + make_interval(secs => $9), $8, $8 from new_key),
            ticket as (
                insert into apalis.jobs (id, job_type, job, status, run_at)
                select $10, $4, $11, 'Pending', now() from new_key)
            select run_id as "run_id!", true as "is_new!" from new_key
            union all
            select run_id, false from engine.run_keys where workflow = $2 and run_key = $5
            limit 1
            "#,
            start.run_id,
            start.workflow,
            start.version,
            start.queue,
            start.key,
            start.parent_id,
            start.input,
            now,
            UNTOUCHED_SECS,
            ticket_id(start.run_id),
            ticket_body(start.run_id),
            start.forward_only,
        )
        .fetch_optional(&mut *conn)
        .await?;
        if let Some(row) = row {
            return Ok(Started { run_id: row.run_id, is_new: row.is_new });
        }
    }
    Err(sqlx::Error::RowNotFound)
}

/// Starts runs of which nobody waits to hear: one statement for all of them. One whose key has been used
/// before is the run that has it. Returns how many are new.
pub async fn start_all<'a, W: 'a>(
    conn: &mut PgConnection,
    starts: impl IntoIterator<Item = &'a Start<W>>,
    now: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    // Whoever else starts the same keys takes them in the same order.
    let mut starts: Vec<&Start<W>> = starts.into_iter().collect();
    if starts.is_empty() {
        return Ok(0);
    }
    starts.sort_unstable_by(|a, b| (a.workflow, &a.key).cmp(&(b.workflow, &b.key)));
    let ids: Vec<Uuid> = starts.iter().map(|start| start.run_id).collect();
    let workflows: Vec<String> = starts.iter().map(|start| start.workflow.to_owned()).collect();
    let versions: Vec<i32> = starts.iter().map(|start| start.version).collect();
    let queues: Vec<String> = starts.iter().map(|start| start.queue.to_owned()).collect();
    let keys: Vec<String> = starts.iter().map(|start| start.key.clone()).collect();
    let parents: Vec<Option<Uuid>> = starts.iter().map(|start| start.parent_id).collect();
    let inputs: Vec<serde_json::Value> = starts.iter().map(|start| start.input.clone()).collect();
    let forward_only: Vec<bool> = starts.iter().map(|start| start.forward_only).collect();
    let tickets: Vec<String> = starts.iter().map(|start| ticket_id(start.run_id)).collect();
    let bodies: Vec<Vec<u8>> = starts.iter().map(|start| ticket_body(start.run_id)).collect();
    let done = sqlx::query!(
        r#"
        with given as (
            select * from unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::text[], $6::uuid[], $7::jsonb[], $8::bool[],
                                 $9::text[], $10::bytea[])
                as g(id, workflow, version, queue, run_key, parent_id, input, forward_only, ticket, body)),
        new_key as (
            insert into engine.run_keys (workflow, run_key, run_id) select workflow, run_key, id from given
            on conflict do nothing
            returning run_id),
        new_run as (
            insert into engine.runs
                (id, workflow, version, queue, run_key, parent_id, input, forward_only, wake_at, created_at, updated_at)
            select g.id, g.workflow, g.version, g.queue, g.run_key, g.parent_id, g.input, g.forward_only,
                   $11::timestamptz + make_interval(secs => $12), $11, $11
              from given g join new_key k on k.run_id = g.id)
        insert into apalis.jobs (id, job_type, job, status, run_at)
        select g.ticket, g.queue, g.body, 'Pending', now() from given g join new_key k on k.run_id = g.id
        "#,
        &ids,
        &workflows,
        &versions,
        &queues,
        &keys,
        &parents as &[Option<Uuid>],
        &inputs,
        &forward_only,
        &tickets,
        &bodies,
        now,
        UNTOUCHED_SECS,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
