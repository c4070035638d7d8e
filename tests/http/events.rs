//! The feed of events: complete, in order, and for those who may read it.

use chrono::Utc;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;
use workflows::store::messages;

use crate::{
    patience::PATIENCE,
    server::{Server, Shopper},
};

async fn tell(conn: &mut PgConnection, variant: Uuid) {
    messages::publish(conn, variant, &[("inventory.low_stock", json!({}))], Utc::now()).await.expect("told");
}

fn cursor(feed: &Value) -> Option<&str> {
    feed["nextCursor"].as_str()
}

fn subjects(feed: &Value) -> Vec<String> {
    let items = feed["items"].as_array().expect("items").iter();
    items.map(|event| event["subject"].as_str().expect("a subject").to_owned()).collect()
}

/// Everything from a place on, page by page, until so many events have come; other databases of the same
/// server may hold them up for a moment.
async fn read_on(reader: &Shopper, mut after: Option<String>, limit: usize, wanted: usize) -> (Vec<String>, String) {
    let (begun, mut seen) = (Instant::now(), Vec::new());
    while seen.len() < wanted {
        assert!(begun.elapsed() < PATIENCE, "only {seen:?}");
        let after_now = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
        let feed = reader.get(&format!("/api/events?wait=5&limit={limit}{after_now}")).await.ok();
        let page = subjects(&feed);
        assert!(page.len() <= limit, "{feed}");
        seen.extend(page);
        after = cursor(&feed).map(str::to_owned);
    }
    (seen, after.expect("a cursor"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_commits_late_is_not_skipped() {
    let server = Server::open_idle().await;
    let staff = server.staff().await;
    let [early, late, other]: [Uuid; 3] = std::array::from_fn(|_| Uuid::now_v7());

    let mut conn = server.pool.acquire().await.expect("a connection");
    tell(&mut conn, early).await;
    let (seen, after) = read_on(&staff, None, 50, 1).await;
    assert_eq!(seen, [early.to_string()]);

    // It has its number, and is not there yet; meanwhile others are.
    let mut slow = server.pool.begin().await.expect("a transaction");
    tell(&mut slow, late).await;
    tell(&mut conn, other).await;
    tell(&mut conn, other).await;
    let feed = staff.get(&format!("/api/events?after={after}")).await.ok();
    assert_eq!((subjects(&feed), cursor(&feed)), (Vec::new(), Some(&*after)), "nothing is told out of turn: {feed}");

    slow.commit().await.expect("committed");
    let (seen, after) = read_on(&staff, Some(after), 1, 3).await;
    assert_eq!(seen, [late, other, other].map(|id| id.to_string()), "all of it, in order");
    let feed = staff.get(&format!("/api/events?after={after}")).await.ok();
    assert_eq!((subjects(&feed), cursor(&feed)), (Vec::new(), Some(&*after)), "and once: {feed}");

    let (all, _) = read_on(&staff, None, 3, 4).await;
    assert_eq!(all, [early, late, other, other].map(|id| id.to_string()));
    drop(conn);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_followed_by_type_and_by_subject() {
    let server = Server::open().await;
    let (asha, reader) = (server.shopper("asha").await, server.service(&["events:read"]).await);
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_ok").await;
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");

    let id = &checkout.order_id;
    let feed = reader.get(&format!("/api/events?subject={id}&type=order.confirmed&wait=20")).await.ok();
    let event = &feed["items"][0];
    assert_eq!(feed["items"].as_array().map(Vec::len), Some(1), "{feed}");
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "order.confirmed");
    assert_eq!(event["subject"], id.as_str());
    assert_eq!(event["datacontenttype"], "application/json");
    assert_eq!(event["data"]["totalAmount"], "59050.00");
    assert_eq!(event["source"], server.shop.rules.public_url.as_str());
    assert!(event["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{event}");

    let feed = reader.get(&format!("/api/events?subject={id}")).await.ok();
    let types: Vec<&str> =
        feed["items"].as_array().expect("items").iter().filter_map(|event| event["type"].as_str()).collect();
    let told = |name: &str| types.iter().position(|told| *told == name);
    assert!(told("order.created") < told("order.confirmed"), "{types:?}");
    assert!(told("payment.captured").is_some() && told("inventory.committed").is_some(), "{types:?}");

    let by_type = reader.get("/api/events?type=order.confirmed").await.ok();
    assert_eq!(subjects(&by_type), std::slice::from_ref(id));
    let none = reader.get("/api/events?type=cart.abandoned").await.ok();
    assert_eq!(subjects(&none), Vec::<String>::new());
    assert!(cursor(&none).is_some(), "the search has come past the others: {none}");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_for_staff_and_for_services_with_the_scope() {
    let server = Server::open_idle().await;
    server.door.get("/api/events").await.refused(401, "login-required");
    server.shopper("asha").await.get("/api/events").await.refused(403, "forbidden");
    server.service(&["inventory"]).await.get("/api/events").await.refused(403, "forbidden");
    let staff = server.staff().await;
    for (query, pointer) in
        [("after=nonsense", "/after"), ("after=WzFd", "/after"), ("limit=201", "/limit"), ("type=", "/type")]
    {
        let problem = staff.get(&format!("/api/events?{query}")).await.refused(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    assert_eq!(staff.get("/api/events").await.ok()["nextCursor"], Value::Null);
    server.stop().await;
}
