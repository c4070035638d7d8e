//! One history: who is there, what has happened, and how a run gets a turn.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{ids::OrderId, payment::DisputeStatus, ports::WebhookEvent};
use engine::{
    Registry, park,
    testing::{Faults, TestWorker, advance_clock},
    worker::{Turn, sweep},
};
use futures::FutureExt as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    cart::Owner,
    checkout::accept::{Accepted, Order},
    fraud::StaffDecision,
    reservation_expiry::ReservationExpiry,
};

use super::{
    bank,
    floor::{Floor, Opening, SKUS, user},
    plot::Plot,
    storm::{Storm, Weathered},
    zombie::{Reach, Seizure},
};
use crate::{
    gateway::{Meanwhile, Weather},
    world::World,
};

/// After so many rounds of turns with nothing in the way, whatever still lives never ends.
const ROUNDS: usize = 120;
/// Real time within which a worker must beat; a history takes less.
pub const LEASE: Duration = Duration::from_secs(30);

/// In seconds.
const DAY: u64 = 24 * 3_600;

/// What happened, line by line. Without ids and times, so that two tellings can be compared.
#[derive(Clone, Default)]
pub struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    pub fn note(&self, line: impl fmt::Display) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_string());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Somebody with a cart.
#[derive(Debug, Clone)]
pub struct Somebody {
    pub name: String,
    pub owner: Owner,
    /// What they asked for last.
    pub asked: Option<Order>,
}

/// A checkout that was accepted.
#[derive(Debug, Clone)]
pub struct Bought {
    pub accepted: Accepted,
    pub expected_total: Option<Decimal>,
    pub is_cash: bool,
}

/// What was promised to somebody, to be compared with what became of it.
#[derive(Debug, Default)]
pub struct Promises {
    /// What the staff give back of an order that stays.
    pub refunds: BTreeMap<OrderId, Decimal>,
    /// Orders that were called off, and the run that was to do it.
    pub cancelled: Vec<(OrderId, Uuid)>,
    /// Further tries to pay that were taken.
    pub offers: BTreeMap<OrderId, usize>,
    /// What the staff said of doubtful orders.
    pub reviews: BTreeMap<OrderId, StaffDecision>,
    /// Payments that banks wanted back, and how that stands.
    pub disputes: BTreeMap<String, DisputeStatus>,
    /// What somebody has given back on the gateway's own site, as it would tell.
    pub elsewhere: Vec<WebhookEvent>,
}

/// A live run, as whoever gives turns sees it.
#[derive(Debug, Clone)]
pub struct Live {
    pub id: Uuid,
    pub workflow: String,
    /// In the diary.
    pub name: String,
}

/// A worker and what may strike it.
struct Hand {
    worker: TestWorker,
    storm: Arc<Storm>,
}

pub struct History {
    pub world: World,
    pub rng: StdRng,
    pub diary: Diary,
    pub people: Vec<Somebody>,
    pub bought: Vec<Bought>,
    /// Pieces ever stocked, by [`SKUS`].
    pub stocked: [i64; 3],
    pub borne: Arc<Weathered>,
    registry: Registry,
    hands: Vec<Hand>,
    /// Workers that died and have not been struck off yet: nobody else may take their runs.
    ghosts: Vec<TestWorker>,
    /// The odds of a fault at one point.
    odds: f64,
    /// Runs of one kind get their turns at the same moment, and share transactions where they can.
    gathers: bool,
    length: usize,
    seen: BTreeMap<Uuid, Live>,
    /// Ticks of all schedules.
    pub ticks: u32,
    pub plot: Plot,
    /// Checkouts may be doubtful.
    pub screens: bool,
    pub promises: Promises,
    pub parcels: Vec<Uuid>,
    pub returns: Vec<Uuid>,
    /// What a service of the shop holds.
    pub holds: Vec<Uuid>,
    /// Orders whose money came after the gateway had said that it would not.
    pub late: Vec<OrderId>,
}

