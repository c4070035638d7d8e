//! `orders`, `order_items`, `order_coupons`, `order_state_history`, `payments`, `payment_attempts`: what
//! the checkout writes.

use chrono::{DateTime, NaiveDate, Utc};
use domain::{
    address::Address,
    ids::{CartId, OrderId, OrderNumber, UserId, VariantId},
    money::Currency,
    payment::PaymentMethod,
    ports::{GatewayPayment, GatewayPaymentStatus, NextAction},
    pricing::{AppliedCoupon, Quote, QuotedLine, ShippingMethod},
};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{carts::CartLine, payments::Captured};

/// An order as its checkout asks for it.
#[derive(Debug, Clone, Copy)]
pub struct NewOrder<'a> {
    /// Its id.
    pub id: OrderId,
    /// Its number.
    pub number: &'a OrderNumber,
    /// The run it belongs to while PENDING.
    pub run_id: Uuid,
    /// The cart it is made of.
    pub cart_id: CartId,
    /// Who buys; none for a guest.
    pub user_id: Option<UserId>,
    /// Where the shop writes to.
    pub contact_email: &'a str,
    /// Where the courier calls.
    pub contact_phone: Option<&'a str>,
    /// Where it goes, and the saved address that was taken from.
    pub shipping_address: (&'a Address, Option<Uuid>),
    /// Who pays, and the saved address that was taken from; none means the shipping address.
    pub billing_address: (Option<&'a Address>, Option<Uuid>),
    /// How it goes there.
    pub shipping_method: ShippingMethod,
    /// How it is paid.
    pub payment_method: PaymentMethod,
    /// Through whom; none for cash.
    pub gateway: Option<&'a str>,
    /// What it costs.
    pub quote: &'a Quote,
    /// When it should arrive.
    pub estimated_delivery: NaiveDate,
}

/// What a gateway said to one try to pay.
#[derive(Debug, Clone, Copy)]
pub struct NewIntent<'a> {
    /// The order.
    pub order_id: OrderId,
    /// Which try, from 1.
    pub attempt: u32,
    /// The key its call was made under.
    pub idempotency_key: Uuid,
    /// How it pays.
    pub method: PaymentMethod,
    /// How the order was placed to be paid.
    pub ordered_with: PaymentMethod,
    /// Through whom.
    pub gateway: &'a str,
    /// The gateway's payment.
    pub payment: &'a GatewayPayment,
}

/// What an order consists of.
#[derive(Debug, Clone, Copy)]
pub struct NewItems<'a> {
    /// The order.
    pub order_id: OrderId,
    /// Its lines, with names and prices as they are now.
    pub lines: &'a [CartLine],
    /// What they cost.
    pub quote: &'a Quote,
}

/// What confirms an order.
#[derive(Debug, Clone, Copy)]
pub struct Confirmation<'a> {
    /// The order.
    pub order_id: OrderId,
    /// What was paid, if anything is due now.
    pub payment: Option<&'a Captured>,
    /// When it should arrive.
    pub estimated_delivery: NaiveDate,
}

/// [`NewOrder`] as the statement reads it.
#[derive(Serialize)]
struct OrderRow<'a> {
    id: OrderId,
    number: &'a str,
    run_id: Uuid,
    cart_id: CartId,
    user_id: Option<UserId>,
    contact_email: &'a str,
    contact_phone: Option<&'a str>,
    subtotal: Decimal,
    discount: Decimal,
    tax: Decimal,
    shipping: Decimal,
    total: Decimal,
    currency: Currency,
    shipping_address: &'a Address,
    billing_address: &'a Address,
    shipping_address_id: Option<Uuid>,
    billing_address_id: Option<Uuid>,
    shipping_method: &'a str,
    payment_method: &'a str,
    gateway: Option<&'a str>,
    estimated_delivery: NaiveDate,
    items: Vec<Piece>,
}

/// A line as an event tells of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Piece {
    variant_id: VariantId,
    quantity: u32,
}

