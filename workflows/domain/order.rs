//! Orders: the state machine, how shipments drive it, and who may cancel when.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// Where an order stands (seed: `OrderStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Placed, not paid.
    Pending,
    /// Paid, or to be paid on delivery.
    Confirmed,
    /// Being packed.
    Processing,
    /// On its way.
    Shipped,
    /// With the customer.
    Delivered,
    /// Called off; its payment, if any, goes back.
    Cancelled,
    /// Returned and paid back.
    Refunded,
}

/// An order cannot go from one status to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Invalid state transition from {from} to {to}")]
pub struct InvalidTransition {
    /// Where it stands.
    pub from: OrderStatus,
    /// Where it was asked to go.
    pub to: OrderStatus,
}

/// Who asks for a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Actor {
    /// The customer who placed the order.
    Customer,
    /// Someone who works for the shop.
    Staff,
}

/// Why an order cannot be cancelled; the text is meant for the person who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CancelRefusal {
    /// It left the warehouse.
    #[error("Cannot cancel shipped orders")]
    Shipped,
    /// It arrived: a return is the way back.
    #[error("Cannot cancel delivered order. Please initiate return.")]
    Delivered,
    /// It is being packed, and only staff can stop that.
    #[error("Cannot cancel an order that is being processed. Please contact us.")]
    BeingProcessed,
    /// The time in which a customer may cancel is over.
    #[error("The time to cancel this order has passed. Please contact us.")]
    DeadlinePassed,
    /// It is cancelled already.
    #[error("The order is already cancelled")]
    AlreadyCancelled,
    /// It was returned and paid back.
    #[error("Cannot cancel a refunded order")]
    Refunded,
}

impl OrderStatus {
    /// Every status, in the order an order can meet them.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Confirmed,
        Self::Processing,
        Self::Shipped,
        Self::Delivered,
        Self::Cancelled,
        Self::Refunded,
    ];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Processing => "PROCESSING",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
            Self::Cancelled => "CANCELLED",
            Self::Refunded => "REFUNDED",
        }
    }

    /// The statuses an order in this one may move to. This is the only table of moves (seed: the
    /// `canTransitionTo` of every order state).
    pub fn next(self) -> &'static [Self] {
        match self {
            Self::Pending => &[Self::Confirmed, Self::Cancelled],
            Self::Confirmed => &[Self::Processing, Self::Cancelled],
            Self::Processing => &[Self::Shipped, Self::Cancelled],
            Self::Shipped => &[Self::Delivered],
            Self::Delivered => &[Self::Refunded],
            Self::Cancelled | Self::Refunded => &[],
        }
    }

    /// The status after the move.
    ///
    /// # Errors
    /// [`InvalidTransition`] if the table has no such move.
    pub fn transition(self, to: Self) -> Result<Self, InvalidTransition> {
        if self.next().contains(&to) { Ok(to) } else { Err(InvalidTransition { from: self, to }) }
    }

    /// Whether `actor` may cancel an order in this status at `now`.
    ///
    /// Customers cancel what is not being packed yet, until `deadline` if there is one; staff also
    /// what is being packed, and after the deadline. Nobody cancels once a shipment has left.
    ///
    /// # Errors
    /// [`CancelRefusal`] says why not.
    pub fn cancellable_by(
        self,
        actor: Actor,
        shipment_left: bool,
        deadline: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<(), CancelRefusal> {
        match self {
            Self::Shipped => return Err(CancelRefusal::Shipped),
            Self::Delivered => return Err(CancelRefusal::Delivered),
            Self::Cancelled => return Err(CancelRefusal::AlreadyCancelled),
            Self::Refunded => return Err(CancelRefusal::Refunded),
            Self::Pending | Self::Confirmed | Self::Processing => {}
        }
        if shipment_left {
            return Err(CancelRefusal::Shipped);
        }
        match actor {
            Actor::Staff => Ok(()),
            Actor::Customer if self == Self::Processing => Err(CancelRefusal::BeingProcessed),
            Actor::Customer if deadline.is_some_and(|deadline| now > deadline) => Err(CancelRefusal::DeadlinePassed),
            Actor::Customer => Ok(()),
        }
    }

    /// Where the order's shipments move it, if anywhere; one move at a time (seed:
    /// `updateShipmentStatus`). A processing order is shipped once its first parcel leaves; a shipped
    /// one is delivered once its last parcel arrived, which needs that nothing is still
    /// `waiting_to_ship`. A parcel on its way back has left, but has not arrived.
    pub fn after_shipments(self, shipments: &[ShipmentStatus], waiting_to_ship: bool) -> Option<Self> {
        match self {
            Self::Processing => shipments.iter().any(|shipment| shipment.has_left()).then_some(Self::Shipped),
            Self::Shipped => {
                let all_arrived = shipments.iter().all(|&shipment| shipment == ShipmentStatus::Delivered);
                (all_arrived && !shipments.is_empty() && !waiting_to_ship).then_some(Self::Delivered)
            }
            Self::Pending | Self::Confirmed | Self::Delivered | Self::Cancelled | Self::Refunded => None,
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OrderStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "order status", text: text.to_owned() })
    }
}

/// Where a parcel is (seed: `ShipmentStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ShipmentStatus {
    /// To be packed.
    Pending,
    /// Packed, waiting for the courier.
    Ready,
    /// Handed to the courier.
    Shipped,
    /// Scanned on its way.
    InTransit,
    /// With the customer.
    Delivered,
    /// Back with us, or on its way back.
    Returned,
}

