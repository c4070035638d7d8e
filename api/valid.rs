//! What fields of many bodies have in common: amounts that their currency can express, texts that fit.

use chrono::{DateTime, Datelike, Utc};
use domain::{
    money::{Currency, Money},
    text::line_problem,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer};

use crate::error::{ApiError, FieldError};

/// Where columns of prices end: `numeric(12, 3)`.
const PRICE_LIMIT: i64 = 1_000_000_000;

/// Years that are taken in: four digits, as RFC 3339 has it, and no earlier than any clock here has shown.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;

/// Whether an instant is in the years that are taken in.
pub(crate) fn is_writable(instant: DateTime<Utc>) -> bool {
    YEARS.contains(&instant.year())
}

/// A decimal as the contract writes it: a JSON string of digits, perhaps with a sign before them and a point
/// between two of them. A number could not say 0.1, and `"1_0"` is a slip of somebody who meant another amount.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Written(Decimal);

impl TryFrom<String> for Written {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let unsigned = text.strip_prefix('-').unwrap_or(&text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let read = text.parse().ok().filter(|_| is_number(whole) && is_number(fraction));
        read.map(Written).ok_or("must be a decimal in a string, such as \"59050.00\"")
    }
}

/// For fields that hold a [`Written`] decimal.
///
/// # Errors
/// What is none.
pub(crate) fn decimal<'de, D: Deserializer<'de>>(from: D) -> Result<Decimal, D::Error> {
    Written::deserialize(from).map(|written| written.0)
}

/// The same; null is none.
///
/// # Errors
/// What is none.
pub(crate) fn optional_decimal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Decimal>, D::Error> {
    Ok(Option::<Written>::deserialize(from)?.map(|written| written.0))
}

/// The same for a field that null empties.
///
/// # Errors
/// What is none.
pub(crate) fn nullable_decimal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Decimal>>, D::Error> {
    optional_decimal(from).map(Some)
}

/// Longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// A reason at `/reason`, without the spaces around it.
///
/// # Errors
/// 422 `validation-failed` if it is empty, no line of text, or longer than 500 characters.
pub(crate) fn checked_reason(reason: String) -> Result<String, ApiError> {
    let reason = reason.trim();
    match line_problem(reason, MAX_REASON_CHARS) {
        Some(detail) => Err(ApiError::invalid(vec![FieldError::new("/reason", detail)])),
        None => Ok(reason.to_owned()),
    }
}

/// The same for one that need not be given: an empty one is none.
///
/// # Errors
/// As [`checked_reason`], unless there is none.
pub(crate) fn optional_reason(reason: Option<String>) -> Result<Option<String>, ApiError> {
    reason.filter(|reason| !reason.trim().is_empty()).map(checked_reason).transpose()
}

/// What is wrong with a body, place by place.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Vec<FieldError>);

impl Complaints {
    /// Notes that a place is wrong, if it is.
    pub(crate) fn note(&mut self, wrong: bool, pointer: &str, detail: impl Into<String>) {
        if wrong {
            self.0.push(FieldError::new(pointer, detail));
        }
    }

    /// A text must be one line of so many characters; see [`domain::text`].
    pub(crate) fn text(&mut self, pointer: &str, text: &str, most: usize) {
        let problem = line_problem(text, most);
        self.note(problem.is_some(), pointer, problem.unwrap_or_default());
    }

    /// An instant must be one that RFC 3339 and every reader of it can write.
    pub(crate) fn instant(&mut self, pointer: &str, instant: DateTime<Utc>) {
        self.note(!is_writable(instant), pointer, format!("must be in the years {} to {}", YEARS.start(), YEARS.end()));
    }

    /// An amount must not be negative, must fit the column, and must not be finer than its currency.
    pub(crate) fn amount(&mut self, pointer: &str, amount: Decimal, currency: Currency) {
        let fits = !amount.is_sign_negative() || amount.is_zero();
        self.note(!fits || amount >= Decimal::from(PRICE_LIMIT), pointer, format!("must be 0 to {PRICE_LIMIT}"));
        self.note(
            Money::new(amount, currency).is_err(),
            pointer,
            format!("may have at most {} decimals in {currency}", currency.exponent()),
        );
    }

    /// All of it; empty when nothing is wrong.
    pub(crate) fn into_errors(self) -> Vec<FieldError> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_digits_in_a_string() {
        for text in ["0", "1.5", "-2", "59050.00", "007"] {
            let read: Result<Decimal, _> = decimal(serde_json::json!(text));
            assert_eq!(read.ok(), text.parse().ok(), "{text}");
        }
        for other in [serde_json::json!(1), serde_json::json!(1.5), serde_json::Value::Null] {
            assert!(decimal(&other).is_err(), "{other}");
        }
        for text in ["", "1_0", "10_", "1e1", "+1", "1.", ".5", " 1", "1.2.3", "--1", "١", "1".repeat(40).as_str()] {
            assert!(decimal(serde_json::json!(text)).is_err(), "{text}");
        }
        assert_eq!(optional_decimal(serde_json::Value::Null).ok(), Some(None));
        assert_eq!(nullable_decimal(serde_json::Value::Null).ok(), Some(Some(None)));
    }

    #[test]
    fn an_amount_is_not_finer_than_its_currency() {
        for (amount, currency, fine) in [
            ("10.10", "INR", true),
            ("10.100", "INR", true),
            ("10.101", "INR", false),
            ("10.101", "KWD", true),
            ("10.1", "JPY", false),
            ("-0.01", "INR", false),
            ("-0", "INR", true),
            ("1000000000", "INR", false),
        ] {
            let mut complaints = Complaints::default();
            complaints.amount("/price", amount.parse().expect("a number"), currency.parse().expect("a currency"));
            assert_eq!(complaints.into_errors().is_empty(), fine, "{amount} {currency}");
        }
    }

    #[test]
    fn a_text_is_neither_blank_nor_endless() {
        for (text, fine) in [("x", true), ("  ", false), ("", false), ("four", true), ("fives", false), ("a\n", false)]
        {
            let mut complaints = Complaints::default();
            complaints.text("/name", text, 4);
            assert_eq!(complaints.into_errors().is_empty(), fine, "{text:?}");
        }
    }
}
