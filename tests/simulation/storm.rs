//! What goes wrong inside a turn: faults drawn at each point of each step, and what happens elsewhere
//! while the run talks to the gateway.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use engine::{
    Failure,
    testing::{Fault, Faults, Point},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

use super::history::Live;
use crate::gateway::Meanwhile;

/// Attempts of a step after which the engine gives up on it.
const ATTEMPTS: u32 = 8;

/// What a run has had to bear.
#[derive(Debug, Default, Clone)]
struct Borne {
    /// Steps that were made to fail for good.
    failed: u32,
    /// Steps that were made to fail, and could be tried again.
    retried: u32,
    /// Workers that died carrying it.
    died: u32,
}

struct Turn {
    seed: u64,
    /// The odds of a fault at one point.
    odds: f64,
    runs: Vec<Live>,
    /// How often each point was passed.
    passed: HashMap<(Point, String), u32>,
    /// Points it passes before it is stopped, and what happens then.
    seizure: Option<(u32, Meanwhile)>,
    struck: Vec<String>,
    has_crashed: bool,
}

impl Turn {
    /// A draw for each time that a point is passed, whatever is passed by others meanwhile.
    fn draw(&mut self, point: Point, step: &str) -> StdRng {
        let times = self.passed.entry((point, step.to_owned())).or_default();
        *times += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, point, step, *times).hash(&mut hasher);
        StdRng::seed_from_u64(hasher.finish())
    }

    /// What happens at this point, while the worker is stopped.
    fn seized(&mut self) -> Option<Meanwhile> {
        let (left, _) = self.seizure.as_mut()?;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        self.seizure.take().map(|(_, meanwhile)| meanwhile)
    }
}

/// The faults of a worker, turn by turn.
pub struct Storm {
    turn: Mutex<Turn>,
    borne: Arc<Weathered>,
}

/// What every run has had to bear, to tell what the faults explain from what they do not.
#[derive(Default)]
pub struct Weathered(Mutex<BTreeMap<Uuid, Borne>>);

impl Weathered {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Borne>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the faults explain that this run was parked, or failed for no reason of its own.
    pub fn explains(&self, run_id: Uuid) -> bool {
        self.lock().get(&run_id).is_some_and(|borne| borne.failed > 0 || borne.retried >= ATTEMPTS || borne.died >= 20)
    }
}

/// Not every step can fail for good: a message that cannot be composed, or the first line of a refund
/// (which does nothing), would be a defect of the flow and not something a shop lives through.
fn can_fail(workflow: &str, step: &str) -> bool {
    !matches!((workflow, step), ("notification" | "abandoned_cart", _) | ("refund", "BeginRefund"))
}

impl Storm {
    pub fn new(borne: &Arc<Weathered>) -> Arc<Storm> {
        let calm = Turn {
            seed: 0,
            odds: 0.0,
            runs: Vec::new(),
            passed: HashMap::new(),
            seizure: None,
            struck: Vec::new(),
            has_crashed: false,
        };
        Arc::new(Storm { turn: Mutex::new(calm), borne: Arc::clone(borne) })
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a turn: what may strike it.
    pub fn brew(&self, seed: u64, odds: f64, runs: &[Live], seizure: Option<(u32, Meanwhile)>) {
        *self.turn() = Turn {
            seed,
            odds,
            runs: runs.to_vec(),
            passed: HashMap::new(),
            seizure,
            struck: Vec::new(),
            has_crashed: false,
        };
    }

    /// After a turn: what has struck, and whether its worker is dead.
    pub fn passed(&self) -> (Vec<String>, bool) {
        let turn = self.turn();
        (turn.struck.clone(), turn.has_crashed)
    }
}

impl Faults for Storm {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        if point == Point::Replay {
            return None;
        }
        let seized = self.turn().seized();
        if let Some(meanwhile) = seized {
            self.turn().struck.push(format!("{point:?} {step}: is stopped"));
            // A task of its own has a stack of its own: two turns do not fit on one.
            block_on(async { tokio::spawn(meanwhile()).await.expect("no panic") });
        }
        let mut turn = self.turn();
        if turn.has_crashed {
            // With the process, everything dies that it carries.
            return Some(Fault::Crash);
        }
        let mut rng = turn.draw(point, step);
        if turn.odds == 0.0 || !rng.random_bool(turn.odds) {
            return None;
        }
        let draw = rng.random_range(0..10);
        let (name, fault) = match (point, draw) {
            (Point::Before, 0..3) => ("carried out twice", Fault::Twice),
            (Point::Before, 3..6) => ("fails", Fault::Retry),
            (Point::Before, 6) if turn.runs.iter().all(|run| can_fail(&run.workflow, step)) => {
                ("fails for good", Fault::Fail(Failure::new("injected", "a simulated failure")))
            }
            (Point::Before | Point::After | Point::BeforeCommit | Point::AfterCommit, _) => {
                turn.has_crashed = true;
                ("its worker dies", Fault::Crash)
            }
            (Point::Replay, _) => return None,
        };
        let mut borne = self.borne.lock();
        for run in &turn.runs {
            let borne = borne.entry(run.id).or_default();
            match &fault {
                Fault::Crash => borne.died += 1,
                Fault::Fail(_) => borne.failed += 1,
                Fault::Retry => borne.retried += 1,
                Fault::Twice | Fault::Unreadable | Fault::Panic => {}
            }
        }
        turn.struck.push(format!("{point:?} {step}: {name}"));
        Some(fault)
    }
}

/// Waits on a thread of its own accord: to the one who asks for a fault, all this is one moment.
pub fn block_on(meanwhile: impl Future<Output = ()>) {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(meanwhile));
}
