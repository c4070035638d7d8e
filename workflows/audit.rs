//! The books: what must hold between stock, money, coupons, orders, runs, messages and events,
//! asked of a live database in SQL alone.
//!
//! Every check reads one and the same snapshot, so it is right in the middle of the day's trade: each
//! rule holds after every commit, not only when the shop is quiet. A check is one row of [`CHECKS`]
//! and one file in `audit/`; it returns the breaches, never the healthy rows.

use serde::Serialize;
use sqlx::PgPool;

/// One rule that does not hold for one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// Which rule: the name of a [`Check`].
    pub check: &'static str,
    /// What it is about, e.g. `order 0198…` or `variant LAP-001`.
    pub subject: String,
    /// What the rule asks for.
    pub expected: String,
    /// What the database says.
    pub actual: String,
}

/// The state of the books at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Whether every rule holds.
    pub balanced: bool,
    /// What does not, at most 100 a rule.
    pub breaches: Vec<Breach>,
}

/// One rule of the books.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name, also that of its file.
    pub name: &'static str,
    /// What would be wrong with the shop if it did not hold.
    pub why: &'static str,
    sql: &'static str,
}

macro_rules! check {
    ($name:literal, $why:literal) => {
        Check { name: $name, why: $why, sql: include_str!(concat!("audit/", $name, ".sql")) }
    };
}

/// Every rule, in the order they are asked.
pub const CHECKS: &[Check] = &[
    check!("stock_counters", "stock would appear or vanish without a movement"),
    check!("stock_holds", "stock would be reserved for nobody, or promised without being reserved"),
    check!("stock_reservations", "stock would be taken or given back twice"),
    check!("stock_sold", "more would be sold than was there, or sold without leaving the shelf"),
    check!("money_lines", "an invoice would not add up"),
    check!("money_currency", "a shopper would be charged in another money than was shown"),
    check!("money_states", "goods would leave unpaid, or a shopper would pay for nothing"),
    check!("money_refunds", "more would be given back than was taken, or less than was recorded"),
    check!("money_disputes", "a bank would want back what was never taken, or nobody would hear of it"),
    check!("fraud_reviews", "a doubtful order would be sold unseen, or wait for nobody"),
    check!("coupons_counters", "a coupon would be used more often than allowed"),
    check!("coupons_redemptions", "a discount would be given uncounted, or counted ungiven"),
    check!("orders_history", "an order's trail would not lead to where it stands"),
    check!("orders_carts", "a cart would be ordered twice, or lost"),
    check!("orders_runs", "an order, cart or hold would wait for a run that is gone"),
    check!("carts_abandoned", "a cart left behind would go unnoticed, or its owner be told twice"),
    check!("runs_keys", "what was started could be started once more"),
    check!("orders_parcels", "a piece would be sent twice, or an order called off that is on its way"),
    check!("orders_returns", "a piece would come back twice, or be paid back for more or less than it cost"),
    check!("runs_owners", "a run would be in nobody's hands"),
    check!("runs_parked", "an operator is needed"),
    check!("runs_lost", "something accepted would never be done"),
    check!("messages_once", "a shopper would be told twice"),
    check!("messages_sent", "a message would count as sent that never was"),
    check!("messages_confirmed", "a buyer would never hear of the order"),
    check!("events_orders", "others would miss a change of an order, or see it twice"),
    check!("events_effects", "others would miss what happened to stock, money or coupons"),
];

/// The checks read whole tables. They must hash them: where statistics are missing the planner would
/// choose to search one table for each row of another, for hours. Spilling to disk or compiling each
/// plan would double their time; and whoever asks a database too large to answer must not wait for ever.
const PLANNER: &str = "set local enable_nestloop = off; set local work_mem = '64MB'; set local jit = off; \
                       set local statement_timeout = '120s'";

/// Runs every check on one snapshot of the database. Changes nothing and locks nothing.
///
/// # Errors
/// When the database does not answer, or takes longer than two minutes over one check.
pub async fn books(pool: &PgPool) -> Result<Books, sqlx::Error> {
    let mut tx = pool.begin_with("begin isolation level repeatable read, read only").await?;
    sqlx::raw_sql(PLANNER).execute(&mut *tx).await?;
    let mut breaches = Vec::new();
    for check in CHECKS {
        let rows = sqlx::query_as::<_, (String, String, String)>(check.sql).fetch_all(&mut *tx).await?;
        breaches.extend(rows.into_iter().map(|(subject, expected, actual)| Breach {
            check: check.name,
            subject,
            expected,
            actual,
        }));
    }
    tx.commit().await?;
    Ok(Books { balanced: breaches.is_empty(), breaches })
}
