//! Stripe's minor units, which are not those of ISO 4217 throughout (its page "Supported currencies").

use domain::money::{Currency, Money};
use domain::ports::Unsupported;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

/// How Stripe counts a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unit {
    /// Its integers are amounts without that many decimals.
    decimals: u32,
    /// They must be multiples of this.
    step: i64,
}

impl Unit {
    /// None for a currency with three decimals that Stripe does not say how to count.
    fn of(currency: Currency) -> Option<Unit> {
        let unit = |decimals, step| Some(Unit { decimals, step });
        match currency.as_str() {
            "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "VND" | "VUV" | "XAF"
            | "XOF" | "XPF" => unit(0, 1),
            // They lost their decimals, and are counted as before.
            "ISK" | "UGX" => unit(2, 100),
            // Some card networks handle only two of the three.
            "BHD" | "JOD" | "KWD" | "OMR" | "TND" => unit(3, 10),
            _ if currency.exponent() == 3 => None,
            _ => unit(2, 1),
        }
    }
}

/// An amount as Stripe's integer. Nothing is rounded.
pub(super) fn to_minor(money: &Money) -> Result<i64, Unsupported> {
    let minor = Unit::of(money.currency()).and_then(|Unit { decimals, step }| {
        let minor = money.amount().checked_mul(Decimal::from(10_u64.pow(decimals)))?;
        let minor = minor.is_integer().then(|| minor.to_i64()).flatten()?;
        (minor > 0 && minor % step == 0).then_some(minor)
    });
    minor.ok_or_else(|| Unsupported(format!("Stripe cannot collect exactly {money}")))
}

/// What Stripe's integer and its currency's name, in lower case, mean; the error says what is wrong with them.
pub(super) fn from_minor(minor: i64, currency: &str) -> Result<Money, String> {
    let read = || {
        let currency: Currency = currency.to_ascii_uppercase().parse().ok()?;
        let Unit { decimals, .. } = Unit::of(currency)?;
        Money::new(Decimal::new(minor, decimals), currency).ok()
    };
    read().filter(|_| minor >= 0).ok_or_else(|| format!("{minor} {currency} is no amount"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: &str, currency: &str) -> Money {
        Money::new(amount.parse().expect("a number"), currency.parse().expect("a currency")).expect("money")
    }

    #[test]
    fn amounts_are_counted_as_stripe_counts_them() {
        for (amount, currency, minor) in [
            ("59050.00", "INR", 5_905_000),
            ("0.01", "INR", 1),
            ("10.99", "USD", 1_099),
            ("500", "JPY", 500),
            ("1.230", "KWD", 1_230),
            ("5000", "UGX", 500_000),
            ("5", "ISK", 500),
            ("700.00", "MGA", 700),
            ("10.45", "HUF", 1_045),
            ("10.45", "TWD", 1_045),
            ("99.90", "TWD", 9_990),
            ("1.000", "BHD", 1_000),
            ("300", "VND", 300),
        ] {
            let money = money(amount, currency);
            assert_eq!(to_minor(&money), Ok(minor), "{money}");
            assert_eq!(from_minor(minor, &currency.to_ascii_lowercase()), Ok(money));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_not_rounded() {
        for (amount, currency) in [
            ("1.234", "KWD"),
            ("0.001", "BHD"),
            ("1.005", "JOD"),
            ("10.50", "MGA"),
            ("1.000", "LYD"),
            ("1.000", "IQD"),
            ("0.00", "INR"),
            ("-1.00", "INR"),
            ("100000000000000000000.00", "INR"),
        ] {
            let money = money(amount, currency);
            assert!(to_minor(&money).is_err(), "{money}");
        }
    }

    #[test]
    fn what_is_no_amount_is_not_read_as_one() {
        for (minor, currency) in
            [(1, "xxl"), (1, ""), (-1, "inr"), (150, "isk"), (99, "ugx"), (1, "lyd"), (1, "in\u{131}")]
        {
            assert!(from_minor(minor, currency).is_err(), "{minor} {currency}");
        }
        assert_eq!(from_minor(0, "inr"), Ok(Money::zero(Currency::INR)));
    }
}
