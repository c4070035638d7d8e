//! What staff send about a coupon, and what is wrong with it.

use chrono::{DateTime, Utc};
use domain::{
    coupon::{Coupon, CouponKind, CouponScope},
    ids::CouponId,
    money::Currency,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    error::ApiError,
    extract::nullable,
    valid::{Complaints, nullable_decimal, optional_decimal},
};

/// Most products or categories of a scope.
const MAX_SCOPE: usize = 200;

/// Most pieces of "buy so many, get so many".
const MOST_PIECES: u32 = 100;

/// Which lines count: `"ALL"`, `{"products": […]}` by id or SKU, or `{"categories": […]}` by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum ScopeBody {
    /// Every line.
    #[serde(rename = "ALL")]
    All,
    /// Lines of these products: ids or SKUs.
    Products(Vec<String>),
    /// Lines of products in these categories: ids.
    Categories(Vec<Uuid>),
}

impl From<CouponScope> for ScopeBody {
    fn from(scope: CouponScope) -> Self {
        match scope {
            CouponScope::All => ScopeBody::All,
            CouponScope::Products(ids) => ScopeBody::Products(ids.iter().map(Uuid::to_string).collect()),
            CouponScope::Categories(ids) => ScopeBody::Categories(ids),
        }
    }
}

/// A coupon to be. Amounts are in the shop's currency.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CouponBody {
    /// Letters, digits, `-` and `_`; upper and lower case are the same.
    #[schema(min_length = 1, max_length = 50, examples("MONSOON15"))]
    code: String,
    /// PERCENT, FIXED, FREE_SHIPPING or BUY_X_GET_Y.
    #[schema(value_type = String, examples("PERCENT"))]
    kind: CouponKind,
    /// Percent above 0 up to 100, or an amount above 0; left out for the other kinds.
    #[schema(value_type = Option<String>, examples("15"))]
    #[serde(default, deserialize_with = "optional_decimal")]
    value: Option<Decimal>,
    /// Merchandise from which it counts.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "optional_decimal")]
    min_order_value: Option<Decimal>,
    /// The most it takes off one order.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "optional_decimal")]
    max_discount: Option<Decimal>,
    /// First instant it counts.
    starts_at: Option<DateTime<Utc>>,
    /// First instant it no longer counts.
    ends_at: Option<DateTime<Utc>>,
    /// Uses by everyone together.
    #[schema(minimum = 0)]
    usage_limit: Option<i32>,
    /// Uses by one user.
    #[schema(minimum = 0)]
    per_user_limit: Option<i32>,
    /// May be used beside another code.
    stackable: Option<bool>,
    /// Needs no code.
    auto_apply: Option<bool>,
    /// Every line when left out.
    scope: Option<ScopeBody>,
    /// BUY_X_GET_Y: pieces to pay for.
    #[schema(minimum = 1, maximum = 100)]
    buy_quantity: Option<u32>,
    /// BUY_X_GET_Y: pieces then free.
    #[schema(minimum = 1, maximum = 100)]
    get_quantity: Option<u32>,
    /// True when left out.
    is_active: Option<bool>,
}

impl CouponBody {
    /// The coupon, its scope not yet looked up.
    pub(super) fn into_coupon(self, id: CouponId, currency: Currency) -> (Coupon, ScopeBody) {
        let coupon = Coupon {
            id,
            code: self.code.trim().to_uppercase(),
            kind: self.kind,
            currency,
            value: self.value.unwrap_or_default(),
            min_order_value: self.min_order_value,
            max_discount: self.max_discount,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            usage_limit: self.usage_limit,
            per_user_limit: self.per_user_limit,
            current_usage_count: 0,
            held_count: 0,
            stackable: self.stackable.unwrap_or_default(),
            auto_apply: self.auto_apply.unwrap_or_default(),
            scope: CouponScope::All,
            buy_quantity: self.buy_quantity,
            get_quantity: self.get_quantity,
            is_active: self.is_active.unwrap_or(true),
        };
        (coupon, self.scope.unwrap_or(ScopeBody::All))
    }
}

/// What changes; null takes a limit away.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CouponChange {
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "optional_decimal", skip_serializing_if = "Option::is_none")]
    value: Option<Decimal>,
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "nullable_decimal", skip_serializing_if = "Option::is_none")]
    min_order_value: Option<Option<Decimal>>,
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "nullable_decimal", skip_serializing_if = "Option::is_none")]
    max_discount: Option<Option<Decimal>>,
    #[schema(value_type = Option<DateTime<Utc>>)]
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    starts_at: Option<Option<DateTime<Utc>>>,
    #[schema(value_type = Option<DateTime<Utc>>)]
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    ends_at: Option<Option<DateTime<Utc>>>,
    /// Not below what is used and held.
    #[schema(value_type = Option<i32>, minimum = 0)]
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    usage_limit: Option<Option<i32>>,
    #[schema(value_type = Option<i32>, minimum = 0)]
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    per_user_limit: Option<Option<i32>>,
    stackable: Option<bool>,
    auto_apply: Option<bool>,
    scope: Option<ScopeBody>,
    #[schema(minimum = 1, maximum = 100)]
    buy_quantity: Option<u32>,
    #[schema(minimum = 1, maximum = 100)]
    get_quantity: Option<u32>,
    /// False switches the coupon off.
    is_active: Option<bool>,
}

