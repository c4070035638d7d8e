//! One shop as it runs in production: an API, a sandbox gateway and workers, each a process.

use std::collections::BTreeMap;

use sqlx::PgPool;

use super::{child::Child, stage::Stage};
use crate::{
    patience::{PATIENCE, until},
    world::assert_books,
};

/// Signs access tokens, for the API and for the shoppers who do not log in one by one.
pub const JWT_SECRET: &str = "a secret of thirty-two bytes or more";

/// A database with an API and a gateway on it.
#[derive(Debug)]
pub struct Deployment {
    pub pool: PgPool,
    pub database_url: String,
    pub sandbox_url: String,
    pub api_url: String,
    pub client: reqwest::Client,
    pub api: Child,
    pub sandbox: Child,
}

/// A worker process and where its metrics are.
#[derive(Debug)]
pub struct Worker {
    pub process: Child,
    metrics_url: String,
    client: reqwest::Client,
}

impl Deployment {
    pub async fn open(stage: &Stage) -> Deployment {
        Deployment::open_with(stage, &[]).await
    }

    /// The same with settings of its own, which its workers must be told too.
    pub async fn open_with(stage: &Stage, settings: &[(&str, &str)]) -> Deployment {
        let (pool, database_url) = stage.database().await;
        let direct = database_url.clone();
        Deployment::open_by(pool, database_url, &direct, settings).await
    }

    /// The same with a way of its own to the database for the gateway, which is somebody else's house.
    pub async fn open_on(pool: PgPool, database_url: String, gateway_url: &str) -> Deployment {
        Deployment::open_by(pool, database_url, gateway_url, &[]).await
    }

    async fn open_by(pool: PgPool, database_url: String, gateway_url: &str, settings: &[(&str, &str)]) -> Deployment {
        // The gateway must know the API's address and the API the gateway's: one is drawn first.
        let sandbox_url = format!("http://{}", free_address());
        let environment = [
            ("DATABASE_URL", &*database_url),
            ("SANDBOX_URL", &sandbox_url),
            ("JWT_SECRET", JWT_SECRET),
            ("CART_ENGINE_RATE_LIMIT", "off"),
        ];
        let api = Child::start(&["api", "--listen", "127.0.0.1:0"], &[&environment[..], settings].concat());
        let api_url = api.says("the API is ready at ").await;
        let (listen, webhooks) = (sandbox_url.trim_start_matches("http://"), format!("{api_url}/api/webhooks/sandbox"));
        let theirs = environment.map(|(name, value)| (name, if name == "DATABASE_URL" { gateway_url } else { value }));
        let sandbox = Child::start(
            &["sandbox", "--listen", listen, "--webhook-url", &webhooks],
            &[&theirs[..], settings].concat(),
        );
        sandbox.says("the sandbox gateway is ready at ").await;
        Deployment { pool, database_url, sandbox_url, api_url, client: client(), api, sandbox }
    }

    /// A worker that is at work.
    pub async fn worker(&self) -> Worker {
        self.worker_with(&[("SANDBOX_URL", &self.sandbox_url)]).await
    }

    /// The same with settings of its own, its gateway's address among them.
    pub async fn worker_with(&self, environment: &[(&str, &str)]) -> Worker {
        let mut all = vec![("DATABASE_URL", &*self.database_url)];
        all.extend(environment);
        let process = Child::start(&["worker", "--metrics-listen", "127.0.0.1:0"], &all);
        let metrics_url = process.says("metrics are at ").await;
        process.says("a worker is ready").await;
        Worker { process, metrics_url, client: self.client.clone() }
    }

    /// Runs that have not ended, by workflow and status.
    pub async fn live_runs(&self) -> Result<BTreeMap<String, i64>, sqlx::Error> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("select workflow || ' ' || status, count(*) from engine.runs group by 1")
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().collect())
    }

    /// Waits until every run has ended.
    pub async fn all_ended(&self) {
        until("every run has ended", async || {
            // Right after a crash of Postgres there may be no answer.
            match self.live_runs().await {
                Ok(live) if live.is_empty() => Ok(()),
                instead => Err(format!("{instead:?}\nthe API said:\n{}", self.api.heard())),
            }
        })
        .await;
    }

    /// The books balance, and the gateway has taken each confirmed order's total once and nothing else.
    pub async fn assert_sound(&self, when: &str) {
        assert_books(&self.pool, when).await;
        let wrong: Vec<(String, Option<String>, i64, String)> = sqlx::query_as(
            "select p.order_id, o.order_status, count(*) filter (where p.captured_amount > 0),
                    sum(p.captured_amount - p.refunded_amount)::text
               from sandbox.payments p left join orders o on o.id::text = p.order_id
              group by p.order_id, o.order_status, o.total_amount
             having count(*) filter (where p.captured_amount > 0) > 1
                 or sum(p.captured_amount - p.refunded_amount)
                    <> case when o.order_status = 'CONFIRMED' then o.total_amount else 0 end",
        )
        .fetch_all(&self.pool)
        .await
        .expect("the gateway's books");
        assert!(wrong.is_empty(), "{when}: the gateway's money is wrong (order, status, captures, net): {wrong:?}");
        let unpaid: i64 = sqlx::query_scalar(
            "select count(*) from orders o where o.order_status = 'CONFIRMED' and o.total_amount > 0
                and o.payment_method <> 'COD'
                and not exists (select from payments p where p.order_id = o.id and p.payment_gateway <> 'sandbox')
                and not exists (select from sandbox.payments p where p.order_id = o.id::text)",
        )
        .fetch_one(&self.pool)
        .await
        .expect("the orders");
        assert_eq!(unpaid, 0, "{when}: confirmed without money");
        let twice: Vec<(String, String)> = sqlx::query_as(
            "select order_id::text, event from dev.mailbox where order_id is not null group by 1, 2 having count(*) > 1",
        )
        .fetch_all(&self.pool)
        .await
        .expect("the mailbox");
        assert!(twice.is_empty(), "{when}: told twice: {twice:?}");
    }

    /// Orders by status.
    pub async fn orders(&self) -> BTreeMap<String, i64> {
        let rows: Vec<(String, i64)> = sqlx::query_as("select order_status, count(*) from orders group by 1")
            .fetch_all(&self.pool)
            .await
            .expect("orders");
        rows.into_iter().collect()
    }
}

impl Worker {
    /// The sum of a counter over all its labels.
    pub async fn counted(&self, counter: &str) -> u64 {
        let page = self.client.get(&self.metrics_url).send().await.expect("an answer").text().await.expect("a page");
        let values = page.lines().filter(|line| line.starts_with(counter)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<u64>().expect("a count")).sum()
    }

    /// Checkouts it has ended.
    pub async fn checkouts(&self) -> u64 {
        self.counted("cart_engine_runs_ended_total{workflow=\"checkout\"").await
    }
}

/// A client that speaks to this machine.
pub fn client() -> reqwest::Client {
    // Another test may have installed it; one is enough.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client")
}

/// An address that nobody listens on at the moment.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}
