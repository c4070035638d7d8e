//! Keys of other services: made and ended by administrators.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::users::keys::{self, ApiKey};

use crate::{
    caller::{Caller, Scope},
    error::{ApiError, OnConstraint},
    extract::{Json, Path, Query},
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
    tokens::{random_token, token_hash},
    valid::Complaints,
    write::Write,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyBody {
    /// Whose key it is; unique for ever.
    #[schema(min_length = 1, max_length = 100, examples("warehouse"))]
    name: String,
    /// `inventory`: hold and release stock; `events:read`: follow the events.
    #[schema(min_items = 1, example = json!(["inventory"]))]
    scopes: Vec<String>,
}

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct KeyView {
    key_id: Uuid,
    #[schema(examples("warehouse"))]
    name: String,
    #[schema(example = json!(["inventory"]))]
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    /// From then on it is refused.
    revoked_at: Option<DateTime<Utc>>,
}

/// A new key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewKeyView {
    #[serde(flatten)]
    key: KeyView,
    /// For `X-Api-Key`. Told once: only its hash is kept.
    #[schema(examples("q1w2e3r4t5y6u7i8o9p0a1s2d3f4g5h6j7k8l9z0x1c"))]
    secret: String,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        let ApiKey { id, name, scopes, created_at, revoked_at } = key;
        KeyView { key_id: id, name, scopes, created_at, revoked_at }
    }
}

/// A new key. It takes no Idempotency-Key: a stored answer would be a stored secret. A client that did not
/// hear the answer revokes the key and makes another.
#[utoipa::path(
    post, path = "/api/api-keys", tag = "Administration", request_body = KeyBody, security(("bearer" = [])),
    responses(
        (status = 201, description = "The key, with its secret, told once", body = NewKeyView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`key-name-taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<KeyBody>,
) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let mut complaints = Complaints::default();
    complaints.text("/name", &body.name, 100);
    complaints.note(body.scopes.is_empty(), "/scopes", "must name at least one scope");
    for (index, scope) in body.scopes.iter().enumerate() {
        let is_known = Scope::ALL.iter().any(|known| known.as_str() == scope);
        let is_double = body.scopes[..index].contains(scope);
        complaints.note(!is_known || is_double, &format!("/scopes/{index}"), "is no scope, or named twice");
    }
    let errors = complaints.into_errors();
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let secret = random_token(&mut rand::rng());
    let mut write = Write::once(&state, &caller).await?;
    let key = keys::insert(write.conn(), body.name.trim(), &token_hash(&secret), &body.scopes)
        .await
        .on_constraint("api_keys_name_key", |_| {
            ApiError::conflict("key-name-taken", "There is, or was, another key of this name.")
        })?;
    write.note("api-key.create", &format!("api-key:{}", key.id), None, &json!(body)).await?;
    write.answer(StatusCode::CREATED, &NewKeyView { key: key.into(), secret }).await
}

/// Every key, oldest first, revoked ones too; never a secret.
#[utoipa::path(
    get, path = "/api/api-keys", tag = "Administration", params(PageQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "A page of keys", body = Page<KeyView>),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<KeyView>>, ApiError> {
    caller.require_admin()?;
    let (limit, after) = (query.limit()?, query.after::<Uuid>()?);
    let found = keys::list(&mut *state.pool.acquire().await?, after, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| last.id).map(KeyView::from)))
}

/// Ends a key at once. Repeating it is harmless.
#[utoipa::path(
    delete, path = "/api/api-keys/{id}", tag = "Administration", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The key's id")),
    responses(
        (status = 204, description = "Revoked"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`key-not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn revoke(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let not_found = || ApiError::not_found("key-not-found", "There is no such key.");
    let id = Uuid::parse_str(&id).map_err(|_| not_found())?;
    let mut write = Write::once(&state, &caller).await?;
    if !keys::revoke(write.conn(), id).await? {
        return Err(not_found());
    }
    write.note("api-key.revoke", &format!("api-key:{id}"), None, &json!({})).await?;
    write.done().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
