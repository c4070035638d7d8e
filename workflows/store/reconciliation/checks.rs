//! `payment_checks`: what is still to be compared with each gateway.
//!
//! A queue, and no cursor: a payment or refund writes its row in its own transaction, so one that commits late
//! is no matter; a row that is taken, or set aside, is due again later, so none stands in another's way; and
//! who compares one deletes it, or moves it to its next pass.

use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::OrderId;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// Which payments are looked at, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pass {
    /// Of orders that are still PENDING, round and round: their webhook may have been lost.
    Open,
    /// Each once, when its answers and webhooks have had their time.
    Settled,
    /// Each once more, a day after it was made: money may come late.
    DayOld,
    /// The payment of each refund.
    Refund,
}

impl Pass {
    /// Every pass.
    pub const ALL: [Pass; 4] = [Pass::Open, Pass::Settled, Pass::DayOld, Pass::Refund];

    /// As stored, and as metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Pass::Open => "OPEN",
            Pass::Settled => "SETTLED",
            Pass::DayOld => "DAY_OLD",
            Pass::Refund => "REFUND",
        }
    }
}

/// Times a comparison is tried; one that fails as often is a person's.
pub const TIMES: i32 = 20;
/// Tried so often in vain, it is tried alone: it may be what spoils the others' attempt.
const ALONE_FROM: i32 = 2;
/// How long one may be in somebody's hands.
const LEASE: TimeDelta = TimeDelta::minutes(10);
/// Rows that move to their next pass unasked, in one go.
const MOVED: i64 = 1_000;

/// A comparison in hand.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The order's id for its payment, or the refund's own.
    pub id: Uuid,
    /// The order it is about.
    pub order_id: OrderId,
    /// Which time it is tried, from 1.
    pub attempts: i32,
    /// From when its patience counted.
    pub was_due: DateTime<Utc>,
    /// Whoever has it in hand knows it by this.
    pub lease: DateTime<Utc>,
}

impl Check {
    /// How long it is left alone after an attempt that came to nothing.
    fn back_off(&self) -> TimeDelta {
        let doublings = u32::try_from(self.attempts.clamp(1, 9)).unwrap_or(1);
        TimeDelta::minutes(2_i64.pow(doublings)).min(TimeDelta::hours(6))
    }
}

/// The payments whose orders have left PENDING need not be asked about while they are open: they wait for
/// their next pass. Returns whether there may be more of them.
///
/// # Errors
/// The database's own.
pub async fn settle_opened(conn: &mut PgConnection, gateway: &str, before: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query!(
        "update payment_checks c set pass = 'SETTLED', counts_from = made_at, attempts = 0, problem = null
          where c.id = any(array(
                select c.id from payment_checks c join orders o on o.id = c.order_id
                 where c.gateway = $1 and c.pass = 'OPEN' and c.counts_from <= $2 and o.order_status <> 'PENDING'
                 order by c.counts_from, c.id limit $3
                   for update of c skip locked))",
        gateway,
        before,
        MOVED
    )
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() == MOVED.unsigned_abs())
}

/// Takes up to `limit` comparisons of a pass in hand whose patience has counted since `before`, the longest
/// first. Nobody else gets them for ten minutes.
///
/// # Errors
/// The database's own.
pub async fn take(
    conn: &mut PgConnection,
    gateway: &str,
    pass: Pass,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Check>, sqlx::Error> {
    let lease = before + LEASE;
    let rows = sqlx::query!(
        r#"with head as materialized (
               select id, attempts from payment_checks
                where gateway = $1 and pass = $2 and counts_from <= $3
                order by counts_from, id limit 1),
            due as (
               select c.id, c.counts_from
                 from payment_checks c, head h
                where c.gateway = $1 and c.pass = $2 and c.counts_from <= $3
                  and case when h.attempts >= $6 then c.id = h.id else c.attempts < $6 end
                order by c.counts_from, c.id limit $4
                  for update of c skip locked)
           update payment_checks c set counts_from = $5, attempts = c.attempts + 1
             from due d where c.id = d.id
           returning c.id, c.order_id, c.attempts, d.counts_from as "was_due!""#,
        gateway,
        pass.as_str(),
        before,
        limit,
        lease,
        ALONE_FROM
    )
    .fetch_all(conn)
    .await?;
    let mut checks: Vec<Check> = rows
        .into_iter()
        .map(|row| Check {
            id: row.id,
            order_id: row.order_id.into(),
            attempts: row.attempts,
            was_due: row.was_due,
            lease,
        })
        .collect();
    checks.sort_unstable_by_key(|check| (check.was_due, check.id));
    Ok(checks)
}

/// These have been compared: a payment moves to its next pass, or is looked at again from `again` on while its
/// order is PENDING; what has no next pass is done.
///
/// # Errors
/// The database's own.
pub async fn compared(
    conn: &mut PgConnection,
    checks: &[Check],
    pass: Pass,
    again: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let Some(lease) = checks.first().map(|check| check.lease) else { return Ok(()) };
    let ids: Vec<Uuid> = checks.iter().map(|check| check.id).collect();
    match pass {
        Pass::Open => {
            sqlx::query!(
                "update payment_checks c
                    set pass = case o.order_status when 'PENDING' then 'OPEN' else 'SETTLED' end,
                        counts_from = case o.order_status when 'PENDING' then $3 else c.made_at end,
                        attempts = 0, problem = null
                   from orders o where o.id = c.order_id and c.id = any($1) and c.counts_from = $2",
                &ids,
                lease,
                again
            )
            .execute(conn)
            .await?;
        }
        Pass::Settled => {
            sqlx::query!(
                "update payment_checks set pass = 'DAY_OLD', counts_from = made_at, attempts = 0, problem = null
                  where id = any($1) and counts_from = $2",
                &ids,
                lease
            )
            .execute(conn)
            .await?;
        }
        Pass::DayOld | Pass::Refund => {
            sqlx::query!("delete from payment_checks where id = any($1) and counts_from = $2", &ids, lease)
                .execute(conn)
                .await?;
        }
    }
    Ok(())
}

