//! Money: an exact decimal amount in a currency, never a float.
//!
//! Every amount that is stored or shown has exactly the number of decimals its currency has in
//! ISO 4217. Where a calculation gives more, it is rounded half away from zero, which is what the
//! tax authorities and card networks expect.

use std::fmt;
use std::str::FromStr;

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

/// An ISO 4217 alphabetic currency code, such as `INR`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// What a shop can be paid in: the currencies of ISO 4217 (list one of 2025) but for metals, funds, units of
/// account, and the codes for testing and for none.
const CODES: &str = "\
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP \
    CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK \
    JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN \
    NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC \
    SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

/// Why an amount or a currency was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a currency that somebody could pay in.
    #[error("{0:?} is not an ISO 4217 currency code")]
    UnknownCurrency(String),
    /// The amount has more decimals than the currency knows.
    #[error("{amount} has more decimals than {currency} knows")]
    TooPrecise {
        /// The amount refused.
        amount: Decimal,
        /// The currency it was meant to be in.
        currency: Currency,
    },
    /// Two amounts of different currencies cannot be added.
    #[error("cannot combine {left} with {right}")]
    CurrencyMismatch {
        /// The currency of the left side.
        left: Currency,
        /// The currency of the right side.
        right: Currency,
    },
    /// The result does not fit.
    #[error("the amount is too large")]
    Overflow,
}

impl Currency {
    /// Indian rupee, the default of the shop.
    pub const INR: Self = Self(*b"INR");

    /// How many decimals an amount has (the "minor unit" column of ISO 4217): 2 unless listed.
    pub fn exponent(self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
            | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }

