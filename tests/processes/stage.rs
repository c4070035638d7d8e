//! The durable cluster of this module, and databases on it that are development shops already.

use std::sync::atomic::{AtomicU32, Ordering};

use embedded::{Cluster, Options};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::{RwLock, RwLockMappedWriteGuard, RwLockReadGuard, RwLockWriteGuard};

use super::child::Child;
use crate::{patience::until, world};

const TEMPLATE: &str = "template_development";

/// More than any test sells.
const STOCK: i32 = 100_000;

static STAGE: RwLock<Option<Stage>> = RwLock::const_new(None);

/// A cluster that survives having its plug pulled.
#[derive(Debug)]
pub struct Stage {
    pub cluster: Cluster,
    databases: AtomicU32,
}

/// The stage, which others may be on as well.
pub async fn stage() -> RwLockReadGuard<'static, Stage> {
    loop {
        let stage = STAGE.read().await;
        if stage.is_some() {
            return RwLockReadGuard::map(stage, |stage| stage.as_ref().expect("just seen"));
        }
        drop(stage);
        stage_alone().await;
    }
}

/// The stage for whoever pulls its plug.
pub async fn stage_alone() -> RwLockMappedWriteGuard<'static, Stage> {
    let mut stage = STAGE.write().await;
    if stage.is_none() {
        *stage = Some(Stage::build().await);
    }
    RwLockWriteGuard::map(stage, |stage| stage.as_mut().expect("just built"))
}

impl Stage {
    async fn build() -> Stage {
        world::sweep_leftovers();
        let cluster = Cluster::start(&Options::new(world::folder("durable"))).await.expect("a durable Postgres");
        cluster.ensure_database(TEMPLATE).await.expect("the template");
        // A development shop made it, as a developer would: schema, demo data, mailbox and sandbox.
        let arguments = ["dev", "--workers", "0", "--listen", "127.0.0.1:0"];
        let mut shop = Child::start(&arguments, &[("DATABASE_URL", &cluster.url(TEMPLATE))]);
        shop.says("Ctrl-C stops it").await;
        shop.signal("TERM");
        let ended = shop.ended().await;
        assert!(ended.success(), "{ended}: {}", shop.heard());
        let pool = PgPool::connect_with(cluster.connect_options(TEMPLATE)).await.expect("a connection");
        sqlx::query(
            "with restocked as (
                update inventory set available_quantity = available_quantity + $1 returning variant_id)
             insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
             select variant_id, 'RESTOCK', $1, 0, now() from restocked",
        )
        .bind(STOCK)
        .execute(&pool)
        .await
        .expect("full shelves");
        pool.close().await;
        Stage { cluster, databases: AtomicU32::new(0) }
    }

    /// A development shop's database in which nobody has bought anything yet, and its URL.
    pub async fn database(&self) -> (PgPool, String) {
        self.create(&format!(" template {TEMPLATE}")).await
    }

    /// An empty database, and its URL.
    pub async fn empty_database(&self) -> (PgPool, String) {
        self.create("").await
    }

    async fn create(&self, like: &str) -> (PgPool, String) {
        let name = format!("stage_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let admin = PgPool::connect_with(self.cluster.connect_options("postgres")).await.expect("a connection");
        let create = format!("create database {name}{like}");
        until("a database", async || sqlx::query(sqlx::AssertSqlSafe(create.clone())).execute(&admin).await).await;
        admin.close().await;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_with(self.cluster.connect_options(&name))
            .await
            .expect("a pool");
        (pool, self.cluster.url(&name))
    }
}
