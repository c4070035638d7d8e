//! The shop as flows and the API know it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use domain::{
    ports::{Mailer, PaymentGateway},
    pricing::Pricing,
};

use crate::rules::Rules;

/// What flows and the API share: the shop's rules and its ways to the outside.
pub struct Shop {
    /// Configuration.
    pub rules: Rules,
    /// The one pricing pipeline.
    pub pricing: Pricing,
    /// Payment gateways by name.
    pub gateways: BTreeMap<String, Arc<dyn PaymentGateway>>,
    /// How e-mail leaves the house; without it messages are recorded as SKIPPED.
    pub mailer: Option<Arc<dyn Mailer>>,
}

impl fmt::Debug for Shop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shop")
            .field("rules", &self.rules)
            .field("gateways", &self.gateways.keys())
            .finish_non_exhaustive()
    }
}

impl Shop {
    /// A shop by these rules.
    pub fn new(rules: Rules, gateways: Vec<Arc<dyn PaymentGateway>>, mailer: Option<Arc<dyn Mailer>>) -> Arc<Self> {
        let pricing = Pricing::new(rules.pricing.clone());
        let gateways = gateways.into_iter().map(|gateway| (gateway.name().to_owned(), gateway)).collect();
        Arc::new(Shop { rules, pricing, gateways, mailer })
    }

    /// The gateway of that name, if it is configured.
    pub fn gateway(&self, name: &str) -> Option<&Arc<dyn PaymentGateway>> {
        self.gateways.get(name)
    }
}
