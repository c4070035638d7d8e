//! One rule: what it looks at, and when it holds.

use std::fmt;

use chrono::TimeDelta;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{By, Counted, Counter, Digest, Facts, FactsError, Network};
use crate::{
    ids::UserId,
    money::{Currency, Money, to_wire},
    pricing::same_country,
};

/// Checkouts are counted up to this many, and failed payments among this many checkouts.
pub const MOST_COUNTED: u32 = 1_000;
/// Entries of a list.
const MOST_ENTRIES: usize = 1_000;
/// Seconds a counter looks back: a minute to thirty days.
const WINDOW_S: std::ops::RangeInclusive<u32> = 60..=2_592_000;
/// Seconds an account may be called young: a minute to ten years.
const AGE_S: std::ops::RangeInclusive<u32> = 60..=315_360_000;
/// Where an order's amounts end.
const MOST_AMOUNT: i64 = 100_000_000_000;

/// What kinds of rules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// Too many checkouts in a window.
    Velocity,
    /// Too many failed payments in a window.
    FailedAttempts,
    /// Much money by a young account, or by a guest.
    AmountByAccountAge,
    /// Billed to one country, shipped to another.
    CountryMismatch,
    /// Somebody who is known for it.
    BlockList,
    /// Somebody who is trusted: takes points off.
    AllowList,
}

/// When a rule holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "parameters", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Condition {
    /// [`Kind::Velocity`].
    Velocity(Rate),
    /// [`Kind::FailedAttempts`].
    FailedAttempts(Rate),
    /// [`Kind::AmountByAccountAge`].
    AmountByAccountAge(AmountByAge),
    /// [`Kind::CountryMismatch`].
    CountryMismatch(NoParameters),
    /// [`Kind::BlockList`].
    BlockList(List),
    /// [`Kind::AllowList`].
    AllowList(List),
}

/// So many in a window, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Of whom.
    pub by: By,
    /// So many are fine; the one after them is not.
    pub limit: u32,
    /// Seconds.
    pub window_s: u32,
}

/// From this amount on, an account should be older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AmountByAge {
    /// From this on.
    #[serde(with = "rust_decimal::serde::str")]
    pub amount: Decimal,
    /// Of the amount; checkouts in another are not looked at.
    pub currency: Currency,
    /// Seconds since the account was made. A guest is younger than any account.
    pub younger_than_s: u32,
}

/// There is nothing to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// Who is on a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct List {
    /// In no order.
    pub entries: Vec<Entry>,
}

/// Somebody on a list. An e-mail address or a token may be given as it is, and is kept as its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawEntry", into = "RawEntry")]
pub enum Entry {
    /// An account.
    Account(UserId),
    /// See [`Digest::of_email`].
    Email(Digest),
    /// See [`Digest::of_address`].
    Address(Digest),
    /// A network.
    Network(Network),
    /// See [`Digest::of_token`].
    Token(Digest),
}

/// An entry as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawEntry {
    by: By,
    value: String,
}

impl TryFrom<RawEntry> for Entry {
    type Error = FactsError;

    fn try_from(RawEntry { by, value }: RawEntry) -> Result<Self, FactsError> {
        Ok(match by {
            By::Account => Entry::Account(value.parse().map_err(|_| FactsError::Account)?),
            By::Email if value.contains('@') => Entry::Email(Digest::of_email(&value)),
            By::Email => Entry::Email(value.parse()?),
            By::Address => Entry::Address(value.parse()?),
            By::Network => Entry::Network(value.parse()?),
            By::Token => Entry::Token(value.parse().unwrap_or_else(|_| Digest::of_token(&value))),
        })
    }
}

impl From<Entry> for RawEntry {
    fn from(entry: Entry) -> Self {
        let (by, value) = match entry {
            Entry::Account(user_id) => (By::Account, user_id.to_string()),
            Entry::Email(digest) => (By::Email, digest.to_string()),
            Entry::Address(digest) => (By::Address, digest.to_string()),
            Entry::Network(network) => (By::Network, network.to_string()),
            Entry::Token(digest) => (By::Token, digest.to_string()),
        };
        RawEntry { by, value }
    }
}

impl Entry {
    /// By what it names somebody, if that is who checks out.
    fn names(&self, facts: &Facts) -> Option<By> {
        let (by, is_same) = match self {
            Entry::Account(user_id) => (By::Account, facts.user_id == Some(*user_id)),
            Entry::Email(digest) => (By::Email, facts.email == Some(*digest)),
            Entry::Address(digest) => (By::Address, facts.address == Some(*digest)),
            Entry::Network(network) => (By::Network, facts.network == Some(*network)),
            Entry::Token(digest) => (By::Token, facts.token == Some(*digest)),
        };
        is_same.then_some(by)
    }
}

impl Rate {
    fn counter(self, counted: Counted) -> Counter {
        Counter { counted, by: self.by, window_s: self.window_s }
    }

    fn exceeded(self, counted: Counted, facts: &Facts) -> Option<String> {
        let what = match counted {
            Counted::Checkouts => "checkouts",
            Counted::FailedAttempts => "failed payments",
        };
        let Rate { by, limit, window_s } = self;
        let has_seen = facts.has_seen(&self.counter(counted), limit);
        has_seen.then(|| format!("{limit} or more {what} of this {} in the {window_s} s before", by.as_str()))
    }

