//! A guest's cart and a user's become one on login.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CartLine, MAX_QUANTITY, Quantity};
use crate::ids::VariantId;

/// Why a line has fewer pieces than were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AdjustmentReason {
    /// There are no more in stock.
    LimitedStock,
    /// There are none in stock; the line stays with one piece, and checkout will refuse it.
    OutOfStock,
    /// A line has at most [`MAX_QUANTITY`] pieces.
    QuantityLimit,
}

/// A line that did not get the quantity asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Adjustment {
    /// Which line.
    pub variant_id: VariantId,
    /// Pieces asked for.
    pub requested_quantity: u32,
    /// Pieces it has now.
    pub quantity: u32,
    /// Why.
    pub reason: AdjustmentReason,
}

/// The user's cart after taking over a guest's on login: by variant id, every line of both. A line
/// of the guest's gets min(sum, stock, [`MAX_QUANTITY`]) pieces, but at least one: a shopper is
/// told what has sold out rather than left to wonder where it went. For the same reason
/// [`MAX_LINES`](super::MAX_LINES) does not apply. Lines of the user's alone stay as they are, so that a second
/// merge, which finds no guest lines, changes nothing.
pub fn merge(
    guest: &[CartLine],
    user: &[CartLine],
    stock: impl Fn(VariantId) -> u32,
) -> (Vec<CartLine>, Vec<Adjustment>) {
    let mut merged: BTreeMap<VariantId, Quantity> = user.iter().map(|line| (line.variant_id, line.quantity)).collect();
    let mut brought: BTreeMap<VariantId, u32> = BTreeMap::new();
    for line in guest {
        *brought.entry(line.variant_id).or_default() += line.quantity.get();
    }
    let mut adjustments = Vec::new();
    for (variant_id, pieces) in brought {
        let requested_quantity = pieces + merged.get(&variant_id).map_or(0, |quantity| quantity.get());
        let in_stock = stock(variant_id);
        let quantity = requested_quantity.min(in_stock).clamp(1, MAX_QUANTITY);
        merged.insert(variant_id, Quantity(quantity));
        let reason = if in_stock == 0 {
            AdjustmentReason::OutOfStock
        } else if quantity == requested_quantity {
            continue;
        } else if quantity == in_stock {
            AdjustmentReason::LimitedStock
        } else {
            AdjustmentReason::QuantityLimit
        };
        adjustments.push(Adjustment { variant_id, requested_quantity, quantity, reason });
    }
    (merged.into_iter().map(|(variant_id, quantity)| CartLine { variant_id, quantity }).collect(), adjustments)
}
