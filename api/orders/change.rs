//! A change of an order: who asks for it, and under which conditions.

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::request::Parts,
};
use chrono::{DateTime, Utc};
use domain::ids::OrderId;
use workflows::store::orders::{self, LockedOrder};

use crate::{
    caller::Caller,
    error::ApiError,
    etag::IfMatch,
    idempotency::{IdempotencyKey, Replay},
    state::AppState,
    write::Write,
};

/// The code of whatever comes after an accepted cancellation.
pub(crate) const BEING_CANCELLED: &str = "order-being-cancelled";

/// What comes with a request to change an order: its caller, `If-Match`, and maybe a key.
pub(crate) struct OrderChange {
    pub(crate) caller: Caller,
    if_match: IfMatch,
    key: Option<IdempotencyKey>,
}

impl FromRequestParts<AppState> for OrderChange {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let Ok(if_match) = IfMatch::from_request_parts(parts, state).await;
        let key = <IdempotencyKey as OptionalFromRequestParts<AppState>>::from_request_parts(parts, state).await?;
        Ok(OrderChange { caller, if_match, key })
    }
}

impl OrderChange {
    /// Begins its transaction, or finds what was answered before.
    ///
    /// # Errors
    /// As [`Write::begin`].
    pub(crate) async fn begin(&self, state: &AppState) -> Result<Result<Write, Replay>, ApiError> {
        Write::begin(state, &self.caller, self.key.clone()).await
    }

    /// The order, locked until the transaction ends, if it is still the one the client has seen.
    ///
    /// # Errors
    /// 404 `order-not-found`; 412 `precondition-failed`.
    pub(crate) async fn lock(&self, write: &mut Write, order_id: OrderId) -> Result<LockedOrder, ApiError> {
        let order = orders::lock(write.conn(), order_id).await?.ok_or_else(order_not_found)?;
        if !self.if_match.allows(order.updated_at.timestamp_micros()) {
            return Err(ApiError::precondition_failed("The order has changed since you read it."));
        }
        Ok(order)
    }

    /// The same for an order's id or number, and the time of the change.
    ///
    /// # Errors
    /// As [`OrderChange::lock`].
    pub(crate) async fn order(
        &self,
        write: &mut Write,
        id_or_number: &str,
    ) -> Result<(LockedOrder, DateTime<Utc>), ApiError> {
        let found = orders::read::find(write.conn(), id_or_number).await?.ok_or_else(order_not_found)?;
        let order = self.lock(write, found.id.into()).await?;
        Ok((order, engine::now(write.conn()).await?))
    }
}

/// 404, also for somebody else's.
pub(crate) fn order_not_found() -> ApiError {
    ApiError::not_found("order-not-found", "There is no such order.")
}
