//! Amounts as PayPal writes them, and which of ours it can collect. Nothing is rounded: an amount that does not fit
//! is refused.

use domain::money::{Currency, Money, to_wire};
use domain::payment::PaymentMethod;
use domain::ports::{GatewayError, Unsupported};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::objects::nonsense;

/// What PayPal takes (its REST reference, "Currency codes"). The rupee is not among them: it serves Indian accounts
/// at home only, and no new ones.
const CURRENCIES: [&str; 24] = [
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR", "NOK",
    "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD",
];

/// Those that have no decimals there, whatever ISO 4217 says.
const WHOLE: [&str; 3] = ["HUF", "JPY", "TWD"];

/// The largest amount that an order may have, in hundredths of a major unit: 999999999999999.99.
const MAX_HUNDREDTHS: i64 = 99_999_999_999_999_999;

/// An amount on PayPal's wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Amount {
    currency_code: String,
    /// A decimal number; a string, as JSON numbers are floats to many readers.
    value: String,
}

impl Amount {
    /// `money` as PayPal takes it.
    ///
    /// # Errors
    /// [`Unsupported`]: PayPal does not know the currency, or not so small, so large or so fine an amount of it.
    pub(super) fn of(money: &Money) -> Result<Amount, Unsupported> {
        let (amount, currency) = (money.amount(), money.currency());
        if !CURRENCIES.contains(&currency.as_str()) {
            return Err(Unsupported(format!("PayPal takes no {currency}")));
        }
        if amount <= Decimal::ZERO || amount > Decimal::new(MAX_HUNDREDTHS, 2) {
            return Err(Unsupported(format!("PayPal cannot collect {money}")));
        }
        let value = if !WHOLE.contains(&currency.as_str()) {
            to_wire(amount, currency)
        } else if amount.is_integer() {
            amount.normalize().to_string()
        } else {
            return Err(Unsupported(format!("PayPal takes whole {currency} only, not {money}")));
        };
        Ok(Amount { currency_code: currency.to_string(), value })
    }

    /// What PayPal means by it.
    ///
    /// # Errors
    /// [`GatewayError::Unknown`] when it is no amount of a currency.
    pub(super) fn money(&self) -> Result<Money, GatewayError> {
        let Amount { currency_code, value } = self;
        let currency = currency_code.parse::<Currency>().ok();
        let amount = value.parse::<Decimal>().ok().filter(|amount| !amount.is_sign_negative());
        amount
            .zip(currency)
            .and_then(|(amount, currency)| Money::new(amount, currency).ok())
            .ok_or_else(|| nonsense("an amount that is none"))
    }
}

/// Whether PayPal can collect so much that way: from its own wallet, in a currency it takes.
pub(super) fn accepts(method: PaymentMethod, amount: &Money) -> Result<(), Unsupported> {
    match method {
        PaymentMethod::Wallet => Amount::of(amount).map(|_| ()),
        PaymentMethod::CreditCard
        | PaymentMethod::DebitCard
        | PaymentMethod::Upi
        | PaymentMethod::NetBanking
        | PaymentMethod::Cod => Err(Unsupported(format!("PayPal is a wallet, it takes no {}", method.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: &str, currency: &str) -> Money {
        Money::new(amount.parse().expect("a number"), currency.parse().expect("a currency")).expect("an amount")
    }

    #[test]
    fn every_kind_of_currency_is_written_as_paypal_wants_it_or_refused() {
        for (amount, currency, written) in [
            ("590.50", "USD", Some("590.50")),
            ("590", "USD", Some("590.00")),
            ("0.01", "EUR", Some("0.01")),
            ("1000", "JPY", Some("1000")),
            ("1000", "HUF", Some("1000")),
            ("1000.50", "HUF", None),
            ("100", "TWD", Some("100")),
            ("100.01", "TWD", None),
            ("590.50", "INR", None),
            ("1.500", "KWD", None),
            ("1", "KRW", None),
            ("0", "USD", None),
            ("-1", "USD", None),
            ("999999999999999.99", "USD", Some("999999999999999.99")),
            ("1000000000000000", "USD", None),
        ] {
            let amount = money(amount, currency);
            assert_eq!(Amount::of(&amount).ok().map(|amount| amount.value).as_deref(), written, "{amount}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for (amount, currency) in [("590.50", "USD"), ("1000", "JPY"), ("1000", "HUF"), ("100", "TWD")] {
            let amount = money(amount, currency);
            assert_eq!(Amount::of(&amount).expect("fits").money(), Ok(amount));
        }
        for currency in CURRENCIES {
            assert!(Amount::of(&money("7", currency)).is_ok_and(|amount| amount.money().is_ok()), "{currency}");
        }
    }

    #[test]
    fn an_amount_that_is_none_makes_no_sense() {
        for (value, currency_code) in [("", "USD"), ("1.234", "USD"), ("-1.00", "USD"), ("1.00", "usd"), ("1.5", "JPY")]
        {
            let amount = Amount { currency_code: currency_code.to_owned(), value: value.to_owned() };
            assert!(matches!(amount.money(), Err(GatewayError::Unknown(_))), "{value} {currency_code}");
        }
    }

    #[test]
    fn only_the_wallet_is_taken() {
        let amount = money("590.50", "USD");
        for method in PaymentMethod::ALL {
            assert_eq!(accepts(method, &amount).is_ok(), method == PaymentMethod::Wallet, "{method:?}");
        }
        assert!(accepts(PaymentMethod::Wallet, &money("590.50", "INR")).is_err());
        assert!(accepts(PaymentMethod::Wallet, &money("1.500", "KWD")).is_err());
    }
}
