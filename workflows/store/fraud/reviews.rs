//! `order_reviews`: orders whose money is set aside until somebody of the staff has looked at them.
//!
//! A review's row is locked before its run's.

use std::{fmt, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    UnknownName,
    fraud::{Facts, Network, Reason},
    ids::{OrderId, UserId},
    money::Currency,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{digest, unreadable};

/// Where a review stands. OPEN is left once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReviewStatus {
    /// It waits for the staff.
    Open,
    /// The money is taken.
    Approved,
    /// The money goes back.
    Rejected,
    /// Nobody has looked in time: the money goes back.
    Expired,
    /// The order was given up meanwhile.
    Withdrawn,
}

impl ReviewStatus {
    const ALL: [Self; 5] = [Self::Open, Self::Approved, Self::Rejected, Self::Expired, Self::Withdrawn];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Approved => "APPROVED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::Withdrawn => "WITHDRAWN",
        }
    }
}

impl fmt::Display for ReviewStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReviewStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownName { kind: "review status", text: text.to_owned() };
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(unknown)
    }
}

/// An order that is to be looked at.
#[derive(Debug, Clone, Copy)]
pub struct NewReview {
    /// Which.
    pub order_id: OrderId,
    /// The checkout that waits for it.
    pub run_id: Uuid,
    /// How long the staff may take, in seconds.
    pub deadline_s: i32,
}

/// A review as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Whether somebody must look.
    pub status: ReviewStatus,
    /// Until when.
    pub held_until: DateTime<Utc>,
}

/// Opens reviews; one that there is stays as it is. Returns how each stands, in their order.
///
/// # Errors
/// The database's own.
pub async fn open(
    conn: &mut PgConnection,
    reviews: &[NewReview],
    now: DateTime<Utc>,
) -> Result<Vec<Standing>, sqlx::Error> {
    let orders: Vec<Uuid> = reviews.iter().map(|review| review.order_id.into()).collect();
    let runs: Vec<Uuid> = reviews.iter().map(|review| review.run_id).collect();
    let until = |review: &NewReview| now + TimeDelta::seconds(review.deadline_s.into());
    let held_until: Vec<DateTime<Utc>> = reviews.iter().map(until).collect();
    let rows = sqlx::query!(
        "insert into order_reviews (order_id, run_id, opened_at, held_until)
         select r.order_id, r.run_id, $4, r.held_until
           from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) as r(order_id, run_id, held_until)
          order by r.order_id
         on conflict (order_id) do update set run_id = order_reviews.run_id
         returning order_id, status, held_until",
        &orders,
        &runs,
        &held_until,
        now
    )
    .fetch_all(conn)
    .await?;
    let standing = |order: &Uuid| {
        let row = rows.iter().find(|row| row.order_id == *order).ok_or(sqlx::Error::RowNotFound)?;
        Ok(Standing { status: row.status.parse().map_err(unreadable)?, held_until: row.held_until })
    };
    orders.iter().map(standing).collect()
}

/// A review under its lock.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The checkout that waits for it.
    pub run_id: Uuid,
    /// How it stands.
    pub standing: Standing,
}

/// Locks the review of an order until the transaction ends.
///
/// # Errors
/// The database's own.
pub async fn lock(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<Locked>, sqlx::Error> {
    let row = sqlx::query!(
        "select run_id, status, held_until from order_reviews where order_id = $1 for no key update",
        Uuid::from(order_id)
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let status = row.status.parse().map_err(unreadable)?;
        Ok(Locked { run_id: row.run_id, standing: Standing { status, held_until: row.held_until } })
    })
    .transpose()
}

/// OPEN → APPROVED or REJECTED: false if it was not open.
///
/// # Errors
/// The database's own.
pub async fn decide(
    conn: &mut PgConnection,
    order_id: OrderId,
    status: ReviewStatus,
    by: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query!(
        "update order_reviews set status = $2, decided_by = $3, reason = $4, ended_at = $5
          where order_id = $1 and status = 'OPEN'",
        Uuid::from(order_id),
        status.as_str(),
        by,
        reason,
        now
    )
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() > 0)
}

