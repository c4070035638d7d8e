//! The rules of the low-level design: wherever its classes throw, the shop refuses with a code of its own.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::{Answer, Checkout, Server, Shopper, payment};

fn send(shopper: &Shopper, method: Method, path: &str, body: &Value) -> RequestBuilder {
    shopper.request(method, path).header("idempotency-key", Uuid::now_v7().to_string()).json(body)
}

async fn bought(shopper: &Shopper) -> Checkout {
    shopper.add("LAP-001", 1).await;
    let checkout = shopper.checkout("tok_ok").await;
    assert_eq!(shopper.end(&checkout).await["status"], "COMPLETED");
    checkout
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_of_the_low_level_design_is_a_refusal_with_a_code() {
    let server = Server::open().await;
    let staff = server.staff().await;
    let [asha, ben, cara, dev, eve] = <[Shopper; 5]>::try_from(server.crowd(5).await).ok().expect("five");
    let guest = Shopper::guest(server.door.clone()).await;
    guest.add("LTD-010", 1).await;
    let merge = |shopper: &Shopper| {
        let (name, session) = guest.header();
        shopper.request(Method::POST, "/api/cart/merge").header(name, session)
    };
    Answer::to(merge(&eve)).await.ok();
    asha.add("LTD-010", 1).await;
    let confirmed = format!("/api/orders/{}", bought(&cara).await.order_id);
    let delivered = format!("/api/orders/{}", bought(&cara).await.order_id);
    for status in ["PROCESSING", "SHIPPED", "DELIVERED"] {
        staff.post(&format!("{delivered}/status"), &json!({ "status": status })).await.ok();
    }
    ben.add("LAP-001", 1).await;
    ben.payment_page(&ben.checkout("tok_3ds").await).await;
    let elsewhere = {
        let mut request = payment("tok_ok");
        request["cartId"] = json!(Uuid::now_v7());
        request
    };
    let unknown = format!("/api/orders/{}", Uuid::now_v7());
    let items = "/api/cart/items";
    let line = |quantity: i64| json!({ "variantId": "LTD-010", "quantity": quantity });
    let nothing = json!({});
    let reason = json!({ "reason": "Ordered by mistake" });

    #[rustfmt::skip]
    let rules = [
        ("CartItem.updateQuantity: Quantity must be positive", 422, "quantity-invalid",
            send(&asha, Method::PATCH, "/api/cart/items/LTD-010", &json!({ "quantity": -1 }))),
        ("CartItem.updateQuantity: Quantity must be positive, when adding", 422, "quantity-invalid",
            send(&asha, Method::POST, items, &line(0))),
        ("CartItem.updatePrice: Price cannot be negative", 422, "validation-failed",
            send(&staff, Method::PATCH, "/api/variants/LTD-010", &json!({ "price": "-0.01" }))),
        ("Cart.removeItem: Item not found in cart", 404, "item-not-in-cart",
            send(&asha, Method::DELETE, "/api/cart/items/LTD-001", &nothing)),
        ("Cart.updateItemQuantity: Item not found in cart", 404, "item-not-in-cart",
            send(&asha, Method::PATCH, "/api/cart/items/LTD-001", &json!({ "quantity": 1 }))),
        ("Cart.associateWithUser: Cart already associated with a user", 409, "cart-already-owned",
            merge(&asha)),
        ("Cart.validateActiveCart: Cannot modify cart with status CHECKOUT", 409, "cart-in-checkout",
            send(&ben, Method::POST, items, &line(1))),
        ("OrderStateMachine.transitionTo: Invalid state transition", 409, "invalid-transition",
            send(&staff, Method::POST, &format!("{delivered}/status"), &json!({ "status": "SHIPPED" }))),
        ("OrderStateMachine.transitionTo: Unknown order status", 422, "validation-failed",
            send(&staff, Method::POST, &format!("{confirmed}/status"), &json!({ "status": "LOST" }))),
        ("Order.cancel: Cannot cancel delivered order. Please initiate return.", 409, "order-not-cancellable",
            send(&cara, Method::POST, &format!("{delivered}/cancel"), &reason)),
        ("CartService: Cart not found", 404, "cart-not-found",
            send(&asha, Method::POST, "/api/checkout", &elsewhere)),
        ("CartService.addItemToCart: Product not available in requested quantity", 409, "out-of-stock",
            send(&asha, Method::POST, items, &line(10))),
        ("CartService.updateCartItem: Product not available in requested quantity", 409, "out-of-stock",
            send(&asha, Method::PATCH, "/api/cart/items/LTD-010", &json!({ "quantity": 11 }))),
        ("OrderService.createOrder: Cannot create order from empty cart", 409, "cart-empty",
            send(&dev, Method::POST, "/api/checkout", &payment("tok_ok"))),
        ("OrderService.createOrder: User must be logged in to place order", 401, "login-required",
            server.door.request(Method::POST, "/api/checkout").header("idempotency-key", "k").json(&payment("tok_ok"))),
        ("OrderService.getOrder: Order not found", 404, "order-not-found",
            asha.request(Method::GET, &unknown)),
        ("OrderService.updateOrderStatus: Order not found", 404, "order-not-found",
            send(&staff, Method::POST, &format!("{unknown}/status"), &json!({ "status": "PROCESSING" }))),
        ("OrderService.cancelOrder: Order not found", 404, "order-not-found",
            send(&asha, Method::POST, &format!("{unknown}/cancel"), &reason)),
    ];
    for (rule, status, code, request) in rules {
        let answer = Answer::to(request).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{rule}: {}", answer.body);
        if let Some((_, text)) = rule.split_once("Order.cancel: ") {
            assert_eq!(answer.body["detail"], text);
        }
    }

    // PaymentService: Payment processing failed. The checkout was accepted, and comes to nothing.
    let declined = asha.checkout("tok_declined").await;
    let view = asha.end(&declined).await;
    assert_eq!((&view["status"], &view["failure"]["code"]), (&json!("FAILED"), &json!("payment-declined")), "{view}");
    server.stop().await;
}
