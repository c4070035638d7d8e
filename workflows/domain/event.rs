//! The names of what happened in the shop, as other systems read them in the outbox.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// The `type` attribute of an event (CloudEvents 1.0, 3.1.1). A shipped name never changes its
/// meaning: consumers outside this repository switch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum EventType {
    /// A cart was left idle for too long; it may still come back.
    CartAbandoned,
    /// An order exists and is PENDING.
    OrderCreated,
    /// An order is CONFIRMED: from here it is only cancelled, never undone.
    OrderConfirmed,
    /// An order is CANCELLED, by whomever.
    OrderCancelled,
    /// An order is SHIPPED.
    OrderShipped,
    /// An order is DELIVERED.
    OrderDelivered,
    /// The money for an order has been taken.
    PaymentCaptured,
    /// An attempt to pay an order has failed for good.
    PaymentFailed,
    /// Money has gone back to the shopper, all of it or a part.
    PaymentRefunded,
    /// The gateway will not give money back: a person must, or must have it sent again.
    RefundFailed,
    /// Stock is held for an order that is not confirmed yet.
    InventoryReserved,
    /// Held stock is sold.
    InventoryCommitted,
    /// Held stock is for sale again, because its hold was released or ran out.
    InventoryReleased,
    /// Sold stock is for sale again, because its order was cancelled or its goods came back.
    InventoryRefunded,
    /// A variant's available stock has just fallen to its threshold.
    InventoryLowStock,
    /// A coupon was used up by a confirmed order.
    CouponRedeemed,
}

impl EventType {
    /// Every type there is, in the order of a shopper's journey.
    pub const ALL: [EventType; 16] = [
        EventType::CartAbandoned,
        EventType::OrderCreated,
        EventType::OrderConfirmed,
        EventType::OrderCancelled,
        EventType::OrderShipped,
        EventType::OrderDelivered,
        EventType::PaymentCaptured,
        EventType::PaymentFailed,
        EventType::PaymentRefunded,
        EventType::RefundFailed,
        EventType::InventoryReserved,
        EventType::InventoryCommitted,
        EventType::InventoryReleased,
        EventType::InventoryRefunded,
        EventType::InventoryLowStock,
        EventType::CouponRedeemed,
    ];

    /// The name on the wire and in the outbox, such as `order.created`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::CartAbandoned => "cart.abandoned",
            EventType::OrderCreated => "order.created",
            EventType::OrderConfirmed => "order.confirmed",
            EventType::OrderCancelled => "order.cancelled",
            EventType::OrderShipped => "order.shipped",
            EventType::OrderDelivered => "order.delivered",
            EventType::PaymentCaptured => "payment.captured",
            EventType::PaymentFailed => "payment.failed",
            EventType::PaymentRefunded => "payment.refunded",
            EventType::RefundFailed => "refund.failed",
            EventType::InventoryReserved => "inventory.reserved",
            EventType::InventoryCommitted => "inventory.committed",
            EventType::InventoryReleased => "inventory.released",
            EventType::InventoryRefunded => "inventory.refunded",
            EventType::InventoryLowStock => "inventory.low_stock",
            EventType::CouponRedeemed => "coupon.redeemed",
        }
    }
}

impl From<EventType> for &'static str {
    fn from(event: EventType) -> Self {
        event.as_str()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|event| event.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "event type", text: text.to_owned() })
    }
}

impl TryFrom<String> for EventType {
    type Error = UnknownName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_read_back_from_its_own_name() {
        for event in EventType::ALL {
            assert_eq!(event.as_str().parse(), Ok(event));
            let json = serde_json::to_string(&event).expect("a string");
            assert_eq!(json, format!("\"{event}\""));
            assert_eq!(serde_json::from_str::<EventType>(&json).expect("an event"), event);
        }
    }

    #[test]
    fn no_two_events_share_a_name() {
        let names: std::collections::BTreeSet<_> = EventType::ALL.iter().map(|event| event.as_str()).collect();
        assert_eq!(names.len(), EventType::ALL.len());
    }

    #[test]
    fn an_unknown_name_is_an_error_and_not_a_default() {
        assert_eq!(
            "order.lost".parse::<EventType>(),
            Err(UnknownName { kind: "event type", text: "order.lost".to_owned() })
        );
        assert!(serde_json::from_str::<EventType>("\"ORDER.CREATED\"").is_err());
    }
}
