//! Bad input: input → status → code, and nothing written. The tables have a row a line, however long.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::server::{Answer, Server, Shopper, payment};

/// What is sent, and what must come of it; `pointer` is the first place that is named as wrong.
struct Case {
    name: String,
    request: RequestBuilder,
    status: u16,
    code: &'static str,
    pointer: Option<&'static str>,
}

fn case(name: impl Into<String>, request: RequestBuilder, status: u16, code: &'static str) -> Case {
    Case { name: name.into(), request, status, code, pointer: None }
}

impl Case {
    fn at(self, pointer: &'static str) -> Case {
        Case { pointer: Some(pointer), ..self }
    }
}

/// Refuses every case as the OpenAPI document says, and finds the database afterwards as it was before.
async fn refuse(server: &Server, cases: Vec<Case>) {
    let document = server.door.get("/api/openapi.json").await.ok();
    let untouched = contents(&server.pool).await;
    for Case { name, request, status, code, pointer } in cases {
        assert!(is_promised(&document, &request, status), "{name}: the document does not know of {status}");
        let answer = Answer::to(request).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{name}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
        if let Some(pointer) = pointer {
            assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{name}: {}", answer.body);
        }
        assert_eq!(contents(&server.pool).await, untouched, "{name}: something was written");
    }
}

/// Whether the document names this status for this request. Of what it does not offer it need not speak.
fn is_promised(document: &Value, request: &RequestBuilder, status: u16) -> bool {
    let request = request.try_clone().and_then(|request| request.build().ok()).expect("a request");
    let asked: Vec<&str> = request.url().path().split('/').collect();
    let is_of = |template: &str| {
        let segments: Vec<&str> = template.split('/').collect();
        segments.len() == asked.len() && segments.iter().zip(&asked).all(|(s, a)| s == a || s.starts_with('{'))
    };
    let paths = document["paths"].as_object().expect("paths");
    // A path that is written out wins over one with a parameter.
    let operations =
        paths.get(request.url().path()).or_else(|| paths.iter().find(|(path, _)| is_of(path)).map(|(_, o)| o));
    let operation = operations.map(|operations| &operations[request.method().as_str().to_lowercase()]);
    operation.is_none_or(|operation| operation.is_null() || operation["responses"].get(status.to_string()).is_some())
}

/// Every table of the shop, its engine, its queue and its gateway, with how many rows it has and a digest of
/// them. Only wrong passwords are remembered on purpose.
async fn contents(pool: &PgPool) -> Vec<(String, i64, i64)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', table_schema, table_name) from information_schema.tables
          where table_schema in ('public', 'engine', 'apalis', 'sandbox', 'dev') and table_type = 'BASE TABLE'
            and table_name <> 'login_failures'
          order by 1",
    )
    .fetch_all(pool)
    .await
    .expect("the tables");
    assert!(tables.len() > 30, "{tables:?}");
    let counts: Vec<String> = tables
        .iter()
        .map(|table| format!("select '{table}', count(*), coalesce(sum(hashtext(t::text)), 0)::bigint from {table} t"))
        .collect();
    sqlx::query_as(sqlx::AssertSqlSafe(counts.join(" union all ") + " order by 1"))
        .fetch_all(pool)
        .await
        .expect("the contents")
}

/// A shop with a shopper whose cart could be bought at once.
async fn open() -> (Server, Shopper) {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    (server, asha)
}

fn post(shopper: &Shopper, path: &str) -> RequestBuilder {
    shopper.request(Method::POST, path).header("idempotency-key", Uuid::now_v7().to_string())
}

fn raw(request: RequestBuilder, body: impl Into<reqwest::Body>) -> RequestBuilder {
    request.header("content-type", "application/json").body(body)
}

