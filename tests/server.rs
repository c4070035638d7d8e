//! The whole shop in the test's own process, from its library crates: database, sandbox gateway, API,
//! worker pool and scheduler, each talking to the others over real HTTP.

mod front;
mod shelves;
mod shopper;

use std::sync::{Arc, Once};

use adapters::{notify::DevMailbox, payments::SandboxGateway, redis::Redis};
use api::{ApiConfig, AppState, AuthKeys, DevState};
use chrono::Utc;
use domain::ids::UserId;
use engine::testing::{Fault, Once as Strike, Point, TestWorker};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use workers::PoolOptions;
use workflows::{Rules, Shop, store::users::Role};

pub use front::Front;
pub use shelves::notices;
pub use shopper::{Answer, Checkout, Door, Shopper, payment};

use crate::{
    patience::{in_time, until},
    world::{assert_books, database_named},
};

/// What both sides of the sandbox's webhooks know.
const WEBHOOK_SECRET: &str = "whsec_ZGV2LXNlY3JldA==";
const JWT_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Past the payment window (8 minutes), before the end of the hold (10 minutes).
pub const WINDOW_S: u64 = 481;

/// A shop that serves.
pub struct Server {
    pub pool: PgPool,
    pub shop: Arc<Shop>,
    pub door: Door,
    gateway_url: String,
    keys: AuthKeys,
    stop: CancellationToken,
    parts: JoinSet<anyhow::Result<()>>,
}

impl Server {
    /// With everything running.
    pub async fn open() -> Server {
        Server::open_with(Rules::default()).await
    }

    /// The same by these rules.
    pub async fn open_with(rules: Rules) -> Server {
        let mut server = Server::open_by(rules, None).await;
        server.start_worker();
        server.start_scheduler();
        server
    }

    /// Without a worker or scheduler: what is accepted stays as it is.
    pub async fn open_idle() -> Server {
        Server::open_by(Rules::default(), None).await
    }

    /// The same by these rules, and with a Redis.
    pub async fn open_by(rules: Rules, redis: Option<Redis>) -> Server {
        let (pool, _) = database_named().await;
        sandbox::setup(&pool).await.expect("the sandbox's schema");
        DevMailbox::setup(&pool).await.expect("the mailbox");
        stock_shelves(&pool).await;

        let (listener, base) = listen().await;
        let (gateway_listener, gateway_url) = listen().await;
        let client = client();
        let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());

        let config = sandbox::Config {
            webhook_url: Some(format!("{base}/api/webhooks/sandbox")),
            webhook_secret: WEBHOOK_SECRET.to_owned(),
            public_url: gateway_url.clone(),
        };
        let stopped = stop.clone().cancelled_owned();
        let gateway_pool = pool.clone();
        parts.spawn(async move { Ok(sandbox::serve(gateway_listener, gateway_pool, config, stopped).await?) });

        let rules = Rules { public_url: base.clone(), ..rules };
        let mailbox = DevMailbox::new(pool.clone(), &rules.mail_from).expect("a sender");
        let gateway = SandboxGateway::new(&gateway_url, &WEBHOOK_SECRET.into(), client.clone()).expect("a gateway");
        let shop = Shop::new(rules, vec![Arc::new(gateway)], Some(Arc::new(mailbox.clone())));

        let keys = || AuthKeys::new(&JWT_SECRET.into()).expect("a secret");
        let state = AppState::new(pool.clone(), Arc::clone(&shop), keys(), ApiConfig::default()).with_dev(DevState {
            sandbox_url: gateway_url.clone(),
            mailbox,
            client: client.clone(),
        });
        let state = redis.into_iter().fold(state, AppState::with_redis);
        let stopped = stop.clone().cancelled_owned();
        parts.spawn(async move { Ok(api::serve(listener, state, stopped).await?) });