/// OPEN → EXPIRED or WITHDRAWN for these orders; what is decided stays. Returns how each stands then, in their order,
/// or none for an order that has no review.
///
/// # Errors
/// The database's own.
pub async fn end(
    conn: &mut PgConnection,
    orders: &[OrderId],
    status: ReviewStatus,
    now: DateTime<Utc>,
) -> Result<Vec<Option<ReviewStatus>>, sqlx::Error> {
    let ids: Vec<Uuid> = orders.iter().copied().map(Uuid::from).collect();
    let rows = sqlx::query!(
        r#"with found as materialized (
            select order_id, status from order_reviews where order_id = any($1) order by order_id for no key update),
         ended as (
            update order_reviews r set status = $2, ended_at = $3
              from found f where r.order_id = f.order_id and f.status = 'OPEN')
         select order_id, case status when 'OPEN' then $2 else status end as "status!" from found"#,
        &ids,
        status.as_str(),
        now
    )
    .fetch_all(conn)
    .await?;
    let standing = |id: &Uuid| {
        let found = rows.iter().find(|row| row.order_id == *id);
        found.map(|row| row.status.parse().map_err(unreadable)).transpose()
    };
    ids.iter().map(standing).collect()
}

/// An order that waits to be looked at.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Which.
    pub order_id: OrderId,
    /// Its number.
    pub order_number: String,
    /// What it costs.
    pub total: Decimal,
    /// Of the total.
    pub currency: Currency,
    /// Its score.
    pub points: i64,
    /// Why.
    pub reasons: Vec<Reason>,
    /// By which rules.
    pub rules_version: i32,
    /// What was known of it.
    pub facts: Facts,
    /// Since when it waits.
    pub opened_at: DateTime<Utc>,
    /// Until when.
    pub held_until: DateTime<Utc>,
}

/// Orders that wait to be looked at, the most urgent first, after a position in that order.
///
/// # Errors
/// The database's own.
pub async fn list(
    conn: &mut PgConnection,
    after: Option<(DateTime<Utc>, OrderId)>,
    limit: i64,
) -> Result<Vec<Waiting>, sqlx::Error> {
    let (after, after_id): (Option<DateTime<Utc>>, Option<Uuid>) =
        after.map_or((None, None), |(at, id)| (Some(at), Some(id.into())));
    let rows = sqlx::query!(
        r#"select r.order_id, r.opened_at, r.held_until, o.order_number, o.total_amount, o.currency as order_currency,
                  s.points, s.reasons as "reasons: Json<Vec<Reason>>", s.rules_version, s.user_id, s.account_since,
                  s.email_digest, s.address_digest, s.network, s.token_digest, s.billing_country, s.shipping_country,
                  s.amount, s.currency, s.screened_at
             from order_reviews r
             join orders o on o.id = r.order_id
             join order_screenings s on s.order_id = r.order_id
            where r.status = 'OPEN' and ($1::timestamptz is null or (r.held_until, r.order_id) > ($1, $2))
            order by r.held_until, r.order_id limit $3"#,
        after,
        after_id,
        limit
    )
    .fetch_all(conn)
    .await?;
    let waiting = rows.into_iter().map(|row| {
        let facts = Facts {
            user_id: row.user_id.map(UserId::from),
            account_since: row.account_since,
            email: digest(row.email_digest)?,
            address: digest(row.address_digest)?,
            network: row.network.map(|text| text.parse::<Network>()).transpose().map_err(unreadable)?,
            token: digest(row.token_digest)?,
            billing_country: row.billing_country,
            shipping_country: row.shipping_country,
            amount: row.amount,
            currency: row.currency.parse().map_err(unreadable)?,
            at: row.screened_at,
            counts: Vec::new(),
        };
        Ok(Waiting {
            order_id: row.order_id.into(),
            order_number: row.order_number,
            total: row.total_amount,
            currency: row.order_currency.parse().map_err(unreadable)?,
            points: row.points,
            reasons: row.reasons.0,
            rules_version: row.rules_version,
            facts,
            opened_at: row.opened_at,
            held_until: row.held_until,
        })
    });
    waiting.collect()
}
