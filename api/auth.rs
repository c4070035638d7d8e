//! Registering, logging in and staying logged in.

use axum::{extract::State, http::StatusCode, response::IntoResponse};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;
use workflows::store::users::{self, Redeemed, Role, User};

use crate::{
    accounts::{self, CreateUserError, HashError, NewAccount},
    caller::Caller,
    error::ApiError,
    extract::{Credentials, Json},
    openapi::Problem,
    state::AppState,
    throttle::Throttle,
    tokens::{random_token, token_hash},
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(me))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RegisterBody {
    #[schema(format = "email", max_length = 255)]
    email: String,
    #[schema(value_type = String, format = "password", min_length = 8, max_length = 128)]
    password: SecretString,
    #[schema(max_length = 100)]
    first_name: Option<String>,
    #[schema(max_length = 100)]
    last_name: Option<String>,
    #[schema(max_length = 20)]
    phone_number: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoginBody {
    #[schema(max_length = 255)]
    email: String,
    #[schema(value_type = String, format = "password", max_length = 5000)]
    password: SecretString,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RefreshBody {
    #[schema(max_length = 5000)]
    refresh_token: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogoutBody {
    #[schema(max_length = 5000)]
    refresh_token: Option<String>,
}

/// A user, as he sees himself.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UserView {
    user_id: Uuid,
    email: String,
    first_name: Option<String>,
    last_name: Option<String>,
    phone_number: Option<String>,
    #[schema(value_type = String, examples("CUSTOMER", "STAFF", "ADMIN"))]
    role: Role,
    created_at: DateTime<Utc>,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        UserView {
            user_id: user.id.0,
            email: user.email,
            first_name: user.first_name,
            last_name: user.last_name,
            phone_number: user.phone_number,
            role: user.role,
            created_at: user.created_at,
        }
    }
}

/// What a login is good for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Session {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// Good once, for the next session.
    refresh_token: String,
    /// Seconds until the access token expires.
    expires_in: i64,
    user: UserView,
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        ApiError::internal(error)
    }
}

impl From<CreateUserError> for ApiError {
    fn from(error: CreateUserError) -> Self {
        match error {
            CreateUserError::Invalid(errors) => ApiError::invalid(errors),
            CreateUserError::EmailTaken => {
                ApiError::conflict("email-taken", "There is an account with this e-mail address.")
            }
            CreateUserError::Hash(error) => error.into(),
            CreateUserError::Database(error) => error.into(),
        }
    }
}

