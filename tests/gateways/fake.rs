//! A gateway's account in a process of its own, its shopper, and its books.

use std::{
    collections::HashSet,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use adapters::payments::{PayPalGateway, RazorpayGateway, SandboxGateway, StripeGateway};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use chrono::Utc;
use domain::{
    ids::OrderId,
    payment::PaymentMethod,
    ports::{PaymentGateway, Webhook},
};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, ChildStdin, Command},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use workflows::checkout::webhook;

use crate::patience::in_time;

const WEBHOOK_SECRET: &str = "whsec_ZGV2LXNlY3JldA==";

/// PayPal's webhooks are known by an id.
const WEBHOOK_ID: &str = "8PT597110X687430L";

/// Whose part is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// What both sides know of its webhooks.
    fn webhook_secret(self) -> &'static str {
        match self {
            Provider::Sandbox | Provider::Stripe | Provider::Razorpay => WEBHOOK_SECRET,
            Provider::PayPal => WEBHOOK_ID,
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

    /// The same for one whose bank says no.
    pub fn bad_token(self) -> &'static str {
        match self {
            Provider::Sandbox => "tok_declined",
            Provider::Stripe => "pm_card_chargeCustomerFail",
            Provider::Razorpay | Provider::PayPal => "none",
        }
    }
}

/// An account with a provider, as the shop's adapter and a test see it.
pub struct Account {
    pub provider: Provider,
    pub gateway: Arc<dyn PaymentGateway>,
    url: String,
    client: reqwest::Client,
    stop: CancellationToken,
    /// What the shopper has agreed to pay: nobody pays twice for one thing.
    agreed: Mutex<HashSet<String>>,
    /// The process, which ends when its standard input does.
    _process: Option<(Child, ChildStdin)>,
    _parts: JoinSet<()>,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Account {
    /// With this provider; its webhooks, if it sends any, come to the shop behind `pool`.
    pub async fn open(provider: Provider, pool: &PgPool, sends: bool) -> Account {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.expect("a client");
        let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let webhooks = sends.then(|| format!("http://{}", listener.local_addr().expect("an address")));
        let (url, process) = match provider {
            Provider::Sandbox => (serve_sandbox(pool, webhooks, &stop, &mut parts).await, None),
            Provider::Stripe | Provider::Razorpay | Provider::PayPal => {
                let (url, process) = start(provider, webhooks).await;
                (url, Some(process))
            }
        };
        let gateway = adapter(provider, &url, client.clone());
        let hears = Router::new().fallback(post(hear)).with_state((Arc::clone(&gateway), pool.clone()));
        parts.spawn(async move { axum::serve(listener, hears).await.expect("served") });
        Account { provider, gateway, url, client, stop, agreed: Mutex::default(), _process: process, _parts: parts }
    }

    /// Plays fate: see the fakes' own README.
    pub async fn fate(&self, what: &str, how: Value) -> StatusCode {
        let played = self.client.post(format!("{}/_fake/{what}", self.url)).json(&how).send();
        in_time("fate", played).await.expect("a fake that answers").status()
    }

    /// The next calls of an operation meet this.
    pub async fn befalls(&self, operation: &str, kind: &str, times: u32) {
        let how = json!({ "operation": operation, "kind": kind, "times": times, "delayMs": 100 });
        assert!(self.fate("misfortunes", how).await.is_success());
    }

    async fn get(&self, path: &str) -> Value {
        let asked = self.client.get(format!("{}{path}", self.url)).send();
        in_time("the books", asked).await.expect("an answer").json().await.expect("JSON")
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
            Provider::Stripe => {
                self.fate("shopper", json!({ "payment": payment_id, "does": "authenticate" })).await;
            }
            Provider::Razorpay => {
                self.fate("shopper", json!({ "payment": payment_id, "does": "approve", "with": "upi" })).await;
            }
            Provider::PayPal => {
                self.fate("shopper", json!({ "payment": payment_id, "does": "approve", "with": "balance" })).await;
            }
        }
    }

    /// Razorpay has no call to let go of what is set aside: it lapses.
    pub async fn holds_lapse(&self) {
        if self.provider != Provider::Razorpay {
            return;
        }
        let ledger = self.get("/_fake/ledger").await;
        for payment in ledger["payments"].as_array().expect("payments") {
            if payment["decimal"]["held"] != json!("0.00") {
                let id = payment["id"].as_str().expect("an id");
                self.fate(&format!("payments/{id}"), json!({ "event": "lapse" })).await;
            }
        }
    }

