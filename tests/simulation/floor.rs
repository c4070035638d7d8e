//! The shop's floor: one database for many histories, empty and the same at the start of each.

use std::{sync::Arc, time::Duration};

use rust_decimal::Decimal;
use sqlx::PgPool;
use uuid::Uuid;
use workflows::{Rules, Shop};

use crate::{
    gateway::{Mails, ScriptedGateway},
    world::{World, database},
};

/// Keeps what the migrations wrote, in tables of the same name: most are empty, a few have a row.
const REMEMBER: &str = "
do $$
declare t record; has_rows boolean;
begin
    create schema pristine;
    for t in select n.nspname as schemaname, c.relname as tablename
               from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where n.nspname in ('public', 'engine', 'apalis') and c.relname not like '%migrations%'
                and c.relkind in ('r', 'p') and not c.relispartition loop
        execute format('select exists (select from %I.%I)', t.schemaname, t.tablename) into has_rows;
        if has_rows then
            execute format('create table pristine.%I as table %I.%I', t.schemaname || '.' || t.tablename, t.schemaname, t.tablename);
        end if;
    end loop;
end $$";

/// Empties every table and puts back what the migrations wrote. Deleting few rows is ten times faster
/// than truncating forty tables; as a replica, Postgres runs no trigger for them, and so asks no
/// foreign key.
const SWEEP: &str = "
do $$
declare t record;
begin
    set local session_replication_role = replica;
    for t in select n.nspname as schemaname, c.relname as tablename
               from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where n.nspname in ('public', 'engine', 'apalis') and c.relname not like '%migrations%'
                and c.relkind in ('r', 'p') and not c.relispartition loop
        execute format('delete from %I.%I', t.schemaname, t.tablename);
        if to_regclass(format('pristine.%I', t.schemaname || '.' || t.tablename)) is not null then
            execute format('insert into %I.%I overriding system value select * from pristine.%I',
                t.schemaname, t.tablename, t.schemaname || '.' || t.tablename);
        end if;
    end loop;
end $$";

/// What there is to buy, and its price in paise. Ids are fixed, so that the order of things by id is the same in each telling.
pub const SKUS: [(&str, i64); 3] = [("LAP-001", 5_000_000), ("MOU-001", 99_900), ("BAG-001", 149_950)];

/// One of each kind; FREESHIP comes by itself.
pub const CODES: [&str; 4] = ["SAVE20", "FLAT500", "BUY2GET1", "FREESHIP"];

/// A variant's id, by its place in [`SKUS`].
pub fn variant(index: usize) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0100 + index as u128)
}

/// A user's id, by number.
pub fn user(index: usize) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0200 + index as u128)
}

/// What a history starts with.
#[derive(Debug)]
pub struct Opening {
    /// Pieces of each variant.
    pub stock: [i32; 3],
    /// Registered shoppers.
    pub users: usize,
    /// How often SAVE20 may be used.
    pub coupon_limit: i32,
    /// Whether FREESHIP is on.
    pub free_shipping: bool,
    /// Most that may be paid on delivery.
    pub cod_limit: Option<Decimal>,
    /// How often a shopper may try to pay.
    pub payment_attempts: u32,
    /// How long a return waits.
    pub return_patience: Duration,
    /// How long a customer may cancel.
    pub cancel_deadline_s: Option<u64>,
    /// When an order is packed by itself.
    pub auto_process_after_s: Option<u64>,
    /// Whether checkouts may be doubtful.
    pub screens: bool,
}

/// The key of the service that holds stock.
pub const SERVICE: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0400);

/// Who is billed abroad is doubtful; who has checked out twice within the hour is not let through besides.
const SCREENING: &str = r#"
insert into fraud_rule_sets (version, review_at, deny_at, review_deadline_s, created_by, rules)
values (2, 50, 100, 3600, 'user:a test', '[
    {"name": "abroad", "kind": "COUNTRY_MISMATCH", "points": 60, "enabled": true, "parameters": {}},
    {"name": "often", "kind": "VELOCITY", "points": 45, "enabled": true,
     "parameters": {"by": "ACCOUNT", "limit": 2, "windowS": 3600}}]');"#;

/// One database.
pub struct Floor {
    pool: PgPool,
}

impl Floor {
    pub async fn open() -> Floor {
        let pool = database().await;
        sqlx::raw_sql(REMEMBER).execute(&pool).await.expect("what the migrations wrote is remembered");
        Floor { pool }
    }

    /// Throws the database away.
    pub async fn close(self) {
        let options = self.pool.connect_options();
        let name = options.get_database().expect("a database").to_owned();
        self.pool.close().await;
        let admin = PgPool::connect_with((*options).clone().database("postgres")).await.expect("a connection");
        let drop = format!("drop database {name} with (force)");
        sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&admin).await.expect("dropped");
        admin.close().await;
    }

    /// An empty shop, then its goods, coupons and people.
    pub async fn set_up(&self, opening: &Opening) -> World {
        let mut sql = format!("{SWEEP};");
        for (index, (sku, paise)) in SKUS.iter().enumerate() {
            let (variant, product) = (variant(index), Uuid::from_u128(variant(index).as_u128() + 0x10));
            let (price, stock) = (Decimal::new(*paise, 2), opening.stock[index]);
            sql += &format!(
                "insert into products (id, sku, product_name, base_price) values ('{product}', '{sku}-P', '{sku}', {price});
                 insert into product_variants (id, product_id, sku, price) values ('{variant}', '{product}', '{sku}', {price});
                 insert into inventory (variant_id, available_quantity, low_stock_threshold) values ('{variant}', {stock}, 2);
                 insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
                 values ('{variant}', 'RESTOCK', {stock}, 0, now());"
            );
        }
        for index in 0..opening.users {
            let user = user(index);
            sql += &format!(
                "insert into users (id, email, password_hash) values ('{user}', 'shopper{index}@example.com', 'x');"
            );
        }
        sql += &format!(
            "insert into api_keys (id, name, key_hash, scopes) values ('{SERVICE}', 'a service', 'x', '{{inventory}}');"
        );
        let coupon = |index: u128| Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0300 + index);
        sql += &format!(
            "insert into coupons (id, code, kind, value, usage_limit, per_user_limit, stackable, auto_apply, buy_quantity, get_quantity, is_active) values
             ('{}', 'SAVE20', 'PERCENT', 20, {}, null, false, false, null, null, true),
             ('{}', 'FLAT500', 'FIXED', 500, null, 1, true, false, null, null, true),
             ('{}', 'BUY2GET1', 'BUY_X_GET_Y', 0, 3, null, false, false, 2, 1, true),
             ('{}', 'FREESHIP', 'FREE_SHIPPING', 0, 3, null, true, true, null, null, {});",
            coupon(0), opening.coupon_limit, coupon(1), coupon(2), coupon(3), opening.free_shipping
        );
        if opening.screens {
            sql += SCREENING;
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.pool).await.expect("the shop is set up");
        let rules = Rules {
            default_gateway: "scripted".to_owned(),
            allow_guest_checkout: true,
            cod_limit: opening.cod_limit,
            payment_max_attempts: opening.payment_attempts,
            return_patience_s: opening.return_patience.as_secs(),
            cancel_deadline_s: opening.cancel_deadline_s,
            auto_process_after_s: opening.auto_process_after_s,
            ..Rules::default()
        };
        let (gateway, mails) = (Arc::new(ScriptedGateway::default()), Arc::new(Mails::default()));
        let shop = Shop::new(rules, vec![Arc::clone(&gateway) as _], Some(Arc::clone(&mails) as _));
        World { pool: self.pool.clone(), shop, gateway, mails }
    }
}
