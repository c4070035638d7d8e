//! How often one caller may ask: a leaky bucket per user, or per address for whoever is not logged in.
//!
//! The buckets live in this process: N processes behind a balancer allow N times as much.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::Utc;
use domain::ids::UserId;
use governor::{
    Quota, RateLimiter, clock::Clock, clock::DefaultClock, middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use crate::{caller::bearer_user, error::ApiError, state::AppState};

/// Buckets that are full again are forgotten every so many requests, so that their number is bounded by
/// who asked lately.
const SWEEP_EVERY: u64 = 10_000;

/// How often one caller may ask. A whole minute's worth may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests of any kind.
    pub requests_per_minute: NonZeroU32,
    /// Registrations, logins and refreshes from one address: who guesses passwords gets few guesses.
    pub logins_per_minute: NonZeroU32,
}

impl RateLimits {
    /// For development, where one machine plays all shoppers: 1,000 of anything a second.
    pub const WIDE: RateLimits = RateLimits {
        requests_per_minute: NonZeroU32::new(60_000).unwrap(),
        logins_per_minute: NonZeroU32::new(60_000).unwrap(),
    };
}

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits {
            requests_per_minute: const { NonZeroU32::new(1200).unwrap() },
            logins_per_minute: const { NonZeroU32::new(30).unwrap() },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bucket {
    User(UserId),
    Address(IpAddr),
}

type Keyed = RateLimiter<Bucket, DashMapStateStore<Bucket>, DefaultClock, StateInformationMiddleware>;

/// The buckets of one process.
pub(crate) struct Buckets {
    requests: Keyed,
    logins: Keyed,
    asked: AtomicU64,
}

/// What a limit leaves, for the `RateLimit-…` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allowance {
    limit: u32,
    remaining: u32,
    /// Until the next request is allowed, or, when one is allowed now, until the bucket is full again.
    reset: Duration,
}

impl Buckets {
    pub(crate) fn new(limits: RateLimits) -> Self {
        let keyed = |per_minute| {
            RateLimiter::dashmap(Quota::per_minute(per_minute)).with_middleware::<StateInformationMiddleware>()
        };
        Buckets {
            requests: keyed(limits.requests_per_minute),
            logins: keyed(limits.logins_per_minute),
            asked: AtomicU64::new(0),
        }
    }

    /// Takes from the caller's bucket; an error when it is empty.
    fn take(&self, bucket: Bucket, is_login: bool) -> Result<Allowance, Allowance> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.requests.retain_recent();
            self.logins.retain_recent();
        }
        let keyed = if is_login { &self.logins } else { &self.requests };
        match keyed.check_key(&bucket) {
            Ok(left) => {
                let quota = left.quota();
                let (limit, remaining) = (quota.burst_size().get(), left.remaining_burst_capacity());
                let reset = quota.replenish_interval() * limit.saturating_sub(remaining);
                Ok(Allowance { limit, remaining, reset })
            }
            Err(not_until) => Err(Allowance {
                limit: not_until.quota().burst_size().get(),
                remaining: 0,
                reset: not_until.wait_time_from(DefaultClock::default().now()),
            }),
        }
    }
}

impl Allowance {
    /// Never 0 while there is something to wait for.
    fn reset_s(self) -> u64 {
        self.reset.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    }

    fn tell(self, headers: &mut HeaderMap) {
        for (name, value) in [
            ("ratelimit-limit", u64::from(self.limit)),
            ("ratelimit-remaining", u64::from(self.remaining)),
            ("ratelimit-reset", self.reset_s()),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
}

/// Refuses who asks too often with 429 `rate-limited` and `Retry-After`, and tells everybody else what is
/// left. Webhooks pass: gateways come from few addresses, and what they say must arrive.
pub(crate) async fn limit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let Some(buckets) = state.buckets.as_deref().filter(|_| !path.starts_with("/api/webhooks/")) else {
        return next.run(request).await;
    };
    let is_login = path.starts_with("/api/auth/");
    let address = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
    let bucket = match bearer_user(request.headers(), &state.auth, Utc::now()) {
        Some((user, _)) if !is_login => Bucket::User(user),
        Some(_) | None => Bucket::Address(address),
    };
    let (mut response, allowance) = match buckets.take(bucket, is_login) {
        Ok(allowance) => (next.run(request).await, allowance),
        Err(allowance) => (ApiError::rate_limited(allowance.reset_s()).into_response(), allowance),
    };
    allowance.tell(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(requests: u32, logins: u32) -> Buckets {
        let per_minute = |n| NonZeroU32::new(n).expect("not zero");
        Buckets::new(RateLimits { requests_per_minute: per_minute(requests), logins_per_minute: per_minute(logins) })
    }

    const SOMEBODY: Bucket = Bucket::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));

    #[test]
    fn a_bucket_is_emptied_and_says_when_to_come_again() {
        let buckets = buckets(2, 1);
        assert_eq!(buckets.take(SOMEBODY, false).map(|left| left.remaining), Ok(1));
        assert_eq!(buckets.take(SOMEBODY, false).map(|left| left.remaining), Ok(0));
        let refused = buckets.take(SOMEBODY, false).expect_err("empty");
        assert!((1..=30).contains(&refused.reset_s()), "{refused:?}");
    }

    #[test]
    fn logins_and_other_callers_have_buckets_of_their_own() {
        let buckets = buckets(1, 1);
        assert!(buckets.take(SOMEBODY, false).is_ok());
        assert!(buckets.take(SOMEBODY, true).is_ok());
        assert!(buckets.take(Bucket::User(UserId::generate()), false).is_ok());
        assert!(buckets.take(SOMEBODY, true).is_err());
    }
}
