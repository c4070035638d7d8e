//! The shop's workflows. `checkout` is the one to read first; each file is one flow, each step is
//! followed by its undo. `store` holds the SQL, one file a table family.
//!
//! What must not live here: HTTP, queues, processes, or any adapter. Gateways and mail come in
//! through the ports of `domain`.

pub mod abandoned_cart;
pub mod audit;
pub mod cancellation;
pub mod cart;
pub mod cart_expiry;
pub mod checkout;
pub mod fulfilment;
pub mod hold_mirror;
pub mod low_stock_alerts;
pub mod notification;
pub mod operations;
pub mod order_return;
pub mod payment_reconciliation;
pub mod refund;
pub mod reservation_expiry;
pub mod retention;
pub mod rules;
pub mod store;
pub mod stuck_run_rescue;

use std::{collections::BTreeMap, fmt, sync::Arc};

use domain::{
    ports::{Mailer, PaymentGateway},
    pricing::Pricing,
};
use engine::Registry;

pub use rules::Rules;

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

/// Every workflow of the shop.
pub fn registry(shop: &Arc<Shop>) -> Registry {
    Registry::default()
        .with(checkout::Checkout(Arc::clone(shop)))
        .with(cancellation::Cancellation(Arc::clone(shop)))
        .with(refund::RefundPayment(Arc::clone(shop)))
        .with(fulfilment::Fulfilment)
        .with(notification::Notification(Arc::clone(shop)))
        .with(order_return::OrderReturn(Arc::clone(shop)))
        .with(reservation_expiry::ReservationExpiry)
        .with(abandoned_cart::AbandonedCarts(Arc::clone(shop)))
        .with(abandoned_cart::AbandonedCart)
        .with(cart_expiry::CartExpiry(Arc::clone(shop)))
        .with(low_stock_alerts::LowStockAlerts)
        .with(payment_reconciliation::PaymentReconciliation(Arc::clone(shop)))
        .with(retention::Retention(Arc::clone(shop)))
        .with(stuck_run_rescue::StuckRunRescue)
}
