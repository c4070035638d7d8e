//! What a shop's owner may decide.

mod terms;
mod upkeep;

use domain::{
    ids::{OrderId, UserId},
    pricing::PricingPolicy,
};
use serde::{Deserialize, Serialize};

pub use terms::Terms;
pub use upkeep::{Abandonment, Reconciliation, Retention};

/// The shop's rules, as read from the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Prices, tax and shipping.
    pub pricing: PricingPolicy,
    /// How long stock is held for a checkout, in seconds.
    pub hold_s: u64,
    /// How long a shopper has to pay, in seconds; shorter than the hold, so that a payment that came
    /// in time still finds its stock.
    pub payment_window_s: u64,
    /// How often a shopper may try to pay for one order, from 1. With more than 1, a declined payment
    /// leaves the order PENDING until the payment window ends.
    pub payment_max_attempts: u32,
    /// How long after its confirmation a customer may cancel an order, in seconds; none means until it
    /// is packed. Staff may cancel later.
    pub cancel_deadline_s: Option<u64>,
    /// Payment gateway used when a checkout names none.
    pub default_gateway: String,
    /// Most units that may be paid for on delivery, in the shop's currency; none means no limit.
    pub cod_limit: Option<rust_decimal::Decimal>,
    /// A confirmed order is packed by itself after so many seconds, in which its customer may still
    /// cancel; none means when staff say so, or pack its first parcel.
    pub auto_process_after_s: Option<u64>,
    /// How long a return waits for the staff's decision, and then for its parcel, in seconds; what does
    /// not come in that time is rejected.
    pub return_patience_s: u64,
    /// Whether the shipping charge goes back with the last piece that is returned.
    pub return_refunds_shipping: bool,
    /// Guests may check out with an e-mail address and a phone number.
    pub allow_guest_checkout: bool,
    /// A guest's cart expires after so many seconds without activity.
    pub guest_cart_ttl_s: u64,
    /// A user's cart expires after so many seconds without activity.
    pub user_cart_ttl_s: u64,
    /// Days from confirmation to the estimated delivery, STANDARD.
    pub standard_delivery_days: u16,
    /// The same, EXPRESS.
    pub express_delivery_days: u16,
    /// Sender of the shop's e-mail.
    pub mail_from: String,
    /// Where shoppers reach the shop; tracking links start with it.
    pub public_url: String,
    /// Where reports to the staff go; without it they are recorded as SKIPPED.
    pub staff_email: Option<String>,
    /// When a cart is left behind, and when its owner is reminded.
    pub abandonment: Abandonment,
    /// When payments are compared with the gateway.
    pub reconciliation: Reconciliation,
    /// How long is kept what nobody needs any more.
    pub retention: Retention,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            pricing: PricingPolicy::default(),
            hold_s: 600,
            payment_window_s: 480,
            payment_max_attempts: 1,
            cancel_deadline_s: None,
            default_gateway: "sandbox".to_owned(),
            cod_limit: None,
            auto_process_after_s: None,
            return_patience_s: 30 * 24 * 3600,
            return_refunds_shipping: false,
            allow_guest_checkout: false,
            guest_cart_ttl_s: 24 * 3600,
            user_cart_ttl_s: 30 * 24 * 3600,
            standard_delivery_days: 5,
            express_delivery_days: 2,
            mail_from: "Cart Engine <orders@example.com>".to_owned(),
            public_url: "http://127.0.0.1:8080".to_owned(),
            staff_email: None,
            abandonment: Abandonment::default(),
            reconciliation: Reconciliation::default(),
            retention: Retention::default(),
        }
    }
}

impl Rules {
    /// Where an owner finds the cart again.
    pub fn cart_url(&self) -> String {
        format!("{}/cart", self.public_url.trim_end_matches('/'))
    }

    /// Where the shop shows them what has become of their order.
    pub fn order_url(&self, order_id: OrderId) -> String {
        format!("{}/orders/{order_id}", self.public_url.trim_end_matches('/'))
    }

    /// Seconds from its last activity until this owner's cart expires; a cart without a user is a guest's.
    pub fn cart_ttl_s(&self, user_id: Option<UserId>) -> u64 {
        if user_id.is_some() { self.user_cart_ttl_s } else { self.guest_cart_ttl_s }
    }
}
