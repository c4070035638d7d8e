//! The texts of the e-mails (seed: Workflow 2 box 16, Workflow 3 box 9). Plain text: every
//! program shows it, and nothing in it can be markup.

use std::fmt::Write as _;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::OrderNumber;
use crate::money::{Currency, to_wire};

/// What the e-mails tell of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderSummary {
    /// As the shopper knows the order.
    pub order_number: OrderNumber,
    /// Whom the e-mail greets.
    pub recipient_name: String,
    /// What was ordered.
    pub lines: Vec<SummaryLine>,
    /// Of the goods, before discount and tax.
    pub subtotal: Decimal,
    /// Taken off the subtotal; not negative.
    pub discount: Decimal,
    /// On the discounted goods.
    pub tax: Decimal,
    /// Of the delivery.
    pub shipping: Decimal,
    /// To pay: subtotal − discount + tax + shipping.
    pub total: Decimal,
    /// Of every amount here.
    pub currency: Currency,
}

/// One line of an [`OrderSummary`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SummaryLine {
    /// The product's name when it was ordered.
    pub name: String,
    /// The variant's SKU when it was ordered.
    pub sku: String,
    /// In pieces.
    pub quantity: u32,
    /// Of the line, with discount and tax.
    pub total: Decimal,
}

/// What a reminder tells of a cart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CartSummary {
    /// Whom the e-mail greets, if they told us.
    pub first_name: Option<String>,
    /// What lies in it, at today's prices, before discount, tax and shipping.
    pub lines: Vec<SummaryLine>,
    /// Of every amount here.
    pub currency: Currency,
}

/// Something the staff should know: written by whoever noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StaffReport {
    /// Its own; the same report is sent once.
    pub id: Uuid,
    /// The e-mail's subject.
    pub subject: String,
    /// Its text.
    pub text: String,
}

/// A variant that has fallen to its threshold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LowStock {
    /// The variant's SKU.
    pub sku: String,
    /// Product and variant.
    pub name: String,
    /// Pieces left when it fell.
    pub available: i64,
    /// Pieces from which on it is low.
    pub threshold: i64,
}

/// Subject and text for the owner of a cart that was left behind (seed: Cart Service, abandonment).
#[must_use]
pub fn cart_reminder(cart: &CartSummary, link: &str) -> (String, String) {
    let mut text = match cart.first_name.as_deref().map(one_line).filter(|name| !name.is_empty()) {
        Some(name) => format!("Hello {name},\n\n"),
        None => "Hello,\n\n".to_owned(),
    };
    push(&mut text, format_args!("you left something in your cart:\n"));
    push_lines(&mut text, &cart.lines, cart.currency);
    push(&mut text, format_args!("It is still there: {}", one_line(link)));
    push(&mut text, format_args!("\nYou can turn these reminders off in your preferences."));
    ("You left something in your cart".to_owned(), text)
}

/// Subject and text for the staff: which variants have become few (seed: Inventory Service, low stock
/// alerts).
#[must_use]
pub fn low_stock_digest(variants: &[LowStock]) -> (String, String) {
    let mut text = "These variants have fallen to their threshold:\n\n".to_owned();
    for LowStock { sku, name, available, threshold } in variants {
        let (sku, name) = (one_line(sku), one_line(name));
        push(&mut text, format_args!("{sku} ({name}): {available} left, threshold {threshold}"));
    }
    let what = if variants.len() == 1 { "1 variant is".to_owned() } else { format!("{} variants are", variants.len()) };
    (format!("{what} low on stock"), text)
}

/// Subject and text for the staff: a gateway that nobody can be paid through as the shop is set up.
#[must_use]
pub fn gateway_misconfigured(gateway: &str, why: &str) -> (String, String) {
    let (gateway, why) = (one_line(gateway), one_line(why));
    let mut text = format!("Payments through the gateway {gateway} wait, because the shop is set up wrongly:\n\n");
    push(&mut text, format_args!("{why}\n"));
    push(&mut text, format_args!("Please check its address and credentials. Nobody is declined meanwhile; checkouts"));
    push(&mut text, format_args!("that cannot be paid before their payment window ends are cancelled."));
    (format!("The payment gateway {gateway} is set up wrongly"), text)
}

/// Subject and text for an order that has been confirmed.
#[must_use]
pub fn order_confirmation(order: &OrderSummary) -> (String, String) {
    let mut text = greeting(order);
    push(&mut text, format_args!("thank you: your order {} is confirmed.\n", order.order_number));
    push_lines(&mut text, &order.lines, order.currency);
    let money = |amount| to_wire(amount, order.currency);
    push(&mut text, format_args!("Subtotal: {}", money(order.subtotal)));
    if !order.discount.is_zero() {
        push(&mut text, format_args!("Discount: -{}", money(order.discount)));
    }
    push(&mut text, format_args!("Tax: {}", money(order.tax)));
    push(&mut text, format_args!("Shipping: {}", money(order.shipping)));
    push(&mut text, format_args!("Total: {} {}", money(order.total), order.currency));
    (format!("Your order {} is confirmed", order.order_number), text)
}

