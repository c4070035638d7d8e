//! `cart-engine run`: doing something to a run.

use sqlx::{PgPool, Postgres, Transaction};
use workflows::operations::{self, Done, OperationError, Operator};

use crate::{
    Ended,
    arguments::{RunCommand, Target},
    config::Config,
    database::IfMissing,
    failure::Failure,
    maintain::on_database,
    say,
};

/// Does what was asked for, and writes down who and why.
///
/// # Errors
/// No such run, or one that this cannot be done to; the database's own.
pub(crate) async fn run(config: &Config, command: RunCommand) -> Result<Ended, Failure> {
    let done = on_database(config, IfMissing::Refuse, async |pool| {
        migrations::check(pool).await?;
        Ok(carry_out(pool, &command).await?)
    })
    .await?;
    say(told(done));
    Ok(Ended::Well)
}

async fn carry_out(pool: &PgPool, command: &RunCommand) -> Result<Done, OperationError> {
    let (RunCommand::Retry { target }
    | RunCommand::Resume { target }
    | RunCommand::Cancel { target }
    | RunCommand::Signal { target, .. }) = command;
    let Target { id, reason, by } = target;
    let by = format!("operator:{by}");
    let operator = Operator::new(&by, reason)?;
    let mut tx: Transaction<'_, Postgres> = pool.begin().await?;
    let done = match command {
        RunCommand::Retry { .. } => operations::retry(&mut tx, *id, operator).await,
        RunCommand::Resume { .. } => operations::resume(&mut tx, *id, operator).await,
        RunCommand::Cancel { .. } => operations::cancel(&mut tx, *id, operator).await,
        RunCommand::Signal { name, payload, .. } => operations::signal(&mut tx, *id, name, payload, operator).await,
    }?;
    tx.commit().await?;
    Ok(done)
}

fn told(done: Done) -> &'static str {
    match done {
        Done::GoesOn => "it goes on where its journal ends, as soon as a worker is free",
        Done::TriedNow => "it is tried again, as soon as a worker is free",
        Done::Unwinds => "it takes back what it did, from its next safe point on",
        Done::UnwoundBefore => "it was taking back what it did, or asked to, before",
        Done::Told => "it has been told",
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            OperationError::Unknown(_) => failure.hint("`cart-engine inspect runs` lists the newest"),
            OperationError::Ended { run_id, .. }
            | OperationError::NotParked { run_id, .. }
            | OperationError::NothingToRetry { run_id, .. }
            | OperationError::Forward(run_id)
            | OperationError::Full(run_id) => {
                failure.hint(format!("`cart-engine inspect run {run_id}` shows where it stands"))
            }
            OperationError::Unawaited { run_id, .. } => {
                failure.hint(format!("`cart-engine inspect run {run_id}` shows what it waits for"))
            }
            OperationError::Name
            | OperationError::Elsewhere { .. }
            | OperationError::Payload
            | OperationError::Reason
            | OperationError::Nobody
            | OperationError::Database(_) => failure,
        }
    }
}
