use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{address::Address, ids::UserId};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
}

fn account() -> UserId {
    UserId(Uuid::from_u128(7))
}

fn facts() -> Facts {
    Facts {
        user_id: Some(account()),
        account_since: Some(at(-1_000)),
        email: Some(Digest::of_email("asha@example.com")),
        address: Some(Digest::of_address(&address())),
        network: Some("203.0.113.9".parse().expect("a network")),
        token: Some(Digest::of_token("tok_ok")),
        billing_country: "India".to_owned(),
        shipping_country: "IN".to_owned(),
        amount: "59050.00".parse().expect("an amount"),
        currency: crate::money::Currency::INR,
        at: at(0),
        counts: Vec::new(),
    }
}

fn address() -> Address {
    Address {
        recipient_name: "Asha Rao".to_owned(),
        address_line1: "12 Marine Drive".to_owned(),
        address_line2: None,
        city: "Mumbai".to_owned(),
        state: "Maharashtra".to_owned(),
        postal_code: "400001".to_owned(),
        country: "India".to_owned(),
        phone_number: "+919876543210".to_owned(),
    }
}

fn rule(name: &str, kind: Kind, points: i64, parameters: Value) -> DraftRule {
    DraftRule { name: name.to_owned(), kind, points, parameters, enabled: true }
}

fn draft(rules: Vec<DraftRule>) -> Draft {
    Draft { version: 3, review_at: 50, deny_at: 100, review_deadline_s: 3_600, rules }
}

fn set(rules: Vec<DraftRule>) -> RuleSet {
    draft(rules).parse().expect("a rule set")
}

fn velocity(by: &str, limit: u32, window_s: u32) -> Value {
    json!({ "by": by, "limit": limit, "windowS": window_s })
}

/// The rules a shop begins with, as the schema has them.
fn first_rules() -> RuleSet {
    let migration = include_str!("../../../migrations/0014_create_fraud.sql");
    let rules = migration.split("$rules$").nth(1).expect("the rules");
    let rules = serde_json::from_str(rules).expect("rules");
    RuleSet { version: 1, review_at: 60, deny_at: 100, review_deadline_s: 86_400, rules }
}

/// As somebody would write it who has read it.
fn rewritten(rules: &RuleSet) -> Draft {
    let rewritten = |rule: &Rule| {
        let (kind, parameters) = rule.condition.written();
        DraftRule { name: rule.name.clone(), kind, points: rule.points.into(), parameters, enabled: rule.enabled }
    };
    Draft {
        version: rules.version,
        review_at: rules.review_at.into(),
        deny_at: rules.deny_at.into(),
        review_deadline_s: rules.review_deadline_s.into(),
        rules: rules.rules.iter().map(rewritten).collect(),
    }
}

