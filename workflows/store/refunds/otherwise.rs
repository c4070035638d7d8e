//! Money that has gone back without us: somebody gave it back on the gateway's own site, or the shopper's bank took it.
//! It is booked first out of what nobody has claimed, and then in place of a refund that claims it, so that nothing is
//! paid twice.

use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    order::OrderStatus,
    ports::{GatewayRefundStatus, ListedRefund, WebhookSubject},
};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Claim, DueRefund, Locked, Origin, PaidBack, Part, booked_as, insert, left, lock, of_gateway, settle};
use crate::{disputes, orders, reconciliation::checks};

/// Books what shoppers' banks have taken of a payment of an order, as far as nobody has claimed it.
///
/// # Errors
/// The database's own.
pub async fn book_taken(
    conn: &mut PgConnection,
    order_id: OrderId,
    gateway_payment_id: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    // A PENDING order's checkout takes the payment before the order: it is not to be met half-way.
    if orders::lock(&mut *conn, order_id).await?.is_none_or(|order| order.status == OrderStatus::Pending) {
        return Ok(());
    }
    let Some(order) = lock(&mut *conn, order_id).await? else { return Ok(()) };
    let mut books = Books { order_id, order: &order, gateway_payment_id, giving_way: None };
    books.book_bank(conn, now).await
}

/// A refund that the gateway refuses gives way to what has gone back of its payment otherwise: to those of the
/// refunds that the gateway lists that are not on our books, and to what banks have taken. Returns how much of it is
/// still to be sent; none when it stays what it was. The caller holds the order.
///
/// # Errors
/// The database's own.
pub async fn give_way(
    conn: &mut PgConnection,
    order_id: OrderId,
    refund: &DueRefund,
    listed: &[ListedRefund],
    now: DateTime<Utc>,
) -> Result<Option<Decimal>, sqlx::Error> {
    let Some(gateway_payment_id) = refund.gateway_payment_id.as_deref() else { return Ok(None) };
    let Some(order) = lock(&mut *conn, order_id).await? else { return Ok(None) };
    let Some(ours) = sqlx::query_as!(
        GivingWay,
        "select id, amount, is_extra, reference from refunds where id = $1 and status = 'PENDING'",
        refund.refund_id
    )
    .fetch_optional(&mut *conn)
    .await?
    else {
        return Ok(None);
    };
    let claimed = ours.amount;
    let mut books = Books { order_id, order: &order, gateway_payment_id, giving_way: Some(ours) };
    for ListedRefund { refund_id, refund } in listed {
        let theirs = refund.gateway_refund_id.as_str();
        let about = WebhookSubject { gateway_id: theirs.to_owned(), refund_id: *refund_id };
        let is_ours = of_gateway(&mut *conn, order_id, &about).await?.is_some_and(|own| !own.is_elsewhere);
        let has_gone = refund.status == GatewayRefundStatus::Succeeded;
        if is_ours || !has_gone || refund.amount.currency() != order.currency {
            continue;
        }
        // A part of it may stand in the place of another refund of ours.
        let unbooked = refund.amount.amount() - booked_as(&mut *conn, &order, theirs).await?;
        if unbooked > books.book(&mut *conn, unbooked, PaidBack::ByGateway(theirs), now).await? {
            // Another refund may have to give way to the rest; or it is more than anybody claims, and a person finds out.
            checks::check_again(&mut *conn, order_id).await?;
        }
    }
    books.book_bank(conn, now).await?;
    let rest = books.giving_way.map_or(Decimal::ZERO, |ours| ours.amount);
    Ok((rest < claimed).then_some(rest))
}

/// A refund of ours, and what it still claims.
struct GivingWay {
    id: Uuid,
    amount: Decimal,
    is_extra: bool,
    reference: Option<String>,
}

/// The books of one payment of an order that is locked.
struct Books<'a> {
    order_id: OrderId,
    order: &'a Locked,
    gateway_payment_id: &'a str,
    giving_way: Option<GivingWay>,
}

