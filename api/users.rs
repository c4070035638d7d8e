//! Accounts: one's own, and everybody's for those who keep them.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::ids::UserId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::users::{
    Role,
    accounts::{self, Account, ForgetError},
};

use crate::{
    caller::Caller,
    error::ApiError,
    extract::{Json, Path, Query, nullable},
    openapi::Problem,
    page::{Page, PageQuery},
    state::AppState,
    valid::Complaints,
    write::Write,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(change, forget)).routes(routes!(change_self, forget_self))
}

/// An account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AccountView {
    user_id: Uuid,
    email: String,
    first_name: Option<String>,
    last_name: Option<String>,
    phone_number: Option<String>,
    #[schema(value_type = String, examples("CUSTOMER", "STAFF", "ADMIN"))]
    role: Role,
    /// Whether he may log in.
    is_active: bool,
    created_at: DateTime<Utc>,
    last_login_at: Option<DateTime<Utc>>,
    /// Since when nobody knows who it was.
    anonymised_at: Option<DateTime<Utc>>,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        let Account { id, email, first_name, last_name, phone_number, role, .. } = account;
        AccountView {
            user_id: id.0,
            email,
            first_name,
            last_name,
            phone_number,
            role,
            is_active: account.is_active,
            created_at: account.created_at,
            last_login_at: account.last_login_at,
            anonymised_at: account.anonymised_at,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// Items wanted, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// How the address begins, in any case.
    email: Option<String>,
}

fn user_not_found() -> ApiError {
    ApiError::not_found("user-not-found", "There is no such user.")
}

/// Every account, oldest first.
#[utoipa::path(
    get, path = "/api/users", tag = "Administration", params(SearchQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "A page of accounts", body = Page<AccountView>),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<SearchQuery>,
) -> Result<Json<Page<AccountView>>, ApiError> {
    caller.require_staff()?;
    let SearchQuery { limit, cursor, email } = query;
    let query = PageQuery { limit, cursor };
    let (limit, after) = (query.limit()?, query.after::<UserId>()?);
    let email = email.map(|email| email.trim().to_lowercase());
    let found = accounts::list(&mut *state.pool.acquire().await?, email.as_deref(), after, limit + 1).await?;
    Ok(Json(Page::cut(found, limit, |last| last.id).map(AccountView::from)))
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AccountChange {
    #[schema(value_type = Option<String>, examples("STAFF"))]
    role: Option<Role>,
    /// False: can neither log in nor stay logged in; an access token ends within its minutes.
    is_active: Option<bool>,
}

/// Locks an account for an administrator, who must still be one and be another: so the last one stays.
async fn lock_other(write: &mut Write, admin: UserId, id: &str) -> Result<Account, ApiError> {
    let id: UserId = id.parse().map_err(|_| user_not_found())?;
    let mut locked = accounts::lock(write.conn(), &[admin, id]).await?;
    if !locked.iter().any(|account| account.id == admin && account.is_active && account.role == Role::Admin) {
        return Err(ApiError::forbidden());
    }
    if id == admin {
        return Err(ApiError::conflict("own-account", "Another administrator must do this to your account."));
    }
    locked.retain(|account| account.id == id);
    locked.pop().ok_or_else(user_not_found)
}

/// Gives a user another role, or stops him from logging in.
#[utoipa::path(
    patch, path = "/api/users/{id}", tag = "Administration", request_body = AccountChange, security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 200, description = "The account", body = AccountView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`user-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`own-account`; `user-anonymised`: nobody is left behind it", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<AccountChange>,
) -> Result<Response, ApiError> {
    let admin = caller.require_admin()?;
    let mut write = Write::once(&state, &caller).await?;
    let mut account = lock_other(&mut write, admin, &id).await?;
    if account.anonymised_at.is_some() {
        return Err(ApiError::conflict("user-anonymised", "Nobody is left behind this account."));
    }
    account.role = body.role.unwrap_or(account.role);
    account.is_active = body.is_active.unwrap_or(account.is_active);
    accounts::save(write.conn(), &account).await?;
    write.note("user.change", &format!("user:{}", account.id), None, &json!(body)).await?;
    write.answer(StatusCode::OK, &AccountView::from(account)).await
}

impl From<ForgetError> for ApiError {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::InCheckout { workflow_id } => {
                ApiError::conflict("cart-in-checkout", "A checkout is under way; end it first.")
                    .with("workflowId", workflow_id.map(|id| id.to_string()))
            }
            ForgetError::Database(error) => error.into(),
        }
    }
}

/// Forgets a user: the account says nothing any more, logins and addresses are gone, carts expire. Orders
/// stay as they are. Repeating it is harmless.
#[utoipa::path(
    delete, path = "/api/users/{id}", tag = "Administration", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`user-not-found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`cart-in-checkout` with `workflowId`, `own-account`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn forget(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let admin = caller.require_admin()?;
    let mut write = Write::once(&state, &caller).await?;
    let account = lock_other(&mut write, admin, &id).await?;
    end(write, account.id).await
}

async fn end(mut write: Write, user: UserId) -> Result<Response, ApiError> {
    accounts::forget(write.conn(), user).await?;
    write.note("user.forget", &format!("user:{user}"), None, &json!({})).await?;
    write.done().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What changes; null empties a field.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OwnChange {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 100)]
    first_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 100)]
    last_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 20)]
    phone_number: Option<Option<String>>,
}

/// One's own account, locked. A token outlives its account by a few minutes.
async fn lock_own(write: &mut Write, caller: &Caller) -> Result<Account, ApiError> {
    let own = accounts::lock(write.conn(), &[caller.require_user()?]).await?.pop();
    own.filter(|account| account.is_active).ok_or_else(ApiError::login_required)
}

/// Changes one's own names and phone number.
#[utoipa::path(
    patch, path = "/api/me", tag = "Auth", request_body = OwnChange, security(("bearer" = [])),
    responses(
        (status = 200, description = "The account", body = AccountView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn change_self(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<OwnChange>,
) -> Result<Response, ApiError> {
    caller.require_user()?;
    let mut complaints = Complaints::default();
    let phone = body.phone_number.iter().flatten().next();
    for (pointer, given, most) in [
        ("/firstName", body.first_name.iter().flatten().next(), 100),
        ("/lastName", body.last_name.iter().flatten().next(), 100),
        ("/phoneNumber", phone, 20),
    ] {
        if let Some(text) = given {
            complaints.text(pointer, text, most);
        }
    }
    let errors = complaints.into_errors();
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let mut write = Write::once(&state, &caller).await?;
    let mut account = lock_own(&mut write, &caller).await?;
    account.first_name = body.first_name.unwrap_or(account.first_name);
    account.last_name = body.last_name.unwrap_or(account.last_name);
    account.phone_number = body.phone_number.unwrap_or(account.phone_number);
    accounts::save(write.conn(), &account).await?;
    write.answer(StatusCode::OK, &AccountView::from(account)).await
}

/// Forgets oneself: logins, addresses and open carts go, orders stay as they are.
#[utoipa::path(
    delete, path = "/api/me", tag = "Auth", security(("bearer" = [])),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`cart-in-checkout` with `workflowId`; `own-account`: an administrator cannot forget himself", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn forget_self(State(state): State<AppState>, caller: Caller) -> Result<Response, ApiError> {
    caller.require_user()?;
    let mut write = Write::once(&state, &caller).await?;
    let account = lock_own(&mut write, &caller).await?;
    if account.role == Role::Admin {
        return Err(ApiError::conflict("own-account", "Another administrator must do this to your account."));
    }
    end(write, account.id).await
}
