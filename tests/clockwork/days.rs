//! Finished runs go a day at a time, and hold up nobody while they do.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use chrono::{TimeDelta, Utc};
use engine::{
    RunStatus,
    inspect::{self, Sought},
    retire,
};
use workflows::retention::Retention;

use super::*;

/// A day forty days ago.
const DAY_AGO: &str = "(now() at time zone 'UTC')::date - 40";

/// The runs of that day: ids are drawn as they would have been, one every sixty milliseconds. Of a thousand
/// one ended three days later and one ended a week ago; the last is parked, and lives.
async fn an_old_day(pool: &PgPool, runs: i32) {
    for sql in [
        format!("select engine.make_day({DAY_AGO})"),
        format!(
            "create table drawn as
             select n, overlay(engine.first_id(d.begun + n * interval '60 milliseconds')::text placing '7' from 15)::uuid as id,
                    d.begun + n * interval '60 milliseconds' as created_at
               from generate_series(1, {runs}) as n, (select ({DAY_AGO})::timestamp at time zone 'UTC' as begun) d"
        ),
        format!(
            "insert into engine.finished_runs
                 (id, workflow, version, run_key, queue, status, input, epoch, crashes, created_at, finished_at)
             select id, case when n % 1000 = 7 then 'return' else 'checkout' end, 1, 'old/' || n, 'checkout',
                    case when n % 100 = 9 then 'FAILED' else 'COMPLETED' end, '{{}}', 1, 0, created_at,
                    case n % 1000 when 1 then created_at + interval '3 days' when 2 then now() - interval '7 days'
                                  else created_at + interval '1 second' end
               from drawn where n < {runs}"
        ),
        format!(
            "insert into engine.runs (id, workflow, version, run_key, queue, status, input, wake_at, failure, created_at, updated_at)
             select id, 'checkout', 1, 'old/' || n, 'checkout', 'STUCK', '{{}}', 'infinity', '{{}}', created_at, created_at
               from drawn where n = {runs}"
        ),
        "insert into engine.run_keys (workflow, run_key, run_id)
         select workflow, run_key, id from engine.finished_runs where run_key like 'old/%'
         union all select workflow, run_key, id from engine.runs where run_key like 'old/%'"
            .to_owned(),
        "insert into engine.journal (run_id, seq, kind, name, epoch, recorded_at)
         select id, seq, 'TX', 'Step', 1, created_at from drawn, generate_series(0, 2) as seq"
            .to_owned(),
        "analyze engine.finished_runs, engine.journal, engine.run_keys".to_owned(),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(pool).await.expect("an old day");
    }
}

async fn number(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.expect("a number")
}

#[tokio::test]
async fn a_day_goes_whole_and_what_outlived_it_stays() {
    let world = World::with(rules()).await;
    an_old_day(&world.pool, 2_000).await;
    let done = world.tick::<Retention>().await;
    assert_eq!((&done["days"], &done["runs"]), (&1.into(), &0.into()), "{done}");
    let left = async |sql| number(&world.pool, sql).await;
    assert_eq!(
        left(
            "select count(*) from pg_class where relname ~ '^(journal|finished_runs)_[0-9]+$' and relkind = 'r'
                      and to_date(right(relname, 8), 'YYYYMMDD') < current_date"
        )
        .await,
        0,
        "the day's tables are gone"
    );
    assert_eq!(
        left("select count(*) from engine.finished_runs where run_key like 'old/%'").await,
        2,
        "those that ended a week ago"
    );
    assert_eq!(
        left("select count(distinct run_id) from engine.journal j join drawn d on d.id = j.run_id").await,
        3,
        "and the live one"
    );
    assert_eq!(
        left("select count(*) from engine.journal j join drawn d on d.id = j.run_id").await,
        9,
        "with whole journals"
    );
    // Ninety days from the end: of a fast run by its id, of a slow one by the date it was given.
    assert_eq!(left("select count(*) from engine.run_keys where run_key like 'old/%'").await, 2_000);
    assert_eq!(
        left(
            "select count(*) from engine.run_keys k join drawn d on d.id = k.run_id
                      where k.expires_at = d.created_at + interval '93 days'"
        )
        .await,
        2
    );
    assert_eq!(world.tick::<Retention>().await["days"], 0, "once");
}

/// The keys of a day that went: ninety-one days after their ids were drawn, unless they are dated or live.
#[tokio::test]
async fn keys_outlive_their_day_and_then_go() {
    let world = World::with(rules()).await;
    an_old_day(&world.pool, 1_000).await;
    world.tick::<Retention>().await;
    let mut conn = world.pool.acquire().await.expect("a connection");
    let day = Duration::from_secs(DAY);
    let mut forget = async |kept: u32| retire::forget_keys(&mut conn, 10_000, day * kept).await.expect("forgotten");
    assert_eq!(forget(41).await, 0, "kept for two days longer than the day is old");
    // All but the parked run's, that of the one that ended a week ago, and the dated one.
    assert_eq!(forget(20).await, 997);
    assert_eq!(forget(20).await, 0);
}

#[tokio::test]
async fn a_day_somebody_reads_stays_and_holds_up_nobody() {
    let world = World::with(rules()).await;
    an_old_day(&world.pool, 1_000).await;
    let mut reader = world.pool.begin().await.expect("a reader");
    sqlx::query("select count(*) from engine.finished_runs").execute(&mut *reader).await.expect("read");
    let done = world.tick::<Retention>().await;
    assert_eq!(done["days"], 0, "it is in use");
    // The retention has just written its own journal, and nobody else was kept from theirs.
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.settle().await;
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    reader.rollback().await.expect("read");
    assert_eq!(world.tick::<Retention>().await["days"], 1, "the next run takes it");
}

