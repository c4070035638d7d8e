//! What a coupon takes off, by kind.

use rust_decimal::Decimal;

use super::LineInput;
use super::split::split_by_largest_remainder;
use crate::coupon::{Coupon, CouponKind, CouponScope};
use crate::ids::VariantId;
use crate::money::{Currency, round_half_away};

/// A line within a coupon's scope, as the discounts before this one left it.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscountableLine {
    /// What is bought.
    pub variant_id: VariantId,
    /// How many pieces.
    pub quantity: u32,
    /// The price of one piece.
    pub unit_price: Decimal,
    /// What is left of the line's subtotal.
    pub remaining: Decimal,
}

/// How one kind of coupon is worked out.
pub trait DiscountStrategy: Send + Sync {
    /// What the coupon wants to take off each of `lines`, which are all within its scope. The pipeline
    /// caps the sum at the coupon's `max_discount` and each line at what is left of it.
    fn discounts(&self, coupon: &Coupon, lines: &[DiscountableLine], currency: Currency) -> Vec<Decimal>;
}

/// `value` percent off what is left of the lines together, split over them.
#[derive(Debug, Clone, Copy)]
pub struct PercentOff;

/// `value` off the lines together, split over them.
#[derive(Debug, Clone, Copy)]
pub struct FixedOff;

/// Of every `buy + get` pieces, `get` are free; the cheapest pieces of all lines together are.
#[derive(Debug, Clone, Copy)]
pub struct BuyXGetY;

/// Takes nothing off the merchandise: the pipeline waives the shipping charge.
#[derive(Debug, Clone, Copy)]
pub struct FreeShipping;

/// The strategy for a kind of coupon.
pub fn strategy_for(kind: CouponKind) -> &'static dyn DiscountStrategy {
    match kind {
        CouponKind::Percent => &PercentOff,
        CouponKind::Fixed => &FixedOff,
        CouponKind::BuyXGetY => &BuyXGetY,
        CouponKind::FreeShipping => &FreeShipping,
    }
}

fn split(amount: Decimal, lines: &[DiscountableLine], currency: Currency) -> Vec<Decimal> {
    let weights: Vec<_> = lines.iter().map(|line| (line.variant_id, line.remaining)).collect();
    let whole: Decimal = lines.iter().map(|line| line.remaining).sum();
    split_by_largest_remainder(amount.clamp(Decimal::ZERO, whole), &weights, currency)
}

impl DiscountStrategy for PercentOff {
    fn discounts(&self, coupon: &Coupon, lines: &[DiscountableLine], currency: Currency) -> Vec<Decimal> {
        let whole: Decimal = lines.iter().map(|line| line.remaining).sum();
        let percent = coupon.value.clamp(Decimal::ZERO, Decimal::ONE_HUNDRED);
        let off = round_half_away(whole * percent / Decimal::ONE_HUNDRED, currency);
        // Capped before the split: splitting twice would round twice.
        split(coupon.max_discount.map_or(off, |most| off.min(most)), lines, currency)
    }
}

impl DiscountStrategy for FixedOff {
    fn discounts(&self, coupon: &Coupon, lines: &[DiscountableLine], currency: Currency) -> Vec<Decimal> {
        let off = coupon.max_discount.map_or(coupon.value, |most| coupon.value.min(most));
        split(off, lines, currency)
    }
}

impl DiscountStrategy for BuyXGetY {
    fn discounts(&self, coupon: &Coupon, lines: &[DiscountableLine], _currency: Currency) -> Vec<Decimal> {
        let buy = u64::from(coupon.buy_quantity.unwrap_or(0));
        let get = u64::from(coupon.get_quantity.unwrap_or(0));
        let mut discounts = vec![Decimal::ZERO; lines.len()];
        if buy == 0 {
            return discounts;
        }
        let pieces: u64 = lines.iter().map(|line| u64::from(line.quantity)).sum();
        let (groups, rest) = (pieces / (buy + get), pieces % (buy + get));
        let mut free = groups * get + rest.saturating_sub(buy);
        let mut cheapest_first: Vec<usize> = (0..lines.len()).collect();
        cheapest_first.sort_by_key(|&index| (lines[index].unit_price, lines[index].variant_id));
        for index in cheapest_first {
            let taken = free.min(u64::from(lines[index].quantity));
            free -= taken;
            discounts[index] = lines[index].unit_price * Decimal::from(taken);
        }
        discounts
    }
}

impl DiscountStrategy for FreeShipping {
    fn discounts(&self, _coupon: &Coupon, lines: &[DiscountableLine], _currency: Currency) -> Vec<Decimal> {
        vec![Decimal::ZERO; lines.len()]
    }
}

/// Line discounts (0) come before order discounts (1): free pieces and whatever is for some products
/// only belong to lines, the rest to the order.
pub(super) fn stage(coupon: &Coupon) -> u8 {
    match (coupon.kind, &coupon.scope) {
        (CouponKind::BuyXGetY, CouponScope::All | CouponScope::Products(_) | CouponScope::Categories(_))
        | (CouponKind::Percent | CouponKind::Fixed, CouponScope::Products(_) | CouponScope::Categories(_)) => 0,
        (CouponKind::Percent | CouponKind::Fixed, CouponScope::All) => 1,
        (CouponKind::FreeShipping, CouponScope::All | CouponScope::Products(_) | CouponScope::Categories(_)) => 2,
    }
}

/// Takes the coupon off the lines in its scope, never more than is left of each nor than the coupon's
/// cap, and returns how much that was together.
pub(super) fn take_off(
    coupon: &Coupon,
    lines: &[LineInput],
    subtotals: &[Decimal],
    discounts: &mut [Decimal],
    currency: Currency,
) -> Decimal {
    let in_scope: Vec<usize> = (0..lines.len())
        .filter(|&index| coupon.scope.covers(lines[index].product_id, lines[index].category_id))
        .collect();
    let eligible: Vec<DiscountableLine> = in_scope
        .iter()
        .map(|&index| DiscountableLine {
            variant_id: lines[index].variant_id,
            quantity: lines[index].quantity,
            unit_price: lines[index].unit_price,
            remaining: subtotals[index] - discounts[index],
        })
        .collect();
    let mut wanted: Vec<Decimal> = strategy_for(coupon.kind)
        .discounts(coupon, &eligible, currency)
        .into_iter()
        .zip(&eligible)
        .map(|(off, line)| round_half_away(off.clamp(Decimal::ZERO, line.remaining), currency))
        .collect();
    let mut saved: Decimal = wanted.iter().copied().sum();
    if let Some(most) = coupon.max_discount.map(|most| round_half_away(most.max(Decimal::ZERO), currency))
        && saved > most
    {
        let weights: Vec<_> = eligible.iter().map(|line| line.variant_id).zip(wanted).collect();
        wanted = split_by_largest_remainder(most, &weights, currency);
        saved = most;
    }
    for (index, off) in in_scope.into_iter().zip(wanted) {
        discounts[index] += off;
    }
    round_half_away(saved, currency)
}
