use super::*;
use crate::coupon::CouponScope;

pub(super) fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub(super) fn line(variant: u128, quantity: u32, unit_price: &str, tax_rate: &str) -> LineInput {
    LineInput {
        variant_id: VariantId(Uuid::from_u128(variant)),
        product_id: ProductId(Uuid::from_u128(variant)),
        category_id: Some(Uuid::from_u128(100 + variant)),
        quantity,
        unit_price: dec(unit_price),
        tax_rate: dec(tax_rate),
    }
}

pub(super) fn coupon(id: u128, kind: CouponKind, value: &str) -> Coupon {
    Coupon {
        id: CouponId(Uuid::from_u128(id)),
        code: format!("C{id}"),
        kind,
        currency: Currency::INR,
        value: dec(value),
        min_order_value: None,
        max_discount: None,
        starts_at: None,
        ends_at: None,
        usage_limit: None,
        per_user_limit: None,
        current_usage_count: 0,
        held_count: 0,
        stackable: false,
        auto_apply: false,
        scope: CouponScope::All,
        buy_quantity: None,
        get_quantity: None,
        is_active: true,
    }
}

pub(super) fn buy_get(id: u128, buy: u32, get: u32) -> Coupon {
    Coupon { buy_quantity: Some(buy), get_quantity: Some(get), ..coupon(id, CouponKind::BuyXGetY, "0") }
}

fn quote(lines: &[LineInput], coupons: &[Coupon]) -> Quote {
    Pricing::new(PricingPolicy::default()).quote(lines, coupons, None, ShippingMethod::Standard).unwrap()
}

fn used(quote: &Quote) -> Vec<&str> {
    quote.coupons.iter().map(|coupon| coupon.code.as_str()).collect()
}

pub(super) fn place(country: &str, state: &str) -> Destination {
    Destination { country: country.to_owned(), state: state.to_owned() }
}

#[test]
fn a_laptop_costs_what_the_shop_promises() {
    let laptop = [line(1, 1, "50000.00", "18")];
    let plain = quote(&laptop, &[]);
    let shown = [plain.tax, plain.shipping, plain.total].map(|amount| amount.to_string());
    assert_eq!(shown, ["9000.00", "50.00", "59050.00"]);

    let reduced = quote(&laptop, &[coupon(1, CouponKind::Percent, "20")]);
    let shown = [reduced.discount, reduced.tax, reduced.total].map(|amount| amount.to_string());
    assert_eq!(shown, ["10000.00", "7200.00", "47250.00"]);
    assert_eq!(reduced.coupons[0].discount, dec("10000"));
}

#[test]
fn an_empty_cart_costs_nothing_not_even_shipping() {
    let empty = quote(&[], &[coupon(1, CouponKind::FreeShipping, "0")]);
    assert_eq!(empty.total.to_string(), "0.00");
    assert_eq!(empty.shipping.to_string(), "0.00");
    assert_eq!(empty.rejected, [("C1".to_owned(), CouponRejection::NotApplicable)]);
}

#[test]
fn an_order_may_cost_nothing_at_all() {
    let mut free_shipping = coupon(2, CouponKind::FreeShipping, "0");
    free_shipping.auto_apply = true;
    let quote = quote(&[line(1, 2, "10.00", "18")], &[coupon(1, CouponKind::Fixed, "500"), free_shipping]);
    assert_eq!(quote.total, Decimal::ZERO);
    assert_eq!(quote.discount, dec("20"));
    assert_eq!(quote.coupons[1].discount, dec("50"), "the waived shipping is the coupon's saving");
}

#[test]
fn an_order_discount_is_split_to_the_last_paisa_and_ties_go_to_the_lowest_variant() {
    let lines = [line(3, 1, "10.00", "0"), line(1, 1, "10.00", "0"), line(2, 1, "10.00", "0")];
    let quote = quote(&lines, &[coupon(1, CouponKind::Fixed, "10.01")]);
    let shares: Vec<String> = quote.lines.iter().map(|line| line.discount.to_string()).collect();
    assert_eq!(shares, ["3.33", "3.34", "3.34"], "two paise are left over: variants 1 and 2 get them");
}

#[test]
fn tax_is_on_the_discounted_line_at_its_own_rate() {
    let quote =
        quote(&[line(1, 1, "100.00", "40"), line(2, 1, "100.00", "5")], &[coupon(1, CouponKind::Percent, "50")]);
    assert_eq!(quote.lines[0].tax, dec("20"));
    assert_eq!(quote.lines[1].tax, dec("2.50"));
}

