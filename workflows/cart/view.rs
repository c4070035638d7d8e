//! What a cart costs today, and what its owner should know about it.

use chrono::{DateTime, Utc};
use domain::{
    cart::{Adjustment, CartNotice, CartStatus},
    coupon::{Coupon, CouponRejection},
    ids::VariantId,
    money::{Currency, round_half_away},
    pricing::{LineInput, Pricing, PricingError, PricingPolicy, Quote, ShippingMethod},
};
use serde::Serialize;

use super::{CartRefusal, HeldCart};
use crate::{
    Shop,
    store::{
        carts::{CartLine, Stamp, StoredCart},
        coupons::Candidate,
    },
};

/// A cart as its owner sees it.
#[derive(Debug, Clone)]
pub struct CartView {
    /// The cart with its lines, in variant order.
    pub cart: StoredCart,
    /// What it costs, shipped STANDARD.
    pub quote: Quote,
    /// Codes that count: those that lower the price; while there is nothing to lower, those noted.
    pub applied_coupons: Vec<String>,
    /// What changed since the owner last acted.
    pub notices: Vec<Notice>,
    /// After a merge: lines that did not get the quantity asked for.
    pub adjustments: Option<Vec<Adjustment>>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) stamp: Stamp,
    pub(super) stock_at: DateTime<Utc>,
}

/// Something the owner of a cart should know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase")]
pub enum Notice {
    /// The line asks for more than there is now.
    QuantityUnavailable {
        /// Which line.
        variant_id: VariantId,
        /// Its SKU.
        sku: String,
        /// In the cart.
        quantity: u32,
        /// To be had.
        available: u32,
    },
    /// A code that was applied does not count, or not any more.
    CouponDropped {
        /// The code.
        code: String,
        /// Why.
        reason: CouponRejection,
    },
    /// The shop sells in another currency now: the cart can be looked at and emptied, not bought.
    CurrencyChanged {
        /// Of the cart.
        currency: String,
        /// Of the shop.
        shop_currency: Currency,
    },
    /// What can be said of any cart, such as a price that changed.
    #[serde(untagged)]
    Cart(CartNotice),
}

impl CartView {
    /// The view of a cart that an order could hold.
    pub(super) fn within_an_order(mut self) -> Result<Self, CartRefusal> {
        self.quote = self.quote.within_an_order()?;
        Ok(self)
    }
}

impl HeldCart {
    /// Prices the cart with the coupons that count now.
    pub(super) fn view(self, shop: &Shop) -> Result<CartView, CartRefusal> {
        let quote = self.quote(shop)?;
        let shop_currency = shop.pricing.policy().currency;
        let mismatch = self.cart.other_currency(shop_currency).filter(|_| !self.cart.lines.is_empty());
        let changed = mismatch.map(|found| Notice::CurrencyChanged { currency: found.to_owned(), shop_currency });
        let (dropped, noted) = self.coupons_without_effect(&quote);
        let mut notices = self.notices.clone();
        notices.extend(changed);
        notices.extend(self.cart.lines.iter().filter_map(|line| {
            CartNotice::price_changed(line.variant_id, line.price_when_added, line.price, quote.currency)
                .map(Notice::Cart)
        }));
        // While a checkout holds the stock, the cart's own pieces are not to be had any more.
        if self.cart.status != CartStatus::Checkout {
            notices.extend(self.cart.lines.iter().filter_map(short_of_stock));
        }
        let mut applied_coupons: Vec<String> = quote.coupons.iter().map(|coupon| coupon.code.clone()).collect();
        if self.cart.lines.is_empty() {
            applied_coupons.extend(noted);
        } else {
            notices.extend(dropped);
        }
        let HeldCart { mut cart, candidates, stamp, stock_at, .. } = self;
        cart.currency = quote.currency.to_string();
        Ok(CartView { cart, quote, applied_coupons, notices, adjustments: None, candidates, stamp, stock_at })
    }

    /// The price with every candidate that may be used.
    pub(super) fn quote(&self, shop: &Shop) -> Result<Quote, PricingError> {
        let usable: Vec<Coupon> = self
            .candidates
            .iter()
            .filter(|candidate| self.check(candidate).is_ok())
            .map(|candidate| candidate.coupon.clone())
            .collect();
        let currency = self.currency(shop);
        // A cart can be looked at whatever has been stored; that nobody pays a price finer than the currency
        // is for the checkout to see to.
        let input = |line: &CartLine| {
            let input = line.input();
            LineInput { unit_price: round_half_away(input.unit_price, currency), ..input }
        };
        let inputs: Vec<_> = self.cart.lines.iter().map(input).collect();
        if currency == shop.pricing.policy().currency {
            return shop.pricing.quote(&inputs, &usable, None, ShippingMethod::Standard);
        }
        // Shipping charges and coupons are in the shop's currency, and mean nothing in another.
        let foreign = Pricing::new(PricingPolicy { currency, ..shop.pricing.policy().without_charges() });
        foreign.quote(&inputs, &[], None, ShippingMethod::Standard)
    }

    /// Whether a coupon may be used. The one use that the cart's own checkout holds is not held against it.
    pub(super) fn check(&self, candidate: &Candidate) -> Result<(), CouponRejection> {
        let Candidate { coupon, redeemed_by_user } = candidate;
        match self.cart.status {
            CartStatus::Checkout => {
                let own = Coupon { held_count: (coupon.held_count - 1).max(0), ..coupon.clone() };
                own.check(self.now, self.subtotal(), redeemed_by_user - 1)
            }
            CartStatus::Active | CartStatus::Abandoned | CartStatus::Converted | CartStatus::Expired => {
                coupon.check(self.now, self.subtotal(), *redeemed_by_user)
            }
        }
    }

    /// Notices for the codes on the cart that lower nothing, and those codes.
    fn coupons_without_effect(&self, quote: &Quote) -> (Vec<Notice>, Vec<String>) {
        let without_effect = self.candidates.iter().filter(|candidate| {
            !candidate.coupon.auto_apply && quote.coupons.iter().all(|used| used.coupon_id != candidate.coupon.id)
        });
        without_effect
            .map(|candidate| {
                let reason = self.rejection(candidate, quote);
                let code = candidate.coupon.code.clone();
                (Notice::CouponDropped { code: code.clone(), reason }, code)
            })
            .unzip()
    }

    /// Why a coupon that is not in `quote` is not.
    pub(super) fn rejection(&self, candidate: &Candidate, quote: &Quote) -> CouponRejection {
        let priced =
            || quote.rejected.iter().find(|(code, _)| *code == candidate.coupon.code).map(|&(_, reason)| reason);
        self.check(candidate).err().or_else(priced).unwrap_or(CouponRejection::NotApplicable)
    }
}

fn short_of_stock(line: &CartLine) -> Option<Notice> {
    let available = line.for_sale();
    (available < line.quantity).then(|| Notice::QuantityUnavailable {
        variant_id: line.variant_id,
        sku: line.sku.clone(),
        quantity: line.quantity,
        available,
    })
}

#[cfg(test)]
mod tests;
