//! A guest's cart and a user's become one on login.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CartLine, MAX_LINES, MAX_QUANTITY, Quantity};
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
    /// A cart has at most [`MAX_LINES`] lines; this one is still in the guest's.
    LineLimit,
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

/// What becomes of two carts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// The user's cart afterwards, by variant id.
    pub lines: Vec<CartLine>,
    /// What stays in the guest's cart, because the user's is full.
    pub left: Vec<CartLine>,
    /// Lines that did not get the quantity asked for.
    pub adjustments: Vec<Adjustment>,
}

/// The user's cart after taking over a guest's on login. A line of the guest's gets min(sum, stock,
/// [`MAX_QUANTITY`]) pieces, but at least one: a shopper is told what has sold out rather than left to
/// wonder where it went. For the same reason a line above [`MAX_LINES`] stays where it is. Lines of the
/// user's alone stay as they are, so that a second merge, which finds no guest lines, changes nothing.
pub fn merge(guest: &[CartLine], user: &[CartLine], stock: impl Fn(VariantId) -> u32) -> Merged {
    let mut lines: BTreeMap<VariantId, Quantity> = user.iter().map(|line| (line.variant_id, line.quantity)).collect();
    let mut merged = Merged::default();
    let brought: BTreeMap<VariantId, Quantity> = guest.iter().map(|line| (line.variant_id, line.quantity)).collect();
    for (variant_id, pieces) in brought {
        let present = lines.get(&variant_id).map_or(0, |quantity| quantity.get());
        let requested_quantity = pieces.get() + present;
        let adjusted = |quantity, reason| Adjustment { variant_id, requested_quantity, quantity, reason };
        if present == 0 && lines.len() >= MAX_LINES {
            merged.left.push(CartLine { variant_id, quantity: pieces });
            merged.adjustments.push(adjusted(0, AdjustmentReason::LineLimit));
            continue;
        }
        let in_stock = stock(variant_id);
        let quantity = requested_quantity.min(in_stock).clamp(1, MAX_QUANTITY);
        lines.insert(variant_id, Quantity(quantity));
        let reason = if in_stock == 0 {
            AdjustmentReason::OutOfStock
        } else if quantity == requested_quantity {
            continue;
        } else if quantity == in_stock {
            AdjustmentReason::LimitedStock
        } else {
            AdjustmentReason::QuantityLimit
        };
        merged.adjustments.push(adjusted(quantity, reason));
    }
    merged.lines = lines.into_iter().map(|(variant_id, quantity)| CartLine { variant_id, quantity }).collect();
    merged
}
