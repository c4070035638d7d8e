//! A gateway in this process that answers at once, so that what is measured is ours.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    money::Money,
    payment::PaymentMethod,
    ports::{
        GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, GatewayRefundStatus, ListedRefund, Lookup,
        Operation, PaymentGateway, PaymentPage, PaymentRequest, Proceeding, RefundOrder, Unsupported, Webhook,
        WebhookError, Window,
    },
};
use rust_decimal::Decimal;
use uuid::Uuid;

/// Captures at once, or waits for shoppers who never pay.
#[derive(Debug)]
pub(crate) struct Instantly {
    captures: bool,
    memory: Mutex<Memory>,
}

/// What is asked of it later: one payment an order, and what went back.
#[derive(Debug, Default)]
struct Memory {
    payments: HashMap<OrderId, GatewayPayment>,
    /// Whose a payment is, by its id.
    orders: HashMap<String, OrderId>,
    /// By our ids of them, with their payments.
    refunds: HashMap<Uuid, (String, GatewayRefund)>,
}

impl Instantly {
    /// The name of one that captures.
    pub(crate) const CAPTURES: &'static str = "instantly";
    /// The name of one that waits.
    pub(crate) const WAITS: &'static str = "patiently";

    pub(crate) fn captures() -> Self {
        Instantly { captures: true, memory: Mutex::default() }
    }

    pub(crate) fn waits() -> Self {
        Instantly { captures: false, memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PaymentGateway for Instantly {
    fn name(&self) -> &'static str {
        if self.captures { Self::CAPTURES } else { Self::WAITS }
    }

    fn key_lifetime(&self, _: Operation) -> Duration {
        Duration::from_secs(24 * 3600)
    }

    fn accepts(&self, _: PaymentMethod, _: &Money) -> Result<(), Unsupported> {
        Ok(())
    }

    async fn initiate(&self, key: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError> {
        let Memory { payments, orders, .. } = &mut *self.memory();
        let payment = payments.entry(request.order_id).or_insert_with(|| GatewayPayment {
            gateway_payment_id: format!("instant_{}", key.simple()),
            order_id: request.order_id,
            status: if self.captures { GatewayPaymentStatus::Captured } else { GatewayPaymentStatus::Pending },
            captured: if self.captures { request.amount.amount() } else { Decimal::ZERO },
            amount: request.amount.clone(),
            refunded: Decimal::ZERO,
            next_action: None,
            failure: None,
        });
        orders.entry(payment.gateway_payment_id.clone()).or_insert(payment.order_id);
        Ok(payment.clone())
    }

    async fn find(&self, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        Ok(self.memory().payments.get(&lookup.order_id).cloned().into_iter().collect())
    }

    async fn proceed(&self, _: Uuid, proceeding: &Proceeding) -> Result<GatewayPayment, GatewayError> {
        let found = self.memory().payments.get(&proceeding.order_id).cloned();
        found.ok_or_else(|| GatewayError::Unknown("there is no such payment".to_owned()))
    }

    async fn close(&self, _: Uuid, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let mut memory = self.memory();
        let payment = memory.payments.get_mut(&lookup.order_id).map(|payment| {
            if payment.status == GatewayPaymentStatus::Pending {
                payment.status = GatewayPaymentStatus::Closed;
            }
            payment.clone()
        });
        Ok(payment.into_iter().collect())
    }

    async fn refund(&self, key: Uuid, refund: &RefundOrder) -> Result<GatewayRefund, GatewayError> {
        let RefundOrder { refund_id, gateway_payment_id, amount, .. } = refund;
        let Memory { payments, orders, refunds } = &mut *self.memory();
        if let Some(refund) = refunds.get(refund_id) {
            return Ok(refund.1.clone());
        }
        let payment = orders.get(gateway_payment_id).and_then(|order_id| payments.get_mut(order_id));
        let payment = payment.filter(|payment| payment.refunded + amount.amount() <= payment.captured);
        let Some(payment) = payment else {
            let detail = format!("{gateway_payment_id} has not so much left");
            return Err(GatewayError::Refused { code: "nothing-to-refund".to_owned(), detail });
        };
        payment.refunded += amount.amount();
        let refund = GatewayRefund {
            gateway_refund_id: format!("refund_{}", key.simple()),
            amount: amount.clone(),
            status: GatewayRefundStatus::Succeeded,
            failure: None,
        };
        refunds.insert(*refund_id, (gateway_payment_id.clone(), refund.clone()));
        Ok(refund)
    }

    async fn find_refund(&self, refund: &RefundOrder) -> Result<Option<GatewayRefund>, GatewayError> {
        Ok(self.memory().refunds.get(&refund.refund_id).map(|(_, refund)| refund.clone()))
    }

    async fn refunds(&self, gateway_payment_id: &str) -> Result<Vec<ListedRefund>, GatewayError> {
        let memory = self.memory();
        let of_payment = memory.refunds.iter().filter(|(_, (payment_id, _))| payment_id == gateway_payment_id);
        let listed = |(id, (_, refund)): (&Uuid, &(String, GatewayRefund))| ListedRefund {
            refund_id: Some(*id),
            refund: refund.clone(),
        };
        Ok(of_payment.map(listed).collect())
    }

    async fn list(&self, _: Window, _: Option<&str>) -> Result<PaymentPage, GatewayError> {
        Ok(PaymentPage::default())
    }

    async fn verify_webhook(
        &self,
        _: &[(String, String)],
        _: &[u8],
        _: DateTime<Utc>,
    ) -> Result<Webhook, WebhookError> {
        Err(WebhookError::BadSignature)
    }
}