impl<'a> OrderRow<'a> {
    fn of(order: &NewOrder<'a>) -> Self {
        let quote = order.quote;
        let ((shipping_address, shipping_address_id), (billing_address, billing_address_id)) =
            (order.shipping_address, order.billing_address);
        OrderRow {
            id: order.id,
            number: order.number.as_str(),
            run_id: order.run_id,
            cart_id: order.cart_id,
            user_id: order.user_id,
            contact_email: order.contact_email,
            contact_phone: order.contact_phone,
            subtotal: quote.subtotal,
            discount: quote.discount,
            tax: quote.tax,
            shipping: quote.shipping,
            total: quote.total,
            currency: quote.currency,
            shipping_address,
            billing_address: billing_address.unwrap_or(shipping_address),
            shipping_address_id,
            billing_address_id,
            shipping_method: order.shipping_method.as_str(),
            payment_method: order.payment_method.as_str(),
            gateway: order.gateway,
            estimated_delivery: order.estimated_delivery,
            items: quote.lines.iter().map(|l| Piece { variant_id: l.variant_id, quantity: l.quantity }).collect(),
        }
    }
}

/// Draws so many numbers for orders that are to come. Those that never come leave gaps.
pub async fn next_numbers(conn: &mut PgConnection, many: usize) -> Result<Vec<OrderNumber>, sqlx::Error> {
    let numbers = sqlx::query_scalar!(
        r#"select nextval('order_number_seq') as "number!" from generate_series(1, $1)"#,
        i32::try_from(many).unwrap_or(i32::MAX)
    )
    .fetch_all(conn)
    .await?;
    Ok(numbers.into_iter().map(|number| OrderNumber::from_sequence(number.unsigned_abs())).collect())
}

