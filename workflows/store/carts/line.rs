//! A line of a cart.

use domain::{
    ids::{ProductId, VariantId},
    money::Currency,
    pricing::LineInput,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::inventory::{Short, Wanted};

/// A line, with everything an order or an answer says about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartLine {
    /// What.
    pub variant_id: VariantId,
    /// Of which product.
    pub product_id: ProductId,
    /// Of which category, for coupons' scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category_id: Option<Uuid>,
    /// How many.
    pub quantity: u32,
    /// Today's price.
    pub price: Decimal,
    /// The price when it was put in the cart.
    pub price_when_added: Decimal,
    /// Of both prices, ISO 4217: the product's.
    pub currency: String,
    /// Percent.
    pub tax_rate: Decimal,
    /// The variant's SKU.
    pub sku: String,
    /// Product and variant name.
    pub name: String,
    /// e.g. size and colour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<serde_json::Value>,
    /// Picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// Product and variant are for sale at all.
    pub is_active: bool,
    /// Units nobody holds.
    pub available: u32,
}

/// A line that cannot be sold as asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shortage {
    /// What.
    pub variant_id: VariantId,
    /// Its SKU.
    pub sku: String,
    /// Asked for.
    pub requested: u32,
    /// To be had.
    pub available: u32,
}

/// A line whose price is not what it was when it was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceChange {
    /// What.
    pub variant_id: VariantId,
    /// Its SKU.
    pub sku: String,
    /// Price when added.
    pub old_price: String,
    /// Price now.
    pub new_price: String,
    /// Of both.
    pub currency: String,
}

impl CartLine {
    /// Quantity × price, before anything is taken off.
    pub fn total(&self) -> Decimal {
        self.price * Decimal::from(self.quantity)
    }

    /// Units that can be sold: none of what is not for sale.
    pub fn for_sale(&self) -> u32 {
        if self.is_active { self.available } else { 0 }
    }

    /// The line as the pricing pipeline wants it.
    pub fn input(&self) -> LineInput {
        LineInput {
            variant_id: self.variant_id,
            product_id: self.product_id,
            category_id: self.category_id,
            quantity: self.quantity,
            unit_price: self.price,
            tax_rate: self.tax_rate,
        }
    }

    /// Of what there is too little: of what is for sale.
    pub fn shortage(&self) -> Shortage {
        let available = self.for_sale();
        Shortage { variant_id: self.variant_id, sku: self.sku.clone(), requested: self.quantity, available }
    }

    /// The same by what a hold found, if this line is among it.
    pub fn short_of(&self, short: &[Short]) -> Option<Shortage> {
        let found = short.iter().find(|short| short.variant_id == self.variant_id)?;
        Some(Shortage { available: found.available, ..self.shortage() })
    }

    /// How its price has changed since it was put into the cart, if it has.
    pub fn price_change(&self) -> Option<PriceChange> {
        let currency = self.currency.parse().unwrap_or(Currency::INR);
        let wire = |amount| domain::money::to_wire(amount, currency);
        (self.price != self.price_when_added).then(|| PriceChange {
            variant_id: self.variant_id,
            sku: self.sku.clone(),
            old_price: wire(self.price_when_added),
            new_price: wire(self.price),
            currency: self.currency.clone(),
        })
    }
}

impl Wanted {
    /// One a line; lines are in variant order and name each variant once.
    pub fn of(lines: &[CartLine]) -> Vec<Wanted> {
        lines
            .iter()
            .map(|line| Wanted {
                variant_id: line.variant_id,
                quantity: i32::try_from(line.quantity).unwrap_or(i32::MAX),
                reservation_id: Uuid::now_v7(),
            })
            .collect()
    }
}