#[test]
fn inside_the_sellers_state_the_tax_is_shown_in_two_halves() {
    let pricing = Pricing::new(PricingPolicy::default());
    let lines = [line(1, 1, "0.25", "20")];
    for home in
        [place("India", "Maharashtra"), place(" in", "mh "), place("IND", "IN-MH"), place("INDIA", "MAHARASHTRA")]
    {
        let line = &pricing.quote(&lines, &[], Some(&home), ShippingMethod::Standard).unwrap().lines[0];
        assert_eq!([line.tax, line.cgst, line.sgst, line.igst], ["0.05", "0.02", "0.03", "0"].map(dec), "{home:?}");
    }
    for away in [place("India", "Karnataka"), place("Nepal", "Maharashtra")] {
        let line = &pricing.quote(&lines, &[], Some(&away), ShippingMethod::Standard).unwrap().lines[0];
        assert_eq!([line.tax, line.cgst, line.sgst, line.igst], ["0.05", "0", "0", "0.05"].map(dec), "{away:?}");
    }
}

#[test]
fn shipping_is_by_method_and_free_above_the_threshold_even_with_a_coupon() {
    let policy = PricingPolicy { free_shipping_above: Some(dec("100")), ..PricingPolicy::default() };
    let pricing = Pricing::new(policy);
    let shipping = |price, coupons: &[Coupon], method| {
        pricing.quote(&[line(1, 1, price, "0")], coupons, None, method).unwrap().shipping
    };
    assert_eq!(shipping("100.00", &[], ShippingMethod::Standard), dec("50"));
    assert_eq!(shipping("100.00", &[], ShippingMethod::Express), dec("150"));
    assert_eq!(shipping("100.01", &[coupon(1, CouponKind::Percent, "90")], ShippingMethod::Express), Decimal::ZERO);
}

#[test]
fn of_two_codes_the_better_one_is_used_and_on_a_tie_the_older() {
    let lines = [line(1, 1, "100.00", "18")];
    let better = quote(&lines, &[coupon(1, CouponKind::Fixed, "10"), coupon(2, CouponKind::Percent, "11")]);
    assert_eq!(used(&better), ["C2"]);
    assert_eq!(better.rejected, [("C1".to_owned(), CouponRejection::NotCombinable)]);
    let tie = quote(&lines, &[coupon(2, CouponKind::Percent, "10"), coupon(1, CouponKind::Fixed, "10")]);
    assert_eq!(used(&tie), ["C1"]);
}

#[test]
fn automatic_and_stackable_coupons_join_a_code() {
    let automatic = Coupon { auto_apply: true, ..coupon(2, CouponKind::Percent, "10") };
    let stackable = Coupon { stackable: true, ..coupon(3, CouponKind::Fixed, "5") };
    let quote = quote(&[line(1, 1, "100.00", "0")], &[coupon(1, CouponKind::Percent, "20"), automatic, stackable]);
    assert_eq!(used(&quote), ["C1", "C2", "C3"], "percentages first, each on what the one before left");
    assert_eq!(quote.discount, dec("33"));
}

#[test]
fn the_same_coupon_twice_counts_once() {
    let save = coupon(1, CouponKind::Percent, "10");
    let automatic = Coupon { auto_apply: true, ..save.clone() };
    assert_eq!(quote(&[line(1, 1, "100.00", "0")], &[save, automatic]).discount, dec("10"));
}

#[test]
fn a_cap_limits_what_a_coupon_takes_off() {
    let capped = |kind, value| Coupon { max_discount: Some(dec("7.01")), ..coupon(1, kind, value) };
    let lines = [line(1, 3, "10.00", "0"), line(2, 3, "10.00", "0")];
    assert_eq!(quote(&lines, &[capped(CouponKind::Percent, "20")]).discount, dec("7.01"));
    assert_eq!(quote(&lines, &[capped(CouponKind::Fixed, "20")]).discount, dec("7.01"));
    let free_pieces = Coupon { max_discount: Some(dec("7.01")), ..buy_get(1, 1, 1) };
    assert_eq!(quote(&lines, &[free_pieces]).discount, dec("7.01"));
}

