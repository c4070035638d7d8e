//! The buckets of this process, for when there is no Redis or it does not answer.

use std::sync::atomic::{AtomicU64, Ordering};

use governor::{
    Quota, RateLimiter, clock::Clock, clock::DefaultClock, middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use super::{Allowance, Bucket, Kind, RateLimits, Taken};

/// Buckets that are full again are forgotten every so many requests, so that their number is bounded by
/// who asked lately.
const SWEEP_EVERY: u64 = 10_000;

type Keyed = RateLimiter<Bucket, DashMapStateStore<Bucket>, DefaultClock, StateInformationMiddleware>;

pub(super) struct OwnBuckets {
    requests: Keyed,
    logins: Keyed,
    asked: AtomicU64,
}

impl OwnBuckets {
    pub(super) fn new(limits: RateLimits) -> Self {
        let keyed = |kind: Kind| {
            let quota = Quota::per_minute(limits.per_minute(kind));
            RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>()
        };
        OwnBuckets { requests: keyed(Kind::Request), logins: keyed(Kind::Login), asked: AtomicU64::new(0) }
    }

    pub(super) fn take(&self, bucket: Bucket, kind: Kind) -> Taken {
        if self.asked.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.requests.retain_recent();
            self.logins.retain_recent();
        }
        let keyed = match kind {
            Kind::Request => &self.requests,
            Kind::Login => &self.logins,
        };
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