impl Books<'_> {
    async fn book_bank(&mut self, conn: &mut PgConnection, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
        let taken = disputes::contested(&mut *conn, self.order_id, self.gateway_payment_id).await?.unbooked;
        self.book(conn, taken, PaidBack::ByBank, now).await?;
        Ok(())
    }

    /// Books up to `most` as paid back so; returns how much.
    async fn book(
        &mut self,
        conn: &mut PgConnection,
        most: Decimal,
        paid: PaidBack<'_>,
        now: DateTime<Utc>,
    ) -> Result<Decimal, sqlx::Error> {
        let Books { order_id, order, gateway_payment_id: payment, .. } = *self;
        let free = if order.stands_for(payment) { left(&mut *conn, order).await? } else { Decimal::ZERO };
        let unclaimed = most.min(free).max(Decimal::ZERO);
        let part = order.part(Some(payment), unclaimed, origin(paid));
        if unclaimed > Decimal::ZERO {
            self.add(&mut *conn, part, None, paid, now).await?;
        }
        let Some(ours) = self.giving_way.take() else { return Ok(unclaimed) };
        let claimed = ours.amount.min(most - unclaimed).max(Decimal::ZERO);
        let rest = ours.amount - claimed;
        if rest.is_zero() {
            // What comes to nothing becomes the row of what took its place.
            let became = origin(paid).as_str();
            sqlx::query!("update refunds set origin = $2, updated_at = $3 where id = $1", ours.id, became, now)
                .execute(&mut *conn)
                .await?;
            let gateway_payment_id = Some(payment.to_owned());
            let due = DueRefund { refund_id: ours.id, gateway_payment_id, amount: claimed, currency: order.currency };
            settle(conn, order_id, &due, paid, now).await?;
            return Ok(unclaimed + claimed);
        }
        if claimed > Decimal::ZERO {
            sqlx::query!("update refunds set amount = $2, updated_at = $3 where id = $1", ours.id, rest, now)
                .execute(&mut *conn)
                .await?;
            let part = Part { amount: claimed, is_extra: ours.is_extra, is_owed: true, ..part };
            self.add(&mut *conn, part, ours.reference.as_deref(), paid, now).await?;
        }
        self.giving_way = Some(GivingWay { amount: rest, ..ours });
        Ok(unclaimed + claimed)
    }

    /// A row of its own, which no run sends.
    async fn add(
        &self,
        conn: &mut PgConnection,
        part: Part<'_>,
        reference: Option<&str>,
        paid: PaidBack<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), sqlx::Error> {
        let (order_id, reason) = (self.order_id, part.origin.reason());
        let claim = Claim { run_id: Uuid::now_v7(), order_id, reason, reference };
        let due = insert(&mut *conn, claim, self.order, part, now).await?;
        settle(conn, order_id, &due, paid, now).await?;
        Ok(())
    }
}

fn origin(paid: PaidBack<'_>) -> Origin {
    match paid {
        PaidBack::ByGateway(_) => Origin::Gateway,
        PaidBack::ByBank => Origin::Bank,
        PaidBack::InCash | PaidBack::Instead => Origin::Shop,
    }
}

/// What becomes of money that was owed, and has not gone back after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is FAILED: a person is to decide.
    Ask,
    /// It is PENDING: it is sent.
    Send,
}

/// A refund that was on the books as gone back has not, or came back: it is off them again. If it was owed it is
/// taken up by `run_id`, which is to be started: true then. The caller holds the order.
///
/// # Errors
/// The database's own.
pub async fn take_off(
    conn: &mut PgConnection,
    order_id: OrderId,
    refund_id: Uuid,
    (then, why): (Then, &str),
    run_id: Uuid,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    // The order before its payment, as everybody takes them.
    lock(&mut *conn, order_id).await?;
    let is_owed = sqlx::query_scalar!(
        r#"with gone as (
            select id, payment_id, amount, currency, is_owed, is_extra from refunds where id = $2 and status = 'SUCCEEDED'),
         payment as (
            update payments p
               set refund_amount = p.refund_amount - case when g.is_extra then 0 else g.amount end,
                   refunds_undone = p.refunds_undone + 1, updated_at = $6,
                   payment_status = case when g.is_extra then p.payment_status
                                         when p.refund_amount > g.amount then 'PARTIALLY_REFUNDED'
                                         else 'CAPTURED' end
              from gone g where p.id = g.payment_id
            returning p.order_id, p.payment_status),
         followed as (
            update orders o set payment_status = p.payment_status, updated_at = $6 from payment p where o.id = p.order_id),
         forgotten as (
            delete from refunds r using gone g where r.id = g.id and not g.is_owed),
         taken_up as (
            update refunds r
               set status = $4, failure = $5, origin = 'SHOP', by_hand = false, run_id = $3, updated_at = $6,
                   gateway_refund_id = case when $4 = 'PENDING' then null else r.gateway_refund_id end
              from gone g where r.id = g.id and g.is_owed),
         told as (
            insert into outbox_events (event_id, event_type, subject, data, occurred_at)
            select gen_random_uuid(), 'refund.failed', $1::uuid::text,
                   jsonb_build_object('orderId', $1::uuid, 'refundId', id, 'amount', amount::text, 'currency', currency,
                                      'reason', $5::text), $6
              from gone)
         select is_owed from gone"#,
        Uuid::from(order_id),
        refund_id,
        run_id,
        match then {
            Then::Ask => "FAILED",
            Then::Send => "PENDING",
        },
        why,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(is_owed.unwrap_or(false))
}

/// The refunds of a payment that are on the books as taken by shoppers' banks.
///
/// # Errors
/// The database's own.
pub async fn taken(
    conn: &mut PgConnection,
    order_id: OrderId,
    gateway_payment_id: &str,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "select r.id from refunds r join payments p on p.id = r.payment_id
          where p.order_id = $1 and r.gateway_payment_id = $2 and r.origin = 'BANK' and r.status = 'SUCCEEDED'
          order by r.id",
        Uuid::from(order_id),
        gateway_payment_id
    )
    .fetch_all(conn)
    .await
}

/// The refunds that are on the books as this one of the gateway's.
///
/// # Errors
/// The database's own.
pub async fn settled_as(
    conn: &mut PgConnection,
    order_id: OrderId,
    gateway_refund_id: &str,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "select r.id from refunds r join payments p on p.id = r.payment_id
          where p.order_id = $1 and r.gateway_refund_id = $2 and r.status = 'SUCCEEDED' order by r.id",
        Uuid::from(order_id),
        gateway_refund_id
    )
    .fetch_all(conn)
    .await
}
