//! Dividing an amount to the last paisa.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::money::{Currency, round_half_away};

/// Divides `amount` in proportion to `weights` so that the parts add up to it exactly: everyone gets
/// the whole minor units of their share, and what is left goes, one unit each, to the largest
/// remainders; among equal ones to the lowest `rank`. If `amount ≤ Σ weights`, no part exceeds its
/// weight. Amount and weights are not negative and below 10¹⁵, which a cart never reaches; without
/// any weight every part is zero.
pub fn split_by_largest_remainder<R: Ord>(
    amount: Decimal,
    weights: &[(R, Decimal)],
    currency: Currency,
) -> Vec<Decimal> {
    // 10¹⁵ major units are at most 10¹⁸ minor ones; their product is below i128's 10³⁸.
    let scale = Decimal::from(10_u64.pow(currency.exponent()));
    let minor = |amount: Decimal| (round_half_away(amount, currency) * scale).to_i128().unwrap_or(0).max(0);
    let amount = minor(amount);
    let shares: Vec<i128> = weights.iter().map(|(_, weight)| minor(*weight)).collect();
    let whole: i128 = shares.iter().sum();
    if whole == 0 {
        return vec![round_half_away(Decimal::ZERO, currency); weights.len()];
    }

    let mut parts: Vec<i128> = shares.iter().map(|share| amount * share / whole).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by(|&left, &right| {
        let remainder = |index: usize| amount * shares[index] % whole;
        remainder(right).cmp(&remainder(left)).then_with(|| weights[left].0.cmp(&weights[right].0))
    });
    let left_over = amount - parts.iter().sum::<i128>();
    for index in by_remainder.into_iter().take(usize::try_from(left_over).unwrap_or(0)) {
        parts[index] += 1;
    }
    parts.into_iter().map(|part| Decimal::from_i128_with_scale(part, currency.exponent())).collect()
}
