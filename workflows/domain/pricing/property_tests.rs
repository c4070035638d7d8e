//! What must hold for every cart and every set of coupons.

use proptest::prelude::*;

use super::tests::{buy_get, line, place};
use super::*;
use crate::coupon::CouponScope;

/// Currencies without decimals, with two and with three.
fn currency() -> impl Strategy<Value = Currency> {
    prop::sample::select(vec!["JPY", "INR", "KWD"]).prop_map(|code| code.parse().unwrap())
}

/// Carts of all tax classes; `line` puts variant n into category 100 + n, so that scopes meet some lines.
fn lines(currency: Currency) -> impl Strategy<Value = Vec<LineInput>> {
    let one = (0_u128..6, 1_u32..=999, 0_i64..10_000_000, prop::sample::select(vec![0_i64, 5, 18, 40]));
    prop::collection::vec(one, 0..8).prop_map(move |lines| {
        let build = |(variant, quantity, minor, rate): (u128, u32, i64, i64)| LineInput {
            unit_price: Decimal::new(minor, currency.exponent()),
            tax_rate: Decimal::from(rate),
            ..line(variant, quantity, "0", "0")
        };
        lines.into_iter().map(build).collect()
    })
}

/// Up to five of any kind, scope, cap and minimum, some of which join others.
fn coupons(currency: Currency) -> impl Strategy<Value = Vec<Coupon>> {
    let one = (
        prop::sample::select(&CouponKind::ALL[..]),
        0_i64..2_000_000,
        prop::option::of(0_i64..5_000_000),
        any::<(bool, bool)>(),
        prop::option::of((any::<bool>(), prop::collection::vec(0_u128..6, 0..4))),
        (0_u32..4, 0_u32..4),
        prop::option::of(0_i64..5_000_000),
    );
    let decimals = currency.exponent();
    prop::collection::vec(one, 0..6).prop_map(move |coupons| {
        let numbered = (0_u128..).zip(coupons);
        numbered
            .map(|(id, (kind, value, cap, (stackable, auto_apply), scope, (buy, get), minimum))| Coupon {
                kind,
                currency,
                value: if kind == CouponKind::Percent {
                    Decimal::new(value % 10_001, 2)
                } else {
                    Decimal::new(value, decimals)
                },
                max_discount: cap.map(|cap| Decimal::new(cap, decimals)),
                min_order_value: minimum.map(|minimum| Decimal::new(minimum, decimals)),
                stackable,
                auto_apply,
                scope: match scope {
                    None => CouponScope::All,
                    Some((true, ids)) => CouponScope::Products(ids.into_iter().map(Uuid::from_u128).collect()),
                    Some((false, ids)) => {
                        CouponScope::Categories(ids.into_iter().map(|id| Uuid::from_u128(100 + id)).collect())
                    }
                },
                ..buy_get(id, buy, get)
            })
            .collect()
    })
}

/// A currency, a cart priced in it, and coupons for it.
fn shopping() -> impl Strategy<Value = (Currency, Vec<LineInput>, Vec<Coupon>)> {
    currency().prop_flat_map(|currency| (Just(currency), lines(currency), coupons(currency)))
}

