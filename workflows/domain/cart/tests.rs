use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::money::Currency;

fn variant(number: u128) -> VariantId {
    VariantId(Uuid::from_u128(number))
}

fn pieces(number: i64) -> Quantity {
    Quantity::new(number).expect("1 to 999")
}

fn line(number: u128, quantity: i64) -> CartLine {
    CartLine { variant_id: variant(number), quantity: pieces(quantity) }
}

fn cart(status: CartStatus, lines: &[CartLine]) -> ShoppingCart {
    ShoppingCart::restore(CartId(Uuid::nil()), None, status, lines.to_vec(), vec!["SAVE20".to_owned()])
}

#[test]
fn every_status_is_read_back_from_its_own_name() {
    for status in CartStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(serde_json::to_value(status).expect("json"), status.as_str());
    }
    assert!("active".parse::<CartStatus>().is_err());
}

#[test]
fn only_active_and_abandoned_carts_can_be_modified() {
    let modifiable: Vec<_> = CartStatus::ALL.into_iter().filter(|status| status.can_modify()).collect();
    assert_eq!(modifiable, [CartStatus::Active, CartStatus::Abandoned]);
}

#[test]
fn a_quantity_is_from_1_to_999() {
    for good in [1, 2, 999] {
        assert_eq!(i64::from(pieces(good).get()), good);
    }
    for bad in [0, -1, 1000, i64::MAX, i64::MIN] {
        assert_eq!(Quantity::new(bad), Err(CartError::QuantityInvalid));
    }
    assert_eq!("7".parse(), Ok(pieces(7)));
    assert_eq!("seven".parse::<Quantity>(), Err(CartError::QuantityInvalid));
    assert_eq!(serde_json::from_value::<Quantity>(json!(7)).expect("a quantity"), pieces(7));
    assert!(serde_json::from_value::<Quantity>(json!(0)).is_err());
    assert_eq!(serde_json::to_value(pieces(7)).expect("json"), json!(7));
}

#[test]
fn a_line_is_removed_by_zero_and_by_nothing_else() {
    assert_eq!(Quantity::unless_zero(0), Ok(None));
    assert_eq!(Quantity::unless_zero(999), Ok(Some(pieces(999))));
    assert_eq!(Quantity::unless_zero(-1), Err(CartError::QuantityInvalid));
    assert_eq!(Quantity::unless_zero(1000), Err(CartError::QuantityInvalid));
}

#[test]
fn adding_a_variant_twice_sums_its_quantities() {
    let mut cart = ShoppingCart::new(CartId(Uuid::nil()), None);
    assert!(cart.is_empty());
    assert_eq!(cart.add(variant(1), pieces(2)), Ok(pieces(2)));
    assert_eq!(cart.add(variant(2), pieces(1)), Ok(pieces(1)));
    assert_eq!(cart.add(variant(1), pieces(3)), Ok(pieces(5)));
    assert_eq!(cart.lines().collect::<Vec<_>>(), [line(1, 5), line(2, 1)]);
    assert_eq!(cart.item_count(), 6);
}

#[test]
fn a_sum_above_the_limit_is_refused_and_changes_nothing() {
    let mut cart = cart(CartStatus::Active, &[line(1, 999)]);
    let before = cart.clone();
    assert_eq!(cart.add(variant(1), pieces(1)), Err(CartError::QuantityInvalid));
    assert_eq!(cart, before);
}

#[test]
fn line_201_is_refused_but_the_200_there_can_still_grow() {
    let full: Vec<_> = (0..200).map(|number| line(number, 1)).collect();
    let mut cart = cart(CartStatus::Active, &full);
    assert_eq!(cart.add(variant(200), pieces(1)), Err(CartError::TooManyLines));
    assert_eq!(cart.add(variant(199), pieces(1)), Ok(pieces(2)));
}

#[test]
fn updating_sets_the_quantity_and_updating_to_none_removes_the_line() {
    let mut cart = cart(CartStatus::Active, &[line(1, 2), line(2, 2)]);
    assert_eq!(cart.update(variant(1), Some(pieces(7))), Ok(()));
    assert_eq!(cart.update(variant(2), None), Ok(()));
    assert_eq!(cart.lines().collect::<Vec<_>>(), [line(1, 7)]);
    assert_eq!(cart.update(variant(2), Some(pieces(1))), Err(CartError::ItemNotInCart(variant(2))));
    assert_eq!(cart.remove(variant(2)), Err(CartError::ItemNotInCart(variant(2))));
}

#[test]
fn clearing_takes_the_coupons_too() {
    let mut cart = cart(CartStatus::Active, &[line(1, 2)]);
    assert_eq!(cart.clear(), Ok(()));
    assert!(cart.is_empty() && cart.coupons().is_empty());
}

#[test]
fn a_coupon_is_noted_once_whatever_its_case() {
    let mut cart = cart(CartStatus::Active, &[]);
    assert_eq!(cart.apply_coupon("save20"), Ok(()));
    assert_eq!(cart.apply_coupon("FREESHIP"), Ok(()));
    assert_eq!(cart.coupons(), ["SAVE20", "FREESHIP"]);
    assert_eq!(cart.remove_coupon("Save20"), Ok(()));
    assert_eq!(cart.remove_coupon("Save20"), Ok(()));
    assert_eq!(cart.coupons(), ["FREESHIP"]);
}

