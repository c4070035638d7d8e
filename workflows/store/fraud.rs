//! `fraud_rule_sets`, `order_screenings`, `screening_keys`, `order_reviews`: the rules, what checkouts got by them,
//! and what staff made of it. None of it is shown to shoppers.
//!
//! Checkouts are counted under transaction-level advisory locks, one for each key that a rule counts by, taken in the
//! order of their numbers and before any row's lock.

pub mod past;
pub mod reviews;
pub mod rules;
pub mod screenings;

use domain::fraud::{Digest, FactsError};

/// What a row has is read as what it was written from.
fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

fn digest(bytes: Option<Vec<u8>>) -> Result<Option<Digest>, sqlx::Error> {
    bytes.map(Digest::try_from).transpose().map_err(|error: FactsError| unreadable(error))
}
