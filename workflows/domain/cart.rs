//! The rules of a cart (seed: Shopping Cart Entity). Prices are not kept here: a cart is priced
//! anew each time it is shown.

mod merge;
mod notice;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownName;
use crate::ids::{CartId, UserId, VariantId};

pub use merge::{Adjustment, AdjustmentReason, Merged, merge};
pub use notice::CartNotice;

/// The most lines that items may be added up to.
pub const MAX_LINES: usize = 200;
/// The most pieces in one line.
pub const MAX_QUANTITY: u32 = 999;

/// What state a cart is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CartStatus {
    /// In use.
    Active,
    /// Locked by a running checkout: it can be read only. ACTIVE again if the checkout is undone.
    Checkout,
    /// Left idle. Touching it makes it ACTIVE again.
    Abandoned,
    /// Became an order.
    Converted,
    /// Left idle for so long that it is gone for good.
    Expired,
}

impl CartStatus {
    /// Every status there is.
    pub const ALL: [CartStatus; 5] =
        [CartStatus::Active, CartStatus::Checkout, CartStatus::Abandoned, CartStatus::Converted, CartStatus::Expired];

    /// The name in the database and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            CartStatus::Active => "ACTIVE",
            CartStatus::Checkout => "CHECKOUT",
            CartStatus::Abandoned => "ABANDONED",
            CartStatus::Converted => "CONVERTED",
            CartStatus::Expired => "EXPIRED",
        }
    }

    /// Whether items and coupons may change. An abandoned cart is changed by being taken up again.
    #[must_use]
    pub const fn can_modify(self) -> bool {
        match self {
            CartStatus::Active | CartStatus::Abandoned => true,
            CartStatus::Checkout | CartStatus::Converted | CartStatus::Expired => false,
        }
    }

    /// Whether this is the owner's one current cart.
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            CartStatus::Active | CartStatus::Checkout | CartStatus::Abandoned => true,
            CartStatus::Converted | CartStatus::Expired => false,
        }
    }
}

impl fmt::Display for CartStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for CartStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|status| status.as_str() == text);
        known.ok_or_else(|| UnknownName { kind: "cart status", text: text.to_owned() })
    }
}

/// Why a cart refuses. The messages are the seed's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CartError {
    /// The cart is in a status in which it cannot be changed.
    #[error("Cannot modify cart with status: {0}")]
    NotActive(CartStatus),
    /// There is no line with this variant.
    #[error("Item with variantId {0} not found in cart")]
    ItemNotInCart(VariantId),
    /// A cart changes from a guest to a user once and never between users.
    #[error("Cart already associated with a user")]
    AlreadyOwned,
    /// The quantity, or the sum with what is in the cart, is not within 1 and [`MAX_QUANTITY`].
    #[error("Quantity must be positive and at most {MAX_QUANTITY}")]
    QuantityInvalid,
    /// The cart has [`MAX_LINES`] lines already.
    #[error("Cart cannot have more than {MAX_LINES} lines")]
    TooManyLines,
}

impl CartError {
    /// The stable name of the error for clients.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            CartError::NotActive(CartStatus::Checkout) => "cart-in-checkout",
            CartError::NotActive(
                CartStatus::Active | CartStatus::Abandoned | CartStatus::Converted | CartStatus::Expired,
            ) => "cart-not-active",
            CartError::ItemNotInCart(_) => "item-not-in-cart",
            CartError::AlreadyOwned => "cart-already-owned",
            CartError::QuantityInvalid => "quantity-invalid",
            CartError::TooManyLines => "too-many-lines",
        }
    }
}

/// A number of pieces, from 1 to [`MAX_QUANTITY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "i64")]
pub struct Quantity(u32);

impl Quantity {
    /// # Errors
    /// [`CartError::QuantityInvalid`] for anything but 1 to [`MAX_QUANTITY`].
    pub fn new(pieces: i64) -> Result<Self, CartError> {
        match u32::try_from(pieces) {
            Ok(pieces @ 1..=MAX_QUANTITY) => Ok(Quantity(pieces)),
            Ok(_) | Err(_) => Err(CartError::QuantityInvalid),
        }
    }

    /// The new quantity of a line as clients send it: 0, which removes the line, is `None`.
    ///
    /// # Errors
    /// [`CartError::QuantityInvalid`] for anything but 0 to [`MAX_QUANTITY`].
    pub fn unless_zero(pieces: i64) -> Result<Option<Self>, CartError> {
        if pieces == 0 { Ok(None) } else { Quantity::new(pieces).map(Some) }
    }

    /// In pieces.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Both together.
    ///
    /// # Errors
    /// [`CartError::QuantityInvalid`] above [`MAX_QUANTITY`].
    pub fn plus(self, more: Quantity) -> Result<Self, CartError> {
        Quantity::new(i64::from(self.0) + i64::from(more.0))
    }
}

impl TryFrom<i64> for Quantity {
    type Error = CartError;

    fn try_from(pieces: i64) -> Result<Self, Self::Error> {
        Quantity::new(pieces)
    }
}

