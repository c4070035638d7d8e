//! Requests for a checkout that share a commit: whoever comes while others are being accepted travels with the
//! next ones, and one who comes alone goes at once. Each is answered as if it had been alone.

mod answer;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use workflows::{
    Shop,
    checkout::accept::{self, Lock, NewCheckout, Order, Sought},
};

pub(crate) use self::answer::AcceptedView;
use crate::{
    backlog::Backlog,
    error::ApiError,
    idempotency::{self, Begun, IdempotencyKey, Replay},
};

/// Requests of one transaction at most.
const SET: usize = 64;
/// Requests that may be here at once; one more is answered 503 `overloaded`.
const MOST: usize = 1_024;
/// Transactions of many at the same time: the fewer, the more travel in each.
const TOGETHER: usize = 2;
/// The same of those that wait for somebody.
const ALONE: usize = 8;

/// Where requests for a checkout are accepted.
#[derive(Clone)]
pub struct Accepts(Arc<Inner>);

struct Inner {
    pool: PgPool,
    shop: Arc<Shop>,
    backlog: Backlog,
    max_backlog: i64,
    time_limit: Duration,
    waiting: Mutex<VecDeque<Waiting>>,
    places: Arc<Semaphore>,
    together: Semaphore,
    alone: Semaphore,
}

/// A request for a checkout.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks, as `Caller::key` says it.
    pub caller: String,
    /// Under which key.
    pub key: IdempotencyKey,
    /// For what.
    pub order: Order,
}

/// What has been accepted.
#[derive(Debug)]
pub enum Reply {
    /// Just now.
    Accepted(Value),
    /// Before, under the same key.
    Replay(Replay),
}

struct Waiting {
    request: Request,
    reply: oneshot::Sender<Result<Reply, ApiError>>,
    _place: OwnedSemaphorePermit,
}

impl Accepts {
    /// Accepts for a shop, while fewer than `max_backlog` checkouts wait for a worker; each within `time_limit`.
    pub fn new(pool: PgPool, shop: Arc<Shop>, max_backlog: i64, time_limit: Duration) -> Self {
        Accepts(Arc::new(Inner {
            pool,
            shop,
            backlog: Backlog::default(),
            max_backlog,
            time_limit,
            waiting: Mutex::default(),
            places: Arc::new(Semaphore::new(MOST)),
            together: Semaphore::new(TOGETHER),
            alone: Semaphore::new(ALONE),
        }))
    }

    /// Accepts a request: its run is started, and what it is answered is kept under its key.
    ///
    /// # Errors
    /// Why it is refused; 503 when the database does not answer in time, or too many are here.
    pub async fn accept(&self, request: Request) -> Result<Reply, ApiError> {
        let _place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| ApiError::overloaded())?;
        let (reply, told) = oneshot::channel();
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(Waiting { request, reply, _place });
        // Whoever goes away meanwhile leaves the others alone.
        tokio::spawn(Arc::clone(&self.0).serve());
        told.await.unwrap_or_else(|_| Err(ApiError::internal("whoever accepted it has gone away")))
    }
}

impl fmt::Debug for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepts").field("max_backlog", &self.0.max_backlog).finish_non_exhaustive()
    }
}