impl CouponChange {
    /// The coupon as it shall be, its scope not yet looked up.
    pub(super) fn applied_to(self, coupon: Coupon) -> (Coupon, ScopeBody) {
        let scope = self.scope.unwrap_or_else(|| coupon.scope.clone().into());
        let changed = Coupon {
            value: self.value.unwrap_or(coupon.value),
            min_order_value: self.min_order_value.unwrap_or(coupon.min_order_value),
            max_discount: self.max_discount.unwrap_or(coupon.max_discount),
            starts_at: self.starts_at.unwrap_or(coupon.starts_at),
            ends_at: self.ends_at.unwrap_or(coupon.ends_at),
            usage_limit: self.usage_limit.unwrap_or(coupon.usage_limit),
            per_user_limit: self.per_user_limit.unwrap_or(coupon.per_user_limit),
            stackable: self.stackable.unwrap_or(coupon.stackable),
            auto_apply: self.auto_apply.unwrap_or(coupon.auto_apply),
            buy_quantity: self.buy_quantity.or(coupon.buy_quantity),
            get_quantity: self.get_quantity.or(coupon.get_quantity),
            is_active: self.is_active.unwrap_or(coupon.is_active),
            ..coupon
        };
        (changed, scope)
    }
}

/// Whether a coupon makes sense.
///
/// # Errors
/// 422 `validation-failed` with every place that is wrong.
pub(super) fn check(coupon: &Coupon, scope: &ScopeBody) -> Result<(), ApiError> {
    let currency = coupon.currency;
    let mut complaints = Complaints::default();
    // A code stands in paths, and must not look like an id.
    let is_fine = |letter: char| letter.is_ascii_alphanumeric() || ['-', '_'].contains(&letter);
    let code = &coupon.code;
    let fits = (1..=50).contains(&code.len()) && code.chars().all(is_fine) && Uuid::parse_str(code).is_err();
    complaints.note(!fits, "/code", "must have 1 to 50 letters, digits, `-` or `_`, and be no UUID");
    let value = coupon.value;
    match coupon.kind {
        CouponKind::Percent => {
            let fits = value > Decimal::ZERO && value <= Decimal::ONE_HUNDRED && value.normalize().scale() <= 2;
            complaints.note(!fits, "/value", "must be above 0 and at most 100, with at most 2 decimals");
        }
        CouponKind::Fixed => {
            complaints.note(value.is_zero(), "/value", "must be above 0");
            complaints.amount("/value", value, currency);
        }
        CouponKind::FreeShipping | CouponKind::BuyXGetY => {
            complaints.note(!value.is_zero(), "/value", "has no meaning for this kind");
        }
    }
    let is_pieces = coupon.kind == CouponKind::BuyXGetY;
    for (pointer, pieces) in [("/buyQuantity", coupon.buy_quantity), ("/getQuantity", coupon.get_quantity)] {
        let fits = pieces.is_some_and(|pieces| (1..=MOST_PIECES).contains(&pieces));
        complaints.note(is_pieces && !fits, pointer, format!("must be 1 to {MOST_PIECES}"));
        complaints.note(!is_pieces && pieces.is_some(), pointer, "is for BUY_X_GET_Y only");
    }
    for (pointer, amount) in [("/minOrderValue", coupon.min_order_value), ("/maxDiscount", coupon.max_discount)] {
        if let Some(amount) = amount {
            complaints.amount(pointer, amount, currency);
        }
    }
    for (pointer, limit) in [("/usageLimit", coupon.usage_limit), ("/perUserLimit", coupon.per_user_limit)] {
        complaints.note(limit.is_some_and(i32::is_negative), pointer, "must not be negative");
    }
    for (pointer, instant) in [("/startsAt", coupon.starts_at), ("/endsAt", coupon.ends_at)] {
        if let Some(instant) = instant {
            complaints.instant(pointer, instant);
        }
    }
    let is_backwards = coupon.starts_at.zip(coupon.ends_at).is_some_and(|(start, end)| end <= start);
    complaints.note(is_backwards, "/endsAt", "must be after startsAt");
    let (place, count) = match scope {
        ScopeBody::All => ("/scope", 1),
        ScopeBody::Products(names) => ("/scope/products", names.len()),
        ScopeBody::Categories(ids) => ("/scope/categories", ids.len()),
    };
    complaints.note(!(1..=MAX_SCOPE).contains(&count), place, format!("must have 1 to {MAX_SCOPE} entries"));
    let errors = complaints.into_errors();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors)) }
}
