//! Which order a cart has become.

use std::collections::HashMap;

use domain::ids::{CartId, OrderId};
use engine::run;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::carts::Owner;

/// The run that converted this shopper's latest cart within the last ten minutes, if it was started
/// by an equal request.
pub async fn just_converted(
    conn: &mut PgConnection,
    shopper: &Owner,
    fingerprint: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let (user_id, session_hash) = shopper.columns();
    let runs = sqlx::query_scalar!(
        r#"select checkout_run_id as "run_id!" from carts
            where (user_id = $1 or (user_id is null and session_hash = $2))
              and status = 'CONVERTED' and updated_at > engine.now() - interval '10 minutes'
              and checkout_run_id is not null
            order by updated_at desc limit 100"#,
        user_id,
        session_hash
    )
    .fetch_all(&mut *conn)
    .await?;
    let ended: HashMap<Uuid, Value> = run::inputs_of_ended(conn, &runs).await?.into_iter().collect();
    let latest = runs.into_iter().find_map(|run_id| ended.get(&run_id).map(|input| (run_id, &input["fingerprint"])));
    Ok(latest.filter(|(_, found)| found.as_str() == Some(fingerprint)).map(|(run_id, _)| run_id))
}

/// The order a cart became: its id and number. It outlives the run that made it.
pub async fn made_of(conn: &mut PgConnection, cart_id: CartId) -> Result<Option<(OrderId, String)>, sqlx::Error> {
    let made = sqlx::query!(
        "select id, order_number from orders where cart_id = $1 and order_status <> 'CANCELLED'",
        Uuid::from(cart_id)
    );
    Ok(made.fetch_optional(conn).await?.map(|made| (made.id.into(), made.order_number)))
}
