//! What a checkout is started with, and what the shopper gets.

use chrono::NaiveDate;
use domain::{
    address::Address,
    fraud::Network,
    ids::{CartId, OrderId, OrderNumber, UserId},
    payment::PaymentMethod,
    pricing::ShippingMethod,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::rules::Terms;

/// What a checkout is started with: the shopper's request, resolved when it was accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The cart, locked for this run.
    pub cart_id: CartId,
    /// The order it will become.
    pub order_id: OrderId,
    /// Its number, drawn from the sequence.
    pub order_number: OrderNumber,
    /// Who buys; none for a guest.
    pub user_id: Option<UserId>,
    /// Where the shop writes to.
    pub contact_email: String,
    /// Where the courier calls.
    pub contact_phone: Option<String>,
    /// The total the shopper saw.
    pub expected_total: Option<Decimal>,
    /// Codes typed at checkout, besides those on the cart.
    pub coupon_codes: Vec<String>,
    /// Where it goes.
    pub shipping_address: Address,
    /// The saved address it was taken from.
    pub shipping_address_id: Option<Uuid>,
    /// Who pays; none means the shipping address.
    pub billing_address: Option<Address>,
    /// The saved address it was taken from.
    pub billing_address_id: Option<Uuid>,
    /// How it goes there.
    pub shipping_method: ShippingMethod,
    /// How it is paid.
    pub payment_method: PaymentMethod,
    /// Through whom.
    pub gateway: String,
    /// The gateway's token for what the shopper pays with; never a card number.
    pub payment_token: Option<String>,
    /// Where the request came from, as far as it is kept.
    #[serde(default)]
    pub client_network: Option<Network>,
    /// How often the shopper may try to pay, from 1: the shop's rule when the checkout was accepted.
    #[serde(default = "one")]
    pub payment_attempts: u32,
    /// The rest of the rules it goes by: those of the shop that accepted it.
    pub terms: Terms,
    /// Tells an equal request from a different one.
    pub fingerprint: String,
}

fn one() -> u32 {
    1
}

/// What the shopper gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The order.
    pub order_id: OrderId,
    /// Its number.
    pub order_number: OrderNumber,
    /// CONFIRMED.
    pub status: String,
    /// When it should arrive.
    pub estimated_delivery: NaiveDate,
    /// Where its journey can be followed.
    #[serde(rename = "trackingURL")]
    pub tracking_url: String,
}