/// Subject and text for an order that is being packed.
#[must_use]
pub fn order_processing(order: &OrderSummary) -> (String, String) {
    let mut text = greeting(order);
    push(&mut text, format_args!("we are packing your order {}.\n", order.order_number));
    push_lines(&mut text, &order.lines, order.currency);
    push(&mut text, format_args!("You hear from us again when it leaves."));
    (format!("Your order {} is being packed", order.order_number), text)
}

/// A parcel as its label names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParcelLabel {
    /// Who carries it.
    pub courier_service: String,
    /// What they call it.
    pub tracking_number: String,
}

/// Subject and text for a parcel that has left; without one, for an order that has.
#[must_use]
pub fn order_shipped(order: &OrderSummary, parcel: Option<&ParcelLabel>) -> (String, String) {
    let mut text = greeting(order);
    let number = &order.order_number;
    match parcel {
        None => push(&mut text, format_args!("your order {number} is on its way.")),
        Some(ParcelLabel { courier_service, tracking_number }) => {
            push(&mut text, format_args!("a parcel of your order {number} is on its way.\n"));
            push(&mut text, format_args!("Courier: {}", one_line(courier_service)));
            push(&mut text, format_args!("Tracking number: {}", one_line(tracking_number)));
        }
    }
    (format!("Your order {number} is on its way"), text)
}

/// Subject and text for an order that has arrived.
#[must_use]
pub fn order_delivered(order: &OrderSummary) -> (String, String) {
    let mut text = greeting(order);
    push(&mut text, format_args!("your order {} has been delivered.\n", order.order_number));
    push_lines(&mut text, &order.lines, order.currency);
    push(&mut text, format_args!("If something is not as it should be, you can return it."));
    (format!("Your order {} has been delivered", order.order_number), text)
}

/// Subject and text for a return that may be sent.
#[must_use]
pub fn return_approved(order: &OrderSummary) -> (String, String) {
    let number = &order.order_number;
    let mut text = greeting(order);
    push(&mut text, format_args!("you may send back what you asked to return of your order {number}."));
    push(&mut text, format_args!("The money follows as soon as it is here."));
    (format!("Your return for order {number} is approved"), text)
}

/// Subject and text for a return whose goods are here.
#[must_use]
pub fn return_received(order: &OrderSummary) -> (String, String) {
    let number = &order.order_number;
    let mut text = greeting(order);
    push(&mut text, format_args!("what you returned of your order {number} is here. The money is on its way."));
    (format!("Your return for order {number} has arrived"), text)
}

/// Subject and text for a return that comes to nothing; `reason` is what the staff said to the customer.
#[must_use]
pub fn return_rejected(order: &OrderSummary, reason: &str) -> (String, String) {
    let number = &order.order_number;
    let mut text = greeting(order);
    push(&mut text, format_args!("we cannot accept the return you asked for of your order {number}."));
    let reason = one_line(reason);
    if !reason.is_empty() {
        push(&mut text, format_args!("Reason: {reason}"));
    }
    (format!("Your return for order {number} is not accepted"), text)
}

/// Subject and text for money that has gone back: `amount`, in major units of the order's currency.
#[must_use]
pub fn payment_refunded(order: &OrderSummary, amount: Decimal) -> (String, String) {
    let mut text = greeting(order);
    let amount = to_wire(amount, order.currency);
    push(
        &mut text,
        format_args!("we have refunded {amount} {} for your order {}.", order.currency, order.order_number),
    );
    push(&mut text, format_args!("\nIt reaches you in 5-7 business days."));
    (format!("A refund for your order {}", order.order_number), text)
}

/// Subject and text for an order that has been cancelled, also because it could not be paid.
/// `reason` is shown to the shopper after "Reason: ", so it is theirs to read.
#[must_use]
pub fn order_cancelled(order: &OrderSummary, reason: &str) -> (String, String) {
    let mut text = greeting(order);
    push(&mut text, format_args!("your order {} is cancelled.", order.order_number));
    let reason = one_line(reason);
    if !reason.is_empty() {
        push(&mut text, format_args!("Reason: {reason}"));
    }
    text.push('\n');
    push_lines(&mut text, &order.lines, order.currency);
    push(&mut text, format_args!("Total: {} {}", to_wire(order.total, order.currency), order.currency));
    // True for an order that was never paid, too: this text does not know.
    push(&mut text, format_args!("\nWhatever you have paid for it goes back the way it came; nothing else is due."));
    (format!("Your order {} is cancelled", order.order_number), text)
}

fn greeting(order: &OrderSummary) -> String {
    format!("Hello {},\n\n", one_line(&order.recipient_name))
}

fn push_lines(text: &mut String, lines: &[SummaryLine], currency: Currency) {
    for line in lines {
        let (name, sku) = (one_line(&line.name), one_line(&line.sku));
        push(text, format_args!("{} x {name} ({sku}): {}", line.quantity, to_wire(line.total, currency)));
    }
    text.push('\n');
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes whatever is written to it");
}

