//! The one pricing pipeline: line subtotal → line discounts → order discount → tax → shipping → total.
//!
//! Cart, quote, checkout and order all come here, so that no two of them can disagree. The parts that
//! differ between shops are strategies: [`DiscountStrategy`], [`TaxStrategy`], [`ShippingStrategy`].

mod discount;
mod place;
mod policy;
#[cfg(test)]
mod property_tests;
mod shipping;
mod split;
mod tax;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use discount::{BuyXGetY, DiscountStrategy, DiscountableLine, FixedOff, FreeShipping, PercentOff, strategy_for};
pub use place::{Destination, same_country, same_state};
pub use policy::{PricingPolicy, ShippingRates, TaxPolicy};
pub use shipping::{FlatShipping, ShippingMethod, ShippingStrategy};
pub use split::split_by_largest_remainder;
pub use tax::{FlatRateTax, GstTax, LineTax, TaxStrategy};

use crate::coupon::{Coupon, CouponKind, CouponRejection};
use crate::ids::{CouponId, ProductId, VariantId};
use crate::money::{Currency, round_half_away};

/// One line to be priced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineInput {
    /// What is bought.
    pub variant_id: VariantId,
    /// The product it is a variant of, for coupons' scopes.
    pub product_id: ProductId,
    /// The product's category, for coupons' scopes.
    pub category_id: Option<Uuid>,
    /// How many pieces; at least one.
    pub quantity: u32,
    /// The price of one piece before tax, in major units.
    pub unit_price: Decimal,
    /// The tax rate of the variant's tax class, in percent.
    pub tax_rate: Decimal,
}

/// One line, priced. `total = subtotal − discount + tax`; either `cgst + sgst = tax` or `igst = tax`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuotedLine {
    /// What is bought.
    pub variant_id: VariantId,
    /// How many pieces.
    pub quantity: u32,
    /// The price of one piece before tax.
    pub unit_price: Decimal,
    /// Quantity × unit price.
    pub subtotal: Decimal,
    /// The line's own discounts and its share of the order's.
    pub discount: Decimal,
    /// Tax on what is left.
    pub tax: Decimal,
    /// The central half of the tax, inside the seller's state.
    pub cgst: Decimal,
    /// The state's half of the tax, inside the seller's state.
    pub sgst: Decimal,
    /// The whole tax, everywhere else.
    pub igst: Decimal,
    /// What the line costs.
    pub total: Decimal,
}

/// A coupon that was used, and what it saved before tax. For free shipping that is the shipping
/// charge waived, which is not part of [`Quote::discount`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedCoupon {
    /// The coupon.
    pub coupon_id: CouponId,
    /// Its code.
    pub code: String,
    /// What it saved, in major units; more than zero.
    pub discount: Decimal,
}

/// What a cart costs. `Σ line totals + shipping = total`; `Σ line discounts = discount`. All amounts
/// are in major units of `currency`, with exactly its decimals, and none is negative.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quote {
    /// The currency of every amount.
    pub currency: Currency,
    /// The lines, in the order they were given.
    pub lines: Vec<QuotedLine>,
    /// The merchandise before discounts and tax.
    pub subtotal: Decimal,
    /// What coupons took off the merchandise.
    pub discount: Decimal,
    /// Tax on the discounted merchandise.
    pub tax: Decimal,
    /// The shipping charge, untaxed.
    pub shipping: Decimal,
    /// What the customer pays.
    pub total: Decimal,
    /// The coupons used, in the order they were taken off.
    pub coupons: Vec<AppliedCoupon>,
    /// Codes of coupons that were not used, and why.
    pub rejected: Vec<(String, CouponRejection)>,
}

impl Quote {
    /// The quote, if an order can hold it. A cart may be worth more, say after a price was raised: it can
    /// be looked at and emptied, but not be bought.
    ///
    /// # Errors
    /// [`PricingError::TooLarge`].
    pub fn within_an_order(self) -> Result<Self, PricingError> {
        // The total alone would let a discount hide a subtotal that is too large.
        let largest = self.total.max(self.subtotal + self.tax);
        if largest < Decimal::from(ORDER_LIMIT) { Ok(self) } else { Err(PricingError::TooLarge) }
    }
}

