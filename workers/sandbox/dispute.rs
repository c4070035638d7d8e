//! `POST /v1/dev/payments/{id}/dispute`: how the quarrel over a payment goes, as a developer wishes.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Gateway;
use crate::refusal::Refusal;
use crate::request::Body;

#[derive(Clone, Copy, Deserialize, sqlx::Type)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Outcome {
    Opened,
    Won,
    Lost,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dispute {
    status: Outcome,
}

/// Opens a dispute, or ends it: the first end stands.
pub(crate) async fn dispute(
    State(gateway): State<Gateway>,
    Path(payment_id): Path<String>,
    Body(Dispute { status }): Body<Dispute>,
) -> Result<Json<Value>, Refusal> {
    let stands: Option<String> = sqlx::query_scalar(
        "insert into sandbox.disputes as d (payment_id, status)
         select payment_id, $2 from sandbox.payments where payment_id = $1 and status = 'CAPTURED'
         on conflict (payment_id) do update
            set status = case d.status when 'OPENED' then excluded.status else d.status end
         returning status",
    )
    .bind(&payment_id)
    .bind(status)
    .fetch_optional(&gateway.pool)
    .await?;
    let status = stands.ok_or(Refusal::NotCaptured)?;
    Ok(Json(json!({ "gatewayPaymentId": payment_id, "status": status })))
}
