//! The sandbox payment gateway: a small, real payment provider for development and tests.
//!
//! It is a service of its own with a Postgres schema of its own (`sandbox`), so its charges survive
//! crashes of the shop and of itself. It knows nothing of the shop's code, and must not: the shop
//! reaches it over HTTP like any gateway. Its time follows the shop's development clock
//! (`engine.clock`) where there is one; only webhooks, being network traffic, keep real time.
//!
//! # HTTP API
//!
//! JSON in camelCase; amounts are decimal strings. Every POST under `/v1` needs an
//! `Idempotency-Key`: the same key with the same body never acts twice (a charge is answered as it
//! stands now, a refund or close as it was answered first), with another body it is 422
//! `idempotency-key-reused`. A refusal is `{"code","detail"}` under its 4xx or 5xx status.
//!
//! | call | answer |
//! |---|---|
//! | `POST /v1/payments {orderId,attempt,amount,currency,capture?,method,token?,returnUrl?}` | 201 (known key: 200) a payment; declined ones too; `capture` is TAKE (the default) or HOLD |
//! | `GET /v1/payments?orderId=` | `{items:[payment]}`, oldest first |
//! | `GET /v1/payments?from=&until=&after=` | `{items:[payment],next}`: those made in a stretch of time (RFC 3339), oldest first, a hundred at a time; `next` is the `after` of the next page, null on the last |
//! | `POST /v1/payments/close {orderId}` | `{items:[payment]}`: every open payment of the order is now CLOSED, the others as they ended |
//! | `POST /v1/payments/{id}/proceed {amount,capture}` | a payment: one that was APPROVED or AUTHORIZED is CAPTURED now, or with HOLD AUTHORIZED; any other as it stands |
//! | `POST /v1/payments/{id}/refunds {refundId,amount}` | 201 (known key: 200) `{gatewayRefundId,gatewayPaymentId,refundId,status,amount,currency,failure?}`, status PENDING, SUCCEEDED or FAILED; 409 `payment-not-captured`; 422 `refund-exceeds-captured` |
//! | `GET /v1/payments/{id}/refunds?refundId=` | `{items:[refund]}` |
//! | `GET /pay/{id}`, `POST /pay/{id}/approve`, `…/decline` | the shopper's 3-D Secure page; 409 once decided otherwise, 410 once closed |
//! | `GET /v1/dev/payments?orderId=` | `{items:[{gatewayPaymentId,orderId,status,amount,capturedAmount,refundedAmount,currency}]}`, status including PARTIALLY_REFUNDED and REFUNDED |
//! | `POST /v1/dev/payments/{id}/dispute {status}` | OPENED, WON or LOST: the shopper's bank wants the money back, and how that ends |
//! | `GET /healthz` | 200 |
//!
//! A payment is `{gatewayPaymentId,orderId,attempt,status,amount,capturedAmount,refundedAmount,currency,
//! method,nextAction?,failure?}` with status PENDING, REQUIRES_ACTION, APPROVED, AUTHORIZED, CAPTURED,
//! FAILED or CLOSED and `nextAction {"type":"REDIRECT","url"}` while it requires one.
//!
//! # Webhooks
//!
//! `{type,data:{gatewayPaymentId,orderId,amount,currency,failure?,gatewayRefundId?,refundId?,disputeId?}}` with
//! type `payment.` approved, authorized, captured, failed or closed, `refund.` pending, succeeded or failed, or
//! `dispute.` opened, won or lost, signed by the Standard Webhooks
//! scheme (`webhook-id`, `webhook-timestamp`, `webhook-signature`), tried five times: at once and
//! after 1, 2, 4 and 8 seconds.
//!
//! # Tokens
//!
//! | token | what happens |
//! |---|---|
//! | `tok_ok` | captured in the answer |
//! | `tok_declined` | failed in the answer: `card_declined` |
//! | `tok_3ds` | requires action; captured or failed (`authentication_declined`) by the page |
//! | `tok_approve` | as `tok_3ds`, but approved only: nothing is taken or set aside until the shop proceeds |
//! | `tok_hold` | set aside in the answer, whatever `capture` says; taken when the shop proceeds |
//! | `tok_rate_limited` | the first call is told to come again in a second (429); then captured |
//! | `tok_timeout` | captured, but the first call gets no answer (held for 60 s, then 504) |
//! | `tok_slow` | pending; captured after 2 s |
//! | `tok_late` | pending; a close answers CLOSED, and 2 s later it captures all the same; without a close, past nine minutes |
//! | `tok_duplicate_webhook` | captured; each webhook is sent three times |
//! | `tok_reordered_webhooks` | pending; `payment.captured` overtakes the answer and `payment.authorized` |
//! | `tok_no_webhook` | pending; captured after 1 s, in silence |
//! | `tok_wrong_amount` | pending; captured after 1 s, one unit short |
//! | `tok_refund_fails_once` | captured; the first refund call answers 500 |
//! | `tok_refund_pending` | captured; refunds are PENDING for 2 s, and then succeed |
//! | `tok_refund_later_fails` | captured; the first refund is PENDING for 2 s, and then fails |
//! | `tok_dispute` | captured; the shopper's bank wants the money back at once |
//! | any other, or none | failed in the answer: `invalid_token` |