/// What is moved is moved under a lock: a day of which too much is left is not taken, and not tried again and
/// again, but whole.
#[tokio::test]
async fn a_day_of_which_too_much_is_left_stays_whole_without_a_lock() {
    let world = World::with(rules()).await;
    an_old_day(&world.pool, 3_000).await;
    sqlx::query("update engine.finished_runs set finished_at = now() - interval '1 day' where run_key like 'old/%'")
        .execute(&world.pool)
        .await
        .expect("they ended yesterday");
    // Whoever writes holds up a lock on the table; it is not even asked for.
    let mut writer = world.pool.begin().await.expect("a writer");
    sqlx::query("select count(*) from engine.finished_runs, engine.journal where run_id = id")
        .execute(&mut *writer)
        .await
        .expect("read");
    let came: String = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "select engine.detach_day({DAY_AGO}, now() - interval '30 days')"
    )))
    .fetch_one(&world.pool)
    .await
    .expect("an answer");
    assert_eq!(came, "TOO_MANY");
    writer.rollback().await.expect("read");
    assert_eq!(world.tick::<Retention>().await["days"], 0);
    assert_eq!(
        number(&world.pool, "select count(*) from engine.finished_runs where run_key like 'old/%'").await,
        2_999
    );
}

#[tokio::test]
async fn days_are_made_ahead_and_a_run_of_a_day_nobody_made_is_kept_with_the_rest() {
    let world = World::with(rules()).await;
    let ahead = "select count(*) from pg_inherits where inhparent = 'engine.journal'::regclass";
    assert_eq!(number(&world.pool, ahead).await, 1 + 1 + i64::from(retire::DAYS_AHEAD), "the rest, today, and ahead");
    sqlx::query(
        "insert into engine.journal (run_id, seq, kind, name, epoch, recorded_at)
                 values (engine.first_id(now() + interval '9 days'), 0, 'TX', 'Step', 1, now())",
    )
    .execute(&world.pool)
    .await
    .expect("an insert never fails");
    assert_eq!(number(&world.pool, "select count(*) from engine.journal_rest").await, 1);
    let made: bool = sqlx::query_scalar("select engine.make_day((now() at time zone 'UTC')::date + 9)")
        .fetch_one(&world.pool)
        .await
        .expect("an answer");
    assert!(!made, "its day stays with the rest");
}

/// `CART_ENGINE_NIGHTLY=1` makes it a million runs, and measures: by day the machine may be busy.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_day_goes_in_a_moment_and_is_searched_in_one() {
    let is_measured = crate::processes::nightly();
    let runs = if is_measured { 1_000_000 } else { 20_000 };
    let world = World::with(rules()).await;
    let begun = Instant::now();
    an_old_day(&world.pool, runs).await;
    println!("{runs} finished runs, {} journal entries: made in {:?}", runs * 3, begun.elapsed());

    let returns = usize::try_from(runs / 1_000).expect("some").min(50);
    for (what, sought, wanted) in [
        ("the newest", Sought::default(), 50),
        ("failed", Sought { status: Some(RunStatus::Failed), ..Sought::default() }, 50),
        ("of a rare workflow", Sought { workflow: Some("return"), ..Sought::default() }, returns),
        ("cancelled, of which there are none", Sought { status: Some(RunStatus::Cancelled), ..Sought::default() }, 0),
        ("parked", Sought { status: Some(RunStatus::Stuck), ..Sought::default() }, 1),
        ("of a window", Sought { until: Some(Utc::now() - TimeDelta::days(39)), ..Sought::default() }, 50),
        ("of a window before all", Sought { until: Some(Utc::now() - TimeDelta::days(42)), ..Sought::default() }, 0),
    ] {
        let begun = Instant::now();
        let found = inspect::search(&world.pool, sought, 50).await.expect("an answer");
        println!("inspect, {what}: {} runs in {:?}", found.len(), begun.elapsed());
        assert!(!is_measured || begun.elapsed() < Duration::from_secs(1), "{what}");
        assert_eq!(found.len(), wanted, "{what}");
        assert!(found.is_sorted_by(|newer, older| newer.id > older.id), "{what}: the newest first");
        for run in found {
            assert!(sought.status.is_none_or(|status| run.status == status), "{what}: {run:?}");
            assert!(sought.workflow.is_none_or(|workflow| run.workflow == workflow), "{what}: {run:?}");
        }
    }

    // Somebody writes all the time; the longest of their waits is how long the shop stood still.
    let is_over = AtomicBool::new(false);
    let writing = async {
        let mut longest = Duration::ZERO;
        while !is_over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            sqlx::query(
                "insert into engine.journal (run_id, seq, kind, name, epoch, recorded_at)
                         values ($1, 0, 'TX', 'Step', 1, now())",
            )
            .bind(Uuid::now_v7())
            .execute(&world.pool)
            .await
            .expect("written");
            longest = longest.max(begun.elapsed());
        }
        longest
    };
    let dropping = async {
        let mut conn = world.pool.acquire().await.expect("a connection");
        let kept_since = Utc::now() - TimeDelta::days(30);
        let days = retire::days_due(&mut conn, kept_since).await.expect("days");
        assert_eq!(days.len(), 1);
        let begun = Instant::now();
        assert!(retire::drop_day(&world.pool, days[0], kept_since).await.expect("dropped"));
        let took = begun.elapsed();
        is_over.store(true, Ordering::Relaxed);
        took
    };
    let (longest, took) = tokio::join!(writing, dropping);
    println!("dropped in {took:?}; the longest of the others' writes took {longest:?}");
    let is_a_moment = took < Duration::from_secs(10) && longest < Duration::from_secs(5);
    assert!(!is_measured || is_a_moment, "{took:?}, {longest:?}");
}
