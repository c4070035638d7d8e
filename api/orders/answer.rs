//! An order on the wire.

use chrono::{DateTime, NaiveDate, Utc};
use domain::money::{Currency, to_wire};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use workflows::store::{
    disputes::DisputeHead,
    orders::read::{OrderHead, OrderLine, OrderParts, Parcel},
};

use super::pieces::Pieces;
use crate::{
    cart::{CouponSaving, PriceBreakdown},
    checkout::AddressBody,
};

/// An order. The lines' `totalPrice` and the shipping charge add up to `totalAmount`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderView {
    order_id: Uuid,
    #[schema(examples("ORD0000000018"))]
    order_number: String,
    cart_id: Option<Uuid>,
    /// PENDING, CONFIRMED, PROCESSING, SHIPPED, DELIVERED, CANCELLED or REFUNDED.
    status: String,
    /// PENDING, AUTHORIZED, CAPTURED, PARTIALLY_REFUNDED, REFUNDED or FAILED.
    payment_status: String,
    /// PENDING, READY, SHIPPED, IN_TRANSIT, DELIVERED, RETURNED or LOST.
    shipment_status: String,
    items: Vec<OrderItem>,
    price_breakdown: PriceBreakdown,
    coupons: Vec<CouponSaving>,
    #[schema(examples("59050.00"))]
    total_amount: String,
    #[schema(examples("INR"))]
    currency: String,
    payment: PaymentView,
    #[schema(value_type = AddressBody)]
    shipping_address: Value,
    #[schema(value_type = AddressBody)]
    billing_address: Value,
    shipping_method: String,
    #[schema(value_type = Option<String>, format = "date")]
    estimated_delivery: Option<NaiveDate>,
    /// Of the parcel packed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    courier_service: Option<String>,
    shipments: Vec<ShipmentView>,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipped_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
    /// What banks want back of it, the oldest first: shown to staff, and of one order only.
    #[serde(skip_serializing_if = "Option::is_none")]
    disputes: Option<Vec<DisputeView>>,
}

/// What a shopper's bank wants back, or wanted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DisputeView {
    /// It is to be answered there.
    gateway: String,
    /// The gateway's id of it.
    dispute_id: String,
    /// The gateway's id of the payment.
    payment_id: String,
    /// Null when the gateway does not say.
    #[schema(examples("59050.00"))]
    amount: Option<String>,
    #[schema(examples("INR"))]
    currency: Option<String>,
    /// OPENED, WON or LOST.
    status: String,
    /// In the bank's words.
    reason: Option<String>,
    opened_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// `totalPrice` = quantity × unitPrice − discountAmount + taxAmount.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OrderItem {
    order_item_id: Uuid,
    variant_id: Uuid,
    sku: String,
    product_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    attributes: Option<Value>,
    quantity: i32,
    /// Pieces of them that will not be delivered, and need not be paid for.
    #[schema(examples(0))]
    called_off: i32,
    #[schema(examples("50000.00"))]
    unit_price: String,
    discount_amount: String,
    tax_amount: String,
    total_price: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PaymentView {
    /// CREDIT_CARD, DEBIT_CARD, UPI, NET_BANKING, WALLET or COD.
    method: String,
    gateway: Option<String>,
    gateway_payment_id: Option<String>,
    #[schema(examples("0.00"))]
    refunded_amount: String,
}

/// A parcel.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShipmentView {
    shipment_id: Uuid,
    courier_service: String,
    tracking_number: String,
    status: String,
    items: Vec<Pieces>,
    created_at: DateTime<Utc>,
    shipped_at: Option<DateTime<Utc>>,
    delivered_at: Option<DateTime<Utc>>,
}

impl ShipmentView {
    /// Where the parcel is.
    pub(crate) fn status(&self) -> &str {
        &self.status
    }
}

