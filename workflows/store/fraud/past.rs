//! What checkouts came with when they were screened, to be scored by other rules.

use chrono::{DateTime, Utc};
use domain::{
    fraud::{Count, Decision, Facts, Network},
    ids::OrderId,
};
use sqlx::{PgConnection, types::Json};

use super::{digest, unreadable};

/// A checkout of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// Which.
    pub order_id: OrderId,
    /// Where it stood among those that were screened.
    pub place: i64,
    /// What it got.
    pub decision: Decision,
    /// What was known.
    pub facts: Facts,
    /// When payments for it failed.
    pub failures: Vec<DateTime<Utc>>,
}

/// Up to `most` checkouts that were screened from `from` on and before `to`, the oldest of them, in the order in which
/// they were screened.
///
/// # Errors
/// The database's own.
pub async fn read(
    conn: &mut PgConnection,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    most: i64,
) -> Result<Vec<Past>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select s.order_id, s.place, s.decision, s.user_id, s.account_since, s.email_digest, s.address_digest, s.network,
                  s.token_digest, s.billing_country, s.shipping_country, s.amount, s.currency, s.screened_at,
                  s.counts as "counts: Json<Vec<Count>>",
                  array(select a.updated_at from payments p join payment_attempts a on a.payment_id = p.id
                         where p.order_id = s.order_id and (a.status = 'FAILED') is true) as "failures!"
             from order_screenings s
            where s.screened_at >= $1 and s.screened_at < $2
            order by s.screened_at limit $3"#,
        from,
        to,
        most
    )
    .fetch_all(conn)
    .await?;
    let mut past = Vec::with_capacity(rows.len());
    for row in rows {
        let facts = Facts {
            user_id: row.user_id.map(Into::into),
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
            counts: row.counts.0,
        };
        past.push(Past {
            order_id: row.order_id.into(),
            place: row.place,
            decision: row.decision.parse().map_err(unreadable)?,
            facts,
            failures: row.failures,
        });
    }
    // Who waited for somebody was screened after them, and may have come before.
    past.sort_by_key(|past| past.place);
    Ok(past)
}