/// Why a cart cannot be priced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    /// A line of no pieces.
    #[error("variant {0} has a quantity of zero")]
    NoQuantity(VariantId),
    /// A price that is negative or has more decimals than the currency.
    #[error("variant {0} has a price that the currency cannot express")]
    InvalidPrice(VariantId),
    /// A tax rate outside 0 to 100 percent.
    #[error("variant {0} has an impossible tax rate")]
    InvalidTaxRate(VariantId),
    /// It is worth more than an order can hold (100 billion).
    #[error("it is worth more than an order can hold, which is below {ORDER_LIMIT}")]
    TooLarge,
}

impl PricingError {
    /// The stable name of the error for clients: too much money is too many pieces.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            PricingError::TooLarge => "quantity-invalid",
            PricingError::NoQuantity(_) | PricingError::InvalidPrice(_) | PricingError::InvalidTaxRate(_) => {
                "unpriceable"
            }
        }
    }
}

/// What no amount of an order reaches, in major units: they are kept in `numeric(14, 3)`, eleven digits
/// before the point.
const ORDER_LIMIT: i64 = 100_000_000_000;

/// Whatever is in a cart can be priced, so that it can always be looked at: 200 lines of 999 pieces of what
/// a `numeric(12, 3)` can hold stay below. So does every product in here below the limits of [`Decimal`].
const SUBTOTAL_LIMIT: i64 = 1_000_000_000_000_000;

/// The pipeline with a shop's policy in it.
#[derive(Clone)]
pub struct Pricing {
    policy: PricingPolicy,
    tax: Arc<dyn TaxStrategy>,
    shipping: Arc<dyn ShippingStrategy>,
}

impl Pricing {
    /// The pipeline for that policy.
    pub fn new(policy: PricingPolicy) -> Self {
        let tax = policy.tax_strategy();
        let shipping = policy.shipping_strategy();
        Self { policy, tax, shipping }
    }

    /// The policy.
    pub fn policy(&self) -> &PricingPolicy {
        &self.policy
    }

    /// Prices the lines.
    ///
    /// `coupons` have passed [`Coupon::check`]. All automatic and all stackable ones are used, and of
    /// the other codes the one that makes the total lowest (on a tie the lowest id); what saves
    /// nothing is not used up but reported in [`Quote::rejected`]. `destination` decides only how
    /// the tax is shown, never how much it is.
    ///
    /// # Errors
    /// [`PricingError`]; `TooLarge` far above what an order can hold, see [`Quote::within_an_order`].
    pub fn quote(
        &self,
        lines: &[LineInput],
        coupons: &[Coupon],
        destination: Option<&Destination>,
        method: ShippingMethod,
    ) -> Result<Quote, PricingError> {
        let subtotals = self.line_subtotals(lines)?;
        let subtotal: Decimal = subtotals.iter().copied().sum();

        let mut rejected = Vec::new();
        let mut usable: Vec<&Coupon> = Vec::new();
        for coupon in coupons {
            match applicable(coupon, lines, subtotal, self.policy.currency) {
                // The same coupon twice, say as a code and automatically, counts once.
                Ok(()) if usable.iter().any(|known| known.id == coupon.id) => {}
                Ok(()) => usable.push(coupon),
                Err(rejection) => rejected.push((coupon.code.clone(), rejection)),
            }
        }
        let (alone, together): (Vec<&Coupon>, Vec<&Coupon>) =
            usable.into_iter().partition(|coupon| !coupon.stackable && !coupon.auto_apply);

        let price = |set: &[&Coupon]| self.price(lines, &subtotals, subtotal, set, destination, method);
        let mut best = price(&together)?;
        let mut winner: Option<&Coupon> = None;
        for &candidate in &alone {
            let mut set = together.clone();
            set.push(candidate);
            let quote = price(&set)?;
            let wins = match winner {
                None => quote.total < best.total,
                Some(holder) => (quote.total, candidate.id) < (best.total, holder.id),
            };
            if wins {
                best = quote;
                winner = Some(candidate);
            }
        }
        for loser in alone.iter().filter(|&&coupon| winner.is_none_or(|winner| winner.id != coupon.id)) {
            let reason = if winner.is_some() { CouponRejection::NotCombinable } else { CouponRejection::NotApplicable };
            rejected.push((loser.code.clone(), reason));
        }
        rejected.append(&mut best.rejected);
        best.rejected = rejected;
        Ok(best)
    }

