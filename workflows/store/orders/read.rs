//! Orders as their owners and the staff read them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use domain::{
    ids::{OrderId, UserId},
    order::OrderStatus,
};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// An order without its lines.
#[derive(Debug, Clone)]
pub struct OrderHead {
    /// Its id.
    pub id: Uuid,
    /// Its number.
    pub order_number: String,
    /// Who ordered; none for a guest.
    pub user_id: Option<Uuid>,
    /// The session of the guest whose cart it was.
    pub session_hash: Option<Vec<u8>>,
    /// The cart it was made from.
    pub cart_id: Option<Uuid>,
    /// Where it stands.
    pub order_status: String,
    /// Where its payment stands.
    pub payment_status: String,
    /// Where its parcels stand.
    pub shipment_status: String,
    /// Merchandise before discounts and tax.
    pub subtotal_amount: Decimal,
    /// What coupons took off it.
    pub discount_amount: Decimal,
    /// Tax on the rest.
    pub tax_amount: Decimal,
    /// Shipping charge.
    pub shipping_amount: Decimal,
    /// All of it together.
    pub total_amount: Decimal,
    /// Of every amount.
    pub currency: String,
    /// Where it goes.
    pub shipping_address: Value,
    /// Who pays.
    pub billing_address: Value,
    /// STANDARD or EXPRESS.
    pub shipping_method: String,
    /// How it is paid.
    pub payment_method: String,
    /// Through whom; none on delivery.
    pub payment_gateway: Option<String>,
    /// What they call the payment.
    pub gateway_payment_id: Option<String>,
    /// What went back.
    pub refund_amount: Option<Decimal>,
    /// When it should arrive.
    pub estimated_delivery_date: Option<NaiveDate>,
    /// What the courier calls the parcel packed last.
    pub tracking_number: Option<String>,
    /// Who carries it.
    pub courier_service: Option<String>,
    /// When it was placed.
    pub order_date: DateTime<Utc>,
    /// When it was confirmed.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// When its first parcel left.
    pub shipped_at: Option<DateTime<Utc>>,
    /// When all of it had arrived.
    pub delivered_at: Option<DateTime<Utc>>,
    /// When it was cancelled.
    pub cancelled_at: Option<DateTime<Utc>>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// One line of an order, as it was sold.
#[derive(Debug, Clone)]
pub struct OrderLine {
    /// Its id.
    pub id: Uuid,
    /// The order.
    pub order_id: Uuid,
    /// What.
    pub variant_id: Uuid,
    /// Its SKU then.
    pub sku: String,
    /// Its name then.
    pub product_name: String,
    /// e.g. size and colour.
    pub variant_attributes: Option<Value>,
    /// How many.
    pub quantity: i32,
    /// Pieces of them that will not be delivered.
    pub called_off: i32,
    /// Price of one, before tax.
    pub unit_price: Decimal,
    /// Taken off the line.
    pub discount_amount: Decimal,
    /// Tax on the line.
    pub tax_amount: Decimal,
    /// Quantity × unit price − discount + tax.
    pub total_price: Decimal,
}

/// A parcel of an order.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Its id.
    pub id: Uuid,
    /// The order.
    pub order_id: Uuid,
    /// Who carries it.
    pub courier_service: String,
    /// What they call it.
    pub tracking_number: String,
    /// Where it is.
    pub status: String,
    /// When it was packed.
    pub created_at: DateTime<Utc>,
    /// When it left.
    pub shipped_at: Option<DateTime<Utc>>,
    /// When it arrived.
    pub delivered_at: Option<DateTime<Utc>>,
    /// Lines in it, and how many pieces of each.
    pub items: Vec<(Uuid, i32)>,
}

/// A coupon that lowered an order's price.
#[derive(Debug, Clone)]
pub struct UsedCoupon {
    /// The order.
    pub order_id: Uuid,
    /// Its code then.
    pub coupon_code: String,
    /// What it saved.
    pub discount_applied: Decimal,
}

/// What belongs to orders, by order; an order without any has no entry.
#[derive(Debug, Clone, Default)]
pub struct OrderParts {
    /// Lines.
    pub lines: BTreeMap<Uuid, Vec<OrderLine>>,
    /// Parcels, oldest first.
    pub parcels: BTreeMap<Uuid, Vec<Parcel>>,
    /// Coupons.
    pub coupons: BTreeMap<Uuid, Vec<UsedCoupon>>,
}

/// One entry of an order's audit trail.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// None for the first.
    pub from_status: Option<String>,
    /// The status it changed to.
    pub to_status: String,
    /// Who changed it.
    pub changed_by: String,
    /// Why.
    pub change_reason: Option<String>,
    /// When.
    pub changed_at: DateTime<Utc>,
    /// What else is to be said.
    pub metadata: Option<Value>,
}

