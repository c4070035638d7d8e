//! Shoppers who check out over HTTP and do not give up when the shop is away for a moment.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use api::AuthKeys;
use chrono::Utc;
use domain::ids::UserId;
use futures::{StreamExt, stream};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;
use workflows::store::users::Role;

use super::deployment::{Deployment, JWT_SECRET};
use crate::{
    patience::PATIENCE,
    server::{Door, Shopper as Customer, payment},
};

/// Shoppers at the till at the same time.
const AT_ONCE: usize = 16;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody with a cart.
#[derive(Debug, Clone)]
pub struct Shopper {
    pub user: UserId,
    pub cart: Uuid,
    pub token: String,
}

/// How a shopper's checkout goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Pays,
    /// To the courier.
    PaysCash,
    IsDeclined,
    /// By 3-D Secure.
    Approves,
    /// At 3-D Secure.
    GivesUp,
    /// At once: the payment may be quicker.
    ChangesMind,
}

/// Four of five go through; the rest ends every other way there is.
pub fn mixed(nth: usize) -> Way {
    match nth % 10 {
        3 => Way::IsDeclined,
        5 | 8 => Way::Approves,
        6 => Way::GivesUp,
        9 => Way::ChangesMind,
        _ => Way::Pays,
    }
}

/// `count` registered shoppers, each with one thing in the cart; the things take turns.
pub async fn with_full_carts(pool: &PgPool, count: usize) -> Vec<Shopper> {
    let keys = AuthKeys::new(&JWT_SECRET.into()).expect("keys");
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    let carts: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    sqlx::query(
        "insert into users (id, email, password_hash) select id, id || '@example.com', 'x' from unnest($1) as t(id)",
    )
    .bind(&ids)
    .execute(pool)
    .await
    .expect("users");
    sqlx::query("insert into carts (id, user_id) select c, u from unnest($1, $2) as t(c, u)")
        .bind(&carts)
        .bind(&ids)
        .execute(pool)
        .await
        .expect("carts");
    sqlx::query(
        "with shelf as (select id, price, row_number() over (order by sku) - 1 as place, count(*) over () as places
                          from product_variants)
         insert into cart_items (cart_id, variant_id, quantity, price)
         select t.cart, s.id, 1, s.price
           from unnest($1) with ordinality as t(cart, nth) join shelf s on s.place = t.nth % s.places",
    )
    .bind(&carts)
    .execute(pool)
    .await
    .expect("full carts");
    ids.into_iter()
        .zip(carts)
        .map(|(id, cart)| {
            let user = UserId::from(id);
            Shopper { user, cart, token: keys.issue(user, Role::Customer, Utc::now()).expect("a token") }
        })
        .collect()
}

/// All of them check out, some at the same time. Answers the workflow ids that were acknowledged;
/// `acknowledged` counts them meanwhile.
pub async fn check_out(
    shop: &Deployment,
    shoppers: &[Shopper],
    way: impl Fn(usize) -> Way,
    acknowledged: &AtomicUsize,
) -> Vec<Uuid> {
    stream::iter(shoppers.iter().enumerate().map(|(nth, shopper)| {
        let way = way(nth);
        async move {
            let till = Till::of(shop, shopper);
            let workflow = till.pay(way).await;
            acknowledged.fetch_add(1, Ordering::Relaxed);
            till.go_on(way, workflow).await;
            workflow
        }
    }))
    .buffer_unordered(AT_ONCE)
    .collect()
    .await
}

/// A shopper at the till.
pub struct Till {
    pub door: Door,
    pub customer: Customer,
    cart: Uuid,
}

impl Till {
    pub fn of(shop: &Deployment, shopper: &Shopper) -> Till {
        let door = Door::new(shop.client.clone(), shop.api_url.clone());
        let customer = Customer::with_token(door.clone(), String::new(), shopper.token.clone());
        Till { door, customer, cart: shopper.cart }
    }

    async fn pay(&self, way: Way) -> Uuid {
        let (method, token) = match way {
            Way::Pays | Way::ChangesMind => ("UPI", json!("tok_ok")),
            Way::PaysCash => ("COD", Value::Null),
            Way::IsDeclined => ("UPI", json!("tok_declined")),
            Way::Approves | Way::GivesUp => ("UPI", json!("tok_3ds")),
        };
        let accepted = self.post(json!({ "paymentMethod": method, "paymentToken": token })).await;
        accepted["workflowId"].as_str().expect("a workflow").parse().expect("an id")
    }

    /// Checks out, paid like this; the answer.
    pub async fn post(&self, paid: Value) -> Value {
        let mut body = payment("");
        body["cartId"] = json!(self.cart);
        for (name, value) in paid.as_object().expect("how it is paid") {
            body[name] = value.clone();
        }
        // The same key each time: an answer that was lost is given again.
        let key = self.cart.to_string();
        let request =
            || self.customer.request(Method::POST, "/api/checkout").header("Idempotency-Key", &key).json(&body);
        let accepted = self.insist("POST /api/checkout", &[StatusCode::ACCEPTED], request).await;
        accepted.json().await.expect("an answer")
    }

    async fn go_on(&self, way: Way, workflow: Uuid) {
        let this = format!("/api/checkout/{workflow}");
        let give_up = || self.customer.request(Method::DELETE, &this);
        match way {
            Way::Pays | Way::PaysCash | Way::IsDeclined => {}
            Way::Approves => {
                let url = self.page(&this).await;
                // A form on the gateway's page: it knows no token.
                let approve = || self.door.request(Method::POST, &format!("{url}/approve"));
                self.insist("approve", &[StatusCode::OK], approve).await;
            }
            Way::GivesUp => {
                self.page(&this).await;
                self.insist("DELETE", &[StatusCode::ACCEPTED], give_up).await;
            }
            Way::ChangesMind => {
                let either = [StatusCode::ACCEPTED, StatusCode::CONFLICT];
                self.insist("DELETE", &either, give_up).await;
            }
        }
    }

    /// Where the shopper approves the payment.
    async fn page(&self, this: &str) -> String {
        let begun = Instant::now();
        loop {
            let show = || self.customer.request(Method::GET, &format!("{this}?wait=5"));
            let view: Value = match self.insist("GET", &[StatusCode::OK], show).await.json().await {
                Ok(view) => view,
                Err(_) => continue,
            };
            if let Some(url) = view["nextAction"]["url"].as_str() {
                return url.to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "nothing to approve: {view}");
        }
    }

    /// Asks until the shop answers one of `wanted`. Only what a client may repeat is repeated.
    pub async fn insist(&self, what: &str, wanted: &[StatusCode], request: impl Fn() -> RequestBuilder) -> Response {
        let begun = Instant::now();
        loop {
            let heard = match request().send().await {
                Ok(answer) if wanted.contains(&answer.status()) => return answer,
                Ok(answer) => {
                    let (status, retry) = (answer.status(), answer.headers().contains_key("retry-after"));
                    let text = answer.text().await.unwrap_or_default();
                    assert!(status.is_server_error() || retry, "{what}: {status} {text}");
                    format!("{status} {text}")
                }
                Err(error) => error.to_string(),
            };
            assert!(begun.elapsed() < PATIENCE, "{what}: {heard}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
