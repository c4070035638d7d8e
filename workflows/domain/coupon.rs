//! Coupons: what they are and when they may be used. What they are worth is for [`crate::pricing`].

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::UnknownName;
use crate::ids::{CouponId, ProductId};
use crate::money::Currency;

/// What a coupon gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CouponKind {
    /// `value` percent off.
    Percent,
    /// `value` off, in the cart's currency.
    Fixed,
    /// No shipping charge.
    FreeShipping,
    /// For every `buy_quantity` pieces paid, the next `get_quantity` are free, cheapest first.
    BuyXGetY,
}

impl CouponKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Percent, Self::Fixed, Self::FreeShipping, Self::BuyXGetY];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Percent => "PERCENT",
            Self::Fixed => "FIXED",
            Self::FreeShipping => "FREE_SHIPPING",
            Self::BuyXGetY => "BUY_X_GET_Y",
        }
    }
}

impl fmt::Display for CouponKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CouponKind {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "coupon kind", text: text.to_owned() })
    }
}

/// Which lines of a cart a coupon counts for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "ids", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CouponScope {
    /// Every line.
    All,
    /// Lines of these products.
    Products(Vec<Uuid>),
    /// Lines of products in these categories.
    Categories(Vec<Uuid>),
}

impl CouponScope {
    /// Whether a line of that product counts.
    pub fn covers(&self, product: ProductId, category: Option<Uuid>) -> bool {
        match self {
            Self::All => true,
            Self::Products(ids) => ids.contains(&product.0),
            Self::Categories(ids) => category.is_some_and(|category| ids.contains(&category)),
        }
    }
}

/// A coupon as the shop's staff defined it, with how often it was used so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coupon {
    /// Its id.
    pub id: CouponId,
    /// What the customer types; upper and lower case are the same.
    pub code: String,
    /// What it gives.
    pub kind: CouponKind,
    /// Of its amounts: the shop's when it was made. In another currency it does not apply.
    pub currency: Currency,
    /// Percent or amount, by kind; unused by the other kinds.
    pub value: Decimal,
    /// Merchandise subtotal from which it counts.
    pub min_order_value: Option<Decimal>,
    /// The most it takes off the merchandise of one order.
    pub max_discount: Option<Decimal>,
    /// First instant it counts.
    pub starts_at: Option<DateTime<Utc>>,
    /// First instant it no longer counts.
    pub ends_at: Option<DateTime<Utc>>,
    /// How often it may be used by everyone together.
    pub usage_limit: Option<i32>,
    /// How often one customer may use it.
    pub per_user_limit: Option<i32>,
    /// Uses by confirmed orders.
    pub current_usage_count: i32,
    /// Uses held by checkouts under way.
    pub held_count: i32,
    /// May be used beside another code.
    pub stackable: bool,
    /// Needs no code: tried on every cart.
    pub auto_apply: bool,
    /// Which lines count.
    pub scope: CouponScope,
    /// Pieces to pay for, for [`CouponKind::BuyXGetY`].
    pub buy_quantity: Option<u32>,
    /// Pieces then free, for [`CouponKind::BuyXGetY`].
    pub get_quantity: Option<u32>,
    /// Switched on.
    pub is_active: bool,
}

/// Why a coupon was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum CouponRejection {
    /// There is no coupon with that code.
    #[error("This coupon code does not exist")]
    UnknownCode,
    /// It is switched off.
    #[error("This coupon is not active")]
    Inactive,
    /// Its time has not come.
    #[error("This coupon is not valid yet")]
    NotStarted,
    /// Its time is over.
    #[error("This coupon has expired")]
    Expired,
    /// The merchandise is worth too little.
    #[error("The order is below this coupon's minimum value")]
    MinimumNotMet,
    /// Every use is taken or held.
    #[error("This coupon has been used up")]
    UsageLimitReached,
    /// This customer has used it often enough.
    #[error("You have already used this coupon")]
    PerUserLimitReached,
    /// It would take nothing off this cart.
    #[error("This coupon does not apply to this cart")]
    NotApplicable,
    /// Another code is worth more, and the two cannot be combined.
    #[error("This coupon cannot be combined with another one")]
    NotCombinable,
}

impl CouponRejection {
    /// The stable name that API clients compare with.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownCode => "unknown-code",
            Self::Inactive => "inactive",
            Self::NotStarted => "not-started",
            Self::Expired => "expired",
            Self::MinimumNotMet => "minimum-not-met",
            Self::UsageLimitReached => "usage-limit-reached",
            Self::PerUserLimitReached => "per-user-limit-reached",
            Self::NotApplicable => "not-applicable",
            Self::NotCombinable => "not-combinable",
        }
    }
}

