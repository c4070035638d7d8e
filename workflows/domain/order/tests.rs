use super::*;
use chrono::TimeDelta;

#[test]
fn the_state_machine_has_exactly_the_moves_of_the_table() {
    use OrderStatus::{Cancelled, Confirmed, Delivered, Pending, Processing, Refunded, Shipped};
    let moves = [
        (Pending, Confirmed),
        (Pending, Cancelled),
        (Confirmed, Processing),
        (Confirmed, Cancelled),
        (Processing, Shipped),
        (Processing, Cancelled),
        (Shipped, Delivered),
        (Shipped, Cancelled),
        (Delivered, Refunded),
    ];
    for from in OrderStatus::ALL {
        for to in OrderStatus::ALL {
            let expected = if moves.contains(&(from, to)) { Ok(to) } else { Err(InvalidTransition { from, to }) };
            assert_eq!(from.transition(to), expected, "{from} → {to}");
        }
    }
    let error = Delivered.transition(Pending).unwrap_err();
    assert_eq!(error.to_string(), "Invalid state transition from DELIVERED to PENDING");
}

#[test]
fn every_status_is_read_back_and_is_the_same_on_the_wire() {
    for status in OrderStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
    for status in ShipmentStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
    assert!("LOST".parse::<OrderStatus>().is_err());
}

#[test]
fn customers_cancel_before_packing_and_staff_before_the_parcel_leaves() {
    use Actor::{Customer, Staff};
    let now = DateTime::UNIX_EPOCH;
    let check = |status: OrderStatus, actor, left| {
        let parcels: &[_] = if left { &[ShipmentStatus::Shipped] } else { &[] };
        status.cancellable_by(actor, parcels, None, now)
    };
    for actor in [Customer, Staff] {
        assert_eq!(check(OrderStatus::Pending, actor, false), Ok(()));
        assert_eq!(check(OrderStatus::Confirmed, actor, false), Ok(()));
        assert_eq!(check(OrderStatus::Confirmed, actor, true), Err(CancelRefusal::Shipped));
        assert_eq!(check(OrderStatus::Shipped, actor, true), Err(CancelRefusal::Shipped));
        assert_eq!(check(OrderStatus::Delivered, actor, true), Err(CancelRefusal::Delivered));
        assert_eq!(check(OrderStatus::Cancelled, actor, false), Err(CancelRefusal::AlreadyCancelled));
        assert_eq!(check(OrderStatus::Refunded, actor, true), Err(CancelRefusal::Refunded));
    }
    assert_eq!(check(OrderStatus::Processing, Customer, false), Err(CancelRefusal::BeingProcessed));
    assert_eq!(check(OrderStatus::Processing, Staff, false), Ok(()));
    assert_eq!(check(OrderStatus::Processing, Staff, true), Err(CancelRefusal::Shipped));
    assert_eq!(CancelRefusal::Shipped.to_string(), "Cannot cancel shipped orders");
    assert_eq!(CancelRefusal::Delivered.to_string(), "Cannot cancel delivered order. Please initiate return.");
}

#[test]
fn staff_may_cancel_a_shipped_order_once_all_that_left_has_come_back() {
    use ShipmentStatus::{Delivered, InTransit, Lost, Ready, Returned, Shipped};
    let now = DateTime::UNIX_EPOCH;
    let check = |actor, parcels: &[_]| OrderStatus::Shipped.cancellable_by(actor, parcels, None, now);
    for back in [&[Returned][..], &[Returned, Returned], &[Returned, Ready], &[Lost], &[Returned, Lost]] {
        assert_eq!(check(Actor::Staff, back), Ok(()), "{back:?}");
        assert_eq!(check(Actor::Customer, back), Err(CancelRefusal::Shipped), "{back:?}");
    }
    for out in [&[][..], &[Ready], &[Returned, Shipped], &[Lost, InTransit], &[Returned, Delivered]] {
        assert_eq!(check(Actor::Staff, out), Err(CancelRefusal::Shipped), "{out:?}");
    }
}

#[test]
fn the_deadline_binds_customers_but_not_staff() {
    let deadline = DateTime::UNIX_EPOCH;
    let late = deadline + TimeDelta::seconds(1);
    let check = |actor, now| OrderStatus::Confirmed.cancellable_by(actor, &[], Some(deadline), now);
    assert_eq!(check(Actor::Customer, deadline), Ok(()));
    assert_eq!(check(Actor::Customer, late), Err(CancelRefusal::DeadlinePassed));
    assert_eq!(check(Actor::Staff, late), Ok(()));
}

