//! The shop as its shoppers see it: HTTP and nothing else.

use std::{fmt, time::Duration};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use rust_decimal::Decimal;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, sleep},
};
use uuid::Uuid;
use workflows::checkout::status::Shown;

/// Accounts opened at once: hashing a password takes a whole core for a while.
const LOGINS_AT_ONCE: usize = 2;

/// Longer than the longest poll.
const ANSWER_PATIENCE: Duration = Duration::from_secs(45);

/// How long anything that happens by itself may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked at where the shop offers no long poll.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Everybody's; the database is gone when the demo ends.
const PASSWORD: &str = "demo-shopper";

/// What a shopper did not expect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Surprise {
    /// No answer, or one that cannot be read.
    #[error("{what}: {source}")]
    NoAnswer {
        /// What was asked.
        what: String,
        /// Why there was none.
        source: reqwest::Error,
    },
    /// Another answer.
    #[error("{what}: expected {expected}, got {actual}")]
    Other {
        /// What was looked at.
        what: String,
        /// What it should have been.
        expected: String,
        /// What it was.
        actual: String,
    },
}

/// Compares, and tells what differs.
pub(crate) fn expect<T: PartialEq + fmt::Debug>(what: &str, actual: T, expected: T) -> Result<(), Surprise> {
    if actual == expected {
        return Ok(());
    }
    Err(Surprise::Other { what: what.to_owned(), expected: format!("{expected:?}"), actual: format!("{actual:?}") })
}

/// Something that is sold.
#[derive(Debug, Deserialize)]
pub(crate) struct Product {
    pub(crate) variants: Vec<Variant>,
}

/// What is put into a cart, and how many pieces of it can be had.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Variant {
    pub(crate) sku: String,
    pub(crate) available_quantity: u32,
}

/// A line of a cart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Line {
    pub(crate) sku: String,
    pub(crate) quantity: u32,
}

/// A cart as its owner sees it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cart {
    cart: CartHead,
    items: Vec<Line>,
    price_breakdown: PriceBreakdown,
    cart_session: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CartHead {
    status: String,
}

#[derive(Debug, Deserialize)]
struct PriceBreakdown {
    total: String,
}

impl Cart {
    /// ACTIVE, CHECKOUT or ABANDONED.
    pub(crate) fn status(&self) -> &str {
        &self.cart.status
    }

    /// The lines, by SKU.
    pub(crate) fn lines(&self) -> Vec<Line> {
        sorted(&self.items)
    }

    /// With tax and shipping, as a decimal string.
    pub(crate) fn total(&self) -> &str {
        &self.price_breakdown.total
    }
}

/// Lines in an order that can be compared.
pub(crate) fn sorted(lines: &[Line]) -> Vec<Line> {
    let mut lines = lines.to_vec();
    lines.sort_by(|one, other| one.sku.cmp(&other.sku));
    lines
}

/// What `POST /api/checkout` came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// 202.
    Accepted(Accepted),
    /// 409 `out-of-stock`.
    OutOfStock,
}

/// The run that has the cart, and the order it will make.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    pub(crate) workflow_id: Uuid,
    pub(crate) order_id: Uuid,
}

/// How a checkout stands.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Checkout {
    pub(crate) status: Shown,
    pub(crate) failure: Option<Failure>,
    pub(crate) next_action: Option<NextAction>,
}

/// Why something did not come about: a checkout's failure, or a refusal.
#[derive(Debug, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: String,
}

/// Where the shopper must go to pay.
#[derive(Debug, Deserialize)]
pub(crate) struct NextAction {
    pub(crate) url: String,
}

/// An order as its owner sees it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    pub(crate) status: String,
    pub(crate) payment_status: String,
    pub(crate) total_amount: String,
    pub(crate) items: Vec<Line>,
}

/// What the gateway holds of one order's payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Money {
    /// Payments in which something was captured.
    pub(crate) captures: usize,
    pub(crate) captured: Decimal,
    pub(crate) refunded: Decimal,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GatewayPayment {
    captured_amount: Decimal,
    refunded_amount: Decimal,
}

