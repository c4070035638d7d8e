//! Would this program carry on what is running? Asked before a release, of the release.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use sqlx::PgPool;

use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use crate::{
    Failure, Flow, Registry, RunStatus,
    claim::{Claimed, Row},
    cohort::Cohorts,
    error::codes,
    exit::Exit,
    means::Means,
    outside::Outside,
    pools::Own,
    turn::{Played, play},
};

/// A replay only reads what is in memory already; one that takes so long never ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// A live run whose journal was replayed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsed {
    /// The run.
    pub run_id: Uuid,
    /// Its family.
    pub workflow: String,
    /// Version of the family.
    pub version: i32,
    /// Where it stands.
    pub status: RunStatus,
    /// Why this program cannot carry it on; none if it can.
    pub failure: Option<Failure>,
}

/// Replays the journals of up to `limit` live runs with ids after `after`, in their order, by the flows in
/// `registry`, each until it is used up: nothing is claimed, carried out or written.
///
/// # Errors
/// The database's own.
pub async fn rehearse(
    pool: &PgPool,
    registry: &Registry,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Rehearsed>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select r.id, r.workflow, r.version, r.status as "status: RunStatus", r.input, coalesce(r.claim_token, r.id) as "token!", r.attempt,
               r.crashes, r.forward_only, r.cancel_requested, r.failure, r.created_at, engine.now() as "now!",
               (select json_agg(json_build_object('seq', j.seq, 'kind', j.kind, 'name', j.name,
                                                  'output', j.output, 'recorded_at', j.recorded_at) order by j.seq)
                  from engine.journal j where j.run_id = r.id) as journal
          from engine.runs r
         where r.id > $1
         order by r.id
         limit $2
        "#,
        after,
        limit
    )
    .fetch_all(pool)
    .await?;
    let means = Arc::new(Means {
        pool: pool.clone(),
        places: Arc::new(Semaphore::new(1)),
        cohorts: Cohorts::new(1, 1, Own::like),
        singles: Cohorts::new(1, 1, Own::like),
        fusion: true,
        rehearses: true,
        faults: None,
        outside: Outside::new(1),
    });
    let mut rehearsed = Vec::with_capacity(rows.len());
    for row in rows {
        let run = Claimed::from(row);
        let (run_id, workflow, version, status) = (run.id, run.workflow.clone(), run.version, run.status);
        let failure = replay(&means, registry, run).await.err();
        rehearsed.push(Rehearsed { run_id, workflow, version, status, failure });
    }
    Ok(rehearsed)
}

async fn replay(means: &Arc<Means>, registry: &Registry, run: Claimed) -> Result<(), Failure> {
    let Some(code) = registry.get(&run.workflow, run.version) else {
        let detail = format!("this program does not know {}/v{}", run.workflow, run.version);
        return Err(Failure::new(codes::WORKFLOW_UNKNOWN, detail));
    };
    let input = run.input.clone();
    let (exit, left) = oneshot::channel();
    let mut flow = Flow::new(Arc::clone(means), run, code.queue(), exit)?;
    match tokio::time::timeout(PATIENCE, play(&*code, &mut flow, left, input)).await {
        Ok(Played::Output(_) | Played::Failed(_) | Played::Left(Exit::Rehearsed)) => Ok(()),
        Ok(Played::Panicked(error)) => Err(Failure::new(codes::PANICKED, error)),
        Ok(Played::Left(Exit::Stuck(failure))) => Err(failure),
        // Each of these comes of something tried, and a rehearsal tries nothing.
        Ok(Played::Left(
            Exit::Resting
            | Exit::Retry { .. }
            | Exit::PutOff { .. }
            | Exit::Again { .. }
            | Exit::Refused
            | Exit::Outage
            | Exit::Crashed,
        )) => Err(Failure::new(codes::FAILED, "the replay left its journal")),
        Err(_) => Err(Failure::new(codes::FAILED, format!("the replay does not end within {PATIENCE:?}"))),
    }
}
