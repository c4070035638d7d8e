//! Captures and refunds whose time has come.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often due captures are looked for.
const EVERY: Duration = Duration::from_millis(200);

/// How many captures one look makes at most.
const BATCH: i32 = 200;

/// Captures what is due, of one order or of all; what another look has in hand is left to it.
/// Returns how many it captured.
pub(crate) async fn due(connection: impl PgExecutor<'_>, order_id: Option<&str>) -> Result<u64, sqlx::Error> {
    let settled = sqlx::query(
        "with due as (
             select payment_id from sandbox.payments
             where capture_at <= sandbox.now() and patience_s = 0
               and ($1::text is null or order_id = $1)
             order by capture_at limit $2 for update skip locked)
         update sandbox.payments p
         set status = p.goes_to, capture_at = null,
             captured_amount = case p.goes_to when 'CAPTURED' then capture_amount else 0 end
         from due where p.payment_id = due.payment_id",
    )
    .bind(order_id)
    .bind(BATCH)
    .execute(connection)
    .await?;
    Ok(settled.rows_affected())
}

/// Due captures that give a close the chance to come first wait a little longer, once.
async fn be_patient(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update sandbox.payments
         set capture_at = sandbox.now() + make_interval(secs => patience_s), patience_s = 0
         where payment_id in (
             select payment_id from sandbox.payments
             where capture_at <= sandbox.now() and patience_s > 0
             order by capture_at limit $1 for update skip locked)",
    )
    .bind(BATCH)
    .execute(pool)
    .await?;
    Ok(())
}

/// Refunds that were pending end; what fails was never given back.
async fn end_refunds(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with due as (
             select refund_id from sandbox.refunds
             where status = 'PENDING' and ends_at <= sandbox.now()
             order by ends_at limit $1 for update skip locked),
         ended as (
             update sandbox.refunds r set status = ends_as from due where r.refund_id = due.refund_id
             returning r.payment_id, r.amount, r.status)
         update sandbox.payments p set refunded_amount = refunded_amount - failed.amount
         from (select payment_id, sum(amount) as amount from ended where status = 'FAILED' group by payment_id) failed
         where p.payment_id = failed.payment_id",
    )
    .bind(BATCH)
    .execute(pool)
    .await?;
    Ok(())
}

/// Looks for what is due until `closing`.
pub(crate) async fn run(pool: PgPool, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let look = async {
            be_patient(&pool).await?;
            due(&pool, None).await?;
            end_refunds(&pool).await
        };
        if let Err(error) = look.await {
            tracing::warn!(%error, "what is due must wait: the sandbox gateway's database did not answer");
        }
    }
}
