//! How an order's status changes after its checkout: under its lock, by the one table of moves, with a
//! row of history.
//!
//! Lock order of the whole shop: order, its returns, payment, coupons, reservations, stock (variants in
//! order), cart, and the row of a run last: a signal locks it, and so does each commit of the run itself.

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
    let row = sqlx::query!(
        "select id, order_number, user_id, cart_id, checkout_run_id, cancellation_run_id, order_status, payment_status,
                payment_method, total_amount, currency, confirmed_at, updated_at
           from orders where id = $1 for no key update",
        Uuid::from(order_id)
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(LockedOrder {
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
        })
    })
    .transpose()
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
    if order.is_being_cancelled() && to != OrderStatus::Cancelled {
        return Err(MoveError::BeingCancelled);
    }
    let from = order.status;
    order.status = from.transition(to)?;
    sqlx::query!(
        "with moved as (
            update orders
               set order_status = $2, updated_at = $3,
                   confirmed_at = case $2 when 'CONFIRMED' then $3 else confirmed_at end,
                   shipped_at = case $2 when 'SHIPPED' then $3 else shipped_at end,
                   delivered_at = case $2 when 'DELIVERED' then $3 else delivered_at end,
                   cancelled_at = case $2 when 'CANCELLED' then $3 else cancelled_at end
             where id = $1
            returning id)
         insert into order_state_history (order_id, from_status, to_status, changed_by, change_reason, changed_at, metadata)
         select id, $4, $2, $5, $6, $3, $7 from moved",
        Uuid::from(order.id),
        to.as_str(),
        now,
        from.as_str(),
        by.actor,
        by.reason,
        by.metadata
    )
    .execute(conn)
    .await?;
    Ok(())
}