#[test]
fn each_kind_of_rule_holds_for_what_it_is_about_and_nothing_else() {
    let young = json!({ "amount": "59050.00", "currency": "INR", "youngerThanS": 1_001 });
    let on_list = |by: &str, value: &str| json!({ "entries": [{ "by": by, "value": value }] });
    type Row = (Kind, Value, fn(&mut Facts), i64);
    let rows: Vec<Row> = vec![
        (Kind::Velocity, velocity("ACCOUNT", 3, 60), |facts| facts.counts = counted("ACCOUNT", 3), 10),
        (Kind::Velocity, velocity("ACCOUNT", 3, 60), |facts| facts.counts = counted("ACCOUNT", 2), 0),
        (Kind::Velocity, velocity("NETWORK", 3, 60), |facts| facts.counts = counted("ACCOUNT", 3), 0),
        (Kind::Velocity, velocity("ACCOUNT", 3, 61), |facts| facts.counts = counted("ACCOUNT", 3), 0),
        (Kind::FailedAttempts, velocity("ACCOUNT", 3, 60), |facts| facts.counts = counted("ACCOUNT", 3), 0),
        (Kind::AmountByAccountAge, young.clone(), |_| {}, 10),
        (Kind::AmountByAccountAge, young.clone(), |facts| facts.account_since = Some(at(-1_001)), 0),
        (Kind::AmountByAccountAge, young.clone(), |facts| facts.account_since = None, 10),
        (Kind::AmountByAccountAge, young.clone(), |facts| facts.amount = "59049.99".parse().expect("an amount"), 0),
        (Kind::AmountByAccountAge, young, |facts| facts.currency = "USD".parse().expect("a currency"), 0),
        (Kind::CountryMismatch, json!({}), |_| {}, 0),
        (Kind::CountryMismatch, json!({}), |facts| facts.billing_country = "France".to_owned(), 10),
        (Kind::BlockList, on_list("ACCOUNT", &account().to_string()), |_| {}, 10),
        (Kind::BlockList, on_list("ACCOUNT", &account().to_string()), |facts| facts.user_id = None, 0),
        (Kind::BlockList, on_list("EMAIL", "Asha+shop@Example.com"), |_| {}, 10),
        (Kind::BlockList, on_list("EMAIL", "asha@example.org"), |_| {}, 0),
        (Kind::BlockList, on_list("EMAIL", &Digest::of_email("asha@example.com").to_string()), |_| {}, 10),
        (Kind::BlockList, on_list("ADDRESS", &Digest::of_address(&address()).to_string()), |_| {}, 10),
        (Kind::BlockList, on_list("NETWORK", "203.0.113.0/24"), |_| {}, 10),
        (Kind::BlockList, on_list("NETWORK", "203.0.114.0/24"), |_| {}, 0),
        (Kind::BlockList, on_list("TOKEN", "tok_ok"), |_| {}, 10),
        (Kind::BlockList, on_list("TOKEN", "tok_ok"), |facts| facts.token = None, 0),
        (Kind::BlockList, json!({ "entries": [] }), |_| {}, 0),
    ];
    for (kind, parameters, change, points) in rows {
        let what = format!("{kind:?} {parameters}");
        let mut facts = facts();
        change(&mut facts);
        let score = evaluate(&set(vec![rule("rule", kind, 10, parameters)]), &facts);
        assert_eq!(score.points, points, "{what}: {score:?}");
        assert_eq!(score.reasons.len(), usize::from(points > 0), "{what}: {score:?}");
    }
}

fn counted(by: &str, seen: u32) -> Vec<Count> {
    let by = serde_json::from_value(json!(by)).expect("a key");
    let counter = Counter { counted: Counted::Checkouts, by, window_s: 60 };
    vec![Count { counter, most: 3, seen }]
}

#[test]
fn points_come_to_a_decision_at_the_limits_themselves() {
    let billed_abroad = Facts { billing_country: "France".to_owned(), ..facts() };
    for (points, decision) in [
        (1, Decision::Allow),
        (49, Decision::Allow),
        (50, Decision::Review),
        (99, Decision::Review),
        (100, Decision::Deny),
    ] {
        let rules = set(vec![rule("abroad", Kind::CountryMismatch, points, json!({}))]);
        assert_eq!(evaluate(&rules, &billed_abroad).decision, decision, "{points}");
        assert_eq!(evaluate(&rules, &facts()).decision, Decision::Allow, "{points}");
    }
}

#[test]
fn who_is_trusted_has_points_taken_off_and_the_score_says_so() {
    let listed = json!({ "entries": [{ "by": "ACCOUNT", "value": account().to_string() }] });
    let abroad = rule("abroad", Kind::CountryMismatch, 120, json!({}));
    let billed_abroad = Facts { billing_country: "France".to_owned(), ..facts() };
    for (points, left, decision) in [(30, 90, Decision::Review), (1_000, 0, Decision::Allow)] {
        let rules = set(vec![abroad.clone(), rule("trusted", Kind::AllowList, points, listed.clone())]);
        let score = evaluate(&rules, &billed_abroad);
        assert_eq!((score.points, score.decision), (left, decision));
        assert_eq!(score.reasons.iter().map(|reason| reason.points).collect::<Vec<_>>(), [120, -points]);
    }
}

