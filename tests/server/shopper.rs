//! A client of the shop that reads like a story.

use reqwest::{Client, Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::patience::until;

/// Where the shop is entered, by nobody in particular.
#[derive(Clone)]
pub struct Door {
    client: Client,
    base: String,
}

/// What the shop says.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null when it is not JSON.
    pub body: Value,
}

impl Door {
    pub fn new(client: Client, base: String) -> Self {
        Door { client, base }
    }

    /// Another door of the same shop.
    pub(super) fn at(&self, base: String) -> Door {
        Door { client: self.client.clone(), base }
    }

    /// For those who speak no HTTP, or not as they should.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// A path of the shop, or an address elsewhere.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with('/') { format!("{}{path}", self.base) } else { path.to_owned() };
        self.client.request(method, url)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::to(self.request(Method::POST, path).json(body)).await
    }
}

impl Answer {
    pub async fn to(request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("a body");
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// The body of a 2xx.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self.body
    }

    /// The problem of a refusal with this status and code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.body["status"], status);
        self.body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a readable header"))
    }
}

/// A checkout that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    pub workflow_id: String,
    pub order_id: String,
    pub order_number: String,
}

impl Checkout {
    #[track_caller]
    pub fn of(answer: Answer) -> Checkout {
        assert_eq!(answer.status, 202, "{}", answer.body);
        let text = |name: &str| answer.body[name].as_str().expect("text").to_owned();
        let checkout =
            Checkout { workflow_id: text("workflowId"), order_id: text("orderId"), order_number: text("orderNumber") };
        assert_eq!(answer.header("location"), Some(&*checkout.path()));
        checkout
    }

    pub fn path(&self) -> String {
        format!("/api/checkout/{}", self.workflow_id)
    }
}

/// A request to check out, delivered in Mumbai and paid with this token.
pub fn payment(token: &str) -> Value {
    json!({
        "shippingAddress": {
            "recipientName": "Asha Rao", "addressLine1": "12 Marine Drive", "city": "Mumbai", "state": "Maharashtra",
            "postalCode": "400001", "country": "India", "phoneNumber": "+919876543210"
        },
        "shippingMethod": "STANDARD", "paymentMethod": "CREDIT_CARD", "paymentToken": token,
    })
}

/// Somebody in the shop: logged in, or a guest with a cart.
#[derive(Clone)]
pub struct Shopper {
    door: Door,
    pub email: String,
    header: (&'static str, String),
}

impl Shopper {
    pub(super) async fn register(door: Door, name: &str) -> Shopper {
        let email = format!("{name}@example.com");
        let login = json!({ "email": email, "password": "correct horse" });
        let registered = door.post("/api/auth/register", &login).await;
        assert_eq!(registered.status, 201, "{}", registered.body);
        assert_eq!(registered.ok()["email"], email.as_str());
        let session = door.post("/api/auth/login", &login).await.ok();
        let token = session["accessToken"].as_str().expect("a token").to_owned();
        Shopper::with_token(door, email, token)
    }

    pub fn with_token(door: Door, email: String, token: String) -> Shopper {
        Shopper { door, email, header: ("authorization", format!("Bearer {token}")) }
    }

    /// Another service of the shop.
    pub(super) fn with_key(door: Door, secret: String) -> Shopper {
        Shopper { door, email: String::new(), header: ("x-api-key", secret) }
    }

    /// Not logged in; the first look at the cart gives a session.
    pub async fn guest(door: Door) -> Shopper {
        let cart = door.get("/api/cart").await.ok();
        let session = cart["cartSession"].as_str().expect("a session").to_owned();
        Shopper { door, email: String::new(), header: ("x-cart-session", session) }
    }

    /// A guest's secret.
    pub fn session(&self) -> &str {
        assert_eq!(self.header.0, "x-cart-session", "{} is no guest", self.email);
        &self.header.1
    }

    /// The same person in another process of the shop.
    pub fn at(&self, door: &Door) -> Shopper {
        Shopper { door: door.clone(), ..self.clone() }
    }