#[test]
fn a_scoped_coupon_leaves_the_other_lines_alone() {
    let lines = [line(1, 1, "100.00", "0"), line(2, 1, "100.00", "0")];
    let products = CouponScope::Products(vec![Uuid::from_u128(2)]);
    let categories = CouponScope::Categories(vec![Uuid::from_u128(102)]);
    for scope in [products, categories] {
        let quote = quote(&lines, &[Coupon { scope, ..coupon(1, CouponKind::Fixed, "150") }]);
        assert_eq!([quote.lines[0].discount, quote.lines[1].discount], ["0", "100"].map(dec));
    }
    let elsewhere = Coupon { scope: CouponScope::Products(vec![]), ..coupon(1, CouponKind::Fixed, "150") };
    assert_eq!(quote(&lines, &[elsewhere]).rejected, [("C1".to_owned(), CouponRejection::NotApplicable)]);
}

#[test]
fn a_coupon_below_its_minimum_is_reported_and_not_used() {
    let picky = Coupon { min_order_value: Some(dec("100.01")), ..coupon(1, CouponKind::Percent, "10") };
    let quote = quote(&[line(1, 1, "100.00", "0")], &[picky]);
    assert_eq!(quote.discount, Decimal::ZERO);
    assert_eq!(quote.rejected, [("C1".to_owned(), CouponRejection::MinimumNotMet)]);
}

#[test]
fn the_cheapest_pieces_are_the_free_ones() {
    let lines = [line(1, 2, "30.00", "0"), line(2, 2, "10.00", "0")];
    let discount = |buy, get| quote(&lines, &[buy_get(1, buy, get)]).discount;
    assert_eq!(discount(2, 1), dec("10"), "four pieces: one group of three");
    assert_eq!(discount(1, 1), dec("20"));
    assert_eq!(discount(1, 3), dec("50"), "both cheap ones and one dear one");
    assert_eq!(discount(3, 2), dec("10"), "one piece beyond the three paid for");
    assert_eq!(discount(4, 1), Decimal::ZERO);
    assert_eq!(discount(0, 1), Decimal::ZERO, "nothing is free without buying");
}

#[test]
fn lines_that_make_no_sense_are_refused() {
    let pricing = Pricing::new(PricingPolicy::default());
    let error = |line: LineInput| pricing.quote(&[line], &[], None, ShippingMethod::Standard).unwrap_err();
    let variant = VariantId(Uuid::from_u128(1));
    assert_eq!(error(line(1, 0, "1.00", "18")), PricingError::NoQuantity(variant));
    assert_eq!(error(line(1, 1, "-1.00", "18")), PricingError::InvalidPrice(variant));
    assert_eq!(error(line(1, 1, "1.001", "18")), PricingError::InvalidPrice(variant));
    assert_eq!(error(line(1, 1, "1.00", "101")), PricingError::InvalidTaxRate(variant));
    assert_eq!(error(line(1, 1, "1000000000000000", "18")), PricingError::TooLarge);
    assert_eq!(error(line(1, u32::MAX, "79228162514264337593543950335", "18")), PricingError::TooLarge);
}

#[test]
fn a_cart_may_be_worth_more_than_an_order_can_hold_and_still_be_looked_at() {
    let pricing = Pricing::new(PricingPolicy::default());
    let quote = |price: &str| pricing.quote(&[line(1, 1, price, "18")], &[], None, ShippingMethod::Standard).unwrap();
    // 84,745,762,669.00 and 18 % and 50.00 are 99,999,999,999.42.
    assert!(quote("84745762669.00").within_an_order().is_ok());
    assert_eq!(quote("84745762670.00").within_an_order(), Err(PricingError::TooLarge));
    let fullest: Vec<_> = (0..200).map(|variant| line(variant, 999, "999999999.99", "40")).collect();
    let worth = pricing.quote(&fullest, &[], None, ShippingMethod::Express).unwrap();
    assert_eq!(worth.subtotal.to_string(), "199799999998002.00");
}

#[test]
fn a_policy_is_read_with_defaults_and_without_typing_errors() {
    let policy: PricingPolicy =
        serde_json::from_str(r#"{"currency":"JPY","tax":{"kind":"FLAT_RATE","rate":"10"}}"#).unwrap();
    let quote = Pricing::new(policy).quote(&[line(1, 3, "333", "18")], &[], None, ShippingMethod::Standard).unwrap();
    assert_eq!(quote.tax.to_string(), "100");
    assert_eq!(quote.total.to_string(), "1149");
    assert!(serde_json::from_str::<PricingPolicy>(r#"{"free_shiping_above":"10"}"#).is_err());
}