#[test]
fn a_rule_that_is_switched_off_neither_holds_nor_counts() {
    let off = DraftRule { enabled: false, ..rule("fast", Kind::Velocity, 10, velocity("ACCOUNT", 3, 60)) };
    let rules = set(vec![off]);
    let fast = Facts { counts: counted("ACCOUNT", 3), ..facts() };
    assert_eq!(evaluate(&rules, &fast).points, 0);
    assert!(rules.counters().is_empty());
    assert_eq!(rules.longest_window_s(), 0);
}

#[test]
fn rules_that_count_the_same_share_a_counter_that_goes_as_far_as_the_widest() {
    let rules = set(vec![
        rule("some", Kind::Velocity, 10, velocity("ACCOUNT", 3, 60)),
        rule("many", Kind::Velocity, 20, velocity("ACCOUNT", 9, 60)),
        rule("long", Kind::Velocity, 20, velocity("ACCOUNT", 9, 3_600)),
        rule("failed", Kind::FailedAttempts, 20, velocity("TOKEN", 2, 60)),
    ]);
    let counters: Vec<(Counter, u32)> = rules.counters().into_iter().collect();
    let counter = |counted, by, window_s| Counter { counted, by, window_s };
    assert_eq!(
        counters,
        [
            (counter(Counted::Checkouts, By::Account, 60), 9),
            (counter(Counted::Checkouts, By::Account, 3_600), 9),
            (counter(Counted::FailedAttempts, By::Token, 60), 2),
        ]
    );
    assert_eq!(rules.longest_window_s(), 3_600);
}

#[test]
fn everything_that_is_wrong_with_a_draft_is_said_with_its_place() {
    let fine = || rule("fine", Kind::CountryMismatch, 10, json!({}));
    assert!(draft(vec![fine()]).parse().is_ok());
    let with = |rule: DraftRule| draft(vec![fine(), rule]);
    let long_list = vec![json!({ "by": "TOKEN", "value": "tok" }); 1_001];
    let entry = |by: &str, value: &str| json!({ "entries": [{ "by": by, "value": value }] });
    let amount = |amount: &str| json!({ "amount": amount, "currency": "INR", "youngerThanS": 60 });
    let many = (0..51).map(|n| rule(&n.to_string(), Kind::CountryMismatch, 1, json!({}))).collect();
    for (draft, pointer) in [
        (Draft { review_at: 0, ..draft(vec![]) }, "/reviewAt"),
        (Draft { review_at: 101, ..draft(vec![]) }, "/reviewAt"),
        (Draft { deny_at: 50_001, ..draft(vec![]) }, "/denyAt"),
        (Draft { review_deadline_s: 59, ..draft(vec![]) }, "/reviewDeadlineS"),
        (Draft { review_deadline_s: 216_001, ..draft(vec![]) }, "/reviewDeadlineS"),
        (draft(many), "/rules"),
        (with(fine()), "/rules/1/name"),
        (with(rule("", Kind::CountryMismatch, 10, json!({}))), "/rules/1/name"),
        (with(rule(&"x".repeat(61), Kind::CountryMismatch, 10, json!({}))), "/rules/1/name"),
        (with(rule("x", Kind::CountryMismatch, 0, json!({}))), "/rules/1/points"),
        (with(rule("x", Kind::CountryMismatch, 1_001, json!({}))), "/rules/1/points"),
        (with(rule("x", Kind::CountryMismatch, i64::MAX, json!({}))), "/rules/1/points"),
        (with(rule("x", Kind::CountryMismatch, 10, json!({ "limit": 1 }))), "/rules/1/parameters"),
        (with(rule("x", Kind::CountryMismatch, 10, Value::Null)), "/rules/1/parameters"),
        (with(rule("x", Kind::Velocity, 10, json!({}))), "/rules/1/parameters"),
        (with(rule("x", Kind::Velocity, 10, velocity("CITY", 1, 60))), "/rules/1/parameters"),
        (with(rule("x", Kind::Velocity, 10, velocity("ACCOUNT", 0, 60))), "/rules/1/parameters/limit"),
        (with(rule("x", Kind::Velocity, 10, velocity("ACCOUNT", 1_001, 60))), "/rules/1/parameters/limit"),
        (with(rule("x", Kind::FailedAttempts, 10, velocity("ACCOUNT", 1, 59))), "/rules/1/parameters/windowS"),
        (with(rule("x", Kind::AmountByAccountAge, 10, amount("0"))), "/rules/1/parameters/amount"),
        (with(rule("x", Kind::AmountByAccountAge, 10, amount("1.001"))), "/rules/1/parameters/amount"),
        (with(rule("x", Kind::AmountByAccountAge, 10, amount("much"))), "/rules/1/parameters"),
        (with(rule("x", Kind::BlockList, 10, json!({ "entries": long_list }))), "/rules/1/parameters/entries"),
        (with(rule("x", Kind::BlockList, 10, entry("ADDRESS", "12 Marine Drive"))), "/rules/1/parameters"),
        (with(rule("x", Kind::BlockList, 10, entry("NETWORK", "203.0.113.0/16"))), "/rules/1/parameters"),
        (with(rule("x", Kind::AllowList, 10, entry("ACCOUNT", "asha"))), "/rules/1/parameters"),
    ] {
        let problems = draft.clone().parse().expect_err(pointer);
        let pointers: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(pointers, [pointer], "{draft:?}: {problems:?}");
    }
}

