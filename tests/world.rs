//! The fixture: databases that cost milliseconds, a small catalogue, and shoppers with full carts.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use domain::{
    address::Address,
    ids::{CartId, UserId},
    payment::PaymentMethod,
    pricing::ShippingMethod,
};
use embedded::{Cluster, Options};
use engine::{
    inspect,
    testing::{Faults, TestWorker},
};
use rust_decimal::Decimal;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::OnceCell;
use uuid::Uuid;
use workflows::{
    Rules, Shop, audit,
    checkout::accept::{self, Accepted, AddressChoice, Order, Refusal, Shopper},
};

use crate::{
    gateway::{Mails, ScriptedGateway},
    patience::{eventually, until},
};

const TEMPLATE: &str = "template_shop";

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The cluster of this test process. It is not durable: tests that pull its plug start their own.
pub async fn cluster() -> &'static Cluster {
    CLUSTER
        .get_or_init(|| async {
            // The server must outlive the runtime of the test that happens to come first.
            let started = std::thread::spawn(|| runtime().block_on(start_cluster())).join();
            started.expect("the thread that starts Postgres")
        })
        .await
}

/// A runtime that is never dropped.
fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().expect("a runtime"))
}

async fn start_cluster() -> Cluster {
    sweep_leftovers();
    // Hundreds of databases that live for a second each need no tidying.
    let settings = vec![("autovacuum".to_owned(), "off".to_owned())];
    let options = Options { durable: false, settings, ..Options::new(folder("fast")) };
    let cluster = Cluster::start(&options).await.expect("a private Postgres for the tests");
    cluster.ensure_database(TEMPLATE).await.expect("the template");
    let pool = PgPool::connect_with(cluster.connect_options(TEMPLATE)).await.expect("a connection");
    migrations::run(&pool).await.expect("migrated");
    pool.close().await;
    cluster
}

/// A folder of this process for one cluster. Under /tmp, because Postgres does not run as root and must
/// be able to reach it.
pub fn folder(cluster: &str) -> PathBuf {
    PathBuf::from(format!("/tmp/cart-engine-tests-{}-{cluster}", std::process::id()))
}

