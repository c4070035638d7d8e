use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    coupon::{CouponKind, CouponScope},
    ids::{CartId, CouponId, ProductId},
    pricing::{Pricing, PricingPolicy},
};
use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::Rules;

fn shop() -> Shop {
    let rules = Rules::default();
    Shop { pricing: Pricing::new(PricingPolicy::default()), rules, gateways: Default::default(), mailer: None }
}

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

fn laptop() -> CartLine {
    CartLine {
        variant_id: Uuid::from_u128(1).into(),
        product_id: ProductId::from(Uuid::from_u128(2)),
        category_id: None,
        quantity: 1,
        price: Decimal::from(50_000),
        price_when_added: Decimal::from(50_000),
        currency: "INR".to_owned(),
        tax_rate: Decimal::from(18),
        sku: "LAP-001".to_owned(),
        name: "Laptop".to_owned(),
        attributes: None,
        image_url: None,
        is_active: true,
        available: 100,
    }
}

fn save20() -> Candidate {
    let coupon = Coupon {
        id: CouponId::from(Uuid::from_u128(20)),
        code: "SAVE20".to_owned(),
        kind: CouponKind::Percent,
        currency: Currency::INR,
        value: Decimal::from(20),
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
    };
    Candidate { coupon, redeemed_by_user: 0 }
}

fn held(lines: Vec<CartLine>, candidates: Vec<Candidate>) -> HeldCart {
    let cart = StoredCart {
        id: CartId::generate(),
        user_id: None,
        session_hash: Some(vec![1]),
        status: CartStatus::Active,
        currency: "INR".to_owned(),
        version: 1,
        generation: 1,
        checkout_run_id: None,
        lines,
    };
    HeldCart::new(cart, candidates, Stamp::default(), noon())
}

#[test]
fn one_laptop_costs_what_the_seed_says_and_less_with_a_coupon() {
    let plain = held(vec![laptop()], vec![]).view(&shop()).expect("priced");
    assert_eq!(plain.quote.total.to_string(), "59050.00");
    assert_eq!((plain.applied_coupons, plain.notices), (vec![], vec![]));

    let with_coupon = held(vec![laptop()], vec![save20()]).view(&shop()).expect("priced");
    assert_eq!(with_coupon.quote.total.to_string(), "47250.00");
    assert_eq!(with_coupon.applied_coupons, ["SAVE20"]);
}

#[test]
fn a_coupon_that_has_run_out_is_dropped_with_its_reason() {
    let mut candidate = save20();
    candidate.coupon.ends_at = Some(noon() - TimeDelta::seconds(1));
    let view = held(vec![laptop()], vec![candidate]).view(&shop()).expect("priced");
    assert_eq!(view.quote.total.to_string(), "59050.00");
    assert_eq!(
        serde_json::to_value(&view.notices).expect("JSON"),
        json!([
            { "type": "COUPON_DROPPED", "code": "SAVE20", "reason": "expired" }
        ])
    );
}

#[test]
fn an_empty_cart_costs_nothing_and_keeps_its_coupon() {
    let view = held(vec![], vec![save20()]).view(&shop()).expect("priced");
    assert_eq!(view.quote.total.to_string(), "0.00");
    assert_eq!(view.applied_coupons, ["SAVE20"]);
    assert_eq!(view.notices, []);
}

#[test]
fn a_new_price_and_a_shortage_are_both_told() {
    let line = CartLine { price_when_added: Decimal::from(45_000), quantity: 3, available: 2, ..laptop() };
    let view = held(vec![line.clone()], vec![]).view(&shop()).expect("priced");
    assert_eq!(
        serde_json::to_value(&view.notices).expect("JSON"),
        json!([
            { "type": "PRICE_CHANGED", "variantId": line.variant_id, "oldPrice": "45000.00", "newPrice": "50000.00",
              "currency": "INR" },
            { "type": "QUANTITY_UNAVAILABLE", "variantId": line.variant_id, "sku": "LAP-001", "quantity": 3, "available": 2 }
        ])
    );
}

#[test]
fn what_its_own_checkout_holds_is_not_held_against_a_cart() {
    let mut candidate = save20();
    candidate.coupon.usage_limit = Some(1);
    candidate.coupon.per_user_limit = Some(1);
    candidate.coupon.held_count = 1;
    candidate.redeemed_by_user = 1;
    let line = CartLine { available: 0, ..laptop() };
    let mut cart = held(vec![line], vec![candidate]);
    cart.cart.status = CartStatus::Checkout;
    let view = cart.view(&shop()).expect("priced");
    assert_eq!(view.quote.total.to_string(), "47250.00");
    assert_eq!(view.notices, []);
}