#[derive(Debug, Deserialize)]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
}

/// The shop's address, and how to speak to it.
#[derive(Debug)]
pub(crate) struct Storefront {
    client: Client,
    base_url: String,
    sandbox_url: String,
    logins: Semaphore,
    pub(super) staff: OnceCell<String>,
}

impl Storefront {
    /// The shop at `base_url`, whose gateway is at `sandbox_url`; neither ends in a slash.
    pub(crate) fn new(client: Client, base_url: String, sandbox_url: String) -> Self {
        Storefront { client, base_url, sandbox_url, logins: Semaphore::new(LOGINS_AT_ONCE), staff: OnceCell::new() }
    }

    /// All that is sold.
    pub(crate) async fn products(&self) -> Result<Vec<Product>, Surprise> {
        let request = self.request(Method::GET, "/api/products?limit=200");
        Ok(answered::<Items<Product>>(request, StatusCode::OK).await?.items)
    }

    /// Moves the shop's time forward.
    pub(crate) async fn advance_clock(&self, by: Duration) -> Result<(), Surprise> {
        let request = self.request(Method::POST, "/api/dev/clock").json(&json!({ "advanceSeconds": by.as_secs() }));
        answered::<Value>(request, StatusCode::OK).await.map(drop)
    }

    /// Charges for an order past the shop, as a bank does that takes a refused payment up again.
    pub(crate) async fn charge_again(&self, order_id: Uuid, amount: &str, token: &str) -> Result<(), Surprise> {
        let charge = json!({
            "orderId": order_id, "attempt": 2, "amount": amount, "currency": "INR", "method": "CREDIT_CARD", "token": token,
        });
        let request = self
            .client
            .post(format!("{}/v1/payments", self.sandbox_url))
            .header("Idempotency-Key", format!("again-{order_id}"))
            .json(&charge);
        answered::<Value>(request, StatusCode::CREATED).await.map(drop)
    }

    /// What the gateway says about an order's money.
    pub(crate) async fn money(&self, order_id: Uuid) -> Result<Money, Surprise> {
        let request = self.request(Method::GET, &format!("/api/dev/gateway/payments?orderId={order_id}"));
        let payments = answered::<Items<GatewayPayment>>(request, StatusCode::OK).await?.items;
        Ok(Money {
            captures: payments.iter().filter(|payment| !payment.captured_amount.is_zero()).count(),
            captured: payments.iter().map(|payment| payment.captured_amount).sum(),
            refunded: payments.iter().map(|payment| payment.refunded_amount).sum(),
        })
    }

    /// Logs in.
    pub(super) async fn token(&self, credentials: &Value) -> Result<String, Surprise> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Session {
            access_token: String,
        }
        let request = self.request(Method::POST, "/api/auth/login").json(credentials);
        Ok(answered::<Session>(request, StatusCode::OK).await?.access_token)
    }

    /// A shopper with an account, logged in.
    pub(crate) async fn register(&self, number: usize) -> Result<Visit<'_>, Surprise> {
        let credentials = json!({ "email": format!("shopper-{number}@demo.example"), "password": PASSWORD });
        // The semaphore is never closed; if it were, only politeness would be lost.
        let _turn = self.logins.acquire().await;
        let request = self.request(Method::POST, "/api/auth/register").json(&credentials);
        answered::<Value>(request, StatusCode::CREATED).await?;
        let token = self.token(&credentials).await?;
        Ok(Visit { shop: self, number, proof: Proof::Token(token) })
    }

    /// A shopper without an account: a cart of their own is all they get.
    pub(crate) async fn guest(&self, number: usize) -> Result<Visit<'_>, Surprise> {
        let cart: Cart = answered(self.request(Method::GET, "/api/cart"), StatusCode::OK).await?;
        Ok(Visit { shop: self, number, proof: Proof::CartSession(cart.cart_session.unwrap_or_default()) })
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base_url)).timeout(ANSWER_PATIENCE)
    }
}

