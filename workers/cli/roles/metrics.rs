//! This process' metrics.

use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// How often histograms are folded; between two scrapes they only grow.
const UPKEEP: Duration = Duration::from_secs(5);

/// What renders `/metrics`; the recorder behind it is the process' one and only.
///
/// # Errors
/// Somebody else has installed a recorder.
pub(crate) fn handle() -> Result<PrometheusHandle, Failure> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| Failure::caused_by("metrics cannot be recorded", &error))?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// Keeps the recorder's memory bounded until it is told to stop.
///
/// # Errors
/// None.
pub(crate) async fn keep_up(handle: PrometheusHandle, stop: CancellationToken) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => handle.run_upkeep(),
            () = stop.cancelled() => return Ok(()),
        }
    }
}
