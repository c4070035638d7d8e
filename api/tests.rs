//! The router as a client meets it, without a database: what is refused before one is needed, and what
//! happens when there is none.

use std::{num::NonZeroU32, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header},
};
use secrecy::SecretString;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tower::ServiceExt;
use workflows::{Rules, Shop};

use crate::{ApiConfig, AppState, AuthKeys, RateLimits, router};

/// A state whose database refuses every connection.
fn state(config: ApiConfig) -> AppState {
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(1);
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(50)).connect_lazy_with(nowhere);
    let keys = AuthKeys::new(&SecretString::from("0123456789abcdef0123456789abcdef")).expect("a secret");
    AppState::new(pool, Shop::new(Rules::default(), Vec::new(), None), keys, config)
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

async fn ask(state: &AppState, request: Request<Body>) -> Answer {
    let response = router(state.clone()).oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 4 << 20).await.expect("a body");
    Answer { status: parts.status, headers: parts.headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
}

fn request(method: Method, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).expect("a request")
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    request.body(body.into()).expect("a request")
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_a_stable_code() {
    let state = state(ApiConfig::default());
    for (request, status, code) in [
        (request(Method::GET, "/nowhere"), 404, "not-found"),
        (request(Method::DELETE, "/api/products"), 405, "method-not-allowed"),
        (request(Method::GET, "/api/me"), 401, "login-required"),
        (request(Method::GET, "/api/inventory/LAP-001"), 401, "login-required"),
        (request(Method::GET, "/api/products?limit=201"), 422, "validation-failed"),
        (request(Method::POST, "/api/webhooks/nobody"), 404, "gateway-not-found"),
        (post("/api/auth/login", "{"), 400, "malformed-json"),
        (post("/api/auth/login", "{}"), 422, "validation-failed"),
        (request(Method::POST, "/api/auth/login"), 415, "unsupported-media-type"),
        (post("/api/auth/login", vec![b' '; 256 * 1024 + 1]), 413, "body-too-large"),
    ] {
        let target = format!("{} {}", request.method(), request.uri());
        let answer = ask(&state, request).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{target}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json", "{target}");
        assert_eq!(answer.body["status"], status, "{target}");
    }
}

#[tokio::test]
async fn a_lost_database_is_unavailable_and_not_an_internal_error() {
    let state = state(ApiConfig::default());
    for path in ["/api/products", "/readyz"] {
        let answer = ask(&state, request(Method::GET, path)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "unavailable"), "{path}");
        assert_eq!(answer.headers[header::RETRY_AFTER], "1", "{path}");
    }
    assert_eq!(ask(&state, request(Method::GET, "/healthz")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_too_much_is_refused_at_the_door_but_health_answers() {
    let state = state(ApiConfig { max_concurrency: 0, ..ApiConfig::default() });
    let answer = ask(&state, request(Method::GET, "/api/products")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "overloaded"));
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(ask(&state, request(Method::GET, "/healthz")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let once = const { NonZeroU32::new(1).unwrap() };
    let limits = RateLimits { requests_per_minute: once, logins_per_minute: once };
    let state = state(ApiConfig { rate_limits: Some(limits), ..ApiConfig::default() });
    let first = ask(&state, request(Method::GET, "/api/me")).await;
    assert_eq!((first.status.as_u16(), &first.headers["ratelimit-remaining"]), (401, &HeaderValue::from(0)));
    let second = ask(&state, request(Method::GET, "/api/me")).await;
    assert_eq!((second.status.as_u16(), second.code()), (429, "rate-limited"));
    assert!(second.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(second.headers["ratelimit-limit"], "1");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let state = state(ApiConfig { request_timeout: Duration::ZERO, ..ApiConfig::default() });
    let answer = ask(&state, request(Method::GET, "/api/products")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "timeout"));
}

#[tokio::test]
async fn a_process_on_its_way_out_is_not_ready() {
    let state = state(ApiConfig::default());
    state.start_draining();
    assert_eq!(ask(&state, request(Method::GET, "/readyz")).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_request_id_is_taken_over_or_drawn() {
    let state = state(ApiConfig::default());
    let named = Request::get("/healthz").header("x-request-id", "mine-1").body(Body::empty()).expect("a request");
    assert_eq!(ask(&state, named).await.headers["x-request-id"], "mine-1");
    let drawn = ask(&state, request(Method::GET, "/healthz")).await;
    assert_eq!(drawn.headers["x-request-id"].len(), 36);
    assert_eq!(drawn.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
}

#[tokio::test]
async fn development_has_no_routes_elsewhere() {
    let state = state(ApiConfig::default());
    for path in ["/api/dev/mailbox", "/dev/mailbox", "/api/dev/gateway/payments"] {
        assert_eq!(ask(&state, request(Method::GET, path)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn every_documented_refusal_is_a_problem() {
    let document = ask(&state(ApiConfig::default()), request(Method::GET, "/api/openapi.json")).await.body;
    assert_eq!(document["openapi"], "3.1.0");
    let operations = document["paths"].as_object().into_iter().flat_map(|paths| paths.values());
    for operation in operations.filter_map(Value::as_object).flat_map(|operations| operations.values()) {
        for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            if status.starts_with('2') {
                continue;
            }
            let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{}: {status}", operation["operationId"]);
        }
    }
}
