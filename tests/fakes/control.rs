//! The routes by which a test plays fate and counts the money, all below `/_fake`. Everything else is the provider's.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{OriginalUri, Path, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    books,
    call::{Call, Reply},
    fake::{Fake, Outcome, lock},
    gateway::{Event, Gateway, RefundCourse, RefundTurn, Shopping, Told},
    misfortune::Script,
    server::Lost,
    webhooks::{Resend, Settings},
};

type Account<G> = State<Arc<Fake<G>>>;

/// Both: fate's routes, and the provider's.
pub(crate) fn router<G: Gateway>(fake: Arc<Fake<G>>) -> Router {
    Router::new()
        .route("/_fake/ledger", get(async |State(fake): Account<G>| Json(fake.ledger())))
        .route("/_fake/secrets", get(async |State(fake): Account<G>| Json(fake.secrets())))
        .route("/_fake/breaches", get(async |State(fake): Account<G>| Json(fake.breaches())).delete(forget::<G>))
        .route("/_fake/events", get(async |State(fake): Account<G>| Json(fake.outbox.events())))
        .route("/_fake/misfortunes", post(misfortunes::<G>))
        .route("/_fake/webhooks", post(webhooks::<G>))
        .route("/_fake/webhooks/resend", post(resend::<G>))
        .route("/_fake/shopper", post(shopper::<G>))
        .route("/_fake/payments/{id}", post(payment::<G>))
        .route("/_fake/refunds", post(refunds::<G>))
        .route("/_fake/refunds/{id}", post(refund::<G>))
        .route("/_fake/disputes", post(dispute::<G>))
        .route("/_fake/clock", post(clock::<G>))
        .fallback(provider::<G>)
        .with_state(fake)
}

/// 200 with how things stand, or 409 with why it cannot be.
fn told(told: Told) -> Response {
    match told {
        Ok(standing) => Json(standing).into_response(),
        Err(why) => (StatusCode::CONFLICT, Json(json!({ "error": why }))).into_response(),
    }
}

async fn forget<G: Gateway>(State(fake): Account<G>) -> StatusCode {
    lock(&fake.breaches).clear();
    StatusCode::NO_CONTENT
}

async fn misfortunes<G: Gateway>(State(fake): Account<G>, Json(script): Json<Script>) -> StatusCode {
    lock(&fake.misfortunes).plan(script);
    StatusCode::NO_CONTENT
}

async fn webhooks<G: Gateway>(State(fake): Account<G>, Json(settings): Json<Settings>) -> StatusCode {
    fake.outbox.set(settings);
    StatusCode::NO_CONTENT
}

async fn resend<G: Gateway>(State(fake): Account<G>, Json(order): Json<Resend>) -> Response {
    told(fake.outbox.resend(&order).await.map(|status| json!({ "status": status })))
}

async fn shopper<G: Gateway>(State(fake): Account<G>, Json(shopping): Json<Shopping>) -> Response {
    told(fake.happen(None, |gateway, desk| gateway.shopper(&shopping, desk)))
}

async fn payment<G: Gateway>(State(fake): Account<G>, Path(id): Path<String>, Json(event): Json<Event>) -> Response {
    told(fake.happen(None, |gateway, desk| gateway.turn(&id, &event, desk)))
}

#[derive(Debug, Deserialize)]
struct Beginning {
    begin: RefundCourse,
}

async fn refunds<G: Gateway>(State(fake): Account<G>, Json(Beginning { begin }): Json<Beginning>) -> StatusCode {
    *lock(&fake.refunds) = begin;
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct RefundEvent {
    event: RefundTurn,
}

async fn refund<G: Gateway>(
    State(fake): Account<G>,
    Path(id): Path<String>,
    Json(RefundEvent { event }): Json<RefundEvent>,
) -> Response {
    told(fake.happen(None, |gateway, desk| gateway.turn_refund(&id, event, desk)))
}

#[derive(Debug, Deserialize)]
struct Dispute {
    payment: String,
    outcome: books::Outcome,
}

async fn dispute<G: Gateway>(State(fake): Account<G>, Json(order): Json<Dispute>) -> Response {
    told(fake.happen(None, |gateway, desk| gateway.dispute(&order.payment, order.outcome, desk)))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Clock {
    ahead_ms: i64,
}

async fn clock<G: Gateway>(State(fake): Account<G>, Json(Clock { ahead_ms }): Json<Clock>) -> StatusCode {
    fake.outbox.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    StatusCode::NO_CONTENT
}

async fn provider<G: Gateway>(
    State(fake): Account<G>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    raw: Bytes,
) -> Response {
    let call = Call {
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers,
        raw,
        parts: Vec::new(),
        parameters: Value::Null,
        body: Value::Null,
        key: None,
    };
    // A provider goes on when whoever asked has hung up.
    let life = tokio::spawn(fake.take(method, uri.path().to_owned(), call));
    match life.await {
        Ok(Outcome::Answered(reply)) => response(reply),
        Ok(Outcome::Lost) | Err(_) => {
            let mut lost = Response::new(Body::empty());
            lost.extensions_mut().insert(Lost);
            lost
        }
    }
}

fn response(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers: Vec<(String, String)> =
        reply.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut response = match reply.body {
        Some(body) => (status, Json(body)).into_response(),
        None => status.into_response(),
    };
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<axum::http::HeaderName>(), value.parse()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
