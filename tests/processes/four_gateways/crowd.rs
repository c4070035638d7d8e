//! Shoppers who pay each at one of four gateways, in every way there is.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use domain::ids::OrderId;
use futures::{StreamExt, stream};
use reqwest::{Method, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::{
        deployment::Deployment,
        shoppers::{Shopper, Till},
    },
    FRONT_DOOR,
};
use crate::{
    patience::{PATIENCE, in_time},
    provider::{PROVIDERS, Provider, Site},
};

/// At the till at the same time.
const AT_ONCE: usize = 32;

/// Whoever has looked at the same page for so long leaves.
const LEAVES_AFTER: Duration = Duration::from_secs(60);

/// Between two looks of a shopper who is to do something.
const LOOK: Duration = Duration::from_millis(200);

/// What a shopper does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    Pays,
    /// When the bank or the gateway asks.
    Agrees,
    /// Declined once, paid then, where the gateway leaves another try.
    TriesTwice,
    /// Paid, and then cancelled.
    Cancels,
    IsDeclined,
    /// At the gateway's page.
    GivesUp,
}

impl Deed {
    fn of(nth: usize) -> Deed {
        match nth % 20 {
            3 | 8 | 13 | 17 => Deed::Agrees,
            5 => Deed::TriesTwice,
            2 | 9 | 16 => Deed::Cancels,
            7 | 14 => Deed::IsDeclined,
            11 | 19 => Deed::GivesUp,
            _ => Deed::Pays,
        }
    }

    fn means_to_pay(self) -> bool {
        match self {
            Deed::Pays | Deed::Agrees | Deed::TriesTwice | Deed::Cancels => true,
            Deed::IsDeclined | Deed::GivesUp => false,
        }
    }
}

impl Provider {
    /// A payment that was declined may be tried again at the gateway.
    fn leaves_another_try(self) -> bool {
        match self {
            Provider::Sandbox | Provider::Stripe => false,
            Provider::Razorpay | Provider::PayPal => true,
        }
    }
}

/// What chooses a payment's course, where the gateway has such a thing: the `nth` of those who do so.
fn token(provider: Provider, deed: Deed, nth: usize) -> Option<&'static str> {
    let tokens: &[&str] = match (provider, deed) {
        (Provider::Razorpay | Provider::PayPal, _) => return None,
        (Provider::Sandbox, Deed::Pays) => &[
            "tok_ok",
            "tok_rate_limited",
            "tok_hold",
            "tok_slow",
            "tok_duplicate_webhook",
            "tok_reordered_webhooks",
            "tok_no_webhook",
            "tok_timeout",
        ],
        (Provider::Sandbox, Deed::Agrees | Deed::TriesTwice | Deed::GivesUp) => &["tok_3ds", "tok_approve"],
        (Provider::Sandbox, Deed::Cancels) => {
            &["tok_ok", "tok_refund_pending", "tok_refund_fails_once", "tok_refund_later_fails"]
        }
        (Provider::Sandbox, Deed::IsDeclined) => &["tok_declined", "tok_wrong_amount"],
        (Provider::Stripe, Deed::Pays) => &["pm_card_visa", "pm_card_mastercard"],
        (Provider::Stripe, Deed::Agrees | Deed::TriesTwice | Deed::GivesUp) => &["pm_card_threeDSecure2Required"],
        (Provider::Stripe, Deed::Cancels) => &["pm_card_visa", "pm_card_pendingRefund"],
        (Provider::Stripe, Deed::IsDeclined) => &["pm_card_chargeCustomerFail", "pm_card_threeDSecure2Required"],
    };
    Some(tokens[nth % tokens.len()])
}

/// All tokens there are.
pub fn tokens() -> impl Iterator<Item = &'static str> {
    let deeds = [Deed::Pays, Deed::Agrees, Deed::TriesTwice, Deed::Cancels, Deed::IsDeclined, Deed::GivesUp];
    PROVIDERS.into_iter().flat_map(move |provider| {
        deeds.into_iter().flat_map(move |deed| (0..8).filter_map(move |nth| token(provider, deed, nth)))
    })
}

