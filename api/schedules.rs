//! What happens by the clock, for staff to see and admins to steer.
//!
//! Schedulers write down what they know; this reads it, and leaves requests for them. The API fires
//! nothing itself.

use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use workflows::store::{
    audit_log::{self, Action},
    schedules::{self, Scheduled, Turn},
};

use crate::{
    caller::Caller,
    error::ApiError,
    extract::{Json, Path, Query},
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(run)).routes(routes!(pause)).routes(routes!(resume))
}

/// A schedule as it stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ScheduleView {
    #[schema(example = "retention")]
    name: String,
    /// Seconds, minutes, hours, days, months, weekdays; UTC.
    #[schema(example = "0 25 * * * *")]
    cron: String,
    /// The workflow it starts.
    #[schema(example = "retention/v1")]
    starts: String,
    /// The last tick that fired, or the moment it was first known.
    last_tick: DateTime<Utc>,
    /// The tick that fires next, also when that is overdue; null while it is paused.
    next_tick: Option<DateTime<Utc>>,
    /// Since when it does not fire.
    paused_at: Option<DateTime<Utc>>,
    /// When a run was asked for that no scheduler has started yet.
    run_requested_at: Option<DateTime<Utc>>,
}

impl From<Scheduled> for ScheduleView {
    fn from(schedule: Scheduled) -> Self {
        let Scheduled { name, cron, starts, last_tick, next_tick, paused_at, run_requested_at } = schedule;
        ScheduleView { name, cron, starts, last_tick, next_tick, paused_at, run_requested_at }
    }
}

/// Why it is done.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "reason": "The gateway is being moved this morning." }))]
struct ActionBody {
    /// For the audit log.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// Every schedule, by name. One appears when a scheduler has run for the first time.
#[utoipa::path(
    get, path = "/api/schedules", tag = "Schedules", security(("bearer" = [])), params(PageQuery),
    responses(
        (status = 200, description = "A page of schedules", body = Page<ScheduleView>),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ScheduleView>>, ApiError> {
    caller.require_staff()?;
    let (limit, after) = (query.limit()?, query.after::<String>()?);
    let found = schedules::list(&mut *state.pool.acquire().await?, after, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| last.name.clone()).map(ScheduleView::from)))
}

/// Starts its workflow now, paused or not: within a second, as long as a scheduler runs. Asked for again
/// before that, it is started once.
#[utoipa::path(
    post, path = "/api/schedules/{name}/run", tag = "Schedules", security(("bearer" = [])),
    request_body = Option<ActionBody>, params(("name" = String, Path, description = "The schedule's name")),
    responses(
        (status = 202, description = "Asked for", body = ScheduleView),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`schedule-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn run(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
    body: Option<Json<ActionBody>>,
) -> Result<(StatusCode, Json<ScheduleView>), ApiError> {
    Ok((StatusCode::ACCEPTED, turn(&state, &caller, &name, body, Turn::Run).await?))
}

/// From now on it does not fire. Repeating it is harmless.
#[utoipa::path(
    post, path = "/api/schedules/{name}/pause", tag = "Schedules", security(("bearer" = [])),
    request_body = Option<ActionBody>, params(("name" = String, Path, description = "The schedule's name")),
    responses(
        (status = 200, description = "The schedule, paused", body = ScheduleView),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`schedule-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn pause(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
    body: Option<Json<ActionBody>>,
) -> Result<Json<ScheduleView>, ApiError> {
    turn(&state, &caller, &name, body, Turn::Pause).await
}

/// It fires again; of the ticks it missed meanwhile the latest, once. Repeating it is harmless.
#[utoipa::path(
    post, path = "/api/schedules/{name}/resume", tag = "Schedules", security(("bearer" = [])),
    request_body = Option<ActionBody>, params(("name" = String, Path, description = "The schedule's name")),
    responses(
        (status = 200, description = "The schedule, no longer paused", body = ScheduleView),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`schedule-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn resume(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
    body: Option<Json<ActionBody>>,
) -> Result<Json<ScheduleView>, ApiError> {
    turn(&state, &caller, &name, body, Turn::Resume).await
}

/// Does it and writes down who did, and why, in one transaction.
async fn turn(
    state: &AppState,
    caller: &Caller,
    name: &str,
    body: Option<Json<ActionBody>>,
    turn: Turn,
) -> Result<Json<ScheduleView>, ApiError> {
    caller.require_admin()?;
    let reason = body.and_then(|Json(body)| body.reason);
    let reason = crate::valid::optional_reason(reason)?;
    let mut tx = state.pool.begin().await?;
    let schedule = schedules::turn(&mut tx, name, turn)
        .await?
        .ok_or_else(|| ApiError::not_found("schedule-not-found", "There is no such schedule."))?;
    let (actor, subject) = (caller.key()?, format!("schedule:{}", schedule.name));
    let action =
        Action { actor: &actor, action: turn.as_str(), subject: &subject, reason: reason.as_deref(), details: None };
    audit_log::record(&mut tx, action).await?;
    tx.commit().await?;
    Ok(Json(schedule.into()))
}