#[test]
fn whatever_may_be_cancelled_has_a_move_to_cancelled() {
    for status in OrderStatus::ALL {
        for parcels in [&[][..], &[ShipmentStatus::Returned]] {
            if status.cancellable_by(Actor::Staff, parcels, None, DateTime::UNIX_EPOCH).is_ok() {
                assert_eq!(status.transition(OrderStatus::Cancelled), Ok(OrderStatus::Cancelled));
            }
        }
    }
}

#[test]
fn an_order_follows_its_shipments() {
    use ShipmentStatus::{Delivered, InTransit, Lost, Ready, Returned, Shipped};
    let processing = |shipments: &[_]| OrderStatus::Processing.after_shipments(shipments, false);
    assert_eq!(processing(&[]), None);
    assert_eq!(processing(&[Ready]), None);
    assert_eq!(processing(&[Ready, Shipped]), Some(OrderStatus::Shipped));
    assert_eq!(processing(&[Ready, Returned]), None, "one was unpacked before it left");
    let shipped = |shipments: &[_], waiting| OrderStatus::Shipped.after_shipments(shipments, waiting);
    assert_eq!(shipped(&[Delivered, InTransit], false), None);
    assert_eq!(shipped(&[Delivered, Returned], true), None, "what came back is to be shipped again");
    assert_eq!(shipped(&[Delivered, Returned, Delivered], false), Some(OrderStatus::Delivered));
    assert_eq!(shipped(&[Delivered, Lost], false), Some(OrderStatus::Delivered));
    assert_eq!(shipped(&[Returned], false), None);
    assert_eq!(shipped(&[Lost], false), None);
    assert_eq!(shipped(&[Delivered], true), None, "the other half is still in the warehouse");
    assert_eq!(shipped(&[Delivered, Delivered], false), Some(OrderStatus::Delivered));
    assert_eq!(OrderStatus::Cancelled.after_shipments(&[Delivered], false), None);
}

#[test]
fn an_order_shows_how_far_its_farthest_parcel_has_come() {
    use ShipmentStatus::{Delivered, InTransit, Lost, Pending, Ready, Returned, Shipped};
    for (parcels, waiting, shown) in [
        (&[][..], true, Pending),
        (&[Ready], false, Ready),
        (&[Ready, Shipped], false, Shipped),
        (&[Delivered, Ready], false, InTransit),
        (&[Delivered], true, InTransit),
        (&[Delivered, Delivered], false, Delivered),
        (&[Delivered, Returned], false, Delivered),
        (&[Returned], true, Returned),
        (&[Lost], false, Lost),
        (&[Lost, Returned], true, Returned),
        (&[Lost, Ready], false, Ready),
    ] {
        assert_eq!(ShipmentStatus::of_order(parcels, waiting), shown, "{parcels:?}, waiting {waiting}");
    }
}

#[test]
fn a_late_courier_report_is_no_news() {
    assert!(ShipmentStatus::Ready.can_become(ShipmentStatus::InTransit));
    assert!(!ShipmentStatus::Delivered.can_become(ShipmentStatus::InTransit));
    assert!(!ShipmentStatus::Shipped.can_become(ShipmentStatus::Shipped));
    for gone in [ShipmentStatus::Returned, ShipmentStatus::Lost] {
        for from in ShipmentStatus::ALL {
            let is_under_way = matches!(from, ShipmentStatus::Shipped | ShipmentStatus::InTransit);
            assert_eq!(from.can_become(gone), is_under_way, "{from} → {gone}");
        }
        assert!(!gone.can_become(ShipmentStatus::Delivered));
    }
}

#[test]
fn folding_the_history_gives_the_status() {
    use OrderStatus::{Cancelled, Confirmed, Pending, Shipped};
    let step = |from, to| Move { from, to };
    let born = step(None, Pending);
    assert_eq!(fold(&[born]), Ok(Pending));
    assert_eq!(fold(&[born, step(Some(Pending), Confirmed), step(Some(Confirmed), Cancelled)]), Ok(Cancelled));
    assert_eq!(fold(&[]), Err(BrokenHistory::Empty));
    assert_eq!(fold(&[step(None, Confirmed)]), Err(BrokenHistory::Start));
    assert_eq!(fold(&[born, step(Some(Confirmed), Cancelled)]), Err(BrokenHistory::Gap { row: 1, expected: Pending }));
    assert_eq!(
        fold(&[born, step(Some(Pending), Shipped)]),
        Err(BrokenHistory::Move(InvalidTransition { from: Pending, to: Shipped }))
    );
}
