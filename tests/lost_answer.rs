//! Postgres commits a claim, and the answer is lost on the way: nobody knows that the run is in the
//! hands of a worker who is alive.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use engine::testing::TestWorker;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

use crate::{patience::in_time, world::World};

/// How Postgres ends the answer to a statement with one row.
const ONE_ROW: &[u8] = b"SELECT 1\0";

/// Hands everything on between a client and Postgres, until it is told to swallow an answer.
async fn hand_on(client: TcpStream, server: UnixStream, swallow: Arc<AtomicBool>) -> std::io::Result<()> {
    let ((mut asks, mut hears), (mut answers, mut listens)) = (client.into_split(), server.into_split());
    let asking = tokio::spawn(async move { tokio::io::copy(&mut asks, &mut listens).await });
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = answers.read(&mut chunk).await?;
        let has_row = chunk[..length].windows(ONE_ROW.len()).any(|bytes| bytes == ONE_ROW);
        if length == 0 || (has_row && swallow.swap(false, Ordering::SeqCst)) {
            asking.abort();
            return Ok(());
        }
        hears.write_all(&chunk[..length]).await?;
    }
}

/// The same database, reached over a line that can lose an answer.
async fn over_a_bad_line(options: &PgConnectOptions, swallow: &Arc<AtomicBool>) -> PgConnectOptions {
    let socket = options.get_socket().expect("a socket").join(format!(".s.PGSQL.{}", options.get_port()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let swallow = Arc::clone(swallow);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&socket).await.expect("Postgres");
            tokio::spawn(hand_on(client, server, Arc::clone(&swallow)));
        }
    });
    let database = options.get_database().expect("a database");
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(options.get_username())
        .database(database)
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
}

#[tokio::test]
async fn a_run_whose_claim_was_never_answered_is_given_back_by_the_worker_that_claimed_it() {
    let world = World::new().await;
    let swallow = Arc::new(AtomicBool::new(false));
    let line = over_a_bad_line(&world.pool.connect_options(), &swallow).await;
    let pool = PgPoolOptions::new().connect_with(line).await.expect("a pool");
    let worker = TestWorker::new(&pool, workflows::registry(&world.shop), true, None).await.expect("a worker");
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");

    swallow.store(true, Ordering::SeqCst);
    worker.turn(accepted.workflow_id).await.expect_err("the answer is lost");
    assert!(!swallow.load(Ordering::SeqCst), "the line lost nothing");

    // The worker is alive and goes on: it alone can know that it does not have the run.
    let confirmed = async {
        while world.order_status(accepted.order_id.into()).await.as_deref() != Some("CONFIRMED") {
            worker.turn(accepted.workflow_id).await.expect("a turn");
            tokio::task::yield_now().await;
        }
    };
    in_time("somebody may take the run", confirmed).await;
    worker.drain(20).await.expect("drained");
    let claims: i32 = sqlx::query_scalar("select epoch from engine.finished_runs where id = $1")
        .bind(accepted.workflow_id)
        .fetch_one(&world.pool)
        .await
        .expect("an ended run");
    assert_eq!(claims, 2, "the claim that nobody heard of counts: it was committed");
    world.assert_books("after a lost answer").await;
}
