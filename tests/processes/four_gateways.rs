//! A crowd pays through all four gateways, each of which loses answers, fails, is too busy and repeats itself, and a
//! worker is killed meanwhile. In the end shop and providers have the same books to the cent, nobody has paid twice,
//! and the logs, at their most talkative, hold no secret.

mod crowd;
mod logs;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicUsize,
    time::Instant,
};

use api::AuthKeys;
use chrono::Utc;
use domain::ids::{OrderId, UserId};
use futures::future::join_all;
use rust_decimal::Decimal;
use serde_json::json;
use sqlx::AssertSqlSafe;
use uuid::Uuid;
use workflows::store::users::Role;

use self::crowd::{Bought, Crowd};
use super::{
    child::{Child, binary},
    deployment::{Deployment, JWT_SECRET},
    nightly,
    shoppers::with_full_carts,
    stage::stage,
};
use crate::{
    patience::{counted, until},
    provider::{PROVIDERS, Provider, Site},
    server::{Door, Shopper as Customer},
    world::assert_books,
};

/// All of the four take it.
const CURRENCY: &str = "USD";
/// Where the shoppers' browsers know the shop.
const FRONT_DOOR: &str = "shop.example";

/// Of a hundred calls so many meet something that can go wrong with them.
const MISFORTUNES_PERCENT: u32 = 5;

/// Of a hundred shoppers who mean to pay so many get what they want, at least.
const SOLD_PERCENT: usize = 80;

