//! Abandoned carts: what lies idle is told to the world once, and its owner is reminded of it.
//!
//! The schedule's run only finds carts and starts one run for each; that run sleeps from reminder to
//! reminder, holding no worker, and ends as soon as it sees that the cart is not as it was left (seed:
//! Cart Service, cart abandonment tracking).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::ids::CartId;
use engine::{Flow, Nothing, Result, SetResult, SetStep, SetTx, Start, Step, StepError, Tx, Workflow};
use serde::{Deserialize, Serialize};

use crate::{
    Shop,
    notification::{LeftBehind, Notice, Notification},
    store::carts::idle::{self, Standing},
};

/// Carts found by one commit.
const BATCH: i64 = 100;
/// Commits of one run; what is left then is the next run's.
const BATCHES: usize = 100;

/// `abandoned_carts/v1`, started by its schedule.
#[derive(Debug, Clone)]
pub struct AbandonedCarts(pub Arc<Shop>);

impl Workflow for AbandonedCarts {
    const NAME: &'static str = "abandoned_carts";
    const QUEUE: &'static str = "maintenance";
    type Input = ();
    /// Carts that were ABANDONED.
    type Output = u64;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<u64> {
        let mut abandoned = 0;
        for _ in 0..BATCHES {
            let batch = flow.tx(AbandonIdleCarts { shop: &self.0 }).undo(Nothing).await?;
            flow.checkpoint().await?;
            abandoned += batch;
            if batch < u64::try_from(BATCH).unwrap_or_default() {
                break;
            }
        }
        Ok(abandoned)
    }
}

/// ACTIVE → ABANDONED, the event, and a run for each cart whose owner can be written to: all or nothing.
struct AbandonIdleCarts<'a> {
    shop: &'a Shop,
}

impl Step for AbandonIdleCarts<'_> {
    const NAME: &'static str = "AbandonIdleCarts";
    type Output = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, StepError> {
        let rules = &self.shop.rules.abandonment;
        let now = tx.now();
        let carts = idle::abandon(tx.conn(), BATCH, now - rules.after(), now).await?;
        for cart in carts.iter().filter(|cart| cart.is_reachable) {
            let remind_at = rules.reminders().into_iter().map(|after| cart.idle_since + after).collect();
            let left = Abandonment { cart_id: cart.cart_id, idle_since: cart.idle_since, remind_at };
            tx.start(Start::<AbandonedCart>::new(left.key(), &left)?).await?;
        }
        Ok(u64::try_from(carts.len()).unwrap_or_default())
    }
}

/// A cart that was left, and when to remind of it: decided when it was found, so that a change of the
/// rules changes no reminders under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Abandonment {
    /// The cart.
    pub cart_id: CartId,
    /// When its owner last did something.
    pub idle_since: DateTime<Utc>,
    /// When each reminder is due, the earliest first.
    pub remind_at: Vec<DateTime<Utc>>,
}

impl Abandonment {
    /// The run's business key: a cart may be left again, after it was touched.
    pub fn key(&self) -> String {
        format!("{}/{}", self.cart_id, self.idle_since.to_rfc3339())
    }
}

/// `abandoned_cart/v1`: the reminders of one abandonment.
#[derive(Debug, Clone, Copy)]
pub struct AbandonedCart;

impl Workflow for AbandonedCart {
    const NAME: &'static str = "abandoned_cart";
    const QUEUE: &'static str = "maintenance";
    type Input = Abandonment;
    /// How the cart stood when it was last looked at: IDLE when every reminder went out.
    type Output = Standing;

    async fn run(&self, flow: &mut Flow, left: Abandonment) -> Result<Standing> {
        let cart = LeftBehind { cart_id: left.cart_id, abandonment: flow.id(), idle_since: left.idle_since };
        for (index, due) in left.remind_at.iter().enumerate() {
            flow.sleep_until("reminder", *due).await?;
            let standing = flow.tx(LookAtCart { cart }).undo(Nothing).await?;
            if standing != Standing::Idle {
                return Ok(standing);
            }
            let notice = Notice::of_cart(format!("cart.abandoned.{}", index + 1), cart);
            flow.start(Start::<Notification>::new(notice.key(), &notice)).await?;
        }
        Ok(Standing::Idle)
    }
}

/// Is it still as it was left, and may its owner be reminded?
struct LookAtCart {
    cart: LeftBehind,
}

impl SetStep for LookAtCart {
    const NAME: &'static str = "LookAtCart";
    type Output = Standing;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<Standing> {
        let left: Vec<_> = rows.iter().map(|row| (row.cart.cart_id, row.cart.idle_since)).collect();
        Ok(idle::look(tx.conn(), &left).await?.into_iter().map(|look| Ok(look.standing)).collect())
    }
}
