//! What keeps a command from its work is said in one line, and in one more what to do about it.

use std::process::Output;

use super::{
    child::{Child, binary},
    deployment::{Deployment, free_address},
    stage::stage,
};
use crate::patience::{in_time, until};

/// A password that must never be shown.
const PASSWORD: &str = "hunter2";

/// Runs a command that ends by itself.
async fn ran(arguments: &str, environment: &[(&str, &str)]) -> Output {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let mut command = binary(&words, environment);
    let what = format!("`{arguments}` ends");
    in_time(&what, command.kill_on_drop(true).output()).await.expect("it starts")
}

/// Runs a command that must refuse to work.
async fn refused(arguments: &str, environment: &[(&str, &str)], says: &str) {
    let Output { status, stdout, stderr } = ran(arguments, environment).await;
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let all = format!("`{arguments}`: {status}\n{out}{err}");
    assert_eq!(status.code(), Some(2), "{all}");
    let lines: Vec<&str> = err.lines().collect();
    let complaints: Vec<&&str> = lines.iter().filter(|line| line.starts_with("cart-engine: ")).collect();
    assert!(complaints.len() == 1 && complaints[0].contains(says), "not one line about {says:?}: {all}");
    assert!(
        lines.len() <= 2 && lines.iter().skip(1).all(|line| line.starts_with("hint: ")),
        "more than a hint beside it: {all}"
    );
    assert!(!all.contains(PASSWORD) && !all.contains("panicked"), "{all}");
}

#[tokio::test]
async fn a_machine_without_postgres_is_told_how_to_get_one() {
    let nothing = [("CART_ENGINE_PG_DISCOVERY", "off"), ("PATH", "/nonexistent")];
    refused("dev --ephemeral --offline --listen 127.0.0.1:0", &nothing, "no usable PostgreSQL").await;
    refused("dev --ephemeral --pg-bin /nonexistent --listen 127.0.0.1:0", &[], "/nonexistent").await;
}

#[tokio::test]
async fn a_variable_that_says_nothing_is_no_other_database() {
    for command in ["audit", "dev", "worker", "config"] {
        for nothing in ["", "  "] {
            refused(command, &[("DATABASE_URL", nothing)], "DATABASE_URL is empty").await;
        }
    }
    refused("api", &[("JWT_SECRET", "hunter2")], "auth.jwt_secret = *** (JWT_SECRET): must be 32 to 1024 bytes").await;
    for command in ["config", "dev", "api", "worker"] {
        for nothing in [",", "whsec_1,,whsec_2", "whsec_1,"] {
            let secret = [("STRIPE_WEBHOOK_SECRET", nothing)];
            refused(command, &secret, "stripe.webhook_secret = *** (STRIPE_WEBHOOK_SECRET): must be whsec_").await;
        }
    }
    let endless = [("CART_ENGINE__SHOP__HOLD_S", "99999999999999")];
    refused("worker", &endless, "shop.hold_s = 99999999999999 (CART_ENGINE__SHOP__HOLD_S)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_shows_what_the_database_knows() {
    let stage = stage().await;
    let shop = Deployment::open(&stage).await;
    until("its gauges", async || {
        let page = shop.client.get(format!("{}/metrics", shop.api_url)).send().await.expect("an answer");
        let page = page.text().await.expect("a page");
        let is_shown = |gauge: &str| page.lines().any(|line| line.starts_with(gauge));
        let gauges = [
            "cart_engine_backlog{queue=\"checkout\"}",
            "cart_engine_reconciliation_lag_seconds{gateway=\"sandbox\"",
            "cart_engine_refunds_refused ",
        ];
        if gauges.into_iter().all(is_shown) { Ok(()) } else { Err(page) }
    })
    .await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let stage = stage().await;
    let (_pool, url) = stage.database().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let database = [("DATABASE_URL", &*url)];
    refused(&format!("dev --ephemeral --listen {address}"), &[], &address).await;
    for command in ["api --listen", "sandbox --listen", "worker --metrics-listen"] {
        refused(&format!("{command} {address}"), &database, &address).await;
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let address = free_address();
    for role in
        ["api --listen 127.0.0.1:0", "worker", "scheduler", "sandbox --listen 127.0.0.1:0", "migrate", "audit", "dev"]
    {
        let url = format!("postgres://shop:{PASSWORD}@{address}/shop");
        refused(role, &[("DATABASE_URL", &url)], "cannot connect to the database").await;
    }
    refused("worker", &[("DATABASE_URL", &format!("mysql://shop:{PASSWORD}@{address}/shop"))], "DATABASE_URL").await;
    refused("worker", &[], "DATABASE_URL is not set").await;
    let url = format!("postgres://shop:{PASSWORD}@{address}/shop");
    refused("dev --ephemeral", &[("DATABASE_URL", &url)], "--ephemeral").await;
}

#[tokio::test]
async fn a_database_of_another_version_is_left_alone() {
    let stage = stage().await;
    let (pool, url) = stage.empty_database().await;
    let database = [("DATABASE_URL", &*url), ("JWT_SECRET", super::deployment::JWT_SECRET)];
    let services = ["api --listen 127.0.0.1:0", "worker", "scheduler"];
    for service in services {
        refused(service, &database, "migrate").await;
    }
    migrations::run(&pool).await.expect("migrated");
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, '\\x00', 0)",
    )
    .execute(&pool)
    .await
    .expect("a newer schema");
    // Programs of the release before may start on it, and start again, until it leaves no room for them.
    let worker = Child::start(&["worker"], &database);
    worker.says("a worker is ready").await;
    worker.signal("TERM");
    let output = ran("migrate", &database).await;
    assert!(output.status.success(), "nothing is left to do: {output:?}");
    sqlx::query("update engine.compatibility set oldest_version = 9999").execute(&pool).await.expect("contracted");
    for command in services.into_iter().chain(["migrate", "dev --listen 127.0.0.1:0"]) {
        refused(command, &database, "newer").await;
    }
}