#[derive(Debug)]
pub(super) enum Proof {
    Token(String),
    CartSession(String),
}

/// One shopper in the shop.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    pub(super) shop: &'a Storefront,
    pub(super) number: usize,
    pub(super) proof: Proof,
}

impl Visit<'_> {
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.shop.request(method, path);
        match &self.proof {
            Proof::Token(token) => request.bearer_auth(token),
            Proof::CartSession(session) => request.header("X-Cart-Session", session),
        }
    }

    /// Puts something into the cart; `None` when it is sold out.
    pub(crate) async fn add(&self, line: &Line) -> Result<Option<Cart>, Surprise> {
        let body = json!({ "variantId": line.sku, "quantity": line.quantity });
        unless_sold_out(self.request(Method::POST, "/api/cart/items").json(&body), StatusCode::OK).await
    }

    /// Notes a coupon on the cart.
    pub(crate) async fn apply_coupon(&self, code: &str) -> Result<Cart, Surprise> {
        let request = self.request(Method::POST, "/api/cart/coupons").json(&json!({ "code": code }));
        answered(request, StatusCode::OK).await
    }

    /// The open cart; a new one after an order.
    pub(crate) async fn cart(&self) -> Result<Cart, Surprise> {
        answered(self.request(Method::GET, "/api/cart"), StatusCode::OK).await
    }

    /// In turn within the seller's state, in another one, and far away: the total is the same.
    pub(super) fn address(&self) -> Value {
        let (city, state, postal_code) =
            [("Pune", "Maharashtra", "411001"), ("Bengaluru", "Karnataka", "560001"), ("Guwahati", "Assam", "781001")]
                [self.number % 3];
        json!({
            "recipientName": format!("Shopper {}", self.number), "addressLine1": "1 Market Road", "city": city,
            "state": state, "postalCode": postal_code, "country": "IN", "phoneNumber": "+919800000000",
        })
    }

    /// Checks out at the total that was shown; `tab` tells two clicks of one shopper apart.
    pub(crate) async fn check_out(
        &self,
        total: &str,
        token: Option<&str>,
        tab: &str,
        saved: Option<Uuid>,
    ) -> Result<Placed, Surprise> {
        let mut body = json!({
            "expectedTotal": total,
            "shippingMethod": "STANDARD",
            "paymentMethod": if token.is_some() { "CREDIT_CARD" } else { "COD" },
        });
        match saved {
            Some(address_id) => body["shippingAddressId"] = json!(address_id),
            None => body["shippingAddress"] = self.address(),
        }
        if let Some(token) = token {
            body["paymentGateway"] = json!("sandbox");
            body["paymentToken"] = json!(token);
        }
        let request = self
            .request(Method::POST, "/api/checkout")
            .header("Idempotency-Key", format!("demo-{}-{tab}", self.number))
            .json(&body);
        let accepted = unless_sold_out(request, StatusCode::ACCEPTED).await?;
        Ok(accepted.map_or(Placed::OutOfStock, Placed::Accepted))
    }

    /// The checkout as soon as it has ended or waits for its payment.
    pub(crate) async fn awaits_payment(&self, workflow_id: Uuid) -> Result<Checkout, Surprise> {
        self.poll(workflow_id, "wait=20", |status| status != Shown::Running).await
    }

    /// The checkout as soon as it has ended.
    pub(crate) async fn ended(&self, workflow_id: Uuid) -> Result<Checkout, Surprise> {
        self.poll(workflow_id, "wait=20&for=end", |status| ![Shown::Running, Shown::WaitingPayment].contains(&status))
            .await
    }

    async fn poll(&self, workflow_id: Uuid, wait: &str, is_over: fn(Shown) -> bool) -> Result<Checkout, Surprise> {
        let begun = Instant::now();
        loop {
            let request = self.request(Method::GET, &format!("/api/checkout/{workflow_id}?{wait}"));
            let checkout: Checkout = answered(request, StatusCode::OK).await?;
            if is_over(checkout.status) {
                return Ok(checkout);
            }
            if begun.elapsed() >= PATIENCE {
                expect(
                    &format!("checkout {workflow_id} after {PATIENCE:?}"),
                    checkout.status.as_str(),
                    "one that has got on",
                )?;
            }
        }
    }

    /// Presses a button of the bank's page.
    pub(crate) async fn press(&self, page: &str, button: &str) -> Result<(), Surprise> {
        // The bank is another site: it is not shown who is logged in here.
        read(self.shop.client.post(format!("{page}/{button}")), StatusCode::OK).await.map(drop)
    }

    /// Gives the checkout up.
    pub(crate) async fn give_up(&self, workflow_id: Uuid) -> Result<(), Surprise> {
        let request = self.request(Method::DELETE, &format!("/api/checkout/{workflow_id}"));
        answered::<Value>(request, StatusCode::ACCEPTED).await.map(drop)
    }

    /// The order as it is now.
    pub(crate) async fn order(&self, order_id: Uuid) -> Result<Order, Surprise> {
        answered(self.request(Method::GET, &format!("/api/orders/{order_id}")), StatusCode::OK).await
    }

    /// The order as soon as its payment has that status, or as it is when it never has.
    pub(crate) async fn order_with_payment(&self, order_id: Uuid, status: &str) -> Result<Order, Surprise> {
        let begun = Instant::now();
        loop {
            let order = self.order(order_id).await?;
            if order.payment_status == status || begun.elapsed() >= PATIENCE {
                return Ok(order);
            }
            sleep(LOOK).await;
        }
    }
}

