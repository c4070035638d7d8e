//! The staff's side of the shop: what is sold, what there is of it, and who may hold it.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    patience::eventually,
    server::{Server, Shopper},
};

fn tablet() -> Value {
    json!({
        "sku": "TAB-P", "productName": "Tablet", "description": "Ten inches", "basePrice": "20000.00",
        "variants": [
            { "sku": "TAB-64", "variantName": "64 GB", "price": "20000.00", "compareAtPrice": "22000.00",
              "attributes": { "storage": "64 GB" }, "stock": 12 },
            { "sku": "TAB-128", "variantName": "128 GB", "price": "25000.00", "taxRate": "5" },
        ]
    })
}

async fn events(staff: &Shopper, event_type: &str, subject: &str) -> usize {
    // Other databases of the same server hold events up for a moment: one of our own says when all are told.
    let feed = staff.get(&format!("/api/events?type={event_type}&subject={subject}&wait=5")).await.ok();
    feed["items"].as_array().expect("items").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_staff_put_on_the_shelf_can_be_bought_until_they_take_it_off() {
    let server = Server::open().await;
    let (staff, asha) = (server.staff().await, server.shopper("asha").await);
    let created = staff.post_under("tablet", "/api/products", &tablet()).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let product = created.ok();
    let again = staff.post_under("tablet", "/api/products", &tablet()).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.ok(), product);
    let problem = staff.post("/api/products", &tablet()).await.refused(409, "sku-taken");
    assert_eq!(problem["sku"], "TAB-P");
    assert_eq!(product["variants"][0]["attributes"], json!({ "storage": "64 GB" }));
    assert_eq!(product["variants"][0]["compareAtPrice"], "22000.00");
    assert_eq!(server.stock("TAB-64").await, (12, 0));

    asha.add("TAB-64", 2).await;
    let checkout = asha.checkout("tok_ok").await;
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");
    assert_eq!(asha.order(&checkout).await["totalAmount"], "47250.00");

    let id = product["productId"].as_str().expect("an id");
    let before = asha.order(&checkout).await;
    let shown = staff.get(&format!("/api/products/{id}")).await;
    let version = shown.header("etag").expect("a version").to_owned();
    let rename = json!({ "productName": "Slate", "description": null, "isActive": false });
    let change = |version: &str| {
        staff.request(reqwest::Method::PATCH, "/api/products/TAB-P").header("if-match", version).json(&rename)
    };
    let renamed = crate::server::Answer::to(change(&version)).await.ok();
    assert_eq!(
        (&renamed["productName"], &renamed["description"], &renamed["isActive"]),
        (&json!("Slate"), &Value::Null, &json!(false))
    );
    crate::server::Answer::to(change(&version)).await.refused(412, "precondition-failed");
    asha.get(&format!("/api/products/{id}")).await.refused(404, "product-not-found");
    assert_eq!(staff.get(&format!("/api/products/{id}")).await.ok()["isActive"], false);
    let skus = async |who: &Shopper, query: &str| who.get(&format!("/api/products{query}")).await.ok().to_string();
    assert!(!skus(&asha, "").await.contains("TAB-P"));
    assert!(skus(&staff, "?includeInactive=true").await.contains("TAB-P"));
    asha.get("/api/products?includeInactive=true").await.refused(403, "forbidden");
    asha.post("/api/cart/items", &json!({ "variantId": "TAB-64", "quantity": 1 }))
        .await
        .refused(404, "variant-not-found");
    assert_eq!(asha.order(&checkout).await, before, "an order is not touched by what becomes of its products");
    let acts: Vec<String> = server.acts().await.into_iter().map(|(action, ..)| action).collect();
    assert_eq!(acts, ["product.create", "product.change"]);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_is_added_and_changed_with_the_same_care_as_a_product() {
    let server = Server::open_idle().await;
    let staff = server.staff().await;
    let added = staff
        .post("/api/products/LAP-001-P/variants", &json!({ "sku": "LAP-002", "price": "60000.00", "stock": 3 }))
        .await;
    assert_eq!(
        (added.status, &added.body["taxRate"], &added.body["availableQuantity"]),
        (201, &json!("18"), &json!(3))
    );
    staff
        .post("/api/products/LAP-001-P/variants", &json!({ "sku": "LAP-001", "price": "1" }))
        .await
        .refused(409, "sku-taken");
    staff
        .post("/api/products/NO-SUCH/variants", &json!({ "sku": "X", "price": "1" }))
        .await
        .refused(404, "product-not-found");
    let changed = staff
        .patch("/api/variants/LAP-002", &json!({ "taxRate": "40", "lowStockThreshold": 2, "variantName": "Pro" }))
        .await
        .ok();
    assert_eq!((&changed["taxRate"], &changed["variantName"]), (&json!("40"), &json!("Pro")));
    staff.patch("/api/variants/NO-SUCH", &json!({})).await.refused(404, "variant-not-found");
    let with = |place: &str, value: Value| {
        let mut product = tablet();
        *product.pointer_mut(place).unwrap_or_else(|| panic!("no place {place}")) = value;
        product
    };
    for (product, pointer) in [
        (with("/basePrice", json!("20000.001")), "/basePrice"),
        (with("/basePrice", json!("-1")), "/basePrice"),
        (with("/variants/0/price", json!("1.005")), "/variants/0/price"),
        (with("/variants/1/taxRate", json!("12")), "/variants/1/taxRate"),
        (with("/variants/0/stock", json!(-1)), "/variants/0/stock"),
        (with("/variants/0/attributes", json!("blue")), "/variants/0/attributes"),
        (with("/variants", json!([])), "/variants"),
        (with("/sku", json!("a/b")), "/sku"),
        (with("/productName", json!(" ")), "/productName"),
    ] {
        let problem = staff.post("/api/products", &product).await.refused(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let mut foreign = tablet();
    foreign["currency"] = json!("USD");
    let problem = staff.post("/api/products", &foreign).await.refused(422, "validation-failed");
    assert_eq!(problem["errors"][0]["pointer"], "/currency");
    let mut lost = tablet();
    lost["categoryId"] = json!(Uuid::now_v7());
    staff.post("/api/products", &lost).await.refused(422, "category-not-found");
    server.shopper("asha").await.post("/api/products", &tablet()).await.refused(403, "forbidden");
    server.door.post("/api/products", &tablet()).await.refused(401, "login-required");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn categories_lie_within_each_other_and_never_within_themselves() {
    let server = Server::open_idle().await;
    let staff = server.staff().await;
    let make = async |name: &str, parent: &Value| {
        let answer = staff.post("/api/categories", &json!({ "name": name, "parentId": parent })).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["categoryId"].clone()
    };
    let all = make("All", &Value::Null).await;
    let inner = make("Inner", &all).await;
    let path = |id: &Value| format!("/api/categories/{}", id.as_str().expect("an id"));
    staff.patch(&path(&all), &json!({ "parentId": inner })).await.refused(409, "category-cycle");
    staff.patch(&path(&all), &json!({ "parentId": all })).await.refused(409, "category-cycle");
    staff.patch(&path(&inner), &json!({ "name": "All" })).await.refused(409, "name-taken");
    let freed = staff.patch(&path(&inner), &json!({ "parentId": null, "name": "Outer" })).await.ok();
    assert_eq!((&freed["parentId"], &freed["name"]), (&Value::Null, &json!("Outer")));
    staff
        .post("/api/categories", &json!({ "name": "Lost", "parentId": Uuid::now_v7() }))
        .await
        .refused(422, "category-not-found");
    assert_eq!(staff.post("/api/brands", &json!({ "name": "Nimbus" })).await.status, 201);
    staff.post("/api/brands", &json!({ "name": "Nimbus" })).await.refused(409, "name-taken");
    let names = server.door.get("/api/categories").await.ok();
    assert_eq!(names["items"].as_array().map(Vec::len), Some(2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_comes_and_goes_with_its_ledger_and_never_below_nothing() {
    let server = Server::open_idle().await;
    let staff = server.staff().await;
    let restock = json!({ "quantity": 5 });
    let first = staff.post_under("delivery-1", "/api/inventory/LTD-010/restock", &restock).await.ok();
    assert_eq!(first["availableQuantity"], 15);
    let again = staff.post_under("delivery-1", "/api/inventory/LTD-010/restock", &restock).await.ok();
    assert_eq!(again, first, "the same delivery is taken in once");
    staff.patch("/api/variants/LTD-010", &json!({ "lowStockThreshold": 4 })).await.ok();
    let id = first["variantId"].as_str().expect("an id");

    let adjust = async |delta: i64| {
        staff.post("/api/inventory/LTD-010/adjust", &json!({ "delta": delta, "reason": "counted" })).await
    };
    assert_eq!(adjust(-10).await.ok()["availableQuantity"], 5);
    assert_eq!(adjust(-1).await.ok()["availableQuantity"], 4);
    assert_eq!(adjust(-1).await.ok()["availableQuantity"], 3);
    assert_eq!(events(&staff, "inventory.low_stock", id).await, 1, "one alert a crossing");
    staff.post("/api/inventory/LTD-010/restock", &json!({ "quantity": 7 })).await.ok();
    assert_eq!(adjust(-7).await.ok()["availableQuantity"], 3);
    let alerts: i64 = sqlx::query_scalar(
        "select count(*) from outbox_events where event_type = 'inventory.low_stock' and subject = $1",
    )
    .bind(id)
    .fetch_one(&server.pool)
    .await
    .expect("a count");
    assert_eq!(alerts, 2, "a delivery arms it again");
    assert_eq!(adjust(-4).await.refused(409, "stock-below-zero")["available"], 3);
    assert_eq!(server.stock("LTD-010").await, (3, 0));

    let ledger = staff.get("/api/inventory/LTD-010/movements?limit=200").await.ok();
    let deltas: Vec<i64> =
        ledger["items"].as_array().expect("items").iter().filter_map(|m| m["availableDelta"].as_i64()).collect();
    assert_eq!(deltas, [-7, 7, -1, -1, -10, 5, 10], "newest first");
    assert_eq!(ledger["items"][0]["reason"], "counted");
    let page = staff.get("/api/inventory/LTD-010/movements?limit=3").await.ok();
    let next = page["nextCursor"].as_str().expect("more");
    let rest = staff.get(&format!("/api/inventory/LTD-010/movements?cursor={next}")).await.ok();
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(4));

    for (path, body, pointer) in [
        ("restock", json!({ "quantity": 0 }), "/quantity"),
        ("restock", json!({ "quantity": 1_000_001 }), "/quantity"),
        ("adjust", json!({ "delta": 0, "reason": "x" }), "/delta"),
        ("adjust", json!({ "delta": 1, "reason": " " }), "/reason"),
    ] {
        let problem =
            staff.post(&format!("/api/inventory/LTD-010/{path}"), &body).await.refused(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    staff.post("/api/inventory/NO-SUCH/restock", &restock).await.refused(404, "variant-not-found");
    server.shopper("asha").await.post("/api/inventory/LTD-010/restock", &restock).await.refused(403, "forbidden");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_holds_all_or_nothing_and_lets_go_once() {
    let server = Server::open().await;
    let (service, other) = (server.service(&["inventory"]).await, server.service(&["inventory"]).await);
    let items = json!([{ "variantId": "LTD-010", "quantity": 4 }, { "variantId": "LTD-001", "quantity": 1 }, { "variantId": "LTD-010", "quantity": 3 }]);
    let ask = json!({ "items": items, "ttlSeconds": 600 });
    let held = service.post_under("hold-1", "/api/inventory/reserve", &ask).await;
    assert_eq!(held.status, 201, "{}", held.body);
    let held = held.ok();
    assert_eq!(service.post_under("hold-1", "/api/inventory/reserve", &ask).await.ok(), held);
    assert_eq!((server.stock("LTD-010").await, server.stock("LTD-001").await), ((3, 7), (0, 1)));

    let problem = other.post("/api/inventory/reserve", &ask).await.refused(409, "out-of-stock");
    let mut lines: Vec<(&str, i64, i64)> = problem["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|l| {
            (
                l["sku"].as_str().expect("a SKU"),
                l["requested"].as_i64().expect("n"),
                l["available"].as_i64().expect("n"),
            )
        })
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, [("LTD-001", 1, 0), ("LTD-010", 7, 3)]);
    assert_eq!(server.stock("LTD-010").await, (3, 7), "nothing of it is held");

    let release = json!({ "reservationId": held["reservationId"] });
    other.post("/api/inventory/release", &release).await.refused(404, "reservation-not-found");
    for _ in 0..2 {
        assert_eq!(service.post("/api/inventory/release", &release).await.ok()["status"], "RELEASED");
        assert_eq!((server.stock("LTD-010").await, server.stock("LTD-001").await), ((10, 0), (1, 0)));
    }

    let short = json!({ "items": [{ "variantId": "LTD-001", "quantity": 1 }], "ttlSeconds": 60 });
    let held = other.post("/api/inventory/reserve", &short).await.ok();
    server.advance(120).await;
    eventually("the sweep gives back what has expired", async || server.stock("LTD-001").await == (1, 0)).await;
    let release = json!({ "reservationId": held["reservationId"] });
    assert_eq!(other.post("/api/inventory/release", &release).await.ok()["status"], "EXPIRED");
    assert_eq!(server.stock("LTD-001").await, (1, 0));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holding_stock_needs_the_scope_and_sensible_bounds() {
    let server = Server::open_idle().await;
    let service = server.service(&["inventory"]).await;
    let ask = |items: Value, ttl: i64| json!({ "items": items, "ttlSeconds": ttl });
    let one = json!([{ "variantId": "LAP-001", "quantity": 1 }]);
    server
        .service(&["events:read"])
        .await
        .post("/api/inventory/reserve", &ask(one.clone(), 60))
        .await
        .refused(403, "forbidden");
    server.staff().await.post("/api/inventory/reserve", &ask(one.clone(), 60)).await.refused(403, "forbidden");
    server.door.post("/api/inventory/reserve", &ask(one.clone(), 60)).await.refused(401, "login-required");
    for (body, code, pointer) in [
        (ask(one.clone(), 0), "validation-failed", "/ttlSeconds"),
        (ask(one.clone(), 3601), "validation-failed", "/ttlSeconds"),
        (ask(json!([]), 60), "validation-failed", "/items"),
        (ask(json!(vec![json!({ "variantId": "LAP-001", "quantity": 1 }); 201]), 60), "validation-failed", "/items"),
        (ask(json!([{ "variantId": "LAP-001", "quantity": 0 }]), 60), "quantity-invalid", "/items/0/quantity"),
    ] {
        let problem = service.post("/api/inventory/reserve", &body).await.refused(422, code);
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let unknown = ask(json!([{ "variantId": "NO-SUCH", "quantity": 1 }]), 60);
    service.post("/api/inventory/reserve", &unknown).await.refused(404, "variant-not-found");
    let release = json!({ "reservationId": Uuid::now_v7() });
    service.post("/api/inventory/release", &release).await.refused(404, "reservation-not-found");
    assert_eq!(server.stock("LAP-001").await, (100, 0));
    server.stop().await;
}