#[tokio::test]
async fn check_deploy_lists_the_live_runs_this_release_would_not_carry_on() {
    let stage = stage().await;
    let (pool, url) = stage.database().await;
    let database = [("DATABASE_URL", &*url)];
    // Its scheduler may have started runs that nobody has carried yet.
    sqlx::raw_sql("delete from engine.runs; delete from engine.journal").execute(&pool).await.expect("no live runs");
    let none = ran("check-deploy", &database).await;
    assert_eq!(none.status.code(), Some(0), "{none:?}");
    sqlx::raw_sql(
        "insert into engine.runs (id, workflow, version, run_key, queue, status, input, epoch, wake_at, created_at, updated_at) values
            ('00000000-0000-7000-8000-000000000001', 'cart_expiry', 1, 'a', 'maintenance', 'PENDING', 'null', 0, now(), now(), now()),
            ('00000000-0000-7000-8000-000000000002', 'cart_expiry', 1, 'b', 'maintenance', 'PENDING', 'null', 1, now(), now(), now()),
            ('00000000-0000-7000-8000-000000000003', 'checkout', 9, 'c', 'checkout', 'PENDING', '{}', 0, now(), now(), now());
         insert into engine.journal (run_id, seq, kind, name, output, epoch, recorded_at) values
            ('00000000-0000-7000-8000-000000000002', 0, 'TX', 'ExpireCartsAsItWas', '1', 1, now())",
    )
    .execute(&pool)
    .await
    .expect("live runs");
    let some = ran("check-deploy", &database).await;
    assert_eq!(some.status.code(), Some(1), "{some:?}");
    let table = String::from_utf8_lossy(&some.stdout);
    for line in [
        "cart_expiry/v1                           2               1",
        "checkout/v9                              1               1",
        "cart_expiry/v1  journal-diverged: the journal has TX ExpireCartsAsItWas where this program does ExpireCarts",
        "checkout/v9  workflow-unknown: this program does not know checkout/v9",
        "this release would not carry on 2 of 3 live runs",
    ] {
        assert!(table.contains(line), "{line:?} is not in\n{table}");
    }
    let json = ran("check-deploy --json --limit 1", &database).await;
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one JSON object");
    assert_eq!((told["refused"].as_i64(), told["items"].as_array().map(Vec::len)), (Some(2), Some(1)));
}

#[tokio::test]
async fn an_api_outside_development_needs_a_secret() {
    let stage = stage().await;
    let (pool, url) = stage.empty_database().await;
    migrations::run(&pool).await.expect("migrated");
    refused("api --listen 127.0.0.1:0", &[("DATABASE_URL", &url)], "JWT_SECRET").await;
    refused("sandbox --listen 127.0.0.1:0", &[("DATABASE_URL", &url)], "SANDBOX_WEBHOOK_SECRET").await;
}

#[tokio::test]
async fn an_operators_verbs_say_why_they_cannot_and_leave_their_reason_when_they_can() {
    let stage = stage().await;
    let (pool, url) = stage.database().await;
    let database = [("DATABASE_URL", &*url)];
    let nobody = uuid::Uuid::now_v7();
    for verb in ["retry", "resume", "cancel", "signal --name payment --payload null"] {
        refused(&format!("run {verb} {nobody} --by asha --reason mended"), &database, "there is no run").await;
    }
    refused(&format!("run resume {nobody} --by asha"), &database, "--reason").await;

    let run_id = uuid::Uuid::now_v7();
    sqlx::query(
        "insert into engine.runs (id, workflow, version, run_key, queue, status, input, wake_at, failure, created_at, updated_at)
         values ($1, 'refund', 1, 'a test', 'refund', 'STUCK', '{}', 'infinity', '{\"code\":\"x\",\"detail\":\"y\"}', now(), now())",
    )
    .bind(run_id)
    .execute(&pool)
    .await
    .expect("a parked run");
    let words = ["run", "resume", &run_id.to_string(), "--by", "asha", "--reason", "the key was renewed"];
    let output = binary(&words, &database).kill_on_drop(true).output().await.expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let line: (String, String, String) =
        sqlx::query_as("select actor, action, reason from audit_log where subject = 'run:' || $1::text")
            .bind(run_id)
            .fetch_one(&pool)
            .await
            .expect("one line");
    assert_eq!(line, ("operator:asha".to_owned(), "run.resume".to_owned(), "the key was renewed".to_owned()));
    refused(&format!("run resume {run_id} --by asha --reason again"), &database, "is not parked").await;
}
