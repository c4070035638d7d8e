//! Payment reconciliation: what the books say of money, held against what the gateway says, both ways.
//!
//! Webhooks get lost, answers too. What the gateway knows and nobody here does is passed on as if its
//! webhook came now, so that the checkout run, or a refund run, does what it always does; nothing is
//! written over. What no run can mend is counted, logged, and told to the staff, once.
//!
//! - `ask`: each payment and refund of ours is asked about in its time. One that cannot be compared is
//!   set aside and tried again later; it holds up no other, and says nothing of the gateway's health.
//! - `listing`: each payment that the gateway lists is looked for on our books.
//! - `unmatched`: what a gateway said of an order we did not know is tried again.

mod ask;
mod compare;
mod listing;
mod unmatched;

pub mod lag;

use std::sync::Arc;

use domain::{ids::OrderId, notification::StaffReport};
use engine::{Flow, Nothing, Result, Start, StepError, Tx, Workflow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::compare::{Mismatch, MismatchKind};
use self::{
    ask::{CompareBooks, FindPayments, PickPayments, PutBack, Walk},
    listing::{ListPayments, Listed, Listing, MatchPayments, OpenListing},
    unmatched::MatchWebhooks,
};
use crate::{
    Shop,
    notification::{Notice, Notification},
    store::reconciliation::checks::Pass,
};

/// Looks for something to compare in one run, whatever the number of gateways: a look costs one journal entry,
/// and three more when it finds something. What is left then is for the run that follows at once.
const LOOKS: usize = 140;
/// Pages of payments listed in one run.
const PAGES: usize = 24;
/// Batches of unmatched webhooks tried in one run.
const WEBHOOKS: usize = 10;

/// What a reconciliation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    /// Orders whose books were compared.
    pub compared: u64,
    /// Words of the gateway that nobody had heard, passed on.
    pub told: u64,
    /// Differences reported to the staff.
    pub mismatches: u64,
    /// Comparisons that did not succeed, and are tried again later.
    pub set_aside: u64,
    /// Payments that the gateway has and our books had not.
    pub unbooked: u64,
}

impl std::ops::AddAssign for Reconciled {
    fn add_assign(&mut self, other: Self) {
        self.compared += other.compared;
        self.told += other.told;
        self.mismatches += other.mismatches;
        self.set_aside += other.set_aside;
        self.unbooked += other.unbooked;
    }
}

/// `payment_reconciliation/v1`, started by its schedule; and by itself, at once, when it has not caught up.
#[derive(Debug, Clone)]
pub struct PaymentReconciliation(pub Arc<Shop>);

impl Workflow for PaymentReconciliation {
    const NAME: &'static str = "payment_reconciliation";
    const QUEUE: &'static str = "maintenance";
    type Input = ();
    type Output = Reconciled;

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<Reconciled> {
        let mut sum = Reconciled::default();
        let mut has_more = false;
        // First: it needs no gateway, and none is to keep it from its turn.
        for _ in 0..WEBHOOKS {
            let tried = flow.tx(MatchWebhooks).undo(Nothing).await?;
            flow.checkpoint().await?;
            sum += tried.done;
            if !tried.is_full {
                break;
            }
        }
        // Journalled: another worker may be configured otherwise.
        let gateways: Vec<String> = flow.value("gateways", || self.0.gateways.keys().cloned().collect()).await?;
        let share = |all: usize| (all / gateways.len().max(1)).max(Pass::ALL.len());
        for name in &gateways {
            let compared = self.compare_all(flow, name, share(LOOKS), &mut sum).await?;
            let listed = match compared {
                Progress::Away => Progress::Away,
                Progress::CaughtUp | Progress::Behind => self.list_all(flow, name, share(PAGES), &mut sum).await?,
            };
            has_more |= compared == Progress::Behind || listed == Progress::Behind;
        }
        if has_more {
            // Each does what the one before has left; a gateway that is away has left nothing to do.
            flow.start(Start::<PaymentReconciliation>::new(format!("after/{}", flow.id()), &())).await?;
        }
        Ok(sum)
    }
}

/// How far a run has come with one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing is due.
    CaughtUp,
    /// More is due than one run does.
    Behind,
    /// It does not answer.
    Away,
}

impl PaymentReconciliation {
    /// The passes in turn, round and round, so that none waits for all of another.
    async fn compare_all(&self, flow: &mut Flow, name: &str, looks: usize, sum: &mut Reconciled) -> Result<Progress> {
        let mut left = looks;
        loop {
            let mut is_done = true;
            for pass in Pass::ALL {
                if left == 0 {
                    return Ok(Progress::Behind);
                }
                left -= 1;
                let walk = Walk { name, pass, rules: &self.0.rules.reconciliation };
                let found = flow.tx(PickPayments(walk)).undo(PutBack { patience: walk.patience() }).await?;
                is_done &= found.checks.is_empty() && !found.has_more;
                if found.checks.is_empty() {
                    continue;
                }
                let gateway = self.0.gateway(name);
                let asked = flow
                    .call(FindPayments { checks: &found.checks, gateway, pool: flow.pool().clone() })
                    .undo(Nothing)
                    .await?;
                *sum += flow.tx(CompareBooks { walk, found: &found, asked: &asked }).undo(Nothing).await?;
                flow.checkpoint().await?;
                if asked.is_away {
                    return Ok(Progress::Away);
                }
            }
            if is_done {
                return Ok(Progress::CaughtUp);
            }
        }
    }

    async fn list_all(&self, flow: &mut Flow, name: &str, pages: usize, sum: &mut Reconciled) -> Result<Progress> {
        let mut left = pages;
        for listing in Listing::ALL {
            loop {
                if left == 0 {
                    return Ok(Progress::Behind);
                }
                left -= 1;
                let rules = &self.0.rules.reconciliation;
                let place = flow.tx(OpenListing { name, listing, rules }).undo(Nothing).await?;
                if place.window.is_empty() {
                    break;
                }
                let gateway = self.0.gateway(name);
                let listed = flow.call(ListPayments { place: &place, gateway }).undo(Nothing).await?;
                let listed = match &listed {
                    Listed::Page(page) => Some(page),
                    Listed::Forgotten => None,
                    Listed::Nothing | Listed::Silence => return Ok(Progress::Away),
                };
                *sum += flow.tx(MatchPayments { name, listing, place: &place, listed }).undo(Nothing).await?;
                flow.checkpoint().await?;
                if listed.is_none() {
                    return Ok(Progress::Away);
                }
            }
        }
        Ok(Progress::CaughtUp)
    }
}

/// Once an order and kind.
async fn report(tx: &mut Tx<'_>, gateway: &str, order_id: OrderId, mismatch: &Mismatch) -> Result<bool, StepError> {
    let Mismatch { kind, detail } = mismatch;
    let kind = kind.as_str();
    let id = Uuid::new_v5(&order_id.into(), kind.as_bytes());
    let subject = format!("Payments differ from the gateway's: {kind}");
    let text = format!("Order: {order_id}\nGateway: {gateway}\nWhat differs: {detail}\n");
    let notice = Notice::to_staff("payment.mismatch", StaffReport { id, subject, text });
    let is_new = tx.start(Start::<Notification>::new(notice.key(), &notice)?).await?.is_new;
    if is_new {
        tracing::warn!(%order_id, gateway, kind, detail, "books and gateway differ");
        metrics::counter!("cart_engine_payment_mismatches_total", "kind" => kind).increment(1);
    }
    Ok(is_new)
}