    fn problems(self) -> Vec<(&'static str, String)> {
        let limit = within("/limit", self.limit, &(1..=MOST_COUNTED));
        limit.into_iter().chain(within("/windowS", self.window_s, &WINDOW_S)).collect()
    }
}

impl AmountByAge {
    fn exceeded(self, facts: &Facts) -> Option<String> {
        if facts.currency != self.currency || facts.amount < self.amount {
            return None;
        }
        let amount = format!("{} {}", to_wire(facts.amount, facts.currency), facts.currency);
        match facts.account_since.map(|since| facts.at - since) {
            None => Some(format!("{amount} by a guest")),
            Some(age) if age < TimeDelta::seconds(self.younger_than_s.into()) => {
                Some(format!("{amount} by an account that is {} s old", age.num_seconds().max(0)))
            }
            Some(_) => None,
        }
    }

    fn problems(self) -> Vec<(&'static str, String)> {
        let is_fine = self.amount > Decimal::ZERO
            && self.amount < Decimal::from(MOST_AMOUNT)
            && Money::new(self.amount, self.currency).is_ok();
        let detail = format!("must be an amount of {} above 0 and below {MOST_AMOUNT}", self.currency);
        let amount = (!is_fine).then_some(("/amount", detail));
        amount.into_iter().chain(within("/youngerThanS", self.younger_than_s, &AGE_S)).collect()
    }
}

impl List {
    fn naming(&self, facts: &Facts) -> Option<String> {
        let by = self.entries.iter().find_map(|entry| entry.names(facts))?;
        Some(format!("its {} is on the list", by.as_str()))
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let is_long = self.entries.len() > MOST_ENTRIES;
        is_long.then(|| ("/entries", format!("may have at most {MOST_ENTRIES} entries"))).into_iter().collect()
    }
}

/// What is wrong with a number that must be in a range.
pub(super) fn within<T: PartialOrd + fmt::Display>(
    pointer: &'static str,
    number: T,
    range: &std::ops::RangeInclusive<T>,
) -> Option<(&'static str, String)> {
    (!range.contains(&number)).then(|| (pointer, format!("must be {} to {}", range.start(), range.end())))
}

impl Condition {
    /// What was seen, if it holds. What is not known of a checkout does not speak against it.
    pub(super) fn met_by(&self, facts: &Facts) -> Option<String> {
        match self {
            Condition::Velocity(rate) => rate.exceeded(Counted::Checkouts, facts),
            Condition::FailedAttempts(rate) => rate.exceeded(Counted::FailedAttempts, facts),
            Condition::AmountByAccountAge(limit) => limit.exceeded(facts),
            Condition::CountryMismatch(NoParameters {}) => {
                let (billed, shipped) = (&facts.billing_country, &facts.shipping_country);
                (!same_country(billed, shipped)).then(|| format!("billed to {billed}, shipped to {shipped}"))
            }
            Condition::BlockList(list) | Condition::AllowList(list) => list.naming(facts),
        }
    }

    /// Its kind and its parameters, as they are written.
    pub fn written(&self) -> (Kind, Value) {
        let (kind, parameters) = match self {
            Condition::Velocity(rate) => (Kind::Velocity, serde_json::to_value(rate)),
            Condition::FailedAttempts(rate) => (Kind::FailedAttempts, serde_json::to_value(rate)),
            Condition::AmountByAccountAge(limit) => (Kind::AmountByAccountAge, serde_json::to_value(limit)),
            Condition::CountryMismatch(nothing) => (Kind::CountryMismatch, serde_json::to_value(nothing)),
            Condition::BlockList(list) => (Kind::BlockList, serde_json::to_value(list)),
            Condition::AllowList(list) => (Kind::AllowList, serde_json::to_value(list)),
        };
        // Numbers and texts: nothing in them can fail to become JSON.
        (kind, parameters.unwrap_or_default())
    }

    /// What must be counted for it, and how far.
    pub(super) fn counter(&self) -> Option<(Counter, u32)> {
        match self {
            Condition::Velocity(rate) => Some((rate.counter(Counted::Checkouts), rate.limit)),
            Condition::FailedAttempts(rate) => Some((rate.counter(Counted::FailedAttempts), rate.limit)),
            Condition::AmountByAccountAge(_)
            | Condition::CountryMismatch(_)
            | Condition::BlockList(_)
            | Condition::AllowList(_) => None,
        }
    }

    /// What is wrong with its parameters, each with its place among them.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        match self {
            Condition::Velocity(rate) | Condition::FailedAttempts(rate) => rate.problems(),
            Condition::AmountByAccountAge(limit) => limit.problems(),
            Condition::CountryMismatch(NoParameters {}) => Vec::new(),
            Condition::BlockList(list) | Condition::AllowList(list) => list.problems(),
        }
    }
}

/// A rule as the shop's staff defined it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// What its reasons are called by.
    pub name: String,
    /// When it holds.
    #[serde(flatten)]
    pub condition: Condition,
    /// What it adds to the score; an allow list takes it off.
    pub points: u32,
    /// Switched on.
    pub enabled: bool,
}

impl Rule {
    /// As it goes into the sum.
    pub(super) fn signed_points(&self) -> i64 {
        let points = i64::from(self.points);
        match self.condition {
            Condition::AllowList(_) => -points,
            Condition::Velocity(_)
            | Condition::FailedAttempts(_)
            | Condition::AmountByAccountAge(_)
            | Condition::CountryMismatch(_)
            | Condition::BlockList(_) => points,
        }
    }
}
