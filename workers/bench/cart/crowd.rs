//! The owners of the live carts, and what they do next.

use anyhow::Context as _;
use api::AuthKeys;
use chrono::Utc;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use secrecy::SecretString;
use sqlx::PgPool;
use uuid::Uuid;
use workflows::store::users::Role;

use super::CartSettings;

/// So many requests in a hundred add something; the others look at their cart.
pub(super) const ADDS_IN_100: u32 = 70;
/// Every so manieth cart has 200 lines.
const BIG_EVERY: u32 = 100;

/// Everybody who has a live cart.
pub(super) struct Crowd {
    /// By number of the cart: its user, or a guest.
    owners: Vec<Option<Uuid>>,
    skus: u32,
    seed: u64,
    secret: SecretString,
    keys: AuthKeys,
}

/// What one of them does.
pub(super) struct Visit {
    /// Number of the cart.
    pub(super) cart: usize,
    /// The SKU to be added, if any.
    pub(super) add: Option<String>,
}

/// Who is asking: a header and its value.
pub(super) type Credential = (&'static str, String);

impl Crowd {
    /// Fills the shelves and writes the carts, in bulk.
    pub(super) async fn gather(pool: &PgPool, seed: i64, settings: &CartSettings) -> anyhow::Result<Crowd> {
        let mut tx = pool.begin().await?;
        for (name, value) in
            [("bench.skus", settings.skus), ("bench.carts", settings.carts), ("bench.big_every", BIG_EVERY)]
        {
            sqlx::query("select set_config($1, $2, true)").bind(name).bind(value.to_string()).execute(&mut *tx).await?;
        }
        sqlx::raw_sql(include_str!("../cart.sql")).execute(&mut *tx).await?;
        tx.commit().await?;
        sqlx::raw_sql("vacuum analyze").execute(pool).await?;
        let owners = sqlx::query_scalar("select user_id from bench.live order by n").fetch_all(pool).await?;
        let secret: SecretString = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()).into();
        let keys = AuthKeys::new(&secret)?;
        Ok(Crowd { owners, skus: settings.skus, seed: seed.cast_unsigned(), secret, keys })
    }

    /// What the API must verify tokens with.
    pub(super) fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// How many carts there are.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// How many of them have 200 lines.
    pub(super) fn big(&self) -> usize {
        self.owners.len().div_ceil(BIG_EVERY as usize)
    }

    /// Chance of its own for each client, the same in every phase.
    pub(super) fn chance(&self, client: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(client))
    }

    /// Somebody, who adds something or looks.
    pub(super) fn next(&self, chance: &mut StdRng) -> Visit {
        let cart = chance.random_range(0..self.owners.len());
        let adds = chance.random_range(0..100) < ADDS_IN_100;
        Visit { cart, add: adds.then(|| self.wanted(cart, chance)) }
    }

    /// Any SKU; in a cart of 200 lines, which takes no other, one more of its first.
    fn wanted(&self, cart: usize, chance: &mut StdRng) -> String {
        let number = if cart.is_multiple_of(BIG_EVERY as usize) {
            (cart as u64 * 7919) % u64::from(self.skus)
        } else {
            u64::from(chance.random_range(0..self.skus))
        };
        format!("BEN-{}-{}", number / 4, number % 4)
    }

    /// How the owner of a cart says who they are.
    pub(super) fn credential(&self, cart: usize) -> anyhow::Result<Credential> {
        match self.owners[cart] {
            Some(user_id) => {
                let token = self.keys.issue(user_id.into(), Role::Customer, Utc::now()).context("no token")?;
                Ok(("authorization", format!("Bearer {token}")))
            }
            None => Ok(("x-cart-session", format!("bench-guest-{cart:08}"))),
        }
    }
}