impl History {
    pub async fn begin(floor: &Floor, seed: u64, diary: Diary) -> History {
        let mut rng = StdRng::seed_from_u64(seed);
        let (plot, gathers) = (Plot::draw(&mut rng), seed.is_multiple_of(2));
        let opening = Opening {
            stock: std::array::from_fn(|_| rng.random_range(1..=6)),
            users: rng.random_range(1..=3) + if gathers { 2 } else { 0 },
            coupon_limit: rng.random_range(1..=3),
            free_shipping: rng.random_bool(0.3),
            cod_limit: rng.random_bool(0.5).then(|| Decimal::from(10_000)),
            payment_attempts: if plot == Plot::Declined || rng.random_bool(0.2) { 3 } else { 1 },
            return_patience: Duration::from_secs([2 * DAY, 30 * DAY][rng.random_range(0..2)]),
            cancel_deadline_s: rng.random_bool(0.2).then_some(3_600),
            auto_process_after_s: rng.random_bool(0.2).then_some(7_200),
            screens: plot == Plot::Doubtful || rng.random_bool(0.2),
        };
        diary.note(format!("seed {seed}: {plot:?}, {opening:?}"));
        let world = floor.set_up(&opening).await;
        let mut people: Vec<Somebody> = (0..opening.users)
            .map(|index| Somebody {
                name: format!("user {index}"),
                owner: Owner::User(user(index).into()),
                asked: None,
            })
            .collect();
        if rng.random_bool(0.4) {
            let owner = Owner::Guest { session_hash: b"a guest's secret, hashed".to_vec() };
            people.push(Somebody { name: "a guest".to_owned(), owner, asked: None });
        }
        let odds = [0.0, 0.01, 0.03, 0.1][rng.random_range(0..4)];
        let length = rng.random_range(10..=34);
        let registry = workflows::registry(&world.shop);
        let mut history = History {
            world,
            rng,
            diary,
            people,
            bought: Vec::new(),
            stocked: opening.stock.map(i64::from),
            borne: Arc::default(),
            registry,
            hands: Vec::new(),
            ghosts: Vec::new(),
            odds,
            gathers,
            length,
            seen: BTreeMap::new(),
            ticks: 0,
            plot,
            screens: opening.screens,
            promises: Promises::default(),
            parcels: Vec::new(),
            returns: Vec::new(),
            holds: Vec::new(),
            late: Vec::new(),
        };
        for _ in 0..2 {
            let hand = history.hire().await;
            history.hands.push(hand);
        }
        history
    }

    /// One thing after the other.
    pub async fn live(&mut self) -> Result<(), String> {
        self.set_the_scene().await?;
        if self.gathers {
            self.rush().await?;
        }
        for _ in 0..self.length {
            self.act().await?;
        }
        Ok(())
    }

    async fn hire(&mut self) -> Hand {
        let (fusion, storm) = (self.rng.random_bool(0.6), Storm::new(&self.borne));
        let worker = self.worker(fusion, Some(Arc::clone(&storm) as _)).await;
        Hand { worker, storm }
    }

    async fn worker(&self, fusion: bool, faults: Option<Arc<dyn Faults>>) -> TestWorker {
        let (pool, registry) = (&self.world.pool, self.registry.clone());
        let worker = if self.gathers && fusion {
            // One set at a time, and nobody is waited for: who travels with whom is the same in each telling.
            TestWorker::in_cohorts(pool, registry, 1, faults).await
        } else {
            TestWorker::new(pool, registry, fusion, faults).await
        };
        worker.expect("a worker")
    }

    /// One that nothing strikes.
    pub async fn healthy(&mut self) -> TestWorker {
        let fusion = self.rng.random_bool(0.5);
        self.worker(fusion, None).await
    }

