//! The buckets in Redis, which all API processes share: one script, so that two of them never hand out the
//! same last token. Time is the server's own.

use std::{sync::LazyLock, time::Duration};

use adapters::redis::{NoAnswer, Redis, Script};

use super::{Allowance, Bucket, Kind, RateLimits, Taken};

/// The generic cell rate algorithm: a bucket is one number, the time at which it would be full again if
/// nobody asked any more. Answers {allowed, remaining, microseconds to wait or until full}.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local interval, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
        local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + interval
        local wait = full_at - now - interval * limit
        if wait > 0 then return {0, 0, math.ceil(wait)} end
        redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
        return {1, math.floor(-wait / interval), full_at - now}
        ",
    )
});

/// Takes from a bucket.
///
/// # Errors
/// [`NoAnswer`]: this process must decide alone.
pub(super) async fn take(redis: &Redis, limits: RateLimits, bucket: Bucket, kind: Kind) -> Result<Taken, NoAnswer> {
    let limit = limits.per_minute(kind).get();
    let interval_us = 60_000_000 / u64::from(limit);
    let mut script = TAKE.prepare_invoke();
    script.key(name(bucket, kind)).arg(interval_us.max(1)).arg(limit);
    let (allowed, remaining, reset_us): (bool, u32, u64) = redis.script("rate", &script).await?;
    let allowance = Allowance { limit, remaining, reset: Duration::from_micros(reset_us) };
    Ok(if allowed { Ok(allowance) } else { Err(allowance) })
}

/// A login's bucket is another than that of the same caller's other requests.
fn name(bucket: Bucket, kind: Kind) -> String {
    let kind = match kind {
        Kind::Request => "requests",
        Kind::Login => "logins",
    };
    match bucket {
        Bucket::User(user) => format!("rate:{kind}:user:{user}"),
        Bucket::Service(service) => format!("rate:{kind}:service:{service}"),
        Bucket::Address(address) => format!("rate:{kind}:address:{address}"),
    }
}
