//! Saved addresses: a user's own, one of them the default, copied by orders.

use serde_json::{Value, json};

use crate::server::{Answer, Checkout, Server, Shopper, payment};

fn address(name: &str) -> Value {
    let mut address = payment("tok_ok")["shippingAddress"].take();
    address["recipientName"] = json!(name);
    address
}

async fn change(shopper: &Shopper, id: &str, change: Value) -> Answer {
    shopper.patch(&format!("/api/addresses/{id}"), &change).await
}

/// The names of all, and the one that is the default.
async fn book(shopper: &Shopper) -> (Vec<String>, Vec<String>) {
    let list = shopper.get("/api/addresses").await.ok();
    let items = list["items"].as_array().expect("items");
    let name = |item: &Value| item["recipientName"].as_str().expect("a name").to_owned();
    (items.iter().map(name).collect(), items.iter().filter(|item| item["isDefault"] == true).map(name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_saved_changed_and_forgotten_and_one_is_the_default() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    let first = asha.post("/api/addresses", &address("Home")).await;
    assert_eq!(first.status, 201);
    let home = first.body["addressId"].as_str().expect("an id").to_owned();
    assert_eq!(first.header("location"), Some(&*format!("/api/addresses/{home}")));
    assert_eq!(first.body["isDefault"], true, "the first is the default");

    let mut office = address("Office");
    office["isDefault"] = json!(true);
    office["addressLine2"] = json!("Floor 3");
    let again = asha.post_under("office", "/api/addresses", &office).await.ok();
    assert_eq!(asha.post_under("office", "/api/addresses", &office).await.ok(), again, "saved once");
    let office = again["addressId"].as_str().expect("an id").to_owned();
    assert_eq!(book(&asha).await, (vec!["Office".to_owned(), "Home".to_owned()], vec!["Office".to_owned()]));

    let changed =
        change(&asha, &home, json!({ "isDefault": true, "city": "Pune", "addressType": "BILLING" })).await.ok();
    assert_eq!((&changed["city"], &changed["recipientName"]), (&json!("Pune"), &json!("Home")));
    assert_eq!(book(&asha).await.1, ["Home"]);
    assert_eq!(change(&asha, &office, json!({ "addressLine2": null })).await.ok().get("addressLine2"), None);

    for (wrong, place) in [
        (json!({ "phoneNumber": "call me" }), "/phoneNumber"),
        (json!({ "city": " " }), "/city"),
        (json!({ "planet": "Mars" }), "/planet"),
    ] {
        let problem = change(&asha, &home, wrong).await.refused(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], place, "{problem}");
    }
    let gone = format!("/api/addresses/{home}");
    assert_eq!(asha.delete(&gone).await.status, 204);
    asha.delete(&gone).await.refused(404, "address-not-found");
    asha.get(&gone).await.refused(404, "address-not-found");
    assert_eq!(book(&asha).await.0, ["Office"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_takes_a_copy_of_a_saved_address_of_the_shoppers_own() {
    let server = Server::open().await;
    let [asha, ben] = [server.shopper("asha").await, server.shopper("ben").await];
    let saved = asha.post("/api/addresses", &address("Asha at home")).await.ok();
    let id = saved["addressId"].as_str().expect("an id").to_owned();
    let path = format!("/api/addresses/{id}");
    ben.get(&path).await.refused(404, "address-not-found");
    ben.delete(&path).await.refused(404, "address-not-found");
    change(&ben, &id, json!({ "city": "Pune" })).await.refused(404, "address-not-found");
    server.door.get("/api/addresses").await.refused(401, "login-required");
    assert_eq!(book(&ben).await.0, Vec::<String>::new());

    let mut request = payment("tok_ok");
    request.as_object_mut().expect("an object").remove("shippingAddress");
    request["shippingAddressId"] = json!(id);
    ben.add("LAP-001", 1).await;
    ben.ask(&request).await.refused(422, "address-not-found");
    asha.add("LAP-001", 1).await;
    let checkout = Checkout::of(asha.ask(&request).await);
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");
    assert_eq!(asha.delete(&path).await.status, 204);
    assert_eq!(asha.order(&checkout).await["shippingAddress"]["recipientName"], "Asha at home");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_fifty_are_saved_and_they_are_read_in_pages() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    for number in 0..49 {
        assert_eq!(asha.post("/api/addresses", &address(&format!("No. {number}"))).await.status, 201);
    }
    // Two tabs at once: one of them is the fiftieth.
    let (one, two) = (address("The fiftieth"), address("The fiftieth"));
    let (one, two) = tokio::join!(asha.post("/api/addresses", &one), asha.post("/api/addresses", &two));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    asha.post("/api/addresses", &address("One more")).await.refused(409, "too-many-addresses");

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..3 {
        let page = asha.get(&format!("/api/addresses?limit=20{cursor}")).await.ok();
        seen.extend(page["items"].as_array().expect("items").iter().map(|item| item["addressId"].to_string()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 50);
    server.stop().await;
}
