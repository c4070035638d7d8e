//! Whose cart a request is about, and the one transaction in which it changes.

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use domain::ids::UserId;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use workflows::{
    Shop,
    cart::{self, CartRefusal, CartView, Owner},
    store::carts,
};

use super::answer::CartAnswer;
use crate::{
    caller::{Caller, CartSession},
    error::ApiError,
    etag::{IfMatch, etag},
    idempotency::{self, Begun, IdempotencyKey},
    state::AppState,
};

/// What may be done to a cart.
pub(super) enum Change {
    Add { product: Option<String>, variant: String, quantity: i64 },
    SetQuantity { variant: String, quantity: i64 },
    Remove { variant: String },
    Clear,
    ApplyCoupon { code: String },
    RemoveCoupon { code: String },
    Merge { user_id: UserId, session_hash: Vec<u8> },
}

impl Change {
    async fn apply(self, conn: &mut PgConnection, shop: &Shop, owner: &Owner) -> Result<CartView, CartRefusal> {
        match self {
            Change::Add { product, variant, quantity } => {
                cart::add_item(conn, shop, owner, &variant, product.as_deref(), quantity).await
            }
            Change::SetQuantity { variant, quantity } => {
                cart::update_quantity(conn, shop, owner, &variant, quantity).await
            }
            Change::Remove { variant } => cart::remove_item(conn, shop, owner, &variant).await,
            Change::Clear => cart::clear(conn, shop, owner).await,
            Change::ApplyCoupon { code } => cart::apply_coupon(conn, shop, owner, &code).await,
            Change::RemoveCoupon { code } => cart::remove_coupon(conn, shop, owner, &code).await,
            Change::Merge { user_id, session_hash } => cart::merge(conn, shop, user_id, &session_hash).await,
        }
    }
}

/// A request about the caller's own cart. A guest without a session is given one, and so is a guest whose
/// session we did not issue: nobody gets a cart under a secret that somebody else may have made up for them.
/// Services have no carts.
pub(super) struct Visit {
    owner: Owner,
    /// Set for a guest who came without one that we issued.
    new_session: Option<SecretString>,
    if_match: IfMatch,
    /// The caller's name and key. A guest without a session has no earlier answer that could be his.
    idempotency: Option<(String, IdempotencyKey)>,
}

impl Visit {
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Changes the cart under the client's conditions, all in one transaction.
    pub(super) async fn carry_out(self, state: &AppState, change: Change) -> Result<Response, ApiError> {
        let mut tx = state.pool.begin().await?;
        if let Some((caller, key)) = &self.idempotency
            && let Begun::Replay(replay) = idempotency::begin(&mut tx, caller, key).await?
        {
            let version = replay.body["cart"]["version"].as_i64().unwrap_or_default();
            return Ok(([(header::ETAG, etag(version))], replay).into_response());
        }
        if self.if_match.is_given() {
            cart::require_version(&mut tx, &state.shop, &self.owner, |version| self.if_match.allows(version)).await?;
        }
        let view = change.apply(&mut tx, &state.shop, &self.owner).await?;
        if let Some((caller, key)) = &self.idempotency {
            let body = serde_json::to_value(CartAnswer::new(&view)).map_err(ApiError::internal)?;
            idempotency::finish(&mut tx, caller, key, StatusCode::OK, &body).await?;
        }
        tx.commit().await?;
        // Box 7, after the commit: a copy must never know what Postgres does not.
        view.keep(&*state.carts).await;
        Ok(self.answer(&view))
    }

    /// The cart, with its version and a new guest's secret.
    pub(super) fn answer(&self, view: &CartView) -> Response {
        let mut answer = CartAnswer::new(view);
        answer.cart_session = self.new_session.as_ref().map(|token| token.expose_secret().to_owned());
        ([(header::ETAG, etag(view.cart.version))], axum::Json(answer)).into_response()
    }
}

impl FromRequestParts<AppState> for Visit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = issued(Caller::from_request_parts(parts, state).await?, state).await?;
        let Ok(if_match) = IfMatch::from_request_parts(parts, state).await;
        let key = <IdempotencyKey as OptionalFromRequestParts<AppState>>::from_request_parts(parts, state).await?;
        let idempotency = caller.key().ok().zip(key);
        let (owner, new_session) = match caller {
            Caller::User { user_id, .. } => (Owner::User(user_id), None),
            Caller::Guest(session) => (Owner::Guest { session_hash: session.hash.to_vec() }, None),
            Caller::Anonymous => {
                let session = CartSession::issue(&state.auth);
                (Owner::Guest { session_hash: session.hash.to_vec() }, Some(session.token))
            }
            Caller::Service { .. } => return Err(ApiError::forbidden()),
        };
        Ok(Visit { owner, new_session, if_match, idempotency })
    }
}

/// The caller, who is anonymous if the session is none of ours. One that is not signed by a secret of now may
/// have been issued under an earlier one: then it has a cart.
async fn issued(caller: Caller, state: &AppState) -> Result<Caller, ApiError> {
    if let Caller::Guest(session) = &caller
        && !state.auth.is_session(session.token.expose_secret())
        && !carts::is_known_session(&mut *state.pool.acquire().await?, &session.hash).await?
    {
        return Ok(Caller::Anonymous);
    }
    Ok(caller)
}
