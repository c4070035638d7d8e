//! All rules together, as they stand or as somebody would have them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Condition, Counter, Decision, Kind, Rule, rule::within};
use crate::text::line_problem;

/// Rules of a set.
const MOST_RULES: usize = 50;
/// Characters of a rule's name.
const MOST_NAME_CHARS: usize = 60;
/// Points of a rule.
const POINTS: std::ops::RangeInclusive<i64> = 1..=1_000;
/// Points from which a checkout is denied: more than all rules together could be meant to have.
const DENY_AT: std::ops::RangeInclusive<i64> = 1..=50_000;
/// Seconds the staff may take: money that is set aside comes back to its owner after three days with some gateways,
/// and what is approved must still be taken before.
const REVIEW_DEADLINE_S: std::ops::RangeInclusive<i64> = 60..=216_000;

/// The rules by which checkouts are scored. A version never changes: whoever changes a rule writes the next one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleSet {
    /// From 1.
    pub version: i32,
    /// From so many points on, somebody looks at it.
    pub review_at: i32,
    /// From so many points on, it goes no further.
    pub deny_at: i32,
    /// How long the money is set aside for somebody to look, in seconds.
    pub review_deadline_s: i32,
    /// In the order of their reasons.
    pub rules: Vec<Rule>,
}

/// A rule as somebody writes it.
#[derive(Debug, Clone)]
pub struct DraftRule {
    /// Its name.
    pub name: String,
    /// Which kind.
    pub kind: Kind,
    /// What it adds.
    pub points: i64,
    /// By kind.
    pub parameters: Value,
    /// Switched on.
    pub enabled: bool,
}

/// A rule set as somebody writes it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The version it is to be.
    pub version: i32,
    /// See [`RuleSet::review_at`].
    pub review_at: i64,
    /// See [`RuleSet::deny_at`].
    pub deny_at: i64,
    /// See [`RuleSet::review_deadline_s`].
    pub review_deadline_s: i64,
    /// The rules.
    pub rules: Vec<DraftRule>,
}

/// What is wrong with a draft, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// A sentence for people.
    pub detail: String,
}

impl DraftRule {
    fn parse(self, at: &str, problems: &mut Vec<Problem>) -> Option<Rule> {
        let DraftRule { name, kind, points, parameters, enabled } = self;
        let before = problems.len();
        let mut note = |place: &str, detail: String| problems.push(Problem { pointer: format!("{at}{place}"), detail });
        if let Some(detail) = line_problem(&name, MOST_NAME_CHARS) {
            note("/name", detail);
        }
        if let Some((place, detail)) = within("/points", points, &POINTS) {
            note(place, detail);
        }
        let condition = serde_json::from_value::<Condition>(json!({ "kind": kind, "parameters": parameters }));
        match &condition {
            Ok(condition) => condition
                .problems()
                .into_iter()
                .for_each(|(place, detail)| note(&format!("/parameters{place}"), detail)),
            Err(error) => note("/parameters", error.to_string()),
        }
        let (condition, points) = (condition.ok()?, u32::try_from(points).ok()?);
        (problems.len() == before).then_some(Rule { name, condition, points, enabled })
    }
}

impl Draft {
    /// The rule set, if nothing is wrong with it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(self) -> Result<RuleSet, Vec<Problem>> {
        let Draft { version, review_at, deny_at, review_deadline_s, rules } = self;
        let mut problems = Vec::new();
        let wrong = [
            within("/denyAt", deny_at, &DENY_AT),
            within("/reviewAt", review_at, &(1..=deny_at.max(1))),
            within("/reviewDeadlineS", review_deadline_s, &REVIEW_DEADLINE_S),
            (rules.len() > MOST_RULES).then(|| ("/rules", format!("may have at most {MOST_RULES} rules"))),
        ];
        let note = |(place, detail): (&str, String)| Problem { pointer: place.to_owned(), detail };
        problems.extend(wrong.into_iter().flatten().map(note));
        let mut names = BTreeSet::new();
        let mut parsed = Vec::new();
        for (index, rule) in rules.into_iter().enumerate().take(MOST_RULES) {
            let at = format!("/rules/{index}");
            if !names.insert(rule.name.clone()) {
                let detail = "another rule has this name".to_owned();
                problems.push(Problem { pointer: format!("{at}/name"), detail });
            }
            parsed.extend(rule.parse(&at, &mut problems));
        }
        let small = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
        let (review_at, deny_at, review_deadline_s) = (small(review_at), small(deny_at), small(review_deadline_s));
        if problems.is_empty() {
            Ok(RuleSet { version, review_at, deny_at, review_deadline_s, rules: parsed })
        } else {
            Err(problems)
        }
    }
}

impl RuleSet {
    /// What so many points come to.
    pub(super) fn decide(&self, points: i64) -> Decision {
        if points >= i64::from(self.deny_at) {
            Decision::Deny
        } else if points >= i64::from(self.review_at) {
            Decision::Review
        } else {
            Decision::Allow
        }
    }

    /// What must be counted for its rules, and how far: nothing for those that are switched off.
    pub fn counters(&self) -> BTreeMap<Counter, u32> {
        let mut counters = BTreeMap::new();
        for (counter, limit) in
            self.rules.iter().filter(|rule| rule.enabled).filter_map(|rule| rule.condition.counter())
        {
            let most = counters.entry(counter).or_insert(limit);
            *most = limit.max(*most);
        }
        counters
    }

    /// How far back its counters look, in seconds.
    pub fn longest_window_s(&self) -> u32 {
        self.counters().into_keys().map(|counter| counter.window_s).max().unwrap_or(0)
    }
}
