//! What every flow of a process works with.

use std::sync::Arc;

use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    cohort::{Cohorts, Lane},
    fault::Faults,
    outside::Outside,
    silence::heard,
};

/// What every flow of a process works with.
pub(crate) struct Means {
    pub(crate) pool: PgPool,
    /// One for each transaction that flows may have open at once. Who waits for one waits for others'
    /// statements, not for a database that may be away: that shows at the pool.
    pub(crate) places: Arc<Semaphore>,
    /// Where runs wait that share one, and where those that must not.
    pub(crate) cohorts: Cohorts,
    pub(crate) singles: Cohorts,
    /// Adjacent `tx` steps share a commit.
    pub(crate) fusion: bool,
    /// Journals are only read: a flow goes no further than its own.
    pub(crate) rehearses: bool,
    pub(crate) faults: Option<Arc<dyn Faults>>,
    pub(crate) outside: Arc<Outside>,
}

/// An open transaction, and its place.
pub(crate) struct Open {
    pub(crate) tx: Transaction<'static, Postgres>,
    _place: OwnedSemaphorePermit,
}

impl Open {
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        heard(self.tx.commit()).await
    }
}

impl Means {
    pub(crate) fn lane(&self, lane: Lane) -> &Cohorts {
        match lane {
            Lane::Together => &self.cohorts,
            Lane::Alone => &self.singles,
        }
    }

    /// Begins a transaction once there is a place for it.
    pub(crate) async fn begin(&self) -> Result<Open, sqlx::Error> {
        let place = self.place().await?;
        Ok(Open { tx: heard(self.pool.begin()).await?, _place: place })
    }

    /// The same for a single statement.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, sqlx::Error> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)
    }
}