        Server { pool, shop, door: Door::new(client, base), gateway_url, keys: keys(), stop, parts }
    }

    /// Another API process' worth of the same shop, and its door.
    pub async fn another_api(&mut self, redis: Option<Redis>) -> Door {
        self.serve(redis, ApiConfig::default()).await
    }

    async fn serve(&mut self, redis: Option<Redis>, config: ApiConfig) -> Door {
        let (listener, base) = listen().await;
        let keys = AuthKeys::new(&JWT_SECRET.into()).expect("a secret");
        let state = AppState::new(self.pool.clone(), Arc::clone(&self.shop), keys, config);
        let state = redis.into_iter().fold(state, AppState::with_redis);
        let stopped = self.stop.clone().cancelled_owned();
        self.parts.spawn(async move { Ok(api::serve(listener, state, stopped).await?) });
        self.door.at(base)
    }

    /// An API process behind a proxy, which says who is asking.
    pub async fn behind_a_proxy(&mut self) -> Door {
        self.serve(None, ApiConfig { trusted_proxies: 1, ..ApiConfig::default() }).await
    }

    /// An API process that was started with other rules.
    pub async fn another_api_by(&mut self, rules: Rules) -> Door {
        let gateways = self.shop.gateways.values().cloned().collect();
        let shop = Shop::new(rules, gateways, self.shop.mailer.clone());
        let own = std::mem::replace(&mut self.shop, shop);
        let door = self.another_api(None).await;
        self.shop = own;
        door
    }

    pub fn start_worker(&mut self) {
        let options = PoolOptions { concurrency: 8, ..PoolOptions::default() };
        self.parts.spawn(workers::run(self.pool.clone(), workflows::registry(&self.shop), options, self.stop.clone()));
    }

    pub fn start_scheduler(&mut self) {
        self.parts.spawn(schedules::run(self.pool.clone(), self.stop.clone()));
    }

    /// A worker takes the checkout up and dies when it is about to carry out this step.
    pub async fn dies_before(&self, step: &str, checkout: &Checkout) {
        let strike = Strike::new(Point::Before, step, Fault::Crash);
        let registry = workflows::registry(&self.shop);
        let worker =
            TestWorker::new(&self.pool, registry, true, Some(Arc::clone(&strike) as _)).await.expect("a worker");
        worker.turn(checkout.workflow_id.parse().expect("a run's id")).await.expect("a turn");
        worker.die().await.expect("dead");
        assert!(strike.has_struck(), "no worker came to {step}");
    }

    /// Registered and logged in, over HTTP.
    pub async fn shopper(&self, name: &str) -> Shopper {
        Shopper::register(self.door.clone(), name).await
    }

    /// Somebody who works here, at the first call as at any other.
    pub async fn staff(&self) -> Shopper {
        self.worker("staff@example.com", Role::Staff).await
    }

    /// Who may do everything.
    pub async fn admin(&self) -> Shopper {
        self.worker("admin@example.com", Role::Admin).await
    }

    async fn worker(&self, email: &str, role: Role) -> Shopper {
        let known = sqlx::query_scalar::<_, Uuid>("select id from users where email = $1").bind(email);
        let user = match known.fetch_optional(&self.pool).await.expect("an answer") {
            Some(user) => user.into(),
            None => account(&self.pool, email, role.as_str()).await,
        };
        let token = self.keys.issue(user, role, Utc::now()).expect("a token");
        Shopper::with_token(self.door.clone(), email.to_owned(), token)
    }

    /// Another service of the shop, with a key for these scopes.
    pub async fn service(&self, scopes: &[&str]) -> Shopper {
        let secret = Uuid::now_v7().to_string();
        sqlx::query("insert into api_keys (id, name, key_hash, scopes) values ($1, $2, $3, $4)")
            .bind(Uuid::now_v7())
            .bind(&secret)
            .bind(api::tokens::token_hash(&secret).as_slice())
            .bind(scopes.iter().map(|scope| (*scope).to_owned()).collect::<Vec<_>>())
            .execute(&self.pool)
            .await
            .expect("a key");
        Shopper::with_key(self.door.clone(), secret)
    }

    /// So many shoppers at once, without hashing as many passwords.
    pub async fn crowd(&self, size: usize) -> Vec<Shopper> {
        let mut crowd = Vec::with_capacity(size);
        for _ in 0..size {
            let email = format!("shopper-{}@example.com", Uuid::now_v7());
            let user = account(&self.pool, &email, "CUSTOMER").await;
            let token = self.keys.issue(user, Role::Customer, Utc::now()).expect("a token");
            crowd.push(Shopper::with_token(self.door.clone(), email, token));
        }
        crowd
    }

    /// (available, reserved), as the staff sees it.
    pub async fn stock(&self, sku: &str) -> (i64, i64) {
        let stock = self.staff().await.get(&format!("/api/inventory/{sku}")).await.ok();
        let count = |name: &str| stock[name].as_i64().expect("a number");
        assert_eq!(count("totalQuantity"), count("availableQuantity") + count("reservedQuantity"));
        (count("availableQuantity"), count("reservedQuantity"))
    }

    /// What people did by their word, as the audit log has it: (action, to what, why), in order.
    pub async fn acts(&self) -> Vec<(String, String, Option<String>)> {
        sqlx::query_as("select action, subject, reason from audit_log where actor like 'user:%' order by id")
            .fetch_all(&self.pool)
            .await
            .expect("acts")
    }

    /// (used, held) of a coupon.
    pub async fn coupon(&self, code: &str) -> (i32, i32) {
        sqlx::query_as("select current_usage_count, held_count from coupons where code = $1")
            .bind(code)
            .fetch_one(&self.pool)
            .await
            .expect("a coupon")
    }

    /// What the gateway holds for an order: (status, captured, refunded) of each payment.
    pub async fn charges(&self, order_id: &str) -> Vec<(String, String, String)> {
        let answer = self.door.get(&format!("/api/dev/gateway/payments?orderId={order_id}")).await.ok();
        let items = answer["items"].as_array().expect("payments");
        let text = |item: &Value, name: &str| item[name].as_str().expect("text").to_owned();
        items
            .iter()
            .map(|item| (text(item, "status"), text(item, "capturedAmount"), text(item, "refundedAmount")))
            .collect()
    }

    /// The quarrel over a payment ends, or begins.
    pub async fn dispute(&self, gateway_payment_id: &str, status: &str) {
        let path = format!("{}/v1/dev/payments/{gateway_payment_id}/dispute", self.gateway_url);
        self.door.post(&path, &json!({ "status": status })).await.ok();
    }

    /// Moves the time that timers, holds and the gateway see.
    pub async fn advance(&self, seconds: u64) {
        self.door.post("/api/dev/clock", &json!({ "advanceSeconds": seconds })).await.ok();
    }

    /// Waits until nothing is left to do: no run is alive and no webhook under way.
    pub async fn quiet(&self) {
        until("nothing is under way", async || {
            let busy: Vec<String> = sqlx::query_scalar(
                "select workflow || ' ' || status || coalesce(' ' || waiting_for, '') from engine.runs
                 -- A reminder that is not due is nothing that is under way.
                  where waiting_for is distinct from 'sleep' or wake_at <= engine.now()
                 union all select kind from sandbox.webhooks where send_at is not null",
            )
            .fetch_all(&self.pool)
            .await
            .expect("what is under way");
            if busy.is_empty() { Ok(()) } else { Err(format!("{busy:?}")) }
        })
        .await;
    }

    /// Once everything has come to rest: the books balance, and every part stops well.
    pub async fn close(self) {
        self.quiet().await;
        self.stop().await;
    }

    /// The same with runs that nobody carries on.
    pub async fn stop(mut self) {
        assert_books(&self.pool, "at the end").await;
        self.stop.cancel();
        let all = async {
            while let Some(part) = self.parts.join_next().await {
                part.expect("no panic").expect("a graceful end");
            }
        };
        in_time("every part stops", all).await;
        self.pool.close().await;
    }
}

