//! The router as a client meets it, without a database: what is refused before one is needed, and what
//! happens when there is none.

use std::{num::NonZeroU32, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use secrecy::SecretString;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tower::ServiceExt;
use workflows::{Rules, Shop};

use crate::{AllowedOrigins, ApiConfig, AppState, AuthKeys, RateLimits, router};

/// A state whose database refuses every connection.
fn state(config: ApiConfig) -> AppState {
    state_on(1, config)
}

/// A state whose database should be behind this port of the machine.
fn state_on(port: u16, config: ApiConfig) -> AppState {
    let there = PgConnectOptions::new().host("127.0.0.1").port(port);
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(50)).connect_lazy_with(there);
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

async fn ask(state: &AppState, mut request: Request<Body>) -> Answer {
    request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("shop.example"));
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
async fn whoever_reads_the_metrics_costs_no_connection() {
    let database = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    database.set_nonblocking(true).expect("nobody waits for it");
    let port = database.local_addr().expect("an address").port();
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let state = state_on(port, ApiConfig::default()).with_metrics(metrics);
    assert_eq!(ask(&state, request(Method::GET, "/metrics")).await.status, StatusCode::OK);
    let came = database.accept().map_err(|error| error.kind());
    assert_eq!(came.err(), Some(std::io::ErrorKind::WouldBlock), "the database was asked");
    assert_eq!(ask(&state, request(Method::GET, "/api/products")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(database.accept().is_ok(), "whoever wants something of it asks it");
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
    let limits = RateLimits { requests_per_minute: once, logins_per_minute: once, free_login_failures: 5 };
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

fn from_page(method: Method, path: &str, origin: &'static str) -> Request<Body> {
    let mut request = request(method, path);
    request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(origin));
    request
}

#[tokio::test]
async fn a_page_may_ask_only_from_an_origin_that_is_configured() {
    let allowed_origins = AllowedOrigins::new(["https://shop.example".to_owned()]).expect("an origin");
    let state = state(ApiConfig { allowed_origins, ..ApiConfig::default() });
    let mut preflight = from_page(Method::OPTIONS, "/api/checkout", "https://shop.example");
    preflight.headers_mut().insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
    let answer = ask(&state, preflight).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
    assert!(!answer.headers.contains_key("ratelimit-limit"), "a preflight costs nothing");
    let allowed = answer.headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().expect("names").to_owned();
    for name in ["authorization", "content-type", "idempotency-key", "if-match", "x-cart-session"] {
        assert!(allowed.contains(name), "{name}: {allowed}");
    }

    let refusal = ask(&state, from_page(Method::GET, "/api/me", "https://shop.example")).await;
    assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refusal.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example", "it may read why");
    let exposed = refusal.headers[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().expect("names").to_owned();
    for name in ["etag", "ratelimit-remaining", "location", "x-request-id", "idempotent-replayed"] {
        assert!(exposed.contains(name), "{name}: {exposed}");
    }

    for (state, origin) in
        [(&state, "https://evil.example"), (&self::state(ApiConfig::default()), "http://localhost:1")]
    {
        let answer = ask(state, from_page(Method::GET, "/healthz", origin)).await;
        assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{origin}");
    }
}

#[tokio::test]
async fn options_says_what_a_route_offers_and_nothing_where_there_is_none() {
    let state = state(ApiConfig::default());
    let offered = ask(&state, request(Method::OPTIONS, "/api/checkout")).await;
    assert_eq!(
        (offered.status, &offered.headers[header::ALLOW]),
        (StatusCode::NO_CONTENT, &"POST".parse().expect("a value"))
    );
    let nothing = ask(&state, request(Method::OPTIONS, "/api/nothing")).await;
    assert_eq!((nothing.status.as_u16(), nothing.code()), (404, "not-found"));
}

#[tokio::test]
async fn whatever_a_library_refuses_is_a_problem_too() {
    let state = state(ApiConfig::default());
    let long = format!("/api/products?{}", "x".repeat(9 * 1024));
    let mut heavy = request(Method::GET, "/api/products");
    for number in 0..5 {
        let name = HeaderName::from_bytes(format!("x-{number}").as_bytes()).expect("a name");
        heavy.headers_mut().insert(name, HeaderValue::from_str(&"x".repeat(8 * 1024)).expect("a value"));
    }
    for (request, status, code) in [
        (request(Method::GET, &long), 414, "uri-too-long"),
        (heavy, 431, "headers-too-large"),
        (request(Method::GET, "/docs/no-such-file.js"), 404, "not-found"),
        (request(Method::PUT, "/healthz"), 405, "method-not-allowed"),
        (request(Method::TRACE, "/api/cart"), 405, "method-not-allowed"),
        (request(Method::GET, "/api/products/%ff"), 404, "not-found"),
    ] {
        let target = request.uri().path().to_owned();
        let answer = ask(&state, request).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{target}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json", "{target}");
        assert_eq!(answer.headers.contains_key(header::ALLOW), status == 405, "{target}");
        assert!(answer.headers.contains_key("x-request-id"), "{target}");
    }
}

#[tokio::test]
async fn a_body_without_a_declared_length_is_limited_as_well() {
    let state = state(ApiConfig::default());
    let chunk = || Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]);
    for (chunks, status, code) in [(4, 400, "malformed-json"), (5, 413, "body-too-large")] {
        let body = Body::from_stream(futures::stream::iter((0..chunks).map(move |_| chunk())));
        let answer = ask(&state, post("/api/auth/login", body)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{chunks} chunks");
        // What was not read would be taken for the next request of the connection.
        assert_eq!(answer.headers.contains_key(header::CONNECTION), status == 413, "{chunks} chunks");
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_its_get_and_no_body() {
    let state = state(ApiConfig::default());
    let answer = ask(&state, request(Method::HEAD, "/healthz")).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, Value::Null));
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn a_panic_is_one_answer_and_tells_nothing() {
    let boom = async || -> StatusCode { panic!("the secret of the house") };
    let routes = axum::Router::new()
        .route("/", axum::routing::get(boom))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(crate::observe::panicked));
    let response = routes.oneshot(request(Method::GET, "/")).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let body = axum::body::to_bytes(response.into_body(), 4096).await.expect("a body");
    assert!(!String::from_utf8_lossy(&body).contains("secret"));
}

#[tokio::test]
async fn the_documentation_needs_no_network() {
    let state = state(ApiConfig::default());
    let pages = ["/docs/", "/docs/swagger-initializer.js"];
    for path in pages {
        let page = Request::get(path).header(header::HOST, "shop.example").body(Body::empty()).expect("a request");
        let response = router(state.clone()).oneshot(page).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("http"), "{policy}");
        let body = axum::body::to_bytes(response.into_body(), 4 << 20).await.expect("a body");
        let text = String::from_utf8_lossy(&body);
        for source in ["src=\"http", "src=\"//", "href=\"http", "href=\"//", "url(http", "import"] {
            assert!(!text.contains(source), "{path} loads {source}");
        }
        for part in text.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let path = format!("/docs/{}", part.trim_start_matches("./"));
            assert_eq!(
                ask(&state, request(Method::GET, &path)).await.status,
                StatusCode::OK,
                "{path} is in the binary"
            );
        }
    }
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
            if !status.starts_with(['4', '5']) {
                continue;
            }
            let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{}: {status}", operation["operationId"]);
        }
    }
}

#[tokio::test]
async fn a_thousand_made_up_requests_make_no_new_labels() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // One thread carries this test, so its recorder hears all of it.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let state = state(ApiConfig { rate_limits: None, ..ApiConfig::default() });
    let labels = || handle.render().lines().filter(|line| line.contains("http_requests_total{")).count();
    let odd = |n: usize| {
        let method = Method::from_bytes(format!("M{}", n % 500).as_bytes()).expect("a method");
        let mut request =
            request(if n.is_multiple_of(2) { method } else { Method::GET }, &format!("/made-up/{n}?q={n}"));
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(&format!("host-{n}")).expect("a host"));
        request
    };
    for n in 0..4 {
        ask(&state, odd(n)).await;
        ask(&state, request(Method::from_bytes(b"MADE-UP").expect("a method"), &format!("/api/orders/{n}"))).await;
    }
    let before = labels();
    assert!(before > 0, "{}", handle.render());
    for n in 0..1_000 {
        ask(&state, odd(n)).await;
    }
    for n in 0..20 {
        ask(&state, request(Method::from_bytes(b"MADE-UP").expect("a method"), &format!("/api/orders/{n}"))).await;
    }
    assert_eq!(labels(), before, "{}", handle.render());
}
