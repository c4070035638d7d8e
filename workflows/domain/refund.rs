//! Refunds: the states one passes through, from the claim to the money's arrival.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// Where a refund stands. Whatever it stands at, its amount is spoken for: what the gateway has refused is
/// owed all the same, until a person has paid it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RefundStatus {
    /// Claimed, and to be sent by its run.
    Pending,
    /// The money has gone back.
    Succeeded,
    /// The gateway has refused it for good: a person sends it again, or pays by hand.
    Failed,
}

/// A refund cannot go from one status to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a refund cannot go from {from} to {to}")]
pub struct InvalidRefundTransition {
    /// Where it stands.
    pub from: RefundStatus,
    /// Where it was asked to go.
    pub to: RefundStatus,
}

impl RefundStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Succeeded, Self::Failed];

    /// The name in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        }
    }

    /// Whether there is an arrow from here to `to`.
    pub fn can_become(self, to: Self) -> bool {
        match self {
            Self::Pending => matches!(to, Self::Succeeded | Self::Failed),
            // Sent again, under a key of its own; or paid by hand.
            Self::Failed => matches!(to, Self::Pending | Self::Succeeded),
            // Banks send some back long after they had arrived.
            Self::Succeeded => matches!(to, Self::Failed),
        }
    }

    /// The status after the step, if there is such an arrow.
    ///
    /// # Errors
    /// [`InvalidRefundTransition`] if there is none.
    pub fn transition(self, to: Self) -> Result<Self, InvalidRefundTransition> {
        if self.can_become(to) { Ok(to) } else { Err(InvalidRefundTransition { from: self, to }) }
    }
}

impl fmt::Display for RefundStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RefundStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "refund status", text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refund_moves_only_along_the_arrows() {
        use RefundStatus::{Failed, Pending, Succeeded};
        let arrows =
            [(Pending, Succeeded), (Pending, Failed), (Failed, Pending), (Failed, Succeeded), (Succeeded, Failed)];
        for from in RefundStatus::ALL {
            for to in RefundStatus::ALL {
                assert_eq!(from.transition(to).is_ok(), arrows.contains(&(from, to)), "{from} → {to}");
            }
        }
    }

    #[test]
    fn names_are_the_same_in_code_and_on_the_wire() {
        for status in RefundStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