impl OrderView {
    /// The order with its own parts, which are taken out of `parts`.
    pub(super) fn new(head: OrderHead, parts: &mut OrderParts) -> Self {
        let currency: Currency = head.currency.parse().unwrap_or(Currency::INR);
        let wire = |amount: Decimal| to_wire(amount, currency);
        let lines = parts.lines.remove(&head.id).unwrap_or_default();
        let parcels = parts.parcels.remove(&head.id).unwrap_or_default();
        let coupons = parts.coupons.remove(&head.id).unwrap_or_default();
        OrderView {
            order_id: head.id,
            order_number: head.order_number,
            cart_id: head.cart_id,
            status: head.order_status,
            payment_status: head.payment_status,
            shipment_status: head.shipment_status,
            items: lines.into_iter().map(|line| OrderItem::new(line, currency)).collect(),
            price_breakdown: PriceBreakdown {
                subtotal: wire(head.subtotal_amount),
                discount: wire(head.discount_amount),
                tax: wire(head.tax_amount),
                shipping: wire(head.shipping_amount),
                total: wire(head.total_amount),
                currency: head.currency.clone(),
            },
            coupons: coupons
                .into_iter()
                .map(|coupon| CouponSaving { code: coupon.coupon_code, discount: wire(coupon.discount_applied) })
                .collect(),
            total_amount: wire(head.total_amount),
            currency: head.currency,
            payment: PaymentView {
                method: head.payment_method,
                gateway: head.payment_gateway,
                gateway_payment_id: head.gateway_payment_id,
                refunded_amount: wire(head.refund_amount.unwrap_or_default()),
            },
            shipping_address: head.shipping_address,
            billing_address: head.billing_address,
            shipping_method: head.shipping_method,
            estimated_delivery: head.estimated_delivery_date,
            tracking_number: head.tracking_number,
            courier_service: head.courier_service,
            shipments: parcels.into_iter().map(ShipmentView::from).collect(),
            created_at: head.order_date,
            confirmed_at: head.confirmed_at,
            shipped_at: head.shipped_at,
            delivered_at: head.delivered_at,
            cancelled_at: head.cancelled_at,
            updated_at: head.updated_at,
            disputes: None,
        }
    }

    /// The same as staff see it.
    pub(super) fn with_disputes(self, disputes: Vec<DisputeHead>) -> Self {
        OrderView { disputes: Some(disputes.into_iter().map(DisputeView::from).collect()), ..self }
    }
}

impl From<DisputeHead> for DisputeView {
    fn from(dispute: DisputeHead) -> Self {
        let DisputeHead { gateway, dispute_id, payment_id, currency, status, reason, opened_at, updated_at, .. } =
            dispute;
        let known: Option<Currency> = currency.as_deref().and_then(|currency| currency.parse().ok());
        let amount = dispute.amount.map(|amount| to_wire(amount, known.unwrap_or(Currency::INR)));
        DisputeView { gateway, dispute_id, payment_id, amount, currency, status, reason, opened_at, updated_at }
    }
}

impl OrderItem {
    fn new(line: OrderLine, currency: Currency) -> Self {
        let wire = |amount: Decimal| to_wire(amount, currency);
        OrderItem {
            order_item_id: line.id,
            variant_id: line.variant_id,
            sku: line.sku,
            product_name: line.product_name,
            attributes: line.variant_attributes,
            quantity: line.quantity,
            called_off: line.called_off,
            unit_price: wire(line.unit_price),
            discount_amount: wire(line.discount_amount),
            tax_amount: wire(line.tax_amount),
            total_price: wire(line.total_price),
        }
    }
}

impl From<Parcel> for ShipmentView {
    fn from(parcel: Parcel) -> Self {
        ShipmentView {
            shipment_id: parcel.id,
            courier_service: parcel.courier_service,
            tracking_number: parcel.tracking_number,
            status: parcel.status,
            items: parcel.items.into_iter().map(Pieces::from).collect(),
            created_at: parcel.created_at,
            shipped_at: parcel.shipped_at,
            delivered_at: parcel.delivered_at,
        }
    }
}
