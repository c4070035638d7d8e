//! Sends what `sandbox.webhooks` holds: at least once each, five times at most, never inside a
//! transaction. A row that is being sent is leased, so a crash only delays it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::signing::SigningKey;

/// How often due webhooks are looked for.
const EVERY: Duration = Duration::from_millis(200);

/// How many are in the air at once.
const BATCH: i32 = 64;

/// How long one receiver may take; half the lease, which is all that a crash delays a webhook.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// After this many attempts the receiver has to ask.
const MAX_ATTEMPTS: i32 = 5;

/// How long settled rows are kept to look at, and how many one sweep deletes.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
const SWEEP_BATCH: i32 = 10_000;

#[derive(sqlx::FromRow)]
struct Webhook {
    event_id: String,
    copy: i32,
    kind: String,
    payment_id: String,
    order_id: String,
    amount: Decimal,
    currency: String,
    failure: Option<String>,
    refund_id: Option<String>,
    /// The caller's own id of the refund.
    reference: Option<String>,
    dispute_id: Option<String>,
}

impl Webhook {
    fn body(&self) -> Value {
        let mut data = json!({
            "gatewayPaymentId": self.payment_id,
            "orderId": self.order_id,
            "amount": self.amount.to_string(),
            "currency": self.currency,
        });
        let Webhook { failure, refund_id, reference, dispute_id, .. } = self;
        for (name, value) in
            [("failure", failure), ("gatewayRefundId", refund_id), ("refundId", reference), ("disputeId", dispute_id)]
        {
            if let Some(value) = value {
                data[name] = json!(value);
            }
        }
        json!({ "type": self.kind, "data": data })
    }
}

/// Where webhooks go and how they are signed.
pub(crate) struct Sender {
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
    pub(crate) key: SigningKey,
}

impl Sender {
    /// One attempt; whatever is not a 2xx in time is a failure.
    async fn send(&self, webhook: &Webhook) -> bool {
        let body = webhook.body().to_string();
        let timestamp = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        let answer = self
            .client
            .post(&self.url)
            .timeout(SEND_TIMEOUT)
            .header("content-type", "application/json")
            .header("webhook-id", &webhook.event_id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.key.sign(&webhook.event_id, timestamp, &body))
            .body(body)
            .send()
            .await;
        match answer {
            Ok(answer) if answer.status().is_success() => true,
            Ok(answer) => {
                tracing::debug!(
                    event_id = webhook.event_id,
                    status = answer.status().as_u16(),
                    "a webhook was not taken"
                );
                false
            }
            Err(error) => {
                tracing::debug!(event_id = webhook.event_id, %error, "a webhook did not arrive");
                false
            }
        }
    }
}

/// Sends due webhooks until `closing`; those in the air are finished first.
pub(crate) async fn run(pool: PgPool, sender: Sender, closing: CancellationToken) {
    let sender = Arc::new(sender);
    let mut ticks = tokio::time::interval(EVERY);
    let mut sweeps = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let result = tokio::select! {
            () = closing.cancelled() => return,
            _ = sweeps.tick() => sweep(&pool).await,
            _ = ticks.tick() => deliver_due(&pool, &sender, &closing).await,
        };
        if let Err(error) = result {
            tracing::warn!(%error, "webhooks must wait: the sandbox gateway's database did not answer");
        }
    }
}

/// Batch after batch while they come full.
async fn deliver_due(pool: &PgPool, sender: &Arc<Sender>, closing: &CancellationToken) -> Result<(), sqlx::Error> {
    loop {
        let batch = claim(pool).await?;
        let full = i32::try_from(batch.len()).is_ok_and(|len| len >= BATCH);
        let mut sends = JoinSet::new();
        for webhook in batch {
            let sender = Arc::clone(sender);
            sends.spawn(async move {
                let delivered = sender.send(&webhook).await;
                (webhook.event_id, webhook.copy, delivered)
            });
        }
        let outcomes = sends.join_all().await;
        if !outcomes.is_empty() {
            record(pool, outcomes).await?;
        }
        if !full || closing.is_cancelled() {
            return Ok(());
        }
    }
}

/// Leases the webhooks that are due, oldest first.
async fn claim(pool: &PgPool) -> Result<Vec<Webhook>, sqlx::Error> {
    sqlx::query_as(
        "with due as (
             select event_id, copy from sandbox.webhooks where send_at <= clock_timestamp()
             order by send_at limit $1 for update skip locked)
         update sandbox.webhooks w
         set attempts = attempts + 1, send_at = clock_timestamp() + interval '10 s'
         from due where w.event_id = due.event_id and w.copy = due.copy
         returning w.event_id, w.copy, kind, payment_id, order_id, amount, currency, failure, refund_id, reference,
                   dispute_id",
    )
    .bind(BATCH)
    .fetch_all(pool)
    .await
}

/// Delivered ones are done; the others are tried again after 1, 2, 4 and 8 seconds.
async fn record(pool: &PgPool, outcomes: Vec<(String, i32, bool)>) -> Result<(), sqlx::Error> {
    let mut event_ids = Vec::with_capacity(outcomes.len());
    let mut copies = Vec::with_capacity(outcomes.len());
    let mut delivered = Vec::with_capacity(outcomes.len());
    for (event_id, copy, arrived) in outcomes {
        event_ids.push(event_id);
        copies.push(copy);
        delivered.push(arrived);
    }
    sqlx::query(
        "update sandbox.webhooks w
         set delivered_at = case when o.delivered then clock_timestamp() end,
             send_at = case when not o.delivered and attempts < $4
                            then clock_timestamp() + make_interval(secs => 1 << (attempts - 1)) end
         from unnest($1::text[], $2::int[], $3::bool[]) as o (event_id, copy, delivered)
         where w.event_id = o.event_id and w.copy = o.copy",
    )
    .bind(event_ids)
    .bind(copies)
    .bind(delivered)
    .bind(MAX_ATTEMPTS)
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets webhooks that were settled a day ago.
async fn sweep(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "delete from sandbox.webhooks where (event_id, copy) in (
             select event_id, copy from sandbox.webhooks
             where send_at is null and created_at < clock_timestamp() - interval '1 day' limit $1)",
    )
    .bind(SWEEP_BATCH)
    .execute(pool)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_happened_to_which_payment() {
        let mut webhook = Webhook {
            event_id: "evt_1".into(),
            copy: 1,
            kind: "payment.failed".into(),
            payment_id: "sbx_1".into(),
            order_id: "order".into(),
            amount: Decimal::new(5_905_000, 2),
            currency: "INR".into(),
            failure: Some("card_declined".into()),
            refund_id: None,
            reference: None,
            dispute_id: None,
        };
        let data = json!({ "gatewayPaymentId": "sbx_1", "orderId": "order", "amount": "59050.00",
                           "currency": "INR", "failure": "card_declined" });
        assert_eq!(webhook.body(), json!({ "type": "payment.failed", "data": data }));
        webhook.failure = None;
        assert!(webhook.body()["data"].get("failure").is_none());
    }
}
