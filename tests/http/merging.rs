//! A guest logs in: two carts become one, and no line is lost.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Server, Shopper};

/// Asks for the merge of a guest's cart into a user's.
async fn merge(user: &Shopper, guest: &Shopper) -> Answer {
    Answer::to(user.request(Method::POST, "/api/cart/merge").header("x-cart-session", guest.session())).await
}

/// SKU → quantity.
fn lines(cart: &Value) -> BTreeMap<String, u64> {
    let items = cart["items"].as_array().expect("items").iter();
    items
        .map(|item| (item["sku"].as_str().expect("a SKU").to_owned(), item["quantity"].as_u64().expect("a number")))
        .collect()
}

fn expected(lines: &[(&str, u64)]) -> BTreeMap<String, u64> {
    lines.iter().map(|&(sku, quantity)| (sku.to_owned(), quantity)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_carts_become_one_once_and_shortages_are_told() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    let guest = Shopper::guest(server.door.clone()).await;
    asha.add("LAP-001", 60).await;
    asha.add("LTD-010", 2).await;
    guest.add("LAP-001", 60).await;
    guest.add("LTD-001", 1).await;
    guest.post("/api/cart/coupons", &json!({ "code": "SAVE20" })).await.ok();
    server.set_stock("LTD-001", 0).await;

    let merged = merge(&asha, &guest).await.ok();
    assert_eq!(lines(&merged), expected(&[("LAP-001", 100), ("LTD-001", 1), ("LTD-010", 2)]));
    let mut told: Vec<_> = merged["adjustments"]
        .as_array()
        .expect("adjustments")
        .iter()
        .map(|told| (told["requestedQuantity"].as_u64(), told["quantity"].as_u64(), told["reason"].as_str()))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [(Some(1), Some(1), Some("OUT_OF_STOCK")), (Some(120), Some(100), Some("LIMITED_STOCK"))],
        "{merged}"
    );
    assert_eq!(merged["cart"]["appliedCoupons"], json!(["SAVE20"]), "the guest's code comes along");

    let again = merge(&asha, &guest).await.ok();
    assert_eq!((lines(&again), &again["adjustments"]), (lines(&merged), &json!([])));
    assert_eq!(again["cart"]["version"], merged["cart"]["version"], "a second merge changes nothing");
    assert_eq!(lines(&asha.cart().await), lines(&merged));
    assert_eq!(guest.cart().await["itemCount"], 0, "the session goes on with a cart of its own");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guests_cart_becomes_that_of_a_user_without_one_and_nobody_elses() {
    let server = Server::open_idle().await;
    let [asha, ben] = [server.shopper("asha").await, server.shopper("ben").await];
    let guest = Shopper::guest(server.door.clone()).await;
    let before = guest.add("LAP-001", 2).await;

    server.door.post("/api/cart/merge", &Value::Null).await.refused(401, "login-required");
    guest.post("/api/cart/merge", &Value::Null).await.refused(401, "login-required");
    Answer::to(asha.request(Method::POST, "/api/cart/merge")).await.refused(422, "validation-failed");

    let hers = merge(&asha, &guest).await.ok();
    assert_eq!(hers["cart"]["cartId"], before["cart"]["cartId"], "the very cart");
    assert_eq!((lines(&hers), &hers["adjustments"]), (expected(&[("LAP-001", 2)]), &json!([])));
    merge(&ben, &guest).await.refused(409, "cart-already-owned");
    assert_eq!(merge(&asha, &guest).await.ok()["cart"]["version"], hers["cart"]["version"]);
    assert_eq!(ben.cart().await["itemCount"], 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_in_checkout_is_not_merged() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    let guest = Shopper::guest(server.door.clone()).await;
    asha.add("LAP-001", 1).await;
    guest.add("LTD-010", 1).await;
    let checkout = asha.checkout("tok_ok").await;
    let problem = merge(&asha, &guest).await.refused(409, "cart-in-checkout");
    assert_eq!(problem["workflowId"], checkout.workflow_id.as_str());
    assert_eq!(guest.cart().await["itemCount"], 1, "the guest's line is where it was");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_codes_that_cannot_be_combined_the_better_one_stays() {
    let server = Server::open_idle().await;
    server.add_coupon("SAVE30", 30).await;
    let asha = server.shopper("asha").await;
    let guest = Shopper::guest(server.door.clone()).await;
    for (shopper, code) in [(&asha, "SAVE20"), (&guest, "SAVE30")] {
        shopper.add("LAP-001", 1).await;
        shopper.post("/api/cart/coupons", &json!({ "code": code })).await.ok();
    }
    let merged = merge(&asha, &guest).await.ok();
    assert_eq!(merged["cart"]["appliedCoupons"], json!(["SAVE30"]));
    let dropped = json!({ "type": "COUPON_DROPPED", "code": "SAVE20", "reason": "not-combinable" });
    assert!(merged["notices"].as_array().is_some_and(|notices| notices.contains(&dropped)), "{merged}");
    assert_eq!(asha.cart().await["cart"]["appliedCoupons"], json!(["SAVE30"]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_stays_in_the_guests_cart() {
    let server = Server::open_idle().await;
    let skus = server.add_variants(230).await;
    let asha = server.shopper("asha").await;
    let guest = Shopper::guest(server.door.clone()).await;
    server.fill(&asha, &skus[..190]).await;
    server.fill(&guest, &skus[180..230]).await;

    let merged = merge(&asha, &guest).await.ok();
    let left = guest.cart().await;
    assert_eq!((lines(&merged).len(), lines(&left).len()), (200, 30));
    let mut all: Vec<String> = lines(&merged).into_keys().chain(lines(&left).into_keys()).collect();
    all.sort();
    assert_eq!(all, skus, "every line is in one of the two");
    let told = merged["adjustments"].as_array().expect("adjustments");
    assert_eq!(told.iter().filter(|told| told["reason"] == "LINE_LIMIT" && told["quantity"] == 0).count(), 30);
    assert!((180..190).all(|index| lines(&merged)[&skus[index]] == 2), "common lines are summed");

    let full = asha.post("/api/cart/items", &json!({ "variantId": "LAP-001", "quantity": 1 })).await;
    full.refused(409, "too-many-lines");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merges_at_the_same_time_lose_no_line() {
    let server = Server::open_idle().await;
    let skus = server.add_variants(130).await;
    let asha = server.shopper("asha").await;
    let [phone, laptop] = [Shopper::guest(server.door.clone()).await, Shopper::guest(server.door.clone()).await];
    server.fill(&phone, &skus[..65]).await;
    server.fill(&laptop, &skus[65..]).await;

    // Each device logs in three times at once, while the user looks at a cart that does not exist yet.
    let mut merges = tokio::task::JoinSet::new();
    for round in 0..9 {
        let (asha, guest) = (asha.clone(), if round % 2 == 0 { phone.clone() } else { laptop.clone() });
        merges.spawn(
            async move { if round % 3 == 2 { asha.get("/api/cart").await } else { merge(&asha, &guest).await } },
        );
    }
    while let Some(answer) = merges.join_next().await {
        answer.expect("no panic").ok();
    }
    let cart = lines(&asha.cart().await);
    assert_eq!(cart.keys().collect::<Vec<_>>(), skus.iter().collect::<Vec<_>>());
    assert!(cart.values().all(|&quantity| quantity == 1), "and none is counted twice: {cart:?}");
    server.stop().await;
}
