//! `payments` and `refunds` as the reconciliation walks them, and how far it has come.

use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use rust_decimal::Decimal;
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
    Refunds,
}

impl Pass {
    /// Every pass, in the order they are made.
    pub const ALL: [Pass; 4] = [Pass::Open, Pass::Settled, Pass::DayOld, Pass::Refunds];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Pass::Open => "OPEN",
            Pass::Settled => "SETTLED",
            Pass::DayOld => "DAY_OLD",
            Pass::Refunds => "REFUNDS",
        }
    }
}

/// How far a pass has come: past this payment, or this refund.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// Past this row of `payments`.
    pub payment: i64,
    /// Past this row of `refunds`.
    pub refund: Uuid,
}

/// A payment to be looked at.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pick {
    /// The order it is for.
    pub order_id: OrderId,
    /// Where the pass stands once this one has been looked at.
    pub reached: Reached,
}

/// Where a pass stands with a gateway.
///
/// # Errors
/// The database's own.
pub async fn reached(conn: &mut PgConnection, gateway: &str, pass: Pass) -> Result<Reached, sqlx::Error> {
    let row = sqlx::query!(
        "select after_payment, after_refund from reconciliation_cursors where gateway = $1 and pass = $2",
        gateway,
        pass.as_str()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or_else(Reached::default, |row| Reached { payment: row.after_payment, refund: row.after_refund }))
}

/// Moves a pass on; false when another run was faster.
///
/// # Errors
/// The database's own.
pub async fn move_on(
    conn: &mut PgConnection,
    gateway: &str,
    pass: Pass,
    from: Reached,
    to: Reached,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query!(
        "insert into reconciliation_cursors as c (gateway, pass, after_payment, after_refund) values ($1, $2, $5, $6)
         on conflict (gateway, pass) do update
            set after_payment = excluded.after_payment, after_refund = excluded.after_refund
          where c.after_payment = $3 and c.after_refund = $4",
        gateway,
        pass.as_str(),
        from.payment,
        from.refund,
        to.payment,
        to.refund
    )
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// The next payments of PENDING orders that were made by `before`.
///
/// # Errors
/// The database's own.
pub async fn open_payments(
    conn: &mut PgConnection,
    gateway: &str,
    after: Reached,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Pick>, sqlx::Error> {
    let rows = sqlx::query!(
        "select p.id, p.order_id
           from payments p join orders o on o.id = p.order_id
          where o.order_status = 'PENDING' and p.payment_gateway = $1 and p.payment_status in ('PENDING', 'AUTHORIZED')
            and p.created_at <= $2 and p.id > $3
          order by p.id limit $4",
        gateway,
        before,
        after.payment,
        limit
    )
    .fetch_all(conn)
    .await?;
    let pick = |id, order_id: Uuid| Pick { order_id: order_id.into(), reached: Reached { payment: id, ..after } };
    Ok(rows.into_iter().map(|row| pick(row.id, row.order_id)).collect())
}

/// The next payments that were made by `before`.
///
/// # Errors
/// The database's own.
pub async fn payments_made(
    conn: &mut PgConnection,
    gateway: &str,
    after: Reached,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Pick>, sqlx::Error> {
    // Payments are numbered as they are made: past the first that is too young nothing is old enough.
    let rows = sqlx::query!(
        "select p.id, p.order_id
           from (select id, order_id, payment_gateway, created_at from payments
                  where id > $3 order by id limit $4) p
          where p.payment_gateway = $1 and p.created_at <= $2
          order by p.id",
        gateway,
        before,
        after.payment,
        limit
    )
    .fetch_all(conn)
    .await?;
    let pick = |id, order_id: Uuid| Pick { order_id: order_id.into(), reached: Reached { payment: id, ..after } };
    Ok(rows.into_iter().map(|row| pick(row.id, row.order_id)).collect())
}

/// The payments of the next refunds that were made by `before`.
///
/// # Errors
/// The database's own.
pub async fn refunds_made(
    conn: &mut PgConnection,
    gateway: &str,
    after: Reached,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Pick>, sqlx::Error> {
    let rows = sqlx::query!(
        "select r.id, p.order_id
           from refunds r join payments p on p.id = r.payment_id
          where r.id > $3 and r.created_at <= $2 and p.payment_gateway = $1
          order by r.id limit $4",
        gateway,
        before,
        after.refund,
        limit
    )
    .fetch_all(conn)
    .await?;
    let pick = |id, order_id: Uuid| Pick { order_id: order_id.into(), reached: Reached { refund: id, ..after } };
    Ok(rows.into_iter().map(|row| pick(row.id, row.order_id)).collect())
}

/// What the books say of an order's money.
#[derive(Debug, Clone)]
pub struct Booked {
    /// Where the order stands.
    pub order_status: String,
    /// The payment that confirmed it, if one did.
    pub confirmed_by: Option<String>,
    /// The payment its checkout asked for, once that is known.
    pub asked_for: Option<String>,
    /// What was taken, in major units of the order's currency.
    pub captured: Decimal,
    /// What went back of each payment.
    pub refunds: Vec<BookedRefunds>,
    /// A run that gives money back is alive: what differs may be on its way.
    pub is_settling: bool,
    /// Payments for which such a run was started because nobody waited for them.
    pub refused: Vec<String>,
}

/// What went back of one payment.
#[derive(Debug, Clone)]
pub struct BookedRefunds {
    /// The gateway's id of the payment.
    pub gateway_payment_id: String,
    /// Sent back, and confirmed.
    pub settled: Decimal,
    /// Claimed, and not confirmed yet.
    pub pending: Decimal,
}

/// Reads them; none if there is no such order.
///
/// # Errors
/// The database's own.
pub async fn booked(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<Booked>, sqlx::Error> {
    let order_id = Uuid::from(order_id);
    let order = sqlx::query!(
        r#"
        select o.order_status, o.payment_id, p.gateway_payment_id as "gateway_payment_id?",
               coalesce(p.captured_amount, 0) as "captured!",
               -- By their keys, which begin with the order's id: runs themselves are not indexed by order.
               exists (select from engine.run_keys k join engine.runs r on r.id = k.run_id
                        where k.workflow in ('refund', 'cancellation')
                          and (k.run_key = o.id::text or k.run_key >= o.id || '/' and k.run_key < o.id || '0'))
               or exists (select from returns t join engine.runs r on r.id = t.run_id
                           where t.order_id = o.id) as "is_settling!",
               array(select substr(k.run_key, length(o.id::text) + 7) from engine.run_keys k
                      where k.workflow = 'refund' and k.run_key >= o.id || '/late/' and k.run_key < o.id || '/late0') as "refused!"
          from orders o left join payments p on p.order_id = o.id
         where o.id = $1
        "#,
        order_id
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(order) = order else { return Ok(None) };
    let refunds = sqlx::query_as!(
        BookedRefunds,
        r#"select r.gateway_payment_id as "gateway_payment_id!",
                  coalesce(sum(r.amount) filter (where r.status = 'SUCCEEDED'), 0) as "settled!",
                  coalesce(sum(r.amount) filter (where r.status = 'PENDING'), 0) as "pending!"
             from refunds r join payments p on p.id = r.payment_id
            where p.order_id = $1 and r.gateway_payment_id is not null
            group by r.gateway_payment_id"#,
        order_id
    )
    .fetch_all(conn)
    .await?;
    Ok(Some(Booked {
        order_status: order.order_status,
        confirmed_by: order.payment_id,
        asked_for: order.gateway_payment_id,
        captured: order.captured,
        refunds,
        is_settling: order.is_settling,
        refused: order.refused,
    }))
}
