//! The line to Postgres goes silent: bytes are swallowed both ways, and no connection breaks. That is what
//! is left of a host that vanished.
//!
//! What is promised: while it lasts, the API says 503 within fifteen seconds, and a worker is gone within
//! half a minute; within fifteen seconds after it, runs are carried on, by the same processes or by those a
//! supervisor started anew. Nothing is lost. The times are held by the nightly run, which has the machine to
//! itself.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
};

use super::{
    child::Child,
    deployment::Deployment,
    nightly,
    shoppers::{check_out, mixed, with_full_carts},
    stage::stage,
};
use crate::patience::{counted, eventually};

/// Until the API says 503, and until runs are carried on after the silence.
const PROMISED: Duration = Duration::from_secs(15);

/// A TCP line to a Postgres' socket that can go silent.
struct Line {
    address: String,
    is_silent: Arc<AtomicBool>,
}

impl Line {
    async fn to(socket: PathBuf) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let is_silent = Arc::new(AtomicBool::new(false));
        let silent = Arc::clone(&is_silent);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = UnixStream::connect(&socket).await else { continue };
                let (near, far) = (near.into_split(), far.into_split());
                tokio::spawn(carry(near.0, far.1, Arc::clone(&silent)));
                tokio::spawn(carry(far.0, near.1, Arc::clone(&silent)));
            }
        });
        Line { address, is_silent }
    }

    fn go_silent(&self) -> Instant {
        self.is_silent.store(true, Ordering::SeqCst);
        Instant::now()
    }

    fn speak(&self) -> Instant {
        self.is_silent.store(false, Ordering::SeqCst);
        Instant::now()
    }
}

/// Swallows what comes while the line is silent, a farewell too: then the other side never hears of it.
async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, silent: Arc<AtomicBool>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or_default();
        if silent.load(Ordering::SeqCst) {
            if read == 0 {
                std::future::pending::<()>().await;
            }
            continue;
        }
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

impl Deployment {
    async fn ended(&self) -> i64 {
        sqlx::query_scalar("select count(*) from engine.finished_runs").fetch_one(&self.pool).await.expect("a count")
    }

    /// The latest tick of the schedule that fires every half minute.
    async fn ticks(&self) -> i64 {
        sqlx::query_scalar(
            "select extract(epoch from last_tick)::bigint from engine.schedules where name = 'reservation_expiry'",
        )
        .fetch_one(&self.pool)
        .await
        .expect("a schedule")
    }

    /// Waits until runs end again, and says how long that took since `begun`.
    async fn at_work_again(&self, begun: Instant) -> Duration {
        let before = self.ended().await;
        eventually("runs end again", async || self.ended().await > before).await;
        begun.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_stops_nobody_for_long_and_nothing_is_lost() {
    let (count, silence) = if nightly() { (1_000, 60) } else { (300, 20) };
    let stage = stage().await;
    let (pool, direct) = stage.database().await;
    let options = pool.connect_options();
    let socket = options.get_socket().expect("a cluster behind a socket");
    let line = Line::to(socket.join(format!(".s.PGSQL.{}", options.get_port()))).await;
    let name = options.get_database().expect("a name");
    let url = format!("postgres://{}@{}/{name}", options.get_username(), line.address);
    let deployment = Deployment::open_on(pool, url, &direct).await;
    let mut worker = deployment.worker().await;
    let scheduler = Child::start(&["scheduler"], &[("DATABASE_URL", &*deployment.database_url)]);
    scheduler.says("the scheduler is ready").await;

    let shoppers = with_full_carts(&deployment.pool, count).await;
    let acknowledged = AtomicUsize::new(0);
    let reaches = async |share: usize| {
        counted("the load goes on", &acknowledged, share).await;
    };
    let mut scheduler_ticks: Option<Duration> = None;
    let troubles = async {
        // A short one: everybody outlives it.
        reaches(count / 6).await;
        line.go_silent();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let took = deployment.at_work_again(line.speak()).await;
        println!("five seconds of silence: at work again {took:?} after it");
        assert!(!nightly() || took < PROMISED, "at work again {took:?} after a short silence");
        assert!(worker.process.lives(), "a worker did not outlive it: {}", worker.process.heard());

        // A long one: the API says so, and the worker makes room for a new one.
        reaches(count / 2).await;
        let begun = line.go_silent();
        let asking = async {
            let (mut slowest, mut refused) = (Duration::ZERO, 0);
            while begun.elapsed() < Duration::from_secs(silence) {
                let asked = Instant::now();
                let answer = deployment.client.get(format!("{}/api/products", deployment.api_url)).send().await;
                let answer = answer.expect("an answer");
                slowest = slowest.max(asked.elapsed());
                // What was asked a moment before may still have been answered.
                if answer.status() != StatusCode::OK {
                    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
                    assert!(answer.headers().contains_key("retry-after"));
                    refused += 1;
                }
            }
            (slowest, refused)
        };
        // All this while the line is silent: nobody waits for the end of it.
        let ((slowest, refused), ended) = tokio::join!(asking, worker.process.ended());
        println!("a silence of {silence} s: the slowest answer took {slowest:?}");
        assert!(refused > 0, "the API said nothing of it");
        assert!(!nightly() || slowest < PROMISED, "an answer took {slowest:?}");
        assert_eq!(ended.code(), Some(3), "{}", worker.process.heard());
        assert!(worker.process.heard().contains("has not answered for"), "{}", worker.process.heard());
        let begun = line.speak();
        worker = deployment.worker().await;
        let took = deployment.at_work_again(begun).await;
        println!("at work again {took:?} after it");
        assert!(!nightly() || took < PROMISED, "at work again {took:?} after a long silence");
        // The scheduler's next half minute.
        let before = deployment.ticks().await;
        let ticks = async || deployment.ticks().await > before;
        eventually("the scheduler goes on", ticks).await;
        scheduler_ticks = Some(begun.elapsed());
    };
    let (workflows, ()) = tokio::join!(check_out(&deployment, &shoppers, mixed, &acknowledged), troubles);
    println!("the scheduler fired again {scheduler_ticks:?} after it");
    deployment.all_ended().await;

    let kept: i64 = sqlx::query_scalar("select count(*) from engine.finished_runs where id = any($1)")
        .bind(&workflows)
        .fetch_one(&deployment.pool)
        .await
        .expect("what has ended");
    assert_eq!(usize::try_from(kept).expect("a count"), count, "an acknowledged checkout is lost");
    deployment.assert_sound("after the silence").await;
}
