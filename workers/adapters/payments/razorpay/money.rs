//! Amounts as Razorpay counts them: whole numbers of its own smallest unit of each currency.

use domain::money::{Currency, Money};
use domain::payment::PaymentMethod;
use domain::ports::{GatewayError, Unsupported};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

/// Razorpay's published list of currencies, by the number of decimals it gives them. Its own list and not
/// ISO 4217's: what it takes for a rupee's hundredth is for it to say.
const WHOLE: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF";
const HUNDREDTHS: &str = "\
    AED ALL AMD AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BZD CAD CHF CNY COP CRC CUP CVE CZK DKK DOP DZD \
    EGP ETB EUR FJD GBP GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR JMD KES KGS KHR KYD KZT LAK LKR LRD LSL MAD MDL \
    MGA MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SCR SEK \
    SGD SOS SVC SZL THB TRY TTD TWD TZS UAH USD UYU UZS XCD YER ZAR ZMW";
const THOUSANDTHS: &str = "BHD IQD JOD KWD OMR TND";

/// The least it collects in rupees, in paise.
const LEAST_PAISE: i64 = 100;

/// Whether it can collect so much that way. Its page offers every method but cash.
///
/// # Errors
/// [`Unsupported`]: cash, a currency it does not list, too little, or more decimals than it takes.
pub(super) fn accepts(method: PaymentMethod, amount: &Money) -> Result<(), Unsupported> {
    match method {
        PaymentMethod::Cod => return Err(Unsupported("Razorpay does not collect cash".to_owned())),
        PaymentMethod::CreditCard
        | PaymentMethod::DebitCard
        | PaymentMethod::Upi
        | PaymentMethod::NetBanking
        | PaymentMethod::Wallet => {}
    }
    let least = if amount.currency() == Currency::INR { LEAST_PAISE } else { 1 };
    if minor_units(amount)? < least {
        return Err(Unsupported(format!("Razorpay does not collect as little as {amount}")));
    }
    Ok(())
}

/// The amount in Razorpay's smallest unit. Nothing is rounded: of a currency with three decimals it takes only
/// amounts whose last digit is 0.
///
/// # Errors
/// [`Unsupported`]: it has no such amount.
pub(super) fn minor_units(amount: &Money) -> Result<i64, Unsupported> {
    let decimals = decimals(amount.currency().as_str())
        .ok_or_else(|| Unsupported(format!("Razorpay does not collect {}", amount.currency())))?;
    amount
        .amount()
        .checked_mul(Decimal::from(10_i64.pow(decimals)))
        .filter(|minor| minor.fract().is_zero())
        .and_then(|minor| minor.to_i64())
        .filter(|minor| decimals < 3 || minor % 10 == 0)
        .ok_or_else(|| Unsupported(format!("Razorpay has no amount of {amount}")))
}

/// The amount that so many of its smallest units are.
///
/// # Errors
/// [`GatewayError::Unknown`]: an answer that makes no sense.
pub(super) fn from_minor_units(minor: i64, currency: &str) -> Result<Money, GatewayError> {
    let strange = || GatewayError::Unknown(format!("an answer that makes no sense: {minor} of {currency:?}"));
    let decimals = decimals(currency).ok_or_else(strange)?;
    let currency = currency.parse::<Currency>().map_err(|_| strange())?;
    Money::new(Decimal::new(minor, decimals), currency).map_err(|_| strange())
}

fn decimals(currency: &str) -> Option<u32> {
    let is_in = |list: &str| list.split_ascii_whitespace().any(|known| known == currency);
    [(WHOLE, 0), (HUNDREDTHS, 2), (THOUSANDTHS, 3)]
        .into_iter()
        .find_map(|(list, decimals)| is_in(list).then_some(decimals))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: &str, currency: &str) -> Money {
        Money::new(amount.parse().unwrap(), currency.parse().unwrap()).unwrap()
    }

    #[test]
    fn each_kind_of_currency_has_its_own_smallest_unit() {
        for (amount, currency, minor) in [
            ("59050.00", "INR", 5_905_000),
            ("1.00", "INR", 100),
            ("20.00", "USD", 2_000),
            ("99", "JPY", 99),
            ("99.990", "KWD", 99_990),
            ("5", "UGX", 5),
            ("7", "ISK", 7),
            ("3.00", "MGA", 300),
        ] {
            let money = money(amount, currency);
            assert_eq!(minor_units(&money), Ok(minor), "{money}");
            assert_eq!(from_minor_units(minor, currency), Ok(money));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_not_rounded() {
        let card = PaymentMethod::CreditCard;
        for (amount, currency, fits) in [
            ("0.99", "INR", false),
            ("1.00", "INR", true),
            ("0.00", "USD", false),
            ("0.01", "USD", true),
            ("1", "JPY", true),
            ("99.991", "KWD", false),
            ("99.990", "KWD", true),
            ("0.010", "TND", true),
            // Not on its list.
            ("10.00", "AFN", false),
            ("10.000", "LYD", false),
            ("79228162514264337593543950.00", "INR", false),
        ] {
            assert_eq!(accepts(card, &money(amount, currency)).is_ok(), fits, "{amount} {currency}");
        }
    }

    #[test]
    fn every_method_but_cash_is_taken() {
        let rupees = money("500.00", "INR");
        for method in PaymentMethod::ALL {
            assert_eq!(accepts(method, &rupees).is_ok(), method != PaymentMethod::Cod, "{method:?}");
        }
    }

    #[test]
    fn an_amount_in_a_strange_currency_makes_no_sense() {
        for currency in ["", "inr", "XXL", "AFN", "HRK"] {
            assert!(matches!(from_minor_units(100, currency), Err(GatewayError::Unknown(_))), "{currency:?}");
        }
    }

    #[test]
    fn every_listed_currency_is_read_back_as_it_was_sent() {
        let ours = [WHOLE, HUNDREDTHS, THOUSANDTHS].into_iter().flat_map(str::split_ascii_whitespace);
        for currency in ours {
            let money = from_minor_units(12_340, currency).unwrap();
            assert_eq!(minor_units(&money), Ok(12_340), "{currency}");
        }
    }
}