type Change = fn(&mut ShoppingCart) -> Result<(), CartError>;
const CHANGES: [Change; 6] = [
    |cart| cart.add(variant(1), pieces(1)).map(drop),
    |cart| cart.update(variant(1), Some(pieces(1))),
    |cart| cart.remove(variant(1)),
    ShoppingCart::clear,
    |cart| cart.apply_coupon("X"),
    |cart| cart.remove_coupon("X"),
];

#[test]
fn a_cart_that_is_checked_out_or_over_refuses_every_change() {
    for status in [CartStatus::Checkout, CartStatus::Converted, CartStatus::Expired] {
        for change in CHANGES {
            let mut cart = cart(status, &[line(1, 2)]);
            let before = cart.clone();
            assert_eq!(change(&mut cart), Err(CartError::NotActive(status)));
            assert_eq!(cart, before);
        }
    }
}

#[test]
fn any_change_takes_up_an_abandoned_cart_again() {
    for change in CHANGES {
        let mut cart = cart(CartStatus::Abandoned, &[line(1, 2)]);
        assert_eq!(change(&mut cart), Ok(()));
        assert_eq!(cart.status(), CartStatus::Active);
    }
}

#[test]
fn errors_have_the_seeds_messages_and_stable_codes() {
    for (error, code, message) in [
        (CartError::NotActive(CartStatus::Converted), "cart-not-active", "Cannot modify cart with status: CONVERTED"),
        (CartError::NotActive(CartStatus::Checkout), "cart-in-checkout", "Cannot modify cart with status: CHECKOUT"),
        (
            CartError::ItemNotInCart(variant(1)),
            "item-not-in-cart",
            "Item with variantId 00000000-0000-0000-0000-000000000001 not found in cart",
        ),
        (CartError::AlreadyOwned, "cart-already-owned", "Cart already associated with a user"),
        (CartError::QuantityInvalid, "quantity-invalid", "Quantity must be positive and at most 999"),
        (CartError::TooManyLines, "too-many-lines", "Cart cannot have more than 200 lines"),
    ] {
        assert_eq!((error.code(), error.to_string().as_str()), (code, message));
    }
}

#[test]
fn a_merge_keeps_every_line_and_sums_the_common_ones() {
    let Merged { lines, adjustments, .. } = merge(&[line(3, 1), line(1, 2)], &[line(2, 4), line(1, 1)], |_| 100);
    assert_eq!(lines, [line(1, 3), line(2, 4), line(3, 1)]);
    assert_eq!(adjustments, []);
}

#[test]
fn a_merge_is_limited_by_stock_and_by_the_quantity_cap_and_says_so() {
    let stock = |asked: VariantId| match asked.0.as_u128() {
        1 => 3,
        2 => 0,
        _ => 5000,
    };
    let Merged { lines, adjustments, .. } =
        merge(&[line(1, 2), line(2, 2), line(3, 500)], &[line(1, 2), line(3, 500)], stock);
    assert_eq!(lines, [line(1, 3), line(2, 1), line(3, 999)]);
    let told: Vec<_> = adjustments.iter().map(|a| (a.requested_quantity, a.quantity, a.reason)).collect();
    assert_eq!(
        told,
        [
            (4, 3, AdjustmentReason::LimitedStock),
            (2, 1, AdjustmentReason::OutOfStock),
            (1000, 999, AdjustmentReason::QuantityLimit),
        ]
    );
}

#[test]
fn a_second_merge_changes_nothing() {
    let lines = merge(&[line(1, 5)], &[line(2, 900)], |_| 1).lines;
    assert_eq!(lines, [line(1, 1), line(2, 900)]);
    assert_eq!(merge(&[], &lines, |_| 0), Merged { lines: lines.clone(), ..Merged::default() });
}

#[test]
fn a_merge_of_two_full_carts_loses_no_line() {
    let guest: Vec<_> = (0..200).map(|number| line(number, 1)).collect();
    let user: Vec<_> = (50..240).map(|number| line(number, 1)).collect();
    let Merged { lines, left, adjustments } = merge(&guest, &user, |_| 100);
    // The first ten of the fifty new ones fit.
    assert_eq!((lines.len(), left.len(), adjustments.len()), (200, 40, 40));
    assert_eq!(left, (10..50).map(|number| line(number, 1)).collect::<Vec<_>>());
    assert!(adjustments.iter().all(|told| (told.quantity, told.reason) == (0, AdjustmentReason::LineLimit)));
}

#[test]
fn notices_are_camel_case_with_prices_as_decimal_strings() {
    let price = |text: &str| text.parse::<Decimal>().expect("a decimal");
    let notice = CartNotice::price_changed(variant(1), price("999.000"), price("1049.5"), Currency::INR);
    assert_eq!(
        serde_json::to_value(notice).expect("json"),
        json!({"type": "PRICE_CHANGED", "variantId": variant(1), "oldPrice": "999.00", "newPrice": "1049.50", "currency": "INR"})
    );
    assert_eq!(CartNotice::price_changed(variant(1), price("999.000"), price("999"), Currency::INR), None);
    let adjusted = Adjustment {
        variant_id: variant(1),
        requested_quantity: 4,
        quantity: 3,
        reason: AdjustmentReason::LimitedStock,
    };
    let json = json!({"type": "QUANTITY_ADJUSTED", "variantId": variant(1), "requestedQuantity": 4, "quantity": 3,
        "reason": "LIMITED_STOCK"});
    assert_eq!(serde_json::to_value(CartNotice::from(adjusted)).expect("json"), json);
    assert_eq!(serde_json::from_value::<CartNotice>(json).expect("a notice"), CartNotice::from(adjusted));
}