/// Talks to this machine only.
fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

async fn account(pool: &PgPool, email: &str, role: &str) -> UserId {
    let user = Uuid::now_v7();
    sqlx::query("insert into users (id, email, role, password_hash) values ($1, $2, $3, 'x')")
        .bind(user)
        .bind(email)
        .bind(role)
        .execute(pool)
        .await
        .expect("a user");
    user.into()
}

/// What a development shop sells that these tests buy, and its coupon.
async fn stock_shelves(pool: &PgPool) {
    for (sku, name, price, stock) in [
        ("LAP-001", "Laptop", Decimal::from(50_000), 100),
        ("LTD-010", "One of ten", Decimal::from(999), 10),
        ("LTD-001", "The only one", Decimal::from(999), 1),
    ] {
        sqlx::query(
            "with product as (
                insert into products (id, sku, product_name, base_price) values ($1, $3 || '-P', $4, $5)),
             variant as (
                insert into product_variants (id, product_id, sku, price) values ($2, $1, $3, $5)),
             stock as (
                insert into inventory (variant_id, available_quantity, low_stock_threshold) values ($2, $6, 0))
             insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
             values ($2, 'RESTOCK', $6, 0, now())",
        )
        .bind(Uuid::now_v7())
        .bind(Uuid::now_v7())
        .bind(sku)
        .bind(name)
        .bind(price)
        .bind(stock)
        .execute(pool)
        .await
        .expect("a product");
    }
    sqlx::query("insert into coupons (id, code, kind, value) values ($1, 'SAVE20', 'PERCENT', 20)")
        .bind(Uuid::now_v7())
        .execute(pool)
        .await
        .expect("a coupon");
}
