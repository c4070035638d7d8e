//! The shop's workflows. `checkout` is the one to read first; each file is one flow, each step is
//! followed by its undo. The SQL is in `store`, one file a table family.
//!
//! What must not live here: HTTP, queues, processes, or any adapter. Gateways and mail come in
//! through the ports of `domain`.

pub mod abandoned_cart;
pub mod audit;
pub mod cancellation;
pub mod cart;
pub mod cart_expiry;
pub mod checkout;
mod desk;
pub mod fraud;
pub mod fulfilment;
pub mod hold_mirror;
pub mod low_stock_alerts;
pub mod notification;
pub mod operations;
pub mod order_return;
pub mod pay_back;
pub mod payment_reconciliation;
pub mod refund;
pub mod reservation_expiry;
pub mod retention;
pub mod rules;
pub mod shop;
pub mod stuck_run_rescue;

use std::sync::Arc;

use engine::Registry;

pub use rules::Rules;
pub use shop::Shop;
pub use store;

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