mod charge;
mod close;
mod dispute;
mod payment;
mod proceed;
mod redirect;
mod refund;
mod refusal;
mod request;
mod settle;
mod signing;
mod token;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::signing::SigningKey;
use crate::webhook::Sender;

/// Bytes a request body may have; a charge needs a few hundred.
const MAX_BODY: usize = 16 * 1024;

/// Where the gateway lives and whom it tells.
#[derive(Clone)]
pub struct Config {
    /// Where webhooks go; `None` keeps them unsent.
    pub webhook_url: Option<String>,
    /// `whsec_<base64>`, the Standard Webhooks form of a signing secret.
    pub webhook_secret: String,
    /// The address under which a shopper's browser reaches the gateway, without a trailing slash.
    pub public_url: String,
}

/// Why the gateway could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schema could not be made, or the database is out of reach.
    #[error("the sandbox gateway cannot use its database")]
    Database(#[from] sqlx::Error),
    /// The secret is not `whsec_` followed by base64.
    #[error("the sandbox webhook secret must be whsec_ followed by base64")]
    WebhookSecret,
    /// The client that sends webhooks could not be made.
    #[error("the sandbox gateway cannot send webhooks")]
    Client(#[from] reqwest::Error),
    /// The listener failed.
    #[error("the sandbox gateway cannot serve")]
    Serve(#[from] std::io::Error),
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Gateway {
    pool: PgPool,
    config: Arc<Config>,
    closing: CancellationToken,
}

impl Gateway {
    /// Keeps a caller waiting, but never the gateway from stopping.
    async fn hold(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.closing.cancelled() => {}
        }
    }
}

/// Makes the schema `sandbox` if it is not there; any number of processes may do so at once.
///
/// # Errors
/// [`Error::Database`] when the database refuses or is out of reach.
pub async fn setup(pool: &PgPool) -> Result<(), Error> {
    let mut tx = pool.begin().await?;
    // "if not exists" alone still collides when two processes start together.
    sqlx::raw_sql("set local client_min_messages = warning; select pg_advisory_xact_lock(hashtext('sandbox.schema'))")
        .execute(&mut *tx)
        .await?;
    sqlx::raw_sql(include_str!("schema.sql")).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// The HTTP API over a database that [`setup`] has prepared. Nothing happens by itself: due captures
/// and webhooks need [`serve`].
pub fn router(pool: PgPool, config: Config) -> Router {
    routes(Gateway { pool, config: Arc::new(config), closing: CancellationToken::new() })
}

fn routes(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/payments", post(charge::create).get(charge::find))
        .route("/v1/payments/close", post(close::close))
        .route("/v1/payments/{id}/proceed", post(proceed::proceed))
        .route("/v1/payments/{id}/refunds", post(refund::refund).get(refund::find))
        .route("/v1/dev/payments", get(charge::dev_list))
        .route("/v1/dev/payments/{id}/dispute", post(dispute::dispute))
        .route("/pay/{id}", get(redirect::show))
        .route("/pay/{id}/approve", post(redirect::approve))
        .route("/pay/{id}/decline", post(redirect::decline))
        .route("/healthz", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(gateway)
}

/// Runs the gateway until `shutdown` resolves: the HTTP API, due captures and webhooks. Requests and
/// webhooks in hand are finished; calls that are being held get their 504 at once.
///
/// The process must have installed a rustls crypto provider before (webhooks may go to https).
///
/// # Errors
/// [`Error::WebhookSecret`] and [`Error::Client`] before anything is served; [`Error::Serve`] when the
/// listener fails.
pub async fn serve(
    listener: TcpListener,
    pool: PgPool,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let key = SigningKey::parse(&config.webhook_secret).ok_or(Error::WebhookSecret)?;
    let sender = match config.webhook_url.clone() {
        Some(url) => Some(Sender { client: reqwest::Client::builder().build()?, url, key }),
        None => None,
    };
    let closing = CancellationToken::new();
    let settling = tokio::spawn(settle::run(pool.clone(), closing.clone()));
    let sending = sender.map(|sender| tokio::spawn(webhook::run(pool.clone(), sender, closing.clone())));

    let gateway = Gateway { pool, config: Arc::new(config), closing: closing.clone() };
    let stop = closing.clone();
    // Its callers are few: the shop's processes, each with many calls at once, and shoppers' browsers.
    let limits = serving::Limits { per_address: None, ..serving::Limits::default() };
    let served = serving::serve(listener, routes(gateway), limits, async move {
        shutdown.await;
        stop.cancel();
    })
    .await;

    closing.cancel();
    for task in [Some(settling), sending].into_iter().flatten() {
        if let Err(error) = task.await {
            tracing::error!(%error, "a background task of the sandbox gateway had ended early");
        }
    }
    Ok(served?)
}
