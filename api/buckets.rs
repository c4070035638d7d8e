//! Leaky buckets: what each caller may still ask.
//!
//! With Redis all API processes share the buckets; without it, or while it does not answer, each process
//! has its own, so that N of them allow N times as much and nobody is ever unlimited.

mod own;
mod shared;

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use adapters::redis::{NoAnswer, Redis};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use domain::ids::UserId;
use uuid::Uuid;

use self::own::OwnBuckets;
use crate::tokens::token_hash;

/// Keys of other services that were found good, so many at most: each has a bucket of its own.
const KNOWN_SERVICES: usize = 10_000;

/// How often one caller may ask. A whole minute's worth may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests of any kind.
    pub requests_per_minute: NonZeroU32,
    /// Registrations, logins and refreshes from one address: who guesses passwords gets few guesses.
    pub logins_per_minute: NonZeroU32,
    /// Wrong passwords for one account that have no consequence yet; each further one makes the next
    /// guess wait.
    pub free_login_failures: u32,
}

impl RateLimits {
    /// For development, where one machine plays all shoppers: 1,000 of anything a second.
    pub const WIDE: RateLimits = RateLimits {
        requests_per_minute: NonZeroU32::new(60_000).unwrap(),
        logins_per_minute: NonZeroU32::new(60_000).unwrap(),
        free_login_failures: 100,
    };
}

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits {
            requests_per_minute: const { NonZeroU32::new(1200).unwrap() },
            logins_per_minute: const { NonZeroU32::new(30).unwrap() },
            free_login_failures: 5,
        }
    }
}

impl RateLimits {
    fn per_minute(self, kind: Kind) -> NonZeroU32 {
        match kind {
            Kind::Request => self.requests_per_minute,
            Kind::Login => self.logins_per_minute,
        }
    }
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bucket {
    User(UserId),
    Service(Uuid),
    /// An IPv6 caller has a whole /64 of addresses: it is one bucket.
    Address(IpAddr),
}

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Login,
}

/// What a limit leaves, for the `RateLimit-…` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    limit: u32,
    remaining: u32,
    /// Until the next request is allowed, or, when one is allowed now, until the bucket is full again.
    reset: Duration,
}

/// What came of taking from a bucket: an error when it is empty.
pub(crate) type Taken = Result<Allowance, Allowance>;

/// All buckets, as one process sees them.
pub(crate) struct Buckets {
    limits: RateLimits,
    own: OwnBuckets,
    /// By the key's hash. Without it, a made-up key in every request would be a fresh bucket each time.
    services: Mutex<HashMap<[u8; 32], Uuid>>,
}

impl Buckets {
    /// Full ones.
    pub(crate) fn new(limits: RateLimits) -> Self {
        Buckets { limits, own: OwnBuckets::new(limits), services: Mutex::default() }
    }

    /// From now on the service that shows this key is limited by itself, and not by its address.
    pub(crate) fn know(&self, key_hash: [u8; 32], service: Uuid) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.len() < KNOWN_SERVICES {
            services.insert(key_hash, service);
        }
    }

    /// The service whose key the request shows, once it is known.
    pub(crate) fn service(&self, headers: &HeaderMap) -> Option<Uuid> {
        let key = headers.get("x-api-key")?.to_str().ok()?;
        self.services.lock().unwrap_or_else(PoisonError::into_inner).get(&token_hash(key)).copied()
    }

    /// Takes one request from a bucket.
    pub(crate) async fn take(&self, redis: Option<&Redis>, bucket: Bucket, kind: Kind) -> Taken {
        let shared = match redis {
            Some(redis) => shared::take(redis, self.limits, bucket, kind).await,
            None => Err(NoAnswer),
        };
        shared.unwrap_or_else(|NoAnswer| self.own.take(bucket, kind))
    }
}

impl Allowance {
    /// Never 0 while there is something to wait for.
    pub(crate) fn reset_s(self) -> u64 {
        self.reset.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    }

    /// Says it in the headers of an answer.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        for (name, value) in [
            ("ratelimit-limit", u64::from(self.limit)),
            ("ratelimit-remaining", u64::from(self.remaining)),
            ("ratelimit-reset", self.reset_s()),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn buckets(requests: u32, logins: u32) -> Buckets {
        let per_minute = |n| NonZeroU32::new(n).expect("not zero");
        Buckets::new(RateLimits {
            requests_per_minute: per_minute(requests),
            logins_per_minute: per_minute(logins),
            free_login_failures: 5,
        })
    }

    const SOMEBODY: Bucket = Bucket::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));

    #[tokio::test]
    async fn a_bucket_is_emptied_and_says_when_to_come_again() {
        let buckets = buckets(2, 1);
        for remaining in [1, 0] {
            let left = buckets.take(None, SOMEBODY, Kind::Request).await.map(|left| left.remaining);
            assert_eq!(left, Ok(remaining));
        }
        let refused = buckets.take(None, SOMEBODY, Kind::Request).await.expect_err("empty");
        assert!((1..=30).contains(&refused.reset_s()), "{refused:?}");
    }

    #[tokio::test]
    async fn logins_and_other_callers_have_buckets_of_their_own() {
        let buckets = buckets(1, 1);
        assert!(buckets.take(None, SOMEBODY, Kind::Request).await.is_ok());
        assert!(buckets.take(None, SOMEBODY, Kind::Login).await.is_ok());
        assert!(buckets.take(None, Bucket::User(UserId::generate()), Kind::Request).await.is_ok());
        assert!(buckets.take(None, Bucket::Service(Uuid::now_v7()), Kind::Request).await.is_ok());
        assert!(buckets.take(None, SOMEBODY, Kind::Login).await.is_err());
    }

    #[tokio::test]
    async fn a_redis_that_is_away_limits_nobody_less() {
        let redis = Redis::at("redis://127.0.0.1:1").expect("a handle");
        let buckets = buckets(1, 1);
        assert!(buckets.take(Some(&redis), SOMEBODY, Kind::Request).await.is_ok());
        assert!(buckets.take(Some(&redis), SOMEBODY, Kind::Request).await.is_err());
    }

    #[test]
    fn a_made_up_key_is_no_bucket() {
        let (buckets, service) = (buckets(1, 1), Uuid::now_v7());
        buckets.know(token_hash("good"), service);
        let with = |key: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), HeaderValue::from_static(key))])
        };
        assert_eq!(buckets.service(&with("good")), Some(service));
        assert_eq!(buckets.service(&with("made-up")), None);
    }
}
