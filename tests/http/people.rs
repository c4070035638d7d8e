//! Accounts and keys: who may come in, and how somebody leaves.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::{Answer, Server, Shopper, payment};

async fn find(staff: &Shopper, email: &str) -> Value {
    staff.get(&format!("/api/users?email={email}")).await.ok()["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_switched_off_can_neither_log_in_nor_stay() {
    let server = Server::open_idle().await;
    let (staff, admin) = (server.staff().await, server.admin().await);
    server.shopper("asha").await;
    let login = json!({ "email": "asha@example.com", "password": "correct horse" });
    let session = server.door.post("/api/auth/login", &login).await.ok();
    let asha = find(&staff, "ASHA").await;
    assert_eq!(
        (&asha["email"], &asha["role"], &asha["isActive"]),
        (&json!("asha@example.com"), &json!("CUSTOMER"), &json!(true))
    );
    let path = format!("/api/users/{}", asha["userId"].as_str().expect("an id"));
    staff.patch(&path, &json!({ "isActive": false })).await.refused(403, "forbidden");
    assert_eq!(admin.patch(&path, &json!({ "isActive": false })).await.ok()["isActive"], false);
    server.door.post("/api/auth/login", &login).await.refused(401, "invalid-credentials");
    let refresh = json!({ "refreshToken": session["refreshToken"] });
    server.door.post("/api/auth/refresh", &refresh).await.refused(401, "invalid-refresh-token");

    let changed = admin.patch(&path, &json!({ "isActive": true, "role": "STAFF" })).await.ok();
    assert_eq!(changed["role"], "STAFF");
    assert_eq!(server.door.post("/api/auth/login", &login).await.ok()["user"]["role"], "STAFF");
    let own = find(&staff, "admin@").await;
    let own = format!("/api/users/{}", own["userId"].as_str().expect("an id"));
    admin.patch(&own, &json!({ "role": "CUSTOMER" })).await.refused(409, "own-account");
    admin.delete(&own).await.refused(409, "own-account");
    admin.delete("/api/me").await.refused(409, "own-account");
    admin.patch(&format!("/api/users/{}", Uuid::now_v7()), &json!({})).await.refused(404, "user-not-found");
    server.shopper("ben").await.get("/api/users").await.refused(403, "forbidden");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_worth_no_more_than_its_account_is_now() {
    let server = Server::open_idle().await;
    let (admin, fired, asha) = (server.admin().await, server.staff().await, server.shopper("asha").await);
    let path =
        async |email: &str| format!("/api/users/{}", find(&admin, email).await["userId"].as_str().expect("an id"));
    let (his, hers) = (path("staff@").await, path("asha@").await);
    let key = |name: &str| json!({ "name": name, "scopes": ["inventory"] });

    // The token says STAFF in all that follows.
    admin.patch(&his, &json!({ "role": "ADMIN" })).await.ok();
    assert_eq!(fired.post("/api/api-keys", &key("first")).await.status, 201);
    admin.patch(&his, &json!({ "role": "CUSTOMER" })).await.ok();
    fired.post("/api/api-keys", &key("second")).await.refused(403, "forbidden");
    fired.get("/api/users").await.refused(403, "forbidden");
    admin.patch(&his, &json!({ "role": "ADMIN", "isActive": false })).await.ok();
    fired.post("/api/api-keys", &key("third")).await.refused(401, "login-required");
    fired.get("/api/users").await.refused(401, "login-required");
    admin.patch(&his, &json!({ "isActive": true })).await.ok();
    fired.get("/api/api-keys").await.ok();

    let address = payment("tok_ok")["shippingAddress"].clone();
    let saved = asha.post("/api/addresses", &address).await;
    assert_eq!(saved.status, 201, "{}", saved.body);
    assert_eq!(admin.delete(&hers).await.status, 204);
    asha.post("/api/addresses", &address).await.refused(401, "login-required");
    asha.post("/api/cart/items", &json!({ "variantId": "LAP-001", "quantity": 1 }))
        .await
        .refused(401, "login-required");
    assert_eq!(asha.get("/api/addresses").await.ok()["items"], json!([]), "nothing of hers is kept");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_leaves_is_forgotten_and_his_orders_are_not() {
    let server = Server::open().await;
    let (staff, admin) = (server.staff().await, server.admin().await);
    let asha = server.shopper("asha").await;
    assert_eq!(
        asha.patch("/api/me", &json!({ "firstName": "Asha", "phoneNumber": "+919800000000" })).await.ok()["firstName"],
        "Asha"
    );
    asha.add("LAP-001", 1).await;
    let bought = asha.checkout("tok_ok").await;
    assert_eq!(asha.end(&bought).await["status"], "COMPLETED");
    let order = staff.get(&format!("/api/orders/{}", bought.order_id)).await.ok();

    asha.add("LAP-001", 1).await;
    let pending = asha.checkout("tok_3ds").await;
    asha.payment_page(&pending).await;
    let problem = asha.delete("/api/me").await.refused(409, "cart-in-checkout");
    assert_eq!(problem["workflowId"], pending.workflow_id.as_str());
    asha.delete(&pending.path()).await;
    asha.end(&pending).await;
    server.quiet().await;
    let id = find(&staff, "asha@").await["userId"].as_str().expect("an id").to_owned();
    assert_eq!(asha.delete("/api/me").await.status, 204);

    asha.get("/api/me").await.refused(401, "login-required");
    let login = json!({ "email": "asha@example.com", "password": "correct horse" });
    server.door.post("/api/auth/login", &login).await.refused(401, "invalid-credentials");
    assert_eq!(find(&staff, "asha@").await, Value::Null, "nobody is found under the address");
    let traces: i64 = sqlx::query_scalar(
        "select (select count(*) from users where id = $1::uuid and (first_name is not null or phone_number is not null or is_active))
              + (select count(*) from refresh_tokens where user_id = $1::uuid)
              + (select count(*) from addresses where user_id = $1::uuid)
              + (select count(*) from carts where user_id = $1::uuid and status in ('ACTIVE', 'ABANDONED', 'CHECKOUT'))",
    )
    .bind(&id)
    .fetch_one(&server.pool)
    .await
    .expect("traces");
    assert_eq!(traces, 0);
    assert_eq!(staff.get(&format!("/api/orders/{}", bought.order_id)).await.ok(), order, "an order stays as it was");
    assert_eq!(admin.delete(&format!("/api/users/{id}")).await.status, 204, "forgetting twice is harmless");
    admin.patch(&format!("/api/users/{id}"), &json!({ "isActive": true })).await.refused(409, "user-anonymised");
    assert_eq!(server.shopper("asha").await.cart().await["itemCount"], 0, "the address is free again");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_told_once_works_for_its_scopes_and_ends_at_once() {
    let server = Server::open_idle().await;
    let (staff, admin) = (server.staff().await, server.admin().await);
    let body = json!({ "name": "warehouse", "scopes": ["inventory"] });
    staff.post("/api/api-keys", &body).await.refused(403, "forbidden");
    let made = admin.post("/api/api-keys", &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = made.ok();
    let secret = key["secret"].as_str().expect("a secret");
    admin.post("/api/api-keys", &body).await.refused(409, "key-name-taken");
    for (body, pointer) in [
        (json!({ "name": "x", "scopes": [] }), "/scopes"),
        (json!({ "name": "x", "scopes": ["everything"] }), "/scopes/0"),
        (json!({ "name": "", "scopes": ["inventory"] }), "/name"),
    ] {
        let problem = admin.post("/api/api-keys", &body).await.refused(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let hold = || {
        let body = json!({ "items": [{ "variantId": "LAP-001", "quantity": 1 }], "ttlSeconds": 60 });
        Answer::to(server.door.request(Method::POST, "/api/inventory/reserve").header("x-api-key", secret).json(&body))
    };
    assert_eq!(hold().await.status, 201);
    Answer::to(server.door.request(Method::GET, "/api/events").header("x-api-key", secret))
        .await
        .refused(403, "forbidden");

    let list = admin.get("/api/api-keys").await.ok();
    assert_eq!(list["items"][0]["name"], "warehouse");
    assert!(!list.to_string().contains(secret));
    let told: i64 = sqlx::query_scalar("select count(*) from idempotency_keys where body::text like '%' || $1 || '%'")
        .bind(secret)
        .fetch_one(&server.pool)
        .await
        .expect("a count");
    assert_eq!(told, 0, "no secret is kept for a retry");
    let path = format!("/api/api-keys/{}", key["keyId"].as_str().expect("an id"));
    for _ in 0..2 {
        assert_eq!(admin.delete(&path).await.status, 204);
    }
    hold().await.refused(401, "login-required");
    admin.delete(&format!("/api/api-keys/{}", Uuid::now_v7())).await.refused(404, "key-not-found");
    server.stop().await;
}
