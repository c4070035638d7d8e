//! A worker that is stopped in the middle of a turn, given up for dead, and goes on when another has its
//! run: whatever it writes then, it must not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use engine::{
    Registry,
    testing::{Fault, Faults, Point, TestWorker},
    worker::Turn,
};
use futures::FutureExt as _;
use sqlx::PgPool;
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

use super::{history::LEASE, storm::block_on};
use crate::{gateway::Meanwhile, world::somebody_is_blocked};

/// How far the heir comes while the zombie is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To the first point of its own turn: it has the run, and has written nothing.
    Claims,
    /// To its turn's end, unless something is in its way that the zombie has locked.
    CarriesOn,
}

/// Where the heir stands when the zombie wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// The zombie is not struck off yet.
    Nowhere,
    /// Nobody has the run.
    Buried,
    /// It has the run, and waits for the zombie's turn to be over.
    Claimed,
    /// Its turn is over.
    Done { had_it: bool },
}

/// What is known of one seizure.
#[derive(Default)]
struct Found {
    heir: Option<JoinHandle<Turn>>,
    stand: Option<&'static str>,
    /// The entries of its run when another had it, if that other writes nothing before its turn is over.
    lost: Option<i64>,
}

/// One seizure of one turn.
pub struct Seizure {
    pool: PgPool,
    run_id: Uuid,
    found: Arc<Mutex<Found>>,
    /// The zombie's turn is over.
    over: watch::Sender<bool>,
}

/// The heir stops at the first point it passes, until the zombie's turn is over.
struct Hesitates {
    reach: Reach,
    stand: watch::Sender<Stand>,
    over: watch::Receiver<bool>,
}

impl Faults for Hesitates {
    fn at(&self, _: Point, _: &str) -> Option<Fault> {
        if self.reach == Reach::Claims && *self.stand.borrow() != Stand::Claimed {
            self.stand.send_replace(Stand::Claimed);
            let mut over = self.over.clone();
            block_on(async move { drop(over.wait_for(|over| *over).await) });
        }
        None
    }
}

async fn entries_of(pool: &PgPool, run_id: Uuid) -> i64 {
    sqlx::query_scalar("select count(*) from engine.journal where run_id = $1")
        .bind(run_id)
        .fetch_one(pool)
        .await
        .expect("a count")
}

impl Seizure {
    /// Prepares one. Answers what happens while `zombie` is stopped, too.
    pub fn of(
        zombie: &TestWorker,
        run_id: Uuid,
        pool: &PgPool,
        registry: &Registry,
        reach: Reach,
    ) -> (Seizure, Meanwhile) {
        let (over, found) = (watch::Sender::new(false), Arc::new(Mutex::new(Found::default())));
        let seizure = Seizure { pool: pool.clone(), run_id, found: Arc::clone(&found), over: over.clone() };
        let (pool, registry, dead) = (pool.clone(), registry.clone(), zombie.engine().incarnation().clone());
        let meanwhile: Meanwhile = Box::new(move || {
            async move {
                let lives: bool = sqlx::query_scalar("select exists (select from engine.runs where id = $1)")
                    .bind(run_id)
                    .fetch_one(&pool)
                    .await
                    .expect("an answer");
                if !lives {
                    // Its last commit is behind it.
                    return;
                }
                let (stand, is_awake) = (watch::Sender::new(Stand::Nowhere), watch::Sender::new(false));
                let hesitates = Hesitates { reach, stand: stand.clone(), over: over.subscribe() };
                let heir = TestWorker::new(&pool, registry, true, Some(Arc::new(hesitates))).await.expect("a worker");
                let heirs_id = heir.engine().incarnation().id();
                let task = tokio::spawn({
                    let (pool, stand, is_awake) = (pool.clone(), stand.clone(), is_awake.subscribe());
                    let mut over = over.subscribe();
                    async move {
                        dead.leave(&pool).await.expect("struck off");
                        if *is_awake.borrow() {
                            // It had locked its own row: nobody could strike it off before its turn was over.
                            over.wait_for(|over| *over).await.expect("the history holds it");
                        }
                        stand.send_replace(Stand::Buried);
                        let turn = heir.turn(run_id).await.expect("a turn");
                        stand.send_replace(Stand::Done { had_it: !matches!(turn, Turn::Idle) });
                        heir.die().await.expect("gone");
                        turn
                    }
                });
                let mut seen = stand.subscribe();
                let (stood, is_still) = loop {
                    let stood = *seen.borrow_and_update();
                    match stood {
                        Stand::Claimed => break ("has claimed its run", true),
                        Stand::Done { had_it: true } => break ("has carried its run on", true),
                        Stand::Done { had_it: false } => break ("could not have its run", false),
                        Stand::Nowhere | Stand::Buried if somebody_is_blocked(&pool).await => {
                            let owner: Option<Option<Uuid>> =
                                sqlx::query_scalar("select owner from engine.runs where id = $1")
                                    .bind(run_id)
                                    .fetch_optional(&pool)
                                    .await
                                    .expect("an answer");
                            // Once the zombie lets go of its locks, both write.
                            match owner {
                                // Whoever was blocked is so no more, and has ended the run: news comes.
                                None => {}
                                Some(owner) if owner == Some(heirs_id) => {
                                    break ("has its run and waits for its locks", false);
                                }
                                Some(_) => break ("waits to strike it off", false),
                            }
                        }
                        Stand::Nowhere | Stand::Buried => {
                            // Whichever comes first: news, or time for another look at the locks.
                            drop(tokio::time::timeout(Duration::from_millis(2), seen.changed()).await);
                        }
                    }
                };
                let lost = if is_still { Some(entries_of(&pool, run_id).await) } else { None };
                is_awake.send_replace(true);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                *found = Found { heir: Some(task), stand: Some(stood), lost };
            }
            .boxed()
        });
        (seizure, meanwhile)
    }

    /// The zombie's turn is over: what it wrote late is an error; then the heir goes on. Answers what
    /// happened, if the turn came as far as the point at which it was to be stopped.
    pub async fn passed(self, zombie: &TestWorker) -> Result<Option<String>, String> {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let (Some(heir), Some(stand)) = (found.heir, found.stand) else { return Ok(None) };
        let late = match found.lost {
            Some(before) => entries_of(&self.pool, self.run_id).await - before,
            None => 0,
        };
        self.over.send_replace(true);
        let turn = heir.await.expect("no panic");
        // Like any worker that finds itself struck off, it goes on under another name.
        zombie.engine().incarnation().beat(&self.pool, LEASE).await.expect("a beat");
        if late != 0 {
            return Err(format!("a worker that another {stand} wrote {late} entries late"));
        }
        Ok(Some(format!("another {stand}: {turn:?}")))
    }
}