/// What others wrote stays on its line: a name must not be able to add sentences of its own.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> OrderSummary {
        OrderSummary {
            order_number: OrderNumber::from_sequence(1),
            recipient_name: "Asha Rao".to_owned(),
            lines: vec![SummaryLine {
                name: "Laptop".to_owned(),
                sku: "LAP-001".to_owned(),
                quantity: 1,
                total: Decimal::from(59_000),
            }],
            subtotal: Decimal::from(50_000),
            discount: Decimal::ZERO,
            tax: Decimal::from(9_000),
            shipping: Decimal::from(50),
            total: Decimal::from(59_050),
            currency: Currency::INR,
        }
    }

    #[test]
    fn a_confirmation_names_the_order_its_lines_and_every_amount() {
        let (subject, text) = order_confirmation(&order());
        let number = order().order_number;
        assert_eq!(subject, format!("Your order {number} is confirmed"));
        assert_eq!(
            text,
            format!(
                "Hello Asha Rao,\n\nthank you: your order {number} is confirmed.\n\n\
                 1 x Laptop (LAP-001): 59000.00\n\n\
                 Subtotal: 50000.00\nTax: 9000.00\nShipping: 50.00\nTotal: 59050.00 INR\n"
            )
        );
    }

    #[test]
    fn a_discount_is_shown_when_there_is_one() {
        let (_, text) = order_confirmation(&OrderSummary { discount: Decimal::from(10_000), ..order() });
        assert!(text.contains("\nDiscount: -10000.00\n"), "{text}");
    }

    #[test]
    fn a_cancellation_gives_the_reason_and_promises_the_money_back() {
        let (subject, text) = order_cancelled(&order(), "The payment was declined.");
        let number = order().order_number;
        assert_eq!(subject, format!("Your order {number} is cancelled"));
        assert_eq!(
            text,
            format!(
                "Hello Asha Rao,\n\nyour order {number} is cancelled.\nReason: The payment was declined.\n\n\
                 1 x Laptop (LAP-001): 59000.00\n\nTotal: 59050.00 INR\n\n\
                 Whatever you have paid for it goes back the way it came; nothing else is due.\n"
            )
        );
        assert!(!order_cancelled(&order(), " \n").1.contains("Reason"));
    }

    #[test]
    fn a_parcel_that_leaves_is_told_with_its_tracking_number() {
        let parcel =
            ParcelLabel { courier_service: "Blue Dart".to_owned(), tracking_number: "BD 123\nPay here".to_owned() };
        let (subject, text) = order_shipped(&order(), Some(&parcel));
        let number = order().order_number;
        assert_eq!(subject, format!("Your order {number} is on its way"));
        assert!(text.ends_with("\nCourier: Blue Dart\nTracking number: BD 123 Pay here\n"), "{text}");
    }

    #[test]
    fn nothing_a_shopper_or_a_catalogue_wrote_can_start_a_line_of_its_own() {
        let sly = OrderSummary { recipient_name: "Asha\r\nPay here: http://x".to_owned(), ..order() };
        assert!(order_confirmation(&sly).1.starts_with("Hello Asha Pay here: http://x,\n\n"));
        assert!(order_cancelled(&order(), "a\u{2028}b\u{0}c").1.contains("Reason: a b c\n"));
    }

    #[test]
    fn a_reminder_names_the_lines_and_where_they_are() {
        let cart = CartSummary { first_name: None, lines: order().lines, currency: Currency::INR };
        let (subject, text) = cart_reminder(&cart, "https://shop.example/cart");
        assert_eq!(subject, "You left something in your cart");
        assert_eq!(
            text,
            "Hello,\n\nyou left something in your cart:\n\n1 x Laptop (LAP-001): 59000.00\n\n\
             It is still there: https://shop.example/cart\n\nYou can turn these reminders off in your preferences.\n"
        );
        let sly = CartSummary { first_name: Some("A\nB".to_owned()), ..cart };
        assert!(cart_reminder(&sly, "x").1.starts_with("Hello A B,\n"));
    }

    #[test]
    fn a_digest_has_a_line_a_variant() {
        let few = |sku: &str| LowStock { sku: sku.to_owned(), name: "Pen".to_owned(), available: 2, threshold: 10 };
        let (subject, text) = low_stock_digest(&[few("PEN"), few("INK")]);
        assert_eq!(subject, "2 variants are low on stock");
        assert!(text.ends_with("\nPEN (Pen): 2 left, threshold 10\nINK (Pen): 2 left, threshold 10\n"), "{text}");
        assert_eq!(low_stock_digest(&[few("PEN")]).0, "1 variant is low on stock");
    }

    #[test]
    fn a_summary_survives_being_journalled() {
        let json = serde_json::to_string(&order()).expect("json");
        assert_eq!(serde_json::from_str::<OrderSummary>(&json).expect("a summary"), order());
    }
}
