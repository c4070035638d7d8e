//! Accepting checkouts: the transaction that answers `POST /api/checkout`, for one or for many of them. It
//! locks the carts ([`seek`]), refuses what cannot be sold ([`Refusal`]), and starts the runs ([`start()`]);
//! carts, runs and the clients' idempotency keys commit together.

mod refusal;
mod seek;
mod start;

use domain::{
    address::Address,
    fraud::Network,
    ids::{AddressId, CartId, OrderId, OrderNumber, UserId},
    payment::PaymentMethod,
    pricing::ShippingMethod,
};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

pub use self::{
    refusal::Refusal,
    seek::{NewCheckout, Sought, seek},
    start::start,
};
use super::status::Shown;
pub use crate::store::carts::Lock;
use crate::{Shop, store::carts::Owner};

/// Who checks out.
#[derive(Debug, Clone)]
pub enum Shopper {
    /// Logged in.
    User(UserId),
    /// A guest, where the shop allows it.
    Guest {
        /// Hash of the cart session's secret.
        session_hash: Vec<u8>,
        /// Where the shop writes to.
        email: String,
        /// Where the courier calls.
        phone: Option<String>,
    },
}

impl Shopper {
    fn user_id(&self) -> Option<UserId> {
        match self {
            Shopper::User(user_id) => Some(*user_id),
            Shopper::Guest { .. } => None,
        }
    }

    /// Whose carts are theirs.
    fn owner(&self) -> Owner {
        match self {
            Shopper::User(user_id) => Owner::User(*user_id),
            Shopper::Guest { session_hash, .. } => Owner::Guest { session_hash: session_hash.clone() },
        }
    }
}

/// An address as the shopper gives it.
#[derive(Debug, Clone)]
pub enum AddressChoice {
    /// Written out.
    Inline(Address),
    /// One of the shopper's saved ones.
    Saved(AddressId),
}

/// What the shopper asks for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Who.
    pub shopper: Shopper,
    /// Which cart; none means the open one.
    pub cart_id: Option<CartId>,
    /// The total they saw.
    pub expected_total: Option<Decimal>,
    /// Where it goes.
    pub shipping: AddressChoice,
    /// Who pays, if it is another address.
    pub billing: Option<AddressChoice>,
    /// How it goes.
    pub shipping_method: ShippingMethod,
    /// How it is paid.
    pub payment_method: PaymentMethod,
    /// Through whom, if not the shop's default.
    pub payment_gateway: Option<String>,
    /// The gateway's token.
    pub payment_token: Option<String>,
    /// Where the request came from.
    pub client_network: Option<Network>,
    /// Coupons typed at checkout.
    pub coupon_codes: Vec<String>,
    /// Equal requests have equal fingerprints.
    pub fingerprint: String,
}

/// The run that has the cart: a new one, or the one an equal request started before.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The run.
    pub workflow_id: Uuid,
    /// The order it will make, or has made.
    pub order_id: OrderId,
    /// Its number.
    pub order_number: OrderNumber,
    /// RUNNING, or what has become of it since.
    pub status: Shown,
}

/// Accepts a checkout, or says why not. Everything happens in the caller's transaction.
///
/// # Errors
/// Why not.
pub async fn accept(conn: &mut PgConnection, shop: &Shop, order: Order) -> Result<Accepted, Refusal> {
    let sought = seek(conn, shop, vec![order], Lock::Wait).await?;
    match sought.into_iter().next().ok_or(Refusal::CartNotFound)?? {
        Sought::Started(accepted) => Ok(accepted),
        Sought::New(checkout) => start(conn, shop, vec![*checkout]).await?.remove(0),
        Sought::Busy => Err(Refusal::CartNotFound),
    }
}
