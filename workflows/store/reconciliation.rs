//! What the reconciliation compares: the books of an order's money. What is still to be compared, and how far
//! the gateways' own lists have been looked through, is beside it.

pub mod checks;
pub mod listings;

use domain::ids::OrderId;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

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
    /// Of that, paid by hand: the gateway knows nothing of it.
    pub by_hand: Decimal,
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
                          and k.run_key >= o.id::text and k.run_key < o.id || '0')
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
                  coalesce(sum(r.amount) filter (where r.status = 'SUCCEEDED' and r.by_hand), 0) as "by_hand!",
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
