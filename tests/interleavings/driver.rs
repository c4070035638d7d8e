//! One order at a time, and everything that may happen to it in an order drawn from a seed: turns of its
//! runs, deaths of the worker in the middle of one, the story's own actions, and two things at once.
//! The seed fixes the plan; where two things meet in Postgres, its locks decide.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use engine::testing::{Fault, Faults, Point, TestWorker};
use uuid::Uuid;

use crate::world::World;

/// Orders played by one test.
pub const ORDERS: u64 = 500;
/// Moves of one story, at most; then the rest happens in order.
const MOVES: usize = 40;
/// The books are audited after so many orders, and at the end.
const AUDIT_EVERY: u64 = 100;

/// Something that happens once, when its turn has come; nothing of it happens before.
pub type Action<'w> = (&'static str, Pin<Box<dyn Future<Output = ()> + Send + 'w>>);

/// An action by its name.
pub fn action<'w>(name: &'static str, act: impl Future<Output = ()> + Send + 'w) -> Action<'w> {
    (name, Box::pin(act))
}

/// Draws numbers from a seed (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// One of 0..n.
    pub fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(n.max(1)).expect("small")).expect("small")
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

/// Plays a story for every seed on one database. `CART_ENGINE_SEED` plays that one seed only.
pub async fn every_seed<F>(world: &World, story: impl Fn(u64, Dice) -> F)
where
    F: Future<Output = ()>,
{
    let only: Option<u64> = std::env::var("CART_ENGINE_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..ORDERS, |seed| seed..seed + 1) {
        let told = Told(seed);
        story(seed, Dice::new(seed)).await;
        if seed % AUDIT_EVERY == AUDIT_EVERY - 1 {
            world.assert_books(&format!("after seed {seed}")).await;
        }
        drop(told);
    }
    world.assert_books("at the end").await;
}

/// Names the seed of whatever fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed of this failure: CART_ENGINE_SEED={}", self.0);
        }
    }
}

/// The worker dies at the n-th point it passes.
struct DieAt(AtomicU32);

impl Faults for DieAt {
    fn at(&self, _: Point, _: &str) -> Option<Fault> {
        (self.0.fetch_sub(1, Ordering::Relaxed) == 0).then_some(Fault::Crash)
    }
}

/// Mixes the actions with the turns of whatever runs live, then lets everything come to its end.
pub async fn interleave<'w>(world: &'w World, dice: &mut Dice, actions: Vec<Action<'w>>) {
    let fusion = dice.roll(3) > 0;
    let registry = workflows::registry(&world.shop);
    let new = async |faults| TestWorker::new(&world.pool, registry.clone(), fusion, faults).await.expect("a worker");
    let healthy = new(None).await;
    let mut actions = actions;
    for _ in 0..MOVES {
        if actions.is_empty() {
            break;
        }
        let run = live_run(world, dice).await;
        match (dice.roll(4), run) {
            (0, _) | (_, None) => actions.remove(0).1.await,
            (1, Some(run)) => {
                let (_, act) = actions.remove(0);
                let (turn, ()) = tokio::join!(healthy.turn(run), act);
                turn.expect("a turn");
            }
            (2, Some(run)) => {
                let at = u32::try_from(dice.roll(30)).expect("small");
                let doomed = new(Some(Arc::new(DieAt(AtomicU32::new(at))) as Arc<dyn Faults>)).await;
                doomed.turn(run).await.expect("a turn");
                doomed.die().await.expect("dead");
            }
            (_, Some(run)) => {
                healthy.turn(run).await.expect("a turn");
            }
        }
    }
    for (_, act) in actions {
        act.await;
    }
    let turns = healthy.drain(300).await.expect("drained");
    assert!(turns < 300, "the runs never end");
    healthy.die().await.expect("dead");
}

async fn live_run(world: &World, dice: &mut Dice) -> Option<Uuid> {
    let runs: Vec<Uuid> =
        sqlx::query_scalar("select id from engine.runs where status <> 'STUCK' order by workflow, created_at, id")
            .fetch_all(&world.pool)
            .await
            .expect("the live runs");
    (!runs.is_empty()).then(|| dice.pick(&runs))
}
