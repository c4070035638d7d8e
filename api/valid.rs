//! What fields of many bodies have in common: amounts that their currency can express, texts that fit.

use chrono::{DateTime, Datelike, Utc};
use domain::{
    money::{Currency, Money},
    text::line_problem,
};
use rust_decimal::Decimal;

use crate::error::{ApiError, FieldError};

/// Where columns of prices end: `numeric(12, 3)`.
const PRICE_LIMIT: i64 = 1_000_000_000;

/// Years that are taken in: four digits, as RFC 3339 has it, and no earlier than any clock here has shown.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;

/// Whether an instant is in the years that are taken in.
pub(crate) fn is_writable(instant: DateTime<Utc>) -> bool {
    YEARS.contains(&instant.year())
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
