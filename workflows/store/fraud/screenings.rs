//! `order_screenings`, `screening_keys`: two statements for a set of checkouts, one that looks and one that writes.

use chrono::{DateTime, Utc};
use domain::{
    fraud::{Counted, Decision, Digest, Facts, Score},
    ids::{OrderId, UserId},
};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// Something that is to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// What the checkouts have in common.
    pub key: Digest,
    /// What of them.
    pub counted: Counted,
    /// How far back, in seconds.
    pub window_s: u32,
    /// How far it is counted.
    pub most: u32,
}

/// What is asked about checkouts to be screened.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The checkouts.
    pub orders: Vec<OrderId>,
    /// Whose they are.
    pub users: Vec<UserId>,
    /// What is to be counted exactly: nobody else counts it until the transaction ends.
    pub exact: Vec<Digest>,
    /// What is to be counted.
    pub needs: Vec<Need>,
}

/// What a checkout has got before, when it was screened first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Screened {
    /// Which.
    pub order_id: OrderId,
    /// What it got.
    pub decision: Decision,
    /// How long the staff may look at it.
    pub review_deadline_s: i32,
}

/// Since when there is an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Which.
    pub user_id: UserId,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// What is known of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    /// Those that were screened before.
    pub screened: Vec<Screened>,
    /// Those accounts that there are.
    pub accounts: Vec<Account>,
    /// One number a [`Need`], in their order.
    pub seen: Vec<u32>,
}

/// Locks what is to be counted exactly, then counts, and returns what else is known. None if `rules` is not the
/// present rule set: then nothing is locked.
///
/// The locks are the first of the transaction's, and are held until it ends: those who want the same one wait here,
/// and see what the one before has [`record`]ed. They are numbers of digests, taken in their order.
///
/// # Errors
/// The database's own.
pub async fn look(
    conn: &mut PgConnection,
    rules: Uuid,
    asked: &Asked,
    now: DateTime<Utc>,
) -> Result<Option<Found>, sqlx::Error> {
    let orders: Vec<Uuid> = asked.orders.iter().copied().map(Uuid::from).collect();
    let users: Vec<Uuid> = asked.users.iter().copied().map(Uuid::from).collect();
    let mut locks: Vec<i64> = asked.exact.iter().map(Digest::lock_key).collect();
    locks.sort_unstable();
    locks.dedup();
    let keys: Vec<&[u8]> = asked.needs.iter().map(|need| &need.key.as_bytes()[..]).collect();
    let counted: Vec<&str> = asked.needs.iter().map(|need| need.counted.as_str()).collect();
    let windows: Vec<i32> = asked.needs.iter().map(|need| small(need.window_s)).collect();
    let most: Vec<i32> = asked.needs.iter().map(|need| small(need.most)).collect();
    let found = sqlx::query_scalar!(
        r#"select screening_facts($1, $2, $3, $4, $5, $6, $7, $8, $9) as "found: Json<Found>""#,
        rules,
        &orders,
        &users,
        &locks,
        &keys as &[&[u8]],
        &counted as &[&str],
        &windows,
        &most,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(found.map(|Json(found)| found))
}

fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A checkout that has been scored.
#[derive(Debug, Clone, Copy)]
pub struct NewScreening<'a> {
    /// Which.
    pub order_id: OrderId,
    /// By which rules.
    pub rules_version: i32,
    /// How long the staff may look at it.
    pub review_deadline_s: i32,
    /// What was known.
    pub facts: &'a Facts,
    /// What it got.
    pub score: &'a Score,
    /// What later ones are counted by.
    pub keys: &'a [Digest],
}

/// [`NewScreening`] as the statement reads it.
#[derive(Serialize)]
struct Row<'a> {
    position: usize,
    order_id: OrderId,
    rules_version: i32,
    review_deadline_s: i32,
    points: i64,
    reasons: &'a [domain::fraud::Reason],
    decision: Decision,
    user_id: Option<UserId>,
    account_since: Option<DateTime<Utc>>,
    email: Option<Digest>,
    address: Option<Digest>,
    network: Option<domain::fraud::Network>,
    token: Option<Digest>,
    billing_country: &'a str,
    shipping_country: &'a str,
    amount: String,
    currency: domain::money::Currency,
    counts: &'a [domain::fraud::Count],
    screened_at: DateTime<Utc>,
}