/// One cannot be compared for now: it is tried again later, ever more rarely, and at last no more.
///
/// # Errors
/// The database's own.
pub async fn set_aside(
    conn: &mut PgConnection,
    check: &Check,
    before: DateTime<Utc>,
    problem: &str,
) -> Result<(), sqlx::Error> {
    let next = (check.attempts < TIMES).then(|| before + check.back_off());
    sqlx::query!(
        "update payment_checks set counts_from = $3, problem = $4 where id = $1 and counts_from = $2",
        check.id,
        check.lease,
        next,
        problem
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Nothing was found out about these, through no fault of theirs: as if they had not been taken.
///
/// # Errors
/// The database's own.
pub async fn put_back(conn: &mut PgConnection, checks: &[Check]) -> Result<(), sqlx::Error> {
    let Some(lease) = checks.first().map(|check| check.lease) else { return Ok(()) };
    let ids: Vec<Uuid> = checks.iter().map(|check| check.id).collect();
    let due: Vec<DateTime<Utc>> = checks.iter().map(|check| check.was_due).collect();
    sqlx::query!(
        "update payment_checks c set counts_from = b.due, attempts = c.attempts - 1
           from unnest($1::uuid[], $2::timestamptz[]) as b(id, due)
          where c.id = b.id and c.counts_from = $3",
        &ids,
        &due,
        lease
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The attempt came to nothing as a whole. The first time they are due again at once; one of them may be what
/// spoils it, so later ever more rarely.
///
/// # Errors
/// The database's own.
pub async fn give_up(
    conn: &mut PgConnection,
    checks: &[Check],
    before: DateTime<Utc>,
    why: &str,
) -> Result<(), sqlx::Error> {
    let Some(lease) = checks.first().map(|check| check.lease) else { return Ok(()) };
    let ids: Vec<Uuid> = checks.iter().map(|check| check.id).collect();
    let next: Vec<Option<DateTime<Utc>>> = checks
        .iter()
        .map(|check| match check.attempts {
            1 => Some(check.was_due),
            TIMES.. => None,
            _ => Some(before + check.back_off()),
        })
        .collect();
    sqlx::query!(
        "update payment_checks c set counts_from = b.due, problem = $4
           from unnest($1::uuid[], $2::timestamptz[]) as b(id, due)
          where c.id = b.id and c.counts_from = $3",
        &ids,
        &next as &[Option<DateTime<Utc>>],
        lease,
        why
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Something is new about an order's payment: it is compared once more, as soon as it is old enough.
///
/// # Errors
/// The database's own.
pub async fn check_again(conn: &mut PgConnection, order_id: OrderId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into payment_checks (id, order_id, gateway, pass, made_at, counts_from)
         select o.id, o.id, p.payment_gateway, case o.order_status when 'PENDING' then 'OPEN' else 'SETTLED' end,
                p.created_at, p.created_at
           from payments p join orders o on o.id = p.order_id
          where o.id = $1 and p.payment_gateway is not null
         on conflict (id) do update
            set pass = excluded.pass, counts_from = excluded.made_at, attempts = 0, problem = null",
        Uuid::from(order_id)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A comparison that did not succeed so far.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    /// The order it is about.
    pub order_id: Uuid,
    /// With which gateway.
    pub gateway: String,
    /// Of which pass.
    pub pass: String,
    /// Times it was tried.
    pub attempts: i32,
    /// Why it did not succeed.
    pub problem: Option<String>,
    /// False once it is tried no more.
    pub is_tried_again: bool,
}

/// Up to `limit` comparisons that were set aside, those tried most often first.
///
/// # Errors
/// The database's own.
pub async fn aside(conn: &mut PgConnection, limit: i64) -> Result<Vec<SetAside>, sqlx::Error> {
    sqlx::query_as!(
        SetAside,
        r#"select order_id, gateway, pass, attempts, problem, counts_from is not null as "is_tried_again!"
             from payment_checks where problem is not null order by attempts desc, id limit $1"#,
        limit
    )
    .fetch_all(conn)
    .await
}

/// From when the patience of a pass's oldest untried comparison counts.
///
/// # Errors
/// The database's own.
pub async fn oldest(conn: &mut PgConnection, gateway: &str, pass: Pass) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let oldest = sqlx::query_scalar!(
        "select counts_from from payment_checks
          where gateway = $1 and pass = $2 and attempts = 0 and counts_from is not null
          order by counts_from limit 1",
        gateway,
        pass.as_str()
    )
    .fetch_optional(conn)
    .await?;
    Ok(oldest.flatten())
}

/// How many there are.
///
/// # Errors
/// The database's own.
pub async fn count_aside(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from payment_checks where problem is not null"#)
        .fetch_one(conn)
        .await
}