    /// Live runs that are not parked, of each kind the oldest first: which kind is older may differ from telling
    /// to telling where some got their turns at the same moment.
    pub async fn live_runs(&mut self) -> Vec<Live> {
        let runs = sqlx::query_as("select id, workflow from engine.runs where status <> 'STUCK' order by workflow, id");
        let runs = runs.fetch_all(&self.world.pool).await.expect("the live runs");
        self.named(runs)
    }

    /// Runs that have a ticket, in the same order.
    async fn ticketed_runs(&mut self) -> Vec<Live> {
        let runs = sqlx::query_as(
            "select r.id, r.workflow from apalis.jobs j
               join engine.runs r on r.id = (convert_from(j.job, 'UTF8')::jsonb ->> 'run_id')::uuid
              where r.status <> 'STUCK' order by r.workflow, r.id",
        );
        let runs = runs.fetch_all(&self.world.pool).await.expect("the tickets");
        self.named(runs)
    }

    /// Ids differ from telling to telling: a run is the first, second, … that was seen of its workflow.
    fn named(&mut self, runs: Vec<(Uuid, String)>) -> Vec<Live> {
        let named = runs.into_iter().map(|(id, workflow)| {
            let seen = self.seen.values().filter(|live| live.workflow == workflow).count();
            let fresh = || Live { id, name: format!("{workflow} {}", seen + 1), workflow };
            self.seen.entry(id).or_insert_with(fresh).clone()
        });
        named.collect()
    }

    /// A worker takes a run up, and those that come along, through whatever storm there is.
    pub async fn give_turn(&mut self, run: &Live) -> Result<(), String> {
        let index = self.rng.random_range(0..self.hands.len());
        let (seed, fate) = (self.rng.random(), self.rng.random_range(0..100));
        let crossing = if fate < 12 { Some(self.cross(run).await) } else { None };
        let runs = if crossing.is_none() { self.company_of(run).await } else { vec![run.clone()] };
        let (seizure, meanwhile) = if (12..30).contains(&fate) { self.seize(run, index) } else { (None, None) };
        self.hands[index].storm.brew(seed, self.odds, &runs, meanwhile);
        let turns = self.turns(&self.hands[index].worker, &runs).await;
        self.world.gateway.meanwhile(None);
        let (mut struck, has_crashed) = self.hands[index].storm.passed();
        if let Some(seizure) = seizure {
            struck.extend(seizure.passed(&self.hands[index].worker).await?);
        }
        let mut became = Vec::with_capacity(turns.len());
        for (run, turn) in runs.iter().zip(turns) {
            became.push(match turn {
                Turn::Idle => "idle".to_owned(),
                Turn::Ended(status) => status.to_string(),
                Turn::Resting => self.rest_of(run.id).await,
            });
        }
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        let struck = if struck.is_empty() { String::new() } else { format!(" [{}]", struck.join("; ")) };
        let crossing = crossing.map(|crossing| format!(" (crossed by {crossing})")).unwrap_or_default();
        let (names, became) = (names.join(", "), became.join(", "));
        self.diary.note(format!("worker {index} carries {names}{crossing}{struck}: {became}"));
        if has_crashed {
            let fresh = self.hire().await;
            let dead = std::mem::replace(&mut self.hands[index], fresh);
            self.ghosts.push(dead.worker);
        }
        Ok(())
    }

    /// A run, and in a history that gathers most of those of its kind.
    async fn company_of(&mut self, run: &Live) -> Vec<Live> {
        let mut runs = vec![run.clone()];
        if self.gathers {
            for other in self.live_runs().await {
                if other.workflow == run.workflow && other.id != run.id && self.rng.random_bool(0.8) {
                    runs.push(other);
                }
            }
        }
        runs
    }

