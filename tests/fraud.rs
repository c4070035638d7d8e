//! Fraud screening: counting is exact however many come at once, a review ends once, and shoppers are told nothing.

mod over_http;
mod reviews;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    fraud::{By, Decision, Digest, Draft, DraftRule, Kind, Network, RuleSet},
    ids::{OrderId, UserId},
    money::Currency,
};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;
use workflows::{
    fraud::{DryRunError, MOST_CHANGES, ScreenOrder, Screening, dry_run, screen_all},
    store::fraud::{past, rules, screenings},
};

use crate::{
    interleavings::driver::Dice,
    world::{database, until_blocked},
};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

pub fn rule(name: &str, kind: Kind, points: i64, parameters: Value) -> DraftRule {
    DraftRule { name: name.to_owned(), kind, points, parameters, enabled: true }
}

fn velocity(name: &str, by: By, limit: u32, window_s: u32) -> DraftRule {
    rule(name, Kind::Velocity, 60, json!({ "by": by, "limit": limit, "windowS": window_s }))
}

fn rule_set(version: i32, rules: Vec<DraftRule>) -> RuleSet {
    let draft = Draft { version, review_at: 50, deny_at: 100, review_deadline_s: 3_600, rules };
    draft.parse().expect("a rule set")
}

/// These rules, from now on.
pub async fn set_rules(pool: &PgPool, rules: Vec<DraftRule>) -> RuleSet {
    let mut conn = pool.acquire().await.expect("a connection");
    let replaced = rules::current(&mut conn).await.expect("the rules").rules.version;
    let rules = rule_set(replaced + 1, rules);
    let has_replaced =
        rules::replace(&mut conn, replaced, &rules, "user:test", Some("a test")).await.expect("replaced");
    assert!(has_replaced);
    rules
}

/// A checkout that has nothing in common with any other.
fn stranger() -> ScreenOrder {
    let id = OrderId::generate();
    // What is drawn within a moment begins alike; a digest of it does not.
    let somewhere = Uuid::new_v5(&Uuid::nil(), Uuid::from(id).as_bytes()).into_bytes();
    ScreenOrder {
        order_id: id,
        user_id: Some(UserId::generate()),
        email: Some(Digest::of_email(&format!("{id}@example.com"))),
        address: Some(Digest::of_token(&format!("address {id}"))),
        network: Some(Network::of(IpAddr::from(somewhere))),
        token: Some(Digest::of_token(&id.to_string())),
        billing_country: "India".to_owned(),
        shipping_country: "IN".to_owned(),
        amount: Decimal::from(1_000),
        currency: Currency::INR,
    }
}

/// The same, but for one thing that it shares with all others of this number.
fn sharing(by: By, number: usize) -> ScreenOrder {
    let mut checkout = stranger();
    share(&mut checkout, by, number);
    checkout
}

fn share(checkout: &mut ScreenOrder, by: By, number: usize) {
    let text = number.to_string();
    let small = u8::try_from(number).expect("a small number");
    match by {
        By::Account => checkout.user_id = Some(Uuid::from_u128(u128::try_from(number).expect("small")).into()),
        By::Email => checkout.email = Some(Digest::of_email(&text)),
        By::Address => checkout.address = Some(Digest::of_token(&format!("address {text}"))),
        By::Network => checkout.network = Some(Network::of(IpAddr::from([10, 0, small, 1]))),
        By::Token => checkout.token = Some(Digest::of_token(&text)),
    }
}

async fn screen(pool: &PgPool, checkouts: &[ScreenOrder], now: DateTime<Utc>) -> Vec<Screening> {
    let mut tx = pool.begin().await.expect("a transaction");
    let screened = screen_all(&mut tx, checkouts, now).await.expect("screened");
    tx.commit().await.expect("committed");
    screened
}

