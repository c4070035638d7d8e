//! `orders`, `order_items`, `order_coupons`, `order_state_history`, `payments`, `payment_attempts`: what
//! the checkout writes.

use chrono::{DateTime, NaiveDate, Utc};
use domain::{
    address::Address,
    ids::{CartId, OrderId, OrderNumber, UserId},
    payment::PaymentMethod,
    ports::{GatewayPayment, GatewayPaymentStatus},
    pricing::{AppliedCoupon, Quote, ShippingMethod},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{carts::CartLine, payments::Captured};

fn json<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, sqlx::Error> {
    serde_json::to_value(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

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

/// Inserts the PENDING order with its payment row, its first history row and the events that make it
/// known, and checks that the lines add up to the total. One statement.
pub async fn create(conn: &mut PgConnection, order: NewOrder<'_>, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let quote = order.quote;
    let lines: rust_decimal::Decimal = quote.lines.iter().map(|line| line.total).sum();
    if lines + quote.shipping != quote.total {
        return Err(sqlx::Error::Encode("the lines do not add up to the total".into()));
    }
    let ((shipping, shipping_id), (billing, billing_id)) = (order.shipping_address, order.billing_address);
    let shipping_address = json(&shipping)?;
    let billing_address = billing.as_ref().map(json).transpose()?;
    let items = serde_json::Value::Array(
        quote
            .lines
            .iter()
            .map(|line| serde_json::json!({ "variantId": line.variant_id, "quantity": line.quantity }))
            .collect(),
    );
    sqlx::query!(
        r#"
        with created as (
            insert into orders (id, order_number, user_id, cart_id, checkout_run_id, contact_email, contact_phone,
                                subtotal_amount, discount_amount, tax_amount, shipping_amount, total_amount, currency,
                                shipping_address, billing_address, shipping_address_id, billing_address_id,
                                shipping_method, payment_method, estimated_delivery_date, order_date, updated_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::jsonb, coalesce($15, $14::jsonb),
                    -- A saved address may have been deleted since; the order has its own copy of it.
                    (select id from addresses where id = $16 for key share),
                    (select id from addresses where id = $17 for key share),
                    $18, $19, $20, $21, $21)
            returning id),
        payment as (
            insert into payments (order_id, payment_method, amount, currency, payment_gateway, payment_status,
                                  created_at, updated_at)
            select id, $19, $12, $13, $22, 'PENDING', $21, $21 from created),
        history as (
            insert into order_state_history (order_id, from_status, to_status, changed_by, changed_at)
            select id, null, 'PENDING', 'checkout', $21 from created)
        insert into outbox_events (event_id, event_type, subject, data, occurred_at)
        select gen_random_uuid(), e.event_type, $1::text, e.data, $21
          from created, (values
              ('order.created', jsonb_build_object('orderId', $1::uuid, 'orderNumber', $2::text, 'totalAmount', $12::numeric::text, 'currency', $13::text)),
              ('inventory.reserved', jsonb_build_object('orderId', $1::uuid, 'items', $23::jsonb))
          ) as e(event_type, data)
        "#,
        Uuid::from(order.id),
        order.number.as_str(),
        order.user_id.map(Uuid::from),
        Uuid::from(order.cart_id),
        order.run_id,
        order.contact_email,
        order.contact_phone,
        quote.subtotal,
        quote.discount,
        quote.tax,
        quote.shipping,
        quote.total,
        quote.currency.as_str(),
        shipping_address,
        billing_address,
        shipping_id,
        billing_id,
        order.shipping_method.as_str(),
        order.payment_method.as_str(),
        order.estimated_delivery,
        now,
        order.gateway,
        items,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Inserts the order's lines: names and prices as they are now. One statement.
pub async fn create_items(
    conn: &mut PgConnection,
    order_id: OrderId,
    lines: &[CartLine],
    quote: &Quote,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<_> = lines
        .iter()
        .filter_map(|line| {
            quote.lines.iter().find(|priced| priced.variant_id == line.variant_id).map(|priced| (line, priced))
        })
        .collect();
    let ids: Vec<Uuid> = rows.iter().map(|_| Uuid::now_v7()).collect();
    let variants: Vec<Uuid> = rows.iter().map(|(line, _)| line.variant_id.into()).collect();
    let names: Vec<String> = rows.iter().map(|(line, _)| line.name.clone()).collect();
    let skus: Vec<String> = rows.iter().map(|(line, _)| line.sku.clone()).collect();
    let attributes: Vec<Option<serde_json::Value>> = rows.iter().map(|(line, _)| line.attributes.clone()).collect();
    let images: Vec<Option<String>> = rows.iter().map(|(line, _)| line.image_url.clone()).collect();
    let currencies: Vec<String> = rows.iter().map(|(line, _)| line.currency.clone()).collect();
    let quantities: Vec<i32> = rows.iter().map(|(line, _)| i32::try_from(line.quantity).unwrap_or(i32::MAX)).collect();
    let prices: Vec<_> = rows.iter().map(|(_, priced)| priced.unit_price).collect();
    let discounts: Vec<_> = rows.iter().map(|(_, priced)| priced.discount).collect();
    let taxes: Vec<_> = rows.iter().map(|(_, priced)| priced.tax).collect();
    let cgst: Vec<_> = rows.iter().map(|(_, priced)| priced.cgst).collect();
    let sgst: Vec<_> = rows.iter().map(|(_, priced)| priced.sgst).collect();
    let igst: Vec<_> = rows.iter().map(|(_, priced)| priced.igst).collect();
    let totals: Vec<_> = rows.iter().map(|(_, priced)| priced.total).collect();
    sqlx::query!(
        "insert into order_items (id, order_id, variant_id, product_name, sku, variant_attributes, product_image_url,
                                  quantity, unit_price, currency, discount_amount, tax_amount, cgst_amount, sgst_amount,
                                  igst_amount, total_price, created_at)
         select i.id, $1, i.variant_id, i.name, i.sku, i.attributes, i.image, i.quantity, i.price, i.currency, i.discount, i.tax,
                i.cgst, i.sgst, i.igst, i.total, $2
           from unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::jsonb[], $8::text[], $9::int[], $10::numeric[],
                       $11::numeric[], $12::numeric[], $13::numeric[], $14::numeric[], $15::numeric[], $16::numeric[], $17::text[])
                as i(id, variant_id, name, sku, attributes, image, quantity, price, discount, tax, cgst, sgst, igst, total, currency)",
        Uuid::from(order_id),
        now,
        &ids,
        &variants,
        &names,
        &skus,
        &attributes as &[Option<serde_json::Value>],
        &images as &[Option<String>],
        &quantities,
        &prices,
        &discounts,
        &taxes,
        &cgst,
        &sgst,
        &igst,
        &totals,
        &currencies,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes which coupons lowered the price.
pub async fn link_coupons(
    conn: &mut PgConnection,
    order_id: OrderId,
    coupons: &[AppliedCoupon],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = coupons.iter().map(|coupon| coupon.coupon_id.into()).collect();
    let codes: Vec<String> = coupons.iter().map(|coupon| coupon.code.clone()).collect();
    let discounts: Vec<_> = coupons.iter().map(|coupon| coupon.discount).collect();
    sqlx::query!(
        "insert into order_coupons (order_id, coupon_id, coupon_code, discount_applied, applied_at)
         select $1, c.id, c.code, c.discount, $2 from unnest($3::uuid[], $4::text[], $5::numeric[]) as c(id, code, discount)",
        Uuid::from(order_id),
        now,
        &ids,
        &codes,
        &discounts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what the gateway answered: its payment id, and where the shopper must go. A later attempt may
/// pay in another way than the order was placed with.
pub async fn store_intent(
    conn: &mut PgConnection,
    intent: NewIntent<'_>,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let payment = intent.payment;
    let status = match payment.status {
        GatewayPaymentStatus::Pending | GatewayPaymentStatus::RequiresAction | GatewayPaymentStatus::Authorized => {
            "PENDING"
        }
        GatewayPaymentStatus::Captured => "CAPTURED",
        GatewayPaymentStatus::Failed => "FAILED",
        GatewayPaymentStatus::Closed => "CLOSED",
    };
    if intent.method != intent.ordered_with {
        sqlx::query!(
            "update orders set payment_method = $2, updated_at = $3 where id = $1",
            Uuid::from(intent.order_id),
            intent.method.as_str(),
            now
        )
        .execute(&mut *conn)
        .await?;
    }
    let next_action = payment.next_action.as_ref().map(json).transpose()?;
    let currency = payment.amount.currency();
    sqlx::query!(
        "with payment as (
            update payments set payment_gateway = $2, gateway_payment_id = $3, payment_method = $9, updated_at = $4
             where order_id = $1 returning id)
         insert into payment_attempts (payment_id, attempt, idempotency_key, gateway_payment_id, currency, next_action,
                                       status, failure_reason, created_at, updated_at)
         select id, $10, $5, $3, $11, $6, $7, $8, $4, $4 from payment",
        Uuid::from(intent.order_id),
        intent.gateway,
        payment.gateway_payment_id,
        now,
        intent.idempotency_key,
        next_action,
        status,
        payment.failure,
        intent.method.as_str(),
        i32::try_from(intent.attempt).unwrap_or(i32::MAX),
        currency.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// PENDING → CONFIRMED; with `payment`, the payment is CAPTURED.
pub async fn confirm(
    conn: &mut PgConnection,
    order_id: OrderId,
    payment: Option<&Captured>,
    estimated_delivery: NaiveDate,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let confirmed = sqlx::query!(
        "with confirmed as (
            update orders
               set order_status = 'CONFIRMED', confirmed_at = $2, updated_at = $2, estimated_delivery_date = $3,
                   payment_status = case when $4::text is null and payment_method = 'COD' then 'PENDING' else 'CAPTURED' end,
                   payment_id = $4
             where id = $1 and order_status = 'PENDING'
            returning id, payment_status),
         attempt as (
            update payment_attempts a set status = 'CAPTURED', next_action = null, updated_at = $2
              from payments p
             where p.order_id = $1 and a.payment_id = p.id and a.gateway_payment_id = $4 and a.status <> 'CAPTURED')
         update payments p
            set payment_status = c.payment_status, captured_amount = coalesce($5, p.captured_amount), updated_at = $2
           from confirmed c where p.order_id = c.id",
        Uuid::from(order_id),
        now,
        estimated_delivery,
        payment.map(|payment| payment.gateway_payment_id.as_str()),
        payment.map(|payment| payment.amount),
    )
    .execute(conn)
    .await?
    .rows_affected();
    // The order belongs to its run while PENDING: anything else is a defect, and must not be paid for.
    if confirmed == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// PENDING → CANCELLED, with the reason in the history; the payment is FAILED unless it was captured.
pub async fn cancel_pending(
    conn: &mut PgConnection,
    order_id: OrderId,
    code: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with cancelled as (
            update orders
               set order_status = 'CANCELLED', cancelled_at = $2, updated_at = $2,
                   payment_status = case payment_status when 'PENDING' then 'FAILED' else payment_status end
             where id = $1 and order_status = 'PENDING'
            returning id, payment_method),
         payment as (
            update payments p set payment_status = 'FAILED', failure_reason = $4, updated_at = $2
              from cancelled c where p.order_id = c.id and p.payment_status = 'PENDING'),
         attempt as (
            update payment_attempts a
               set status = case when $3 = 'payment-declined' then 'FAILED' else 'CLOSED' end, next_action = null,
                   failure_reason = coalesce(a.failure_reason, $4), updated_at = $2
              from payments p join cancelled c on c.id = p.order_id
             where a.payment_id = p.id and a.status = 'PENDING'),
         history as (
            insert into order_state_history (order_id, from_status, to_status, changed_by, change_reason, changed_at, metadata)
            select id, 'PENDING', 'CANCELLED', 'checkout', $4, $2, jsonb_build_object('code', $3::text) from cancelled)
         insert into outbox_events (event_id, event_type, subject, data, occurred_at)
         select gen_random_uuid(), e.event_type, c.id::text,
                jsonb_build_object('orderId', c.id, 'code', $3::text, 'reason', $4::text), $2
           from cancelled c, (values ('payment.failed'), ('order.cancelled')) as e(event_type)",
        Uuid::from(order_id),
        now,
        code,
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a line to the order's audit trail.
pub async fn append_history(
    conn: &mut PgConnection,
    order_id: OrderId,
    from: Option<&str>,
    to: &str,
    changed_by: &str,
    reason: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into order_state_history (order_id, from_status, to_status, changed_by, change_reason, changed_at)
         values ($1, $2, $3, $4, $5, $6)",
        Uuid::from(order_id),
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