impl From<Quantity> for u32 {
    fn from(quantity: Quantity) -> Self {
        quantity.0
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Quantity {
    type Err = CartError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Quantity::new(text.parse().map_err(|_| CartError::QuantityInvalid)?)
    }
}

/// One variant in a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartLine {
    /// What.
    pub variant_id: VariantId,
    /// How many.
    pub quantity: Quantity,
}

/// A cart with its rules: whatever changes it makes it ACTIVE, or is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShoppingCart {
    id: CartId,
    owner: Option<UserId>,
    status: CartStatus,
    lines: BTreeMap<VariantId, Quantity>,
    coupons: Vec<String>,
}

impl ShoppingCart {
    /// An empty ACTIVE cart; one without an owner is a guest's.
    #[must_use]
    pub fn new(id: CartId, owner: Option<UserId>) -> Self {
        Self::restore(id, owner, CartStatus::Active, [], Vec::new())
    }

    /// The cart as it was stored.
    #[must_use]
    pub fn restore(
        id: CartId,
        owner: Option<UserId>,
        status: CartStatus,
        lines: impl IntoIterator<Item = CartLine>,
        coupons: Vec<String>,
    ) -> Self {
        let lines = lines.into_iter().map(|line| (line.variant_id, line.quantity)).collect();
        Self { id, owner, status, lines, coupons }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> CartId {
        self.id
    }

    /// `None`: a guest's.
    #[must_use]
    pub const fn owner(&self) -> Option<UserId> {
        self.owner
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> CartStatus {
        self.status
    }

    /// The lines by variant id, which is the order in which their rows are locked.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = CartLine> + '_ {
        self.lines.iter().map(|(&variant_id, &quantity)| CartLine { variant_id, quantity })
    }

    /// The coupon codes, in the order in which they were applied.
    #[must_use]
    pub fn coupons(&self) -> &[String] {
        &self.coupons
    }

    /// Pieces of all lines together.
    #[must_use]
    pub fn item_count(&self) -> u32 {
        self.lines.values().map(|quantity| quantity.get()).sum()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds to the variant's line, or a line. Returns the line's new quantity.
    ///
    /// # Errors
    /// [`CartError::NotActive`], [`CartError::QuantityInvalid`] when the sum is too many,
    /// [`CartError::TooManyLines`].
    pub fn add(&mut self, variant: VariantId, more: Quantity) -> Result<Quantity, CartError> {
        self.check_modifiable()?;
        let quantity = match self.lines.get(&variant) {
            Some(present) => present.plus(more)?,
            None if self.lines.len() >= MAX_LINES => return Err(CartError::TooManyLines),
            None => more,
        };
        self.lines.insert(variant, quantity);
        self.status = CartStatus::Active;
        Ok(quantity)
    }

    /// Sets the quantity of a line; `None` removes it (see [`Quantity::unless_zero`]).
    ///
    /// # Errors
    /// [`CartError::NotActive`], [`CartError::ItemNotInCart`].
    pub fn update(&mut self, variant: VariantId, quantity: Option<Quantity>) -> Result<(), CartError> {
        self.check_modifiable()?;
        let line = self.lines.get_mut(&variant).ok_or(CartError::ItemNotInCart(variant))?;
        match quantity {
            Some(quantity) => *line = quantity,
            None => {
                self.lines.remove(&variant);
            }
        }
        self.status = CartStatus::Active;
        Ok(())
    }

    /// Takes the variant out.
    ///
    /// # Errors
    /// [`CartError::NotActive`], [`CartError::ItemNotInCart`].
    pub fn remove(&mut self, variant: VariantId) -> Result<(), CartError> {
        self.update(variant, None)
    }

    /// Takes out every line and coupon.
    ///
    /// # Errors
    /// [`CartError::NotActive`].
    pub fn clear(&mut self) -> Result<(), CartError> {
        self.check_modifiable()?;
        self.lines.clear();
        self.coupons.clear();
        self.status = CartStatus::Active;
        Ok(())
    }

    /// Notes a coupon code once, in whatever case it is typed. Whether it is worth anything is
    /// found when the cart is priced.
    ///
    /// # Errors
    /// [`CartError::NotActive`].
    pub fn apply_coupon(&mut self, code: &str) -> Result<(), CartError> {
        self.check_modifiable()?;
        if !self.coupons.iter().any(|applied| applied.eq_ignore_ascii_case(code)) {
            self.coupons.push(code.to_owned());
        }
        self.status = CartStatus::Active;
        Ok(())
    }

    /// Forgets a coupon code; one that is not applied is forgotten already.
    ///
    /// # Errors
    /// [`CartError::NotActive`].
    pub fn remove_coupon(&mut self, code: &str) -> Result<(), CartError> {
        self.check_modifiable()?;
        self.coupons.retain(|applied| !applied.eq_ignore_ascii_case(code));
        self.status = CartStatus::Active;
        Ok(())
    }

    fn check_modifiable(&self) -> Result<(), CartError> {
        if self.status.can_modify() { Ok(()) } else { Err(CartError::NotActive(self.status)) }
    }
}

#[cfg(test)]
mod tests;