impl Inner {
    /// Takes whoever waits once there is a place: often that is nobody any more.
    async fn serve(self: Arc<Self>) {
        let Ok(_place) = self.together.acquire().await else { return };
        let set: Vec<Waiting> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let many = waiting.len().min(SET);
            waiting.drain(..many).collect()
        };
        for left in self.carry(set, Lock::Skip).await {
            tokio::spawn(Arc::clone(&self).serve_alone(left));
        }
    }

    async fn serve_alone(self: Arc<Self>, waiting: Waiting) {
        let Ok(_place) = self.alone.acquire().await else { return };
        self.carry(vec![waiting], Lock::Wait).await;
    }

    /// Carries requests through one transaction, and answers them. Returns those that must go alone: somebody
    /// has what they want in hand, or one of them, nobody knows which, has failed all.
    async fn carry(&self, mut set: Vec<Waiting>, lock: Lock) -> Vec<Waiting> {
        set.retain(|waiting| !waiting.reply.is_closed());
        if set.is_empty() {
            return set;
        }
        metrics::histogram!("cart_engine_accepted_requests").record(set.len() as f64);
        let requests: Vec<&Request> = set.iter().map(|waiting| &waiting.request).collect();
        let carried = tokio::time::timeout(self.time_limit, self.transact(&requests, lock)).await;
        let results = match carried.unwrap_or_else(|_| Err(ApiError::timeout())) {
            Ok(results) => results,
            Err(error) if set.len() > 1 && error.status() != StatusCode::SERVICE_UNAVAILABLE => {
                tracing::info!(requests = set.len(), %error, "not accepted together; each goes alone");
                return set;
            }
            Err(error) => {
                let mut error = Some(error);
                for waiting in set {
                    waiting.tell(Err(error.take().unwrap_or_else(|| ApiError::unavailable("as for the others"))));
                }
                return Vec::new();
            }
        };
        let mut left = Vec::new();
        for (waiting, result) in set.into_iter().zip(results) {
            match result {
                Some(result) => waiting.tell(result),
                None => left.push(waiting),
            }
        }
        left
    }

    /// What comes of each request; `None` for one that must wait for somebody.
    async fn transact(
        &self,
        requests: &[&Request],
        lock: Lock,
    ) -> Result<Vec<Option<Result<Reply, ApiError>>>, ApiError> {
        let mut tx = self.pool.begin().await?;
        let mut results: Vec<Option<Result<Reply, ApiError>>> = requests.iter().map(|_| None).collect();

        let mut fresh = Vec::with_capacity(requests.len());
        for (at, begun) in self.begin(&mut tx, requests, lock).await?.into_iter().enumerate() {
            match begun {
                Some(Ok(Begun::Fresh)) => fresh.push(at),
                Some(Ok(Begun::Replay(replay))) => results[at] = Some(Ok(Reply::Replay(replay))),
                Some(Err(error)) => results[at] = Some(Err(error)),
                None => {}
            }
        }
        let orders = fresh.iter().map(|at| requests[*at].order.clone()).collect();
        let sought = accept::seek(&mut tx, &self.shop, orders, lock).await?;

        let mut accepted = Vec::with_capacity(fresh.len());
        let (mut news, mut checkouts): (Vec<usize>, Vec<NewCheckout>) = Default::default();
        for (at, sought) in fresh.into_iter().zip(sought) {
            match sought {
                Ok(Sought::Started(started)) => accepted.push((at, started)),
                Ok(Sought::New(checkout)) => match self.backlog.admit(&mut tx, self.max_backlog).await {
                    Ok(()) => {
                        news.push(at);
                        checkouts.push(*checkout);
                    }
                    Err(error) => results[at] = Some(Err(error)),
                },
                Ok(Sought::Busy) => {}
                Err(refusal) => results[at] = Some(Err(refusal.into())),
            }
        }
        for (at, started) in news.into_iter().zip(accept::start(&mut tx, &self.shop, checkouts).await?) {
            match started {
                Ok(started) => accepted.push((at, started)),
                Err(refusal) => results[at] = Some(Err(refusal.into())),
            }
        }
        if accepted.is_empty() {
            tx.rollback().await?;
            return Ok(results);
        }

        let mut views = Vec::with_capacity(accepted.len());
        for (at, accepted) in accepted {
            views.push((at, serde_json::to_value(AcceptedView::from(accepted)).map_err(ApiError::internal)?));
        }
        let answered: Vec<_> =
            views.iter().map(|(at, view)| (requests[*at].caller.as_str(), &requests[*at].key, view)).collect();
        idempotency::finish_many(&mut tx, StatusCode::ACCEPTED, &answered).await?;
        tx.commit().await?;
        for (at, view) in views {
            results[at] = Some(Ok(Reply::Accepted(view)));
        }
        Ok(results)
    }

    async fn begin(
        &self,
        conn: &mut PgConnection,
        requests: &[&Request],
        lock: Lock,
    ) -> Result<Vec<Option<Result<Begun, ApiError>>>, ApiError> {
        match (lock, requests) {
            (Lock::Wait, [one]) => Ok(vec![Some(Ok(idempotency::begin(conn, &one.caller, &one.key).await?))]),
            (Lock::Wait | Lock::Skip, many) => {
                let keys: Vec<_> = many.iter().map(|request| (request.caller.as_str(), &request.key)).collect();
                Ok(idempotency::begin_many(conn, &keys).await?)
            }
        }
    }
}

impl Waiting {
    /// Whoever has gone away needs no answer.
    fn tell(self, result: Result<Reply, ApiError>) {
        let _ = self.reply.send(result);
    }
}