/// The names of the rules that held, by order.
async fn reasons(pool: &PgPool) -> BTreeMap<Uuid, BTreeSet<String>> {
    let rows: Vec<(Uuid, Value)> =
        sqlx::query_as("select order_id, reasons from order_screenings").fetch_all(pool).await.expect("the screenings");
    let names = |reasons: &Value| {
        let reasons = reasons.as_array().expect("reasons");
        reasons.iter().map(|reason| reason["rule"].as_str().expect("a name").to_owned()).collect()
    };
    rows.iter().map(|(order_id, reasons)| (*order_id, names(reasons))).collect()
}

/// Screens them all at once, in sets of these sizes in turn.
async fn at_once(pool: &PgPool, mut checkouts: Vec<ScreenOrder>, sizes: &[usize]) {
    let mut sizes = sizes.iter().copied().cycle();
    let mut screening = Vec::new();
    while !checkouts.is_empty() {
        let size = sizes.next().expect("a size").min(checkouts.len());
        let set: Vec<ScreenOrder> = checkouts.drain(..size).collect();
        let pool = pool.clone();
        screening.push(tokio::spawn(async move { screen(&pool, &set, now()).await }));
    }
    for screening in screening {
        screening.await.expect("screened");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_at_once_that_share_something_as_many_as_are_fine_get_no_points() {
    for by in By::ALL {
        for sizes in [&[1][..], &[64, 1, 7]] {
            let pool = database().await;
            set_rules(&pool, vec![velocity("fast", by, 20, 3_600)]).await;
            let shared: Vec<ScreenOrder> = (0..200).map(|_| sharing(by, 7)).collect();
            at_once(&pool, shared, sizes).await;
            let reasons = reasons(&pool).await;
            let fine = reasons.values().filter(|names| names.is_empty()).count();
            assert_eq!((fine, reasons.len()), (20, 200), "{by:?} in sets of {sizes:?}");
        }
    }
}

/// Each shares its things with others than its other things: whoever took them in an order of their own would soon
/// wait for somebody who waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_they_share_each_rule_is_exact_and_nobody_waits_in_a_circle() {
    let pool = database().await;
    let groups = [(By::Account, 5), (By::Address, 3), (By::Network, 7), (By::Token, 2), (By::Email, 11)];
    let name = |by: By| format!("fast-{}", by.as_str().to_lowercase());
    set_rules(&pool, groups.iter().map(|(by, count)| velocity(&name(*by), *by, 10 + count, 3_600)).collect()).await;
    let mut dice = Dice::new(1);
    let mut sizes = BTreeMap::<(By, usize), usize>::new();
    let mut checkouts = Vec::new();
    for _ in 0..300 {
        let mut checkout = stranger();
        for (by, count) in groups {
            let group = dice.roll(usize::try_from(count).expect("small"));
            *sizes.entry((by, group)).or_default() += 1;
            share(&mut checkout, by, group);
        }
        checkouts.push(checkout);
    }
    at_once(&pool, checkouts, &[1, 64, 3, 1, 16]).await;
    let reasons = reasons(&pool).await;
    for (by, count) in groups {
        let limit = usize::try_from(10 + count).expect("small");
        let too_many: usize =
            sizes.iter().filter(|((of, _), _)| *of == by).map(|(_, size)| size.saturating_sub(limit)).sum();
        let held = reasons.values().filter(|names| names.contains(&name(by))).count();
        assert!(too_many > 0, "{by:?}");
        assert_eq!(held, too_many, "{by:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_nothing_that_is_counted_waits_for_nobody() {
    let pool = database().await;
    let off = DraftRule { enabled: false, ..velocity("off", By::Token, 1, 3_600) };
    set_rules(&pool, vec![velocity("fast", By::Network, 1, 3_600), off]).await;
    let mut first = sharing(By::Network, 1);
    share(&mut first, By::Token, 9);
    let mut open = pool.begin().await.expect("a transaction");
    screen_all(&mut open, &[first], now()).await.expect("screened");

    let got = screen(&pool, &[sharing(By::Network, 2), sharing(By::Token, 9), stranger()], now()).await;
    assert!(got.iter().all(|got| got.decision == Decision::Allow), "{got:?}");

    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { screen(&pool, &[sharing(By::Network, 1)], now()).await }
    });
    until_blocked(&pool).await;
    assert!(!waiting.is_finished());
    open.commit().await.expect("committed");
    assert_eq!(waiting.await.expect("screened")[0].decision, Decision::Review, "it sees who came before");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_was_never_counted() {
    let pool = database().await;
    set_rules(&pool, vec![velocity("fast", By::Network, 1, 3_600)]).await;
    let mut open = pool.begin().await.expect("a transaction");
    screen_all(&mut open, &[sharing(By::Network, 1)], now()).await.expect("screened");
    open.rollback().await.expect("rolled back");
    let got = screen(&pool, &[sharing(By::Network, 1), sharing(By::Network, 1)], now()).await;
    assert_eq!([got[0].decision, got[1].decision], [Decision::Allow, Decision::Review]);
}

/// All that is written, but for what is drawn anew.
async fn books(conn: &mut PgConnection) -> Vec<Value> {
    let rows = "select to_jsonb(s) - 'place' as row from order_screenings s
                 union all select to_jsonb(k) from screening_keys k order by row";
    sqlx::query_scalar(rows).fetch_all(conn).await.expect("the rows")
}

#[tokio::test]
async fn a_set_is_screened_as_one_after_the_other() {
    let pool = database().await;
    set_rules(
        &pool,
        vec![
            velocity("fast", By::Network, 2, 600),
            velocity("faster", By::Network, 4, 600),
            velocity("often", By::Account, 3, 3_600),
            rule("failed", Kind::FailedAttempts, 10, json!({ "by": "TOKEN", "limit": 1, "windowS": 600 })),
            rule("abroad", Kind::CountryMismatch, 45, json!({})),
        ],
    )
    .await;
    let mut decided = BTreeSet::new();
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let checkouts: Vec<ScreenOrder> = (0..=dice.roll(20)).map(|_| shopper(&mut dice)).collect();
        let mut tx = pool.begin().await.expect("a transaction");
        let together = (screen_all(&mut tx, &checkouts, now()).await.expect("screened"), books(&mut tx).await);
        tx.rollback().await.expect("rolled back");
        let mut tx = pool.begin().await.expect("a transaction");
        let mut one_by_one = Vec::new();
        for checkout in &checkouts {
            let checkout = std::slice::from_ref(checkout);
            one_by_one.extend(screen_all(&mut tx, checkout, now()).await.expect("screened"));
        }
        let one_by_one = (one_by_one, books(&mut tx).await);
        tx.rollback().await.expect("rolled back");
        assert_eq!(together, one_by_one, "seed {seed}");
        decided.extend(together.0.iter().map(|got| got.decision));
    }
    assert_eq!(decided.len(), 3, "something of everything");
}

/// Somebody who shares what people share.
fn shopper(dice: &mut Dice) -> ScreenOrder {
    let mut checkout = stranger();
    for by in [By::Network, By::Account, By::Token] {
        if dice.roll(3) > 0 {
            let group = dice.roll(3);
            share(&mut checkout, by, group);
        }
    }
    if dice.roll(6) == 0 {
        checkout.user_id = None;
    }
    if dice.roll(4) == 0 {
        checkout.billing_country = "France".to_owned();
    }
    checkout
}

#[tokio::test]
async fn a_checkout_that_is_screened_again_gets_what_it_got_and_counts_once() {
    let pool = database().await;
    set_rules(&pool, vec![velocity("fast", By::Network, 2, 3_600)]).await;
    let three: Vec<ScreenOrder> = (0..3).map(|_| sharing(By::Network, 1)).collect();
    let got = screen(&pool, &three, now()).await;
    let before = books(&mut pool.acquire().await.expect("a connection")).await;
    // By other rules, later, in another order, and among others.
    set_rules(&pool, vec![velocity("fast", By::Network, 1, 60), rule("abroad", Kind::CountryMismatch, 1, json!({}))])
        .await;
    let again = [&three[2], &three[0], &three[0], &three[1]].map(Clone::clone);
    let later = screen(&pool, &again, now() + TimeDelta::seconds(30)).await;
    assert_eq!(later, [got[2], got[0], got[0], got[1]]);
    assert_eq!(books(&mut pool.acquire().await.expect("a connection")).await, before);
    // Twice in one set is once.
    let new = sharing(By::Network, 2);
    let twice = screen(&pool, &[new.clone(), new, sharing(By::Network, 2)], now()).await;
    assert_eq!(
        twice.iter().map(|got| got.decision).collect::<Vec<_>>(),
        [Decision::Allow, Decision::Allow, Decision::Review]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_apply_from_the_moment_they_are_written_whoever_keeps_a_copy() {
    let (one, other) = (database().await, database().await);
    for limit in [3, 1, 2] {
        // Two shops in one process: neither goes by the other's rules.
        for (pool, limit) in [(&one, limit), (&other, limit + 5)] {
            set_rules(pool, vec![velocity("fast", By::Network, limit, 3_600)]).await;
            let group = usize::try_from(limit).expect("small");
            let shared: Vec<ScreenOrder> = (0..10).map(|_| sharing(By::Network, group)).collect();
            let got = screen(pool, &shared, now()).await;
            let fine = got.iter().filter(|got| got.decision == Decision::Allow).count();
            assert_eq!(fine, group);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_replace_the_same_rules_one_does() {
    let pool = database().await;
    let writing: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut conn = pool.acquire().await.expect("a connection");
                rules::replace(&mut conn, 1, &rule_set(2, Vec::new()), "user:test", None).await.expect("an answer")
            })
        })
        .collect();
    let mut written = 0;
    for writing in writing {
        written += usize::from(writing.await.expect("a task"));
    }
    assert_eq!(written, 1);
    let mut conn = pool.acquire().await.expect("a connection");
    assert_eq!(rules::current(&mut conn).await.expect("the rules").rules.version, 2);
    for stale in [0, 1, 3] {
        let rules = rule_set(stale + 1, Vec::new());
        assert!(!rules::replace(&mut conn, stale, &rules, "user:test", None).await.expect("an answer"), "{stale}");
    }
}

#[tokio::test]
async fn the_rules_a_shop_begins_with_let_a_crowd_through() {
    let pool = database().await;
    let shared = |_| {
        let mut checkout = sharing(By::Network, 1);
        share(&mut checkout, By::Token, 1);
        share(&mut checkout, By::Address, 1);
        checkout.amount = Decimal::from(5_000_000);
        checkout
    };
    let crowd: Vec<ScreenOrder> = (0..64).map(shared).collect();
    for _ in 0..5 {
        let crowd: Vec<ScreenOrder> =
            crowd.iter().map(|checkout| ScreenOrder { order_id: OrderId::generate(), ..checkout.clone() }).collect();
        let got = screen(&pool, &crowd, now()).await;
        assert!(got.iter().all(|got| got.decision == Decision::Allow));
    }
}

/// Checkouts over some hours, in sets, as these rules decide them.
async fn history(pool: &PgPool, seed: u64) -> Vec<(OrderId, Decision)> {
    let (mut dice, mut at, mut decided) = (Dice::new(seed), now(), Vec::new());
    for step in 0..60 {
        let checkouts: Vec<ScreenOrder> = (0..=dice.roll(6))
            .map(|index| {
                // The same order in both shops.
                let order_id = Uuid::new_v5(&Uuid::from_u128(seed.into()), format!("{step} {index}").as_bytes());
                ScreenOrder { order_id: order_id.into(), ..shopper(&mut dice) }
            })
            .collect();
        let got = screen(pool, &checkouts, at).await;
        decided.extend(checkouts.iter().zip(got).map(|(checkout, got)| (checkout.order_id, got.decision)));
        at += TimeDelta::seconds(i64::try_from(dice.roll(400)).expect("small"));
    }
    decided
}

fn some_rules() -> Vec<DraftRule> {
    vec![
        velocity("fast", By::Network, 3, 600),
        velocity("often", By::Account, 4, 1_800),
        rule("abroad", Kind::CountryMismatch, 45, json!({})),
    ]
}

fn other_rules() -> Vec<DraftRule> {
    vec![
        velocity("fast", By::Network, 5, 1_200),
        velocity("same", By::Token, 4, 900),
        rule("abroad", Kind::CountryMismatch, 55, json!({})),
    ]
}

#[tokio::test]
async fn a_dry_run_decides_as_the_rules_did_or_would_have() {
    let (one, other) = (database().await, database().await);
    let rules = set_rules(&one, some_rules()).await;
    let others = set_rules(&other, other_rules()).await;
    let (was, would) = (history(&one, 5).await, history(&other, 5).await);
    assert_eq!(was.len(), would.len());
    let mut conn = one.acquire().await.expect("a connection");
    let (from, to) = (now(), now() + TimeDelta::days(1));
    let count = |decided: &[(OrderId, Decision)], decision| {
        u64::try_from(decided.iter().filter(|(_, of)| *of == decision).count()).expect("few")
    };

    let same = dry_run(&mut conn, &rules, from, to).await.expect("a dry run");
    assert!(same.changed.is_empty() && !same.truncated, "{same:?}");
    assert_eq!(same.orders, u64::try_from(was.len()).expect("few"));
    let counts = [Decision::Allow, Decision::Review, Decision::Deny].map(|decision| count(&was, decision));
    assert_eq!([same.allow, same.review, same.deny], counts);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

    let changed = dry_run(&mut conn, &others, from, to).await.expect("a dry run");
    let counts = [Decision::Allow, Decision::Review, Decision::Deny].map(|decision| count(&would, decision));
    assert_eq!([changed.allow, changed.review, changed.deny], counts);
    let differ: Vec<_> = was.iter().zip(&would).filter(|(was, would)| was.1 != would.1).collect();
    assert_eq!(changed.truncated, differ.len() > MOST_CHANGES);
    for (change, (was, would)) in changed.changed.iter().zip(differ) {
        // Of one set each has the same time, and its place.
        assert_eq!((change.order_id, change.was, change.now), (was.0, was.1, would.1));
    }

    // What came before is counted, and not scored.
    let half = now() + TimeDelta::hours(2);
    let late = dry_run(&mut conn, &rules, half, to).await.expect("a dry run");
    assert!(late.orders > 0 && late.orders < same.orders && late.changed.is_empty(), "{late:?}");
}

#[tokio::test]
async fn a_dry_run_lists_some_changes_and_refuses_to_look_at_everything() {
    let pool = database().await;
    set_rules(&pool, Vec::new()).await;
    for _ in 0..3 {
        let abroad = |_| ScreenOrder { billing_country: "France".to_owned(), ..stranger() };
        screen(&pool, &(0..50).map(abroad).collect::<Vec<_>>(), now()).await;
    }
    let rules = rule_set(1, vec![rule("abroad", Kind::CountryMismatch, 100, json!({}))]);
    let mut conn = pool.acquire().await.expect("a connection");
    let outcome = dry_run(&mut conn, &rules, now(), now() + TimeDelta::seconds(1)).await.expect("a dry run");
    assert_eq!(
        (outcome.orders, outcome.deny, outcome.changed.len(), outcome.truncated),
        (150, 150, MOST_CHANGES, true)
    );
    let none = dry_run(&mut conn, &rules, now() + TimeDelta::seconds(1), now() + TimeDelta::days(1)).await;
    assert_eq!(none.expect("a dry run").orders, 0, "the end is not in it");
    sqlx::query(
        "insert into order_screenings (order_id, rules_version, points, reasons, decision, review_deadline_s,
                                       billing_country, shipping_country, amount, currency, counts, screened_at)
         select gen_random_uuid(), 1, 0, '[]', 'ALLOW', 60, 'IN', 'IN', 1, 'INR', '[]', $1 from generate_series(1, 50000)",
    )
    .bind(now())
    .execute(&pool)
    .await
    .expect("many");
    let refused = dry_run(&mut conn, &rules, now(), now() + TimeDelta::seconds(1)).await;
    assert!(matches!(refused, Err(DryRunError::TooMany)), "{refused:?}");
}

#[tokio::test]
async fn what_is_kept_of_a_checkout_is_what_was_known_and_no_token_or_address() {
    let pool = database().await;
    set_rules(&pool, vec![velocity("fast", By::Email, 3, 600)]).await;
    let checkout = stranger();
    screen(&pool, std::slice::from_ref(&checkout), now()).await;
    let mut conn = pool.acquire().await.expect("a connection");
    let kept = past::read(&mut conn, now(), now() + TimeDelta::seconds(1), 10).await.expect("read").remove(0);
    let ScreenOrder { order_id, user_id, email, address, network, token, amount, .. } = checkout;
    assert_eq!(kept.order_id, order_id);
    let facts = &kept.facts;
    assert_eq!((facts.user_id, facts.email, facts.address), (user_id, email, address));
    assert_eq!((facts.network, facts.token, facts.amount), (network, token, amount));
    assert_eq!(facts.counts.len(), 1);
    assert!(facts.account_since.is_none(), "there is no such account");
    let text: String = sqlx::query_scalar("select order_screenings::text from order_screenings")
        .fetch_one(&pool)
        .await
        .expect("the row");
    assert!(!text.contains('@'), "{text}");
}

#[tokio::test]
async fn an_accounts_age_is_known_by_the_account() {
    let pool = database().await;
    let young = json!({ "amount": "1000", "currency": "INR", "youngerThanS": 3_600 });
    set_rules(&pool, vec![rule("young", Kind::AmountByAccountAge, 50, young)]).await;
    let mut checkouts = Vec::new();
    for age_s in [3_599, 3_600] {
        let checkout = stranger();
        let user = checkout.user_id.map(Uuid::from);
        sqlx::query("insert into users (id, email, password_hash, created_at) values ($1, $1::text, 'x', $2)")
            .bind(user)
            .bind(now() - TimeDelta::seconds(age_s))
            .execute(&pool)
            .await
            .expect("a user");
        checkouts.push(checkout);
    }
    let got = screen(&pool, &checkouts, now()).await;
    assert_eq!([got[0].decision, got[1].decision], [Decision::Review, Decision::Allow]);
}

#[tokio::test]
async fn keys_that_no_rule_looks_back_to_go_in_batches() {
    let pool = database().await;
    set_rules(&pool, vec![velocity("fast", By::Network, 3, 600)]).await;
    let old: Vec<ScreenOrder> = (0..5).map(|_| sharing(By::Network, 1)).collect();
    screen(&pool, &old, now() - TimeDelta::days(40)).await;
    screen(&pool, &[sharing(By::Network, 1)], now()).await;
    let mut conn = pool.acquire().await.expect("a connection");
    let before = now() - TimeDelta::days(31);
    for gone in [3, 2, 0] {
        assert_eq!(screenings::delete_old_keys(&mut conn, 3, before).await.expect("deleted"), gone);
    }
    let left: i64 = sqlx::query_scalar("select count(*) from screening_keys").fetch_one(&pool).await.expect("a count");
    assert_eq!(left, 1);
}
