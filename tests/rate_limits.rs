//! Who asks too often is refused, at whichever API process they ask, with or without a real Redis.

use std::{num::NonZeroU32, time::Instant};

use api::{ApiConfig, RateLimits};
use futures::future::join_all;
use reqwest::Method;
use uuid::Uuid;

use crate::{
    patience::until,
    redis_server::RedisServer,
    server::{Answer, Door, Front},
    world::database,
};

/// A minute's requests: one is given back every [`REFILL_S`].
const LIMIT: u32 = 3;
const REFILL_S: u64 = 20;

/// Requests that have been given back since, on a machine that is slow.
fn given_back(begun: Instant) -> usize {
    usize::try_from(begun.elapsed().as_secs() / REFILL_S).expect("few")
}

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
    let (begun, mut left) = (Instant::now(), Vec::new());
    let refused = loop {
        let answer = ask(&front.door, "192.0.2.1").await;
        assert_eq!(answer.header("ratelimit-limit"), Some("3"));
        if answer.status != 200 {
            break answer;
        }
        left.push(answer.header("ratelimit-remaining").expect("what is left").to_owned());
    };
    assert_eq!((&*left[0], left.last().map(String::as_str)), ("2", Some("0")));
    assert!((3..=3 + given_back(begun)).contains(&left.len()), "{left:?}");
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
    for (own_addresses, status, most) in [(true, 200, 4), (false, 401, 3)] {
        let (begun, mut served) = (Instant::now(), 0);
        loop {
            let (key, from) = match own_addresses {
                true => ("good".to_owned(), format!("192.0.2.{served}")),
                false => (format!("made up {served}"), "198.51.100.9".to_owned()),
            };
            let answer = read(&key, &from).await;
            if answer == 429 {
                break;
            }
            assert_eq!(answer, status);
            served += 1;
        }
        assert!((most..=most + given_back(begun)).contains(&served), "{served} of {most}");
    }
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_buckets_in_redis_and_each_has_its_own_without() {
    let Some(mut server) = RedisServer::start("rate limits shared through Redis").await else { return };
    let pool = database().await;
    let [one, two] = [server.another_handle(), server.another_handle()];
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
            let begun = Instant::now();
            let answers = join_all(crowd.iter().map(|(door, from)| ask(door, from))).await;
            let served = answers.iter().filter(|answer| answer.status == 200).count();
            // Some may have been counted in Redis before it was too late for the others.
            let most = 3 + 2 * (3 + given_back(begun));
            assert!((3..=most).contains(&served), "{served}: no more than in Redis and at both doors apart");
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

    server.kill();
    let (from, begun) = (addresses.next().expect("another address"), Instant::now());
    for front in &fronts {
        let mut served = 0;
        for _ in 0..10 {
            match ask(&front.door, &from).await.status {
                200 => served += 1,
                status => assert_eq!(status, 429, "a dead Redis fails nobody"),
            }
        }
        assert!((3..=3 + given_back(begun)).contains(&served), "without Redis each process limits by itself: {served}");
    }
    for front in fronts {
        front.close().await;
    }
}
