//! What is told together with a cart.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::Adjustment;
use crate::ids::VariantId;
use crate::money::{Currency, to_wire};

/// What the shopper should know about a cart since they last saw it, told with the cart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase")]
pub enum CartNotice {
    /// A piece costs more or less than when it was added.
    PriceChanged {
        /// Which line.
        variant_id: VariantId,
        /// When it was added, as a decimal with the digits of the currency.
        old_price: String,
        /// Now, likewise.
        new_price: String,
        /// Of both prices.
        currency: Currency,
    },
    /// A line has fewer pieces than were asked for.
    QuantityAdjusted(Adjustment),
}

impl CartNotice {
    /// The notice to give when a line's unit price went from `old` to `new`; `None` when the two
    /// are the same money, however many zeros they were stored with.
    #[must_use]
    pub fn price_changed(variant_id: VariantId, old: Decimal, new: Decimal, currency: Currency) -> Option<Self> {
        let (old_price, new_price) = (to_wire(old, currency), to_wire(new, currency));
        (old_price != new_price).then_some(CartNotice::PriceChanged { variant_id, old_price, new_price, currency })
    }
}

impl From<Adjustment> for CartNotice {
    fn from(adjustment: Adjustment) -> Self {
        CartNotice::QuantityAdjusted(adjustment)
    }
}
