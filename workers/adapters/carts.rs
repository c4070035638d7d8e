//! Copies of carts, in Redis for all processes together, or in this process' own memory.

use std::{sync::LazyLock, time::Duration};

use async_trait::async_trait;
use domain::{
    ids::CartId,
    ports::{CartCopies, CartCopy},
};
use moka::{
    ops::compute::Op,
    sync::{Cache, CacheBuilder},
};

use crate::redis::{Redis, Script};

/// How long a copy is kept after its cart was last changed or read anew (seed: Cart Service, Redis TTL).
const TTL: Duration = Duration::from_secs(24 * 3600);

/// Memory for the copies of one process without Redis, in bytes.
const MEMORY: u64 = 32 * 1024 * 1024;
/// What a copy weighs beside its body, so that the number of small ones is bounded too: to 32,768.
const OVERHEAD: u32 = 1024;

/// Keeps a copy unless the one kept is newer: a write that was under way for long never wins. One script,
/// so that nobody comes in between.
static KEEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local kept = redis.call('hmget', KEYS[1], 'version', 'catalogue')
        local version, catalogue = tonumber(kept[1] or 0), tonumber(kept[2] or 0)
        if version > tonumber(ARGV[1]) or (version == tonumber(ARGV[1]) and catalogue > tonumber(ARGV[2])) then
            return 0
        end
        redis.call('hset', KEYS[1], 'version', ARGV[1], 'catalogue', ARGV[2], 'body', ARGV[3])
        redis.call('expire', KEYS[1], ARGV[4])
        return 1",
    )
});

/// Copies under `cart:{id}` in a Redis.
#[derive(Debug, Clone)]
pub struct RedisCarts(Redis);

impl RedisCarts {
    /// Copies in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        RedisCarts(redis)
    }
}

#[async_trait]
impl CartCopies for RedisCarts {
    async fn get(&self, cart_id: CartId) -> Option<CartCopy> {
        let mut command = redis::cmd("HMGET");
        command.arg(key(cart_id)).arg(&["version", "catalogue", "body"]);
        let (version, catalogue, body): (Option<i64>, Option<i64>, Option<Vec<u8>>) =
            self.0.command("cart-get", &command).await.ok()?;
        Some(CartCopy { version: version?, catalogue: catalogue?, body: body? })
    }

    async fn put(&self, cart_id: CartId, copy: CartCopy) {
        let CartCopy { version, catalogue, body } = copy;
        let mut script = KEEP.key(key(cart_id));
        script.arg(version).arg(catalogue).arg(body).arg(TTL.as_secs());
        // Without an answer there is an older copy, or none: either is found out by its reader.
        let _: Result<i64, _> = self.0.script("cart-put", &script).await;
    }
}

fn key(cart_id: CartId) -> String {
    format!("cart:{cart_id}")
}

/// Copies in this process' memory, the least used forgotten first.
#[derive(Debug, Clone)]
pub struct LocalCarts(Cache<CartId, CartCopy>);

impl Default for LocalCarts {
    fn default() -> Self {
        let weigh =
            |_: &CartId, copy: &CartCopy| u32::try_from(copy.body.len()).unwrap_or(u32::MAX).saturating_add(OVERHEAD);
        LocalCarts(CacheBuilder::new(MEMORY).weigher(weigh).time_to_live(TTL).build())
    }
}

#[async_trait]
impl CartCopies for LocalCarts {
    async fn get(&self, cart_id: CartId) -> Option<CartCopy> {
        self.0.get(&cart_id)
    }

    async fn put(&self, cart_id: CartId, copy: CartCopy) {
        self.0.entry(cart_id).and_compute_with(|kept| {
            let age = |copy: &CartCopy| (copy.version, copy.catalogue);
            match kept {
                Some(kept) if age(kept.value()) > age(&copy) => Op::Nop,
                Some(_) | None => Op::Put(copy),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(version: i64, catalogue: i64) -> CartCopy {
        CartCopy { version, catalogue, body: format!("{version} under {catalogue}").into_bytes() }
    }

    #[tokio::test]
    async fn a_late_write_never_replaces_a_newer_copy() {
        let (carts, cart_id) = (LocalCarts::default(), CartId::generate());
        assert_eq!(carts.get(cart_id).await, None);
        for (written, kept) in
            [((2, 5), (2, 5)), ((1, 9), (2, 5)), ((2, 4), (2, 5)), ((2, 6), (2, 6)), ((3, 1), (3, 1))]
        {
            carts.put(cart_id, copy(written.0, written.1)).await;
            assert_eq!(carts.get(cart_id).await, Some(copy(kept.0, kept.1)), "{written:?}");
        }
    }

    #[tokio::test]
    async fn memory_is_bounded_whatever_comes() {
        let carts = LocalCarts::default();
        for version in 0..200 {
            carts.put(CartId::generate(), CartCopy { version, catalogue: 1, body: vec![0; 512 * 1024] }).await;
        }
        carts.0.run_pending_tasks();
        assert!(carts.0.weighted_size() <= MEMORY, "{}", carts.0.weighted_size());
        assert!(carts.0.entry_count() >= 32, "{}", carts.0.entry_count());
    }
}
