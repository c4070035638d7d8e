//! `POST /v1/payments/close`: ends every open payment of an order and says what each ended as.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Gateway;
use crate::payment;
use crate::refusal::Refusal;
use crate::request::{Body, IdempotencyKey, bounded};
use crate::settle;
use crate::token::AFTER_CLOSE;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Close {
    order_id: String,
}

pub(crate) async fn close(
    State(gateway): State<Gateway>,
    key: IdempotencyKey,
    Body(Close { order_id }): Body<Close>,
) -> Result<Json<Value>, Refusal> {
    bounded(&order_id, 64, "orderId must have 1 to 64 characters")?;
    let mut tx = gateway.pool.begin().await?;

    // Taking the key first makes a simultaneous repeat wait here for the first one's answer.
    let taken =
        sqlx::query("insert into sandbox.closes (idempotency_key, order_id) values ($1, $2) on conflict do nothing")
            .bind(&key.0)
            .bind(&order_id)
            .execute(&mut *tx)
            .await?;
    if taken.rows_affected() == 0 {
        let (known_order, answer): (String, Value) =
            sqlx::query_as("select order_id, answer from sandbox.closes where idempotency_key = $1")
                .bind(&key.0)
                .fetch_one(&mut *tx)
                .await?;
        return if known_order == order_id { Ok(Json(answer)) } else { Err(Refusal::KeyReused) };
    }

    // A capture whose time has come was there before the close, whether or not anyone looked.
    settle::due(&mut *tx, Some(&order_id)).await?;
    sqlx::query(
        "update sandbox.payments
         set status = 'CLOSED', patience_s = 0,
             capture_at = case when captures_closed then sandbox.now() + make_interval(secs => $2) end
         where order_id = $1 and status in ('PENDING', 'REQUIRES_ACTION', 'APPROVED', 'AUTHORIZED')",
    )
    .bind(&order_id)
    .bind(AFTER_CLOSE.as_secs_f64())
    .execute(&mut *tx)
    .await?;

    let payments = payment::of_order(&mut *tx, &order_id).await?;
    let items: Vec<_> = payments.iter().map(|payment| payment.view(&gateway.config.public_url)).collect();
    let answer = json!({ "items": items });
    sqlx::query("update sandbox.closes set answer = $2 where idempotency_key = $1")
        .bind(&key.0)
        .bind(&answer)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Json(answer))
}
