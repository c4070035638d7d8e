//! What a user wants to be written about.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use workflows::store::preferences::{self, Channels};

use crate::{caller::Caller, error::ApiError, extract::Json, openapi::Problem, state::AppState};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show, choose))
}

/// By which channels the user may be reminded, e.g. of a cart left behind. What concerns an order is
/// told all the same.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reminders": { "EMAIL": true, "SMS": false, "PUSH": false } }))]
struct Preferences {
    reminders: ReminderChannels,
}

/// True: yes. False: opted out.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE", deny_unknown_fields)]
struct ReminderChannels {
    email: bool,
    sms: bool,
    push: bool,
}

impl From<Channels> for Preferences {
    fn from(Channels { email, sms, push }: Channels) -> Self {
        Preferences { reminders: ReminderChannels { email, sms, push } }
    }
}

/// The caller's preferences; everything is wanted until it is not.
#[utoipa::path(
    get, path = "/api/me/preferences", tag = "Auth", security(("bearer" = [])),
    responses(
        (status = 200, description = "What the user wants", body = Preferences),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn show(State(state): State<AppState>, caller: Caller) -> Result<Json<Preferences>, ApiError> {
    let user_id = caller.require_user()?;
    Ok(Json(preferences::read(&mut *state.pool.acquire().await?, user_id).await?.into()))
}

/// Sets all of them.
#[utoipa::path(
    put, path = "/api/me/preferences", tag = "Auth", security(("bearer" = [])), request_body = Preferences,
    responses(
        (status = 200, description = "What the user wants now", body = Preferences),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn choose(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<Preferences>,
) -> Result<Json<Preferences>, ApiError> {
    let user_id = caller.require_user()?;
    let ReminderChannels { email, sms, push } = body.reminders;
    let mut tx = state.pool.begin().await?;
    let is_known = preferences::choose(&mut tx, user_id, Channels { email, sms, push }).await?;
    tx.commit().await?;
    // A token outlives the account it was issued for by a few minutes.
    if is_known { Ok(Json(body)) } else { Err(ApiError::login_required()) }
}
