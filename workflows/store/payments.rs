//! `payments`, `payment_attempts`, `refunds`: money that comes late, and money that goes back.

use chrono::{DateTime, Utc};
use domain::{ids::OrderId, ports::GatewayPayment};
use engine::{Failure, StepError};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::refund::DueRefund;

/// What a gateway's message about an order meets.
#[derive(Debug, Clone)]
pub struct OrderOfPayment {
    /// The run the order belongs to while PENDING.
    pub checkout_run_id: Uuid,
    /// Where the order stands.
    pub order_status: String,
    /// The gateway's payment that its checkout asked for, once that is known.
    pub gateway_payment_id: Option<String>,
    /// The payment that confirmed it, if one did.
    pub confirmed_by: Option<String>,
}

/// The order a gateway's message is about.
pub async fn order_of(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<OrderOfPayment>, sqlx::Error> {
    sqlx::query_as!(
        OrderOfPayment,
        r#"select o.checkout_run_id, o.order_status, o.payment_id as confirmed_by, p.gateway_payment_id as "gateway_payment_id?"
             from orders o left join payments p on p.order_id = o.id
            where o.id = $1"#,
        Uuid::from(order_id)
    )
    .fetch_optional(conn)
    .await
}

/// Takes note of everything the gateway has captured for an order that is not to be had, and claims
/// its refunds: under the order's lock, so that Σ refunds never passes what was captured.
///
/// A PENDING order that is refunded belongs to a run that unwinds: it is CANCELLED in a moment. A live
/// order keeps what confirmed it; that it was paid for twice is for people to sort out.
pub async fn claim_refunds(
    conn: &mut PgConnection,
    run_id: Uuid,
    order_id: OrderId,
    payments: &[GatewayPayment],
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Vec<DueRefund>, StepError> {
    let Some(order) =
        sqlx::query!("select order_status, payment_id from orders where id = $1 for update", Uuid::from(order_id))
            .fetch_optional(&mut *conn)
            .await?
    else {
        return Ok(Vec::new());
    };
    if order.order_status != "CANCELLED" && order.order_status != "PENDING" {
        let is_extra = |found: &&GatewayPayment| {
            found.captured > found.refunded && order.payment_id.as_deref() != Some(&found.gateway_payment_id)
        };
        return match payments.iter().find(is_extra) {
            Some(extra) => {
                let detail = format!("{} was captured besides what paid for the order", extra.gateway_payment_id);
                Err(Failure::new("paid-twice", detail).into())
            }
            None => Ok(Vec::new()),
        };
    }
    // In a statement of its own: what the lock's last holder wrote is visible to no earlier one.
    let payment =
        sqlx::query!("select id from payments where order_id = $1", Uuid::from(order_id)).fetch_one(&mut *conn).await?;
    let mut due = Vec::new();
    let captured: Decimal = payments.iter().map(|payment| payment.captured).sum();
    for found in payments.iter().filter(|found| found.captured > Decimal::ZERO) {
        let claimed = sqlx::query_scalar!(
            r#"select coalesce(sum(amount), 0) as "sum!" from refunds
                where payment_id = $1 and gateway_payment_id = $2 and status in ('PENDING', 'SUCCEEDED')"#,
            payment.id,
            found.gateway_payment_id
        )
        .fetch_one(&mut *conn)
        .await?;
        let amount = found.captured - claimed;
        if amount <= Decimal::ZERO {
            continue;
        }
        let refund_id = Uuid::now_v7();
        sqlx::query!(
            "insert into refunds (id, payment_id, run_id, gateway_payment_id, amount, reason, status, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, 'PENDING', $7, $7)",
            refund_id,
            payment.id,
            run_id,
            found.gateway_payment_id,
            amount,
            reason,
            now
        )
        .execute(&mut *conn)
        .await?;
        due.push(DueRefund {
            refund_id,
            gateway_payment_id: found.gateway_payment_id.clone(),
            amount,
            currency: found.amount.currency(),
        });
    }
    if captured > Decimal::ZERO {
        sqlx::query!(
            "with payment as (
                update payments
                   set captured_amount = greatest(captured_amount, $2), updated_at = $3,
                       payment_status = case when refund_amount > 0 then payment_status else 'CAPTURED' end
                 where id = $1 returning order_id, payment_status)
             update orders o set payment_status = p.payment_status, updated_at = $3 from payment p where o.id = p.order_id",
            payment.id,
            captured,
            now
        )
        .execute(conn)
        .await?;
    }
    Ok(due)
}

/// A refund has gone through: PENDING → SUCCEEDED, once, and the payment and order follow.
pub async fn settle_refund(
    conn: &mut PgConnection,
    order_id: OrderId,
    refund_id: Uuid,
    gateway_refund_id: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with locked as materialized (
            -- The order before its payment, as everybody takes them.
            select id from orders where id = $1 for update),
         settled as (
            update refunds set status = 'SUCCEEDED', gateway_refund_id = $3, updated_at = $4
             where id = $2 and status = 'PENDING' and exists (select from locked) returning payment_id, amount),
         payment as (
            update payments p
               set refund_amount = p.refund_amount + s.amount, refunded_at = $4, updated_at = $4,
                   payment_status = case when p.refund_amount + s.amount >= p.captured_amount
                                         then 'REFUNDED' else 'PARTIALLY_REFUNDED' end
              from settled s where p.id = s.payment_id
            returning p.order_id, p.payment_status, p.currency, s.amount),
         followed as (
            update orders o set payment_status = p.payment_status, updated_at = $4 from payment p where o.id = p.order_id)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), 'payment.refunded', order_id::text,
                jsonb_build_object('orderId', order_id, 'refundId', $2::uuid, 'amount', amount::text, 'currency', currency), $4
           from payment where order_id = $1",
        Uuid::from(order_id),
        refund_id,
        gateway_refund_id,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
