//! Payment providers as the shop never sees them: their shoppers, their fate, their books.

use std::{
    collections::HashSet,
    process::Stdio,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{ids::OrderId, payment::PaymentMethod};
use reqwest::StatusCode;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};
use uuid::Uuid;

use crate::patience::in_time;

/// Whose part is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    Sandbox,
    Stripe,
    Razorpay,
    PayPal,
}

pub const PROVIDERS: [Provider; 4] = [Provider::Sandbox, Provider::Stripe, Provider::Razorpay, Provider::PayPal];

impl Provider {
    pub fn name(self) -> &'static str {
        match self {
            Provider::Sandbox => "sandbox",
            Provider::Stripe => "stripe",
            Provider::Razorpay => "razorpay",
            Provider::PayPal => "paypal",
        }
    }

    /// A method that all of its accounts take.
    pub fn method(self) -> PaymentMethod {
        match self {
            Provider::Sandbox | Provider::Stripe | Provider::Razorpay => PaymentMethod::CreditCard,
            Provider::PayPal => PaymentMethod::Wallet,
        }
    }

    /// A token for a shopper who pays at once, or as soon as they are asked to.
    pub fn good_token(self) -> &'static str {
        match self {
            Provider::Sandbox => "tok_ok",
            Provider::Stripe => "pm_card_visa",
            Provider::Razorpay | Provider::PayPal => "none",
        }
    }

    /// The same for one whose bank asks first.
    pub fn asking_token(self) -> &'static str {
        match self {
            Provider::Sandbox => "tok_3ds",
            Provider::Stripe => "pm_card_threeDSecure2Required",
            Provider::Razorpay | Provider::PayPal => "none",
        }
    }

    /// The same for one whose money comes when it is no longer waited for.
    pub fn late_token(self) -> &'static str {
        match self {
            Provider::Sandbox => "tok_late",
            Provider::Stripe | Provider::Razorpay | Provider::PayPal => self.asking_token(),
        }
    }

    /// The same for one whose bank says no.
    pub fn bad_token(self) -> &'static str {
        match self {
            Provider::Sandbox => "tok_declined",
            Provider::Stripe => "pm_card_chargeCustomerFail",
            Provider::Razorpay | Provider::PayPal => "none",
        }
    }
}

/// What shop and provider know each other by. Nobody else's account has the same.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The public half: Razorpay's key id, PayPal's client id.
    pub key: String,
    /// The secret half.
    pub secret: String,
    /// What webhooks are signed with; PayPal's are known by an id.
    pub webhook: String,
}

impl Credentials {
    fn drawn_for(provider: Provider) -> Credentials {
        let drawn = || Uuid::new_v4().simple().to_string();
        let webhook = match provider {
            Provider::Sandbox | Provider::Stripe | Provider::Razorpay => format!("whsec_{}", BASE64.encode(drawn())),
            Provider::PayPal => drawn()[..17].to_uppercase(),
        };
        // As Razorpay's begin.
        Credentials { key: format!("rzp_test_{}", drawn()), secret: format!("sk_test_{}", drawn()), webhook }
    }
}

/// A provider's account.
pub struct Site {
    pub provider: Provider,
    pub url: String,
    pub credentials: Credentials,
    client: reqwest::Client,
    /// What the shopper has agreed to pay: nobody pays twice for one thing.
    agreed: Mutex<HashSet<String>>,
    /// What was tried in vain once.
    declined: Mutex<HashSet<String>>,
    /// The process, which ends when its standard input does.
    _process: Option<(Child, ChildStdin)>,
}

/// What a provider has of an order's money.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Holds {
    /// Captured, and not given back.
    pub net: Decimal,
    /// Set aside.
    pub held: Decimal,
    /// Payments that took money.
    pub captures: usize,
}

impl Holds {
    fn add(&mut self, captured: Decimal, refunded: Decimal, held: Decimal) {
        self.net += captured - refunded;
        self.held += held;
        self.captures += usize::from(captured > Decimal::ZERO);
    }
}

