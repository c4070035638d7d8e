//! This process' metrics.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, http::header, response::IntoResponse as _, routing::get};
use engine::{
    inspect::{Backlog, backlog},
    silence::heard,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;
use tokio::{net::TcpListener, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use workflows::{Shop, payment_reconciliation};

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

/// Shows what the database knows until it is told to stop: how much waits in each queue, how far the
/// reconciliation is behind. An api does so, because there may be no worker when more are wanted.
///
/// # Errors
/// None.
pub(crate) async fn follow_database(pool: PgPool, shop: Arc<Shop>, stop: CancellationToken) -> Result<(), Failure> {
    let queues = workflows::registry(&shop).queues().to_vec();
    let mut looks = tokio::time::interval(UPKEEP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        match heard(backlog(&pool, &queues)).await {
            Ok(backlogs) => {
                for Backlog { queue, ready, age } in backlogs {
                    metrics::gauge!("cart_engine_backlog", "queue" => queue.clone()).set(ready as f64);
                    metrics::gauge!("cart_engine_backlog_age_seconds", "queue" => queue).set(age.as_secs_f64());
                }
            }
            Err(error) => tracing::debug!(%error, "the backlogs were not counted"),
        }
        let measured = async { payment_reconciliation::lag::measure(&mut *pool.acquire().await?, &shop).await };
        if let Err(error) = heard(measured).await {
            tracing::debug!(%error, "the reconciliation's lag was not measured");
        }
    }
}

/// Answers `/metrics`, for a process without an API, until it is told to stop.
///
/// # Errors
/// The listener's own.
pub(crate) async fn serve(
    listener: TcpListener,
    handle: PrometheusHandle,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let page = get(async move || {
        // The version is Prometheus' text format's own.
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response()
    });
    let router = Router::new().route("/metrics", page);
    serving::serve(listener, router, serving::Limits::default(), stop.cancelled_owned()).await
}
