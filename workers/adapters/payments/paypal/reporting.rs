//! PayPal's search of transactions (Transaction Search v1), where its captures are listed: it lists no orders.
//! It shows a transaction up to three hours after it was made, and only to an application that may search.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::ids::OrderId;
use domain::money::Money;
use domain::ports::{GatewayError, ListedPayment, PaymentPage, Window};
use serde::Deserialize;

use super::super::exchange::below;
use super::PayPalGateway;
use super::events::PartKind;
use super::money::Amount;
use super::refusals::Refusal;

/// Transactions of one page. Each may cost a question for its order.
const PAGE: &str = "50";

/// Event code of a payment by way of an order (PayPal's transaction event codes).
const PAYMENT: &str = "T0006";

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    transaction_details: Vec<Detail>,
    #[serde(default)]
    total_pages: u32,
}

#[derive(Deserialize)]
struct Detail {
    transaction_info: Transaction,
}

/// One capture. Whoever made it, whatever is missing: it must not hide the others.
#[derive(Deserialize)]
struct Transaction {
    transaction_id: String,
    paypal_reference_id: Option<String>,
    paypal_reference_id_type: Option<String>,
    transaction_status: Option<String>,
    transaction_amount: Option<Amount>,
    custom_field: Option<String>,
}

impl Transaction {
    /// The order it was captured of, if it says so.
    fn order(&self) -> Option<&str> {
        self.paypal_reference_id.as_deref().filter(|_| self.paypal_reference_id_type.as_deref() == Some("ODR"))
    }

    /// How much was taken: none of what is denied or still pending, all of what went through, whether or not it has
    /// gone back since.
    fn captured(&self) -> Option<Money> {
        let amount = self.transaction_amount.as_ref()?.money().ok()?;
        match self.transaction_status.as_deref() {
            Some("D" | "P") => Some(Money::zero(amount.currency())),
            _ => Some(amount),
        }
    }
}

impl PayPalGateway {
    /// Captures of a stretch of time; a page is named by its number.
    pub(super) async fn list_captures(&self, window: Window, page: Option<&str>) -> Result<PaymentPage, GatewayError> {
        let number = page.map_or(Ok(1), str::parse::<u32>).map_err(|_| GatewayError::Refused {
            code: "unknown-page".to_owned(),
            detail: "a page is named by a number".to_owned(),
        })?;
        let mut url = below(&self.base, &["v1", "reporting", "transactions"]);
        url.query_pairs_mut().extend_pairs([
            ("start_date", time(window.from)),
            ("end_date", time(window.until)),
            ("transaction_type", PAYMENT.to_owned()),
            ("fields", "transaction_info".to_owned()),
            ("page_size", PAGE.to_owned()),
            ("page", number.to_string()),
        ]);
        let request = self.client.get(url);
        let answer = match self.exchange(request).await {
            Ok(answer) => answer,
            // Who may log in and not search is well served otherwise: it says nothing of the payments that are known.
            Err(Refusal { error: GatewayError::Misconfigured(why), .. }) if self.login.token().await.is_ok() => {
                return Err(GatewayError::Refused { code: "NOT_AUTHORIZED".to_owned(), detail: why });
            }
            Err(Refusal { error, .. }) => return Err(error),
        };
        let found = answer.read::<Found>()?;
        let mut payments = Vec::with_capacity(found.transaction_details.len());
        for Detail { transaction_info } in found.transaction_details {
            payments.push(self.listed(transaction_info).await?);
        }
        let next = (number < found.total_pages).then(|| (number + 1).to_string());
        Ok(PaymentPage { payments, next })
    }

    /// A payment is an order to us. A capture without one is none of ours.
    async fn listed(&self, transaction: Transaction) -> Result<ListedPayment, GatewayError> {
        let captured = transaction.captured();
        let mut order_id: Option<OrderId> = transaction.custom_field.as_deref().and_then(|id| id.parse().ok());
        let order = match transaction.order() {
            Some(order) => Some(order.to_owned()),
            None => match self.behind(PartKind::Capture, transaction.transaction_id.clone()).await? {
                Some(order) => {
                    order_id = order_id.or(order.order_id);
                    Some(order.id)
                }
                None => None,
            },
        };
        Ok(ListedPayment {
            gateway_payment_id: order.unwrap_or(transaction.transaction_id),
            order_id,
            reference: transaction.custom_field,
            captured,
        })
    }
}

/// As PayPal reads it: with seconds.
fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
