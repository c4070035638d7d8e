use super::*;
use proptest::prelude::*;

const TEN: Stock = Stock { available: 10, reserved: 0 };

#[test]
fn a_sale_holds_then_commits_and_may_come_back() {
    let (held, _) = TEN.hold(3).unwrap();
    assert_eq!(held, Stock { available: 7, reserved: 3 });
    let (sold, _) = held.commit(3).unwrap();
    assert_eq!(sold, Stock { available: 7, reserved: 0 });
    let (back, movement) = sold.give_back(3).unwrap();
    assert_eq!(back, TEN);
    assert_eq!(movement, Movement { kind: MovementKind::Return, available_delta: 3, reserved_delta: 0 });
    assert_eq!(held.release(3).unwrap().0, TEN);
    assert_eq!(held.expire(3).unwrap().0, TEN);
}

#[test]
fn what_is_not_there_cannot_be_moved() {
    assert_eq!(TEN.hold(11), Err(StockError::OutOfStock { available: 10 }));
    assert_eq!(TEN.commit(1), Err(StockError::NotReserved { reserved: 0 }));
    assert_eq!(TEN.release(1), Err(StockError::NotReserved { reserved: 0 }));
    assert_eq!(TEN.adjust(-11), Err(StockError::OutOfStock { available: 10 }));
    assert_eq!(TEN.hold(0), Err(StockError::QuantityInvalid));
    assert_eq!(TEN.adjust(0), Err(StockError::QuantityInvalid));
    assert_eq!(TEN.restock(u32::MAX), Err(StockError::QuantityInvalid));
    assert_eq!(StockError::OutOfStock { available: 0 }.to_string(), "Out of stock");
}

#[test]
fn a_hold_ends_once() {
    use ReservationStatus::{Active, Confirmed, Expired, Released, Returned};
    let moves = [(Active, Confirmed), (Active, Released), (Active, Expired), (Confirmed, Returned)];
    for from in ReservationStatus::ALL {
        assert_eq!(from.as_str().parse(), Ok(from));
        for to in ReservationStatus::ALL {
            assert_eq!(from.transition(to).is_ok(), moves.contains(&(from, to)), "{from} → {to}");
        }
    }
}

fn apply(stock: Stock, kind: MovementKind, quantity: u32) -> Result<(Stock, Movement), StockError> {
    match kind {
        MovementKind::Restock => stock.restock(quantity),
        MovementKind::Adjust => stock.adjust(3 - i32::try_from(quantity).unwrap()),
        MovementKind::Hold => stock.hold(quantity),
        MovementKind::Commit => stock.commit(quantity),
        MovementKind::Release => stock.release(quantity),
        MovementKind::Expire => stock.expire(quantity),
        MovementKind::Return => stock.give_back(quantity),
    }
}

proptest! {
    #[test]
    fn the_movements_add_up_to_the_counters_and_nothing_is_ever_negative(
        steps in prop::collection::vec((prop::sample::select(&MovementKind::ALL[..]), 0_u32..8), 0..200)
    ) {
        let mut stock = Stock::default();
        let (mut available, mut reserved) = (0, 0);
        for (kind, quantity) in steps {
            if let Ok((after, movement)) = apply(stock, kind, quantity) {
                prop_assert_eq!(movement.kind, kind);
                available += movement.available_delta;
                reserved += movement.reserved_delta;
                stock = after;
            }
            prop_assert_eq!(stock, Stock { available, reserved });
            prop_assert!(stock.available >= 0 && stock.reserved >= 0);
        }
    }
}