/// How each provider is known to the shop.
fn settings(sites: &[Site]) -> Vec<(&'static str, String)> {
    let mut settings =
        vec![("RUST_LOG", "debug".to_owned()), ("CART_ENGINE__SHOP__PRICING__CURRENCY", CURRENCY.to_owned())];
    for site in sites {
        let (url, own) = (site.url.clone(), site.credentials.clone());
        settings.extend(match site.provider {
            Provider::Sandbox => vec![("SANDBOX_WEBHOOK_SECRET", own.webhook)],
            Provider::Stripe => {
                vec![("STRIPE_URL", url), ("STRIPE_SECRET_KEY", own.secret), ("STRIPE_WEBHOOK_SECRET", own.webhook)]
            }
            Provider::Razorpay => vec![
                ("RAZORPAY_URL", url),
                ("RAZORPAY_KEY_ID", own.key),
                ("RAZORPAY_KEY_SECRET", own.secret),
                ("RAZORPAY_WEBHOOK_SECRET", own.webhook),
            ],
            Provider::PayPal => vec![
                ("PAYPAL_URL", url),
                ("PAYPAL_CLIENT_ID", own.key),
                ("PAYPAL_CLIENT_SECRET", own.secret),
                ("PAYPAL_WEBHOOK_ID", own.webhook),
            ],
        });
    }
    settings
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Providers of which each has misfortune, and a way of its own to tell of what happens.
async fn misfortune_begins(sites: &[Site], shop: &Deployment) {
    for (seed, site) in (1..).zip(sites.iter().filter(|site| site.provider != Provider::Sandbox)) {
        let name = site.provider.name();
        let mode = match site.provider {
            Provider::Sandbox | Provider::Stripe => "duplicate",
            Provider::Razorpay => "reorder",
            Provider::PayPal => "late",
        };
        let url = format!("{}/api/webhooks/{name}", shop.api_url);
        let webhooks = json!({ "url": url, "mode": mode, "copies": 2, "window": 2, "delayMs": 2_000 });
        assert!(site.fate("webhooks", webhooks).await.is_success());
        let dice = json!({ "percent": MISFORTUNES_PERCENT, "seed": seed, "delayMs": 300 });
        assert!(site.fate("misfortunes", dice).await.is_success());
    }
}

async fn misfortune_ends(sites: &[Site]) {
    for site in sites.iter().filter(|site| site.provider != Provider::Sandbox) {
        assert!(site.fate("misfortunes", json!({ "percent": 0 })).await.is_success());
    }
}

/// Everything is sold in another currency than the demo shop's.
async fn sell_in_dollars(shop: &Deployment) {
    for sold in [
        format!("update products set currency = '{CURRENCY}'"),
        format!("alter table carts alter column currency set default '{CURRENCY}'"),
    ] {
        sqlx::query(AssertSqlSafe(sold)).execute(&shop.pool).await.expect("sold in dollars");
    }
}

/// Somebody who sends refunds again that a gateway has refused.
async fn staff(shop: &Deployment) -> Customer {
    let clerk: Uuid = sqlx::query_scalar("select id from users where role = 'STAFF' limit 1")
        .fetch_one(&shop.pool)
        .await
        .expect("the demo shop's staff");
    let keys = AuthKeys::new(&JWT_SECRET.into()).expect("keys");
    let token = keys.issue(UserId::from(clerk), Role::Staff, Utc::now()).expect("a token");
    Customer::with_token(Door::new(shop.client.clone(), shop.api_url.clone()), String::new(), token)
}

/// The staff sends again what was refused, and Stripe's bank ends the refunds that it has under way.
async fn chores(shop: &Deployment, staff: &Customer, sites: &[Site]) -> usize {
    let refused = staff.get("/api/refunds?status=FAILED&limit=200").await.ok();
    let refused = refused["items"].as_array().expect("refunds").clone();
    for refund in &refused {
        let path = format!("/api/refunds/{}/resend", refund["refundId"].as_str().expect("an id"));
        let answer = staff.post(&path, &json!({ "reason": "The balance was topped up" })).await;
        // It has begun to wait for the decision a moment after it was refused.
        assert!([202, 409].contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
    }
    let mut done = refused.len();
    let pending: i64 = sqlx::query_scalar("select count(*) from refunds where status = 'PENDING'")
        .fetch_one(&shop.pool)
        .await
        .expect("refunds");
    if pending > 0 {
        for site in sites.iter().filter(|site| site.provider == Provider::Stripe) {
            for refund in site.ledger().await.of("refunds").iter().filter(|refund| refund["status"] == "pending") {
                let path = format!("refunds/{}", refund["id"].as_str().expect("an id"));
                assert!(site.fate(&path, json!({ "event": "succeed" })).await.is_success());
                done += 1;
            }
        }
    }
    done
}

/// Messages of the gateways that are still to be taken.
async fn untold(shop: &Deployment, sites: &[Site]) -> u64 {
    let mut untold: i64 = sqlx::query_scalar("select count(*) from sandbox.webhooks where send_at is not null")
        .fetch_one(&shop.pool)
        .await
        .expect("webhooks");
    for site in sites.iter().filter(|site| site.provider != Provider::Sandbox) {
        untold += site.get("/_fake/events").await["pending"].as_i64().expect("a count");
    }
    u64::try_from(untold).expect("a count")
}

/// Waits until every run has ended and every message is told. Where all that is left is waiting for its time, as a
/// refund does that Stripe fails again as long as it knows its key, it becomes that time.
async fn all_comes_to_rest(shop: &Deployment, sites: &[Site]) {
    let staff = staff(shop).await;
    until("everything has come to rest", async || {
        let done = chores(shop, &staff, sites).await;
        let (live, untold) = (shop.live_runs().await.expect("runs"), untold(shop, sites).await);
        if live.is_empty() && untold == 0 {
            return Ok(());
        }
        let (at_work, seconds): (i64, f64) = sqlx::query_as(
            "select count(*) filter (where status in ('RUNNING', 'STUCK')),
                    coalesce(extract(epoch from min(wake_at) - engine.now()), 0)::float8 from engine.runs",
        )
        .fetch_one(&shop.pool)
        .await
        .expect("runs");
        if done == 0 && untold == 0 && at_work == 0 && seconds > 2.0 {
            let later = json!({ "advanceSeconds": seconds.ceil() as u64 });
            staff.post("/api/dev/clock", &later).await.ok();
        }
        let waiting: Vec<(String, String, String)> = sqlx::query_as(
            "select workflow, status, coalesce(waiting_for, '') || coalesce(failure::text, '') from engine.runs limit 5",
        )
        .fetch_all(&shop.pool)
        .await
        .expect("runs");
        Err(format!("{live:?}, {untold} untold: {waiting:?}"))
    })
    .await;
}

/// What the shop has of an order's money.
#[derive(Debug, sqlx::FromRow)]
struct Entry {
    order_id: Uuid,
    order_status: String,
    total: Decimal,
    gateway: Option<String>,
    captured: Decimal,
    refunded: Decimal,
}

/// The shop's books are each provider's, order by order and in all; a confirmed order has its money, another none.
async fn assert_same_books(shop: &Deployment, sites: &[Site]) {
    let entries: Vec<Entry> = sqlx::query_as(
        "select o.id as order_id, o.order_status, o.total_amount as total, p.payment_gateway as gateway,
                coalesce(p.captured_amount, 0) as captured,
                coalesce((select sum(r.amount) from refunds r where r.payment_id = p.id and r.status = 'SUCCEEDED'), 0)
                    as refunded
           from orders o left join payments p on p.order_id = o.id",
    )
    .fetch_all(&shop.pool)
    .await
    .expect("the books");
    for entry in &entries {
        let due = if entry.order_status == "CONFIRMED" { entry.total } else { Decimal::ZERO };
        assert_eq!(entry.captured - entry.refunded, due, "{entry:?}");
    }
    for site in sites {
        let name = site.provider.name();
        let own: Vec<&Entry> = entries.iter().filter(|entry| entry.gateway.as_deref() == Some(name)).collect();
        let booked: Decimal = own.iter().map(|entry| entry.captured - entry.refunded).sum();
        assert!(booked > Decimal::ZERO, "{name} took nothing");
        if site.provider == Provider::Sandbox {
            let theirs: Decimal =
                sqlx::query_scalar("select sum(captured_amount - refunded_amount) from sandbox.payments")
                    .fetch_one(&shop.pool)
                    .await
                    .expect("the sandbox' books");
            assert_eq!(theirs, booked, "{name}");
            continue;
        }
        let ledger = site.ledger().await;
        for entry in &entries {
            let holds = ledger.holds(OrderId::from(entry.order_id));
            let is_own = entry.gateway.as_deref() == Some(name);
            let booked = if is_own { entry.captured - entry.refunded } else { Decimal::ZERO };
            assert_eq!((holds.net, holds.held), (booked, Decimal::ZERO), "{name}: {entry:?}");
            assert!(holds.captures <= 1, "{name}: charged more than once: {holds:?} {entry:?}");
            assert!(holds.captures == 1 || entry.order_status != "CONFIRMED" || !is_own, "{name}: {entry:?}");
        }
        assert_eq!(ledger.sum(CURRENCY, "net"), booked, "{name}");
        assert_eq!(ledger.sum(CURRENCY, "held"), Decimal::ZERO, "{name}");
    }
}

/// How often a run has set out to do this, each time as another call.
async fn intents(shop: &Deployment, run: Uuid, call: &str) -> usize {
    let intents: i64 =
        sqlx::query_scalar("select count(*) from engine.journal where run_id = $1 and kind = 'INTENT' and name = $2")
            .bind(run)
            .bind(call)
            .fetch_one(&shop.pool)
            .await
            .expect("intents");
    usize::try_from(intents).expect("a count")
}

/// Whatever moves money had a key where its provider knows keys, and one thing has one key, however often it was sent.
async fn assert_keys(shop: &Deployment, sites: &[Site], bought: &[Bought]) {
    let checkouts: BTreeMap<String, Uuid> =
        bought.iter().map(|bought| (bought.order_id.to_string(), bought.workflow)).collect();
    let refunds: Vec<(Uuid, Uuid)> =
        sqlx::query_as("select id, run_id from refunds").fetch_all(&shop.pool).await.expect("refunds");
    let refunds: BTreeMap<String, Uuid> = refunds.into_iter().map(|(id, run)| (id.to_string(), run)).collect();
    for site in sites.iter().filter(|site| site.provider != Provider::Sandbox) {
        let (name, ledger) = (site.provider.name(), site.ledger().await);
        let mut keys: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
        for call in ledger.of("calls").iter().filter(|call| call["method"] == "POST") {
            let text = |field: &str| call[field].as_str().unwrap_or_default().to_owned();
            let (operation, key) = (text("operation"), text("key"));
            let takes_key = match (site.provider, operation.as_str()) {
                (Provider::Stripe, _) | (Provider::PayPal, "initiate" | "capture" | "refund") => true,
                (Provider::Razorpay, operation) => operation == "refund",
                (Provider::PayPal | Provider::Sandbox, _) => false,
            };
            assert!(!takes_key || !key.is_empty(), "{name}: without a key: {call}");
            if takes_key {
                keys.entry((operation, text("path"), text("reference"))).or_default().insert(key);
            }
        }
        assert!(keys.len() > bought.len() / 50, "{name}: {} keys", keys.len());
        let mut used = BTreeSet::new();
        for ((operation, path, reference), keys) in keys {
            let at_most = match operation.as_str() {
                "initiate" => intents(shop, checkouts[&reference], "InitiatePayment").await,
                "refund" => intents(shop, refunds[&reference], "SendRefund").await,
                _ => usize::MAX,
            };
            assert!(keys.len() <= at_most, "{name}: {at_most} calls of {operation} {path} {reference}: {keys:?}");
            for key in keys {
                assert!(used.insert((path.clone(), key)), "{name}: a key of another call: {operation} {path}");
            }
        }
        // Razorpay's orders have none: their receipt is what they are known by.
        let mut references = BTreeSet::new();
        for payment in ledger.of("payments") {
            assert!(references.insert(payment["reference"].to_string()), "{name}: two of one name: {payment}");
        }
    }
}

/// What befell the calls of each provider.
async fn dealt(sites: &[Site]) -> BTreeMap<&'static str, BTreeMap<String, usize>> {
    let mut dealt = BTreeMap::new();
    for site in sites.iter().filter(|site| site.provider != Provider::Sandbox) {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        let ledger = site.ledger().await;
        for call in ledger.of("calls") {
            let kind = call["misfortune"].as_str().unwrap_or("none");
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        dealt.insert(site.provider.name(), kinds);
    }
    dealt
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_pays_through_four_gateways_in_bad_luck_and_the_books_are_the_same_and_no_log_has_a_secret() {
    let count = if nightly() { 1_000 } else { 300 };
    let stage = stage().await;
    let sandbox = Site::of_sandbox(String::new());
    let mut sites = vec![sandbox];
    sites.extend(join_all(PROVIDERS[1..].iter().map(|provider| Site::start(*provider))).await);
    let mut settings = settings(&sites);
    // Those who take the checkouts say where shoppers come back to.
    settings.push(("CART_ENGINE__SHOP__PUBLIC_URL", format!("http://{FRONT_DOOR}")));
    let mut shop = Deployment::open_with(&stage, &borrowed(&settings)).await;
    sell_in_dollars(&shop).await;
    settings.push(("SANDBOX_URL", shop.sandbox_url.clone()));
    let worker = async || shop.worker_with(&borrowed(&settings)).await.process;
    let mut workers: Vec<Child> = vec![worker().await, worker().await];
    misfortune_begins(&sites, &shop).await;

    let begun = Instant::now();
    let shoppers = with_full_carts(&shop.pool, count).await;
    let acknowledged = AtomicUsize::new(0);
    let killing = async {
        counted("half of them are at the till", &acknowledged, count / 2).await;
        workers[0].signal("KILL");
        workers[0].ended().await;
        workers.push(worker().await);
    };
    let crowd = Crowd::of(&shop, &sites);
    let (bought, ()) = tokio::join!(crowd.check_out(&shoppers, &acknowledged), killing);
    let shopping = begun.elapsed();
    misfortune_ends(&sites).await;
    all_comes_to_rest(&shop, &sites).await;
    for site in &sites {
        site.holds_lapse().await;
    }
    let rested = begun.elapsed();

    let dealt = dealt(&sites).await;
    println!("{count} shoppers: {shopping:?} at the till, at rest after {rested:?}; misfortunes: {dealt:?}");
    let sold = crowd.tell_of(&bought).await;
    println!("orders {:?}; {sold:?}", shop.orders().await);
    for kinds in dealt.values() {
        assert!(kinds.len() > 1, "nothing went wrong: {dealt:?}");
    }

    assert_books(&shop.pool, "at rest").await;
    shop.assert_sound("at rest").await;
    for site in &sites {
        site.assert_well_spoken("at rest").await;
    }
    assert_same_books(&shop, &sites).await;
    assert_keys(&shop, &sites, &bought).await;
    assert!(sold.served * 100 >= sold.meant * SOLD_PERCENT, "{sold:?}");

    let secrets = logs::secrets(&sites, &shoppers).await;
    let config = binary(&["config"], &[&borrowed(&settings)[..], &[("JWT_SECRET", JWT_SECRET)]].concat()).output();
    let config = config.await.expect("it starts");
    assert!(config.status.success(), "{config:?}");
    let mut said = vec![("config".to_owned(), String::from_utf8_lossy(&config.stdout).into_owned())];
    for (name, process) in [("api", &mut shop.api), ("sandbox", &mut shop.sandbox)] {
        said.push((name.to_owned(), logs::all_of(process).await));
    }
    for (nth, process) in workers.iter_mut().enumerate() {
        said.push((format!("worker {nth}"), logs::all_of(process).await));
    }
    for (name, said) in &said {
        logs::assert_clean(name, said, &secrets);
        println!("{name} has said {} bytes", said.len());
        if name != "config" {
            assert!(said.contains("DEBUG"), "{name} is not talkative: {} bytes", said.len());
        }
    }
    for name in ["api", "worker 1"] {
        let said = said.iter().find_map(|(own, said)| (own == name).then_some(said)).expect("it was there");
        let is_named = bought.iter().any(|bought| said.contains(&bought.order_id.to_string()));
        assert!(is_named, "{name} names no order in {} bytes", said.len());
    }
}
