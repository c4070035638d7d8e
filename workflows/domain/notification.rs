//! The texts of the e-mails (seed: Workflow 2 box 16, Workflow 3 box 9). Plain text: every
//! program shows it, and nothing in it can be markup.

use std::fmt::Write as _;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

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

/// Subject and text for an order that has been confirmed.
#[must_use]
pub fn order_confirmation(order: &OrderSummary) -> (String, String) {
    let mut text = greeting(order);
    push(&mut text, format_args!("thank you: your order {} is confirmed.\n", order.order_number));
    push_lines(&mut text, order);
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

/// Subject and text for money that came after its order was cancelled, and went back.
#[must_use]
pub fn payment_refunded(order: &OrderSummary) -> (String, String) {
    let mut text = greeting(order);
    push(
        &mut text,
        format_args!("a payment for your cancelled order {} has been refunded in full.", order.order_number),
    );
    push(&mut text, format_args!("\nIt reaches your account in 5-7 business days."));
    (format!("Your payment for order {} is refunded", order.order_number), text)
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
    push_lines(&mut text, order);
    push(&mut text, format_args!("Total: {} {}", to_wire(order.total, order.currency), order.currency));
    // True for an order that was never paid, too: this text does not know.
    push(&mut text, format_args!("\nWhatever you have paid for it goes back the way it came; nothing else is due."));
    (format!("Your order {} is cancelled", order.order_number), text)
}

fn greeting(order: &OrderSummary) -> String {
    format!("Hello {},\n\n", one_line(&order.recipient_name))
}

fn push_lines(text: &mut String, order: &OrderSummary) {
    for line in &order.lines {
        let (name, sku) = (one_line(&line.name), one_line(&line.sku));
        push(text, format_args!("{} x {name} ({sku}): {}", line.quantity, to_wire(line.total, order.currency)));
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
    fn nothing_a_shopper_or_a_catalogue_wrote_can_start_a_line_of_its_own() {
        let sly = OrderSummary { recipient_name: "Asha\r\nPay here: http://x".to_owned(), ..order() };
        assert!(order_confirmation(&sly).1.starts_with("Hello Asha Pay here: http://x,\n\n"));
        assert!(order_cancelled(&order(), "a\u{2028}b\u{0}c").1.contains("Reason: a b c\n"));
    }

    #[test]
    fn a_summary_survives_being_journalled() {
        let json = serde_json::to_string(&order()).expect("json");
        assert_eq!(serde_json::from_str::<OrderSummary>(&json).expect("a summary"), order());
    }
}
