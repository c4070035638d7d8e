//! Waiting for checkouts without asking the database once per waiting client.
//!
//! While anybody waits, one task of the process asks for all of them in one statement, every
//! [`PERIOD`]; it ends with the last waiter.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use engine::silence::heard;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};
use uuid::Uuid;
use workflows::checkout::status;

use crate::state::AppState;

/// Longest poll, in seconds.
pub(crate) const LONGEST_WAIT_S: u64 = 30;

/// Between two questions: what a shopper may wait longer than needed.
const PERIOD: Duration = Duration::from_millis(40);

/// Between two questions to a database that does not answer.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// How far a checkout has come, as far as those who wait care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// At work.
    Running,
    /// Waiting for the shopper to pay.
    AwaitsPayment,
    /// Over.
    Ended,
}

/// The checkouts somebody waits for.
#[derive(Clone, Default)]
pub(crate) struct CheckoutWatch(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    stages: HashMap<Uuid, watch::Sender<Stage>>,
    poller: Option<JoinHandle<()>>,
}

impl CheckoutWatch {
    /// Waits until the checkout has come to `stage`, or the time is up. False when waiting longer is in
    /// vain, because the process is on its way out.
    pub(crate) async fn wait(&self, state: &AppState, run_id: Uuid, stage: Stage, deadline: Instant) -> bool {
        let mut stages = self.subscribe(state, run_id);
        match tokio::time::timeout_at(deadline, stages.wait_for(|now| *now >= stage)).await {
            Ok(Ok(_)) | Err(_) => true,
            Ok(Err(_)) => false,
        }
    }

    fn subscribe(&self, state: &AppState, run_id: Uuid) -> watch::Receiver<Stage> {
        let mut waiting = self.lock();
        let stages = waiting.subscribe(run_id);
        // One that panicked is finished too.
        if waiting.poller.as_ref().is_none_or(JoinHandle::is_finished) {
            waiting.poller = Some(tokio::spawn(self.clone().poll(state.clone())));
        }
        stages
    }

    async fn poll(self, state: AppState) {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let Some(awaited) = self.lock().awaited(state.is_draining()) else { return };
            match heard(status::settled(&state.pool, &awaited)).await {
                Ok(settled) => self.lock().note(&awaited, &settled),
                Err(error) => {
                    tracing::warn!(%error, checkouts = awaited.len(), "cannot ask how checkouts stand");
                    tokio::time::sleep(RETRY_PERIOD).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock leaves it half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn subscribe(&mut self, run_id: Uuid) -> watch::Receiver<Stage> {
        let stages = self.stages.entry(run_id).or_insert_with(|| watch::Sender::new(Stage::Running));
        // What was known before the newcomer looked for himself is stale; the next answer tells him anew.
        stages.send_if_modified(|stage| {
            *stage = Stage::Running;
            false
        });
        stages.subscribe()
    }

    /// The checkouts to ask about. None when nobody waits any more, or nobody shall: then the poller has
    /// left, and the next to wait starts another.
    fn awaited(&mut self, is_draining: bool) -> Option<Vec<Uuid>> {
        self.stages.retain(|_, stages| !is_draining && stages.receiver_count() > 0);
        if self.stages.is_empty() {
            self.poller = None;
            return None;
        }
        Some(self.stages.keys().copied().collect())
    }

    /// Tells those who wait; a checkout that is not among `settled` is at work.
    fn note(&mut self, awaited: &[Uuid], settled: &[(Uuid, bool)]) {
        let settled: HashMap<Uuid, bool> = settled.iter().copied().collect();
        for run_id in awaited {
            let now = match settled.get(run_id) {
                Some(true) => Stage::Ended,
                Some(false) => Stage::AwaitsPayment,
                None => Stage::Running,
            };
            if let Some(stages) = self.stages.get(run_id) {
                stages.send_if_modified(|stage| std::mem::replace(stage, now) != now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_waits_for_a_checkout_is_told_by_one_answer() {
        let (mut waiting, run_id) = (Waiting::default(), Uuid::now_v7());
        let (first, second) = (waiting.subscribe(run_id), waiting.subscribe(run_id));
        assert_eq!(waiting.awaited(false), Some(vec![run_id]));
        waiting.note(&[run_id], &[(run_id, true)]);
        assert_eq!((*first.borrow(), *second.borrow()), (Stage::Ended, Stage::Ended));
    }

    #[test]
    fn nobody_is_told_what_was_known_before_he_came() {
        let (mut waiting, run_id) = (Waiting::default(), Uuid::now_v7());
        let early = waiting.subscribe(run_id);
        waiting.note(&[run_id], &[(run_id, false)]);
        assert_eq!(*early.borrow(), Stage::AwaitsPayment);
        let late = waiting.subscribe(run_id);
        assert_eq!(*late.borrow(), Stage::Running);
        waiting.note(&[run_id], &[(run_id, false)]);
        assert_eq!(*late.borrow(), Stage::AwaitsPayment);
    }

    #[test]
    fn nothing_is_asked_once_nobody_waits() {
        let (mut waiting, run_id) = (Waiting::default(), Uuid::now_v7());
        drop(waiting.subscribe(run_id));
        assert_eq!(waiting.awaited(false), None);
        assert!(waiting.stages.is_empty());
    }

    #[test]
    fn a_process_on_its_way_out_lets_everybody_go() {
        let (mut waiting, run_id) = (Waiting::default(), Uuid::now_v7());
        let stages = waiting.subscribe(run_id);
        assert_eq!(waiting.awaited(true), None);
        assert!(stages.has_changed().is_err(), "the sender is gone");
    }
}
