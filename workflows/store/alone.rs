//! One of many in a transaction, so that its failure is its own.

use engine::{StepError, Tx, legible};

/// What follows is one of many, until [`end`].
///
/// # Errors
/// The database's own.
pub async fn begin(tx: &mut Tx<'_>) -> Result<(), StepError> {
    sqlx::query("savepoint alone").execute(tx.conn()).await?;
    Ok(())
}

/// This came of it since [`begin`]. What Postgres refused of it is undone and told as text, and the rest of
/// the transaction stands; a database that is away fails the whole step, as ever.
///
/// # Errors
/// What was not its own.
pub async fn end<T>(tx: &mut Tx<'_>, done: Result<T, StepError>) -> Result<Result<T, String>, StepError> {
    match done {
        Ok(done) => {
            sqlx::query("release savepoint alone").execute(tx.conn()).await?;
            Ok(Ok(done))
        }
        Err(error) if is_its_own(&error) => {
            sqlx::query("rollback to savepoint alone").execute(tx.conn()).await?;
            Ok(Err(legible(&error.to_string()).into_owned()))
        }
        Err(error) => Err(error),
    }
}

/// A value that does not fit, or a step's own refusal.
fn is_its_own(error: &StepError) -> bool {
    match error {
        StepError::Terminal(_) => true,
        StepError::NotYet { .. } | StepError::Busy { .. } => false,
        StepError::Retry(error) | StepError::Unknown(error) => {
            error.downcast_ref::<sqlx::Error>().is_some_and(|error| {
                // Classes 22, 23 and 54 of SQLSTATE: data exceptions, violated constraints, what fits no index.
                let is_refused = |code: &str| ["22", "23", "54"].iter().any(|class| code.starts_with(class));
                error.as_database_error().is_some_and(|error| error.code().is_some_and(|code| is_refused(&code)))
                    || matches!(
                        error,
                        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }
                    )
            })
        }
    }
}