#[test]
fn the_first_rules_are_valid_and_let_an_ordinary_shop_through() {
    let rules = first_rules();
    assert_eq!(rewritten(&rules).parse(), Ok(rules.clone()));
    let seen = |(counter, most): (Counter, u32)| Count { counter, most, seen: most };
    let busy: Vec<Count> = rules.counters().into_iter().map(seen).collect();
    let guest = Facts { user_id: None, account_since: None, ..facts() };
    for facts in [
        facts(),
        guest.clone(),
        Facts { billing_country: "France".to_owned(), ..facts() },
        Facts { counts: busy[..1].to_vec(), ..facts() },
        Facts { amount: "9000000".parse().expect("an amount"), ..guest },
    ] {
        assert_eq!(evaluate(&rules, &facts).decision, Decision::Allow, "{facts:?}");
    }
    // Together they do hold somebody up.
    let fast = Facts { counts: busy, ..facts() };
    assert_eq!(evaluate(&rules, &fast).decision, Decision::Review);
}

#[test]
fn what_is_stored_is_read_again_and_names_nobody() {
    let listed = json!({ "entries": [
        { "by": "EMAIL", "value": "asha@example.com" }, { "by": "TOKEN", "value": "tok_secret" },
        { "by": "NETWORK", "value": "2001:db8:1:2::3" },
    ] });
    let rules = set(vec![rule("blocked", Kind::BlockList, 10, listed)]);
    let stored = json!(rules).to_string();
    assert_eq!(serde_json::from_str::<RuleSet>(&stored).expect("read"), rules);
    assert!(!stored.contains("asha") && !stored.contains("tok_secret"), "{stored}");
    assert!(stored.contains("2001:db8:1::/48"), "{stored}");
    let known = json!(facts());
    assert_eq!(serde_json::from_value::<Facts>(known).expect("read"), facts());
}

