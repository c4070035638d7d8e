//! What must hold for every cart and every set of coupons.

use proptest::prelude::*;

use super::tests::{buy_get, line, place};
use super::*;
use crate::coupon::CouponScope;

fn lines() -> impl Strategy<Value = Vec<LineInput>> {
    let one = (0_u128..6, 1_u32..=999, 0_i64..10_000_000, prop::sample::select(vec![0_i64, 5, 18, 40]));
    prop::collection::vec(one, 0..8).prop_map(|lines| {
        let build = |(variant, quantity, paise, rate): (u128, u32, i64, i64)| LineInput {
            unit_price: Decimal::new(paise, 2),
            tax_rate: Decimal::from(rate),
            ..line(variant, quantity, "0", "0")
        };
        lines.into_iter().map(build).collect()
    })
}

fn coupons() -> impl Strategy<Value = Vec<Coupon>> {
    let one = (
        prop::sample::select(&CouponKind::ALL[..]),
        0_i64..2_000_000,
        prop::option::of(0_i64..5_000_000),
        any::<(bool, bool)>(),
        prop::option::of(0_u128..6),
        (0_u32..4, 0_u32..4),
    );
    prop::collection::vec(one, 0..5).prop_map(|coupons| {
        let numbered = (0_u128..).zip(coupons);
        numbered
            .map(|(id, (kind, value, cap, (stackable, auto_apply), product, (buy, get)))| Coupon {
                kind,
                value: if kind == CouponKind::Percent {
                    Decimal::new(value % 10_001, 2)
                } else {
                    Decimal::new(value, 2)
                },
                max_discount: cap.map(|cap| Decimal::new(cap, 2)),
                stackable,
                auto_apply,
                scope: product.map_or(CouponScope::All, |id| CouponScope::Products(vec![Uuid::from_u128(id)])),
                ..buy_get(id, buy, get)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn every_quote_adds_up(lines in lines(), coupons in coupons(), at_home in any::<bool>()) {
        let pricing = Pricing::new(PricingPolicy::default());
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
            prop_assert!(line.sgst - line.cgst <= Decimal::new(1, 2));
            for amount in [line.subtotal, line.discount, line.tax, line.cgst, line.sgst, line.igst, line.total] {
                prop_assert!(amount >= Decimal::ZERO);
                prop_assert_eq!(amount.scale(), 2);
            }
        }
        for amount in [quote.subtotal, quote.discount, quote.tax, quote.shipping, quote.total] {
            prop_assert!(amount >= Decimal::ZERO);
            prop_assert_eq!(amount.scale(), 2);
        }
        for applied in &quote.coupons {
            let coupon = coupons.iter().find(|coupon| coupon.id == applied.coupon_id).unwrap();
            prop_assert!(applied.discount > Decimal::ZERO);
            if let (Some(most), true) = (coupon.max_discount, coupon.kind != CouponKind::FreeShipping) {
                prop_assert!(applied.discount <= most);
            }
        }
        prop_assert_eq!(quote.coupons.len() + quote.rejected.len(), coupons.len());

        let back: Quote = serde_json::from_str(&serde_json::to_string(&quote).unwrap()).unwrap();
        prop_assert_eq!(back, quote);
    }

    #[test]
    fn the_total_does_not_depend_on_the_address(lines in lines(), coupons in coupons()) {
        let pricing = Pricing::new(PricingPolicy::default());
        let total = |to: Option<&Destination>| pricing.quote(&lines, &coupons, to, ShippingMethod::Standard).unwrap().total;
        prop_assert_eq!(total(None), total(Some(&place("IN", "MH"))));
        prop_assert_eq!(total(None), total(Some(&place("IN", "KA"))));
        prop_assert_eq!(total(None), total(Some(&place("NP", "Bagmati"))));
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
