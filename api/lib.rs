//! The HTTP API: a thin axum layer that authenticates, validates, starts workflows and reports on them.
//!
//! One file a resource, each with a `routes()` that [`router`] merges. What must not live here: rules of
//! commerce (they are `domain`'s), SQL over the shop's tables (`workflows::store`), and waiting for
//! anything slow (a workflow does that; the API answers 202).

pub mod accepts;
pub mod accounts;
pub mod buckets;
pub mod caller;
pub mod error;
pub mod extract;
pub mod idempotency;
pub mod origins;
pub mod page;
pub mod state;
pub mod tokens;

mod addresses;
mod admission;
mod auth;
mod backlog;
mod cart;
mod categories;
mod checkout;
mod cors;
mod coupons;
mod dev;
mod door;
mod etag;
mod events;
mod fraud;
mod health;
mod inventory;
mod keys;
mod observe;
mod openapi;
mod orders;
mod payments;
mod preferences;
mod products;
mod rate;
mod refunds;
mod returns;
mod schedules;
mod shipments;
mod throttle;
mod users;
mod valid;
mod watch;
mod webhooks;
mod write;

#[cfg(test)]
mod tests;

use std::{future::Future, io};

use axum::{
    Router,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
};
use tokio::{net::TcpListener, sync::oneshot};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

pub use buckets::RateLimits;
pub use caller::{Caller, CartSession, Scope};
pub use error::ApiError;
pub use origins::AllowedOrigins;
pub use state::{ApiConfig, AppState, DevState};
pub use tokens::AuthKeys;

/// Every resource, with its part of the OpenAPI document.
fn resources(state: &AppState) -> OpenApiRouter<AppState> {
    let resources = openapi::document()
        .merge(auth::routes())
        .merge(products::routes())
        .merge(categories::routes())
        .merge(inventory::routes())
        .merge(coupons::routes())
        .merge(users::routes())
        .merge(keys::routes())
        .merge(addresses::routes())
        .merge(cart::routes())
        .merge(checkout::routes())
        .merge(orders::routes())
        .merge(payments::routes())
        .merge(refunds::routes())
        .merge(fraud::routes())
        .merge(events::routes())
        .merge(shipments::routes())
        .merge(returns::routes())
        .merge(preferences::routes())
        .merge(schedules::routes())
        .merge(webhooks::routes());
    if state.dev.is_some() { resources.merge(dev::routes()) } else { resources }
}

/// The whole API. Layers read from the inside out: the nearer to the handler, the earlier in this list.
pub fn router(state: AppState) -> Router {
    let (resources, mut document) = resources(&state).split_for_parts();
    openapi::add_common_refusals(&mut document);
    openapi::examples::add(&mut document);
    let promises = openapi::promises::Promises::of(&mut document);
    let cross_origin = cors::layer(&state);
    resources
        .layer(from_fn_with_state(state.clone(), write::digest_requests))
        .layer(from_fn_with_state(state.clone(), admission::admit))
        .layer(from_fn_with_state(state.clone(), admission::receive))
        .layer(from_fn_with_state(state.clone(), rate::limit))
        .layer(from_fn_with_state(promises, openapi::promises::keep))
        // Health and documentation answer even when the shop is overloaded.
        .merge(health::routes())
        .merge(openapi::pages(document))
        .fallback(async || ApiError::not_found("not-found", "There is nothing here."))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This method is not offered here.")
        })
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(from_fn(door::admit_head))
        .layer(from_fn(door::speak_problem))
        .layer(from_fn(observe::secure))
        // A preflight is answered here, before anything is looked up.
        .layer(cross_origin)
        .layer(from_fn(door::offer_methods))
        .layer(from_fn(observe::record))
        .with_state(state)
}

/// Serves until `shutdown` resolves, then lets the requests in hand finish, at most
/// [`ApiConfig::drain_limit`] long.
///
/// # Errors
/// The listener's own.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (drain_limit, limits) = (state.config.drain_limit, state.config.connections());
    let (stopping, stopped) = oneshot::channel();
    let server = serving::serve(listener, router(state.clone()), limits, async move {
        shutdown.await;
        state.start_draining();
        // Nobody listens when the server ended by itself.
        let _ = stopping.send(());
    });
    let out_of_patience = async {
        if stopped.await.is_err() {
            // The server is gone, and its own branch says how.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(drain_limit).await;
    };
    tokio::select! {
        ended = server => ended,
        () = out_of_patience => {
            tracing::warn!(?drain_limit, "requests were still in hand at the end of the grace period");
            Ok(())
        }
    }
}