    /// What he is known by.
    pub fn header(&self) -> (&str, &str) {
        (self.header.0, &self.header.1)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.door.request(method, path).header(self.header.0, &self.header.1)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::DELETE, path)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        Answer::to(self.request(Method::PATCH, path).json(body)).await
    }

    /// Under a key of its own.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_under(&Uuid::now_v7().to_string(), path, body).await
    }

    pub async fn post_under(&self, key: &str, path: &str, body: &Value) -> Answer {
        Answer::to(self.request(Method::POST, path).header("idempotency-key", key).json(body)).await
    }

    pub async fn add(&self, sku: &str, quantity: u32) -> Value {
        self.post("/api/cart/items", &json!({ "variantId": sku, "quantity": quantity })).await.ok()
    }

    pub async fn cart(&self) -> Value {
        self.get("/api/cart").await.ok()
    }

    /// Asks to check out; the shop may refuse.
    pub async fn ask(&self, request: &Value) -> Answer {
        self.post("/api/checkout", request).await
    }

    pub async fn checkout(&self, token: &str) -> Checkout {
        Checkout::of(self.ask(&payment(token)).await)
    }

    /// How it stands once it is no longer RUNNING.
    pub async fn wait(&self, checkout: &Checkout) -> Value {
        self.stands(checkout, "wait=20", &[]).await
    }

    /// How it ended.
    pub async fn end(&self, checkout: &Checkout) -> Value {
        self.stands(checkout, "wait=30&for=end", &["WAITING_PAYMENT"]).await
    }

    async fn stands(&self, checkout: &Checkout, query: &str, under_way: &[&str]) -> Value {
        until("word of the checkout", async || {
            let view = self.get(&format!("{}?{query}", checkout.path())).await.ok();
            assert_eq!(view["orderId"], checkout.order_id.as_str());
            let is_under_way = ["RUNNING"].iter().chain(under_way).any(|status| view["status"] == **status);
            if is_under_way { Err(view.to_string()) } else { Ok(view) }
        })
        .await
    }

    /// The page on which the shopper approves or declines.
    pub async fn payment_page(&self, checkout: &Checkout) -> String {
        let view = self.wait(checkout).await;
        assert_eq!(view["status"], "WAITING_PAYMENT", "{view}");
        assert_eq!(view["nextAction"]["type"], "REDIRECT", "{view}");
        view["nextAction"]["url"].as_str().expect("a URL").to_owned()
    }

    /// Presses a button there.
    pub async fn press(&self, page: &str, button: &str) {
        let answer = Answer::to(self.door.request(Method::POST, &format!("{page}/{button}"))).await;
        assert_eq!(answer.status, 200);
    }

    pub async fn order(&self, checkout: &Checkout) -> Value {
        self.get(&format!("/api/orders/{}", checkout.order_id)).await.ok()
    }

    /// `PENDING`, then `PENDING → CONFIRMED`, and so on.
    pub async fn history(&self, checkout: &Checkout) -> Vec<String> {
        let history = self.get(&format!("/api/orders/{}/history", checkout.order_id)).await.ok();
        let items = history["items"].as_array().expect("items").iter();
        let line = |item: &Value| {
            let to = item["toStatus"].as_str().expect("a status");
            item["fromStatus"].as_str().map_or_else(|| to.to_owned(), |from| format!("{from} → {to}"))
        };
        items.map(line).collect()
    }

    /// The events of all e-mails so far, in the order of the alphabet.
    pub async fn mailbox(&self) -> Vec<String> {
        let mails = self.door.get(&format!("/api/dev/mailbox?to={}", self.email)).await.ok();
        let items = mails["items"].as_array().expect("items").iter();
        let mut events: Vec<String> = items.map(|mail| mail["event"].as_str().expect("an event").to_owned()).collect();
        events.sort();
        events
    }

    /// Waits until these are the events of all e-mails, in the order of the alphabet.
    pub async fn hears(&self, events: &[&str]) {
        until("every e-mail", async || {
            let heard = self.mailbox().await;
            if heard == events { Ok(()) } else { Err(format!("{} heard {heard:?}, not {events:?}", self.email)) }
        })
        .await;
    }
}
