//! An order as an e-mail tells it.

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

/// Reads an order's summary.
pub async fn read(conn: &mut PgConnection, order_id: OrderId) -> Result<Option<Addressed>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select o.order_number, o.contact_email, o.user_id, o.shipping_address ->> 'recipientName' as recipient_name,
                  o.subtotal_amount, o.discount_amount, o.tax_amount, o.shipping_amount, o.total_amount,
                  o.currency as "currency!", i.product_name, i.sku, i.quantity, i.total_price
             from orders o join order_items i on i.order_id = o.id
            where o.id = $1 order by i.id"#,
        Uuid::from(order_id)
    )
    .fetch_all(conn)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let unreadable = |what: &str| sqlx::Error::Decode(format!("the order's {what} is not one").into());
    Ok(Some(Addressed {
        email: first.contact_email.clone(),
        user_id: first.user_id,
        summary: OrderSummary {
            order_number: first.order_number.parse().map_err(|_| unreadable("number"))?,
            recipient_name: first.recipient_name.clone().unwrap_or_default(),
            subtotal: first.subtotal_amount,
            discount: first.discount_amount,
            tax: first.tax_amount,
            shipping: first.shipping_amount,
            total: first.total_amount,
            currency: first.currency.parse().map_err(|_| unreadable("currency"))?,
            lines: rows
                .iter()
                .map(|row| SummaryLine {
                    name: row.product_name.clone(),
                    sku: row.sku.clone(),
                    quantity: u32::try_from(row.quantity).unwrap_or_default(),
                    total: row.total_price,
                })
                .collect(),
        },
    }))
}