    /// Their tickets are answered at the same moment.
    async fn turns(&self, worker: &TestWorker, runs: &[Live]) -> Vec<Turn> {
        let ids: Vec<Uuid> = runs.iter().map(|run| run.id).collect();
        sqlx::query(
            "update apalis.jobs set status = 'Queued' where (convert_from(job, 'UTF8')::jsonb ->> 'run_id')::uuid = any($1)",
        )
        .bind(&ids)
        .execute(&self.world.pool)
        .await
        .expect("fetched");
        let turns = ids.into_iter().map(|run_id| worker.engine().resume(run_id));
        futures::future::try_join_all(turns).await.expect("turns")
    }

    /// Prepares that the worker is stopped somewhere in this turn until another has its run.
    fn seize(&mut self, run: &Live, index: usize) -> (Option<Seizure>, Option<(u32, Meanwhile)>) {
        let (after, reach) =
            (self.rng.random_range(0..16), [Reach::Claims, Reach::CarriesOn][self.rng.random_range(0..2)]);
        let zombie = &self.hands[index].worker;
        let (seizure, meanwhile) = Seizure::of(zombie, run.id, &self.world.pool, &self.registry, reach);
        (Some(seizure), Some((after, meanwhile)))
    }

    async fn rest_of(&self, run_id: Uuid) -> String {
        let status = sqlx::query_scalar("select status from engine.runs where id = $1").bind(run_id);
        status
            .fetch_optional(&self.world.pool)
            .await
            .expect("a status")
            .unwrap_or_else(|| "ended by another".to_owned())
    }

    /// The clock leaps; a gateway keeps its keys for a day.
    pub async fn later(&self, seconds: u64) {
        advance_clock(&self.world.pool, Duration::from_secs(seconds)).await.expect("later");
        if seconds >= DAY {
            self.world.gateway.forget_keys();
        }
    }

