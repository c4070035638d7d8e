//! How far the reconciliation is behind, and what it leaves to people, for whoever measures the shop.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::listing::Listing;
use crate::{
    Shop,
    store::{
        reconciliation::{
            checks::{self, Pass},
            listings,
        },
        refunds::held,
        webhook_inbox,
    },
};

/// How long something has been due with one gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    /// The gateway.
    pub gateway: String,
    /// What is due: a pass over our payments, or over the gateway's.
    pub pass: &'static str,
    /// For so many seconds; zero when nothing is.
    pub seconds: f64,
}

/// The lag of each pass with each gateway.
///
/// # Errors
/// The database's own.
pub async fn lags(conn: &mut PgConnection, shop: &Shop) -> Result<Vec<Lag>, sqlx::Error> {
    let now = engine::now(&mut *conn).await?;
    let rules = &shop.rules.reconciliation;
    let since = |due: Option<DateTime<Utc>>| due.map_or(0.0, |due| (now - due).as_seconds_f64().max(0.0));
    let mut lags = Vec::new();
    for gateway in shop.gateways.keys() {
        for pass in Pass::ALL {
            let due = checks::oldest(conn, gateway, pass).await?.map(|oldest| oldest + rules.patience(pass));
            lags.push(Lag { gateway: gateway.clone(), pass: pass.as_str(), seconds: since(due) });
        }
        for listing in Listing::ALL {
            let reached = listings::reached(conn, gateway, listing.as_str()).await?;
            let due = reached.map(|reached| reached + listing.patience(rules));
            lags.push(Lag { gateway: gateway.clone(), pass: listing.as_str(), seconds: since(due) });
        }
    }
    Ok(lags)
}

/// Measures it all: gauges of what the database says now, the same from every process.
///
/// # Errors
/// The database's own.
pub async fn measure(conn: &mut PgConnection, shop: &Shop) -> Result<(), sqlx::Error> {
    for Lag { gateway, pass, seconds } in lags(conn, shop).await? {
        metrics::gauge!("cart_engine_reconciliation_lag_seconds", "gateway" => gateway, "pass" => pass).set(seconds);
    }
    let (unmatched, unreadable) = webhook_inbox::count_unplaced(conn).await?;
    let counts = [
        ("cart_engine_webhooks_unmatched", unmatched),
        ("cart_engine_webhooks_unreadable", unreadable),
        ("cart_engine_payment_checks_set_aside", checks::count_aside(conn).await?),
        ("cart_engine_refunds_refused", held::count_failed(conn).await?),
    ];
    for (name, count) in counts {
        metrics::gauge!(name).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    Ok(())
}