/// A process cannot remove its own folder when it ends, because its Postgres ends after it. The next
/// one removes those of the dead.
pub fn sweep_leftovers() {
    let Ok(entries) = std::fs::read_dir("/tmp") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix("cart-engine-tests-"));
        let pid = rest.and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if let Some(pid) = pid
            && !PathBuf::from(format!("/proc/{pid}")).exists()
        {
            // Somebody else's leftovers may not be ours to remove.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A fresh, migrated, empty database.
pub async fn database() -> PgPool {
    database_named().await.0
}

/// The same, with its URL for other processes.
pub async fn database_named() -> (PgPool, String) {
    let cluster = cluster().await;
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let admin = PgPool::connect_with(cluster.connect_options("postgres")).await.expect("a connection");
    let create = format!("create database {name} template {TEMPLATE}");
    // Two copies of one template at the same time are refused by Postgres 15 only for a moment.
    until("a database", async || sqlx::query(sqlx::AssertSqlSafe(create.clone())).execute(&admin).await).await;
    admin.close().await;
    // The shop has more statements than sqlx keeps prepared by itself.
    let options = cluster.connect_options(&name).statement_cache_capacity(500);
    let pool = PgPoolOptions::new().max_connections(20).connect_with(options).await.expect("a pool");
    (pool, cluster.url(&name))
}

/// Whether anybody waits for a lock in this database.
pub async fn somebody_is_blocked(pool: &PgPool) -> bool {
    let blocked =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    sqlx::query_scalar(blocked).fetch_one(pool).await.expect("an answer")
}

/// Waits until somebody waits for a lock in this database.
pub async fn until_blocked(pool: &PgPool) {
    eventually("somebody waits for a lock", async || somebody_is_blocked(pool).await).await;
}

/// A shop of three variants, its gateway and its mailbox, on a database of its own.
pub struct World {
    pub pool: PgPool,
    pub shop: Arc<Shop>,
    pub gateway: Arc<ScriptedGateway>,
    pub mails: Arc<Mails>,
}

/// What every variant starts with.
pub const STOCK: i32 = 10_000;

impl World {
    pub async fn new() -> World {
        World::with(Rules { default_gateway: "scripted".to_owned(), ..Rules::default() }).await
    }

    pub async fn with(rules: Rules) -> World {
        let pool = database().await;
        catalogue(&pool).await;
        let gateway = Arc::new(ScriptedGateway::default());
        let mails = Arc::new(Mails::default());
        let shop = Shop::new(rules, vec![Arc::clone(&gateway) as _], Some(Arc::clone(&mails) as _));
        World { pool, shop, gateway, mails }
    }

    /// A registered shopper with these variants (by SKU) in the cart.
    pub async fn shopper(&self, lines: &[(&str, i32)]) -> (UserId, CartId) {
        let (user, cart) = (Uuid::now_v7(), Uuid::now_v7());
        sqlx::query("insert into users (id, email, password_hash) values ($1, $2, 'x')")
            .bind(user)
            .bind(format!("{user}@example.com"))
            .execute(&self.pool)
            .await
            .expect("a user");
        sqlx::query("insert into carts (id, user_id) values ($1, $2)")
            .bind(cart)
            .bind(user)
            .execute(&self.pool)
            .await
            .expect("a cart");
        for (sku, quantity) in lines {
            sqlx::query(
                "insert into cart_items (cart_id, variant_id, quantity, price)
                 select $1, id, $3, price from product_variants where sku = $2",
            )
            .bind(cart)
            .bind(sku)
            .bind(quantity)
            .execute(&self.pool)
            .await
            .expect("a line");
        }
        (user.into(), cart.into())
    }

    pub async fn checkout(&self, user: UserId, cart: CartId, token: &str) -> Result<Accepted, Refusal> {
        self.checkout_as(Order { payment_token: Some(token.to_owned()), ..order(user, cart) }).await
    }

    pub async fn checkout_as(&self, order: Order) -> Result<Accepted, Refusal> {
        let mut tx = self.pool.begin().await?;
        let accepted = accept::accept(&mut tx, &self.shop, order).await?;
        tx.commit().await?;
        Ok(accepted)
    }

    /// A worker that has no trouble.
    pub async fn healthy(&self) -> TestWorker {
        self.worker(true, None).await
    }

    pub async fn worker(&self, fusion: bool, faults: Option<Arc<dyn Faults>>) -> TestWorker {
        TestWorker::new(&self.pool, workflows::registry(&self.shop), fusion, faults).await.expect("a worker")
    }

    /// A worker whose runs travel together, so many if they can.
    pub async fn worker_of(&self, many: usize, faults: Option<Arc<dyn Faults>>) -> TestWorker {
        TestWorker::in_cohorts(&self.pool, workflows::registry(&self.shop), many, faults).await.expect("a worker")
    }

    /// A worker without trouble carries whatever lives to its end, so many together.
    pub async fn carry_on(&self, many: usize) {
        let worker = self.worker_of(many, None).await;
        assert!(worker.drain_together(200).await.expect("drained") < 200, "the runs never end");
        worker.die().await.expect("dead");
    }

    /// How a run stands.
    pub async fn status(&self, run_id: Uuid) -> String {
        inspect::run(&self.pool, run_id).await.expect("an answer").expect("a run").status.to_string()
    }

    /// (available, reserved) of a variant.
    pub async fn stock(&self, sku: &str) -> (i32, i32) {
        sqlx::query_as(
            "select available_quantity, reserved_quantity from inventory i join product_variants v on v.id = i.variant_id where v.sku = $1",
        )
        .bind(sku)
        .fetch_one(&self.pool)
        .await
        .expect("the stock")
    }

    pub async fn order_status(&self, order: Uuid) -> Option<String> {
        sqlx::query_scalar("select order_status from orders where id = $1")
            .bind(order)
            .fetch_optional(&self.pool)
            .await
            .expect("an order")
    }

    pub async fn cart_status(&self, cart: CartId) -> String {
        sqlx::query_scalar("select status from carts where id = $1")
            .bind(Uuid::from(cart))
            .fetch_one(&self.pool)
            .await
            .expect("a cart")
    }

    /// Fails with every breach if the books do not balance.
    pub async fn assert_books(&self, when: &str) {
        assert_books(&self.pool, when).await;
    }
}

pub async fn assert_books(pool: &PgPool, when: &str) {
    let books = audit::books(pool).await.expect("the books");
    assert!(books.balanced, "{when}: the books do not balance: {:#?}", books.breaches);
}

pub fn order(user: UserId, cart: CartId) -> Order {
    Order {
        shopper: Shopper::User(user),
        cart_id: Some(cart),
        expected_total: None,
        shipping: AddressChoice::Inline(mumbai()),
        billing: None,
        shipping_method: ShippingMethod::Standard,
        payment_method: PaymentMethod::Upi,
        payment_gateway: None,
        payment_token: Some("tok_ok".to_owned()),
        client_network: None,
        coupon_codes: Vec::new(),
        fingerprint: "the same request".to_owned(),
    }
}

pub fn mumbai() -> Address {
    Address {
        recipient_name: "Asha Rao".to_owned(),
        address_line1: "12 Marine Drive".to_owned(),
        address_line2: None,
        city: "Mumbai".to_owned(),
        state: "Maharashtra".to_owned(),
        postal_code: "400001".to_owned(),
        country: "India".to_owned(),
        phone_number: "+919876543210".to_owned(),
    }
}

/// LAP-001 at 50000.00, MOU-001 at 999.00, BAG-001 at 1499.50, all in stock; coupon SAVE20.
async fn catalogue(pool: &PgPool) {
    for (sku, name, price) in [
        ("LAP-001", "Laptop", Decimal::new(5_000_000, 2)),
        ("MOU-001", "Mouse", Decimal::new(99_900, 2)),
        ("BAG-001", "Bag", Decimal::new(149_950, 2)),
    ] {
        let (product, variant) = (Uuid::now_v7(), Uuid::now_v7());
        sqlx::query(
            "with product as (
                insert into products (id, sku, product_name, base_price) values ($1, $3 || '-P', $4, $5)),
             variant as (
                insert into product_variants (id, product_id, sku, price) values ($2, $1, $3, $5)),
             stock as (
                insert into inventory (variant_id, available_quantity) values ($2, $6))
             insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
             values ($2, 'RESTOCK', $6, 0, now())",
        )
        .bind(product)
        .bind(variant)
        .bind(sku)
        .bind(name)
        .bind(price)
        .bind(STOCK)
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
