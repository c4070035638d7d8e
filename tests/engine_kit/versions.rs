//! A release that rolls: old and new programs side by side, and what the new one says of old journals.

use engine::inspect::{Rehearsed, rehearse};

use super::*;

/// Says one thing more with each version.
struct Greeting<const V: i32>;

impl<const V: i32> Workflow for Greeting<V> {
    const NAME: &'static str = "greeting";
    const VERSION: i32 = V;
    const QUEUE: &'static str = "greeting";
    type Input = ();
    type Output = i32;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<i32> {
        flow.tx(Count("hello")).undo(Uncount).await?;
        if V > 1 {
            flow.value("More", || V).await?;
        }
        flow.wait_for::<String>("word", Duration::from_secs(60)).await?;
        flow.tx(Count("goodbye")).undo(Uncount).await?;
        Ok(V)
    }
}

/// `greeting/v1` by somebody who changed it in place.
struct Changed;

impl Workflow for Changed {
    const NAME: &'static str = "greeting";
    const QUEUE: &'static str = "greeting";
    type Input = ();
    type Output = i32;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<i32> {
        flow.value("Before", || 1).await?;
        Greeting::<1>.run(flow, ()).await
    }
}

impl Lab {
    async fn greet<const V: i32>(&self, key: &str) -> Uuid {
        let mut tx = self.pool.begin().await.expect("a transaction");
        let start = Start::<Greeting<V>>::new(key, &()).expect("a start");
        let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
        tx.commit().await.expect("committed");
        run_id
    }

    async fn of(&self, registry: Registry) -> TestWorker {
        TestWorker::new(&self.pool, registry, true, None).await.expect("a worker")
    }

    async fn rehearsed(&self, registry: &Registry) -> Vec<Rehearsed> {
        rehearse(&self.pool, registry, Uuid::nil(), 100).await.expect("rehearsed")
    }
}

#[tokio::test]
async fn two_versions_run_side_by_side_and_each_run_keeps_its_own() {
    let lab = Lab::new().await;
    let old = lab.of(Registry::default().with(Greeting::<1>)).await;
    let both = lab.of(Registry::default().with(Greeting::<1>).with(Greeting::<2>)).await;
    let (first, second) = (lab.greet::<1>("first").await, lab.greet::<2>("second").await);
    old.turn(first).await.expect("a turn");
    both.turn(second).await.expect("a turn");
    for run_id in [first, second] {
        assert_eq!(lab.status(run_id).await, "WAITING");
        lab.send(run_id, "1", "hello").await;
    }
    both.turn(first).await.expect("a turn");
    both.turn(second).await.expect("a turn");
    for (run_id, version) in [(first, 1), (second, 2)] {
        let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
        assert_eq!((run.status.as_str(), run.version, run.output), ("COMPLETED", version, Some(version.into())));
        assert_eq!(lab.counted(run_id).await, ["goodbye", "hello"]);
    }
}

#[tokio::test]
async fn a_run_of_an_unknown_version_is_given_back_shown_and_not_lost() {
    let lab = Lab::new().await;
    let old = lab.of(Registry::default().with(Greeting::<1>)).await;
    let run_id = lab.greet::<2>("k").await;
    for _ in 0..30 {
        old.turn(run_id).await.expect("a turn");
        let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
        assert_eq!(run.status.as_str(), "RETRYING", "however often it is offered to who cannot carry it");
        assert_eq!(run.waiting_for.as_deref(), Some("a worker that knows greeting/v2"));
        assert_eq!(run.crashes, 0);
    }
    let new = lab.of(Registry::default().with(Greeting::<2>)).await;
    advance_clock(&lab.pool, Duration::from_secs(6)).await.expect("later");
    assert_eq!(sweep(&lab.pool, Duration::from_secs(8)).await.expect("swept").ticketed, 1);
    new.drain(10).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "COMPLETED");
}

#[tokio::test]
async fn a_program_says_which_live_runs_it_would_not_carry_on_and_touches_none() {
    let lab = Lab::new().await;
    let old = lab.of(Registry::default().with(Greeting::<1>).with(Greeting::<2>)).await;
    let (waiting, newer, fresh) = (lab.greet::<1>("a").await, lab.greet::<2>("b").await, lab.greet::<1>("c").await);
    old.turn(waiting).await.expect("a turn");
    old.turn(newer).await.expect("a turn");
    let state =
        "select json_agg(r order by id)::text || (select json_agg(j order by run_id, seq)::text from engine.journal j)
                        || (select json_agg(w order by id)::text from engine.workers w)
                        || (select json_agg(t order by id)::text from apalis.jobs t)
                   from engine.runs r";
    let before: String = sqlx::query_scalar(state).fetch_one(&lab.pool).await.expect("the state");
    let codes = |rehearsed: Vec<Rehearsed>| -> Vec<(Uuid, Option<String>)> {
        rehearsed.into_iter().map(|run| (run.run_id, run.failure.map(|failure| failure.code))).collect()
    };
    let code = |code: &str| Some(code.to_owned());
    for (registry, expected) in [
        (Registry::default().with(Greeting::<1>).with(Greeting::<2>), [None, None, None]),
        (Registry::default().with(Greeting::<1>), [None, code("workflow-unknown"), None]),
        (Registry::default().with(Changed).with(Greeting::<2>), [code("journal-diverged"), None, None]),
    ] {
        let found = codes(lab.rehearsed(&registry).await);
        assert_eq!(found, [waiting, newer, fresh].into_iter().zip(expected).collect::<Vec<_>>());
    }
    let after: String = sqlx::query_scalar(state).fetch_one(&lab.pool).await.expect("the state");
    assert_eq!(before, after);

    let knows = Registry::default().with(Greeting::<1>).with(Greeting::<2>);
    sqlx::query("update engine.runs set input = '\"?\"' where id = $1")
        .bind(fresh)
        .execute(&lab.pool)
        .await
        .expect("spoilt");
    sqlx::query("update engine.journal set output = '\"?\"' where run_id = $1 and kind = 'TX'")
        .bind(waiting)
        .execute(&lab.pool)
        .await
        .expect("spoilt");
    let found = codes(lab.rehearsed(&knows).await);
    assert_eq!(found, [(waiting, code("journal-unreadable")), (newer, None), (fresh, code("input-unreadable"))]);
}
