//! The fenced commit, for one run or for many: every write of a run names the token its claim drew, and the last journal entry it
//! knows of. Zero rows means that somebody else has claimed the run since, or that the database has lost
//! what this worker remembers: everything rolls back, the business writes included.
//!
//! What compares the tokens is one SQL function, `engine.holds`. A counter would not do: after a failover
//! or a restore that forgot a claim, the next one would count the same.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Failure, RunStatus,
    fence::Fence,
    journal::Pending,
    start::{Start, start_all},
};

/// What the run's row says after this commit.
#[derive(Debug, Clone)]
pub(crate) enum Rest {
    /// The run goes on in this process.
    Onward { forward_only: bool },
    /// The run gives its worker back until a signal or the deadline.
    Waiting { waiting_for: String, wake_at: DateTime<Utc> },
    /// An attempt failed; the next is at `wake_at`.
    Retrying { attempt: i32, wake_at: DateTime<Utc>, failure: Option<Failure> },
    /// It unwinds from here on.
    Compensating { failure: Failure },
    /// An operator must look at it.
    Stuck { failure: Failure },
    /// Somebody else may go on at once.
    Released,
    /// Nobody here can carry it; somebody who can may come later.
    Unknown { wake_at: DateTime<Utc>, needs: String },
}

/// What a run writes when it commits.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) fence: Fence,
    pub(crate) entries: Vec<Pending>,
    pub(crate) starts: Vec<Start<()>>,
    pub(crate) write: Write,
    pub(crate) now: DateTime<Utc>,
    /// A request to cancel the run that came first wins.
    pub(crate) settles: bool,
}

/// The two ways in which a commit leaves a run.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// It lives on.
    Rest(Rest),
    /// It has ended, and moves to where finished runs are kept.
    Finish { status: RunStatus, output: Option<Value>, failure: Option<Failure> },
}

/// The runs that were written, and who has asked each of them to stop, if anybody. Of one that is not among
/// them another claim has the run, or its journal is another: everything is to be rolled back.
pub(crate) type Written = HashMap<Uuid, Option<String>>;

/// Starts what is to be started, journals what is to be journalled, and moves the runs' rows: one statement
/// each for all starts, all that live on and all that have ended. The runs are named once each.
pub(crate) async fn write(
    conn: &mut PgConnection,
    starts: &[Start<()>],
    writings: &[Writing],
) -> Result<Written, sqlx::Error> {
    let Some(now) = writings.iter().map(|writing| writing.now).max() else { return Ok(Written::new()) };
    start_all(&mut *conn, starts.iter().chain(writings.iter().flat_map(|writing| &writing.starts)), now).await?;
    let (mut resting, mut ending) = (Vec::new(), Vec::new());
    for writing in writings {
        match &writing.write {
            Write::Rest(rest) => resting.push((writing.fence, writing.entries.as_slice(), rest)),
            Write::Finish { status, output, failure } => {
                let end = End { status: *status, output: output.as_ref(), failure: failure.as_ref() };
                ending.push((writing.fence, writing.entries.as_slice(), end));
            }
        }
    }
    let mut written = rest(&mut *conn, &mut resting, now).await?;
    written.extend(finish(conn, &mut ending, now).await?);
    Ok(written)
}

/// The fences of runs that are written, and their entries, as columns.
#[derive(Default)]
struct Columns {
    id: Vec<Uuid>,
    token: Vec<Uuid>,
    written: Vec<i32>,
    run_id: Vec<Uuid>,
    seq: Vec<i32>,
    kind: Vec<String>,
    name: Vec<String>,
    output: Vec<Option<Value>>,
    error: Vec<Option<Value>>,
}

impl Columns {
    fn add(&mut self, fence: Fence, entries: &[Pending]) {
        self.id.push(fence.run_id);
        self.token.push(fence.token);
        self.written.push(fence.written);
        for entry in entries {
            self.run_id.push(fence.run_id);
            self.seq.push(entry.seq);
            self.kind.push(entry.kind.as_str().to_owned());
            self.name.push(entry.name.clone());
            self.output.push(entry.output.clone());
            self.error.push(entry.error.clone());
        }
    }

    /// The first and the last of the runs: of the journal's days only theirs need be opened.
    fn bounds(&self) -> (Uuid, Uuid) {
        (self.id.iter().min().copied().unwrap_or_default(), self.id.iter().max().copied().unwrap_or_default())
    }
}

