//! A gateway and a mailbox in memory: they keep their promises however often they are called, and
//! remember everything, so that a test can count the money.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    money::Money,
    ports::{
        Email, GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, MailError, Mailer, NextAction,
        PaymentGateway, PaymentRequest, WebhookError, WebhookEvent,
    },
};
use rust_decimal::Decimal;
use uuid::Uuid;

#[derive(Default)]
struct Ledger {
    by_key: HashMap<Uuid, String>,
    payments: BTreeMap<String, GatewayPayment>,
    refunds: HashMap<Uuid, GatewayRefund>,
    calls: usize,
}

/// Decides by token: `tok_ok` captures, `tok_declined` fails, `tok_3ds` wants the shopper first,
/// `tok_unknown_once` captures but loses its first answer.
#[derive(Default)]
pub struct ScriptedGateway(Mutex<Ledger>);

impl ScriptedGateway {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Captured minus refunded for an order.
    pub fn net(&self, order_id: OrderId) -> Decimal {
        self.ledger().payments.values().filter(|p| p.order_id == order_id).map(|p| p.captured - p.refunded).sum()
    }

    /// Payments ever made for an order.
    pub fn payments(&self, order_id: OrderId) -> Vec<GatewayPayment> {
        self.ledger().payments.values().filter(|p| p.order_id == order_id).cloned().collect()
    }

    /// The shopper approves what waits for them.
    pub fn approve(&self, order_id: OrderId) -> Option<GatewayPayment> {
        let mut ledger = self.ledger();
        let payment = ledger
            .payments
            .values_mut()
            .find(|p| p.order_id == order_id && p.status == GatewayPaymentStatus::RequiresAction)?;
        payment.status = GatewayPaymentStatus::Captured;
        payment.captured = payment.amount.amount();
        Some(payment.clone())
    }
}

#[async_trait]
impl PaymentGateway for ScriptedGateway {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn key_lifetime(&self) -> Duration {
        Duration::from_secs(24 * 3600)
    }

    async fn initiate(&self, key: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError> {
        let mut ledger = self.ledger();
        ledger.calls += 1;
        if let Some(id) = ledger.by_key.get(&key).cloned() {
            return Ok(ledger.payments[&id].clone());
        }
        let id = format!("pay_{}", Uuid::now_v7());
        let token = request.token.as_deref().unwrap_or_default();
        let zero = Decimal::ZERO;
        let (status, captured, failure) = match token {
            "tok_declined" => (GatewayPaymentStatus::Failed, zero, Some("card_declined".to_owned())),
            "tok_3ds" => (GatewayPaymentStatus::RequiresAction, zero, None),
            _ => (GatewayPaymentStatus::Captured, request.amount.amount(), None),
        };
        let next_action = (status == GatewayPaymentStatus::RequiresAction)
            .then(|| NextAction::Redirect { url: "http://127.0.0.1/pay".to_owned() });
        let payment = GatewayPayment {
            gateway_payment_id: id.clone(),
            order_id: request.order_id,
            status,
            amount: request.amount.clone(),
            captured,
            refunded: zero,
            next_action,
            failure,
        };
        ledger.by_key.insert(key, id.clone());
        ledger.payments.insert(id, payment.clone());
        if token == "tok_unknown_once" {
            return Err(GatewayError::Unknown("the answer was lost".to_owned()));
        }
        Ok(payment)
    }

    async fn find(&self, order_id: OrderId) -> Result<Vec<GatewayPayment>, GatewayError> {
        Ok(self.payments(order_id))
    }

    async fn close(&self, _: Uuid, order_id: OrderId) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut ledger = self.ledger();
        for payment in ledger.payments.values_mut().filter(|p| p.order_id == order_id) {
            if payment.status == GatewayPaymentStatus::RequiresAction {
                payment.status = GatewayPaymentStatus::Closed;
            }
        }
        Ok(ledger.payments.values().filter(|p| p.order_id == order_id).cloned().collect())
    }

    async fn refund(&self, key: Uuid, gateway_payment_id: &str, amount: &Money) -> Result<GatewayRefund, GatewayError> {
        let mut ledger = self.ledger();
        if let Some(refund) = ledger.refunds.get(&key) {
            return Ok(refund.clone());
        }
        let payment = ledger.payments.get_mut(gateway_payment_id).expect("a payment to refund");
        assert!(payment.refunded + amount.amount() <= payment.captured, "more refunded than captured");
        payment.refunded += amount.amount();
        let refund = GatewayRefund { gateway_refund_id: format!("re_{key}"), amount: amount.clone() };
        ledger.refunds.insert(key, refund.clone());
        Ok(refund)
    }

    fn verify_webhook(&self, _: &[(String, String)], _: &[u8], _: DateTime<Utc>) -> Result<WebhookEvent, WebhookError> {
        Err(WebhookError::BadSignature)
    }
}

/// Every message handed over, by Message-ID: a second copy is the same message.
#[derive(Default)]
pub struct Mails(Mutex<BTreeMap<String, Email>>);

impl Mails {
    /// Messages about an order.
    pub fn about(&self, order_id: OrderId) -> Vec<Email> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter(|mail| mail.order_id == Some(order_id))
            .cloned()
            .collect()
    }
}

#[async_trait]
impl Mailer for Mails {
    async fn send(&self, email: &Email) -> Result<(), MailError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(email.message_id.clone(), email.clone());
        Ok(())
    }
}