    /// Payments of an order: how much was captured and has not gone back, how much is set aside, and how many took
    /// money.
    pub async fn holds(&self, order_id: OrderId) -> Holds {
        let decimal = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        let mut holds = Holds::default();
        if self.provider == Provider::Sandbox {
            let found = self.get(&format!("/v1/payments?orderId={order_id}")).await;
            for payment in found["items"].as_array().expect("payments") {
                holds.add(decimal(&payment["capturedAmount"]), decimal(&payment["refundedAmount"]), Decimal::ZERO);
            }
            return holds;
        }
        let ledger = self.get("/_fake/ledger").await;
        let (plain, simple) = (order_id.to_string(), order_id.to_string().replace('-', ""));
        for payment in ledger["payments"].as_array().expect("payments") {
            let reference = payment["reference"].as_str().unwrap_or_default();
            if reference.contains(&plain) || reference.contains(&simple) {
                let of = &payment["decimal"];
                holds.add(decimal(&of["captured"]), decimal(&of["refunded"]), decimal(&of["held"]));
            }
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
        let ledger = self.get("/_fake/ledger").await;
        for refund in ledger["refunds"].as_array().expect("refunds") {
            assert!(!refund["key"].is_null(), "{when}: a refund without a key: {refund}");
        }
    }
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

fn adapter(provider: Provider, url: &str, client: reqwest::Client) -> Arc<dyn PaymentGateway> {
    let secrets = || vec![WEBHOOK_SECRET.into()];
    match provider {
        Provider::Sandbox => Arc::new(SandboxGateway::new(url, &WEBHOOK_SECRET.into(), client).expect("an adapter")),
        Provider::Stripe => {
            Arc::new(StripeGateway::new(url, "sk_test_fake".into(), secrets(), client).expect("an adapter"))
        }
        Provider::Razorpay => Arc::new(
            RazorpayGateway::new(url, "fake_key".to_owned(), "sk_test_fake".into(), secrets(), client)
                .expect("an adapter"),
        ),
        Provider::PayPal => {
            let webhook_ids = vec![WEBHOOK_ID.to_owned()];
            let adapter = PayPalGateway::new(url, "fake_key".to_owned(), "sk_test_fake".into(), webhook_ids, client);
            Arc::new(adapter.expect("an adapter"))
        }
    }
}

async fn serve_sandbox(
    pool: &PgPool,
    webhook_url: Option<String>,
    stop: &CancellationToken,
    parts: &mut JoinSet<()>,
) -> String {
    sandbox::setup(pool).await.expect("the sandbox's schema");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let config = sandbox::Config { webhook_url, webhook_secret: WEBHOOK_SECRET.to_owned(), public_url: url.clone() };
    let (pool, stopped) = (pool.clone(), stop.clone().cancelled_owned());
    parts.spawn(async move { sandbox::serve(listener, pool, config, stopped).await.expect("served") });
    url
}

/// The fake lies beside the test that runs: cargo builds examples for `cargo test`.
async fn start(provider: Provider, webhook_url: Option<String>) -> (String, (Child, ChildStdin)) {
    let own = std::env::current_exe().expect("this test");
    let built = own.parent().and_then(|deps| deps.parent()).expect("a target folder");
    let program = built.join("examples").join(format!("fake-gateway{}", std::env::consts::EXE_SUFFIX));
    let mut process = Command::new(&program)
        .args([provider.name(), "--webhook-secret", provider.webhook_secret()])
        .args(webhook_url.into_iter().flat_map(|url| ["--webhook-url".to_owned(), url]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let stdin = process.stdin.take().expect("piped");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let said = in_time("a fake that listens", lines.next_line()).await.expect("a line").expect("a line");
    let url = said.strip_prefix("listening on ").unwrap_or_else(|| panic!("it said {said:?}"));
    (url.to_owned(), (process, stdin))
}

/// As the API takes a webhook.
async fn hear(
    State((gateway, pool)): State<(Arc<dyn PaymentGateway>, PgPool)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let headers: Vec<(String, String)> = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let event = match gateway.verify_webhook(&headers, &body, Utc::now()).await {
        Ok(Webhook::Event(event)) => event,
        Ok(Webhook::Unreadable { event_id, why }) => panic!("{event_id} of {}: {why}", gateway.name()),
        Err(error) => {
            eprintln!("a webhook of {} is not believed: {error}", gateway.name());
            return StatusCode::BAD_REQUEST;
        }
    };
    let kept = async {
        let mut tx = pool.begin().await?;
        webhook::keep(&mut tx, gateway.name(), &event, &json!({})).await?;
        tx.commit().await
    };
    match kept.await {
        Ok(()) => StatusCode::OK,
        // The test is over.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
