//! Who asks too often is refused, at whichever API process he asks, with or without a real Redis.

use std::{num::NonZeroU32, process::Stdio, time::Instant};

use adapters::redis::Redis;
use api::{ApiConfig, RateLimits};
use futures::future::join_all;
use reqwest::Method;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::{
    patience::{eventually, not_run, until},
    server::{Answer, Door, Front},
    world::database,
};

/// So few that nothing is given back while a test runs: one every 20 s.
const LIMIT: u32 = 3;

fn config() -> ApiConfig {
    let limits = RateLimits {
        requests_per_minute: const { NonZeroU32::new(LIMIT).unwrap() },
        logins_per_minute: const { NonZeroU32::new(LIMIT).unwrap() },
        free_login_failures: 5,
    };
    ApiConfig { rate_limits: Some(limits), trusted_proxies: 1, ..ApiConfig::default() }
}

/// Somebody who is not logged in, behind a proxy.
async fn ask(door: &Door, from: &str) -> Answer {
    Answer::to(door.request(Method::GET, "/api/products").header("x-forwarded-for", from)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_has_a_bucket_and_is_told_what_is_left() {
    let pool = database().await;
    let front = Front::open(&pool, config(), None).await;
    for remaining in ["2", "1", "0"] {
        let answer = ask(&front.door, "192.0.2.1").await;
        assert_eq!((answer.status, answer.header("ratelimit-remaining")), (200, Some(remaining)));
        assert_eq!(answer.header("ratelimit-limit"), Some("3"));
    }
    let refused = ask(&front.door, "192.0.2.1").await;
    let wait: u64 = refused.header("retry-after").expect("when to come again").parse().expect("seconds");
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit-reset"), Some(wait.to_string().as_str()));
    refused.refused(429, "rate-limited");
    assert_eq!(ask(&front.door, "192.0.2.2").await.status, 200, "another address, another bucket");
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_limited_by_its_key_and_a_made_up_key_by_its_address() {
    let pool = database().await;
    sqlx::query("insert into api_keys (id, name, key_hash, scopes) values ($1, 'feed', $2, '{events:read}')")
        .bind(Uuid::now_v7())
        .bind(api::tokens::token_hash("good").as_slice())
        .execute(&pool)
        .await
        .expect("a key");
    let front = Front::open(&pool, config(), None).await;
    let read = async |key: &str, from: &str| {
        let request = front.door.request(Method::GET, "/api/events").header("x-api-key", key);
        Answer::to(request.header("x-forwarded-for", from)).await.status
    };
    // The first is counted for the address: nobody has looked at the key yet.
    for (from, status) in
        [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.3", 200), ("192.0.2.4", 200), ("192.0.2.5", 429)]
    {
        assert_eq!(read("good", from).await, status, "{from}");
    }
    for (key, status) in [("a", 401), ("b", 401), ("c", 401), ("d", 429)] {
        assert_eq!(read(key, "198.51.100.9").await, status, "{key}");
    }
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_buckets_in_redis_and_each_has_its_own_without() {
    let Some(mut server) = RedisServer::start().await else { return };
    let pool = database().await;
    let [one, two] = [Redis::at(&server.url).expect("a handle"), Redis::at(&server.url).expect("a handle")];
    assert!(one.is_up().await && two.is_up().await);
    let fronts =
        [Front::open(&pool, config(), Some(one.clone())).await, Front::open(&pool, config(), Some(two.clone())).await];

    // A Redis that answers too late is as good as none: on a busy machine the doors may count apart for a
    // moment, and the next address has its chance.
    let mut addresses = (1..255).map(|number| format!("192.0.2.{number}"));
    let refused = until("the doors count together", || {
        let from = addresses.next().expect("another address");
        let crowd: Vec<_> = (0..20).map(|number| (&fronts[number % 2].door, from.clone())).collect();
        async move {
            let answers = join_all(crowd.iter().map(|(door, from)| ask(door, from))).await;
            let served = answers.iter().filter(|answer| answer.status == 200).count();
            assert!((3..=6).contains(&served), "{served}: no more than at both doors apart");
            let refused = answers.into_iter().find(|answer| answer.status == 429).expect("one");
            if served == 3 { Ok(refused) } else { Err(format!("{served} were served")) }
        }
    })
    .await;
    let wait: u64 = refused.header("retry-after").expect("when to come again").parse().expect("seconds");
    assert!((1..=20).contains(&wait), "{wait}");
    until("one door counts on where the other stopped", || {
        let from = addresses.next().expect("another address");
        let doors = [&fronts[0].door, &fronts[1].door, &fronts[0].door];
        async move {
            let mut left = Vec::new();
            for door in doors {
                left.push(ask(door, &from).await.header("ratelimit-remaining").expect("what is left").to_owned());
            }
            if left == ["2", "1", "0"] { Ok(()) } else { Err(format!("{left:?} were left")) }
        }
    })
    .await;

    server.kill().await;
    let (from, begun) = (addresses.next().expect("another address"), Instant::now());
    for front in &fronts {
        let mut served = 0;
        for _ in 0..10 {
            match ask(&front.door, &from).await.status {
                200 => served += 1,
                status => assert_eq!(status, 429, "a dead Redis fails nobody"),
            }
        }
        let given_back = begun.elapsed().as_secs() / 20;
        assert!((3..=3 + given_back).contains(&served), "without Redis each process limits by itself: {served}");
    }
    for front in fronts {
        front.close().await;
    }
}

/// A Redis of this test's own, which keeps nothing.
struct RedisServer {
    process: Child,
    url: String,
}

impl RedisServer {
    /// None, and a word on stderr, where none is installed.
    async fn start() -> Option<RedisServer> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                not_run("rate limits shared through Redis", format!("there is no redis-server: {error}"));
                return None;
            }
        };
        let server = RedisServer { process, url: format!("redis://127.0.0.1:{port}") };
        eventually("Redis is up", async || Redis::at(&server.url).expect("a handle").is_up().await).await;
        Some(server)
    }

    async fn kill(&mut self) {
        self.process.kill().await.expect("killed");
    }
}
