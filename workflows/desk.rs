//! A payment gateway as flows come to it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    notification::{StaffReport, gateway_misconfigured},
    ports::{GatewayError, Lookup, PaymentGateway, RefundOrder},
};
use engine::{Dependency, Failure, StepError};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    notification::Notice,
    store::{
        disputes::{self, Contested},
        payments,
    },
};

/// What calls to a gateway depend on.
pub(crate) fn dependency_of(gateway: Option<&Arc<dyn PaymentGateway>>) -> Option<Dependency> {
    gateway.map(|gateway| Dependency::new("gateway", gateway.name()))
}

/// A gateway as a flow comes to it, and the way to say that it is set up wrongly.
#[derive(Clone)]
pub(crate) struct Desk<'a> {
    gateway: Option<&'a Arc<dyn PaymentGateway>>,
    pool: PgPool,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(pool: &PgPool, gateway: Option<&'a Arc<dyn PaymentGateway>>) -> Self {
        Desk { gateway, pool: pool.clone() }
    }

    /// What calls through this desk depend on.
    pub(crate) fn dependency(&self) -> Option<Dependency> {
        dependency_of(self.gateway)
    }

    pub(crate) fn gateway(&self) -> Result<&'a Arc<dyn PaymentGateway>, StepError> {
        // Another worker of the pool may have it.
        self.gateway.ok_or_else(|| StepError::Unknown("the payment gateway is not configured on this worker".into()))
    }

    /// What the gateway must be told to find an order's payments.
    pub(crate) async fn lookup(&self, order_id: OrderId, now: DateTime<Utc>) -> Result<Lookup, StepError> {
        Ok(payments::lookup(&mut *self.pool.acquire().await?, order_id, now).await?)
    }

    /// How far shoppers' banks are with the payment that a refund is of.
    pub(crate) async fn contested(&self, refund: &RefundOrder) -> Result<Contested, StepError> {
        let mut conn = self.pool.acquire().await?;
        Ok(disputes::contested(&mut conn, refund.order_id, &refund.gateway_payment_id).await?)
    }

    /// How a gateway's error is read: refused is final; anything else is "unknown", and tried again under
    /// the same key until it is known. That the shop is set up wrongly is no refusal either: the staff is
    /// told, and the run waits for them.
    pub(crate) async fn read<T>(&self, answer: Result<T, GatewayError>, now: DateTime<Utc>) -> Result<T, StepError> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(GatewayError::Refused { code, detail }) => {
                Err(Failure::new("payment-declined", format!("{code}: {detail}")).into())
            }
            Err(GatewayError::Busy { why, after_s }) => {
                Err(StepError::Busy { why, after: Duration::from_secs(after_s) })
            }
            Err(GatewayError::NotNow { code, detail, after_s }) => {
                Err(StepError::NotYet { why: format!("{code}: {detail}"), after: Duration::from_secs(after_s) })
            }
            Err(GatewayError::Unknown(why)) => Err(StepError::Unknown(why.into())),
            Err(GatewayError::Misconfigured(why)) => {
                if let Err(error) = self.complain(&why, now).await {
                    tracing::warn!(%error, "the staff could not be told that a gateway is set up wrongly");
                }
                Err(StepError::Unknown(why.into()))
            }
        }
    }

    /// Counts it, and tells the staff, once a day and gateway.
    async fn complain(&self, why: &str, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
        let Some(name) = self.gateway.map(|gateway| gateway.name()) else { return Ok(()) };
        metrics::counter!("cart_engine_gateway_misconfigured_total", "gateway" => name).increment(1);
        let (subject, text) = gateway_misconfigured(name, why);
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{name}/{}", now.date_naive()).as_bytes());
        let notice = Notice::to_staff("gateway.misconfigured", StaffReport { id, subject, text });
        let mut tx = self.pool.begin().await?;
        notice.tell(&mut tx).await?;
        tx.commit().await
    }
}
