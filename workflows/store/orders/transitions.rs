//! How an order's status changes after its checkout: under its lock, by the one table of moves, with a
//! row of history.
//!
//! Lock order of the whole shop: order, its returns, payment, coupons, reservations, stock (variants in
//! order), cart (one in checkout is its run's alone, and may come before stock), and the row of a run last: a
//! signal locks it, and so does each commit of the run itself.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{
    ids::{CartId, OrderId, UserId},
    order::{InvalidTransition, OrderStatus},
};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// An order whose row this transaction has locked.
#[derive(Debug, Clone)]
pub struct LockedOrder {
    /// Which.
    pub id: OrderId,
    /// Its number.
    pub number: String,
    /// Who bought; none for a guest.
    pub user_id: Option<UserId>,
    /// The cart it came from, if that still exists.
    pub cart_id: Option<CartId>,
    /// The run that made it, to which it belongs while PENDING.
    pub checkout_run_id: Uuid,
    /// The run that takes it back, once that is promised.
    pub cancellation_run_id: Option<Uuid>,
    /// Where it stands.
    pub status: OrderStatus,
    /// Where its payment stands, by the name in the database.
    pub payment_status: String,
    /// How it is paid, by the name in the database.
    pub payment_method: String,
    /// What it costs, in major units of `currency`.
    pub total: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// When it was confirmed.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// When it last changed: its version.
    pub updated_at: DateTime<Utc>,
}

impl LockedOrder {
    /// Its cancellation was accepted and has not been carried out: it goes nowhere else any more.
    pub fn is_being_cancelled(&self) -> bool {
        self.cancellation_run_id.is_some() && self.status != OrderStatus::Cancelled
    }
}

/// Why an order stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The table has no such move.
    #[error(transparent)]
    Invalid(#[from] InvalidTransition),
    /// It is promised to a cancellation.
    #[error("the order is being cancelled")]
    BeingCancelled,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Who moves an order, and why.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// `user:<id>`, or the name of a workflow.
    pub actor: &'a str,
    /// For people.
    pub reason: Option<&'a str>,
    /// For machines.
    pub metadata: Option<&'a Value>,
}

/// Locks an order's row; whoever else wants to move it waits.
pub async fn lock(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<LockedOrder>, sqlx::Error> {
    Ok(lock_many(conn, &[order_id]).await?.remove(&order_id))
}

/// Locks the rows of orders, in the order of their ids.
pub async fn lock_many(
    conn: &mut PgConnection,
    orders: &[OrderId],
) -> Result<HashMap<OrderId, LockedOrder>, sqlx::Error> {
    let ids: Vec<Uuid> = orders.iter().copied().map(Uuid::from).collect();
    let rows = sqlx::query!(
        "select id, order_number, user_id, cart_id, checkout_run_id, cancellation_run_id, order_status, payment_status,
                payment_method, total_amount, currency, confirmed_at, updated_at
           from orders where id = any($1) order by id for no key update",
        &ids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let order = LockedOrder {
                id: row.id.into(),
                number: row.order_number,
                user_id: row.user_id.map(UserId::from),
                cart_id: row.cart_id.map(CartId::from),
                checkout_run_id: row.checkout_run_id,
                cancellation_run_id: row.cancellation_run_id,
                status: row.order_status.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
                payment_status: row.payment_status,
                payment_method: row.payment_method,
                total: row.total_amount,
                currency: row.currency,
                confirmed_at: row.confirmed_at,
                updated_at: row.updated_at,
            };
            Ok((order.id, order))
        })
        .collect()
}

/// Promises a locked order to the run that cancels it.
///
/// # Errors
/// The database's own.
pub async fn promise_to(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    cancellation_run_id: Uuid,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update orders set cancellation_run_id = $2, updated_at = $3 where id = $1",
        Uuid::from(order.id),
        cancellation_run_id,
        now
    )
    .execute(conn)
    .await?;
    order.cancellation_run_id = Some(cancellation_run_id);
    Ok(())
}

/// A locked order, where it goes, and who moves it.
#[derive(Debug)]
pub struct Move<'a> {
    /// The order.
    pub order: &'a mut LockedOrder,
    /// Where to.
    pub to: OrderStatus,
    /// Who, and why.
    pub by: By<'a>,
}

/// Moves a locked order: its status, the time that belongs to the status, and a row of history.
///
/// # Errors
/// [`MoveError::Invalid`] when the order cannot go there, [`MoveError::BeingCancelled`] when it is promised
/// to its cancellation; nothing is written then.
pub async fn move_to(
    conn: &mut PgConnection,
    order: &mut LockedOrder,
    to: OrderStatus,
    by: By<'_>,
    now: DateTime<Utc>,
) -> Result<(), MoveError> {
    let mut moved = move_many(conn, &mut [Move { order, to, by }], now).await?;
    moved.pop().unwrap_or(Ok(()))
}

/// The same for many, each named once, in one statement; what cannot go where it should stays where it is.
/// Returns one result each, in their order.
///
/// # Errors
/// The database's own.
pub async fn move_many(
    conn: &mut PgConnection,
    moves: &mut [Move<'_>],
    now: DateTime<Utc>,
) -> Result<Vec<Result<(), MoveError>>, sqlx::Error> {
    let mut results = Vec::with_capacity(moves.len());
    let (mut ids, mut from, mut to): (Vec<Uuid>, Vec<&str>, Vec<&str>) = Default::default();
    let (mut actors, mut reasons, mut metadata): (Vec<&str>, Vec<Option<&str>>, Vec<Option<&Value>>) =
        Default::default();
    for each in moves {
        let stood = each.order.status;
        let moved = if each.order.is_being_cancelled() && each.to != OrderStatus::Cancelled {
            Err(MoveError::BeingCancelled)
        } else {
            stood.transition(each.to).map_err(MoveError::from)
        };
        if let Ok(status) = moved {
            each.order.status = status;
            ids.push(each.order.id.into());
            from.push(stood.as_str());
            to.push(each.to.as_str());
            actors.push(each.by.actor);
            reasons.push(each.by.reason);
            metadata.push(each.by.metadata);
        }
        results.push(moved.map(|_| ()));
    }
    if ids.is_empty() {
        return Ok(results);
    }
    sqlx::query!(
        "with m as (
            select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[])
                       as m(order_id, from_status, to_status, actor, reason, metadata)),
         moved as (
            update orders o
               set order_status = m.to_status, updated_at = $7,
                   confirmed_at = case m.to_status when 'CONFIRMED' then $7 else o.confirmed_at end,
                   shipped_at = case m.to_status when 'SHIPPED' then $7 else o.shipped_at end,
                   delivered_at = case m.to_status when 'DELIVERED' then $7 else o.delivered_at end,
                   cancelled_at = case m.to_status when 'CANCELLED' then $7 else o.cancelled_at end
              from m where o.id = m.order_id
            returning m.*)
         insert into order_state_history (order_id, from_status, to_status, changed_by, change_reason, changed_at, metadata)
         select order_id, from_status, to_status, actor, reason, $7, metadata from moved",
        &ids,
        &from as &[&str],
        &to as &[&str],
        &actors as &[&str],
        &reasons as &[Option<&str>],
        &metadata as &[Option<&Value>],
        now
    )
    .execute(conn)
    .await?;
    Ok(results)
}
