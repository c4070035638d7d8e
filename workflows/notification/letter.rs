//! What a notice says, and to whom.

use std::collections::HashMap;

use domain::{
    ids::{CartId, OrderId},
    notification::{
        CartSummary, OrderSummary, StaffReport, cart_reminder, order_cancelled, order_confirmation, order_delivered,
        order_processing, order_shipped, payment_refunded, return_approved, return_received, return_rejected,
    },
};
use engine::{Failure, SetResult};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{LeftBehind, Notice, OrderPart, Refunded, Subject};
use crate::{
    Shop,
    store::{
        carts::{
            self,
            idle::{self, Look, Standing},
        },
        orders, shipments,
    },
};

/// A message before it is sent.
pub(super) struct Letter {
    pub(super) to: String,
    /// The user who may have opted out of messages of this kind.
    pub(super) unless_opted_out: Option<Uuid>,
    pub(super) order_id: Option<OrderId>,
    /// Subject and text, or why there is nothing to send.
    pub(super) text: Result<(String, String), &'static str>,
}

/// What each notice says, and to whom.
pub(super) async fn letters(conn: &mut PgConnection, told: &[(&Notice, &Shop)]) -> SetResult<Letter> {
    let orders: Vec<OrderId> = told.iter().filter_map(|(notice, _)| notice.subject.order_id()).collect();
    let orders = if orders.is_empty() { HashMap::new() } else { orders::summary::read(conn, &orders).await? };
    let carts: Vec<LeftBehind> = told.iter().filter_map(|(notice, _)| notice.subject.cart()).collect();
    let mut reminders = reminders(conn, &carts).await?.into_iter();
    let mut letters = Vec::with_capacity(told.len());
    for (notice, shop) in told {
        letters.push(match &notice.subject {
            Subject::Order(order_id)
            | Subject::Refund(Refunded { order_id, .. })
            | Subject::Part(OrderPart { order_id, .. }) => match orders.get(order_id) {
                None => Err(Failure::new("order-not-found", "there is no such order to write about")),
                Some(order) => {
                    let text = Ok(text(conn, &order.summary, notice).await?);
                    let (to, order_id) = (order.email.clone(), Some(*order_id));
                    Ok(Letter { to, unless_opted_out: None, order_id, text })
                }
            },
            Subject::Cart(_) => reminders
                .next()
                .map(|(look, summary)| to_owner(shop, look, summary))
                .ok_or_else(|| Failure::new("cart-not-found", "there is no such cart to write about")),
            Subject::Staff(report) => Ok(to_staff(shop, report)),
        });
    }
    Ok(letters)
}

/// Each cart as it stands now, and what is in it. The owner may have come back since the reminder was decided
/// on: then there is nothing to remind of.
async fn reminders(
    conn: &mut PgConnection,
    carts: &[LeftBehind],
) -> Result<Vec<(Look, Option<CartSummary>)>, sqlx::Error> {
    if carts.is_empty() {
        return Ok(Vec::new());
    }
    let left: Vec<_> = carts.iter().map(|cart| (cart.cart_id, cart.idle_since)).collect();
    let looks = idle::look(conn, &left).await?;
    let idle: Vec<CartId> = left
        .iter()
        .zip(&looks)
        .filter(|(_, look)| look.standing == Standing::Idle)
        .map(|((cart_id, _), _)| *cart_id)
        .collect();
    let stored = carts::load_many(conn, &idle).await?;
    left.iter()
        .zip(looks)
        .map(|((cart_id, _), look)| {
            let cart = stored.get(cart_id).filter(|_| look.standing == Standing::Idle);
            let summary = cart.map(|cart| idle::summary(cart, look.first_name.clone())).transpose()?;
            Ok((look, summary))
        })
        .collect()
}

fn to_owner(shop: &Shop, look: Look, summary: Option<CartSummary>) -> Letter {
    let text = summary
        .map(|summary| cart_reminder(&summary, &shop.rules.cart_url()))
        .ok_or("the cart is no longer left behind, or its owner is not to be reminded");
    let to = look.email.unwrap_or_else(|| "nobody".to_owned());
    Letter { to, unless_opted_out: look.user_id, order_id: None, text }
}

fn to_staff(shop: &Shop, report: &StaffReport) -> Letter {
    let (to, text) = match &shop.rules.staff_email {
        Some(address) => (address.clone(), Ok((report.subject.clone(), report.text.clone()))),
        None => ("staff".to_owned(), Err("no address of the staff is configured")),
    };
    Letter { to, unless_opted_out: None, order_id: None, text }
}

async fn text(
    conn: &mut PgConnection,
    summary: &OrderSummary,
    notice: &Notice,
) -> Result<(String, String), sqlx::Error> {
    Ok(match (notice.event.as_str(), &notice.subject) {
        (_, Subject::Refund(refund)) => payment_refunded(summary, refund.amount),
        ("order.confirmed", _) => order_confirmation(summary),
        ("order.processing", _) => order_processing(summary),
        ("order.shipped", subject) => order_shipped(summary, shipments::label(conn, subject.id()).await?.as_ref()),
        ("order.delivered", _) => order_delivered(summary),
        ("return.approved", _) => return_approved(summary),
        ("return.received", _) => return_received(summary),
        ("return.rejected", _) => return_rejected(summary, notice.reason.as_deref().unwrap_or_default()),
        _ => order_cancelled(summary, spoken(notice.reason.as_deref().unwrap_or_default())),
    })
}

/// A failure's code as a shopper reads it.
fn spoken(code: &str) -> &str {
    match code {
        "payment-declined" => "the payment was declined",
        "payment-expired" => "the payment was not completed in time",
        "out-of-stock" => "an item sold out before the payment came through",
        "cancelled" => "it was cancelled at your request",
        "cancelled-by-shop" => "the shop had to cancel it",
        _ => "it could not be completed",
    }
}
