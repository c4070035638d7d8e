//! A copy of the present rules, so that they are read when they change and not for each checkout.

use std::sync::{Arc, PoisonError, RwLock};

use sqlx::PgConnection;

use crate::store::fraud::rules::{self, Kept};

/// The copy that was read last. What it is a copy of is known by its id, which no other row in any database has: who
/// uses it has the database say that it is the present one.
static LATEST: RwLock<Option<Arc<Kept>>> = RwLock::new(None);

/// The rules as they were when they were last read.
pub(super) async fn latest(conn: &mut PgConnection) -> Result<Arc<Kept>, sqlx::Error> {
    let kept = LATEST.read().unwrap_or_else(PoisonError::into_inner).clone();
    match kept {
        Some(kept) => Ok(kept),
        None => read(conn).await,
    }
}

/// The rules as they are now.
pub(super) async fn read(conn: &mut PgConnection) -> Result<Arc<Kept>, sqlx::Error> {
    let kept = Arc::new(rules::current(conn).await?);
    *LATEST.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&kept));
    Ok(kept)
}