impl ShipmentStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Ready, Self::Shipped, Self::InTransit, Self::Delivered, Self::Returned];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Ready => "READY",
            Self::Shipped => "SHIPPED",
            Self::InTransit => "IN_TRANSIT",
            Self::Delivered => "DELIVERED",
            Self::Returned => "RETURNED",
        }
    }

    /// Whether the courier has, or had, the parcel.
    pub fn has_left(self) -> bool {
        match self {
            Self::Pending | Self::Ready => false,
            Self::Shipped | Self::InTransit | Self::Delivered | Self::Returned => true,
        }
    }

    /// Whether a report of `to` is news for a parcel in this status: a parcel only moves on, and may
    /// skip scans, but couriers' reports arrive late, twice and out of order.
    pub fn can_become(self, to: Self) -> bool {
        to > self && (to != Self::Returned || self.has_left())
    }
}

impl fmt::Display for ShipmentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ShipmentStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "shipment status", text: text.to_owned() })
    }
}

/// One row of an order's history: where it came from and where it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The status before; none for the row that creates the order.
    pub from: Option<OrderStatus>,
    /// The status after.
    pub to: OrderStatus,
}

/// Why a history is not one of a real order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenHistory {
    /// There are no rows.
    #[error("the history is empty")]
    Empty,
    /// The first row is not (none) → PENDING.
    #[error("the history does not start with (none) → PENDING")]
    Start,
    /// A row does not start where the one before it ended.
    #[error("row {row} does not continue from {expected}")]
    Gap {
        /// Its place, from 0.
        row: usize,
        /// Where the row before it ended.
        expected: OrderStatus,
    },
    /// A row makes a move the state machine does not have.
    #[error(transparent)]
    Move(#[from] InvalidTransition),
}

/// The status an order's history adds up to, oldest row first.
///
/// # Errors
/// [`BrokenHistory`] if the rows are not a walk through the state machine from its start.
pub fn fold(history: &[Move]) -> Result<OrderStatus, BrokenHistory> {
    let (first, rest) = history.split_first().ok_or(BrokenHistory::Empty)?;
    if first.from.is_some() || first.to != OrderStatus::Pending {
        return Err(BrokenHistory::Start);
    }
    let mut status = first.to;
    for (row, step) in rest.iter().enumerate() {
        if step.from != Some(status) {
            return Err(BrokenHistory::Gap { row: row + 1, expected: status });
        }
        status = status.transition(step.to)?;
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
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
            (Delivered, Refunded),
        ];
        for from in OrderStatus::ALL {
            for to in OrderStatus::ALL {
                let expected =
                    if moves.contains(&(from, to)) { Ok(to) } else { Err(InvalidTransition { from, to }) };
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
        let check = |status: OrderStatus, actor, left| status.cancellable_by(actor, left, None, now);
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
        assert_eq!(
            CancelRefusal::Delivered.to_string(),
            "Cannot cancel delivered order. Please initiate return."
        );
    }

    #[test]
    fn the_deadline_binds_customers_but_not_staff() {
        let deadline = DateTime::UNIX_EPOCH;
        let late = deadline + TimeDelta::seconds(1);
        let check = |actor, now| OrderStatus::Confirmed.cancellable_by(actor, false, Some(deadline), now);
        assert_eq!(check(Actor::Customer, deadline), Ok(()));
        assert_eq!(check(Actor::Customer, late), Err(CancelRefusal::DeadlinePassed));
        assert_eq!(check(Actor::Staff, late), Ok(()));
    }

    #[test]
    fn whatever_may_be_cancelled_has_a_move_to_cancelled() {
        for status in OrderStatus::ALL {
            if status.cancellable_by(Actor::Staff, false, None, DateTime::UNIX_EPOCH).is_ok() {
                assert_eq!(status.transition(OrderStatus::Cancelled), Ok(OrderStatus::Cancelled));
            }
        }
    }

    #[test]
    fn an_order_follows_its_shipments() {
        use ShipmentStatus::{Delivered, InTransit, Ready, Returned, Shipped};
        let processing = |shipments: &[_]| OrderStatus::Processing.after_shipments(shipments, false);
        assert_eq!(processing(&[]), None);
        assert_eq!(processing(&[Ready]), None);
        assert_eq!(processing(&[Ready, Shipped]), Some(OrderStatus::Shipped));
        let shipped = |shipments: &[_], waiting| OrderStatus::Shipped.after_shipments(shipments, waiting);
        assert_eq!(shipped(&[Delivered, InTransit], false), None);
        assert_eq!(shipped(&[Delivered, Returned], false), None);
        assert_eq!(shipped(&[Delivered], true), None, "the other half is still in the warehouse");
        assert_eq!(shipped(&[Delivered, Delivered], false), Some(OrderStatus::Delivered));
        assert_eq!(OrderStatus::Cancelled.after_shipments(&[Delivered], false), None);
    }

    #[test]
    fn a_late_courier_report_is_no_news() {
        assert!(ShipmentStatus::Ready.can_become(ShipmentStatus::InTransit));
        assert!(ShipmentStatus::Delivered.can_become(ShipmentStatus::Returned));
        assert!(!ShipmentStatus::Delivered.can_become(ShipmentStatus::InTransit));
        assert!(!ShipmentStatus::Shipped.can_become(ShipmentStatus::Shipped));
        assert!(!ShipmentStatus::Ready.can_become(ShipmentStatus::Returned));
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
        assert_eq!(
            fold(&[born, step(Some(Confirmed), Cancelled)]),
            Err(BrokenHistory::Gap { row: 1, expected: Pending })
        );
        assert_eq!(
            fold(&[born, step(Some(Pending), Shipped)]),
            Err(BrokenHistory::Move(InvalidTransition { from: Pending, to: Shipped }))
        );
    }
}