/// How a run that lives on is written.
struct Moved<'a> {
    status: Option<RunStatus>,
    keeps_owner: bool,
    wake_at: Option<DateTime<Utc>>,
    waiting_for: Option<&'a str>,
    attempt: Option<i32>,
    forward: bool,
    failure: Option<&'a Failure>,
}

impl<'a> Moved<'a> {
    fn of(rest: &'a Rest, now: DateTime<Utc>) -> Self {
        let moved = Moved {
            status: None,
            keeps_owner: false,
            wake_at: None,
            waiting_for: None,
            attempt: Some(0),
            forward: false,
            failure: None,
        };
        match rest {
            Rest::Onward { forward_only } => Moved { keeps_owner: true, forward: *forward_only, ..moved },
            Rest::Waiting { waiting_for, wake_at } => Moved {
                status: Some(RunStatus::Waiting),
                wake_at: Some(*wake_at),
                waiting_for: Some(waiting_for),
                ..moved
            },
            Rest::Retrying { attempt, wake_at, failure } => Moved {
                status: Some(if failure.is_some() { RunStatus::Compensating } else { RunStatus::Retrying }),
                wake_at: Some(*wake_at),
                attempt: Some(*attempt),
                failure: failure.as_ref(),
                ..moved
            },
            Rest::Compensating { failure } => {
                Moved { status: Some(RunStatus::Compensating), keeps_owner: true, failure: Some(failure), ..moved }
            }
            Rest::Stuck { failure } => Moved { status: Some(RunStatus::Stuck), failure: Some(failure), ..moved },
            Rest::Released => Moved { status: Some(RunStatus::Pending), wake_at: Some(now), ..moved },
            Rest::Unknown { wake_at, needs } => Moved {
                status: Some(RunStatus::Retrying),
                wake_at: Some(*wake_at),
                waiting_for: Some(needs),
                attempt: None,
                ..moved
            },
        }
    }
}

/// Journals the entries of runs that live on and moves their rows, in one statement.
pub(crate) async fn rest(
    conn: &mut PgConnection,
    resting: &mut [(Fence, &[Pending], &Rest)],
    now: DateTime<Utc>,
) -> Result<Written, sqlx::Error> {
    if resting.is_empty() {
        return Ok(Written::new());
    }
    // In id order, as all who lock several.
    resting.sort_unstable_by_key(|(fence, ..)| fence.run_id);
    let mut columns = Columns::default();
    let (mut status, mut keeps_owner, mut wake_at) = (Vec::new(), Vec::new(), Vec::new());
    let (mut waiting_for, mut attempt, mut forward, mut failure) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (fence, pending, rest) in resting {
        columns.add(*fence, pending);
        let moved = Moved::of(rest, now);
        status.push(moved.status.map(|status| status.as_str().to_owned()));
        keeps_owner.push(moved.keeps_owner);
        wake_at.push(moved.wake_at);
        waiting_for.push(moved.waiting_for.map(str::to_owned));
        attempt.push(moved.attempt);
        forward.push(moved.forward);
        failure.push(moved.failure.map(Failure::to_json));
    }
    let (first, last) = columns.bounds();
    let rows = sqlx::query!(
        r#"
        with given as (
            select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::bool[], $6::timestamptz[], $7::text[],
                                 $8::int[], $9::bool[], $10::jsonb[])
                as g(id, token, written, status, keeps_owner, wake_at, waiting_for, attempt, forward, failure)),
        moved as (
            update engine.runs r
               set status = case when r.status = 'COMPENSATING' and g.status in ('PENDING', 'RETRYING') then r.status
                                 else coalesce(g.status, r.status) end,
                   owner = case when g.keeps_owner then r.owner end,
                   wake_at = case when g.status = 'STUCK' then 'infinity' else coalesce(g.wake_at, r.wake_at) end,
                   waiting_for = g.waiting_for, attempt = coalesce(g.attempt, r.attempt),
                   crashes = case when g.keeps_owner then 0 else r.crashes end,
                   forward_only = r.forward_only or g.forward,
                   failure = coalesce(g.failure, r.failure), updated_at = $11
              from given g
             where r.id = g.id and engine.holds(r.claim_token, g.token)
               and (g.written = 0 or exists (select from engine.journal j
                           where j.run_id = g.id and j.run_id between $18 and $19 and j.seq = g.written - 1))
            returning r.id, r.epoch, r.cancel_requested),
        entries as (
            insert into engine.journal (run_id, seq, kind, name, output, error, epoch, recorded_at)
            select m.id, e.seq, e.kind, e.name, e.output, e.error, m.epoch, $11
              from unnest($12::uuid[], $13::int[], $14::text[], $15::text[], $16::jsonb[], $17::jsonb[])
                   as e(run_id, seq, kind, name, output, error)
              join moved m on m.id = e.run_id)
        select id, cancel_requested from moved
        "#,
        &columns.id,
        &columns.token,
        &columns.written,
        &status as &[Option<String>],
        &keeps_owner,
        &wake_at as &[Option<DateTime<Utc>>],
        &waiting_for as &[Option<String>],
        &attempt as &[Option<i32>],
        &forward,
        &failure as &[Option<Value>],
        now,
        &columns.run_id,
        &columns.seq,
        &columns.kind,
        &columns.name,
        &columns.output as &[Option<Value>],
        &columns.error as &[Option<Value>],
        first,
        last,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.cancel_requested)).collect())
}

