//! The pure rules of the shop: money, prices, coupons, carts, stock, orders and payments.
//!
//! What lives here: types that make impossible states hard to write, and functions from values to
//! values. What must not: a runtime, SQL, HTTP, a clock or a source of randomness that is not
//! passed in (fresh identifiers are the one exception). The outside world appears only as the
//! traits in [`ports`], which adapters implement.

pub mod address;
pub mod card_data;
pub mod cart;
pub mod coupon;
pub mod event;
pub mod fraud;
pub mod ids;
pub mod inventory;
pub mod money;
pub mod notification;
pub mod order;
pub mod payment;
pub mod phone;
pub mod ports;
pub mod pricing;
pub mod refund;
pub mod returns;
pub mod text;

/// A text that names no member of one of our enumerations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}")]
pub struct UnknownName {
    /// What was expected, such as "payment status".
    pub kind: &'static str,
    /// What was found.
    pub text: String,
}