/// A checkout that would be accepted, but for what is at this place.
fn checkout_with(place: &str, value: Value) -> Value {
    let mut request = payment("tok_ok");
    let (parent, name) = place.rsplit_once('/').expect("a pointer");
    request.pointer_mut(parent).expect("a place")[name] = value;
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_request_of_ours_is_refused() {
    let (server, asha) = open().await;
    let mut cases = Vec::new();
    for path in ["/api/checkout", "/api/cart/items", "/api/auth/register"] {
        let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
        let deep_member = format!("{{\"a\":{}1{}}}", "{\"a\":".repeat(500), "}".repeat(500));
        let oversized = format!("\"{}\"", "x".repeat(256 * 1024));
        for (name, body, status, code) in [
            ("half an object", "{\"variantId\":".to_owned(), 400, "malformed-json"),
            ("nothing", String::new(), 400, "malformed-json"),
            ("two values", "{} {}".to_owned(), 400, "malformed-json"),
            ("a bare word", "yes".to_owned(), 400, "malformed-json"),
            ("a number beyond all bounds", "{\"quantity\":1e999}".to_owned(), 400, "malformed-json"),
            ("arrays too deep", deep, 400, "malformed-json"),
            ("objects too deep", deep_member, 400, "malformed-json"),
            ("too many bytes", oversized, 413, "body-too-large"),
            ("a list", "[]".to_owned(), 422, "validation-failed"),
            ("null", "null".to_owned(), 422, "validation-failed"),
            ("a text", "\"LAP-001\"".to_owned(), 422, "validation-failed"),
            ("an empty object", "{}".to_owned(), 422, "validation-failed"),
            ("U+0000", "{\"variantId\":\"LAP\\u0000\",\"quantity\":1}".to_owned(), 422, "validation-failed"),
            ("U+202E", "{\"variantId\":\"LAP\\u202e\",\"quantity\":1}".to_owned(), 422, "validation-failed"),
            ("the same field twice", "{\"quantity\":1,\"quantity\":2}".to_owned(), 422, "validation-failed"),
        ] {
            cases.push(case(format!("{name} to {path}"), raw(post(&asha, path), body), status, code));
        }
        let bytes = raw(post(&asha, path), vec![b'"', 0xff, 0xfe, b'"']);
        cases.push(case(format!("no UTF-8 to {path}"), bytes, 400, "malformed-json"));
        let text = post(&asha, path).header("content-type", "text/plain").body(payment("tok_ok").to_string());
        cases.push(case(format!("text/plain to {path}"), text, 415, "unsupported-media-type"));
        let form = post(&asha, path).form(&[("variantId", "LAP-001")]);
        cases.push(case(format!("a form to {path}"), form, 415, "unsupported-media-type"));
    }
    refuse(&server, cases).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_takes_only_what_is_sold_in_whole_pieces() {
    let (server, asha) = open().await;
    let mut cases = Vec::new();
    for (quantity, code) in [
        (json!(-1), "quantity-invalid"),
        (json!(0), "quantity-invalid"),
        (json!(1000), "quantity-invalid"),
        (json!(i64::MIN), "quantity-invalid"),
        (json!(i64::MAX), "quantity-invalid"),
        (json!(u64::MAX), "validation-failed"),
        (json!(1.5), "validation-failed"),
        (json!("1"), "validation-failed"),
        (json!(true), "validation-failed"),
        (json!(null), "validation-failed"),
        (json!([1]), "validation-failed"),
    ] {
        let body = json!({ "variantId": "LAP-001", "quantity": quantity });
        cases.push(case(format!("add {body}"), post(&asha, "/api/cart/items").json(&body), 422, code).at("/quantity"));
        if quantity != 0 {
            let change = asha.request(Method::PATCH, "/api/cart/items/LAP-001").json(&json!({ "quantity": quantity }));
            cases.push(case(format!("change to {quantity}"), change, 422, code).at("/quantity"));
        }
    }
    let add = |body: Value| post(&asha, "/api/cart/items").json(&body);
    #[rustfmt::skip]
    let others = [
        case("no quantity", add(json!({ "variantId": "LAP-001" })), 422, "validation-failed").at("/quantity"),
        case("no variant", add(json!({ "quantity": 1 })), 422, "validation-failed").at("/variantId"),
        case("a number for a variant", add(json!({ "variantId": 1, "quantity": 1 })), 422, "validation-failed").at("/variantId"),
        case("a price", add(json!({ "variantId": "LAP-001", "quantity": 1, "price": "1.00" })), 422, "validation-failed").at("/price"),
        case("an unknown SKU", add(json!({ "variantId": "LAP-999", "quantity": 1 })), 404, "variant-not-found"),
        case("an empty SKU", add(json!({ "variantId": "", "quantity": 1 })), 404, "variant-not-found"),
        case("an endless SKU", add(json!({ "variantId": "L".repeat(10_000), "quantity": 1 })), 422, "validation-failed").at("/variantId"),
        case("SQL for a SKU", add(json!({ "variantId": "' or 1=1 --", "quantity": 1 })), 404, "variant-not-found"),
        case("an unknown id", add(json!({ "variantId": Uuid::now_v7(), "quantity": 1 })), 404, "variant-not-found"),
        case("of another product", add(json!({ "variantId": "LAP-001", "productId": "LTD-010-P", "quantity": 1 })), 404, "variant-not-found"),
        case("more than there are", add(json!({ "variantId": "LTD-001", "quantity": 2 })), 409, "out-of-stock"),
        case("change what is not there", asha.request(Method::PATCH, "/api/cart/items/LTD-001").json(&json!({ "quantity": 1 })), 404, "item-not-in-cart"),
        case("remove what is not there", asha.request(Method::DELETE, "/api/cart/items/nothing"), 404, "item-not-in-cart"),
        case("an unknown coupon", post(&asha, "/api/cart/coupons").json(&json!({ "code": "NO-SUCH" })), 409, "coupon-invalid"),
        case("a coupon without a code", post(&asha, "/api/cart/coupons").json(&json!({})), 422, "validation-failed").at("/code"),
        case("an outdated version", add(json!({ "variantId": "LAP-001", "quantity": 1 })).header("if-match", "\"0\""), 412, "version-mismatch"),
        case("a stranger's first step", server.door.request(Method::POST, "/api/cart/items").json(&json!({ "variantId": "LAP-999", "quantity": 1 })), 404, "variant-not-found"),
    ];
    cases.extend(others);
    refuse(&server, cases).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_says_where_it_is_wrong() {
    let (server, asha) = open().await;
    let saved = json!(Uuid::now_v7());
    #[rustfmt::skip]
    let table = [
        ("/giftWrap", json!(true), 422, "validation-failed", Some("/giftWrap")),
        ("/shippingMethod", json!("TELEPORT"), 422, "validation-failed", Some("/shippingMethod")),
        ("/shippingMethod", json!(null), 422, "validation-failed", Some("/shippingMethod")),
        ("/paymentMethod", json!("BARTER"), 422, "validation-failed", Some("/paymentMethod")),
        ("/paymentGateway", json!(7), 422, "validation-failed", Some("/paymentGateway")),
        ("/paymentGateway", json!(""), 422, "validation-failed", Some("/paymentGateway")),
        ("/paymentGateway", json!("cash"), 422, "gateway-unknown", Some("/paymentGateway")),
        ("/paymentToken", json!(""), 422, "validation-failed", Some("/paymentToken")),
        ("/paymentToken", json!("t".repeat(513)), 422, "validation-failed", Some("/paymentToken")),
        ("/paymentToken", json!({ "id": "tok_ok" }), 422, "validation-failed", Some("/paymentToken")),
        ("/expectedTotal", json!("-1"), 422, "validation-failed", Some("/expectedTotal")),
        ("/expectedTotal", json!("a lot"), 422, "validation-failed", Some("/expectedTotal")),
        ("/expectedTotal", json!("59049.99"), 409, "price-changed", None),
        ("/cartId", json!("mine"), 422, "validation-failed", Some("/cartId")),
        ("/cartId", json!(Uuid::now_v7()), 404, "cart-not-found", None),
        ("/couponCodes", json!("SAVE20"), 422, "validation-failed", Some("/couponCodes")),
        ("/couponCodes", json!(["SAVE20", ""]), 422, "validation-failed", Some("/couponCodes/1")),
        ("/couponCodes", json!(["NO-SUCH"]), 409, "coupon-invalid", None),
        ("/couponCodes", json!(vec!["SAVE20"; 11]), 422, "validation-failed", Some("/couponCodes")),
        ("/shippingAddress", json!(null), 422, "validation-failed", Some("/shippingAddress")),
        ("/shippingAddress", json!("Mumbai"), 422, "validation-failed", Some("/shippingAddress")),
        ("/shippingAddress/city", json!(""), 422, "validation-failed", Some("/shippingAddress/city")),
        ("/shippingAddress/city", json!("x".repeat(101)), 422, "validation-failed", Some("/shippingAddress/city")),
        ("/shippingAddress/city", json!(null), 422, "validation-failed", Some("/shippingAddress/city")),
        ("/shippingAddress/country", json!(""), 422, "validation-failed", Some("/shippingAddress/country")),
        ("/shippingAddress/postalCode", json!(" "), 422, "validation-failed", Some("/shippingAddress/postalCode")),
        ("/shippingAddress/phoneNumber", json!(""), 422, "validation-failed", Some("/shippingAddress/phoneNumber")),
        ("/shippingAddress/recipientName", json!("a\0b"), 422, "validation-failed", Some("/shippingAddress/recipientName")),
        ("/shippingAddress/planet", json!("Mars"), 422, "validation-failed", Some("/shippingAddress/planet")),
        ("/shippingAddressId", saved.clone(), 422, "validation-failed", Some("/shippingAddressId")),
        ("/billingAddressId", saved, 422, "address-not-found", None),
        ("/billingAddress", json!({}), 422, "validation-failed", Some("/billingAddress/recipientName")),
    ];
    let cases = table.into_iter().map(|(place, value, status, code, pointer)| {
        let request = post(&asha, "/api/checkout").json(&checkout_with(place, value.clone()));
        Case { pointer, ..case(format!("{place} is {value}"), request, status, code) }
    });
    refuse(&server, cases.collect()).await;
    let before = contents(&server.pool).await;
    let ben = server.shopper("ben").await;
    assert_ne!(contents(&server.pool).await, before, "what is written would be noticed");
    refuse(
        &server,
        vec![case("nothing to buy", post(&ben, "/api/checkout").json(&payment("tok_ok")), 409, "cart-empty")],
    )
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn card_data_is_refused_and_not_echoed() {
    let (server, asha) = open().await;
    const CARD: &str = "4111111111111111";
    let places = [
        ("/cardNumber", json!(CARD)),
        ("/card_number", json!("none of your business")),
        ("/cvv", json!("123")),
        ("/expiryDate", json!("12/30")),
        ("/card", json!({ "number": CARD })),
        ("/paymentToken", json!(CARD)),
        ("/paymentToken", json!("4111 1111 1111 1111")),
        ("/paymentToken", json!("4111-1111-1111-1111")),
        ("/paymentToken", json!(4_111_111_111_111_111_u64)),
        ("/paymentToken", json!(format!("tok_{CARD}"))),
        ("/paymentToken", json!(format!("pm_{CARD}"))),
        ("/paymentToken", json!("pm_4111\u{200b}1111\u{200c}1111\u{2060}1111")),
        ("/paymentToken", json!("4111.1111.1111.1111")),
        ("/shippingAddress/addressLine2", json!("4111\u{feff}111111111111")),
        ("/shippingAddress/addressLine2", json!("c/o \u{ff14}\u{ff11}11 1111 1111 1111")),
        ("/shippingAddress/recipientName", json!("\u{664}\u{661}\u{661}\u{661}111111111111")),
        ("/shippingAddress/addressLine1", json!("4111/1111/1111/1111")),
        ("/shippingAddress/addressLine1", json!("4111_1111_1111_1111")),
        ("/shippingAddress/addressLine2", json!(format!("c/o {CARD}"))),
        ("/shippingAddress/pan", json!("x")),
        ("/couponCodes", json!(["SAVE20", CARD])),
        ("/4111111111111111", json!("x")),
    ];
    let untouched = contents(&server.pool).await;
    for (place, value) in places {
        let body = checkout_with(place, value);
        let answer = post(&asha, "/api/checkout").json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 422, "{place}");
        let text = answer.text().await.expect("a body");
        assert!(text.contains("card-data-refused") && !text.contains("4111"), "{place}: {text}");
        assert_eq!(contents(&server.pool).await, untouched, "{place}: something was written");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_who_he_says_is_refused() {
    let (server, asha) = open().await;
    let door = |method: Method, path: &str| server.door.request(method, path);
    let buy = |request: RequestBuilder| request.header("idempotency-key", "k").json(&payment("tok_ok"));
    let account = |body: Value| door(Method::POST, "/api/auth/register").json(&body);
    let login = |email: &str, password: &str| {
        door(Method::POST, "/api/auth/login").json(&json!({ "email": email, "password": password }))
    };
    let no_signature = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIwMTk4MDAwMC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDAiLCJyb2xlIjoiQURNSU4iLCJpYXQiOjAsImV4cCI6OTk5OTk5OTk5OX0.";
    #[rustfmt::skip]
    let mut cases = vec![
        case("nobody buys", buy(door(Method::POST, "/api/checkout")), 401, "login-required"),
        case("nobody asks who he is", door(Method::GET, "/api/me"), 401, "login-required"),
        case("nobody lists orders", door(Method::GET, "/api/orders"), 401, "login-required"),
        case("an unknown API key", door(Method::GET, "/api/me").header("x-api-key", "guessed"), 401, "login-required"),
        case("nobody looks at the stock", door(Method::GET, "/api/inventory/LAP-001"), 401, "login-required"),
        case("a customer looks at the stock", asha.request(Method::GET, "/api/inventory/LAP-001"), 403, "forbidden"),
        case("a wrong password", login("asha@example.com", "wrong horse"), 401, "invalid-credentials"),
        case("an unknown address", login("nobody@example.com", "wrong horse"), 401, "invalid-credentials"),
        case("a made-up refresh token", door(Method::POST, "/api/auth/refresh").json(&json!({ "refreshToken": "x" })), 401, "invalid-refresh-token"),
        case("a taken address", account(json!({ "email": "Asha@Example.com", "password": "correct horse" })), 409, "email-taken"),
        case("a short password", account(json!({ "email": "a@example.com", "password": "seven 7" })), 422, "validation-failed").at("/password"),
        case("an endless password", account(json!({ "email": "a@example.com", "password": "x".repeat(129) })), 422, "validation-failed").at("/password"),
        case("no e-mail address", account(json!({ "email": "asha", "password": "correct horse" })), 422, "validation-failed").at("/email"),
        case("a header in an address", account(json!({ "email": "a@example.com\r\nBcc: b@example.com", "password": "correct horse" })), 422, "validation-failed").at("/email"),
        case("a role of one's choice", account(json!({ "email": "a@example.com", "password": "correct horse", "role": "ADMIN" })), 422, "validation-failed").at("/role"),
    ];
    for token in ["Bearer nonsense", "Bearer ", "Basic YTpi", no_signature, &format!("Bearer {no_signature}")] {
        for path in ["/api/me", "/api/cart", "/api/orders", "/api/inventory/LAP-001"] {
            let request = door(Method::GET, path).header("authorization", token);
            cases.push(case(format!("{token} to {path}"), request, 401, "login-required"));
        }
        let request = buy(door(Method::POST, "/api/checkout")).header("authorization", token);
        cases.push(case(format!("{token} buys"), request, 401, "login-required"));
    }
    refuse(&server, cases).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_asked_rightly_is_refused() {
    let (server, asha) = open().await;
    let get = |path: &str| asha.request(Method::GET, path);
    let buy =
        |key: &str| asha.request(Method::POST, "/api/checkout").header("idempotency-key", key).json(&payment("tok_ok"));
    let clock =
        |seconds: Value| asha.request(Method::POST, "/api/dev/clock").json(&json!({ "advanceSeconds": seconds }));
    let unknown = Uuid::now_v7();
    #[rustfmt::skip]
    let mut cases = vec![
        case("no key", asha.request(Method::POST, "/api/checkout").json(&payment("tok_ok")), 400, "idempotency-key-required"),
        case("an empty key", buy(" "), 400, "idempotency-key-invalid"),
        case("an endless key", buy(&"k".repeat(256)), 400, "idempotency-key-invalid"),
        case("no such path", get("/api/nothing"), 404, "not-found"),
        case("no text", get("/api/orders/%ff"), 404, "not-found"),
        case("U+0000 for an order", get("/api/orders/%00"), 422, "validation-failed"),
        case("U+0000 for a product", get("/api/products/%00"), 422, "validation-failed"),
        case("U+0000 for a variant", asha.request(Method::DELETE, "/api/cart/items/%00"), 404, "item-not-in-cart"),
        case("U+0000 for a SKU", get("/api/inventory/check?sku=%00"), 422, "validation-failed"),
        case("no such method", asha.request(Method::PUT, "/api/cart"), 405, "method-not-allowed"),
        case("back in time", clock(json!(-1)), 422, "validation-failed").at("/advanceSeconds"),
        case("to the end of time", clock(json!(u64::MAX)), 422, "validation-failed").at("/advanceSeconds"),
        case("a wait that is no number", get(&format!("/api/checkout/{unknown}?wait=long")), 422, "validation-failed").at("/wait"),
        case("a wait for nothing", get(&format!("/api/checkout/{unknown}?for=godot")), 422, "validation-failed"),
        case("no order to look up", get("/api/dev/gateway/payments"), 422, "validation-failed").at("/orderId"),
        case("an order that is no id", get("/api/dev/gateway/payments?orderId=1"), 422, "validation-failed").at("/orderId"),
        case("an unknown cart", post(&asha, "/api/coupons/validate").json(&json!({ "code": "SAVE20", "cartId": unknown })), 404, "cart-not-found"),
        case("an unknown SKU", get("/api/inventory/check?sku=LAP-999&quantity=1"), 404, "variant-not-found"),
        case("less than nothing", get("/api/inventory/check?sku=LAP-001&quantity=-1"), 422, "quantity-invalid").at("/quantity"),
    ];
    for id in [
        unknown.to_string(),
        "1".to_owned(),
        "ORD0000000000".to_owned(),
        "%27%20or%201%3D1".to_owned(),
        "x".repeat(5000),
    ] {
        #[rustfmt::skip]
        let lookups = [
            case(format!("order {id}"), get(&format!("/api/orders/{id}")), 404, "order-not-found"),
            case(format!("history of {id}"), get(&format!("/api/orders/{id}/history")), 404, "order-not-found"),
            case(format!("checkout {id}"), get(&format!("/api/checkout/{id}")), 404, "checkout-not-found"),
            case(format!("give up {id}"), asha.request(Method::DELETE, &format!("/api/checkout/{id}")), 404, "checkout-not-found"),
            case(format!("product {id}"), get(&format!("/api/products/{id}")), 404, "product-not-found"),
        ];
        cases.extend(lookups);
    }
    for path in ["/api/orders", "/api/products"] {
        for (query, pointer) in [
            ("limit=0", "/limit"),
            ("limit=201", "/limit"),
            ("limit=-1", "/limit"),
            ("limit=many", "/limit"),
            ("limit=99999999999999999999", "/limit"),
            ("cursor=!!", "/cursor"),
            ("cursor=e30", "/cursor"),
            ("cursor=bnVsbA", "/cursor"),
        ] {
            cases.push(
                case(format!("{path}?{query}"), get(&format!("{path}?{query}")), 422, "validation-failed").at(pointer),
            );
        }
    }
    refuse(&server, cases).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_the_gateway_did_not_sign_is_refused() {
    let server = Server::open_idle().await;
    let body = json!({
        "type": "payment.captured",
        "data": { "gatewayPaymentId": "sbx_1", "orderId": Uuid::now_v7(), "amount": "59050.00", "currency": "INR" }
    });
    let hook = |gateway: &str| server.door.request(Method::POST, &format!("/api/webhooks/{gateway}"));
    let now = chrono::Utc::now().timestamp().to_string();
    let signed = |signature: &str| {
        hook("sandbox")
            .header("webhook-id", "evt_1")
            .header("webhook-timestamp", &now)
            .header("webhook-signature", signature)
            .json(&body)
    };
    let forged = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=";
    #[rustfmt::skip]
    let cases = vec![
        case("no signature", hook("sandbox").json(&body), 400, "bad-signature"),
        case("a forged signature", signed(forged), 400, "bad-signature"),
        case("an empty signature", signed(""), 400, "bad-signature"),
        case("another scheme", signed("v1a,AAAA"), 400, "bad-signature"),
        case("no time", hook("sandbox").header("webhook-id", "evt_1").header("webhook-signature", forged).json(&body), 400, "bad-signature"),
        case("no JSON", raw(hook("sandbox"), "?"), 400, "bad-signature"),
        case("too much", raw(hook("sandbox"), vec![b' '; 256 * 1024 + 1]), 413, "body-too-large"),
        case("an unknown gateway", hook("nobody").json(&body), 404, "gateway-not-found"),
    ];
    refuse(&server, cases).await;
    server.stop().await;
}
