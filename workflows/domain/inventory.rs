//! Stock: two counters, the moves between them, and the life of a hold.
//!
//! Every change gives back the [`Movement`] to append to the ledger, so that the sum of a variant's
//! movements always equals its counters.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// The stock of one variant, in pieces. Neither counter is ever negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stock {
    /// Can be sold now.
    pub available: i32,
    /// Held for a checkout, or sold and not yet out of the counters.
    pub reserved: i32,
}

/// What kind of change a movement records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MovementKind {
    /// New goods came in.
    Restock,
    /// Someone counted.
    Adjust,
    /// A checkout set pieces aside.
    Hold,
    /// The checkout was paid: the pieces are sold.
    Commit,
    /// The checkout gave up.
    Release,
    /// The hold ran out.
    Expire,
    /// Sold pieces came back: a cancellation or a return.
    Return,
}

impl MovementKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Restock, Self::Adjust, Self::Hold, Self::Commit, Self::Release, Self::Expire, Self::Return];

    /// The name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restock => "RESTOCK",
            Self::Adjust => "ADJUST",
            Self::Hold => "HOLD",
            Self::Commit => "COMMIT",
            Self::Release => "RELEASE",
            Self::Expire => "EXPIRE",
            Self::Return => "RETURN",
        }
    }
}

/// One line of the ledger: by how much each counter changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// Why.
    pub kind: MovementKind,
    /// Change of [`Stock::available`], in pieces.
    pub available_delta: i32,
    /// Change of [`Stock::reserved`], in pieces.
    pub reserved_delta: i32,
}

/// Why stock did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StockError {
    /// Fewer pieces can be sold than were asked for.
    #[error("Out of stock")]
    OutOfStock {
        /// How many there are.
        available: i32,
    },
    /// Fewer pieces are held than were to be committed or released: the same hold ended twice.
    #[error("only {reserved} pieces are reserved")]
    NotReserved {
        /// How many are held.
        reserved: i32,
    },
    /// The quantity is zero or the counter would overflow.
    #[error("the quantity is not valid")]
    QuantityInvalid,
}

impl Stock {
    /// Sets pieces aside: available −q, reserved +q.
    ///
    /// # Errors
    /// [`StockError::OutOfStock`] with what is left; [`StockError::QuantityInvalid`].
    pub fn hold(self, quantity: u32) -> Result<(Self, Movement), StockError> {
        let pieces = pieces(quantity)?;
        self.moved(MovementKind::Hold, -pieces, pieces)
    }

    /// Sells held pieces: reserved −q.
    ///
    /// # Errors
    /// [`StockError::NotReserved`]; [`StockError::QuantityInvalid`].
    pub fn commit(self, quantity: u32) -> Result<(Self, Movement), StockError> {
        self.moved(MovementKind::Commit, 0, -pieces(quantity)?)
    }

    /// Ends a hold that its checkout gave up: available +q, reserved −q.
    ///
    /// # Errors
    /// [`StockError::NotReserved`]; [`StockError::QuantityInvalid`].
    pub fn release(self, quantity: u32) -> Result<(Self, Movement), StockError> {
        let pieces = pieces(quantity)?;
        self.moved(MovementKind::Release, pieces, -pieces)
    }

    /// Ends a hold whose time ran out: available +q, reserved −q.
    ///
    /// # Errors
    /// [`StockError::NotReserved`]; [`StockError::QuantityInvalid`].
    pub fn expire(self, quantity: u32) -> Result<(Self, Movement), StockError> {
        let pieces = pieces(quantity)?;
        self.moved(MovementKind::Expire, pieces, -pieces)
    }

    /// Takes sold pieces back after a cancellation or a return: available +q.
    ///
    /// # Errors
    /// [`StockError::QuantityInvalid`].
    pub fn give_back(self, quantity: u32) -> Result<(Self, Movement), StockError> {
        self.moved(MovementKind::Return, pieces(quantity)?, 0)
    }

    /// Books new goods in: available +q.
    ///
    /// # Errors
    /// [`StockError::QuantityInvalid`].
    pub fn restock(self, quantity: u32) -> Result<(Self, Movement), StockError> {
        self.moved(MovementKind::Restock, pieces(quantity)?, 0)
    }

    /// Corrects what can be sold after counting: available + `delta`, which may be negative.
    ///
    /// # Errors
    /// [`StockError::OutOfStock`] if fewer would be left than none; [`StockError::QuantityInvalid`]
    /// if `delta` is zero.
    pub fn adjust(self, delta: i32) -> Result<(Self, Movement), StockError> {
        if delta == 0 {
            return Err(StockError::QuantityInvalid);
        }
        self.moved(MovementKind::Adjust, delta, 0)
    }

    fn moved(
        self,
        kind: MovementKind,
        available_delta: i32,
        reserved_delta: i32,
    ) -> Result<(Self, Movement), StockError> {
        let available = self.available.checked_add(available_delta).ok_or(StockError::QuantityInvalid)?;
        let reserved = self.reserved.checked_add(reserved_delta).ok_or(StockError::QuantityInvalid)?;
        if available < 0 {
            return Err(StockError::OutOfStock { available: self.available });
        }
        if reserved < 0 {
            return Err(StockError::NotReserved { reserved: self.reserved });
        }
        // The table's total column must fit as well.
        available.checked_add(reserved).ok_or(StockError::QuantityInvalid)?;
        Ok((Self { available, reserved }, Movement { kind, available_delta, reserved_delta }))
    }
}

fn pieces(quantity: u32) -> Result<i32, StockError> {
    match i32::try_from(quantity) {
        Ok(pieces) if pieces > 0 => Ok(pieces),
        Ok(_) | Err(_) => Err(StockError::QuantityInvalid),
    }
}

/// Where a hold on stock is in its life. RETURNED once every sold piece of it came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReservationStatus {
    /// Pieces are set aside.
    Active,
    /// They are sold.
    Confirmed,
    /// The checkout gave them up.
    Released,
    /// Time ran out.
    Expired,
    /// They were sold and came back.
    Returned,
}

/// A hold cannot go from one status to the other: its stock was dealt with already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reservation cannot go from {from} to {to}")]
pub struct InvalidReservationMove {
    /// Where it stands.
    pub from: ReservationStatus,
    /// Where it was asked to go.
    pub to: ReservationStatus,
}

impl ReservationStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Active, Self::Confirmed, Self::Released, Self::Expired, Self::Returned];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Confirmed => "CONFIRMED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
            Self::Returned => "RETURNED",
        }
    }

    /// The status after the move. Every move happens at most once, which is what keeps stock from
    /// being given back twice.
    ///
    /// # Errors
    /// [`InvalidReservationMove`] if there is no such move.
    pub fn transition(self, to: Self) -> Result<Self, InvalidReservationMove> {
        let allowed = match self {
            Self::Active => matches!(to, Self::Confirmed | Self::Released | Self::Expired),
            Self::Confirmed => to == Self::Returned,
            Self::Released | Self::Expired | Self::Returned => false,
        };
        if allowed { Ok(to) } else { Err(InvalidReservationMove { from: self, to }) }
    }
}

impl fmt::Display for ReservationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReservationStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "reservation status", text: text.to_owned() })
    }
}