/// Inserts the PENDING orders with their payment rows, their first history rows and the events that make them
/// known, and checks that the lines of each add up to its total. One statement.
pub async fn create(conn: &mut PgConnection, orders: &[NewOrder<'_>], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if orders.is_empty() {
        return Ok(());
    }
    for NewOrder { quote, .. } in orders {
        let lines: Decimal = quote.lines.iter().map(|line| line.total).sum();
        if lines + quote.shipping != quote.total {
            return Err(sqlx::Error::Encode("the lines do not add up to the total".into()));
        }
    }
    let rows: Vec<_> = orders.iter().map(OrderRow::of).collect();
    sqlx::query!(
        r#"
        with o as (
            select * from jsonb_to_recordset($1) as o(
                id uuid, number text, run_id uuid, cart_id uuid, user_id uuid, contact_email text, contact_phone text,
                subtotal numeric, discount numeric, tax numeric, shipping numeric, total numeric, currency text,
                shipping_address jsonb, billing_address jsonb, shipping_address_id uuid, billing_address_id uuid,
                shipping_method text, payment_method text, gateway text, estimated_delivery date, items jsonb)),
        created as (
            insert into orders (id, order_number, user_id, cart_id, checkout_run_id, contact_email, contact_phone,
                                subtotal_amount, discount_amount, tax_amount, shipping_amount, total_amount, currency,
                                shipping_address, billing_address, shipping_address_id, billing_address_id,
                                shipping_method, payment_method, estimated_delivery_date, order_date, updated_at)
            select id, number, user_id, cart_id, run_id, contact_email, contact_phone,
                   subtotal, discount, tax, shipping, total, currency, shipping_address, billing_address,
                   -- A saved address may have been deleted since; the order has its own copy of it.
                   (select id from addresses where id = o.shipping_address_id for key share),
                   (select id from addresses where id = o.billing_address_id for key share),
                   shipping_method, payment_method, estimated_delivery, $2, $2
              from o
            returning id),
        payment as (
            insert into payments (order_id, payment_method, amount, currency, payment_gateway, payment_status,
                                  created_at, updated_at)
            select id, payment_method, total, currency, gateway, 'PENDING', $2, $2 from o join created using (id)),
        history as (
            insert into order_state_history (order_id, from_status, to_status, changed_by, changed_at)
            select id, null, 'PENDING', 'checkout', $2 from created)
        insert into outbox_events (event_id, event_type, subject, data, occurred_at)
        select gen_random_uuid(), e.event_type, o.id::text, jsonb_build_object('orderId', o.id) || e.data, $2
          from o join created using (id), lateral (values
              (1, 'order.created', jsonb_build_object('orderNumber', o.number, 'totalAmount', o.total::text, 'currency', o.currency)),
              (2, 'inventory.reserved', jsonb_build_object('items', o.items))
          ) as e(position, event_type, data)
         order by o.id, e.position
        "#,
        Json(&rows) as _,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A line of an order as the statement reads it.
#[derive(Serialize)]
struct ItemRow<'a> {
    id: Uuid,
    order_id: OrderId,
    variant_id: VariantId,
    name: &'a str,
    sku: &'a str,
    attributes: Option<&'a serde_json::Value>,
    image: Option<&'a str>,
    quantity: u32,
    price: Decimal,
    currency: &'a str,
    discount: Decimal,
    tax: Decimal,
    cgst: Decimal,
    sgst: Decimal,
    igst: Decimal,
    total: Decimal,
}

impl<'a> ItemRow<'a> {
    fn of(order_id: OrderId, line: &'a CartLine, priced: &QuotedLine) -> Self {
        ItemRow {
            id: Uuid::now_v7(),
            order_id,
            variant_id: line.variant_id,
            name: &line.name,
            sku: &line.sku,
            attributes: line.attributes.as_ref(),
            image: line.image_url.as_deref(),
            quantity: line.quantity,
            price: priced.unit_price,
            currency: &line.currency,
            discount: priced.discount,
            tax: priced.tax,
            cgst: priced.cgst,
            sgst: priced.sgst,
            igst: priced.igst,
            total: priced.total,
        }
    }
}

/// Inserts the orders' lines: names and prices as they are now. One statement.
pub async fn create_items(
    conn: &mut PgConnection,
    orders: &[NewItems<'_>],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for NewItems { order_id, lines, quote } in orders {
        rows.extend(lines.iter().filter_map(|line| {
            let priced = quote.lines.iter().find(|priced| priced.variant_id == line.variant_id)?;
            Some(ItemRow::of(*order_id, line, priced))
        }));
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into order_items (id, order_id, variant_id, product_name, sku, variant_attributes, product_image_url,
                                  quantity, unit_price, currency, discount_amount, tax_amount, cgst_amount, sgst_amount,
                                  igst_amount, total_price, created_at)
         select i.id, i.order_id, i.variant_id, i.name, i.sku, i.attributes, i.image, i.quantity, i.price, i.currency,
                i.discount, i.tax, i.cgst, i.sgst, i.igst, i.total, $2
           from jsonb_to_recordset($1) as i(
                id uuid, order_id uuid, variant_id uuid, name text, sku text, attributes jsonb, image text, quantity int,
                price numeric, currency text, discount numeric, tax numeric, cgst numeric, sgst numeric, igst numeric,
                total numeric)",
        Json(&rows) as _,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes which coupons lowered the price of which order.
pub async fn link_coupons(
    conn: &mut PgConnection,
    orders: &[(OrderId, &[AppliedCoupon])],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let each: Vec<_> =
        orders.iter().flat_map(|(order_id, coupons)| coupons.iter().map(move |coupon| (order_id, coupon))).collect();
    if each.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = each.iter().map(|(order_id, _)| Uuid::from(**order_id)).collect();
    let coupons: Vec<Uuid> = each.iter().map(|(_, coupon)| coupon.coupon_id.into()).collect();
    let codes: Vec<&str> = each.iter().map(|(_, coupon)| coupon.code.as_str()).collect();
    let discounts: Vec<_> = each.iter().map(|(_, coupon)| coupon.discount).collect();
    sqlx::query!(
        "insert into order_coupons (order_id, coupon_id, coupon_code, discount_applied, applied_at)
         select c.order_id, c.id, c.code, c.discount, $1
           from unnest($2::uuid[], $3::uuid[], $4::text[], $5::numeric[]) as c(order_id, id, code, discount)",
        now,
        &ids,
        &coupons,
        &codes as &[&str],
        &discounts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// [`NewIntent`] as the statement reads it.
#[derive(Serialize)]
struct IntentRow<'a> {
    order_id: OrderId,
    attempt: u32,
    idempotency_key: Uuid,
    method: &'a str,
    gateway: &'a str,
    gateway_payment_id: &'a str,
    currency: Currency,
    next_action: Option<&'a NextAction>,
    status: &'a str,
    failure: Option<&'a str>,
}

impl<'a> IntentRow<'a> {
    fn of(intent: &NewIntent<'a>) -> Self {
        let payment = intent.payment;
        IntentRow {
            order_id: intent.order_id,
            attempt: intent.attempt,
            idempotency_key: intent.idempotency_key,
            method: intent.method.as_str(),
            gateway: intent.gateway,
            gateway_payment_id: &payment.gateway_payment_id,
            currency: payment.amount.currency(),
            next_action: payment.next_action.as_ref(),
            status: match payment.status {
                GatewayPaymentStatus::Pending
                | GatewayPaymentStatus::RequiresAction
                | GatewayPaymentStatus::Approved
                | GatewayPaymentStatus::Authorized => "PENDING",
                GatewayPaymentStatus::Captured => "CAPTURED",
                GatewayPaymentStatus::Failed => "FAILED",
                GatewayPaymentStatus::Closed => "CLOSED",
            },
            failure: payment.failure.as_deref(),
        }
    }
}

/// Notes what the gateways answered: their payment ids, and where the shoppers must go. A later attempt may
/// pay in another way than its order was placed with.
pub async fn store_intents(
    conn: &mut PgConnection,
    intents: &[NewIntent<'_>],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if intents.is_empty() {
        return Ok(());
    }
    let (orders, methods): (Vec<Uuid>, Vec<&str>) = intents
        .iter()
        .filter(|intent| intent.method != intent.ordered_with)
        .map(|intent| (Uuid::from(intent.order_id), intent.method.as_str()))
        .unzip();
    // Before the payments, and in a statement of its own: orders are locked first.
    if !orders.is_empty() {
        sqlx::query!(
            "update orders o set payment_method = m.method, updated_at = $3
               from unnest($1::uuid[], $2::text[]) as m(order_id, method) where o.id = m.order_id",
            &orders,
            &methods as &[&str],
            now
        )
        .execute(&mut *conn)
        .await?;
    }
    let rows: Vec<_> = intents.iter().map(IntentRow::of).collect();
    sqlx::query!(
        "with i as (
            select * from jsonb_to_recordset($1) as i(
                order_id uuid, attempt int, idempotency_key uuid, method text, gateway text, gateway_payment_id text,
                currency text, next_action jsonb, status text, failure text)),
         payment as (
            update payments p
               set payment_gateway = i.gateway, gateway_payment_id = i.gateway_payment_id, payment_method = i.method,
                   updated_at = $2
              from i where p.order_id = i.order_id returning p.id, p.order_id)
         insert into payment_attempts (payment_id, attempt, idempotency_key, gateway_payment_id, currency, next_action,
                                       status, failure_reason, created_at, updated_at)
         select p.id, i.attempt, i.idempotency_key, i.gateway_payment_id, i.currency, i.next_action, i.status, i.failure, $2, $2
           from payment p join i using (order_id)",
        Json(&rows) as _,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// PENDING → CONFIRMED; with a payment, that is CAPTURED.
///
/// # Errors
/// `RowNotFound` unless every one of them was confirmed; the caller rolls back then.
pub async fn confirm(
    conn: &mut PgConnection,
    orders: &[Confirmation<'_>],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if orders.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id.into()).collect();
    let deliveries: Vec<NaiveDate> = orders.iter().map(|order| order.estimated_delivery).collect();
    let payments: Vec<Option<&str>> =
        orders.iter().map(|order| order.payment.map(|payment| payment.gateway_payment_id.as_str())).collect();
    let amounts: Vec<Option<Decimal>> =
        orders.iter().map(|order| order.payment.map(|payment| payment.amount)).collect();
    let confirmed = sqlx::query!(
        "with c as (
            select * from unnest($1::uuid[], $2::date[], $3::text[], $4::numeric[])
                       as c(order_id, estimated_delivery, payment_id, amount)),
         -- In the order of their ids, as whoever takes many takes them.
         locked as materialized (
            select c.* from c join orders o on o.id = c.order_id order by o.id for no key update of o),
         confirmed as (
            update orders o
               set order_status = 'CONFIRMED', confirmed_at = $5, updated_at = $5,
                   estimated_delivery_date = l.estimated_delivery,
                   payment_status = case when l.payment_id is null and o.payment_method = 'COD' then 'PENDING' else 'CAPTURED' end,
                   payment_id = l.payment_id
              from locked l
             where o.id = l.order_id and (o.order_status = 'PENDING') is true
            returning o.id, o.payment_status, l.amount),
         attempt as (
            update payment_attempts a set status = 'CAPTURED', next_action = null, updated_at = $5
              from c join payments p using (order_id)
             where a.payment_id = p.id and a.gateway_payment_id = c.payment_id and a.status <> 'CAPTURED')
         update payments p
            set payment_status = c.payment_status, captured_amount = coalesce(c.amount, p.captured_amount), updated_at = $5
           from confirmed c where p.order_id = c.id",
        &ids,
        &deliveries,
        &payments as &[Option<&str>],
        &amounts as &[Option<Decimal>],
        now,
    )
    .execute(conn)
    .await?
    .rows_affected();
    // An order belongs to its run while PENDING: anything else is a defect, and must not be paid for.
    if usize::try_from(confirmed) == Ok(orders.len()) { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// An order that comes to nothing, and why.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// Which.
    pub order_id: OrderId,
    /// Stable, kebab-case.
    pub code: &'a str,
    /// For people.
    pub reason: &'a str,
}

/// PENDING → CANCELLED, with the reason in the history; the payment is FAILED unless it was captured.
pub async fn cancel_pending(
    conn: &mut PgConnection,
    failed: &[Failed<'_>],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = failed.iter().map(|failed| failed.order_id.into()).collect();
    let codes: Vec<&str> = failed.iter().map(|failed| failed.code).collect();
    let reasons: Vec<&str> = failed.iter().map(|failed| failed.reason).collect();
    sqlx::query!(
        "with f as (
            select * from unnest($1::uuid[], $2::text[], $3::text[]) as f(order_id, code, reason)),
         -- In the order of their ids, as whoever takes many takes them.
         locked as materialized (
            select f.* from f join orders o on o.id = f.order_id order by o.id for no key update of o),
         cancelled as (
            update orders o
               set order_status = 'CANCELLED', cancelled_at = $4, updated_at = $4,
                   payment_status = case when o.payment_status in ('PENDING', 'AUTHORIZED') then 'FAILED' else o.payment_status end
              from locked l
             where o.id = l.order_id and (o.order_status = 'PENDING') is true
            returning o.id, l.code, l.reason),
         payment as (
            update payments p set payment_status = 'FAILED', failure_reason = c.reason, updated_at = $4
              from cancelled c where p.order_id = c.id and (p.payment_status in ('PENDING', 'AUTHORIZED')) is true),
         attempt as (
            update payment_attempts a
               set status = case when c.code = 'payment-declined' then 'FAILED' else 'CLOSED' end, next_action = null,
                   failure_reason = coalesce(a.failure_reason, c.reason), updated_at = $4
              from payments p join cancelled c on c.id = p.order_id
             where a.payment_id = p.id and a.status = 'PENDING'),
         history as (
            insert into order_state_history (order_id, from_status, to_status, changed_by, change_reason, changed_at, metadata)
            select id, 'PENDING', 'CANCELLED', 'checkout', reason, $4, jsonb_build_object('code', code) from cancelled)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), e.event_type, c.id::text,
                jsonb_build_object('orderId', c.id, 'code', c.code, 'reason', c.reason), $4
           from cancelled c, (values ('payment.failed'), ('order.cancelled')) as e(event_type)",
        &ids,
        &codes as &[&str],
        &reasons as &[&str],
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds the same line to each order's audit trail.
pub async fn append_history(
    conn: &mut PgConnection,
    orders: &[OrderId],
    from: Option<&str>,
    to: &str,
    changed_by: &str,
    reason: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if orders.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = orders.iter().copied().map(Uuid::from).collect();
    sqlx::query!(
        "insert into order_state_history (order_id, from_status, to_status, changed_by, change_reason, changed_at)
         select id, $2, $3, $4, $5, $6 from unnest($1::uuid[]) as o(id)",
        &ids,
        from,
        to,
        changed_by,
        reason,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
