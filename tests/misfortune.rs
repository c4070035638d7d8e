//! Whatever befalls a run, at whatever point of its way: a story is played once to learn the points it
//! passes, and once more for each of them. By itself or in company, it must end as if nothing had been.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use engine::{
    Failure, park,
    testing::{BadMemory, Everything, Fault, Faults, Point, Recorder, TestWorker},
};
use uuid::Uuid;

use crate::world::World;

/// How something begins, what others do meanwhile, and how it must have ended.
pub trait Story: fmt::Debug {
    /// One that has begun.
    type Begun;

    /// Where it happens.
    async fn world(&self) -> World {
        World::new().await
    }

    /// So many, ready for their first turns.
    async fn begin(&self, world: &World, many: usize) -> Vec<Self::Begun>;

    /// What others do between two rounds of turns.
    async fn meanwhile(&self, _: &World, _: &[Self::Begun]) {}

    /// What comes when all of them have ended.
    async fn afterwards(&self, _: &World) {}

    /// Fails unless each of them is whole, however it ended; answers which ended as it should. The books
    /// have been looked at.
    async fn judge(&self, world: &World, begun: &[Self::Begun], when: &str) -> Vec<bool>;

    /// Whether a step may fail for good, and the story is to be judged all the same. Most do not end as they
    /// should without their e-mail.
    fn may_fail(&self, step: &str) -> bool {
        !matches!(step, "ComposeMessage" | "SendEmail" | "SettleMessage")
    }
}

/// How runs travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Fused,
    StepByStep,
    Together(usize),
}

pub const ALONE: [Way; 2] = [Way::Fused, Way::StepByStep];

/// Rounds in which any story ends when nothing befalls it, undos and children included.
const ROUNDS: usize = 60;

impl Way {
    fn many(self) -> usize {
        match self {
            Way::Fused | Way::StepByStep => 1,
            Way::Together(many) => many,
        }
    }

    /// Points at which one and the same play is struck: of many runs most are spared all the same.
    fn strikes(self) -> usize {
        (self.many() / 2).clamp(1, 16)
    }

    /// Whether a point may be passed in one play, and not in the next.
    fn may_miss(self, point: Point) -> bool {
        matches!(self, Way::Together(_)) && matches!(point, Point::BeforeCommit | Point::AfterCommit)
    }

    async fn worker(self, world: &World, faults: Option<Arc<dyn Faults>>) -> TestWorker {
        match self {
            Way::Fused | Way::StepByStep => world.worker(self == Way::Fused, faults).await,
            Way::Together(many) => world.worker_of(many, faults).await,
        }
    }

    async fn round(self, worker: &TestWorker) -> usize {
        let given = match self {
            Way::Fused | Way::StepByStep => worker.drain(1).await,
            Way::Together(_) => worker.drain_together(1).await,
        };
        given.expect("a round")
    }
}

/// A worker on which a turn has died keeps its run until it is struck off.
async fn everything_is_held(world: &World) -> bool {
    sqlx::query_scalar("select not exists (select from engine.runs where status <> 'STUCK' and owner is null)")
        .fetch_one(&world.pool)
        .await
        .expect("an answer")
}

/// Plays a story with faults on the first worker; when that is dead, a healthy one takes over, and what was
/// parked by a fault goes on.
pub async fn play<S: Story>(
    story: &S,
    world: &World,
    way: Way,
    faults: Option<Arc<dyn Faults>>,
    when: &str,
) -> Vec<S::Begun> {
    let begun = story.begin(world, way.many()).await;
    let first = way.worker(world, faults).await;
    for _ in 0..ROUNDS {
        let given = way.round(&first).await;
        story.meanwhile(world, &begun).await;
        if given == 0 || everything_is_held(world).await {
            break;
        }
    }
    first.die().await.expect("dead");
    let second = way.worker(world, None).await;
    for round in 0.. {
        assert!(round < 200, "{when}: these never end: {:#?}", left(world).await);
        if way.round(&second).await == 0 && unpark(world).await == 0 {
            break;
        }
        story.meanwhile(world, &begun).await;
    }
    second.die().await.expect("gone");
    story.afterwards(world).await;
    begun
}

async fn left(world: &World) -> Vec<String> {
    let left = sqlx::query_scalar("select (to_jsonb(r) - 'input')::text from engine.runs r");
    left.fetch_all(&world.pool).await.expect("runs")
}