/// Makes an account for a customer. It logs nobody in.
#[utoipa::path(
    post, path = "/api/auth/register", tag = "Auth", request_body = RegisterBody,
    responses(
        (status = 201, description = "The new user", body = UserView),
        (status = 409, description = "`email-taken`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn register(
    State(state): State<AppState>,
    Credentials(body): Credentials<RegisterBody>,
) -> Result<impl IntoResponse, ApiError> {
    let account = NewAccount {
        email: body.email,
        password: body.password,
        role: Role::Customer,
        first_name: body.first_name,
        last_name: body.last_name,
        phone_number: body.phone_number,
    };
    let user = accounts::create_user(&state.pool, account).await?;
    tracing::info!(user_id = %user.id, "user registered");
    Ok((StatusCode::CREATED, Json(UserView::from(user))))
}

/// Logs in. An unknown address and a wrong password get the same answer after the same time. After some
/// failures an account may be tried again only after a delay that grows up to five minutes.
#[utoipa::path(
    post, path = "/api/auth/login", tag = "Auth", request_body = LoginBody,
    responses(
        (status = 200, description = "A session", body = Session),
        (status = 401, description = "`invalid-credentials`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`rate-limited`, `too-many-attempts`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn login(
    State(state): State<AppState>,
    Credentials(body): Credentials<LoginBody>,
) -> Result<Json<Session>, ApiError> {
    let email = body.email.trim().to_lowercase();
    let throttle = state.config.rate_limits.map(|limits| Throttle::new(&email, limits.free_login_failures));
    let login = {
        // The connection goes back to the pool before the hash takes its time.
        let mut conn = state.pool.acquire().await?;
        if let Some(throttle) = &throttle {
            throttle.admit(&mut conn).await?;
        }
        users::find_login(&mut conn, &email).await?
    };
    let (user, hash) = login.map_or((None, None), |login| (Some(login.user), Some(login.password_hash)));
    let matches = accounts::verify_password(body.password, hash).await?;
    let Some(user) = user.filter(|_| matches) else {
        if let Some(throttle) = &throttle {
            throttle.failed(&mut *state.pool.acquire().await?).await?;
        }
        return Err(ApiError::unauthorized("invalid-credentials", "The e-mail address or the password is wrong."));
    };
    let mut tx = state.pool.begin().await?;
    if let Some(throttle) = &throttle {
        throttle.admit(&mut tx).await?;
        throttle.succeeded(&mut tx).await?;
    }
    users::record_login(&mut tx, user.id).await?;
    let refresh_token = random_token(&mut rand::rng());
    let session = open_session(&state, &mut tx, user, Uuid::now_v7(), refresh_token).await?;
    tx.commit().await?;
    Ok(Json(session))
}

/// Trades a refresh token for a new session. A token works once, and for ten seconds more answers the same
/// next token, so that two tabs do not end a login; shown again after that, or once the next one has been
/// used, all that came of the same login is revoked, since one of the two who showed it stole it (RFC 9700
/// §4.14.2).
#[utoipa::path(
    post, path = "/api/auth/refresh", tag = "Auth", request_body = RefreshBody,
    responses(
        (status = 200, description = "A new session", body = Session),
        (status = 401, description = "`invalid-refresh-token`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn refresh(
    State(state): State<AppState>,
    Credentials(body): Credentials<RefreshBody>,
) -> Result<Json<Session>, ApiError> {
    let refused = || ApiError::unauthorized("invalid-refresh-token", "Log in again.");
    let shown = token_hash(&body.refresh_token);
    let mut successors = state.auth.successors(&body.refresh_token);
    let hashes: Vec<[u8; 32]> = successors.iter().map(|successor| token_hash(successor)).collect();
    let mut tx = state.pool.begin().await?;
    match users::redeem_refresh_token(&mut tx, &shown, &hashes).await? {
        Redeemed::Fresh { user, family } => {
            let user = users::find_user(&mut tx, user).await?.ok_or_else(refused)?;
            let session = open_session(&state, &mut tx, user, family, successors.swap_remove(0)).await?;
            tx.commit().await?;
            Ok(Json(session))
        }
        Redeemed::Again { user, successor } => {
            let user = users::find_user(&mut tx, user).await?.ok_or_else(refused)?;
            session(&state, user, successors.swap_remove(successor)).map(Json)
        }
        Redeemed::Reused { user } => {
            // The revocation must last although the request fails.
            tx.commit().await?;
            tracing::warn!(user_id = %user, "a refresh token was shown twice; its family is revoked");
            Err(refused())
        }
        Redeemed::Refused => Err(refused()),
    }
}

/// Logs out: revokes the login that the given refresh token belongs to, or without one every login of
/// the caller. Access tokens run out by themselves within minutes.
#[utoipa::path(
    post, path = "/api/auth/logout", tag = "Auth", request_body = Option<LogoutBody>, security(("bearer" = []), ()),
    responses(
        (status = 204, description = "Logged out; repeating it is harmless"),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn logout(
    State(state): State<AppState>,
    caller: Result<Caller, ApiError>,
    body: Option<Credentials<LogoutBody>>,
) -> Result<StatusCode, ApiError> {
    let mut conn = state.pool.acquire().await?;
    match body.and_then(|Credentials(body)| body.refresh_token) {
        // Whoever has the token may end what it stands for, even after the access token ran out.
        Some(token) => users::revoke_login(&mut conn, &token_hash(&token)).await?,
        None => users::revoke_logins(&mut conn, caller?.require_user()?).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Who am I?
#[utoipa::path(
    get, path = "/api/me", tag = "Auth", security(("bearer" = [])),
    responses(
        (status = 200, description = "The logged-in user", body = UserView),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn me(State(state): State<AppState>, caller: Caller) -> Result<Json<UserView>, ApiError> {
    let user_id = caller.require_user()?;
    let user = users::find_user(&mut *state.pool.acquire().await?, user_id).await?;
    // A token outlives the account it was issued for by a few minutes.
    user.map(|user| Json(user.into())).ok_or_else(ApiError::login_required)
}

async fn open_session(
    state: &AppState,
    conn: &mut PgConnection,
    user: User,
    family: Uuid,
    refresh_token: String,
) -> Result<Session, ApiError> {
    let expires_at = Utc::now() + state.auth.refresh_ttl;
    users::insert_refresh_token(conn, user.id, family, &token_hash(&refresh_token), expires_at).await?;
    session(state, user, refresh_token)
}

fn session(state: &AppState, user: User, refresh_token: String) -> Result<Session, ApiError> {
    Ok(Session {
        access_token: state.auth.issue(user.id, user.role, Utc::now()).map_err(ApiError::internal)?,
        refresh_token,
        expires_in: state.auth.access_ttl.num_seconds(),
        user: user.into(),
    })
}
