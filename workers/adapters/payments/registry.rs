//! Finds a gateway by the name it was chosen by at checkout.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::ports::PaymentGateway;

/// The gateways that are configured, by their names.
#[derive(Clone, Default)]
pub struct Gateways(BTreeMap<&'static str, Arc<dyn PaymentGateway>>);

impl Gateways {
    /// None configured.
    pub fn new() -> Gateways {
        Gateways::default()
    }

    /// Adds a gateway under its own name; a second one of that name replaces the first.
    pub fn with(mut self, gateway: Arc<dyn PaymentGateway>) -> Gateways {
        self.0.insert(gateway.name(), gateway);
        self
    }

    /// The gateway called `name` (`"stripe"`, `"razorpay"`, `"paypal"`, `"sandbox"`), if it is configured.
    pub fn get(&self, name: &str) -> Option<Arc<dyn PaymentGateway>> {
        self.0.get(name).map(Arc::clone)
    }

    /// The configured names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }
}
