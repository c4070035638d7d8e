//! The holds on stock, mirrored in Redis under `reservation:{orderId}`, or another service's reservation id, for as long as they last.

use std::sync::LazyLock;

use async_trait::async_trait;
use domain::ports::{HoldMirror, MirrorAway, MirroredHold};

use crate::redis::{NoAnswer, Redis, Script, cmd};

/// Where the mirror's own place in the feed of events is kept: a Redis that loses its memory loses both,
/// and is told everything anew.
const POSITION: &str = "reservations:position";

/// Only who goes on from the present position may write, so that of two followers one is heard.
static FOLLOW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if (redis.call('get', KEYS[1]) or '') ~= ARGV[1] then
            return 0
        end
        for i = 2, #KEYS do
            local remaining, body = tonumber(ARGV[2 * i - 1]), ARGV[2 * i]
            if remaining > 0 then
                redis.call('set', KEYS[i], body, 'ex', remaining)
            else
                redis.call('del', KEYS[i])
            end
        end
        redis.call('set', KEYS[1], ARGV[2])
        return 1",
    )
});

/// A mirror in a Redis.
#[derive(Debug, Clone)]
pub struct RedisHolds(Redis);

impl RedisHolds {
    /// A mirror in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        RedisHolds(redis)
    }
}

#[async_trait]
impl HoldMirror for RedisHolds {
    async fn position(&self) -> Result<Option<String>, MirrorAway> {
        self.0.command("hold-position", cmd("GET").arg(POSITION)).await.map_err(away)
    }

    async fn follow(&self, from: Option<&str>, to: &str, holds: &[MirroredHold]) -> Result<(), MirrorAway> {
        let mut script = FOLLOW.key(POSITION);
        script.arg(from.unwrap_or_default()).arg(to);
        for MirroredHold { holder, body, remaining_s } in holds {
            let remaining_s = if body.is_some() { *remaining_s } else { 0 };
            script.key(format!("reservation:{holder}")).arg(remaining_s).arg(body.as_deref().unwrap_or_default());
        }
        let _: i64 = self.0.script("hold-follow", &script).await.map_err(away)?;
        Ok(())
    }
}

fn away(_: NoAnswer) -> MirrorAway {
    MirrorAway
}