/// Lets go on what a fault has parked; answers how many.
async fn unpark(world: &World) -> usize {
    let parked: Vec<Uuid> = sqlx::query_scalar(
        "select id from engine.runs where status = 'STUCK' and failure::text like '%\"injected\"%' order by id",
    )
    .fetch_all(&world.pool)
    .await
    .expect("what is parked");
    for run_id in &parked {
        let mut tx = world.pool.begin().await.expect("a transaction");
        park::unpark(&mut tx, *run_id, "an operator", "mended").await.expect("unparked");
        tx.commit().await.expect("committed");
    }
    parked.len()
}

/// Of those that began, how many did not end as they should.
pub async fn astray<S: Story>(story: &S, world: &World, begun: &[S::Begun], when: &str) -> usize {
    world.assert_books(when).await;
    let judged = story.judge(world, begun, when).await;
    assert_eq!(judged.len(), begun.len(), "{when}: judged");
    judged.into_iter().filter(|is_as_planned| !is_as_planned).count()
}

/// The points that a story passes when nothing befalls it.
pub async fn points<S: Story>(story: &S, world: &World, way: Way) -> Vec<(Point, String)> {
    let (recorder, when) = (Arc::new(Recorder::default()), format!("{story:?}, {way:?}, without faults"));
    let begun = play(story, world, way, Some(Arc::clone(&recorder) as _), &when).await;
    assert_eq!(astray(story, world, &begun, &when).await, 0, "{when}: some end otherwise");
    recorder.points()
}

/// What befalls runs at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfortune {
    /// The worker dies.
    Death,
    /// The step fails, and may be tried again.
    Passing,
    /// The step fails for good.
    ForGood,
}

impl Misfortune {
    fn at<S: Story>(self, story: &S, point: Point, step: &str) -> Option<Fault> {
        match self {
            Misfortune::Death => Some(Fault::Crash),
            Misfortune::Passing => (point == Point::Before).then_some(Fault::Retry),
            Misfortune::ForGood => (point == Point::Before && story.may_fail(step)).then(for_good),
        }
    }
}

pub fn for_good() -> Fault {
    Fault::Fail(Failure::new("injected", "a test"))
}

/// One step fails for good, every time.
pub struct Always(pub &'static str);

impl Faults for Always {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        (point == Point::Before && step == self.0).then(for_good)
    }
}

/// One fault at each of these points, the first time it is passed.
struct Strikes(Mutex<Vec<(Point, String, Fault)>>);

impl Strikes {
    fn left(&self) -> Vec<(Point, String, Fault)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Faults for Strikes {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = left.iter().position(|(at, name, _)| (*at, name.as_str()) == (point, step))?;
        Some(left.swap_remove(here).2)
    }
}

/// Attempts that failed, and workers that died with a run, of all runs ever.
#[derive(Debug, sqlx::FromRow)]
struct Counted {
    attempts: i64,
    crashes: i64,
}

impl Counted {
    async fn now(world: &World) -> Counted {
        sqlx::query_as(
            "select (select count(*) from engine.journal where kind = 'ATTEMPT') as attempts,
                    (select coalesce(sum(crashes), 0) from (
                        select crashes from engine.runs union all select crashes from engine.finished_runs) r) as crashes",
        )
        .fetch_one(&world.pool)
        .await
        .expect("counts")
    }

    /// Who was spared has had no failed attempt, and no worker of theirs has died.
    async fn assert_others_spared(self, world: &World, misfortune: Misfortune, strikes: usize, when: &str) {
        let (most, now) = (i64::try_from(strikes).expect("few"), Counted::now(world).await);
        let (attempts, crashes) = match misfortune {
            Misfortune::Death => (0, most),
            // Behind a point of no return that is not committed yet, a failure for good is one more attempt.
            Misfortune::Passing | Misfortune::ForGood => (most, 0),
        };
        assert!(now.attempts - self.attempts <= attempts, "{when}: {self:?}, then {now:?}");
        assert!(now.crashes - self.crashes <= crashes, "{when}: {self:?}, then {now:?}");
    }
}

