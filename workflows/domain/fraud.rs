//! Fraud screening: rules as data, and the score a checkout gets by them.
//!
//! Staff write a [`RuleSet`]; a checkout comes with its [`Facts`]; [`evaluate`] says how suspicious it is, and why.
//! Nothing in here looks anything up: how many checkouts came before is counted by whoever has the books
//! ([`RuleSet::counters`] says what), or over past facts by a [`Tally`].

mod facts;
mod rule;
mod set;
mod tally;

#[cfg(test)]
mod tests;

pub use self::{
    facts::{By, Count, Counted, Counter, Digest, Facts, FactsError, Network},
    rule::{AmountByAge, Condition, Entry, Kind, List, MOST_COUNTED, NoParameters, Rate, Rule},
    set::{Draft, DraftRule, Problem, RuleSet},
    tally::Tally,
};

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// What becomes of a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Decision {
    /// It goes on.
    Allow,
    /// Its money is set aside until somebody of the staff has looked at it.
    Review,
    /// It goes no further.
    Deny,
}

impl Decision {
    /// Every decision.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Review, Self::Deny];

    /// The name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Review => "REVIEW",
            Self::Deny => "DENY",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Decision {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownName { kind: "fraud decision", text: text.to_owned() };
        Self::ALL.into_iter().find(|decision| decision.as_str() == text).ok_or_else(unknown)
    }
}

/// Why a checkout has points: for staff only, since a shopper who knew would know what to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// The rule's name.
    pub rule: String,
    /// What it adds; below zero for an allow list.
    pub points: i64,
    /// What it saw. Names no token, no address and no e-mail.
    pub detail: String,
}

/// How suspicious a checkout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// The sum of its reasons, never below zero.
    pub points: i64,
    /// One for each rule that holds, in the rules' order.
    pub reasons: Vec<Reason>,
    /// What the points come to.
    pub decision: Decision,
}

/// Scores a checkout. The order of the rules changes nothing but the order of the reasons.
pub fn evaluate(rules: &RuleSet, facts: &Facts) -> Score {
    let holds = |rule: &Rule| {
        let detail = rule.condition.met_by(facts)?;
        Some(Reason { rule: rule.name.clone(), points: rule.signed_points(), detail })
    };
    let reasons: Vec<Reason> = rules.rules.iter().filter(|rule| rule.enabled).filter_map(holds).collect();
    let points = reasons.iter().map(|reason| reason.points).sum::<i64>().max(0);
    Score { points, reasons, decision: rules.decide(points) }
}
