//! Reading a cart by its copy, where that says exactly what Postgres would say.
//!
//! What is copied is what was read, never what was computed: lines, prices, coupons, and the [`Stamp`] they
//! were read under. Each reading first asks Postgres for the stamp, in one statement by index, and trusts
//! the copy only if it is the same; the price is then computed as ever, by the rules and the clock of now.
//! So a copy that is lost, late, or written by a process that died half-way costs a longer reading and
//! nothing else. Stock alone may be up to [`STOCK_AGE`] old: it changes with everybody's checkouts, is told
//! as a notice only, and is decided under a lock when it matters.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    ids::VariantId,
    ports::{CartCopies, CartCopy},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::{CartRefusal, CartView, HeldCart, Owner};
use crate::{
    Shop,
    store::{
        carts::{self, OpenCart, Stamp, StoredCart},
        coupons::Candidate,
        inventory,
    },
};

/// How old the stock on a copy may be.
const STOCK_AGE: TimeDelta = TimeDelta::seconds(3);

/// Longest copy that is kept, in bytes: several times a cart of as many lines as there may be.
const MAX_BYTES: usize = 512 * 1024;

/// What a copy holds.
#[derive(Serialize, Deserialize)]
struct Kept {
    stamp: Stamp,
    stock_at: DateTime<Utc>,
    cart: StoredCart,
    candidates: Vec<Candidate>,
}

/// The owner's cart as it is, also while a checkout holds it. Looking makes no cart and is no activity: who
/// has none is shown an empty one.
///
/// # Errors
/// `Unpriceable`, `Database`.
pub async fn view(pool: &PgPool, shop: &Shop, copies: &dyn CartCopies, owner: &Owner) -> Result<CartView, CartRefusal> {
    let mut conn = pool.acquire().await?;
    let open = match carts::find_open(&mut conn, owner).await? {
        Some(open) if !open.is_stale => open,
        Some(_) | None => return HeldCart::unmade(&mut conn, shop, owner).await?.view(shop),
    };
    // No connection is held while the copies are asked.
    drop(conn);
    if let Some(mut held) = recall(copies, owner, open).await {
        if open.now < held.stock_at || open.now - held.stock_at > STOCK_AGE {
            held.refresh_stock(pool).await?;
            let view = held.view(shop)?;
            view.keep(copies).await;
            return Ok(view);
        }
        return held.view(shop);
    }
    let mut conn = pool.acquire().await?;
    let view = HeldCart::load(&mut conn, owner, open, &[]).await?.view(shop)?;
    drop(conn);
    view.keep(copies).await;
    Ok(view)
}

/// The copy of an open cart, if there is one that says what Postgres would.
async fn recall(copies: &dyn CartCopies, owner: &Owner, open: OpenCart) -> Option<HeldCart> {
    let kept = copies.get(open.id).await.and_then(|copy| serde_json::from_slice::<Kept>(&copy.body).ok());
    let (outcome, kept) = match kept {
        Some(kept) if kept.stamp == open.stamp && kept.cart.id == open.id => ("hit", Some(kept)),
        Some(_) => ("stale", None),
        None => ("miss", None),
    };
    metrics::counter!("cart_engine_cart_copies_total", "outcome" => outcome).increment(1);
    let Kept { stamp, stock_at, mut cart, candidates } = kept?;
    (cart.status, cart.checkout_run_id) = (open.status, open.checkout_run_id);
    cart.session_hash = owner.columns().1.map(<[u8]>::to_vec);
    Some(HeldCart { stock_at, ..HeldCart::new(cart, candidates, stamp, open.now) })
}

impl HeldCart {
    async fn refresh_stock(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let variants: Vec<Uuid> = self.cart.lines.iter().map(|line| line.variant_id.into()).collect();
        let mut conn = pool.acquire().await?;
        let stock: BTreeMap<VariantId, u32> = inventory::available(&mut conn, &variants)
            .await?
            .into_iter()
            .map(|stock| (stock.variant_id, stock.available))
            .collect();
        for line in &mut self.cart.lines {
            line.available = stock.get(&line.variant_id).copied().unwrap_or_default();
        }
        self.stock_at = self.now;
        Ok(())
    }
}

impl CartView {
    /// Keeps a copy of what this view was made of. What it was read from must have been committed.
    pub async fn keep(&self, copies: &dyn CartCopies) {
        let CartView { cart, candidates, stamp, stock_at, .. } = self;
        let kept = Kept {
            stamp: *stamp,
            stock_at: *stock_at,
            cart: StoredCart { session_hash: None, ..cart.clone() },
            candidates: candidates.clone(),
        };
        match serde_json::to_vec(&kept) {
            Ok(body) if body.len() <= MAX_BYTES => {
                let copy = CartCopy { version: stamp.version, catalogue: stamp.catalogue, body };
                copies.put(cart.id, copy).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, cart_id = %cart.id, "a cart cannot be copied"),
        }
    }
}
