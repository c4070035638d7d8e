//! `POST /v1/payments` makes a charge; `GET` finds those of an order.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Gateway;
use crate::payment::{self, Payment};
use crate::refusal::Refusal;
use crate::request::{Body, IdempotencyKey, OfOrder, Query, Wanted, bounded};
use crate::token::{Answer, Capture, Plan};

/// How long the connection of a charge that "never answers" is held.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// The body of a new charge.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewCharge {
    order_id: String,
    attempt: i32,
    amount: String,
    currency: String,
    #[serde(default)]
    capture: Capture,
    method: String,
    token: Option<String>,
    return_url: Option<String>,
}

impl NewCharge {
    fn amount(&self) -> Result<Decimal, Refusal> {
        bounded(&self.order_id, 64, "orderId must have 1 to 64 characters")?;
        bounded(&self.method, 32, "method must have 1 to 32 characters")?;
        if self.currency.len() != 3 || !self.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Refusal::Invalid("currency must be an ISO 4217 code"));
        }
        if self.attempt < 1 {
            return Err(Refusal::Invalid("attempt counts from 1"));
        }
        payment::parse_amount(&self.amount)
    }

    /// The token is in it, but only as part of a digest.
    fn fingerprint(&self) -> Result<String, Refusal> {
        Ok(BASE64.encode(Sha256::digest(serde_json::to_vec(self)?)))
    }
}

pub(crate) async fn create(
    State(gateway): State<Gateway>,
    key: IdempotencyKey,
    Body(charge): Body<NewCharge>,
) -> Result<Response, Refusal> {
    let amount = charge.amount()?;
    let plan = Plan::of(charge.token.as_deref(), amount, charge.capture);
    let payment_id = key.names("sbx");
    let fingerprint = charge.fingerprint()?;

    if plan.is_refused_once && is_first_call(&gateway, &key).await? {
        return Err(Refusal::TooMany);
    }
    if !insert(&gateway, &payment_id, &fingerprint, &charge, amount, &plan).await? {
        return replay(&gateway, &payment_id, &fingerprint).await;
    }

    // The answer is what was true when the charge was made, however late it leaves.
    match plan.answer {
        Answer::AtOnce => {}
        Answer::After(delay) => gateway.hold(delay).await,
        Answer::Never => {
            gateway.hold(LONGEST_HOLD).await;
            return Err(Refusal::NoAnswer);
        }
    }
    let made = Payment {
        payment_id,
        order_id: charge.order_id,
        attempt: charge.attempt,
        amount,
        currency: charge.currency,
        method: charge.method,
        return_url: charge.return_url,
        status: plan.status,
        failure: plan.failure.map(str::to_owned),
        captured_amount: plan.captured_now(),
        refunded_amount: Decimal::ZERO,
    };
    Ok((StatusCode::CREATED, Json(made.view(&gateway.config.public_url))).into_response())
}

/// One statement, since load tests wait for it; the webhook's row is written by the table's trigger.
/// `false`: the key is known.
async fn insert(
    gateway: &Gateway,
    payment_id: &str,
    fingerprint: &str,
    charge: &NewCharge,
    amount: Decimal,
    plan: &Plan,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        "insert into sandbox.payments
             (payment_id, fingerprint, order_id, attempt, amount, currency, method, return_url,
              status, failure, captured_amount, capture_amount, capture_at, patience_s,
              captures_closed, authorized_last, webhook_copies, refund_failures,
              goes_to, refunds_pend, refunds_fail, is_disputed)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
                 sandbox.now() + make_interval(secs => $13), $14, $15, $16, $17, $18, $19, $20, $21, $22)
         on conflict (payment_id) do nothing",
    )
    .bind(payment_id)
    .bind(fingerprint)
    .bind(&charge.order_id)
    .bind(charge.attempt)
    .bind(amount)
    .bind(&charge.currency)
    .bind(&charge.method)
    .bind(&charge.return_url)
    .bind(plan.status)
    .bind(plan.failure)
    .bind(plan.captured_now())
    .bind(plan.capture_amount)
    .bind(plan.capture_after.map(|after| after.as_secs_f64()))
    .bind(plan.patience.as_secs_f64())
    .bind(plan.captures_closed)
    .bind(plan.authorized_last)
    .bind(plan.webhook_copies)
    .bind(plan.refund_failures)
    .bind(plan.goes_to)
    .bind(plan.refunds_pend)
    .bind(plan.refunds_fail)
    .bind(plan.is_disputed)
    .execute(&gateway.pool)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Whether this key was never seen: a call that is refused leaves it behind.
async fn is_first_call(gateway: &Gateway, key: &IdempotencyKey) -> Result<bool, sqlx::Error> {
    let seen = sqlx::query("insert into sandbox.refused_keys (idempotency_key) values ($1) on conflict do nothing")
        .bind(&key.0)
        .execute(&gateway.pool)
        .await?;
    Ok(seen.rows_affected() == 1)
}

/// The charge that this key made before, as it stands now.
async fn replay(gateway: &Gateway, payment_id: &str, fingerprint: &str) -> Result<Response, Refusal> {
    let same: Option<bool> = sqlx::query_scalar("select fingerprint = $2 from sandbox.payments where payment_id = $1")
        .bind(payment_id)
        .bind(fingerprint)
        .fetch_optional(&gateway.pool)
        .await?;
    if same == Some(false) {
        return Err(Refusal::KeyReused);
    }
    let known = payment::by_id(&gateway.pool, payment_id).await?.ok_or(Refusal::NotFound)?;
    Ok(Json(known.view(&gateway.config.public_url)).into_response())
}

pub(crate) async fn find(State(gateway): State<Gateway>, Query(wanted): Query<Wanted>) -> Result<Json<Value>, Refusal> {
    let view = |payment: &Payment| json!(payment.view(&gateway.config.public_url));
    match wanted {
        Wanted { order_id: Some(order_id), .. } => {
            let items: Vec<_> = payment::of_order(&gateway.pool, &order_id).await?.iter().map(view).collect();
            Ok(Json(json!({ "items": items })))
        }
        Wanted { from: Some(from), until: Some(until), after, .. } => {
            let made = payment::made_in(&gateway.pool, &from, &until, after.as_deref()).await?;
            let items: Vec<_> = made.iter().map(view).collect();
            let is_full = items.len() == payment::PAGE;
            let next = made.last().filter(|_| is_full).map(|last| last.payment_id.as_str());
            Ok(Json(json!({ "items": items, "next": next })))
        }
        Wanted { .. } => Err(Refusal::Invalid("orderId, or from and until, must be given")),
    }
}

pub(crate) async fn dev_list(
    State(gateway): State<Gateway>,
    Query(OfOrder { order_id }): Query<OfOrder>,
) -> Result<Json<Value>, Refusal> {
    let payments = payment::of_order(&gateway.pool, &order_id).await?;
    let items: Vec<_> = payments.iter().map(Payment::dev_view).collect();
    Ok(Json(json!({ "items": items })))
}