/// The same for one run; false when it is not this worker's, or not as it knows it.
pub(crate) async fn rest_one(
    conn: &mut PgConnection,
    fence: Fence,
    entries: &[Pending],
    of: &Rest,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    Ok(!rest(conn, &mut [(fence, entries, of)], now).await?.is_empty())
}

/// How a run that has ended is written.
struct End<'a> {
    status: RunStatus,
    output: Option<&'a Value>,
    failure: Option<&'a Failure>,
}

/// Journals the entries of runs that have ended and moves them to where finished runs are kept, in one
/// statement.
async fn finish(
    conn: &mut PgConnection,
    ending: &mut [(Fence, &[Pending], End<'_>)],
    now: DateTime<Utc>,
) -> Result<Written, sqlx::Error> {
    if ending.is_empty() {
        return Ok(Written::new());
    }
    ending.sort_unstable_by_key(|(fence, ..)| fence.run_id);
    let mut columns = Columns::default();
    let (mut status, mut output, mut failure) = (Vec::new(), Vec::new(), Vec::new());
    for (fence, pending, end) in ending {
        columns.add(*fence, pending);
        status.push(end.status.as_str().to_owned());
        output.push(end.output.cloned());
        failure.push(end.failure.map(Failure::to_json));
    }
    let (first, last) = columns.bounds();
    let rows = sqlx::query!(
        r#"
        with given as (
            select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::jsonb[], $6::jsonb[])
                as g(id, token, written, status, output, failure)),
        ended as (
            delete from engine.runs r
             using given g
             where r.id = g.id and engine.holds(r.claim_token, g.token)
               and (g.written = 0 or exists (select from engine.journal j
                           where j.run_id = g.id and j.run_id between $14 and $15 and j.seq = g.written - 1))
            returning r.id, r.workflow, r.version, r.run_key, r.queue, r.parent_id, r.input, r.epoch, r.crashes,
                      r.created_at, r.cancel_requested, g.status, g.output, g.failure),
        entries as (
            insert into engine.journal (run_id, seq, kind, name, output, error, epoch, recorded_at)
            select d.id, e.seq, e.kind, e.name, e.output, e.error, d.epoch, $7
              from unnest($8::uuid[], $9::int[], $10::text[], $11::text[], $12::jsonb[], $13::jsonb[])
                   as e(run_id, seq, kind, name, output, error)
              join ended d on d.id = e.run_id),
        kept as (
            insert into engine.finished_runs (id, workflow, version, run_key, queue, parent_id, status, input,
                                              output, failure, epoch, crashes, created_at, finished_at)
            select id, workflow, version, run_key, queue, parent_id, status, input, output, failure, epoch, crashes,
                   created_at, $7
              from ended),
        heard as (
            delete from engine.signals s using ended d where s.run_id = d.id)
        select id, cancel_requested from ended
        "#,
        &columns.id,
        &columns.token,
        &columns.written,
        &status,
        &output as &[Option<Value>],
        &failure as &[Option<Value>],
        now,
        &columns.run_id,
        &columns.seq,
        &columns.kind,
        &columns.name,
        &columns.output as &[Option<Value>],
        &columns.error as &[Option<Value>],
        first,
        last,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.cancel_requested)).collect())
}
