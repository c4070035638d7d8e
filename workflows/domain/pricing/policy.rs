//! What a shop's owner decides about prices.

use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::place::Destination;
use super::shipping::{FlatShipping, ShippingStrategy};
use super::tax::{FlatRateTax, GstTax, TaxStrategy};
use crate::money::Currency;

/// The price of each shipping method, in major units of the policy's currency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShippingRates {
    /// By the usual courier.
    pub standard: Decimal,
    /// By the fast one.
    pub express: Decimal,
}

impl Default for ShippingRates {
    fn default() -> Self {
        Self { standard: Decimal::from(50), express: Decimal::from(150) }
    }
}

/// Which tax is charged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaxPolicy {
    /// India's GST, by each variant's own rate.
    Gst,
    /// One rate for everything.
    FlatRate {
        /// In percent.
        rate: Decimal,
    },
}

/// Everything about prices that is configured. The default is a seller in Maharashtra who charges
/// rupees, GST and flat shipping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PricingPolicy {
    /// The currency of every price.
    pub currency: Currency,
    /// The country the seller is registered in.
    pub seller_country: String,
    /// The state the seller is registered in.
    pub seller_state: String,
    /// What shipping costs.
    pub shipping: ShippingRates,
    /// Merchandise subtotal above which shipping is free.
    pub free_shipping_above: Option<Decimal>,
    /// The least merchandise subtotal that can be ordered.
    pub minimum_order_value: Option<Decimal>,
    /// Which tax is charged.
    pub tax: TaxPolicy,
}

impl Default for PricingPolicy {
    fn default() -> Self {
        Self {
            currency: Currency::INR,
            seller_country: "India".to_owned(),
            seller_state: "Maharashtra".to_owned(),
            shipping: ShippingRates::default(),
            free_shipping_above: None,
            minimum_order_value: None,
            tax: TaxPolicy::Gst,
        }
    }
}

impl PricingPolicy {
    /// The same without what is an amount of money.
    #[must_use]
    pub fn without_charges(&self) -> Self {
        Self {
            shipping: ShippingRates { standard: Decimal::ZERO, express: Decimal::ZERO },
            free_shipping_above: None,
            minimum_order_value: None,
            ..self.clone()
        }
    }

    pub(super) fn tax_strategy(&self) -> Arc<dyn TaxStrategy> {
        let currency = self.currency;
        match &self.tax {
            TaxPolicy::Gst => {
                let seller = Destination { country: self.seller_country.clone(), state: self.seller_state.clone() };
                Arc::new(GstTax { currency, seller })
            }
            TaxPolicy::FlatRate { rate } => Arc::new(FlatRateTax { currency, rate: *rate }),
        }
    }

    pub(super) fn shipping_strategy(&self) -> Arc<dyn ShippingStrategy> {
        Arc::new(FlatShipping { rates: self.shipping.clone(), free_above: self.free_shipping_above })
    }
}
