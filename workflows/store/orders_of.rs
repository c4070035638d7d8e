//! Finding a shopper's recent order, and what a gateway's message is about.

use domain::ids::{CartId, OrderId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::carts::Owner;

/// The run that converted this shopper's latest cart within the last ten minutes, if it was started
/// by an equal request.
pub async fn just_converted(
    conn: &mut PgConnection,
    shopper: &Owner,
    fingerprint: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let (user_id, session_hash) = shopper.columns();
    let latest = sqlx::query!(
        r#"select c.checkout_run_id as "run_id!", r.input ->> 'fingerprint' as fingerprint
             from carts c join engine.finished_runs r on r.id = c.checkout_run_id
            where (c.user_id = $1 or (c.user_id is null and c.session_hash = $2))
              and c.status = 'CONVERTED' and c.updated_at > engine.now() - interval '10 minutes'
            order by c.updated_at desc limit 1"#,
        user_id,
        session_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(latest.filter(|found| found.fingerprint.as_deref() == Some(fingerprint)).map(|found| found.run_id))
}

/// The order a cart became: its id and number. It outlives the run that made it.
pub async fn made_of(conn: &mut PgConnection, cart_id: CartId) -> Result<Option<(OrderId, String)>, sqlx::Error> {
    let made = sqlx::query!(
        "select id, order_number from orders where cart_id = $1 and order_status <> 'CANCELLED'",
        Uuid::from(cart_id)
    );
    Ok(made.fetch_optional(conn).await?.map(|made| (made.id.into(), made.order_number)))
}