impl<'a> Row<'a> {
    fn new(position: usize, new: &NewScreening<'a>) -> Self {
        let NewScreening { order_id, rules_version, review_deadline_s, facts, score, .. } = *new;
        Row {
            position,
            order_id,
            rules_version,
            review_deadline_s,
            points: score.points,
            reasons: &score.reasons,
            decision: score.decision,
            user_id: facts.user_id,
            account_since: facts.account_since,
            email: facts.email,
            address: facts.address,
            network: facts.network,
            token: facts.token,
            billing_country: &facts.billing_country,
            shipping_country: &facts.shipping_country,
            amount: facts.amount.to_string(),
            currency: facts.currency,
            counts: &facts.counts,
            screened_at: facts.at,
        }
    }
}

/// Writes down what checkouts were scored by, in their order, and counts them from now on.
///
/// # Errors
/// The database's own; [`sqlx::Error::RowNotFound`] where one of them has been screened meanwhile: the transaction must
/// be rolled back then, and who looks again finds it.
pub async fn record(conn: &mut PgConnection, screenings: &[NewScreening<'_>]) -> Result<(), sqlx::Error> {
    if screenings.is_empty() {
        return Ok(());
    }
    let rows: Vec<Row<'_>> = screenings.iter().enumerate().map(|(position, new)| Row::new(position, new)).collect();
    let counted: Vec<_> = screenings.iter().flat_map(|new| new.keys.iter().map(move |key| (new, key))).collect();
    let keys: Vec<&[u8]> = counted.iter().map(|(_, key)| &key.as_bytes()[..]).collect();
    let times: Vec<DateTime<Utc>> = counted.iter().map(|(new, _)| new.facts.at).collect();
    let orders: Vec<Uuid> = counted.iter().map(|(new, _)| new.order_id.into()).collect();
    let written = sqlx::query_scalar!(
        r#"with screened as (
            insert into order_screenings
                   (order_id, rules_version, points, reasons, decision, review_deadline_s, user_id, account_since,
                    email_digest, address_digest, network, token_digest, billing_country, shipping_country,
                    amount, currency, counts, screened_at)
            select s.order_id, s.rules_version, s.points, s.reasons, s.decision, s.review_deadline_s, s.user_id, s.account_since,
                   decode(s.email, 'hex'), decode(s.address, 'hex'), s.network, decode(s.token, 'hex'),
                   s.billing_country, s.shipping_country, s.amount, s.currency, s.counts, s.screened_at
              from jsonb_to_recordset($1) as s(
                   position bigint, order_id uuid, rules_version int, points bigint, reasons jsonb, decision text,
                   review_deadline_s int, user_id uuid, account_since timestamptz, email text, address text, network text,
                   token text, billing_country text, shipping_country text, amount numeric, currency text, counts jsonb,
                   screened_at timestamptz)
             order by s.position
            on conflict (order_id) do nothing
            returning order_id),
         counted as (
            insert into screening_keys (key, screened_at, order_id)
            select * from unnest($2::bytea[], $3::timestamptz[], $4::uuid[]))
         select count(*) as "written!" from screened"#,
        Json(&rows) as _,
        &keys as &[&[u8]],
        &times,
        &orders
    )
    .fetch_one(conn)
    .await?;
    let is_all = usize::try_from(written) == Ok(screenings.len());
    if is_all { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Up to `batch` keys of checkouts that no rule can look back to.
///
/// # Errors
/// The database's own.
pub async fn delete_old_keys(conn: &mut PgConnection, batch: i64, before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from screening_keys
          where ctid = any(array(select ctid from screening_keys where screened_at < $2 limit $1))",
        batch,
        before
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}
