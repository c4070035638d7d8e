//! What a run goes by, from the moment it was accepted.

use std::time::Duration;

use domain::{
    ids::OrderId,
    pricing::{Pricing, PricingPolicy, ShippingMethod},
};
use serde::{Deserialize, Serialize};

use super::Rules;

/// The rules that decide a checkout, as they stood when it was accepted. They travel in its input: a worker
/// that was started with other settings, or a shop that is started anew with others, carries the checkout
/// out as the shopper agreed to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// Currency, tax, shipping and the seller's place.
    pub pricing: PricingPolicy,
    /// How long stock is held, in seconds.
    pub hold_s: u64,
    /// How long the shopper has to pay, in seconds.
    pub payment_window_s: u64,
    /// After how many seconds the order is packed by itself, if at all.
    pub auto_process_after_s: Option<u64>,
    /// Days from confirmation to the estimated delivery.
    pub delivery_days: u16,
    /// Where the shop is on the web: the gateway sends the shopper back there. A gateway refuses to be asked for one
    /// payment twice in other words, so this does not change while a payment is begun.
    pub public_url: String,
}

impl Terms {
    /// Today's, for an order that travels so.
    pub fn of(rules: &Rules, method: ShippingMethod) -> Self {
        Terms {
            pricing: rules.pricing.clone(),
            hold_s: rules.hold_s,
            payment_window_s: rules.payment_window_s,
            auto_process_after_s: rules.auto_process_after_s,
            delivery_days: match method {
                ShippingMethod::Standard => rules.standard_delivery_days,
                ShippingMethod::Express => rules.express_delivery_days,
            },
            public_url: rules.public_url.clone(),
        }
    }

    /// The pricing pipeline by these terms.
    pub fn pricing(&self) -> Pricing {
        Pricing::new(self.pricing.clone())
    }

    /// How long stock is held.
    pub fn hold(&self) -> Duration {
        Duration::from_secs(self.hold_s)
    }

    /// Where a gateway sends the shopper when they have paid, or not.
    pub fn payment_return_url(&self, order_id: OrderId) -> String {
        format!("{}/api/payments/return/{order_id}", self.public_url.trim_end_matches('/'))
    }

    /// How long the shopper has to pay.
    pub fn payment_window(&self) -> Duration {
        Duration::from_secs(self.payment_window_s)
    }
}
