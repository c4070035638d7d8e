//! What happened in the shop, for staff and for other services to follow.

use std::time::Duration;

use axum::extract::State;
use engine::silence::heard;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use workflows::store::events::{self, CloudEvent, Position, Wanted};

use crate::{
    caller::{Caller, Scope},
    error::{ApiError, FieldError},
    extract::{Json, Query},
    openapi::Problem,
    page::{PageQuery, read_cursor, write_cursor},
    state::AppState,
    watch::LONGEST_WAIT_S,
};

/// Between two looks for news.
const PERIOD: Duration = Duration::from_millis(250);

/// Longest name of a type, and of a subject.
const MAX_NAME_CHARS: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(follow))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FeedQuery {
    /// `nextCursor` of the answer before; from the beginning when left out.
    after: Option<String>,
    /// Events wanted, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// Of this type only, e.g. `order.confirmed`.
    #[serde(rename = "type")]
    #[param(rename = "type")]
    event_type: Option<String>,
    /// About this order, cart, variant or reservation only: its id.
    subject: Option<String>,
    /// Seconds to wait at most for the first event; 30 at most.
    wait: Option<u64>,
}

/// A stretch of the feed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventFeed {
    /// CloudEvents 1.0, in the order of the feed; those of one subject happened in the order of their
    /// `sequence`.
    #[schema(value_type = Vec<Object>, example = json!([{
        "specversion": "1.0", "id": "2f1f9a0e-53b2-4f65-9a4e-6b0a8a2f5c11", "source": "https://shop.example.com",
        "type": "order.confirmed", "subject": "019a0000-0000-7000-8000-000000000001",
        "time": "2026-01-31T10:00:00Z", "datacontenttype": "application/json", "sequence": "00000000000000000042",
        "data": { "orderId": "019a0000-0000-7000-8000-000000000001", "totalAmount": "59050.00", "currency": "INR" }
    }]))]
    items: Vec<CloudEvent>,
    /// Send it as `after` to go on, now or later; null only before the first event ever.
    next_cursor: Option<String>,
}

/// Follows what happens in the shop. Nothing is skipped, however late it commits, and nothing comes
/// twice under the same cursor; a reader that forgets its cursor knows events by their `id`.
#[utoipa::path(
    get, path = "/api/events", tag = "Events", security(("bearer" = []), ("apiKey" = [])), params(FeedQuery),
    responses(
        (status = 200, description = "What happened since", body = EventFeed),
        (status = 401, description = "`login-required`", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`forbidden`: neither staff nor a key with the scope `events:read`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn follow(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<FeedQuery>,
) -> Result<Json<EventFeed>, ApiError> {
    if !caller.is_staff() {
        caller.require_scope(Scope::EventsRead)?;
    }
    let limit = PageQuery { limit: query.limit, cursor: None }.limit()?;
    let mut after = query.after.as_deref().map(position).transpose()?;
    for (pointer, name) in [("/type", &query.event_type), ("/subject", &query.subject)] {
        if name.as_ref().is_some_and(|name| !(1..=MAX_NAME_CHARS).contains(&name.chars().count())) {
            let detail = format!("must have 1 to {MAX_NAME_CHARS} characters");
            return Err(ApiError::invalid(vec![FieldError::new(pointer, detail)]));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(query.wait.unwrap_or_default().min(LONGEST_WAIT_S));
    loop {
        let from = after.unwrap_or_default();
        let wanted = Wanted {
            after: from,
            event_type: query.event_type.as_deref(),
            subject: query.subject.as_deref(),
            limit,
            source: &state.shop.rules.public_url,
        };
        // No connection is kept over the wait.
        // The poll's own time is no time for a statement.
        let feed = heard(async { events::read(&mut *state.pool.acquire().await?, wanted).await }).await?;
        if feed.position != from {
            after = Some(feed.position);
        }
        if !feed.events.is_empty() || Instant::now() >= deadline || state.is_draining() {
            let next_cursor = after.and_then(|Position { xid, id }| write_cursor((xid, id)));
            return Ok(Json(EventFeed { items: feed.events, next_cursor }));
        }
        // A search that went through events of other types goes on at once.
        if feed.position == from {
            tokio::time::sleep_until(deadline.min(Instant::now() + PERIOD)).await;
        }
    }
}

fn position(cursor: &str) -> Result<Position, ApiError> {
    let (xid, id) = read_cursor(cursor, "/after")?;
    Ok(Position { xid, id })
}