/// A checkout that has come to an end for its shopper.
#[derive(Debug, Clone)]
pub struct Bought {
    provider: Provider,
    deed: Deed,
    pub order_id: OrderId,
    pub workflow: Uuid,
    path: String,
    /// The shopper was asked for nothing and told nothing, and had enough of it.
    has_left: bool,
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Sold {
    /// Shoppers who meant to pay.
    pub meant: usize,
    /// Of those, whose order was confirmed.
    pub served: usize,
    /// Who lost patience.
    pub left: usize,
    /// Checkouts by provider, what the shopper did and how it ended.
    pub ends: BTreeMap<(&'static str, Deed, String), usize>,
    /// Why those who meant to pay have nothing.
    pub why: Vec<String>,
}

pub struct Crowd<'a> {
    shop: &'a Deployment,
    sites: &'a [Site],
    /// Goes where it is sent only if it wants to.
    browser: reqwest::Client,
}

/// Where a shopper is to go: the payment that the page is of, and where its form is posted.
struct Page {
    payment: String,
    url: String,
}

impl Page {
    fn of(provider: Provider, view: &Value) -> Option<Page> {
        let (action, text) = (&view["nextAction"], |value: &Value| value.as_str().map(str::to_owned));
        if provider == Provider::Razorpay {
            let parameters = &action["parameters"];
            return Some(Page { payment: text(&parameters["orderId"])?, url: text(&parameters["callbackUrl"])? });
        }
        let url = text(&action["url"])?;
        let payment = url.rsplit(['/', '=']).next()?.to_owned();
        Some(Page { payment, url })
    }
}

impl<'a> Crowd<'a> {
    pub fn of(shop: &'a Deployment, sites: &'a [Site]) -> Crowd<'a> {
        let api = shop.api_url.trim_start_matches("http://").parse().expect("an address");
        let browser = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(PATIENCE);
        let browser = browser.resolve(FRONT_DOOR, api).build();
        Crowd { shop, sites, browser: browser.expect("a browser") }
    }