macro_rules! heads {
    ($filter:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            OrderHead,
            r#"
            select o.id, o.order_number, o.user_id, c.session_hash as "session_hash?", o.cart_id, o.order_status,
                   o.payment_status, o.shipment_status, o.subtotal_amount, o.discount_amount, o.tax_amount,
                   o.shipping_amount, o.total_amount, o.currency as "currency!", o.shipping_address, o.billing_address,
                   o.shipping_method, o.payment_method, p.payment_gateway as "payment_gateway?",
                   coalesce(p.gateway_payment_id, o.payment_id) as gateway_payment_id,
                   p.refund_amount as "refund_amount?", o.estimated_delivery_date, o.tracking_number,
                   o.courier_service, o.order_date, o.confirmed_at, o.shipped_at, o.delivered_at, o.cancelled_at,
                   o.updated_at
              from orders o
              left join payments p on p.order_id = o.id
              left join carts c on c.id = o.cart_id and o.user_id is null
            "# + $filter,
            $($argument),+
        )
    };
}

/// One order, by id or number, whoever it belongs to.
///
/// # Errors
/// The database's own.
pub async fn find(conn: &mut PgConnection, id_or_number: &str) -> Result<Option<OrderHead>, sqlx::Error> {
    match Uuid::parse_str(id_or_number) {
        Ok(id) => heads!("where o.id = $1", id).fetch_optional(conn).await,
        Err(_) => heads!("where o.order_number = upper($1)", id_or_number).fetch_optional(conn).await,
    }
}

/// Which orders a list shows; what is left out does not count.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Of this user.
    pub user_id: Option<UserId>,
    /// In this status.
    pub status: Option<OrderStatus>,
    /// To this e-mail address, in lower case.
    pub email: Option<String>,
    /// With this number.
    pub number: Option<String>,
}

/// Orders, newest first, those after the position `after`.
///
/// # Errors
/// The database's own.
pub async fn list(
    conn: &mut PgConnection,
    filter: &OrderFilter,
    after: Option<(DateTime<Utc>, OrderId)>,
    limit: i64,
) -> Result<Vec<OrderHead>, sqlx::Error> {
    heads!(
        // Custom plans fold each absent condition away, so that a user's orders come from their index.
        "where ($1::uuid is null or o.user_id = $1)
           and ($2::timestamptz is null or (o.order_date, o.id) < ($2, $3::uuid))
           and ($5::text is null or o.order_status = $5)
           and ($6::text is null or lower(o.contact_email) = $6)
           and ($7::text is null or o.order_number = $7)
         order by o.order_date desc, o.id desc limit $4",
        filter.user_id.map(Uuid::from),
        after.map(|(placed, _)| placed),
        after.map(|(_, id)| Uuid::from(id)),
        limit,
        filter.status.map(OrderStatus::as_str),
        filter.email,
        filter.number
    )
    .fetch_all(conn)
    .await
}

/// Lines, parcels and coupons of these orders.
///
/// # Errors
/// The database's own.
pub async fn parts(conn: &mut PgConnection, order_ids: &[Uuid]) -> Result<OrderParts, sqlx::Error> {
    let mut parts = OrderParts::default();
    let lines = sqlx::query_as!(
        OrderLine,
        "select id, order_id, variant_id, sku, product_name, variant_attributes, quantity, called_off, unit_price, discount_amount,
                tax_amount, total_price
           from order_items where order_id = any($1) order by order_id, id",
        order_ids
    )
    .fetch_all(&mut *conn)
    .await?;
    for line in lines {
        parts.lines.entry(line.order_id).or_default().push(line);
    }
    let parcels = sqlx::query!(
        r#"select s.id, s.order_id, s.courier_service, s.tracking_number, s.status, s.created_at, s.shipped_at,
                  s.delivered_at, i.order_item_id as "order_item_id?", i.quantity as "quantity?"
             from shipments s left join shipment_items i on i.shipment_id = s.id
            where s.order_id = any($1) order by s.order_id, s.id, i.order_item_id"#,
        order_ids
    )
    .fetch_all(&mut *conn)
    .await?;
    for row in parcels {
        let known = parts.parcels.entry(row.order_id).or_default();
        if known.last().is_none_or(|parcel| parcel.id != row.id) {
            known.push(Parcel {
                id: row.id,
                order_id: row.order_id,
                courier_service: row.courier_service,
                tracking_number: row.tracking_number,
                status: row.status,
                created_at: row.created_at,
                shipped_at: row.shipped_at,
                delivered_at: row.delivered_at,
                items: Vec::new(),
            });
        }
        if let (Some(parcel), Some(item)) = (known.last_mut(), row.order_item_id.zip(row.quantity)) {
            parcel.items.push(item);
        }
    }
    let coupons = sqlx::query_as!(
        UsedCoupon,
        "select order_id, coupon_code, discount_applied from order_coupons where order_id = any($1) order by order_id, id",
        order_ids
    )
    .fetch_all(conn)
    .await?;
    for coupon in coupons {
        parts.coupons.entry(coupon.order_id).or_default().push(coupon);
    }
    Ok(parts)
}

/// The order's audit trail, oldest first.
///
/// # Errors
/// The database's own.
pub async fn history(conn: &mut PgConnection, order_id: OrderId) -> Result<Vec<HistoryEntry>, sqlx::Error> {
    sqlx::query_as!(
        HistoryEntry,
        "select from_status, to_status, changed_by, change_reason, changed_at, metadata
           from order_state_history where order_id = $1 order by id",
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await
}