    /// The three letters.
    pub fn as_str(&self) -> &str {
        // The only constructors take ASCII letters.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(letters) if CODES.split_ascii_whitespace().any(|known| known == code) => Ok(Self(letters)),
            Ok(_) | Err(_) => Err(MoneyError::UnknownCurrency(code.to_owned())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(code: String) -> Result<Self, Self::Error> {
        code.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

/// `amount` with the currency's number of decimals; a half goes away from zero (0.125 → 0.13).
pub fn round_half_away(amount: Decimal, currency: Currency) -> Decimal {
    let mut rounded = amount.round_dp_with_strategy(currency.exponent(), RoundingStrategy::MidpointAwayFromZero);
    rounded.rescale(currency.exponent());
    rounded
}

/// `amount` as the API writes it: a fixed-point string with exactly the currency's decimals, such as
/// `59050.00`. It is a string because JSON numbers are floats to many readers.
pub fn to_wire(amount: Decimal, currency: Currency) -> String {
    let rounded = round_half_away(amount, currency);
    let unsigned_zero = if rounded.is_zero() { rounded.abs() } else { rounded };
    let mut text = unsigned_zero.to_string();
    // The library's own padding panics near the end of its range, where rounding cannot add decimals either.
    if unsigned_zero.scale() < currency.exponent() {
        if unsigned_zero.scale() == 0 {
            text.push('.');
        }
        text.extend((unsigned_zero.scale()..currency.exponent()).map(|_| '0'));
    }
    text
}

/// An amount in a currency, with exactly the currency's decimals.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawMoney", into = "RawMoney")]
pub struct Money {
    amount: Decimal,
    currency: Currency,
}

/// How [`Money`] travels; reading it back checks the decimals again.
#[derive(Serialize, Deserialize)]
struct RawMoney {
    amount: Decimal,
    currency: Currency,
}

impl TryFrom<RawMoney> for Money {
    type Error = MoneyError;

    fn try_from(raw: RawMoney) -> Result<Self, Self::Error> {
        Self::new(raw.amount, raw.currency)
    }
}

impl From<Money> for RawMoney {
    fn from(money: Money) -> Self {
        Self { amount: money.amount, currency: money.currency }
    }
}

impl Money {
    /// An amount that already fits the currency's decimals.
    ///
    /// # Errors
    /// [`MoneyError::TooPrecise`] if rounding would change it; [`MoneyError::Overflow`] if it is so
    /// large that its decimals cannot be held exactly.
    pub fn new(amount: Decimal, currency: Currency) -> Result<Self, MoneyError> {
        let money = Self::rounded(amount, currency);
        if money.amount != amount {
            return Err(MoneyError::TooPrecise { amount, currency });
        }
        if money.amount.scale() != currency.exponent() {
            return Err(MoneyError::Overflow);
        }
        Ok(money)
    }

    /// The nearest amount the currency can express, half away from zero.
    pub fn rounded(amount: Decimal, currency: Currency) -> Self {
        Self { amount: round_half_away(amount, currency), currency }
    }

    /// Nothing, in that currency.
    pub fn zero(currency: Currency) -> Self {
        Self::rounded(Decimal::ZERO, currency)
    }

    /// The amount in major units (rupees, not paise).
    pub fn amount(&self) -> Decimal {
        self.amount
    }

    /// The currency.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// The amount in minor units (paise), as payment gateways take it.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] if it does not fit an `i64`.
    pub fn minor_units(&self) -> Result<i64, MoneyError> {
        let scale = Decimal::from(10_u64.pow(self.currency.exponent()));
        self.amount.checked_mul(scale).and_then(|minor| minor.to_i64()).ok_or(MoneyError::Overflow)
    }

    /// The amount that many minor units are: 5905000 paise are 59050.00 rupees.
    pub fn from_minor_units(minor: i64, currency: Currency) -> Self {
        Self { amount: Decimal::new(minor, currency.exponent()), currency }
    }

    /// The sum.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`] or [`MoneyError::Overflow`].
    pub fn checked_add(&self, other: &Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        self.amount.checked_add(other.amount).ok_or(MoneyError::Overflow).and_then(|sum| Self::new(sum, self.currency))
    }

    /// The difference, which may be negative.
    ///
    /// # Errors
    /// [`MoneyError::CurrencyMismatch`] or [`MoneyError::Overflow`].
    pub fn checked_sub(&self, other: &Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        self.amount
            .checked_sub(other.amount)
            .ok_or(MoneyError::Overflow)
            .and_then(|rest| Self::new(rest, self.currency))
    }

    /// The amount, `quantity` times.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn checked_times(&self, quantity: u32) -> Result<Self, MoneyError> {
        self.amount
            .checked_mul(Decimal::from(quantity))
            .ok_or(MoneyError::Overflow)
            .and_then(|product| Self::new(product, self.currency))
    }

    fn same_currency(&self, other: &Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            Ok(())
        } else {
            Err(MoneyError::CurrencyMismatch { left: self.currency, right: other.currency })
        }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", to_wire(self.amount, self.currency), self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    fn rupees(text: &str) -> Money {
        Money::new(text.parse().unwrap(), Currency::INR).unwrap()
    }

    #[test]
    fn currencies_know_their_decimals() {
        for (code, exponent) in [("INR", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("VND", 0), ("KWD", 3), ("TND", 3)] {
            assert_eq!(currency(code).exponent(), exponent, "{code}");
        }
    }

    #[test]
    fn only_what_can_be_paid_in_is_a_currency() {
        for code in ["", "IN", "inr", "INRX", "IN1", "₹", "XXX", "XTS", "XAU", "ABC", "   "] {
            assert_eq!(code.parse::<Currency>(), Err(MoneyError::UnknownCurrency(code.to_owned())));
        }
        assert_eq!(serde_json::to_string(&Currency::INR).unwrap(), "\"INR\"");
        assert!(serde_json::from_str::<Currency>("\"rupee\"").is_err());
    }

    #[test]
    fn a_half_is_rounded_away_from_zero() {
        for (exact, rounded) in [("0.125", "0.13"), ("0.135", "0.14"), ("-0.125", "-0.13"), ("0.1249", "0.12")] {
            assert_eq!(round_half_away(exact.parse().unwrap(), Currency::INR).to_string(), rounded);
        }
    }

    #[test]
    fn the_wire_shows_exactly_the_currencys_decimals() {
        let wire = |amount: &str, code: &str| to_wire(amount.parse().unwrap(), currency(code));
        assert_eq!(wire("59050", "INR"), "59050.00");
        assert_eq!(wire("59050.000", "INR"), "59050.00");
        assert_eq!(wire("59050.4", "JPY"), "59050");
        assert_eq!(wire("1.5", "KWD"), "1.500");
        assert_eq!(wire("-0.001", "INR"), "0.00", "there is no negative nothing");
        assert_eq!(rupees("1").to_string(), "1.00 INR");
    }

    #[test]
    fn an_amount_finer_than_the_currency_is_refused() {
        let amount: Decimal = "1.001".parse().unwrap();
        assert_eq!(Money::new(amount, Currency::INR), Err(MoneyError::TooPrecise { amount, currency: Currency::INR }));
        assert!(serde_json::from_str::<Money>(r#"{"amount":"1.001","currency":"INR"}"#).is_err());
        assert_eq!(Money::rounded(amount, Currency::INR), rupees("1.00"));
        assert_eq!(Money::new(Decimal::MAX, Currency::INR), Err(MoneyError::Overflow));
    }

    #[test]
    fn gateways_get_minor_units() {
        assert_eq!(rupees("59050").minor_units(), Ok(5_905_000));
        assert_eq!(Money::from_minor_units(5_905_000, Currency::INR), rupees("59050"));
        assert_eq!(Money::from_minor_units(500, currency("JPY")).amount(), Decimal::from(500));
        assert_eq!(rupees("100000000000000000000").minor_units(), Err(MoneyError::Overflow));
    }

    #[test]
    fn amounts_of_different_currencies_do_not_mix() {
        let yen = Money::zero(currency("JPY"));
        let mismatch = MoneyError::CurrencyMismatch { left: Currency::INR, right: currency("JPY") };
        assert_eq!(rupees("1").checked_add(&yen), Err(mismatch.clone()));
        assert_eq!(rupees("1").checked_sub(&yen), Err(mismatch));
        assert_eq!(rupees("1.50").checked_times(3), Ok(rupees("4.50")));
    }

    proptest! {
        #[test]
        fn adding_then_taking_away_changes_nothing(left in -1_000_000_000_000_i64..1_000_000_000_000, right in -1_000_000_000_000_i64..1_000_000_000_000) {
            let (left, right) = (Money::from_minor_units(left, Currency::INR), Money::from_minor_units(right, Currency::INR));
            prop_assert_eq!(left.checked_add(&right).unwrap().checked_sub(&right).unwrap(), left);
        }

        /// Amounts come from bodies, settings and gateways: any 96-bit number with any scale.
        #[test]
        fn no_amount_makes_the_arithmetic_panic(
            (left, right) in (any::<(i32, i32, i32)>(), any::<(i32, i32, i32)>()),
            (scale, quantity, code) in (0_u32..=28, any::<u32>(), prop::sample::select(vec!["JPY", "INR", "KWD"])),
        ) {
            let currency = currency(code);
            let decimal = |(lo, mid, hi): (i32, i32, i32)| Decimal::from_parts(lo as u32, mid as u32, hi as u32, lo < 0, scale);
            for amount in [decimal(left), Decimal::MAX, Decimal::MIN, Decimal::new(1, 28)] {
                let other = Money::rounded(decimal(right), currency);
                let money = Money::rounded(amount, currency);
                let _ = (Money::new(amount, currency), to_wire(amount, currency), money.to_string(), money.minor_units());
                let _ = (money.checked_add(&other), money.checked_sub(&other), money.checked_times(quantity));
            }
        }

        #[test]
        fn minor_units_and_json_come_back_as_they_were(minor in any::<i64>(), code in prop::sample::select(CODES.split_ascii_whitespace().collect::<Vec<_>>())) {
            let money = Money::from_minor_units(minor, currency(code));
            prop_assert_eq!(money.minor_units(), Ok(minor));
            prop_assert_eq!(serde_json::from_str::<Money>(&serde_json::to_string(&money).unwrap()).unwrap(), money);
        }
    }
}
