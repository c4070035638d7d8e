//! Orders: the state machine, how shipments drive it, and who may cancel when.

#[cfg(test)]
mod tests;

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
    /// `canTransitionTo` of every order state, and SHIPPED → CANCELLED for an order that nobody took: its
    /// parcels came back, and without this move its money and its stock never would; whether it may be
    /// made says [`cancellable_by`](Self::cancellable_by)).
    pub fn next(self) -> &'static [Self] {
        match self {
            Self::Pending => &[Self::Confirmed, Self::Cancelled],
            Self::Confirmed => &[Self::Processing, Self::Cancelled],
            Self::Processing => &[Self::Shipped, Self::Cancelled],
            Self::Shipped => &[Self::Delivered, Self::Cancelled],
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

    /// Whether `actor` may cancel an order in this status, with these `parcels`, at `now`.
    ///
    /// Customers cancel what is not being packed yet, until `deadline` if there is one; staff also
    /// what is being packed, and after the deadline. Nobody cancels once a shipment has left; but when all
    /// that left has come back, staff either ship it again or cancel.
    ///
    /// # Errors
    /// [`CancelRefusal`] says why not.
    pub fn cancellable_by(
        self,
        actor: Actor,
        parcels: &[ShipmentStatus],
        deadline: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<(), CancelRefusal> {
        match self {
            Self::Shipped if actor == Actor::Staff && ShipmentStatus::came_back(parcels) => return Ok(()),
            Self::Shipped => return Err(CancelRefusal::Shipped),
            Self::Delivered => return Err(CancelRefusal::Delivered),
            Self::Cancelled => return Err(CancelRefusal::AlreadyCancelled),
            Self::Refunded => return Err(CancelRefusal::Refunded),
            Self::Pending | Self::Confirmed | Self::Processing => {}
        }
        if parcels.iter().any(|parcel| parcel.is_out()) {
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
    /// `waiting_to_ship`. What was in a parcel that came back is to be shipped again, or called off.
    pub fn after_shipments(self, shipments: &[ShipmentStatus], waiting_to_ship: bool) -> Option<Self> {
        match self {
            Self::Processing => shipments.iter().any(|shipment| shipment.is_out()).then_some(Self::Shipped),
            Self::Shipped => {
                let mut under_way = shipments.iter().filter(|shipment| shipment.holds_goods()).peekable();
                let any = under_way.peek().is_some();
                let all_arrived = under_way.all(|&shipment| shipment == ShipmentStatus::Delivered);
                (any && all_arrived && !waiting_to_ship).then_some(Self::Delivered)
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
    /// Back with us, or on its way back; also unpacked before it left.
    Returned,
    /// The courier does not know where it is: what was in it is written off.
    Lost,
}

impl ShipmentStatus {
    /// Every status.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Ready, Self::Shipped, Self::InTransit, Self::Delivered, Self::Returned, Self::Lost];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Ready => "READY",
            Self::Shipped => "SHIPPED",
            Self::InTransit => "IN_TRANSIT",
            Self::Delivered => "DELIVERED",
            Self::Returned => "RETURNED",
            Self::Lost => "LOST",
        }
    }

    /// Whether the courier has, or had, the parcel.
    pub fn has_left(self) -> bool {
        match self {
            Self::Pending | Self::Ready => false,
            Self::Shipped | Self::InTransit | Self::Delivered | Self::Returned | Self::Lost => true,
        }
    }

    /// Whether the courier or the customer has it.
    pub fn is_out(self) -> bool {
        match self {
            Self::Pending | Self::Ready | Self::Returned | Self::Lost => false,
            Self::Shipped | Self::InTransit | Self::Delivered => true,
        }
    }

    /// Whether its pieces are delivered, or will be.
    pub fn holds_goods(self) -> bool {
        match self {
            Self::Pending | Self::Ready | Self::Shipped | Self::InTransit | Self::Delivered => true,
            Self::Returned | Self::Lost => false,
        }
    }

    /// Whether some of an order's parcels left, and each that did is with us again or lost: nothing was
    /// delivered, and nothing is on its way.
    pub fn came_back(parcels: &[Self]) -> bool {
        parcels.iter().any(|parcel| parcel.has_left()) && !parcels.iter().any(|parcel| parcel.is_out())
    }

    /// Whether a report of `to` is news for a parcel in this status: a parcel only moves on, and may
    /// skip scans, but couriers' reports arrive late, twice and out of order. Only what is under way comes
    /// back or is lost: what the customer has had comes back by a return.
    pub fn can_become(self, to: Self) -> bool {
        match to {
            Self::Pending | Self::Ready | Self::Shipped | Self::InTransit | Self::Delivered => to > self,
            Self::Returned | Self::Lost => matches!(self, Self::Shipped | Self::InTransit),
        }
    }

    /// What is shown for an order with these parcels: how far the farthest has come, except that
    /// DELIVERED means everything has arrived and nothing is `waiting_to_ship`. Parcels that came back or
    /// were lost count only when there are no others.
    pub fn of_order(parcels: &[Self], waiting_to_ship: bool) -> Self {
        let under_way = || parcels.iter().copied().filter(|parcel| parcel.holds_goods());
        match under_way().max() {
            None => parcels.iter().copied().min().unwrap_or(Self::Pending),
            Some(Self::Delivered) if waiting_to_ship || under_way().any(|parcel| parcel != Self::Delivered) => {
                Self::InTransit
            }
            Some(farthest) => farthest,
        }
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
