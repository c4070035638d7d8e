//! Pieces of an order's lines: how a request names them, how an answer does, and why they cannot be shipped.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use workflows::fulfilment::{LineName, ShipRefusal};

use super::change::BEING_CANCELLED;
use crate::error::{ApiError, FieldError};

/// Most lines of one request: an order has no more.
const MAX_LINES: usize = 200;

/// Most pieces of a line.
const MAX_QUANTITY: i64 = 999;

/// Some pieces of one line of an order. The line is named by its own id, or by its variant.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PiecesBody {
    /// Of the order; or else `variantId`.
    #[serde(default)]
    order_item_id: Option<Uuid>,
    /// Id or SKU of the line's variant.
    #[schema(examples("LAP-001"))]
    #[serde(default)]
    variant_id: Option<String>,
    /// Pieces.
    #[schema(minimum = 1, maximum = 999)]
    quantity: i64,
}

/// Some pieces of one line of an order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pieces {
    order_item_id: Uuid,
    quantity: i32,
}

impl From<(Uuid, i32)> for Pieces {
    fn from((order_item_id, quantity): (Uuid, i32)) -> Self {
        Pieces { order_item_id, quantity }
    }
}

/// The lines a request names, and how many pieces of each.
///
/// # Errors
/// 422 `validation-failed` or `quantity-invalid`, with every place that is wrong.
pub(crate) fn pieces(items: Vec<PiecesBody>) -> Result<Vec<(LineName, i32)>, ApiError> {
    if items.is_empty() || items.len() > MAX_LINES {
        return Err(ApiError::invalid(vec![FieldError::new("/items", format!("must have 1 to {MAX_LINES} entries"))]));
    }
    let mut lines = Vec::with_capacity(items.len());
    for (position, item) in items.into_iter().enumerate() {
        let at = |field: &str, detail: &str| FieldError::new(format!("/items/{position}{field}"), detail.to_owned());
        let name = match (item.order_item_id, item.variant_id) {
            (Some(id), None) => LineName::Item(id),
            (None, Some(name)) => LineName::Variant(name),
            (None, None) | (Some(_), Some(_)) => {
                return Err(ApiError::invalid(vec![at("", "needs either orderItemId or variantId")]));
            }
        };
        let quantity = i32::try_from(item.quantity).ok().filter(|_| (1..=MAX_QUANTITY).contains(&item.quantity));
        let quantity = quantity.ok_or_else(|| {
            ApiError::unprocessable("quantity-invalid", format!("A quantity is 1 to {MAX_QUANTITY}."))
                .with_errors(vec![at("/quantity", "is out of range")])
        })?;
        lines.push((name, quantity));
    }
    Ok(lines)
}

/// 422 `order-item-not-found`, at its place.
pub(crate) fn unknown_line(position: usize) -> ApiError {
    ApiError::unprocessable("order-item-not-found", "The order has no such line.")
        .with_errors(vec![FieldError::new(format!("/items/{position}"), "names no line of this order")])
}

impl From<ShipRefusal> for ApiError {
    fn from(refusal: ShipRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            ShipRefusal::NotShippable(status) => {
                ApiError::conflict("order-not-shippable", detail).with("orderStatus", status.as_str())
            }
            ShipRefusal::BeingCancelled => ApiError::conflict(BEING_CANCELLED, detail),
            ShipRefusal::UnknownLine { position } => unknown_line(position),
            ShipRefusal::TooMany { order_item_id, sku: _, left } => {
                ApiError::conflict("shipment-exceeds-order", detail)
                    .with("orderItemId", order_item_id.to_string())
                    .with("available", left)
            }
            ShipRefusal::PaidBack => ApiError::conflict("order-not-shippable", detail),
            ShipRefusal::IsCancellation => ApiError::conflict("cancellation-required", detail),
            ShipRefusal::NothingLeft => ApiError::conflict("nothing-to-ship", detail),
            ShipRefusal::Database(error) => error.into(),
        }
    }
}
