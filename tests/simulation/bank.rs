//! What the gateway does of its own accord: it tells us what became of its payments, when it pleases.

use domain::{
    ids::OrderId,
    money::Money,
    payment::DisputeStatus,
    ports::{
        GatewayPayment, GatewayPaymentStatus, GatewayRefund, GatewayRefundStatus, WebhookEvent, WebhookKind,
        WebhookSubject,
    },
};
use sqlx::PgPool;
use uuid::Uuid;
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
        at: None,
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

/// What it would say about a refund of ours; not every gateway names our id of it.
pub fn word_of_refund(order_id: OrderId, refund: &(Uuid, GatewayRefund, String), names_ours: bool) -> WebhookEvent {
    let (refund_id, refund, payment) = refund;
    let kind = match refund.status {
        GatewayRefundStatus::Pending => WebhookKind::RefundPending,
        GatewayRefundStatus::Succeeded => WebhookKind::RefundSucceeded,
        GatewayRefundStatus::Failed => WebhookKind::RefundFailed,
    };
    WebhookEvent {
        event_id: format!("evt_{}", refund.gateway_refund_id),
        kind,
        gateway_payment_id: payment.clone(),
        order_id: Some(order_id),
        amount: Some(refund.amount.clone()),
        failure: refund.failure.clone(),
        about: Some(WebhookSubject {
            gateway_id: refund.gateway_refund_id.clone(),
            refund_id: names_ours.then_some(*refund_id),
        }),
        at: None,
    }
}

/// What it would say of a refund that was made on its own site.
pub fn word_of_elsewhere(order_id: OrderId, payment: &str, refund: &GatewayRefund) -> WebhookEvent {
    word_of_refund(order_id, &(Uuid::nil(), refund.clone(), payment.to_owned()), false)
}

/// The shopper's bank wants a payment back, or has done with it.
pub fn word_of_dispute(payment: &GatewayPayment, status: DisputeStatus) -> WebhookEvent {
    let kind = match status {
        DisputeStatus::Opened => WebhookKind::DisputeOpened,
        DisputeStatus::Won => WebhookKind::DisputeWon,
        DisputeStatus::Lost => WebhookKind::DisputeLost,
    };
    let gateway_id = format!("dp_{}", payment.gateway_payment_id);
    WebhookEvent {
        kind,
        amount: Some(Money::rounded(payment.captured, payment.amount.currency())),
        failure: Some("fraudulent".to_owned()),
        about: Some(WebhookSubject { gateway_id, refund_id: None }),
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