    /// Prepares what happens while the run talks to the gateway, if it does in this turn.
    async fn cross(&mut self, run: &Live) -> &'static str {
        let (pool, gateway) = (self.world.pool.clone(), Arc::clone(&self.world.gateway));
        let order = self.order_of(run.id);
        let run_id = run.id;
        let (what, meanwhile): (_, Meanwhile) = match self.rng.random_range(0..4) {
            0 => (
                "a webhook that comes before the answer",
                Box::new(move || {
                    async move {
                        for payment in order.map(|order| gateway.payments(order)).unwrap_or_default() {
                            bank::deliver(&pool, &bank::word_of(&payment)).await;
                        }
                    }
                    .boxed()
                }),
            ),
            // Nobody gives up but whoever checks out.
            1 if order.is_some() => (
                "a shopper who gives up",
                Box::new(move || {
                    async move {
                        let mut tx = pool.begin().await.expect("a transaction");
                        engine::run::cancel(&mut tx, run_id, "the shopper gave up").await.expect("an answer");
                        tx.commit().await.expect("committed");
                    }
                    .boxed()
                }),
            ),
            2 => (
                "ten minutes",
                Box::new(move || async move { drop(advance_clock(&pool, Duration::from_secs(700)).await) }.boxed()),
            ),
            _ => {
                let (other, expiry) = (self.healthy().await, self.start::<ReservationExpiry>().await);
                (
                    "the end of its hold",
                    Box::new(move || {
                        async move {
                            advance_clock(&pool, Duration::from_secs(700)).await.expect("later");
                            other.turn(expiry).await.expect("a turn");
                            other.die().await.expect("gone");
                        }
                        .boxed()
                    }),
                )
            }
        };
        self.world.gateway.meanwhile(Some(meanwhile));
        what
    }

    fn order_of(&self, run_id: Uuid) -> Option<OrderId> {
        let bought = self.bought.iter().find(|bought| bought.accepted.workflow_id == run_id)?;
        Some(bought.accepted.order_id)
    }

    /// The sweep strikes off one that died a while ago.
    pub async fn bury_one(&mut self) {
        if self.ghosts.is_empty() {
            self.sweep().await;
            return;
        }
        let index = self.rng.random_range(0..self.ghosts.len());
        self.diary.note("a dead worker is struck off");
        self.ghosts.swap_remove(index).die().await.expect("struck off");
    }

    pub async fn sweep(&self) {
        sweep(&self.world.pool, LEASE).await.expect("swept");
    }

    /// The storm is over: the dead are buried, what was parked is looked at and goes on, the gateway
    /// answers and has told everything, and healthy workers answer tickets until there are none.
    pub async fn settle(&mut self) -> Result<(), String> {
        self.diary.note("the storm is over");
        let hands = std::mem::take(&mut self.hands).into_iter().map(|hand| hand.worker);
        for worker in hands.chain(std::mem::take(&mut self.ghosts)).collect::<Vec<_>>() {
            worker.die().await.expect("struck off");
        }
        self.world.gateway.set_weather(Weather::Fair);
        for payment in self.bought.iter().flat_map(|bought| self.world.gateway.payments(bought.accepted.order_id)) {
            // Money that came after the gateway had said "closed" is known by its webhook only.
            if self.rng.random_bool(0.5) || self.late.contains(&payment.order_id) {
                bank::deliver(&self.world.pool, &bank::word_of(&payment)).await;
            }
        }
        self.world.gateway.keep_refunds_pending(false);
        self.end_refunds();
        self.end_disputes().await;
        for bought in self.bought.clone() {
            let order_id = bought.accepted.order_id;
            for refund in self.world.gateway.refunds(order_id) {
                if self.rng.random_bool(0.5) {
                    bank::deliver(&self.world.pool, &bank::word_of_refund(order_id, &refund, true)).await;
                }
            }
        }
        self.unpark().await?;
        let worker = self.healthy().await;
        let mut step = 0;
        let mut is_tidy = self.holds.is_empty();
        for _ in 0..ROUNDS {
            self.sweep().await;
            let due = self.ticketed_runs().await;
            for run in &due {
                let became = worker.turn(run.id).await.expect("a turn");
                self.diary.note(format!("{} goes on: {became:?}", run.name));
            }
            if due.is_empty() {
                if self.decide_on_refunds().await? || self.hear_of_elsewhere().await {
                    continue;
                }
                // Some are looked at after all, and some never.
                for bought in self.doubtful().await {
                    if self.rng.random_bool(0.4) {
                        self.review(&bought).await?;
                    }
                }
                if self.live_runs().await.is_empty() {
                    if is_tidy {
                        return Ok(());
                    }
                    // No service may hold anything for longer than an hour.
                    self.later(4_000).await;
                    self.start::<ReservationExpiry>().await;
                    is_tidy = true;
                    continue;
                }
                step = (step + 1).min(12);
                self.later(130 << step).await;
            } else {
                step = 0;
            }
        }
        let left: Vec<(String, String, Option<String>)> =
            sqlx::query_as("select workflow, status, waiting_for from engine.runs order by id")
                .fetch_all(&self.world.pool)
                .await
                .expect("the live runs");
        Err(format!("these runs never end: {left:?}"))
    }

    /// An operator sends what is parked on its way again. Only a fault may have parked it.
    async fn unpark(&mut self) -> Result<(), String> {
        let parked: Vec<(Uuid, String, Option<serde_json::Value>)> =
            sqlx::query_as("select id, workflow, failure from engine.runs where status = 'STUCK' order by id")
                .fetch_all(&self.world.pool)
                .await
                .expect("what is parked");
        for (id, workflow, failure) in parked {
            if failure.is_none() || !self.borne.explains(id) {
                return Err(format!("a {workflow} run is parked, and no fault explains it: {failure:?}"));
            }
            self.diary.note(format!("an operator unparks a {workflow}"));
            let mut tx = self.world.pool.begin().await.expect("a transaction");
            park::unpark(&mut tx, id, "user:an operator", "the storm is over").await.expect("unparked");
            tx.commit().await.expect("committed");
        }
        Ok(())
    }

    /// Pieces of the goods by name, for the diary.
    pub fn sku(index: usize) -> &'static str {
        SKUS[index].0
    }
}
