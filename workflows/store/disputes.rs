//! `payment_disputes`: what shoppers' banks want back.

use chrono::{DateTime, Utc};
use domain::{ids::OrderId, money::Money, payment::DisputeStatus};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

/// What a gateway says of one.
#[derive(Debug, Clone, Copy)]
pub struct Dispute<'a> {
    /// Whose word it is.
    pub gateway: &'a str,
    /// The gateway's id of it.
    pub gateway_dispute_id: &'a str,
    /// The order that was paid.
    pub order_id: OrderId,
    /// The gateway's id of the payment.
    pub gateway_payment_id: &'a str,
    /// How much is wanted back, if the gateway says.
    pub amount: Option<&'a Money>,
    /// Why, in the bank's words.
    pub reason: Option<&'a str>,
    /// Where it stands.
    pub status: DisputeStatus,
    /// Since when, by the gateway's clock, if it says.
    pub said_at: Option<DateTime<Utc>>,
}

/// Books it, and an event. False when that was known, or it has ended otherwise since. Words arrive in any order: of two
/// ends the later one stands; where the gateway does not date them, or at the same time, the one that is lost.
///
/// # Errors
/// The database's own.
pub async fn record(conn: &mut PgConnection, dispute: Dispute<'_>, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let recorded = sqlx::query!(
        "with recorded as (
            insert into payment_disputes as d
                   (gateway, gateway_dispute_id, order_id, gateway_payment_id, amount, currency, reason, status,
                    said_at, created_at, updated_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $10, $9, $9)
            on conflict (gateway, gateway_dispute_id) do update
               set status = excluded.status, said_at = excluded.said_at, updated_at = $9, amount = coalesce(excluded.amount, d.amount),
                   currency = coalesce(excluded.currency, d.currency), reason = coalesce(excluded.reason, d.reason)
             where d.status = 'OPENED' and excluded.status <> 'OPENED'
                or d.status = 'WON' and excluded.status = 'LOST' and (excluded.said_at < d.said_at) is not true
                or d.status = 'LOST' and excluded.status = 'WON' and excluded.said_at > d.said_at
            returning order_id, amount, currency, reason, status)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), 'payment.disputed', order_id::text,
                jsonb_build_object('orderId', order_id, 'amount', amount::text, 'currency', currency, 'reason', reason,
                                   'status', status), $9
           from recorded",
        dispute.gateway,
        dispute.gateway_dispute_id,
        Uuid::from(dispute.order_id),
        dispute.gateway_payment_id,
        dispute.amount.map(Money::amount),
        dispute.amount.map(|amount| amount.currency().as_str().to_owned()),
        dispute.reason,
        dispute.status.as_str(),
        now,
        dispute.said_at
    )
    .execute(conn)
    .await?;
    Ok(recorded.rows_affected() == 1)
}

/// How far shoppers' banks are with a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contested {
    /// One of them wants it back, and nobody knows yet how that ends.
    pub is_open: bool,
    /// What they have taken that is not among the payment's refunds, in major units of the order's currency.
    pub unbooked: Decimal,
}

/// How far the banks are with a payment of an order. A dispute over no amount, or over one in another currency, is over
/// all that was captured.
///
/// # Errors
/// The database's own.
pub async fn contested(
    conn: &mut PgConnection,
    order_id: OrderId,
    gateway_payment_id: &str,
) -> Result<Contested, sqlx::Error> {
    sqlx::query_as!(
        Contested,
        r#"select coalesce(bool_or(d.status = 'OPENED'), false) as "is_open!",
                  greatest(coalesce(sum(case when d.currency = p.currency then d.amount else p.captured_amount end)
                                    filter (where d.status = 'LOST'), 0)
                           - (select coalesce(sum(r.amount), 0)
                                from refunds r join payments of on of.id = r.payment_id
                               where of.order_id = $1 and r.gateway_payment_id = $2
                                 and r.origin = 'BANK' and r.status = 'SUCCEEDED'), 0) as "unbooked!"
             from payment_disputes d join payments p on p.order_id = d.order_id
            where d.order_id = $1 and d.gateway_payment_id = $2"#,
        Uuid::from(order_id),
        gateway_payment_id
    )
    .fetch_one(conn)
    .await
}

/// The payments of an order of which banks have taken money.
///
/// # Errors
/// The database's own.
pub async fn lost(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "select distinct gateway_payment_id from payment_disputes where order_id = $1 and status = 'LOST'",
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await
}

/// A dispute as the staff look at it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DisputeHead {
    /// Whose word it is.
    pub gateway: String,
    /// The gateway's id of it.
    pub dispute_id: String,
    /// The order that was paid.
    pub order_id: Uuid,
    /// The gateway's id of the payment.
    pub payment_id: String,
    /// How much is wanted back, in major units of `currency`, if the gateway says.
    pub amount: Option<Decimal>,
    /// Of what.
    pub currency: Option<String>,
    /// OPENED, WON or LOST.
    pub status: String,
    /// Why, in the bank's words.
    pub reason: Option<String>,
    /// When we heard of it.
    pub opened_at: DateTime<Utc>,
    /// Since when it has stood where it stands.
    pub updated_at: DateTime<Utc>,
}

/// Up to `limit` disputes that are still open, the oldest first.
///
/// # Errors
/// The database's own.
pub async fn open(conn: &mut PgConnection, limit: i64) -> Result<Vec<DisputeHead>, sqlx::Error> {
    sqlx::query_as!(
        DisputeHead,
        "select gateway, gateway_dispute_id as dispute_id, order_id, gateway_payment_id as payment_id, amount, currency,
                status, reason, created_at as opened_at, updated_at
           from payment_disputes where status = 'OPENED' order by created_at limit $1",
        limit
    )
    .fetch_all(conn)
    .await
}

/// All of an order's, the oldest first.
///
/// # Errors
/// The database's own.
pub async fn of_order(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<DisputeHead>, sqlx::Error> {
    sqlx::query_as!(
        DisputeHead,
        "select gateway, gateway_dispute_id as dispute_id, order_id, gateway_payment_id as payment_id, amount, currency,
                status, reason, created_at as opened_at, updated_at
           from payment_disputes where order_id = $1 order by created_at, gateway_dispute_id",
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await
}