proptest! {
    #[test]
    fn every_quote_adds_up((currency, lines, coupons) in shopping(), at_home in any::<bool>()) {
        let pricing = Pricing::new(PricingPolicy { currency, ..PricingPolicy::default() });
        let decimals = currency.exponent();
        let destination = place("IN", if at_home { "MH" } else { "KA" });
        let quote = pricing.quote(&lines, &coupons, Some(&destination), ShippingMethod::Express).unwrap();

        let sum = |amount: fn(&QuotedLine) -> Decimal| quote.lines.iter().map(amount).sum::<Decimal>();
        prop_assert_eq!(sum(|line| line.total) + quote.shipping, quote.total);
        prop_assert_eq!(sum(|line| line.discount), quote.discount);
        prop_assert_eq!(sum(|line| line.tax), quote.tax);
        prop_assert_eq!(quote.subtotal - quote.discount + quote.tax + quote.shipping, quote.total);
        for line in &quote.lines {
            prop_assert_eq!(line.subtotal - line.discount + line.tax, line.total);
            let parts = if at_home { line.cgst + line.sgst } else { line.igst };
            prop_assert_eq!(parts, line.tax);
            prop_assert!(line.sgst - line.cgst <= Decimal::new(1, decimals));
            for amount in [line.subtotal, line.discount, line.tax, line.cgst, line.sgst, line.igst, line.total] {
                prop_assert!(amount >= Decimal::ZERO);
                prop_assert_eq!(amount.scale(), decimals);
            }
        }
        for amount in [quote.subtotal, quote.discount, quote.tax, quote.shipping, quote.total] {
            prop_assert!(amount >= Decimal::ZERO);
            prop_assert_eq!(amount.scale(), decimals);
        }
        for applied in &quote.coupons {
            let coupon = coupons.iter().find(|coupon| coupon.id == applied.coupon_id).unwrap();
            prop_assert!(applied.discount > Decimal::ZERO);
            if let (Some(most), true) = (coupon.max_discount, coupon.kind != CouponKind::FreeShipping) {
                prop_assert!(applied.discount <= most);
            }
        }
        prop_assert_eq!(quote.coupons.len() + quote.rejected.len(), coupons.len());
        let alone = |used: &&AppliedCoupon| {
            coupons.iter().any(|c| c.id == used.coupon_id && !c.stackable && !c.auto_apply)
        };
        prop_assert!(quote.coupons.iter().filter(alone).count() <= 1, "codes that do not stack are used alone");
        // What coupons took off the merchandise is the order's discount; free shipping is told apart.
        let shipping_waived = |used: &&AppliedCoupon| {
            coupons.iter().any(|c| c.id == used.coupon_id && c.kind == CouponKind::FreeShipping)
        };
        let off: Decimal = quote.coupons.iter().filter(|used| !shipping_waived(used)).map(|used| used.discount).sum();
        prop_assert_eq!(off, quote.discount);

        let back: Quote = serde_json::from_str(&serde_json::to_string(&quote).unwrap()).unwrap();
        prop_assert_eq!(back, quote);
    }

    /// As much as the columns hold: `numeric(12, 3)`, 999 pieces, 200 lines, any coupon, any policy in range.
    #[test]
    fn whatever_can_be_stored_is_priced_without_a_panic(
        (currency, _, coupons) in shopping(),
        count in 1_usize..=200,
        thousandths in prop::collection::vec(999_000_000_000_i64..=999_999_999_999, 1..5),
        hundredths in 0_i64..=10_000,
        values in prop::collection::vec(0_i64..=999_999_999_999, 5),
    ) {
        let lines: Vec<_> = (0..count).map(|index| LineInput {
            unit_price: round_half_away(Decimal::new(thousandths[index % thousandths.len()], 3), currency),
            tax_rate: Decimal::new(hundredths, 2),
            ..line(index as u128 % 6 + 6 * (index as u128 / 6), 999, "0", "0")
        }).collect();
        let coupons: Vec<_> = coupons.into_iter().zip(values).map(|(coupon, value)| Coupon {
            value: if coupon.kind == CouponKind::Percent { coupon.value } else { Decimal::new(value, 3) },
            max_discount: coupon.max_discount.map(|_| Decimal::new(value, 3)),
            ..coupon
        }).collect();
        let dear = Decimal::from(999_999_999);
        let policy = PricingPolicy {
            currency,
            shipping: ShippingRates { standard: dear, express: dear },
            tax: if hundredths % 2 == 0 { TaxPolicy::Gst } else { TaxPolicy::FlatRate { rate: Decimal::ONE_HUNDRED } },
            ..PricingPolicy::default()
        };
        let quote = Pricing::new(policy).quote(&lines, &coupons, Some(&place("IN", "MH")), ShippingMethod::Express);
        let quote = quote.unwrap();
        prop_assert_eq!(quote.subtotal - quote.discount + quote.tax + quote.shipping, quote.total);
        prop_assert!(quote.clone().within_an_order().is_ok() == (quote.subtotal + quote.tax < Decimal::from(ORDER_LIMIT) && quote.total < Decimal::from(ORDER_LIMIT)));
    }

    #[test]
    fn the_total_does_not_depend_on_the_address((currency, lines, coupons) in shopping()) {
        let pricing = Pricing::new(PricingPolicy { currency, ..PricingPolicy::default() });
        let total = |to: Option<&Destination>| pricing.quote(&lines, &coupons, to, ShippingMethod::Standard).unwrap().total;
        prop_assert_eq!(total(None), total(Some(&place("IN", "MH"))));
        prop_assert_eq!(total(None), total(Some(&place("IN", "KA"))));
        prop_assert_eq!(total(None), total(Some(&place("NP", "Bagmati"))));
    }

    #[test]
    fn no_other_code_would_have_been_better((currency, lines, coupons) in shopping()) {
        let pricing = Pricing::new(PricingPolicy { currency, ..PricingPolicy::default() });
        let total = |coupons: &[Coupon]| pricing.quote(&lines, coupons, None, ShippingMethod::Standard).unwrap().total;
        let joins = |coupon: &Coupon| coupon.stackable || coupon.auto_apply;
        for code in coupons.iter().filter(|coupon| !joins(coupon)) {
            let with_this: Vec<Coupon> =
                coupons.iter().filter(|coupon| joins(coupon) || coupon.id == code.id).cloned().collect();
            prop_assert!(total(&coupons) <= total(&with_this));
        }
    }

    #[test]
    fn a_split_adds_up_and_no_part_exceeds_its_weight(
        weights in prop::collection::vec(0_i64..1_000_000_000, 1..20), percent in 0_i64..=100
    ) {
        let weights: Vec<(usize, Decimal)> = weights.into_iter().map(|paise| Decimal::new(paise, 2)).enumerate().collect();
        let whole: Decimal = weights.iter().map(|(_, weight)| weight).sum();
        let amount = round_half_away(whole * Decimal::new(percent, 2), Currency::INR);
        let parts = split_by_largest_remainder(amount, &weights, Currency::INR);
        prop_assert_eq!(parts.iter().sum::<Decimal>(), amount);
        for (part, (_, weight)) in parts.iter().zip(&weights) {
            prop_assert!(part <= weight);
        }
    }
}
