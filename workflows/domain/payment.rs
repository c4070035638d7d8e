//! Payments: how one is made, the states it passes through, and what that means for its order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownName;
use crate::order::OrderStatus;

/// Where a payment stands (seed: payment service state machine, and partial refunds beside it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentStatus {
    /// Asked for; nothing has been taken.
    Pending,
    /// The bank has set the money aside.
    Authorized,
    /// The money is ours.
    Captured,
    /// Part of the money went back.
    PartiallyRefunded,
    /// All of the money went back.
    Refunded,
    /// Declined, closed or given up.
    Failed,
}

/// A payment cannot go from one status to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a payment cannot go from {from} to {to}")]
pub struct InvalidPaymentTransition {
    /// Where it stands.
    pub from: PaymentStatus,
    /// Where it was asked to go.
    pub to: PaymentStatus,
}

/// What a payment's new status means for the order it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderEffect {
    /// The order stays as it is.
    None,
    /// The order moves on to this status.
    MoveTo(OrderStatus),
    /// The money came for an order that no longer wants it: give it back.
    RefundLatePayment,
}

impl PaymentStatus {
    /// Every status, in the order a payment can meet them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Authorized, Self::Captured, Self::PartiallyRefunded, Self::Refunded, Self::Failed];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Authorized => "AUTHORIZED",
            Self::Captured => "CAPTURED",
            Self::PartiallyRefunded => "PARTIALLY_REFUNDED",
            Self::Refunded => "REFUNDED",
            Self::Failed => "FAILED",
        }
    }

    /// Whether the state machine has an arrow from here to `to`.
    pub fn can_become(self, to: Self) -> bool {
        match self {
            Self::Pending => matches!(to, Self::Authorized | Self::Captured | Self::Failed),
            Self::Authorized => matches!(to, Self::Captured | Self::Failed),
            Self::Captured => matches!(to, Self::PartiallyRefunded | Self::Refunded),
            // One partial refund may follow another.
            Self::PartiallyRefunded => matches!(to, Self::PartiallyRefunded | Self::Refunded),
            Self::Refunded | Self::Failed => false,
        }
    }

    /// The status after the step, if the state machine allows it.
    ///
    /// # Errors
    /// [`InvalidPaymentTransition`] if there is no such arrow.
    pub fn transition(self, to: Self) -> Result<Self, InvalidPaymentTransition> {
        if self.can_become(to) { Ok(to) } else { Err(InvalidPaymentTransition { from: self, to }) }
    }

    /// What arriving in this status does to an order in status `order`: a capture confirms a pending
    /// order, a failure cancels it (seed: Workflow 2 boxes 9a and 10). A capture for an order that
    /// was cancelled in the meantime must be refunded; a repeat of what we know changes nothing.
    pub fn effect_on(self, order: OrderStatus) -> OrderEffect {
        match self {
            Self::Captured => match order {
                OrderStatus::Pending => OrderEffect::MoveTo(OrderStatus::Confirmed),
                OrderStatus::Cancelled => OrderEffect::RefundLatePayment,
                OrderStatus::Confirmed
                | OrderStatus::Processing
                | OrderStatus::Shipped
                | OrderStatus::Delivered
                | OrderStatus::Refunded => OrderEffect::None,
            },
            Self::Failed => match order {
                OrderStatus::Pending => OrderEffect::MoveTo(OrderStatus::Cancelled),
                OrderStatus::Confirmed
                | OrderStatus::Processing
                | OrderStatus::Shipped
                | OrderStatus::Delivered
                | OrderStatus::Cancelled
                | OrderStatus::Refunded => OrderEffect::None,
            },
            Self::Refunded => match order {
                OrderStatus::Delivered => OrderEffect::MoveTo(OrderStatus::Refunded),
                OrderStatus::Pending
                | OrderStatus::Confirmed
                | OrderStatus::Processing
                | OrderStatus::Shipped
                | OrderStatus::Cancelled
                | OrderStatus::Refunded => OrderEffect::None,
            },
            Self::Pending | Self::Authorized | Self::PartiallyRefunded => OrderEffect::None,
        }
    }
}

impl fmt::Display for PaymentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PaymentStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "payment status", text: text.to_owned() })
    }
}

/// Where the customer's bank and the shop stand over a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DisputeStatus {
    /// The bank wants the money back, and the shop may answer.
    Opened,
    /// The money stays.
    Won,
    /// The money is gone.
    Lost,
}

impl DisputeStatus {
    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "OPENED",
            Self::Won => "WON",
            Self::Lost => "LOST",
        }
    }
}

/// How the customer pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentMethod {
    /// Credit card, through the gateway's own form.
    CreditCard,
    /// Debit card, through the gateway's own form.
    DebitCard,
    /// Unified Payments Interface.
    Upi,
    /// The customer's bank's own site.
    NetBanking,
    /// A prepaid wallet.
    Wallet,
    /// Cash on delivery.
    Cod,
}

impl PaymentMethod {
    /// Every method.
    pub const ALL: [Self; 6] =
        [Self::CreditCard, Self::DebitCard, Self::Upi, Self::NetBanking, Self::Wallet, Self::Cod];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreditCard => "CREDIT_CARD",
            Self::DebitCard => "DEBIT_CARD",
            Self::Upi => "UPI",
            Self::NetBanking => "NET_BANKING",
            Self::Wallet => "WALLET",
            Self::Cod => "COD",
        }
    }
}

impl fmt::Display for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PaymentMethod {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "payment method", text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_moves_only_along_the_arrows() {
        use PaymentStatus::{Authorized, Captured, Failed, PartiallyRefunded, Pending, Refunded};
        let arrows = [
            (Pending, Authorized),
            (Pending, Captured),
            (Pending, Failed),
            (Authorized, Captured),
            (Authorized, Failed),
            (Captured, PartiallyRefunded),
            (Captured, Refunded),
            (PartiallyRefunded, PartiallyRefunded),
            (PartiallyRefunded, Refunded),
        ];
        for from in PaymentStatus::ALL {
            for to in PaymentStatus::ALL {
                assert_eq!(from.transition(to).is_ok(), arrows.contains(&(from, to)), "{from} → {to}");
            }
        }
    }

    #[test]
    fn a_capture_confirms_and_a_failure_cancels_a_pending_order() {
        use OrderStatus::{Cancelled, Confirmed, Delivered, Pending, Refunded};
        assert_eq!(PaymentStatus::Captured.effect_on(Pending), OrderEffect::MoveTo(Confirmed));
        assert_eq!(PaymentStatus::Failed.effect_on(Pending), OrderEffect::MoveTo(Cancelled));
        assert_eq!(PaymentStatus::Captured.effect_on(Cancelled), OrderEffect::RefundLatePayment);
        assert_eq!(PaymentStatus::Refunded.effect_on(Delivered), OrderEffect::MoveTo(Refunded));
        assert_eq!(PaymentStatus::Refunded.effect_on(Cancelled), OrderEffect::None);
    }

    #[test]
    fn no_effect_breaks_the_orders_own_rules() {
        for payment in PaymentStatus::ALL {
            for order in OrderStatus::ALL {
                if let OrderEffect::MoveTo(to) = payment.effect_on(order) {
                    assert_eq!(order.transition(to), Ok(to));
                }
            }
        }
    }

    #[test]
    fn names_are_the_same_in_code_and_on_the_wire() {
        for status in PaymentStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        for method in PaymentMethod::ALL {
            assert_eq!(method.as_str().parse(), Ok(method));
            assert_eq!(serde_json::to_value(method).unwrap(), method.as_str());
        }
    }
}