impl Coupon {
    /// Whether the coupon may be used at `now` for merchandise worth `merchandise_subtotal` (before
    /// any discount) by someone who used or holds it `redeemed_by_user` times already.
    ///
    /// # Errors
    /// The first [`CouponRejection`] that applies, from the most to the least permanent.
    pub fn check(
        &self,
        now: DateTime<Utc>,
        merchandise_subtotal: Decimal,
        redeemed_by_user: i64,
    ) -> Result<(), CouponRejection> {
        if !self.is_active {
            return Err(CouponRejection::Inactive);
        }
        if self.starts_at.is_some_and(|start| now < start) {
            return Err(CouponRejection::NotStarted);
        }
        if self.ends_at.is_some_and(|end| now >= end) {
            return Err(CouponRejection::Expired);
        }
        let taken = i64::from(self.current_usage_count) + i64::from(self.held_count);
        if self.usage_limit.is_some_and(|limit| taken >= i64::from(limit)) {
            return Err(CouponRejection::UsageLimitReached);
        }
        if self.per_user_limit.is_some_and(|limit| redeemed_by_user >= i64::from(limit)) {
            return Err(CouponRejection::PerUserLimitReached);
        }
        self.check_minimum(merchandise_subtotal)
    }

    /// Whether merchandise worth `merchandise_subtotal` reaches the coupon's minimum.
    ///
    /// # Errors
    /// [`CouponRejection::MinimumNotMet`].
    pub fn check_minimum(&self, merchandise_subtotal: Decimal) -> Result<(), CouponRejection> {
        if self.min_order_value.is_some_and(|minimum| merchandise_subtotal < minimum) {
            return Err(CouponRejection::MinimumNotMet);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn coupon() -> Coupon {
        Coupon {
            id: CouponId(Uuid::nil()),
            code: "SAVE20".to_owned(),
            kind: CouponKind::Percent,
            currency: Currency::INR,
            value: Decimal::from(20),
            min_order_value: Some(Decimal::from(500)),
            max_discount: None,
            starts_at: Some(DateTime::UNIX_EPOCH),
            ends_at: Some(DateTime::UNIX_EPOCH + TimeDelta::days(1)),
            usage_limit: Some(10),
            per_user_limit: Some(2),
            current_usage_count: 5,
            held_count: 4,
            stackable: false,
            auto_apply: false,
            scope: CouponScope::All,
            buy_quantity: None,
            get_quantity: None,
            is_active: true,
        }
    }

    fn check(change: impl FnOnce(&mut Coupon)) -> Result<(), CouponRejection> {
        let mut coupon = coupon();
        change(&mut coupon);
        coupon.check(DateTime::UNIX_EPOCH + TimeDelta::hours(1), Decimal::from(500), 1)
    }

    #[test]
    fn a_coupon_is_refused_for_the_first_reason_that_applies() {
        let start = DateTime::UNIX_EPOCH;
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|c| c.is_active = false), Err(CouponRejection::Inactive));
        assert_eq!(check(|c| c.starts_at = Some(start + TimeDelta::hours(2))), Err(CouponRejection::NotStarted));
        assert_eq!(check(|c| c.starts_at = Some(start + TimeDelta::hours(1))), Ok(()));
        assert_eq!(check(|c| c.ends_at = Some(start + TimeDelta::hours(1))), Err(CouponRejection::Expired));
        assert_eq!(check(|c| c.held_count = 5), Err(CouponRejection::UsageLimitReached));
        assert_eq!(check(|c| c.per_user_limit = Some(1)), Err(CouponRejection::PerUserLimitReached));
        assert_eq!(check(|c| c.min_order_value = Some(Decimal::new(50_001, 2))), Err(CouponRejection::MinimumNotMet));
    }

    #[test]
    fn limits_that_are_not_set_never_refuse() {
        let unlimited = |c: &mut Coupon| {
            (c.starts_at, c.ends_at, c.usage_limit, c.per_user_limit, c.min_order_value) =
                (None, None, None, None, None);
            c.current_usage_count = i32::MAX;
            c.held_count = i32::MAX;
        };
        assert_eq!(check(unlimited), Ok(()));
    }

    #[test]
    fn a_scope_covers_its_own_products_and_categories_only() {
        let product = ProductId(Uuid::from_u128(1));
        let category = Uuid::from_u128(2);
        assert!(CouponScope::All.covers(product, None));
        assert!(CouponScope::Products(vec![product.0]).covers(product, None));
        assert!(!CouponScope::Products(vec![category]).covers(product, Some(category)));
        assert!(CouponScope::Categories(vec![category]).covers(product, Some(category)));
        assert!(!CouponScope::Categories(vec![category]).covers(product, None));
    }

    #[test]
    fn reasons_are_the_same_in_code_and_on_the_wire() {
        for rejection in [CouponRejection::UnknownCode, CouponRejection::PerUserLimitReached] {
            assert_eq!(serde_json::to_value(rejection).unwrap(), rejection.reason());
        }
        for kind in CouponKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
