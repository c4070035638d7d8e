//! Workflow 1: add an item to the cart, and whatever else its owner does with it.
//!
//! Synchronous: each function works inside the caller's transaction, which starts by locking the cart's
//! row, so that two tabs change it one after the other. The cart is priced anew for each answer.

mod copy;
mod coupons;
mod merge;
mod view;

use chrono::{DateTime, Utc};
use domain::{
    cart::{CartError, CartStatus, MAX_LINES, Quantity},
    coupon::CouponRejection,
    ids::CartId,
    money::Currency,
    pricing::PricingError,
};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

pub use copy::view;
pub use coupons::{CouponVerdict, apply_coupon, remove_coupon, validate_coupon};
pub use merge::merge;
pub use view::{CartView, Notice};

pub use crate::store::carts::Owner;
use crate::{
    Shop,
    store::{
        carts::{self, CartChange, OpenCart, Stamp, StoredCart},
        coupons::{Candidate, Customer, candidates},
    },
};

/// Why a cart stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CartRefusal {
    /// No such variant, or not for sale, or not of the product named.
    #[error("there is no such variant for sale: {variant}")]
    VariantNotFound {
        /// As it was asked for.
        variant: String,
    },
    /// Fewer in stock than the cart would hold (seed: Workflow 1 box 3).
    #[error("Out of stock")]
    OutOfStock {
        /// Its SKU.
        sku: String,
        /// In the cart already and asked for, together.
        requested: u32,
        /// To be had.
        available: u32,
    },
    /// The variant is not in the cart.
    #[error("{variant} is not in the cart")]
    ItemNotInCart {
        /// As it was asked for.
        variant: String,
    },
    /// A checkout holds the cart; it can only be read.
    #[error("the cart is being checked out")]
    InCheckout {
        /// That checkout.
        workflow_id: Option<Uuid>,
    },
    /// A cart holds one currency only, and the shop sells in one.
    #[error("{what} is in {found}, the shop sells in {currency}")]
    CurrencyMismatch {
        /// A SKU, or the cart itself.
        what: String,
        /// Its currency.
        found: String,
        /// The shop's.
        currency: Currency,
    },
    /// One of the rules every cart obeys.
    #[error(transparent)]
    Rule(#[from] CartError),
    /// The coupon cannot be used for this cart.
    #[error("{reason}")]
    CouponInvalid {
        /// As it was typed.
        code: String,
        /// Why.
        reason: CouponRejection,
    },
    /// No such cart of this owner.
    #[error("there is no such cart")]
    CartNotFound,
    /// The cart has changed since the caller looked.
    #[error("the cart has changed; it is now at version {current}")]
    VersionMismatch {
        /// Its version; 0 when there is no cart.
        current: i64,
    },
    /// The pricing rules cannot price it.
    #[error("the cart cannot be priced: {0}")]
    Unpriceable(#[from] PricingError),
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Adds `quantity` pieces of a variant (an id or a SKU) to the owner's cart, which is made if there is
/// none. Five statements for a cart that exists, seven for one that does not.
///
/// # Errors
/// `VariantNotFound`, `OutOfStock`, `InCheckout`, `CurrencyMismatch`, `Unpriceable`, and `Rule` for a
/// quantity outside 1 to 999 or a 201st line.
pub async fn add_item(
    conn: &mut PgConnection,
    shop: &Shop,
    owner: &Owner,
    variant: &str,
    product: Option<&str>,
    quantity: i64,
) -> Result<CartView, CartRefusal> {
    // 2 · The request is valid, the product exists, the variant is active
    let more = Quantity::new(quantity)?;
    let found = carts::find_variant(conn, variant, product).await?;
    let mut line = found.ok_or_else(|| CartRefusal::VariantNotFound { variant: variant.to_owned() })?;
    let currency = shop.pricing.policy().currency;
    if line.currency != currency.as_str() {
        return Err(CartRefusal::CurrencyMismatch { what: line.sku, found: line.currency, currency });
    }

    // 4 · The owner's cart, or a new one; before box 3, because what is in it counts
    let mut held = HeldCart::take_up(conn, shop, owner, &[]).await?;
    held.require_currency(shop)?;
    let present = held.cart.lines.iter().position(|present| present.variant_id == line.variant_id);
    let total = match present {
        Some(index) => Quantity::new(i64::from(held.cart.lines[index].quantity))?.plus(more)?,
        None if held.cart.lines.len() >= MAX_LINES => return Err(CartError::TooManyLines.into()),
        None => more,
    };

    // 3 · Enough of it for what is in the cart and what is added, together
    if line.available < total.get() {
        let (requested, available) = (total.get(), line.available);
        return Err(CartRefusal::OutOfStock { sku: line.sku, requested, available });
    }

    // 5, 6 · The item is added or raised, and saved with the cart's new times
    let change = CartChange { put: vec![(line.variant_id, total.get(), line.price)], ..CartChange::default() };
    line.quantity = total.get();
    match present {
        Some(index) => held.cart.lines[index].quantity = total.get(),
        None => {
            let index = held.cart.lines.partition_point(|other| other.variant_id < line.variant_id);
            held.cart.lines.insert(index, line);
        }
    }
    held.save(conn, shop, &change).await?;

    // 8, 9 · Totals with automatic coupons; box 7, the cache, mirrors what has committed
    held.view(shop)?.within_an_order()
}

/// Sets the quantity of a line; 0 removes it.
///
/// # Errors
/// `ItemNotInCart`, `OutOfStock`, `InCheckout`, `Unpriceable`, and `Rule` for a quantity outside 0 to 999.
pub async fn update_quantity(
    conn: &mut PgConnection,
    shop: &Shop,
    owner: &Owner,
    variant: &str,
    quantity: i64,
) -> Result<CartView, CartRefusal> {
    let quantity = Quantity::unless_zero(quantity)?;
    let Some(mut held) = HeldCart::take_up_made(conn, owner).await? else {
        return Err(CartRefusal::ItemNotInCart { variant: variant.to_owned() });
    };
    let index = held.line_of(variant)?;
    let mut change = CartChange::default();
    let is_more = quantity.is_some_and(|quantity| quantity.get() > held.cart.lines[index].quantity);
    if is_more {
        held.require_currency(shop)?;
    }
    match quantity {
        Some(quantity) => {
            let line = &mut held.cart.lines[index];
            if line.for_sale() < quantity.get() {
                let (sku, available) = (line.sku.clone(), line.for_sale());
                return Err(CartRefusal::OutOfStock { sku, requested: quantity.get(), available });
            }
            line.quantity = quantity.get();
            change.put.push((line.variant_id, quantity.get(), line.price_when_added));
        }
        None => change.take.push(held.cart.lines.remove(index).variant_id),
    }
    held.save(conn, shop, &change).await?;
    let view = held.view(shop)?;
    // Fewer pieces are always possible, also of what has become too dear meanwhile.
    if is_more { view.within_an_order() } else { Ok(view) }
}

/// Takes a variant out of the cart.
///
/// # Errors
/// `ItemNotInCart`, `InCheckout`.
pub async fn remove_item(
    conn: &mut PgConnection,
    shop: &Shop,
    owner: &Owner,
    variant: &str,
) -> Result<CartView, CartRefusal> {
    update_quantity(conn, shop, owner, variant, 0).await
}

/// Takes out every line and coupon. There need be no cart.
///
/// # Errors
/// `InCheckout`.
pub async fn clear(conn: &mut PgConnection, shop: &Shop, owner: &Owner) -> Result<CartView, CartRefusal> {
    let Some(mut held) = HeldCart::take_up_made(conn, owner).await? else {
        return HeldCart::unmade(conn, shop, owner).await?.view(shop);
    };
    let change = CartChange {
        take: held.cart.lines.drain(..).map(|line| line.variant_id).collect(),
        drop_coupons: held.candidates.iter().map(|candidate| candidate.coupon.id).collect(),
        ..CartChange::default()
    };
    held.candidates.retain(|candidate| candidate.coupon.auto_apply);
    held.save(conn, shop, &change).await?;
    held.view(shop)
}

/// Locks the owner's cart and compares its version, for a change that is made only if nobody else's came
/// first (HTTP's `If-Match`, RFC 9110 §13.1.1). A cart that is no row yet has version 0; if that is the one
/// meant, it is made, so that of two first changes the second finds it.
///
/// # Errors
/// `VersionMismatch`.
pub async fn require_version(
    conn: &mut PgConnection,
    shop: &Shop,
    owner: &Owner,
    matches: impl Fn(i64) -> bool,
) -> Result<(), CartRefusal> {
    match carts::lock_open(conn, owner).await?.filter(|open| !open.is_stale) {
        Some(open) if matches(open.stamp.version) => Ok(()),
        Some(open) => Err(CartRefusal::VersionMismatch { current: open.stamp.version }),
        None if matches(0) => match open_cart(conn, shop, owner).await? {
            (_, true) => Ok(()),
            (open, false) => Err(CartRefusal::VersionMismatch { current: open.stamp.version }),
        },
        None => Err(CartRefusal::VersionMismatch { current: 0 }),
    }
}

/// The owner's open cart, locked, and whether it was made just now.
async fn open_cart(conn: &mut PgConnection, shop: &Shop, owner: &Owner) -> Result<(OpenCart, bool), sqlx::Error> {
    // More than one round only when a cart appears between the look and the insert, or its time is over.
    for round in 0..4 {
        match carts::lock_open(conn, owner).await? {
            Some(open) if open.is_stale => carts::expire(conn, open.id).await?,
            Some(open) => return Ok((open, false)),
            None => {
                // Should the id be taken, any other will do.
                let id = if round < 2 { carts::next_id(conn, owner).await? } else { CartId::generate() };
                let (currency, ttl_s) = (shop.pricing.policy().currency, shop.rules.cart_ttl_s(owner.user_id()));
                if let Some(open) = carts::create(conn, id, owner, currency, ttl_s).await? {
                    return Ok((open, true));
                }
            }
        }
    }
    Err(sqlx::Error::RowNotFound)
}

/// A cart with all that is needed to change and to price it.
struct HeldCart {
    cart: StoredCart,
    /// Coupons on the cart, automatic ones, and those asked about.
    candidates: Vec<Candidate>,
    now: DateTime<Utc>,
    /// What it was read under.
    stamp: Stamp,
    /// When the stock of its lines was read.
    stock_at: DateTime<Utc>,
    notices: Vec<Notice>,
}

impl HeldCart {
    /// A cart whose stock was read just now.
    fn new(cart: StoredCart, candidates: Vec<Candidate>, stamp: Stamp, now: DateTime<Utc>) -> Self {
        HeldCart { cart, candidates, now, stamp, stock_at: now, notices: Vec::new() }
    }

    /// Locks the cart for a change.
    async fn take_up(
        conn: &mut PgConnection,
        shop: &Shop,
        owner: &Owner,
        codes: &[String],
    ) -> Result<Self, CartRefusal> {
        let (open, is_new) = open_cart(conn, shop, owner).await?;
        require_free(&open)?;
        if is_new {
            let cart = empty(owner, shop, open.id, open.stamp.version);
            let candidates = candidates(conn, open.id, Customer::of(owner.user_id()), codes).await?;
            return Ok(HeldCart::new(cart, candidates, open.stamp, open.now));
        }
        Self::load(conn, owner, open, codes).await
    }

    /// The same for a change that needs a cart; none if the owner has none.
    async fn take_up_made(conn: &mut PgConnection, owner: &Owner) -> Result<Option<Self>, CartRefusal> {
        let Some(open) = carts::lock_open(conn, owner).await?.filter(|open| !open.is_stale) else { return Ok(None) };
        require_free(&open)?;
        Self::load(conn, owner, open, &[]).await.map(Some)
    }

    /// The cart of an owner who has none: empty, and no row. Its first change makes it under this id.
    async fn unmade(conn: &mut PgConnection, shop: &Shop, owner: &Owner) -> Result<Self, CartRefusal> {
        let id = carts::next_id(conn, owner).await?;
        let candidates = candidates(conn, id, Customer::of(owner.user_id()), &[]).await?;
        let now = engine::now(conn).await?;
        Ok(HeldCart::new(empty(owner, shop, id, 0), candidates, Stamp::default(), now))
    }

    async fn load(
        conn: &mut PgConnection,
        owner: &Owner,
        open: OpenCart,
        codes: &[String],
    ) -> Result<Self, CartRefusal> {
        let cart = carts::load(conn, open.id).await?.ok_or(CartRefusal::CartNotFound)?;
        let candidates = candidates(conn, open.id, Customer::of(owner.user_id()), codes).await?;
        // The lines may be newer than the stamp: then they carry their own version.
        let stamp = Stamp { version: cart.version, ..open.stamp };
        Ok(HeldCart::new(cart, candidates, stamp, open.now))
    }

    /// The line of a variant, given by id or SKU.
    fn line_of(&self, variant: &str) -> Result<usize, CartRefusal> {
        let id = Uuid::parse_str(variant).ok();
        let by_id = |line: &carts::CartLine| id.is_some_and(|id| Uuid::from(line.variant_id) == id);
        let lines = &self.cart.lines;
        let found = lines.iter().position(by_id).or_else(|| lines.iter().position(|line| line.sku == variant));
        found.ok_or_else(|| CartRefusal::ItemNotInCart { variant: variant.to_owned() })
    }

    async fn save(&mut self, conn: &mut PgConnection, shop: &Shop, change: &CartChange) -> Result<(), sqlx::Error> {
        let ttl_s = shop.rules.cart_ttl_s(self.cart.user_id);
        self.cart.currency = self.currency(shop).to_string();
        self.cart.version = carts::save(conn, self.cart.id, change, &self.cart.currency, ttl_s, self.now).await?;
        self.cart.status = CartStatus::Active;
        self.stamp = Stamp { version: self.cart.version, updated_at: self.now, ..self.stamp };
        Ok(())
    }

    /// The cart's one currency; an empty cart's is the shop's.
    fn currency(&self, shop: &Shop) -> Currency {
        let currency = shop.pricing.policy().currency;
        if self.cart.lines.is_empty() { currency } else { self.cart.currency.parse().unwrap_or(currency) }
    }

    /// Takes nothing more into a cart that is in another currency than the shop sells in now.
    fn require_currency(&mut self, shop: &Shop) -> Result<(), CartRefusal> {
        self.cart.currency = self.currency(shop).to_string();
        let currency = shop.pricing.policy().currency;
        match self.cart.other_currency(currency) {
            Some(found) => {
                Err(CartRefusal::CurrencyMismatch { what: "the cart".to_owned(), found: found.to_owned(), currency })
            }
            None => Ok(()),
        }
    }

    fn subtotal(&self) -> Decimal {
        self.cart.lines.iter().map(carts::CartLine::total).sum()
    }
}

fn require_free(open: &OpenCart) -> Result<(), CartRefusal> {
    match open.status {
        CartStatus::Checkout => Err(CartRefusal::InCheckout { workflow_id: open.checkout_run_id }),
        CartStatus::Active | CartStatus::Abandoned | CartStatus::Converted | CartStatus::Expired => Ok(()),
    }
}

/// A cart without lines, as it is just after it was made, or before.
fn empty(owner: &Owner, shop: &Shop, id: CartId, version: i64) -> StoredCart {
    StoredCart {
        id,
        user_id: owner.user_id(),
        session_hash: owner.columns().1.map(<[u8]>::to_vec),
        status: CartStatus::Active,
        currency: shop.pricing.policy().currency.to_string(),
        version,
        generation: 1,
        checkout_run_id: None,
        lines: Vec::new(),
    }
}