#[test]
fn a_network_is_the_part_of_an_address_that_neighbours_share() {
    for (address, network) in [
        ("203.0.113.9", "203.0.113.0/24"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("2001:db8:1::/48", "2001:db8:1::/48"),
    ] {
        assert_eq!(address.parse::<Network>().map(|network| network.to_string()).as_deref(), Ok(network), "{address}");
    }
    for text in ["", "203.0.113", "203.0.113.0/", "203.0.113.0/48", "2001:db8::/32", "203.0.113.0/24/24"] {
        assert_eq!(text.parse::<Network>(), Err(FactsError::Network), "{text}");
    }
}

#[test]
fn an_address_is_the_same_however_it_is_spelt_out() {
    let same = Address { address_line1: "12, marine  DRIVE".to_owned(), recipient_name: "R".to_owned(), ..address() };
    assert_eq!(Digest::of_address(&same), Digest::of_address(&address()));
    let next_door = Address { address_line1: "13 Marine Drive".to_owned(), ..address() };
    assert_ne!(Digest::of_address(&next_door), Digest::of_address(&address()));
    assert_ne!(Digest::of_token("asha@example.com"), Digest::of_email("asha@example.com"));
    for text in ["", "00", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
        assert_eq!(text.parse::<Digest>(), Err(FactsError::Digest), "{text}");
    }
}

#[test]
fn what_was_counted_when_a_checkout_came_stands() {
    let rules = set(vec![rule("fast", Kind::Velocity, 10, velocity("ACCOUNT", 3, 60))]);
    let stored = Facts { counts: counted("ACCOUNT", 3), ..facts() };
    assert_eq!(Tally::default().counts(&rules, &stored), stored.counts);
    // Counted up to three, it does not tell whether there were four.
    let rules = set(vec![rule("fast", Kind::Velocity, 10, velocity("ACCOUNT", 4, 60))]);
    assert_eq!(Tally::default().counts(&rules, &stored).first().map(|count| count.seen), Some(0));
}

proptest! {
    #[test]
    fn of_checkouts_that_share_something_those_within_the_limit_get_no_points(
        limit in 1u32..6, window_s in 60u32..300, gaps in prop::collection::vec(0i64..100, 1..40)
    ) {
        let rules = set(vec![rule("fast", Kind::Velocity, 10, velocity("NETWORK", limit, window_s))]);
        let (mut tally, mut seconds, mut times) = (Tally::default(), 0, Vec::new());
        for gap in gaps {
            seconds += gap;
            let mut facts = Facts { at: at(seconds), user_id: None, ..facts() };
            facts.counts = tally.counts(&rules, &facts);
            let before = times.iter().filter(|time| **time > seconds - i64::from(window_s)).count();
            let points = if before >= limit as usize { 10 } else { 0 };
            prop_assert_eq!(evaluate(&rules, &facts).points, points);
            facts.counts.clear();
            tally.add(&facts, &[]);
            times.push(seconds);
        }
    }

    #[test]
    fn a_failed_payment_counts_from_when_it_failed(delays in prop::collection::vec(0i64..200, 1..20)) {
        let rules = set(vec![rule("failed", Kind::FailedAttempts, 10, velocity("TOKEN", 1_000, 100))]);
        let mut tally = Tally::default();
        for delay in &delays {
            tally.add(&Facts { at: at(-50), ..facts() }, &[at(*delay - 100)]);
        }
        tally.add(&Facts { at: at(-100), ..facts() }, &[at(-90)]);
        let failed = delays.iter().filter(|delay| **delay <= 100).count();
        let counts = tally.counts(&rules, &facts());
        prop_assert_eq!(counts.first().map(|count| count.seen as usize), Some(failed));
    }

    #[test]
    fn the_order_of_the_rules_changes_no_score(points in prop::collection::vec(1i64..200, 1..8), seed in any::<u64>()) {
        let drafts = |points: &[i64]| {
            let rule = |(index, points): (usize, &i64)| {
                let kind = if index % 3 == 0 { Kind::AllowList } else { Kind::BlockList };
                let listed = json!({ "entries": [{ "by": "TOKEN", "value": "tok_ok" }] });
                rule(&index.to_string(), kind, *points, listed)
            };
            points.iter().enumerate().map(rule).collect::<Vec<_>>()
        };
        let forwards = set(drafts(&points));
        let mut turned = drafts(&points);
        turned.rotate_left(usize::try_from(seed % 8).unwrap_or(0) % points.len());
        let (one, other) = (evaluate(&forwards, &facts()), evaluate(&set(turned), &facts()));
        prop_assert_eq!((one.points, one.decision), (other.points, other.decision));
        prop_assert!(one.points >= 0);
        let names = |score: &Score| score.reasons.iter().map(|reason| reason.rule.clone()).collect::<BTreeSet<_>>();
        prop_assert_eq!(names(&one), names(&other));
    }
}
