//! What the gateway does of its own accord: it tells us what became of its payments, when it pleases.

use domain::{
    money::Money,
    ports::{GatewayPayment, GatewayPaymentStatus, WebhookEvent, WebhookKind},
};
use sqlx::PgPool;
use workflows::checkout::webhook;

/// What the gateway would say about a payment.
pub fn word_of(payment: &GatewayPayment) -> WebhookEvent {
    let (kind, amount) = match payment.status {
        GatewayPaymentStatus::Captured => {
            let captured = Money::rounded(payment.captured, payment.amount.currency());
            (WebhookKind::PaymentCaptured, Some(captured))
        }
        GatewayPaymentStatus::Failed => (WebhookKind::PaymentFailed, None),
        GatewayPaymentStatus::Pending | GatewayPaymentStatus::RequiresAction | GatewayPaymentStatus::Authorized => {
            (WebhookKind::PaymentAuthorized, None)
        }
        GatewayPaymentStatus::Approved => (WebhookKind::PaymentApproved, None),
        GatewayPaymentStatus::Closed => (WebhookKind::PaymentClosed, None),
    };
    WebhookEvent {
        event_id: format!("evt_{}", payment.gateway_payment_id),
        kind,
        gateway_payment_id: payment.gateway_payment_id.clone(),
        order_id: Some(payment.order_id),
        amount,
        failure: payment.failure.clone(),
        about: None,
    }
}

/// The same about a payment we never made.
pub fn word_of_another(payment: &GatewayPayment) -> WebhookEvent {
    WebhookEvent {
        gateway_payment_id: format!("{}_of_somebody_else", payment.gateway_payment_id),
        kind: WebhookKind::PaymentCaptured,
        amount: Some(payment.amount.clone()),
        ..word_of(payment)
    }
}

/// The webhook arrives, in a transaction of its own.
pub async fn deliver(pool: &PgPool, event: &WebhookEvent) -> &'static str {
    let mut tx = pool.begin().await.expect("a transaction");
    let outcome = webhook::receive(&mut tx, "scripted", event).await.expect("received");
    tx.commit().await.expect("committed");
    outcome
}
