//! Returns: goods of a delivered order that come back, and what they were worth.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::UnknownName;
use crate::money::Currency;
use crate::pricing::split_by_largest_remainder;

/// Where a return stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReturnStatus {
    /// The customer wants to send something back.
    Requested,
    /// They may.
    Approved,
    /// The goods are with us.
    Received,
    /// What they were worth went back.
    Refunded,
    /// Nothing goes back.
    Rejected,
}

/// A return cannot go from one status to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Invalid state transition from {from} to {to}")]
pub struct InvalidReturnMove {
    /// Where it stands.
    pub from: ReturnStatus,
    /// Where it was asked to go.
    pub to: ReturnStatus,
}

impl ReturnStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Requested, Self::Approved, Self::Received, Self::Refunded, Self::Rejected];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::Approved => "APPROVED",
            Self::Received => "RECEIVED",
            Self::Refunded => "REFUNDED",
            Self::Rejected => "REJECTED",
        }
    }

    /// The status after the move. A parcel that was approved can still turn out not to be acceptable;
    /// one that was received is ours.
    ///
    /// # Errors
    /// [`InvalidReturnMove`] if there is no such move.
    pub fn transition(self, to: Self) -> Result<Self, InvalidReturnMove> {
        let allowed = match self {
            Self::Requested => matches!(to, Self::Approved | Self::Rejected),
            Self::Approved => matches!(to, Self::Received | Self::Rejected),
            Self::Received => to == Self::Refunded,
            Self::Refunded | Self::Rejected => false,
        };
        if allowed { Ok(to) } else { Err(InvalidReturnMove { from: self, to }) }
    }
}

impl fmt::Display for ReturnStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReturnStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "return status", text: text.to_owned() })
    }
}

/// What `returned` pieces of a line are worth, of which `before` have come back already. The line's
/// `total`, in major units, is divided over its `quantity` pieces by largest remainder, and each piece
/// keeps its share: however a line is returned, its parts add up to its total.
pub fn share_of_line(total: Decimal, quantity: u32, before: u32, returned: u32, currency: Currency) -> Decimal {
    let pieces: Vec<(u32, Decimal)> = (0..quantity).map(|piece| (piece, Decimal::ONE)).collect();
    let shares = split_by_largest_remainder(total, &pieces, currency);
    let (before, returned) = (before as usize, returned as usize);
    shares.iter().skip(before).take(returned).copied().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_return_goes_forward_only() {
        use ReturnStatus::{Approved, Received, Refunded, Rejected, Requested};
        let moves = [
            (Requested, Approved),
            (Requested, Rejected),
            (Approved, Received),
            (Approved, Rejected),
            (Received, Refunded),
        ];
        for from in ReturnStatus::ALL {
            assert_eq!(from.as_str().parse(), Ok(from));
            for to in ReturnStatus::ALL {
                assert_eq!(from.transition(to).is_ok(), moves.contains(&(from, to)), "{from} → {to}");
            }
        }
    }

    #[test]
    fn a_third_of_ten_rupees_is_worth_a_paisa_more_if_it_comes_first() {
        let share = |before, returned| share_of_line(Decimal::TEN, 3, before, returned, Currency::INR).to_string();
        assert_eq!((share(0, 1), share(1, 1), share(2, 1)), ("3.34".to_owned(), "3.33".to_owned(), "3.33".to_owned()));
        assert_eq!((share(0, 2), share(0, 3)), ("6.67".to_owned(), "10.00".to_owned()));
    }

    proptest! {
        #[test]
        fn a_line_returned_in_parts_gives_back_exactly_its_total(
            paise in 0_i64..100_000_000,
            parts in proptest::collection::vec(1_u32..40, 1..6),
        ) {
            let (total, quantity) = (Decimal::new(paise, 2), parts.iter().sum());
            let (mut before, mut sum) = (0, Decimal::ZERO);
            for part in parts {
                sum += share_of_line(total, quantity, before, part, Currency::INR);
                before += part;
            }
            prop_assert_eq!(sum, total);
        }
    }
}
