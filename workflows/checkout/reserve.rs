//! Phase 2: the stock is held for ten minutes.

use std::{slice, time::Duration};

use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use engine::{Step, StepError, Tx, Undo};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{accept::Refusal, validate::ValidCart};
use crate::store::{
    coupons,
    inventory::{self, Demand, Wanted},
};

/// The reservations this checkout holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hold {
    /// One a line, in variant order.
    pub reservations: Vec<Uuid>,
    /// Since when: what the payment window is counted from.
    pub since: DateTime<Utc>,
}

/// Box 4: available −q, reserved +q for each line, or nothing at all.
#[derive(Debug)]
pub struct ReserveInventory<'a> {
    pub(super) cart: &'a ValidCart,
    pub(super) order_id: OrderId,
    pub(super) hold: Duration,
}

impl Step for ReserveInventory<'_> {
    const NAME: &'static str = "ReserveInventory";
    type Output = Hold;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Hold, StepError> {
        let (now, expires_at) = (tx.now(), tx.now() + self.hold);
        let demand = Demand { holder: self.order_id.into(), wanted: Wanted::of(&self.cart.lines), expires_at };
        let short = inventory::hold(tx.conn(), slice::from_ref(&demand), now).await?.concat();
        if !short.is_empty() {
            let lines = self.cart.lines.iter().filter_map(|line| line.short_of(&short)).collect();
            return Err(Refusal::OutOfStock { lines }.into());
        }
        Ok(Hold { reservations: demand.wanted.into_iter().map(|wanted| wanted.reservation_id).collect(), since: now })
    }
}

/// Gives back what is still held; what expired meanwhile has been given back already.
#[derive(Debug)]
pub struct ReleaseInventory {
    pub(super) order_id: OrderId,
}

impl Undo<Hold> for ReleaseInventory {
    const NAME: Option<&'static str> = Some("ReleaseInventory");

    async fn undo(&self, tx: &mut Tx<'_>, _: &Hold) -> Result<(), StepError> {
        let now = tx.now();
        coupons::lock_of(tx.conn(), &[self.order_id]).await?;
        inventory::release(tx.conn(), self.order_id, now).await?;
        Ok(())
    }
}
