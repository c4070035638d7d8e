//! Schedules and preferences over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    patience::{eventually, until},
    server::{Answer, Server},
};

const ALL: [&str; 7] = [
    "abandoned_carts",
    "cart_expiry",
    "low_stock_alerts",
    "payment_reconciliation",
    "reservation_expiry",
    "retention",
    "stuck_run_rescue",
];

/// Once a scheduler has looked for the first time.
async fn listed(server: &Server) -> Vec<Value> {
    let staff = server.staff().await;
    until("a scheduler makes its schedules known", async || {
        let items = staff.get("/api/schedules").await.ok()["items"].as_array().expect("items").clone();
        if items.len() == ALL.len() { Ok(items) } else { Err(format!("{items:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_see_every_schedule_and_nobody_else_does() {
    let server = Server::open().await;
    let items = listed(&server).await;
    let names: Vec<&str> = items.iter().map(|item| item["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ALL);
    for item in &items {
        assert_eq!(item["starts"], format!("{}/v1", item["name"].as_str().expect("a name")));
        assert!(item["cron"].is_string() && item["lastTick"].is_string() && item["nextTick"].is_string(), "{item}");
        assert!(item["nextTick"].as_str() > item["lastTick"].as_str(), "{item}");
        assert_eq!(item["pausedAt"], Value::Null);
    }
    let staff = server.staff().await;
    let page = staff.get("/api/schedules?limit=5").await.ok();
    let cursor = page["nextCursor"].as_str().expect("a second page");
    let rest = staff.get(&format!("/api/schedules?limit=5&cursor={cursor}")).await.ok();
    assert_eq!((page["items"][4]["name"].as_str(), rest["items"][0]["name"].as_str()), (Some(ALL[4]), Some(ALL[5])));

    server.shopper("asha").await.get("/api/schedules").await.refused(403, "forbidden");
    server.door.get("/api/schedules").await.refused(401, "login-required");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_steer_schedules_and_each_action_is_written_down() {
    let server = Server::open().await;
    listed(&server).await;
    let (staff, admin) = (server.staff().await, server.admin().await);
    let because = json!({ "reason": "the gateway is being moved" });
    for action in ["run", "pause", "resume"] {
        let path = format!("/api/schedules/retention/{action}");
        staff.post(&path, &because).await.refused(403, "forbidden");
        server.shopper(&format!("asha-{action}")).await.post(&path, &because).await.refused(403, "forbidden");
        server.door.post(&path, &because).await.refused(401, "login-required");
        let nothing = format!("/api/schedules/nothing/{action}");
        admin.post(&nothing, &because).await.refused(404, "schedule-not-found");
        admin.post(&path, &json!({ "why": "?" })).await.refused(422, "validation-failed");
        admin.post(&path, &json!({ "reason": "x".repeat(501) })).await.refused(422, "validation-failed");
    }
    assert_eq!(admin.post("/api/schedules/retention/stop", &because).await.status, 404);

    let paused = admin.post("/api/schedules/retention/pause", &because).await.ok();
    assert!(paused["pausedAt"].is_string() && paused["nextTick"].is_null(), "{paused}");
    assert_eq!(admin.post("/api/schedules/retention/pause", &because).await.ok()["pausedAt"], paused["pausedAt"]);
    let asked = Answer::to(admin.request(Method::POST, "/api/schedules/retention/run")).await;
    assert_eq!(asked.status, 202, "without a body, and although it is paused");
    eventually("it is started", async || {
        let started: i64 = sqlx::query_scalar(
            "select count(*) from engine.run_keys where workflow = 'retention' and run_key like 'manual/%'",
        )
        .fetch_one(&server.pool)
        .await
        .expect("a count");
        assert!(started < 2, "{started} times");
        started == 1
    })
    .await;
    let resumed = admin.post("/api/schedules/retention/resume", &json!({})).await.ok();
    assert!(resumed["pausedAt"].is_null() && resumed["nextTick"].is_string(), "{resumed}");
    assert!(resumed["runRequestedAt"].is_null(), "taken up: {resumed}");

    let lines: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "select a.action, u.email, a.reason from audit_log a join users u on a.actor = 'user:' || u.id
          where a.subject = 'schedule:retention' order by a.id",
    )
    .fetch_all(&server.pool)
    .await
    .expect("the audit log");
    let line = |action: &str, reason: Option<&str>| {
        (action.to_owned(), "admin@example.com".to_owned(), reason.map(str::to_owned))
    };
    let reason = because["reason"].as_str();
    assert_eq!(
        lines,
        [
            line("schedule.pause", reason),
            line("schedule.pause", reason),
            line("schedule.run", None),
            line("schedule.resume", None)
        ]
    );
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_chooses_how_to_be_reminded() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    let path = "/api/me/preferences";
    let wants =
        |email: bool, sms: bool, push: bool| json!({ "reminders": { "EMAIL": email, "SMS": sms, "PUSH": push } });
    assert_eq!(asha.get(path).await.ok(), wants(true, true, true), "everything, until it is not");
    let choose = async |body: &Value| Answer::to(asha.request(Method::PUT, path).json(body)).await;
    for chosen in [wants(false, true, false), wants(false, false, true), wants(true, true, true)] {
        assert_eq!(choose(&chosen).await.ok(), chosen);
        assert_eq!(asha.get(path).await.ok(), chosen);
    }
    choose(&json!({ "reminders": { "EMAIL": false } })).await.refused(422, "validation-failed");
    choose(&json!({ "reminders": { "EMAIL": false, "SMS": true, "PUSH": true, "FAX": true } }))
        .await
        .refused(422, "validation-failed");
    assert_eq!(asha.get(path).await.ok(), wants(true, true, true), "what is refused changes nothing");
    server.door.get(path).await.refused(401, "login-required");
    server.stop().await;
}
