//! An order as an e-mail tells it.

use std::collections::{HashMap, hash_map::Entry};

use domain::{
    ids::OrderId,
    notification::{OrderSummary, SummaryLine},
};
use sqlx::PgConnection;
use uuid::Uuid;

/// The order, and whom to write to.
#[derive(Debug, Clone)]
pub struct Addressed {
    /// The recipient.
    pub email: String,
    /// Whose preferences apply.
    pub user_id: Option<Uuid>,
    /// What to tell.
    pub summary: OrderSummary,
}

/// Reads the summaries of orders.
///
/// # Errors
/// The database's own.
pub async fn read(conn: &mut PgConnection, orders: &[OrderId]) -> Result<HashMap<OrderId, Addressed>, sqlx::Error> {
    let ids: Vec<Uuid> = orders.iter().copied().map(Uuid::from).collect();
    let rows = sqlx::query!(
        r#"select o.id, o.order_number, o.contact_email, o.user_id, o.shipping_address ->> 'recipientName' as recipient_name,
                  o.subtotal_amount, o.discount_amount, o.tax_amount, o.shipping_amount, o.total_amount,
                  o.currency as "currency!", i.product_name, i.sku, i.quantity, i.total_price
             from orders o join order_items i on i.order_id = o.id
            where o.id = any($1) order by i.id"#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    let unreadable = |what: &str| sqlx::Error::Decode(format!("the order's {what} is not one").into());
    let mut read = HashMap::new();
    for row in rows {
        let addressed = match read.entry(OrderId::from(row.id)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Addressed {
                email: row.contact_email,
                user_id: row.user_id,
                summary: OrderSummary {
                    order_number: row.order_number.parse().map_err(|_| unreadable("number"))?,
                    recipient_name: row.recipient_name.unwrap_or_default(),
                    subtotal: row.subtotal_amount,
                    discount: row.discount_amount,
                    tax: row.tax_amount,
                    shipping: row.shipping_amount,
                    total: row.total_amount,
                    currency: row.currency.parse().map_err(|_| unreadable("currency"))?,
                    lines: Vec::new(),
                },
            }),
        };
        addressed.summary.lines.push(SummaryLine {
            name: row.product_name,
            sku: row.sku,
            quantity: u32::try_from(row.quantity).unwrap_or_default(),
            total: row.total_price,
        });
    }
    Ok(read)
}
