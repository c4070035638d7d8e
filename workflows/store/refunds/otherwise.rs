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

/// Books what shoppers' banks have taken of a payment of an order, as far as nobody has claimed it. Returns how much
/// that was, in major units of the order's currency.
///
/// # Errors
/// The database's own.
pub async fn book_taken(
    conn: &mut PgConnection,
    order_id: OrderId,
    gateway_payment_id: &str,
    now: DateTime<Utc>,
) -> Result<Decimal, sqlx::Error> {
    // A PENDING order's checkout takes the payment before the order: it is not to be met half-way.
    if orders::lock(&mut *conn, order_id).await?.is_none_or(|order| order.status == OrderStatus::Pending) {
        return Ok(Decimal::ZERO);
    }
    let Some(order) = lock(&mut *conn, order_id).await? else { return Ok(Decimal::ZERO) };
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
        "select id, amount, is_extra from refunds where id = $1 and status = 'PENDING'",
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
        if is_ours || refund.status == GatewayRefundStatus::Failed || refund.amount.currency() != order.currency {
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
}

/// The books of one payment of an order that is locked.
struct Books<'a> {
    order_id: OrderId,
    order: &'a Locked,
    gateway_payment_id: &'a str,
    giving_way: Option<GivingWay>,
}

impl Books<'_> {
    async fn book_bank(&mut self, conn: &mut PgConnection, now: DateTime<Utc>) -> Result<Decimal, sqlx::Error> {
        let (order_id, payment) = (self.order_id, self.gateway_payment_id);
        let taken = disputes::contested(&mut *conn, order_id, payment).await?.unbooked;
        let booked = self.book(&mut *conn, taken, PaidBack::ByBank, now).await?;
        disputes::note_booked(conn, order_id, payment, booked).await?;
        Ok(booked)
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
        let unclaimed = most.min(free.max(Decimal::ZERO));
        let claimed = self.giving_way.as_ref().map_or(Decimal::ZERO, |ours| ours.amount.min(most - unclaimed));
        let amount = unclaimed + claimed;
        if amount <= Decimal::ZERO {
            return Ok(Decimal::ZERO);
        }
        let origin = if matches!(paid, PaidBack::ByBank) { Origin::Bank } else { Origin::Gateway };
        let part = order.part(Some(payment), amount, origin);
        let is_extra = self.giving_way.as_ref().map_or(part.is_extra, |ours| ours.is_extra);
        let due = match self.giving_way.take() {
            // What comes to nothing becomes the row of what took its place.
            Some(ours) if claimed == ours.amount => {
                sqlx::query!(
                    "update refunds set amount = $2, origin = $3, reason = $4, updated_at = $5 where id = $1",
                    ours.id,
                    amount,
                    origin.as_str(),
                    origin.reason(),
                    now
                )
                .execute(&mut *conn)
                .await?;
                let gateway_payment_id = Some(payment.to_owned());
                DueRefund { refund_id: ours.id, gateway_payment_id, amount, currency: order.currency }
            }
            ours => {
                if let Some(ours) = ours {
                    let rest = ours.amount - claimed;
                    sqlx::query!("update refunds set amount = $2, updated_at = $3 where id = $1", ours.id, rest, now)
                        .execute(&mut *conn)
                        .await?;
                    self.giving_way = Some(GivingWay { amount: rest, ..ours });
                }
                // No run sends it.
                let claim = Claim { run_id: Uuid::now_v7(), order_id, reason: origin.reason(), reference: None };
                insert(&mut *conn, claim, order, Part { is_extra, ..part }, now).await?
            }
        };
        settle(conn, order_id, &due, paid, now).await?;
        Ok(amount)
    }
}