fn decimal(value: &Value) -> Decimal {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Site {
    /// A sandbox that somebody else serves, or is about to.
    pub fn of_sandbox(url: String) -> Site {
        Site::at(Provider::Sandbox, url, Credentials::drawn_for(Provider::Sandbox), None)
    }

    /// A process that speaks as this provider does. Its webhooks go nowhere until it is told where. It lies beside
    /// the test that runs: cargo builds examples for `cargo test`.
    pub async fn start(provider: Provider) -> Site {
        let credentials = Credentials::drawn_for(provider);
        let own = std::env::current_exe().expect("this test");
        let built = own.parent().and_then(|deps| deps.parent()).expect("a target folder");
        let program = built.join("examples").join(format!("fake-gateway{}", std::env::consts::EXE_SUFFIX));
        let mut process = Command::new(&program)
            .arg(provider.name())
            .args(["--key", &credentials.key, "--secret", &credentials.secret])
            .args(["--webhook-secret", &credentials.webhook])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let stdin = process.stdin.take().expect("piped");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let said = in_time("a fake that listens", lines.next_line()).await.expect("a line").expect("a line");
        let url = said.strip_prefix("listening on ").unwrap_or_else(|| panic!("it said {said:?}"));
        Site::at(provider, url.to_owned(), credentials, Some((process, stdin)))
    }

    fn at(provider: Provider, url: String, credentials: Credentials, process: Option<(Child, ChildStdin)>) -> Site {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let (client, agreed, declined) = (client.expect("a client"), Mutex::default(), Mutex::default());
        Site { provider, url, credentials, client, agreed, declined, _process: process }
    }

    /// Plays fate: see the fakes' own README.
    pub async fn fate(&self, what: &str, how: Value) -> StatusCode {
        self.played(what, how).await.0
    }

    async fn played(&self, what: &str, how: Value) -> (StatusCode, Value) {
        let played = self.client.post(format!("{}/_fake/{what}", self.url)).json(&how).send();
        let answer = in_time("fate", played).await.expect("a fake that answers");
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    /// The next calls of an operation meet this.
    pub async fn befalls(&self, operation: &str, kind: &str, times: u32) {
        let how = json!({ "operation": operation, "kind": kind, "times": times, "delayMs": 100 });
        assert!(self.fate("misfortunes", how).await.is_success());
    }

    /// What the provider shows a test, by its path.
    pub async fn get(&self, path: &str) -> Value {
        let asked = self.client.get(format!("{}{path}", self.url)).send();
        in_time("the books", asked).await.expect("an answer").json().await.expect("JSON")
    }

    /// The shopper on the provider's page; what comes of it, and where their browser goes. None if there is nothing
    /// to be done there.
    pub async fn shopper(&self, payment_id: &str, does: &str, with: Option<&str>) -> Option<Value> {
        let (status, told) = self.played("shopper", json!({ "payment": payment_id, "does": does, "with": with })).await;
        status.is_success().then_some(told)
    }

    /// The shopper agrees to pay for it, if they are asked.
    pub async fn agree(&self, payment_id: &str) {
        if !self.agreed.lock().unwrap_or_else(PoisonError::into_inner).insert(payment_id.to_owned()) {
            return;
        }
        match self.provider {
            Provider::Sandbox => {
                let pressed = self.client.post(format!("{}/pay/{payment_id}/approve", self.url)).send();
                in_time("the page", pressed).await.expect("an answer");
            }
            Provider::Stripe => drop(self.shopper(payment_id, "authenticate", None).await),
            Provider::Razorpay => drop(self.shopper(payment_id, "approve", Some("upi")).await),
            Provider::PayPal => drop(self.shopper(payment_id, "approve", Some("balance")).await),
        }
    }

    /// The shopper's bank says no; where the provider leaves them another try, they give up.
    pub async fn decline(&self, payment_id: &str) {
        if self.provider != Provider::Sandbox {
            self.shopper(payment_id, "decline", Some("card")).await;
        }
    }

    /// The same for good and once: false if it was tried before.
    pub async fn decline_once(&self, payment_id: &str) -> bool {
        let is_first = self.declined.lock().unwrap_or_else(PoisonError::into_inner).insert(payment_id.to_owned());
        if is_first && self.provider == Provider::PayPal {
            self.shopper(payment_id, "approve", Some("denied")).await;
        } else if is_first {
            self.decline(payment_id).await;
        }
        is_first
    }

    /// Something happens to a payment that the shop has not asked for.
    pub async fn turns(&self, payment_id: &str, event: Value) {
        let played = self.fate(&format!("payments/{payment_id}"), event).await;
        assert!(played.is_success(), "{payment_id}: {played}");
    }

    /// The money comes, whatever was said before. The sandbox's comes by itself.
    pub async fn capture_late(&self, payment_id: &str) {
        if self.provider != Provider::Sandbox {
            self.turns(payment_id, json!({ "event": "capture-late" })).await;
        }
    }

    /// The shopper's bank wants the money of a payment back (`open`), or has decided whether it gets it.
    pub async fn dispute(&self, payment_id: &str, outcome: &str) {
        let (what, how) = if self.provider == Provider::Sandbox {
            let status = if outcome == "open" { "OPENED".to_owned() } else { outcome.to_uppercase() };
            (format!("v1/dev/payments/{payment_id}/dispute"), json!({ "status": status }))
        } else {
            ("_fake/disputes".to_owned(), json!({ "payment": payment_id, "outcome": outcome }))
        };
        let played = self.client.post(format!("{}/{what}", self.url)).json(&how).send();
        let played = in_time("a dispute", played).await.expect("an answer");
        assert!(played.status().is_success(), "{payment_id}: {}", played.status());
    }

    /// How webhooks go from now on.
    pub async fn webhooks(&self, how: Value) {
        assert!(self.fate("webhooks", how).await.is_success());
    }

    /// Sends an event once more, so much older than it is, or not as the provider signs. Returns the shop's answer.
    pub async fn resend(&self, event: &str, age_s: u64, is_forged: bool) -> u64 {
        let how = json!({ "event": event, "ageSeconds": age_s, "isForged": is_forged });
        let (_, answer) = self.played("webhooks/resend", how).await;
        answer["status"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// What the provider has said so far: `{id, kind, tries, body}`.
    pub async fn events(&self) -> Vec<Value> {
        self.get("/_fake/events").await["events"].as_array().expect("events").clone()
    }

    /// All payments, refunds and calls. The sandbox' own are in the shop's database.
    pub async fn ledger(&self) -> Ledger {
        match self.provider {
            Provider::Sandbox => Ledger(json!({ "payments": [], "refunds": [], "calls": [] })),
            Provider::Stripe | Provider::Razorpay | Provider::PayPal => Ledger(self.get("/_fake/ledger").await),
        }
    }

    /// Razorpay has no call to let go of what is set aside: it lapses.
    pub async fn holds_lapse(&self) {
        if self.provider != Provider::Razorpay {
            return;
        }
        for payment in self.ledger().await.of("payments") {
            if payment["decimal"]["held"] != json!("0.00") {
                let id = payment["id"].as_str().expect("an id");
                self.fate(&format!("payments/{id}"), json!({ "event": "lapse" })).await;
            }
        }
    }

    /// Payments of an order: how much was captured and has not gone back, how much is set aside, and how many took
    /// money.
    pub async fn holds(&self, order_id: OrderId) -> Holds {
        if self.provider != Provider::Sandbox {
            return self.ledger().await.holds(order_id);
        }
        let mut holds = Holds::default();
        let found = self.get(&format!("/v1/payments?orderId={order_id}")).await;
        for payment in found["items"].as_array().expect("payments") {
            holds.add(decimal(&payment["capturedAmount"]), decimal(&payment["refundedAmount"]), Decimal::ZERO);
        }
        holds
    }

    /// Fails when the provider was spoken to in a way that its documents do not allow, or anything was asked to move
    /// money without a key.
    pub async fn assert_well_spoken(&self, when: &str) {
        if self.provider == Provider::Sandbox {
            return;
        }
        let breaches = self.get("/_fake/breaches").await;
        assert_eq!(breaches, json!([]), "{when}: what the documents do not allow");
        for refund in self.ledger().await.of("refunds") {
            assert!(!refund["key"].is_null(), "{when}: a refund without a key: {refund}");
        }
    }
}

/// A provider's books.
#[derive(Debug)]
pub struct Ledger(Value);

impl Ledger {
    /// All `payments`, `refunds` or `calls`.
    pub fn of(&self, kind: &str) -> &[Value] {
        self.0[kind].as_array().expect("a list")
    }

    /// What it has of an order.
    pub fn holds(&self, order_id: OrderId) -> Holds {
        let (plain, simple) = (order_id.to_string(), order_id.to_string().replace('-', ""));
        let mut holds = Holds::default();
        for payment in self.of("payments") {
            let reference = payment["reference"].as_str().unwrap_or_default();
            if reference.contains(&plain) || reference.contains(&simple) {
                let of = &payment["decimal"];
                holds.add(decimal(&of["captured"]), decimal(&of["refunded"]), decimal(&of["held"]));
            }
        }
        holds
    }

    /// A sum of all that was paid in this currency: `captured`, `refunded`, `held` or `net`.
    pub fn sum(&self, currency: &str, what: &str) -> Decimal {
        decimal(&self.0["sums"][currency][what])
    }
}