/// One row a point: the whole table.
pub async fn every_point<S: Story>(story: &S, way: Way, misfortune: Misfortune) {
    let world = story.world().await;
    let mut rows: VecDeque<(Point, String, Fault)> = points(story, &world, way)
        .await
        .into_iter()
        .filter_map(|(point, step)| misfortune.at(story, point, &step).map(|fault| (point, step, fault)))
        .collect();
    assert!(!rows.is_empty(), "{story:?}: no point was tried");
    let (all, mut missed) = (rows.len(), 0);
    while !rows.is_empty() {
        let tried: Vec<_> = rows.drain(..way.strikes().min(rows.len())).collect();
        let (when, many) = (format!("{story:?}, {way:?}, {tried:?}"), tried.len());
        let (counted, strikes) = (Counted::now(&world).await, Arc::new(Strikes(Mutex::new(tried))));
        let begun = play(story, &world, way, Some(Arc::clone(&strikes) as _), &when).await;
        let astray = astray(story, &world, &begun, &when).await;
        let most = if misfortune == Misfortune::ForGood { many } else { 0 };
        assert!(astray <= most, "{when}: {astray} did not end as they should");
        if let Way::Together(_) = way {
            counted.assert_others_spared(&world, misfortune, many, &when).await;
        }
        // Who has died passes no more points: they are struck in a later play.
        let left = strikes.left();
        if left.len() < many {
            rows.extend(left);
            continue;
        }
        // Which step is the last of a commit depends on who happens to travel together.
        assert!(left.iter().all(|(point, ..)| way.may_miss(*point)), "{when}: never struck");
        missed += left.len();
    }
    assert!(missed * 4 <= all, "{story:?}, {way:?}, {misfortune:?}: {missed} of {all} were never struck");
}

/// Every step, call and undo is carried out twice.
pub async fn everything_twice<S: Story>(story: &S, way: Way) {
    let (world, when) = (story.world().await, format!("{story:?}, {way:?}, everything twice"));
    let begun = play(story, &world, way, Some(Arc::new(Everything)), &when).await;
    assert_eq!(astray(story, &world, &begun, &when).await, 0, "{when}: it ended otherwise");
}

/// Plays a story with workers that die after each commit and can read nothing again at first.
pub async fn play_with_a_bad_memory<S: Story>(story: &S, world: &World, fusion: bool, fault: Fault) -> Vec<S::Begun> {
    let begun = story.begin(world, 1).await;
    let (memory, registry) = (BadMemory::new(fault), workflows::registry(&world.shop));
    for _ in 0..1_000 {
        if !memory.turn(&world.pool, &registry, fusion).await.expect("a turn") {
            return begun;
        }
        story.meanwhile(world, &begun).await;
    }
    panic!("{story:?}: not ended after 1,000 turns");
}

/// Nothing can be read again at first, neither entries nor inputs.
pub async fn bad_memory<S: Story>(story: &S, way: Way) {
    for fault in [Fault::Unreadable, Fault::Panic] {
        let (world, when) = (story.world().await, format!("{story:?}, {way:?}, every entry: {fault:?}"));
        let begun = play_with_a_bad_memory(story, &world, way == Way::Fused, fault).await;
        assert_eq!(astray(story, &world, &begun, &when).await, 0, "{when}: it ended otherwise");
    }
}

/// Everything that can befall each of these stories by itself.
macro_rules! alone {
    ($($name:ident: $story:expr),+ $(,)?) => {$(
        mod $name {
            use super::*;
            use crate::misfortune::{ALONE, Misfortune, bad_memory, every_point, everything_twice};

            #[tokio::test]
            async fn survives_a_crash_before_and_after_every_step_and_every_commit() {
                for way in ALONE {
                    every_point(&$story, way, Misfortune::Death).await;
                }
            }

            #[tokio::test]
            async fn survives_a_passing_failure_of_every_step() {
                for way in ALONE {
                    every_point(&$story, way, Misfortune::Passing).await;
                }
            }

            #[tokio::test]
            async fn is_the_same_when_every_step_runs_twice() {
                for way in ALONE {
                    everything_twice(&$story, way).await;
                }
            }

            #[tokio::test]
            async fn parks_over_whatever_it_cannot_read_and_ends_the_same_once_it_can() {
                for way in ALONE {
                    bad_memory(&$story, way).await;
                }
            }
        }
    )+};
}
pub(crate) use alone;

/// What befalls one of so many that travel together.
macro_rules! together {
    ($($name:ident: $many:literal of $story:expr),+ $(,)?) => {$(
        mod $name {
            use super::*;
            use crate::misfortune::{Misfortune, Way, every_point, everything_twice};

            #[tokio::test(flavor = "multi_thread")]
            async fn survive_the_death_of_one_at_every_step_and_commit() {
                every_point(&$story, Way::Together($many), Misfortune::Death).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn survive_a_passing_failure_of_one_at_every_step() {
                every_point(&$story, Way::Together($many), Misfortune::Passing).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn survive_that_one_fails_for_good_at_every_step() {
                every_point(&$story, Way::Together($many), Misfortune::ForGood).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn are_the_same_when_every_step_runs_twice() {
                everything_twice(&$story, Way::Together($many)).await;
            }
        }
    )+};
}
pub(crate) use together;