    fn line_subtotals(&self, lines: &[LineInput]) -> Result<Vec<Decimal>, PricingError> {
        let currency = self.policy.currency;
        let limit = Decimal::from(SUBTOTAL_LIMIT);
        let mut sum = Decimal::ZERO;
        let mut subtotals = Vec::with_capacity(lines.len());
        for line in lines {
            if line.quantity == 0 {
                return Err(PricingError::NoQuantity(line.variant_id));
            }
            if line.unit_price < Decimal::ZERO || round_half_away(line.unit_price, currency) != line.unit_price {
                return Err(PricingError::InvalidPrice(line.variant_id));
            }
            if line.tax_rate < Decimal::ZERO || line.tax_rate > Decimal::ONE_HUNDRED {
                return Err(PricingError::InvalidTaxRate(line.variant_id));
            }
            let subtotal = line
                .unit_price
                .checked_mul(Decimal::from(line.quantity))
                .filter(|&subtotal| subtotal < limit)
                .ok_or(PricingError::TooLarge)?;
            sum += subtotal;
            if sum >= limit {
                return Err(PricingError::TooLarge);
            }
            subtotals.push(round_half_away(subtotal, currency));
        }
        Ok(subtotals)
    }

    /// The pipeline proper, for one set of coupons.
    fn price(
        &self,
        lines: &[LineInput],
        subtotals: &[Decimal],
        subtotal: Decimal,
        coupons: &[&Coupon],
        destination: Option<&Destination>,
        method: ShippingMethod,
    ) -> Result<Quote, PricingError> {
        let currency = self.policy.currency;
        let zero = round_half_away(Decimal::ZERO, currency);

        // Line discounts, then order discounts; within a stage percentages before amounts.
        let mut ordered = coupons.to_vec();
        ordered.sort_by_key(|coupon| (discount::stage(coupon), coupon.kind, coupon.id));
        let mut discounts = vec![zero; lines.len()];
        let mut applied = Vec::new();
        let mut rejected = Vec::new();
        let mut shipping = if lines.is_empty() { zero } else { self.shipping.charge(method, subtotal) };
        shipping = round_half_away(shipping.max(Decimal::ZERO), currency);
        for coupon in ordered {
            let saved = match coupon.kind {
                CouponKind::FreeShipping => std::mem::replace(&mut shipping, zero),
                CouponKind::Percent | CouponKind::Fixed | CouponKind::BuyXGetY => {
                    discount::take_off(coupon, lines, subtotals, &mut discounts, currency)
                }
            };
            if saved.is_zero() {
                rejected.push((coupon.code.clone(), CouponRejection::NotApplicable));
            } else {
                let code = coupon.code.clone();
                applied.push(AppliedCoupon { coupon_id: coupon.id, code, discount: saved });
            }
        }

        let quoted: Vec<QuotedLine> = lines
            .iter()
            .zip(subtotals.iter().zip(discounts))
            .map(|(line, (&subtotal, discount))| {
                let taxable = subtotal - discount;
                let LineTax { tax, cgst, sgst, igst } = self.tax.tax(taxable, line.tax_rate, destination);
                QuotedLine {
                    variant_id: line.variant_id,
                    quantity: line.quantity,
                    unit_price: round_half_away(line.unit_price, currency),
                    subtotal,
                    discount,
                    tax,
                    cgst,
                    sgst,
                    igst,
                    total: taxable + tax,
                }
            })
            .collect();

        // Adding to `zero` rather than to 0 keeps the currency's decimals in the sum of nothing.
        let sum = |amount: fn(&QuotedLine) -> Decimal| quoted.iter().map(amount).fold(zero, |sum, part| sum + part);
        let total = sum(|line| line.total) + shipping;
        Ok(Quote {
            currency,
            subtotal: sum(|line| line.subtotal),
            discount: sum(|line| line.discount),
            tax: sum(|line| line.tax),
            shipping,
            total,
            lines: quoted,
            coupons: applied,
            rejected,
        })
    }
}

fn applicable(
    coupon: &Coupon,
    lines: &[LineInput],
    subtotal: Decimal,
    currency: Currency,
) -> Result<(), CouponRejection> {
    if coupon.currency != currency {
        return Err(CouponRejection::NotApplicable);
    }
    coupon.check_minimum(subtotal)?;
    if lines.iter().any(|line| coupon.scope.covers(line.product_id, line.category_id)) {
        Ok(())
    } else {
        Err(CouponRejection::NotApplicable)
    }
}
