//! Why a checkout does not start.

use domain::{
    cart::CartStatus,
    money::{Currency, to_wire},
    ports::Unsupported,
    pricing::{PricingError, Quote},
};
use engine::Failure;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::store::carts::{PriceChange, Shortage};

/// Why a checkout does not start, or why its run gives up: the same rule, the same code.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such cart of this shopper.
    #[error("there is no such cart")]
    CartNotFound,
    /// Nothing to buy.
    #[error("the cart is empty")]
    CartEmpty,
    /// The cart is neither open nor converted.
    #[error("the cart is {0}")]
    CartNotActive(CartStatus),
    /// Less in stock than asked for.
    #[error("Out of stock")]
    OutOfStock {
        /// The lines that cannot be had.
        lines: Vec<Shortage>,
    },
    /// Dearer than what the shopper saw.
    #[error("the total is now {} {}, {} was expected", to_wire(quote.total, quote.currency), quote.currency, to_wire(*expected, quote.currency))]
    PriceChanged {
        /// What the shopper saw.
        expected: Decimal,
        /// Lines whose price moved since they were added.
        lines: Vec<PriceChange>,
        /// Today's prices.
        quote: Box<Quote>,
    },
    /// A typed coupon does not apply.
    #[error("coupon {code} does not apply: {reason}")]
    CouponInvalid {
        /// The code.
        code: String,
        /// Stable reason.
        reason: String,
    },
    /// Below the shop's minimum.
    #[error("orders start at {} {currency}; this cart comes to {}", to_wire(*minimum, *currency), to_wire(*subtotal, *currency))]
    MinimumOrderValue {
        /// The shop's minimum.
        minimum: Decimal,
        /// Merchandise subtotal.
        subtotal: Decimal,
        /// Of both.
        currency: Currency,
    },
    /// The cart, or a line of it, is in another currency than the shop sells in now.
    #[error("the cart is in {found}, the shop sells in {currency}: empty the cart to begin anew")]
    CurrencyMismatch {
        /// Of the cart.
        found: String,
        /// Of the shop.
        currency: Currency,
    },
    /// Another, different checkout has the cart.
    #[error("the cart is being checked out")]
    CartInCheckout {
        /// By this run.
        workflow_id: Uuid,
    },
    /// The pricing rules cannot price it.
    #[error("the cart cannot be priced: {0}")]
    Unpriceable(#[from] PricingError),
    /// The saved address is not the shopper's.
    #[error("there is no such address")]
    AddressNotFound,
    /// The gateway is not configured.
    #[error("payment gateway {name} is not available")]
    GatewayUnknown {
        /// The name that was given.
        name: String,
    },
    /// The gateway cannot collect it.
    #[error("it cannot be paid that way: {0}")]
    PaymentUnsupported(#[from] Unsupported),
    /// Too much to pay on delivery.
    #[error("cash on delivery is possible up to {} {currency}", to_wire(*limit, *currency))]
    CodLimit {
        /// The shop's limit.
        limit: Decimal,
        /// Of what.
        currency: Currency,
    },
    /// The user's account has gone.
    #[error("an e-mail address is needed")]
    ContactMissing,
    /// The request cannot be made a run.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl Refusal {
    /// Stable, kebab-case.
    pub fn code(&self) -> &str {
        match self {
            Refusal::CartNotFound => "cart-not-found",
            Refusal::CartEmpty => "cart-empty",
            Refusal::CartNotActive(_) => "cart-not-active",
            Refusal::OutOfStock { .. } => "out-of-stock",
            Refusal::PriceChanged { .. } => "price-changed",
            Refusal::CouponInvalid { .. } => "coupon-invalid",
            Refusal::MinimumOrderValue { .. } => "minimum-order-value",
            Refusal::CurrencyMismatch { .. } => "currency-mismatch",
            Refusal::CartInCheckout { .. } => "cart-in-checkout",
            Refusal::Unpriceable(error) => error.code(),
            Refusal::AddressNotFound => "address-not-found",
            Refusal::GatewayUnknown { .. } => "gateway-unknown",
            Refusal::PaymentUnsupported(_) => "payment-method-unsupported",
            Refusal::CodLimit { .. } => "cod-limit-exceeded",
            Refusal::ContactMissing => "contact-missing",
            Refusal::Failure(failure) => &failure.code,
            Refusal::Database(_) => "internal",
        }
    }

    /// A sentence for people.
    pub fn detail(&self) -> String {
        self.to_string()
    }

    /// What a client needs to act on it.
    pub fn data(&self) -> Option<Value> {
        match self {
            Refusal::OutOfStock { lines } => {
                let available = lines.first().map_or(0, |line| line.available);
                Some(json!({ "lines": lines, "available": available }))
            }
            Refusal::PriceChanged { expected, lines, quote } => {
                let wire = |amount| to_wire(amount, quote.currency);
                Some(json!({
                    "expectedTotal": wire(*expected),
                    "lines": lines,
                    "currency": quote.currency,
                    "priceBreakdown": {
                        "subtotal": wire(quote.subtotal), "discount": wire(quote.discount), "tax": wire(quote.tax),
                        "shipping": wire(quote.shipping), "total": wire(quote.total),
                    },
                }))
            }
            Refusal::CouponInvalid { code, reason } => Some(json!({ "couponCode": code, "reason": reason })),
            Refusal::MinimumOrderValue { minimum, subtotal, currency } => {
                let wire = |amount| to_wire(amount, *currency);
                Some(json!({ "minimum": wire(*minimum), "subtotal": wire(*subtotal), "currency": currency }))
            }
            Refusal::CurrencyMismatch { found, currency } => {
                Some(json!({ "currency": found, "shopCurrency": currency }))
            }
            Refusal::CartInCheckout { workflow_id } => Some(json!({ "workflowId": workflow_id })),
            Refusal::CodLimit { limit, currency } => {
                Some(json!({ "limit": to_wire(*limit, *currency), "currency": currency }))
            }
            Refusal::Failure(failure) => failure.data.clone(),
            Refusal::CartNotFound
            | Refusal::CartEmpty
            | Refusal::CartNotActive(_)
            | Refusal::Unpriceable(_)
            | Refusal::AddressNotFound
            | Refusal::GatewayUnknown { .. }
            | Refusal::PaymentUnsupported(_)
            | Refusal::ContactMissing
            | Refusal::Database(_) => None,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let failure = Failure::new(refusal.code(), refusal.detail());
        match refusal.data() {
            Some(data) => failure.with(data),
            None => failure,
        }
    }
}