async fn read(request: RequestBuilder, expected: StatusCode) -> Result<Vec<u8>, Surprise> {
    let (what, status, body) = exchange(request).await?;
    expected_status(&what, status, &body, expected)?;
    Ok(body)
}

pub(super) async fn answered<T: DeserializeOwned>(
    request: RequestBuilder,
    expected: StatusCode,
) -> Result<T, Surprise> {
    let (what, status, body) = exchange(request).await?;
    expected_status(&what, status, &body, expected)?;
    parsed(&what, &body)
}

/// The answer, or `None` for a 409 `out-of-stock`.
async fn unless_sold_out<T: DeserializeOwned>(
    request: RequestBuilder,
    expected: StatusCode,
) -> Result<Option<T>, Surprise> {
    let (what, status, body) = exchange(request).await?;
    if status == StatusCode::CONFLICT && parsed::<Failure>(&what, &body)?.code == "out-of-stock" {
        return Ok(None);
    }
    expected_status(&what, status, &body, expected)?;
    parsed(&what, &body).map(Some)
}

async fn exchange(request: RequestBuilder) -> Result<(String, StatusCode, Vec<u8>), Surprise> {
    let (client, request) = request.build_split();
    let request = request.map_err(|source| Surprise::NoAnswer { what: "a request".to_owned(), source })?;
    let what = format!("{} {}", request.method(), request.url().path());
    let exchanged = async {
        let response = client.execute(request).await?;
        let status = response.status();
        Ok((status, response.bytes().await?))
    };
    match exchanged.await {
        Ok((status, body)) => Ok((what, status, body.into())),
        Err(source) => Err(Surprise::NoAnswer { what, source }),
    }
}

fn expected_status(what: &str, status: StatusCode, body: &[u8], expected: StatusCode) -> Result<(), Surprise> {
    if status == expected {
        return Ok(());
    }
    let actual = format!("{status} {}", String::from_utf8_lossy(body));
    Err(Surprise::Other { what: what.to_owned(), expected: expected.to_string(), actual })
}

fn parsed<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Surprise> {
    serde_json::from_slice(body).map_err(|error| Surprise::Other {
        what: what.to_owned(),
        expected: error.to_string(),
        actual: String::from_utf8_lossy(body).into_owned(),
    })
}
