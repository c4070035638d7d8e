//! `refunds` that do not get on by themselves, as people see them.

use chrono::{DateTime, Utc};
use domain::{money::Currency, refund::RefundStatus};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::DueRefund;

/// A refund, as staff look at it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundHead {
    /// Our id of it.
    pub refund_id: Uuid,
    /// Of which order.
    pub order_id: Uuid,
    /// The run that sends it.
    pub run_id: Uuid,
    /// Where it stands.
    pub status: RefundStatus,
    /// The gateway's payment it takes back; none for cash.
    pub gateway_payment_id: Option<String>,
    /// How much, in major units of `currency`.
    pub amount: Decimal,
    /// Of what.
    pub currency: Currency,
    /// Why it goes back.
    pub reason: String,
    /// Why the gateway refused it, the last time it did.
    pub failure: Option<String>,
    /// Not by the gateway: paid back by a person, or taken by the shopper's bank.
    pub by_hand: bool,
    /// When it was claimed.
    pub created_at: DateTime<Utc>,
    /// When it came to stand there.
    pub updated_at: DateTime<Utc>,
}

impl RefundHead {
    /// As whoever settles it takes it.
    pub fn due(&self) -> DueRefund {
        DueRefund {
            refund_id: self.refund_id,
            gateway_payment_id: self.gateway_payment_id.clone(),
            amount: self.amount,
            currency: self.currency,
        }
    }
}

struct Row {
    id: Uuid,
    order_id: Uuid,
    run_id: Uuid,
    status: String,
    gateway_payment_id: Option<String>,
    amount: Decimal,
    currency: String,
    reason: String,
    failure: Option<String>,
    by_hand: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<RefundHead, sqlx::Error> {
        Ok(RefundHead {
            refund_id: self.id,
            order_id: self.order_id,
            run_id: self.run_id,
            status: self.status.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            gateway_payment_id: self.gateway_payment_id,
            amount: self.amount,
            currency: self.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            reason: self.reason,
            failure: self.failure,
            by_hand: self.by_hand,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// One refund by its id. Nothing is locked.
///
/// # Errors
/// The database's own.
pub async fn find(conn: &mut PgConnection, refund_id: Uuid) -> Result<Option<RefundHead>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "select r.id, p.order_id, r.run_id, r.status, r.gateway_payment_id, r.amount, p.currency, r.reason, r.failure,
                r.by_hand, r.created_at, r.updated_at
           from refunds r join payments p on p.id = r.payment_id
          where r.id = $1",
        refund_id
    )
    .fetch_optional(conn)
    .await?;
    row.map(Row::read).transpose()
}

/// Up to `limit` refunds of this status, or of any, claimed before `before`; the newest first.
///
/// # Errors
/// The database's own.
pub async fn list(
    conn: &mut PgConnection,
    status: Option<RefundStatus>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<RefundHead>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "select r.id, p.order_id, r.run_id, r.status, r.gateway_payment_id, r.amount, p.currency, r.reason, r.failure,
                r.by_hand, r.created_at, r.updated_at
           from refunds r join payments p on p.id = r.payment_id
          where ($1::text is null or r.status = $1) and ($2::uuid is null or r.id < $2)
          order by r.id desc limit $3",
        status.map(RefundStatus::as_str),
        before,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// How many the gateway has refused, and nobody has decided about.
///
/// # Errors
/// The database's own.
pub async fn count_failed(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        // The first condition is that of the index.
        r#"select count(*) as "count!" from refunds where status <> 'SUCCEEDED' and status = 'FAILED'"#
    )
    .fetch_one(conn)
    .await
}

/// A refund that waits for a person.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Our id of it.
    pub refund_id: Uuid,
    /// Of which order.
    pub order_id: Uuid,
    /// The run that sends it.
    pub run_id: Uuid,
    /// How much, in major units of `currency`.
    pub amount: Decimal,
    /// Of what.
    pub currency: String,
    /// Why the gateway refused it.
    pub failure: Option<String>,
    /// Since when it has stood there.
    pub since: DateTime<Utc>,
}

/// Up to `limit` refunds after `after` that the gateway has refused.
///
/// # Errors
/// The database's own.
pub async fn held(conn: &mut PgConnection, after: Uuid, limit: i64) -> Result<Vec<Held>, sqlx::Error> {
    sqlx::query_as!(
        Held,
        "select r.id as refund_id, p.order_id, r.run_id, r.amount, p.currency, r.failure, r.updated_at as since
           from refunds r join payments p on p.id = r.payment_id
          where r.status <> 'SUCCEEDED' and r.status = 'FAILED' and r.id > $1
          order by r.id limit $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await
}