    /// All of them check out, some at the same time, each to the end; `acknowledged` counts them meanwhile.
    pub async fn check_out(&self, shoppers: &[Shopper], acknowledged: &AtomicUsize) -> Vec<Bought> {
        stream::iter(shoppers.iter().enumerate().map(|(nth, shopper)| self.buy(nth, shopper, acknowledged)))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn buy(&self, nth: usize, shopper: &Shopper, acknowledged: &AtomicUsize) -> Bought {
        let site = &self.sites[nth % self.sites.len()];
        let (provider, nth) = (site.provider, nth / self.sites.len());
        let deed = Deed::of(nth);
        let till = Till::of(self.shop, shopper);
        let (method, token) = (provider.method(), token(provider, deed, nth));
        let paid = json!({ "paymentGateway": provider.name(), "paymentMethod": method, "paymentToken": token });
        let accepted = till.post(paid).await;
        acknowledged.fetch_add(1, Ordering::Relaxed);
        let id = |name: &str| accepted[name].as_str().expect("an id").parse::<Uuid>().expect("an id");
        let (order_id, workflow) = (OrderId::from(id("orderId")), id("workflowId"));
        let path = format!("/api/checkout/{workflow}");
        let mut bought = Bought { provider, deed, order_id, workflow, path, has_left: false };
        let (begun, mut visits, mut has_agreed) = (Instant::now(), 0, false);
        let end = loop {
            let query = if visits == 0 { "wait=5" } else { "wait=1&for=end" };
            let view = self.view(&till, &format!("{}?{query}", bought.path)).await;
            match view["status"].as_str().expect("a status") {
                "RUNNING" => {}
                "WAITING_PAYMENT" => match Page::of(provider, &view) {
                    Some(_) if deed == Deed::GivesUp || (deed == Deed::IsDeclined && visits > 0) => {
                        self.give_up(&till, &bought).await;
                        break view;
                    }
                    Some(page) if !has_agreed => {
                        let is_first_try = visits == 0 && deed == Deed::TriesTwice && provider.leaves_another_try();
                        let declines = deed == Deed::IsDeclined || is_first_try;
                        if self.visit(site, &page, declines, nth).await {
                            visits += 1;
                            has_agreed = !declines || site.provider == Provider::Sandbox;
                        }
                        tokio::time::sleep(LOOK).await;
                    }
                    // Nobody agrees twice.
                    Some(_) | None => tokio::time::sleep(LOOK).await,
                },
                _ => break view,
            }
            if begun.elapsed() > LEAVES_AFTER {
                bought.has_left = true;
                self.give_up(&till, &bought).await;
                break view;
            }
        };
        if deed == Deed::Cancels && end["status"] == "COMPLETED" {
            let cancel = || {
                let path = format!("/api/orders/{order_id}/cancel");
                let request =
                    till.customer.request(Method::POST, &path).header("Idempotency-Key", workflow.to_string());
                request.json(&json!({ "reason": "Found it cheaper" }))
            };
            till.insist("cancel", &[StatusCode::ACCEPTED], cancel).await;
        }
        bought
    }

    async fn view(&self, till: &Till, path: &str) -> Value {
        let show = || till.customer.request(Method::GET, path);
        till.insist("GET", &[StatusCode::OK], show).await.json().await.expect("a view")
    }

    /// It may have been paid a moment before.
    async fn give_up(&self, till: &Till, bought: &Bought) {
        let give_up = || till.customer.request(Method::DELETE, &bought.path);
        till.insist("DELETE", &[StatusCode::ACCEPTED, StatusCode::CONFLICT], give_up).await;
    }

    /// Does on the gateway's page what is to be done there, and comes back to the shop, as every other one does
    /// whose gateway leads there. False if there was nothing to be done.
    async fn visit(&self, site: &Site, page: &Page, declines: bool, nth: usize) -> bool {
        let payment = &page.payment;
        let told = match (site.provider, declines) {
            (Provider::Sandbox, _) => {
                let pressed = self.browser.post(format!("{}/approve", page.url)).send();
                return in_time("the page", pressed).await.is_ok_and(|answer| answer.status().is_success());
            }
            (Provider::Stripe, true) => site.shopper(payment, "decline", None).await,
            (Provider::Stripe, false) => site.shopper(payment, "authenticate", None).await,
            (Provider::Razorpay, true) => site.shopper(payment, "decline", Some("card")).await,
            (Provider::Razorpay, false) => site.shopper(payment, "approve", Some("upi")).await,
            // The bank says no at once, or PayPal when it comes to taking the money.
            (Provider::PayPal, true) if nth.is_multiple_of(2) => site.shopper(payment, "approve", Some("denied")).await,
            (Provider::PayPal, true) => site.shopper(payment, "decline", None).await,
            (Provider::PayPal, false) => site.shopper(payment, "approve", Some("balance")).await,
        };
        let Some(told) = told else { return false };
        if nth.is_multiple_of(2) {
            self.come_back(page, &told["returns"]).await;
        }
        true
    }

    /// With all that the gateway lets the browser bring along.
    async fn come_back(&self, page: &Page, returns: &Value) {
        let request = match returns["method"].as_str() {
            Some("GET") => self.browser.get(returns["url"].as_str().expect("a URL")),
            Some("POST") => {
                let fields = returns["form"].as_object().expect("a form");
                let fields: Vec<(&str, &str)> =
                    fields.iter().map(|(name, value)| (name.as_str(), value.as_str().expect("text"))).collect();
                self.browser.post(&page.url).form(&fields)
            }
            _ => return,
        };
        let answer = in_time("the way back", request.send()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{:?}", answer.headers());
    }

    /// How all of them ended.
    pub async fn tell_of(&self, bought: &[Bought]) -> Sold {
        let mut sold = Sold::default();
        let rows: Vec<(Uuid, String, Option<String>)> =
            sqlx::query_as("select id, status, failure::text from engine.finished_runs where workflow = 'checkout'")
                .fetch_all(&self.shop.pool)
                .await
                .expect("checkouts");
        let ends: BTreeMap<Uuid, (String, Option<String>)> =
            rows.into_iter().map(|(id, status, failure)| (id, (status, failure))).collect();
        for Bought { provider, deed, workflow, has_left, .. } in bought {
            let (status, failure) = &ends[workflow];
            let is_served = status == "COMPLETED";
            *sold.ends.entry((provider.name(), *deed, status.clone())).or_default() += 1;
            sold.left += usize::from(*has_left);
            if deed.means_to_pay() {
                sold.meant += 1;
                sold.served += usize::from(is_served);
                if !is_served {
                    sold.why.push(format!("{} {deed:?} {status} left: {has_left} {failure:?}", provider.name()));
                }
            }
        }
        sold
    }
}
