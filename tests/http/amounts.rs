//! Amounts that no column holds: refused where they arise, with a code, and never in the way of looking.

use serde_json::json;

use crate::server::{Server, payment};

#[tokio::test(flavor = "multi_thread")]
async fn what_no_order_can_hold_is_refused_where_it_arises_and_can_still_be_looked_at() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    server.set_stock("LAP-001", 1_000).await;
    let price = async |amount: &str, status: u16| {
        let answer = staff.patch("/api/variants/LAP-001", &json!({ "price": amount })).await;
        assert_eq!(answer.status, status, "{amount}: {}", answer.body);
    };
    for amount in ["1000000000", "999999999.999", "79228162514264337593543950335", "-0.01"] {
        price(amount, 422).await;
    }
    price("999999999.99", 200).await;
    // 84 of them and 18 % are 99,119,999,999.01; one more is too many.
    asha.add("LAP-001", 84).await;
    let line = |quantity: i64| json!({ "variantId": "LAP-001", "quantity": quantity });
    let refused = asha.post("/api/cart/items", &line(1)).await.refused(422, "quantity-invalid");
    assert_eq!(refused["errors"][0]["pointer"], "/quantity");
    let raise = json!({ "quantity": 90 });
    asha.patch("/api/cart/items/LAP-001", &raise).await.refused(422, "quantity-invalid");
    assert_eq!(asha.cart().await["itemCount"], 84);

    price("50000.00", 200).await;
    asha.patch("/api/cart/items/LAP-001", &json!({ "quantity": 999 })).await.ok();
    price("999999999.99", 200).await;
    let cart = asha.cart().await;
    assert_eq!(cart["priceBreakdown"]["subtotal"], "998999999990.01");
    asha.ask(&payment("tok_ok")).await.refused(422, "quantity-invalid");
    asha.post("/api/cart/coupons", &json!({ "code": "SAVE20" })).await.ok();
    asha.ask(&payment("tok_ok")).await.refused(422, "quantity-invalid");
    asha.patch("/api/cart/items/LAP-001", &json!({ "quantity": 998 })).await.ok();
    asha.patch("/api/cart/items/LAP-001", &json!({ "quantity": 1 })).await.ok();
    asha.delete("/api/cart/coupons/SAVE20").await.ok();
    let mut request = payment("tok_ok");
    request["expectedTotal"] = json!("79228162514264337593543950335");
    let answer = asha.ask(&request).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    server.quiet().await;
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_is_readable_whatever_has_been_stored() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 2).await;
    for sql in [
        "update product_variants set price = 0.001",
        "update product_variants set price = 999999999.999",
        "update product_variants set tax_rate = 99.99",
        "update cart_items set price = 999999999.999",
        "update carts set currency = 'KWD'",
        "update carts set currency = 'JPY'",
        "update carts set currency = '???'",
        "update products set currency = '???'",
    ] {
        sqlx::query(sql).execute(&server.pool).await.expect("stored");
        let cart = asha.cart().await;
        assert_eq!(cart["itemCount"], 2, "{sql}: {cart}");
    }
    server.stop().await;
}
