//! What delivery costs.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use super::policy::ShippingRates;
use crate::UnknownName;

/// How fast the parcel travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ShippingMethod {
    /// By the usual courier.
    Standard,
    /// By the fast one.
    Express,
}

impl ShippingMethod {
    /// Every method.
    pub const ALL: [Self; 2] = [Self::Standard, Self::Express];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "STANDARD",
            Self::Express => "EXPRESS",
        }
    }
}

impl fmt::Display for ShippingMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ShippingMethod {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == text)
            .ok_or_else(|| UnknownName { kind: "shipping method", text: text.to_owned() })
    }
}

/// How a shop charges for delivery.
pub trait ShippingStrategy: Send + Sync {
    /// The charge for merchandise worth `subtotal` before discounts; it is not taxed. The pipeline
    /// rounds it to the currency and never asks for an empty cart.
    fn charge(&self, method: ShippingMethod, subtotal: Decimal) -> Decimal;
}

/// One price a method, and nothing above a subtotal.
#[derive(Debug, Clone, PartialEq)]
pub struct FlatShipping {
    /// The price of each method.
    pub rates: ShippingRates,
    /// Above this subtotal (before discounts, so that a coupon never costs the free delivery) every
    /// method is free.
    pub free_above: Option<Decimal>,
}

impl ShippingStrategy for FlatShipping {
    fn charge(&self, method: ShippingMethod, subtotal: Decimal) -> Decimal {
        if self.free_above.is_some_and(|free_above| subtotal > free_above) {
            return Decimal::ZERO;
        }
        match method {
            ShippingMethod::Standard => self.rates.standard,
            ShippingMethod::Express => self.rates.express,
        }
    }
}
