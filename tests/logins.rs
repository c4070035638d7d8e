//! Logging in and staying logged in: guessing gets slower, and a stolen token ends the login it came from.

use api::{ApiConfig, AuthKeys, RateLimits};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    server::{Answer, Door, Front},
    world::database,
};

const PASSWORD: &str = "correct horse";

/// As strict with guesses as elsewhere, but all from one address.
fn config() -> ApiConfig {
    let limits = RateLimits { logins_per_minute: RateLimits::WIDE.logins_per_minute, ..RateLimits::default() };
    ApiConfig { rate_limits: Some(limits), ..ApiConfig::default() }
}

async fn open() -> (PgPool, Front) {
    let pool = database().await;
    let front = Front::open(&pool, config(), None).await;
    (pool, front)
}

async fn register(door: &Door, email: &str) {
    let answer = door.post("/api/auth/register", &json!({ "email": email, "password": PASSWORD })).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

async fn log_in(door: &Door, email: &str, password: &str) -> Answer {
    door.post("/api/auth/login", &json!({ "email": email, "password": password })).await
}

async fn refresh(door: &Door, token: &str) -> Answer {
    door.post("/api/auth/refresh", &json!({ "refreshToken": token })).await
}

fn text(session: &Value, name: &str) -> String {
    session[name].as_str().expect("text").to_owned()
}

/// What the only account's row says, or none.
async fn failures(pool: &PgPool) -> Option<i32> {
    sqlx::query_scalar("select failures from login_failures").fetch_optional(pool).await.expect("an answer")
}

/// As if the last failure had been so long ago, and there had been so many.
async fn pretend(pool: &PgPool, failures: i32, seconds_ago: i32) {
    sqlx::query("update login_failures set failures = $1, last_failed_at = now() - make_interval(secs => $2)")
        .bind(failures)
        .bind(f64::from(seconds_ago))
        .execute(pool)
        .await
        .expect("pretended");
}

/// As if no tab were still on its way.
async fn pretend_used_long_ago(pool: &PgPool) {
    sqlx::query("update refresh_tokens set used_at = used_at - interval '11 seconds'")
        .execute(pool)
        .await
        .expect("pretended");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_close_an_account_for_minutes_and_not_for_good() {
    let (pool, front) = open().await;
    register(&front.door, "asha@example.com").await;
    for wrong in 1..=4 {
        log_in(&front.door, "asha@example.com", "battery staple").await.refused(401, "invalid-credentials");
        assert_eq!(failures(&pool).await, Some(wrong));
    }
    log_in(&front.door, " ASHA@example.com", PASSWORD).await.ok();
    assert_eq!(failures(&pool).await, None, "who knows the password starts afresh");

    log_in(&front.door, "asha@example.com", "battery staple").await.refused(401, "invalid-credentials");
    pretend(&pool, 12, 0).await;
    let another = Front::open(&pool, config(), None).await;
    for door in [&front.door, &another.door] {
        for password in [PASSWORD, "battery staple"] {
            let answer = log_in(door, "asha@example.com", password).await;
            let wait: u64 = answer.header("retry-after").expect("when to come again").parse().expect("seconds");
            assert!((120..=128).contains(&wait), "{wait}");
            answer.refused(429, "too-many-attempts");
        }
    }
    assert_eq!(failures(&pool).await, Some(12), "a guess that was not heard does not count");

    pretend(&pool, 1000, 299).await;
    log_in(&front.door, "asha@example.com", PASSWORD).await.refused(429, "too-many-attempts");
    pretend(&pool, 1000, 301).await;
    log_in(&front.door, "asha@example.com", PASSWORD).await.ok();
    front.close().await;
    another.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_one_of_many_guesses_under_way_at_once_counts() {
    let (pool, front) = open().await;
    register(&front.door, "asha@example.com").await;
    let guesses = (0..20).map(|_| log_in(&front.door, "asha@example.com", "battery staple"));
    let answers = futures::future::join_all(guesses).await;
    let heard = answers.iter().filter(|answer| answer.status == 401).count();
    assert!(answers.iter().all(|answer| [401, 429].contains(&answer.status)));
    assert!(heard >= 5, "the first five have no consequence: {heard}");
    assert_eq!(failures(&pool).await, Some(i32::try_from(heard).expect("few")));
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_exist_is_closed_in_the_same_way() {
    let (pool, front) = open().await;
    let refused = log_in(&front.door, "nobody@example.com", "guess").await;
    let known = {
        register(&front.door, "asha@example.com").await;
        log_in(&front.door, "asha@example.com", "guess").await
    };
    assert_eq!((refused.status, &refused.body), (known.status, &known.body));
    pretend(&pool, 12, 0).await;
    let [nobody, asha] = [
        log_in(&front.door, "nobody@example.com", "guess").await.refused(429, "too-many-attempts"),
        log_in(&front.door, "asha@example.com", "guess").await.refused(429, "too-many-attempts"),
    ];
    assert_eq!(nobody, asha);
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_ever_new_accounts_leave_few_rows() {
    let (pool, front) = open().await;
    sqlx::query(
        "insert into login_failures (account_hash, failures, last_failed_at)
         select sha256(n::text::bytea), 3, now() - interval '61 minutes' from generate_series(1, 20) n",
    )
    .execute(&pool)
    .await
    .expect("old rows");
    for guess in 0..3 {
        log_in(&front.door, &format!("{guess}@example.com"), "guess").await.refused(401, "invalid-credentials");
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from login_failures").fetch_one(&pool).await.expect("a count");
    assert_eq!(rows, 3, "the old ones are gone");
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_login() {
    let (pool, front) = open().await;
    register(&front.door, "asha@example.com").await;
    let first = log_in(&front.door, "asha@example.com", PASSWORD).await.ok();
    let other_device = log_in(&front.door, "asha@example.com", PASSWORD).await.ok();
    let second = refresh(&front.door, &text(&first, "refreshToken")).await.ok();
    assert_ne!(first["refreshToken"], second["refreshToken"]);

    pretend_used_long_ago(&pool).await;
    refresh(&front.door, &text(&first, "refreshToken")).await.refused(401, "invalid-refresh-token");
    refresh(&front.door, &text(&second, "refreshToken")).await.refused(401, "invalid-refresh-token");
    refresh(&front.door, &text(&other_device, "refreshToken")).await.ok();
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_that_refresh_at_once_stay_logged_in_with_one_next_token() {
    let (pool, front) = open().await;
    register(&front.door, "asha@example.com").await;
    let token = text(&log_in(&front.door, "asha@example.com", PASSWORD).await.ok(), "refreshToken");
    let tabs = futures::future::join_all((0..4).map(|_| refresh(&front.door, &token))).await;
    let next: Vec<String> = tabs.into_iter().map(|tab| text(&tab.ok(), "refreshToken")).collect();
    assert!(next.iter().all(|other| *other == next[0] && *other != token), "{next:?}");
    let rows: i64 = sqlx::query_scalar("select count(*) from refresh_tokens").fetch_one(&pool).await.expect("a count");
    assert_eq!(rows, 2);

    let last = text(&refresh(&front.door, &next[0]).await.ok(), "refreshToken");
    refresh(&front.door, &token).await.refused(401, "invalid-refresh-token");
    refresh(&front.door, &last).await.refused(401, "invalid-refresh-token");
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_share_the_next_token_while_the_secret_is_being_replaced() {
    let pool = database().await;
    let (old, new) = ("0123456789abcdef0123456789abcdef".into(), "fedcba9876543210fedcba9876543210".into());
    let before = Front::open_with(&pool, AuthKeys::new(&old).expect("a secret"), config(), None).await;
    let keys = AuthKeys::new(&new).and_then(|keys| keys.with_previous(&old)).expect("secrets");
    let after = Front::open_with(&pool, keys, config(), None).await;
    register(&before.door, "asha@example.com").await;
    let token = text(&log_in(&before.door, "asha@example.com", PASSWORD).await.ok(), "refreshToken");
    let here = text(&refresh(&before.door, &token).await.ok(), "refreshToken");
    let there = text(&refresh(&after.door, &token).await.ok(), "refreshToken");
    assert_eq!(here, there);
    refresh(&after.door, &there).await.ok();
    before.close().await;
    after.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_one_login_or_all_of_them() {
    let (_, front) = open().await;
    register(&front.door, "asha@example.com").await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(log_in(&front.door, "asha@example.com", PASSWORD).await.ok());
    }
    let logout = "/api/auth/logout";
    for _ in 0..2 {
        let one = front.door.post(logout, &json!({ "refreshToken": sessions[0]["refreshToken"] })).await;
        assert_eq!(one.status, 204, "repeating it is harmless");
    }
    refresh(&front.door, &text(&sessions[0], "refreshToken")).await.refused(401, "invalid-refresh-token");
    let still = refresh(&front.door, &text(&sessions[1], "refreshToken")).await.ok();

    Answer::to(front.door.request(Method::POST, logout)).await.refused(401, "login-required");
    let all = front.door.request(Method::POST, logout).bearer_auth(text(&still, "accessToken"));
    assert_eq!(Answer::to(all).await.status, 204);
    for session in [&still, &sessions[2]] {
        refresh(&front.door, &text(session, "refreshToken")).await.refused(401, "invalid-refresh-token");
    }
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deactivated_user_and_an_old_refresh_token_are_refused() {
    let (pool, front) = open().await;
    register(&front.door, "asha@example.com").await;
    let old = log_in(&front.door, "asha@example.com", PASSWORD).await.ok();
    sqlx::query("update refresh_tokens set expires_at = now()").execute(&pool).await.expect("expired");
    refresh(&front.door, &text(&old, "refreshToken")).await.refused(401, "invalid-refresh-token");

    let session = log_in(&front.door, "asha@example.com", PASSWORD).await.ok();
    sqlx::query("update users set is_active = false").execute(&pool).await.expect("deactivated");
    log_in(&front.door, "asha@example.com", PASSWORD).await.refused(401, "invalid-credentials");
    refresh(&front.door, &text(&session, "refreshToken")).await.refused(401, "invalid-refresh-token");
    let me = front.door.request(Method::GET, "/api/me").bearer_auth(text(&session, "accessToken"));
    Answer::to(me).await.refused(401, "login-required");
    front.close().await;
}
