//! A cart, and a refusal to change it, on the wire.

use axum::http::StatusCode;
use domain::{
    cart::{Adjustment, CartError},
    money::{Currency, to_wire},
    pricing::{PricingError, Quote, QuotedLine},
};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use workflows::{
    cart::{CartRefusal, CartView, Notice},
    store::carts::CartLine,
};

use crate::error::{ApiError, FieldError};

/// A cart at today's prices.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CartAnswer {
    cart: CartHead,
    items: Vec<CartItem>,
    /// Merchandise before discounts and tax.
    #[schema(examples("50000.00"))]
    subtotal: String,
    /// Pieces of all lines together.
    item_count: u32,
    price_breakdown: PriceBreakdown,
    /// The coupons that lower the price, and by how much.
    coupons: Vec<CouponSaving>,
    /// What changed since the shopper last acted; each has a `type`.
    #[schema(value_type = Vec<Object>)]
    notices: Vec<Notice>,
    /// After a merge: every line that got fewer pieces than were asked for, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    adjustments: Option<Vec<Adjustment>>,
    /// A guest's secret, told once: send it as `X-Cart-Session`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cart_session: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CartHead {
    cart_id: Uuid,
    /// Raised by every write; the ETag.
    version: i64,
    /// ACTIVE, CHECKOUT or ABANDONED.
    status: &'static str,
    #[schema(examples("INR"))]
    currency: String,
    applied_coupons: Vec<String>,
    /// The checkout that holds the cart, while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow_id: Option<Uuid>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CartItem {
    variant_id: Uuid,
    product_id: Uuid,
    sku: String,
    name: String,
    quantity: u32,
    /// Of one piece, today, before tax.
    #[schema(examples("50000.00"))]
    price: String,
    /// Quantity × price.
    line_total: String,
    /// The line's share of the discounts.
    discount_amount: String,
    /// Tax on the rest.
    tax_amount: String,
    /// Pieces that can be had now.
    available: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    attributes: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<String>,
}

/// `subtotal − discount + tax + shipping = total`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PriceBreakdown {
    #[schema(examples("50000.00"))]
    pub(crate) subtotal: String,
    pub(crate) discount: String,
    #[schema(examples("9000.00"))]
    pub(crate) tax: String,
    #[schema(examples("50.00"))]
    pub(crate) shipping: String,
    #[schema(examples("59050.00"))]
    pub(crate) total: String,
    pub(crate) currency: String,
}

/// A coupon and what it takes off.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CouponSaving {
    pub(crate) code: String,
    pub(crate) discount: String,
}

impl CartAnswer {
    pub(super) fn new(view: &CartView) -> Self {
        let CartView { cart, quote, applied_coupons, notices, adjustments, .. } = view;
        let wire = |amount: Decimal| to_wire(amount, quote.currency);
        CartAnswer {
            cart: CartHead {
                cart_id: cart.id.into(),
                version: cart.version,
                status: cart.status.as_str(),
                currency: cart.currency.clone(),
                applied_coupons: applied_coupons.clone(),
                workflow_id: cart.checkout_run_id,
            },
            // A quote has the cart's lines in the cart's order.
            items: cart
                .lines
                .iter()
                .zip(&quote.lines)
                .map(|(line, priced)| CartItem::new(line, priced, quote.currency))
                .collect(),
            subtotal: wire(quote.subtotal),
            item_count: cart.lines.iter().map(|line| line.quantity).sum(),
            price_breakdown: PriceBreakdown::of(quote),
            coupons: quote
                .coupons
                .iter()
                .map(|coupon| CouponSaving { code: coupon.code.clone(), discount: wire(coupon.discount) })
                .collect(),
            notices: notices.clone(),
            adjustments: adjustments.clone(),
            cart_session: None,
        }
    }
}

impl CartItem {
    fn new(line: &CartLine, priced: &QuotedLine, currency: Currency) -> Self {
        let wire = |amount: Decimal| to_wire(amount, currency);
        CartItem {
            variant_id: line.variant_id.into(),
            product_id: line.product_id.into(),
            sku: line.sku.clone(),
            name: line.name.clone(),
            quantity: line.quantity,
            price: wire(priced.unit_price),
            line_total: wire(priced.subtotal),
            discount_amount: wire(priced.discount),
            tax_amount: wire(priced.tax),
            available: line.for_sale(),
            attributes: line.attributes.clone(),
            image_url: line.image_url.clone(),
        }
    }
}

impl PriceBreakdown {
    fn of(quote: &Quote) -> Self {
        let wire = |amount: Decimal| to_wire(amount, quote.currency);
        PriceBreakdown {
            subtotal: wire(quote.subtotal),
            discount: wire(quote.discount),
            tax: wire(quote.tax),
            shipping: wire(quote.shipping),
            total: wire(quote.total),
            currency: quote.currency.to_string(),
        }
    }
}

impl From<CartRefusal> for ApiError {
    fn from(refusal: CartRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            CartRefusal::VariantNotFound { .. } => ApiError::not_found("variant-not-found", detail),
            CartRefusal::CartNotFound => ApiError::not_found("cart-not-found", detail),
            CartRefusal::ItemNotInCart { .. } => ApiError::not_found("item-not-in-cart", detail),
            CartRefusal::OutOfStock { sku, requested, available } => ApiError::conflict("out-of-stock", detail.clone())
                .with("message", detail)
                .with("sku", sku)
                .with("requested", requested)
                .with("available", available),
            CartRefusal::InCheckout { workflow_id } => {
                let refusal = ApiError::conflict("cart-in-checkout", detail);
                match workflow_id {
                    Some(workflow_id) => refusal.with("workflowId", workflow_id.to_string()),
                    None => refusal,
                }
            }
            CartRefusal::CurrencyMismatch { what: _, found, currency } => {
                ApiError::conflict("currency-mismatch", detail)
                    .with("currency", found)
                    .with("shopCurrency", currency.as_str())
            }
            CartRefusal::CouponInvalid { code, reason } => {
                ApiError::conflict("coupon-invalid", detail).with("couponCode", code).with("reason", reason.reason())
            }
            CartRefusal::VersionMismatch { current } => {
                ApiError::new(StatusCode::PRECONDITION_FAILED, "version-mismatch", detail).with("version", current)
            }
            CartRefusal::Unpriceable(error @ PricingError::TooLarge) => {
                ApiError::unprocessable(error.code(), detail.clone())
                    .with_errors(vec![FieldError::new("/quantity", detail)])
            }
            CartRefusal::Unpriceable(
                error @ (PricingError::NoQuantity(_) | PricingError::InvalidPrice(_) | PricingError::InvalidTaxRate(_)),
            ) => ApiError::conflict(error.code(), detail),
            CartRefusal::Rule(error) => of_rule(error, detail),
            CartRefusal::Database(error) => error.into(),
        }
    }
}

fn of_rule(error: CartError, detail: String) -> ApiError {
    let code = error.code();
    match error {
        CartError::QuantityInvalid => {
            ApiError::unprocessable(code, detail.clone()).with_errors(vec![FieldError::new("/quantity", detail)])
        }
        CartError::ItemNotInCart(_) => ApiError::not_found(code, detail),
        CartError::NotActive(_) | CartError::AlreadyOwned | CartError::TooManyLines => ApiError::conflict(code, detail),
    }
}
