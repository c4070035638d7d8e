//! Where returns are asked for and decided on: each in one transaction, with the signal to the run.
//!
//! Locks are taken in one order: the order, then the return, then the run (by signalling it).

use chrono::{DateTime, Utc};
use domain::{
    order::OrderStatus,
    returns::{InvalidReturnMove, ReturnStatus},
};
use engine::{Start, run::Delivery};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{ARRIVAL, DECISION, LineName, OrderReturn, ReturnRequest};
use crate::{
    Rules,
    store::{
        orders::{self, LockedOrder},
        returns::{self, ReturnHead},
        shipments,
    },
};

/// Why nothing is returned.
#[derive(Debug, thiserror::Error)]
pub enum ReturnRefusal {
    /// Only what has arrived can come back.
    #[error("An order that is {0} cannot be returned.")]
    NotReturnable(OrderStatus),
    /// The order has no such line.
    #[error("The order has no such line.")]
    UnknownLine {
        /// Its place among the lines asked for, from 0.
        position: usize,
    },
    /// More than was delivered, or is on its way back already.
    #[error("Only {left} of {sku} can be returned.")]
    TooMany {
        /// The order's line.
        order_item_id: Uuid,
        /// Its SKU.
        sku: String,
        /// Pieces that may still be returned.
        left: i32,
    },
    /// There is no such return.
    #[error("There is no such return.")]
    NotFound,
    /// It stands where this decision cannot be made.
    #[error(transparent)]
    Invalid(#[from] InvalidReturnMove),
    /// Its run has ended, or is being stopped.
    #[error("The return is being withdrawn.")]
    Withdrawn,
    /// Postgres.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Asks for these pieces of an order that have arrived to be taken back, and starts the run. The caller has
/// locked the order.
///
/// # Errors
/// [`ReturnRefusal`]; the caller rolls back then.
pub async fn request(
    conn: &mut PgConnection,
    rules: &Rules,
    order: &LockedOrder,
    items: &[(LineName, i32)],
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Uuid, ReturnRefusal> {
    match order.status {
        OrderStatus::Delivered => {}
        // What has arrived need not wait for the rest, once it is paid for.
        OrderStatus::Shipped
            if order.payment_status != "PENDING" && !shipments::statuses(conn, order.id).await?.is_empty() => {}
        OrderStatus::Pending
        | OrderStatus::Confirmed
        | OrderStatus::Processing
        | OrderStatus::Shipped
        | OrderStatus::Cancelled
        | OrderStatus::Refunded => return Err(ReturnRefusal::NotReturnable(order.status)),
    }
    let mut lines = returns::returnable(conn, order.id).await?;
    let mut wanted: Vec<(Uuid, i32)> = Vec::with_capacity(items.len());
    for (position, (name, quantity)) in items.iter().enumerate() {
        let line = lines
            .iter_mut()
            .find(|line| name.names(line.order_item_id, line.variant_id, &line.sku))
            .ok_or(ReturnRefusal::UnknownLine { position })?;
        if *quantity > line.left {
            let (order_item_id, sku, left) = (line.order_item_id, line.sku.clone(), line.left);
            return Err(ReturnRefusal::TooMany { order_item_id, sku, left });
        }
        line.left -= quantity;
        match wanted.iter_mut().find(|(id, _)| *id == line.order_item_id) {
            Some((_, sum)) => *sum += quantity,
            None => wanted.push((line.order_item_id, *quantity)),
        }
    }
    let id = Uuid::now_v7();
    let asked = ReturnRequest {
        return_id: id,
        order_id: order.id,
        patience_s: rules.return_patience_s,
        refunds_shipping: rules.return_refunds_shipping,
    };
    let start =
        Start::<OrderReturn>::new(id.to_string(), &asked).map_err(|failure| sqlx::Error::Encode(Box::new(failure)))?;
    returns::insert(conn, id, order.id, start.run_id(), reason, &wanted, now).await?;
    engine::start(conn, &start).await?;
    Ok(id)
}

/// What the staff say of a return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may be sent.
    Approve,
    /// Its goods are here.
    Receive,
    /// Nothing goes back, before it is sent or after it has been looked at.
    Reject,
}

impl Decision {
    /// The status it leads to.
    pub fn leads_to(self) -> ReturnStatus {
        match self {
            Decision::Approve => ReturnStatus::Approved,
            Decision::Receive => ReturnStatus::Received,
            Decision::Reject => ReturnStatus::Rejected,
        }
    }
}

/// The staff decide: the return moves and its run hears of it, or neither. A decision made before is
/// made.
///
/// # Errors
/// [`ReturnRefusal`]; the caller rolls back then.
pub async fn decide(
    conn: &mut PgConnection,
    return_id: Uuid,
    decision: Decision,
    note: Option<&str>,
    now: DateTime<Utc>,
) -> Result<ReturnHead, ReturnRefusal> {
    let found = returns::find(conn, return_id).await?.ok_or(ReturnRefusal::NotFound)?;
    orders::lock(conn, found.order_id).await?;
    // Again: what the lock's last holder wrote is visible to no earlier statement.
    let found = returns::find(conn, return_id).await?.ok_or(ReturnRefusal::NotFound)?;
    let (from, to) = (found.status, decision.leads_to());
    if from == to {
        return Ok(found);
    }
    from.transition(to)?;
    let signal = match from {
        ReturnStatus::Requested => DECISION,
        ReturnStatus::Approved | ReturnStatus::Received | ReturnStatus::Refunded | ReturnStatus::Rejected => ARRIVAL,
    };
    let goes_on = decision != Decision::Reject;
    if !returns::move_to(conn, return_id, from, to, note, now).await? {
        return Err(ReturnRefusal::Withdrawn);
    }
    match engine::run::signal(conn, found.run_id, signal, signal, &goes_on).await? {
        Delivery::Delivered => {}
        Delivery::Duplicate | Delivery::Finished | Delivery::Refused | Delivery::Unknown | Delivery::Invalid => {
            return Err(ReturnRefusal::Withdrawn);
        }
    }
    if engine::run::is_stopping(conn, found.run_id).await? {
        return Err(ReturnRefusal::Withdrawn);
    }
    if decision == Decision::Receive {
        // The goods are ours and what they cost is owed: nobody stops the run any more.
        engine::run::only_forward(conn, found.run_id).await?;
    }
    returns::find(conn, return_id).await?.ok_or(ReturnRefusal::NotFound)
}
