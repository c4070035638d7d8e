//! The one way this API says no: RFC 9457 problem details with a stable `code`.

use std::{borrow::Cow, error::Error as StdError};

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::error::DatabaseError;

/// Media type of every refusal (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A refusal, or our own failure, as the client sees it. The status says the class, the kebab-case
/// `code` is what programs match on, the detail is for people; what went wrong inside is only logged.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .0.code, .0.detail)]
pub struct ApiError(Box<Problem>);

#[derive(Debug)]
struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// Marks an answer as a refusal with this code.
#[derive(Debug, Clone)]
pub(crate) struct Refused(pub(crate) Cow<'static, str>);

/// What is wrong with one place of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body; `/name` for a query or path parameter.
    pub pointer: String,
    /// A sentence for people.
    pub detail: String,
}

impl FieldError {
    /// An error at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        FieldError { pointer: pointer.into(), detail: detail.into() }
    }
}

impl ApiError {
    /// A problem of any status. Prefer the constructor of its class.
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        ApiError(Box::new(Problem {
            status,
            code: code.into(),
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// 400: the request itself cannot be understood.
    pub fn bad_request(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401 with the challenge that says how to log in (RFC 6750).
    pub fn unauthorized(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cart-engine\""))
    }

    /// 401 `login-required`.
    pub fn login_required() -> Self {
        Self::unauthorized("login-required", "Log in first: a valid access token is needed.")
    }

    /// 403 `forbidden`: the caller is known, and his role or scopes do not reach this far.
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Your role does not allow this.")
    }

    /// 404. Also the answer to somebody else's cart, order or checkout: that it exists is a secret.
    pub fn not_found(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 409: the state of things forbids it now.
    pub fn conflict(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 412 `precondition-failed`: `If-Match` names another version.
    pub fn precondition_failed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", detail)
    }

    /// 413 `body-too-large`.
    pub fn body_too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            format!("A request body may have at most {} KiB.", limit_bytes / 1024),
        )
    }

    /// 422: understood, and wrong.
    pub fn unprocessable(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 422 `validation-failed`, with every place that is wrong.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self::unprocessable("validation-failed", "The request does not have the expected form.").with_errors(errors)
    }

    /// 429 `rate-limited`.
    pub fn rate_limited(retry_after_s: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests; slow down.")
            .retry_after(retry_after_s)
    }

    /// 429 `too-many-attempts`: wrong passwords for one account.
    pub fn too_many_attempts(retry_after_s: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-attempts",
            "Too many failed logins for this account; try again later.",
        )
        .retry_after(retry_after_s)
    }

    /// 500 `internal`. The cause is logged, never shown.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side.").caused_by(cause)
    }

    /// 503 `timeout`: whatever was begun was rolled back, or had already committed.
    pub fn timeout() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "The request took too long.").retry_after(1)
    }

    /// 503 `unavailable`: something we stand on does not answer; trying again soon may help.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The shop is not available right now.")
            .retry_after(1)
            .caused_by(cause)
    }

    /// 503 `overloaded`: refused at the door, nothing was done.
    pub fn overloaded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once.").retry_after(1)
    }

    /// Adds an extension member, such as `available` or `workflowId`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Names the places that are wrong.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Says when to come again, in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// The request's body is not read to its end: its connection carries no other request (RFC 9112, 9.6).
    #[must_use]
    pub fn closing(self) -> Self {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// Remembers what is behind it, for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The status it answers with.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> Value {
        let problem = &*self.0;
        let mut body = problem.members.clone();
        body.insert("type".into(), format!("urn:cart-engine:problem:{}", problem.code).into());
        body.insert("title".into(), title(&problem.code).into());
        body.insert("status".into(), problem.status.as_u16().into());
        body.insert("detail".into(), problem.detail.clone().into());
        body.insert("code".into(), problem.code.clone().into());
        if !problem.errors.is_empty() {
            body.insert("errors".into(), json!(problem.errors));
        }
        Value::Object(body)
    }
}

/// `out-of-stock` → "Out of stock": the title says no more than the code, in words.
fn title(code: &str) -> String {
    let words = code.replace('-', " ");
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => words,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // The boundary: the one place where a cause is logged, inside the request's span.
        if let Some(cause) = &self.0.cause {
            if self.0.status.is_server_error() {
                tracing::error!(code = self.code(), %cause, "request failed");
            } else {
                tracing::info!(code = self.code(), %cause, "request refused");
            }
        }
        let body = self.body().to_string();
        let mut response = (self.0.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        response.extensions_mut().insert(Refused(self.0.code));
        response.headers_mut().extend(self.0.headers.into_iter().map(|(name, value)| (Some(name), value)));
        response
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        let sqlstate = error.as_database_error().and_then(DatabaseError::code).map(|code| code.into_owned());
        match sqlstate.as_deref() {
            // 22021, 22P05: a text with U+0000, which Postgres cannot store. It can only have come in
            // with the request.
            Some("22021" | "22P05") => ApiError::invalid(vec![FieldError::new("", "contains the character U+0000")]),
            // Losing a lock, a deadlock or a race is no fault of the request: it may come again.
            Some("40001" | "40P01" | "55P03") => ApiError::unavailable(error),
            Some(code) if is_outage(code) => ApiError::unavailable(error),
            None if is_unreachable(&error) => ApiError::unavailable(error),
            // Anything else is a fault in our statements.
            Some(_) | None => ApiError::internal(error),
        }
    }
}

fn is_unreachable(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    )
}

/// SQLSTATE classes 08 (connection), 53 (resources) and 57 (operator), a cancelled statement apart.
fn is_outage(sqlstate: &str) -> bool {
    sqlstate.starts_with("08") || sqlstate.starts_with("53") || (sqlstate.starts_with("57") && sqlstate != "57014")
}

/// Turns a constraint's name into the refusal it stands for; any other error stays what it is.
pub trait OnConstraint<T> {
    /// `insert(…).await.on_constraint("users_email_key", |_| ApiError::conflict(…))?`
    ///
    /// # Errors
    /// The refusal when that constraint was violated, else the error as [`ApiError`] sees it.
    fn on_constraint(self, name: &str, refuse: impl FnOnce(&dyn DatabaseError) -> ApiError) -> Result<T, ApiError>;
}

impl<T> OnConstraint<T> for Result<T, sqlx::Error> {
    fn on_constraint(self, name: &str, refuse: impl FnOnce(&dyn DatabaseError) -> ApiError) -> Result<T, ApiError> {
        self.map_err(|error| match error.as_database_error() {
            Some(db) if db.constraint() == Some(name) => refuse(db),
            Some(_) | None => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_its_own() {
        let problem = ApiError::conflict("out-of-stock", "Out of stock").with("available", 3);
        assert_eq!(
            problem.body(),
            json!({
                "type": "urn:cart-engine:problem:out-of-stock", "title": "Out of stock", "status": 409,
                "detail": "Out of stock", "code": "out-of-stock", "available": 3
            })
        );
    }

    #[test]
    fn an_extension_member_cannot_overwrite_a_standard_one() {
        let problem = ApiError::conflict("cart-in-checkout", "…").with("status", "RUNNING");
        assert_eq!(problem.body()["status"], 409);
    }

    #[test]
    fn a_cause_is_never_shown() {
        let problem = ApiError::from(sqlx::Error::RowNotFound);
        assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!problem.body().to_string().to_lowercase().contains("row"));
    }

    #[test]
    fn a_lost_connection_says_when_to_come_again() {
        let response = ApiError::from(sqlx::Error::PoolTimedOut).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    }
}
