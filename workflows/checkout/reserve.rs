//! Phase 2: the stock is held for ten minutes.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use engine::{SetResult, SetStep, SetTx, StepError, Undo, Undoing};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{accept::Refusal, validate::ValidCart};
use crate::store::{
    coupons,
    inventory::{self, Demand, Short, Wanted},
};

/// The reservations this checkout holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hold {
    /// One a line, in variant order.
    pub reservations: Vec<Uuid>,
    /// Since when: what the payment window is counted from.
    pub since: DateTime<Utc>,
}

/// Box 4: available −q, reserved +q for each line, or nothing at all. Who comes first is served first.
#[derive(Debug)]
pub struct ReserveInventory {
    pub(super) order_id: OrderId,
    pub(super) cart: Arc<ValidCart>,
    pub(super) hold: Duration,
}

impl SetStep for ReserveInventory {
    const NAME: &'static str = "ReserveInventory";
    type Output = Hold;
    const HOT: bool = true;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Hold> {
        let now = tx.now();
        let demands: Vec<Demand> = rows
            .iter()
            .map(|row| Demand {
                holder: row.order_id.into(),
                wanted: Wanted::of(&row.cart.lines),
                expires_at: now + row.hold,
            })
            .collect();
        let short = inventory::hold(tx.conn(), &demands, now).await?;
        let answer = |((row, demand), short): ((&Self, Demand), Vec<Short>)| {
            row.cart.all_of(&short)?;
            let reservations = demand.wanted.iter().map(|wanted| wanted.reservation_id).collect();
            Ok(Hold { reservations, since: now })
        };
        Ok(rows.iter().zip(demands).zip(short).map(answer).collect())
    }
}

impl ValidCart {
    /// Refuses a cart of which something is short.
    pub(super) fn all_of(&self, short: &[Short]) -> Result<(), Refusal> {
        if short.is_empty() {
            return Ok(());
        }
        Err(Refusal::OutOfStock { lines: self.lines.iter().filter_map(|line| line.short_of(short)).collect() })
    }
}

/// Gives back what is still held; what expired meanwhile has been given back already.
#[derive(Debug)]
pub struct ReleaseInventory {
    pub(super) order_id: OrderId,
}

impl Undo<Hold> for ReleaseInventory {
    const NAME: Option<&'static str> = Some("ReleaseInventory");

    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, Hold>]) -> Result<(), StepError> {
        let (orders, now): (Vec<OrderId>, _) = (rows.iter().map(|row| row.undo.order_id).collect(), tx.now());
        coupons::lock_of(tx.conn(), &orders).await?;
        inventory::release(tx.conn(), &orders, now).await?;
        Ok(())
    }
}
