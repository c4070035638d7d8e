//! Clients that keep their connections and send one request after the other.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::future::try_join_all;
use hdrhistogram::Histogram;
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::{
    crowd::{Crowd, Visit},
    processes::Api,
};
use crate::figures::latencies;

/// When the next request is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// When the one before it was answered.
    FlatOut,
    /// When its time has come, however long the others take. Latency counts from then.
    PerSecond(u32),
    /// As flat out, but every cart is looked at once, and nothing else is done.
    OnceEach,
}

/// What is asked of the API.
pub(super) struct Load<'a> {
    pub(super) crowd: &'a Crowd,
    pub(super) api: &'a Api,
    pub(super) pace: Pace,
    /// Requests in flight, at most.
    pub(super) clients: usize,
    pub(super) time: Duration,
}

/// What came of it.
pub(crate) struct Driven {
    /// Of additions that were made, in microseconds.
    pub(crate) adds_us: Histogram<u64>,
    /// Of carts that were shown.
    pub(crate) reads_us: Histogram<u64>,
    /// 409 and 422: the shop's rules.
    pub(crate) refused: u64,
    /// Anything else, no answer included.
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<String>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

enum Outcome {
    Served,
    Refused,
    Failed(String),
}

impl Load<'_> {
    /// Asks until the time is over, or until every cart was looked at.
    ///
    /// # Errors
    /// Only what is wrong on this side.
    pub(super) async fn drive(&self) -> anyhow::Result<Driven> {
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        let clients = (0..self.clients as u64).map(|number| self.ask(number, &next, start));
        let mut sum = Driven::nothing()?;
        for driven in try_join_all(clients).await? {
            sum.add(driven)?;
        }
        sum.took = start.elapsed();
        Ok(sum)
    }

    async fn ask(&self, client: u64, next: &AtomicUsize, start: Instant) -> anyhow::Result<Driven> {
        let mut chance = self.crowd.chance(client);
        let mut driven = Driven::nothing()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let mut begun = Instant::now();
            let visit = match self.pace {
                Pace::FlatOut => self.crowd.next(&mut chance),
                Pace::PerSecond(rate) => {
                    begun = start + Duration::from_secs_f64(number as f64 / f64::from(rate));
                    tokio::time::sleep_until(begun.min(start + self.time)).await;
                    self.crowd.next(&mut chance)
                }
                Pace::OnceEach if number < self.crowd.len() => Visit { cart: number, add: None },
                Pace::OnceEach => return Ok(driven),
            };
            if begun >= start + self.time {
                return Ok(driven);
            }
            let outcome = send(&self.api.client, &self.api.url, self.crowd, &visit).await?;
            let elapsed_us = begun.elapsed().as_micros() as u64;
            match outcome {
                Outcome::Served if visit.add.is_some() => driven.adds_us.saturating_record(elapsed_us),
                Outcome::Served => driven.reads_us.saturating_record(elapsed_us),
                Outcome::Refused => driven.refused += 1,
                Outcome::Failed(why) => {
                    driven.failed += 1;
                    driven.first_failure.get_or_insert(why);
                }
            }
        }
    }
}

impl Driven {
    fn nothing() -> anyhow::Result<Driven> {
        Ok(Driven {
            adds_us: latencies()?,
            reads_us: latencies()?,
            refused: 0,
            failed: 0,
            first_failure: None,
            took: Duration::ZERO,
        })
    }

    fn add(&mut self, other: Driven) -> anyhow::Result<()> {
        self.adds_us.add(other.adds_us)?;
        self.reads_us.add(other.reads_us)?;
        self.refused += other.refused;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        Ok(())
    }
}

/// One request, and its whole answer.
async fn send(client: &Client, url: &str, crowd: &Crowd, visit: &Visit) -> anyhow::Result<Outcome> {
    let (header, value) = crowd.credential(visit.cart)?;
    let request = match &visit.add {
        Some(sku) => client.post(format!("{url}/api/cart/items")).json(&json!({ "variantId": sku, "quantity": 1 })),
        None => client.get(format!("{url}/api/cart")),
    };
    let answer = async {
        let answer = request.header(header, value).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.bytes().await?))
    };
    Ok(match answer.await {
        Ok((status, _)) if status.is_success() => Outcome::Served,
        Ok((StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY, _)) => Outcome::Refused,
        Ok((status, body)) => Outcome::Failed(format!("{status}: {}", String::from_utf8_lossy(&body))),
        Err(error) => Outcome::Failed(format!("no answer: {error:?}")),
    })
}
