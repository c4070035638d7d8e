//! What a gateway said of an order we did not know: tried again against orders that came later, and at last
//! the staff's.

use domain::notification::StaffReport;
use engine::{Start, Step, StepError, Tx};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Reconciled;
use crate::{
    checkout::webhook::{self, TIMES, UNMATCHED, delay},
    notification::{Notice, Notification},
    store::{
        alone,
        webhook_inbox::{self, Unmatched},
    },
};

/// Events tried by one commit.
const BATCH: i64 = 50;
/// What a batch came to.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tried {
    pub(super) done: Reconciled,
    pub(super) is_full: bool,
}

/// Tries those that are due.
#[derive(Debug)]
pub(super) struct MatchWebhooks;

impl Step for MatchWebhooks {
    const NAME: &'static str = "MatchWebhooks";
    type Output = Tried;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Tried, StepError> {
        let now = tx.now();
        let due = webhook_inbox::due(tx.conn(), now, BATCH).await?;
        let mut tried = Tried { is_full: i64::try_from(due.len()).unwrap_or_default() == BATCH, ..Tried::default() };
        for Unmatched { gateway, event_id, attempts, event } in &due {
            let outcome = match event {
                Some(event) => {
                    alone::begin(tx).await?;
                    let heard = webhook::receive(tx.conn(), gateway, event).await.map_err(StepError::from);
                    alone::end(tx, heard).await?.unwrap_or_else(|problem| {
                        tracing::warn!(gateway, event_id, problem, "a kept webhook cannot be taken up");
                        UNMATCHED
                    })
                }
                // Another release has kept it, and may still be about.
                None => UNMATCHED,
            };
            let is_last = *attempts >= TIMES;
            let try_at = (outcome == UNMATCHED && !is_last).then(|| now + delay(*attempts));
            webhook_inbox::record_outcome(tx.conn(), gateway, event_id, outcome, try_at).await?;
            if outcome == UNMATCHED && is_last {
                tried.done.mismatches += u64::from(report(tx, gateway, event_id).await?);
            } else if outcome != UNMATCHED {
                tracing::info!(gateway, event_id, outcome, "a webhook has found its order");
                tried.done.told += 1;
            }
        }
        Ok(tried)
    }
}

/// Once an event.
async fn report(tx: &mut Tx<'_>, gateway: &str, event_id: &str) -> Result<bool, StepError> {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{gateway}/{event_id}").as_bytes());
    let subject = format!("The gateway {gateway} speaks of an order that is not ours");
    let text = format!(
        "An event was kept, and no order has come that it could be about. If it is about money, that money \
         is not on our books.\n\nGateway: {gateway}\nEvent: {event_id}\n\n`cart-engine inspect money` shows it.\n"
    );
    let notice = Notice::to_staff("payment.unmatched", StaffReport { id, subject, text });
    Ok(tx.start(Start::<Notification>::new(notice.key(), &notice)?).await?.is_new)
}
