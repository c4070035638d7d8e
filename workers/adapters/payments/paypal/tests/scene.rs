//! A server with a script: it gives its answers in order, whatever is asked, and keeps the requests. Logins are
//! granted beside the script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use domain::ids::OrderId;
use domain::money::Money;
use domain::payment::PaymentMethod;
use domain::ports::{Capture, Lookup, PaymentRequest, Proceeding, RefundOrder};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::super::PayPalGateway;
use crate::payments::ConfigError;
pub(super) use crate::payments::script::Request;
use crate::payments::script::{CLIENT, receive, respond};

/// What the server does when it is asked.
pub(super) enum Reply {
    Say {
        status: u16,
        headers: &'static str,
        body: String,
    },
    /// It takes the request, and hangs up.
    HangUp,
    /// It takes the request, and never says anything.
    Silence,
}

pub(super) fn say(status: u16, body: &Value) -> Reply {
    Reply::Say { status, headers: "", body: body.to_string() }
}

pub(super) fn refuse(status: u16, issue: &str) -> Reply {
    let name = if status == 404 { "RESOURCE_NOT_FOUND" } else { "UNPROCESSABLE_ENTITY" };
    say(status, &json!({ "name": name, "message": "No.", "debug_id": "d1", "details": [{ "issue": issue }] }))
}

#[derive(Default)]
struct Stage {
    script: VecDeque<Reply>,
    /// What logins get before they are granted.
    logins: VecDeque<Reply>,
    requests: Vec<Request>,
    tokens: usize,
}

pub(super) struct Scene {
    stage: Arc<Mutex<Stage>>,
    pub(super) gateway: PayPalGateway,
}

impl Scene {
    pub(super) async fn of(script: impl IntoIterator<Item = Reply>) -> Scene {
        Scene::with(script, [], 32_400).await
    }

    /// With some refused logins first, and tokens that live so many seconds.
    pub(super) async fn with(
        script: impl IntoIterator<Item = Reply>,
        logins: impl IntoIterator<Item = Reply>,
        life_s: u64,
    ) -> Scene {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (script, logins) = (script.into_iter().collect(), logins.into_iter().collect());
        let stage = Arc::new(Mutex::new(Stage { script, logins, ..Stage::default() }));
        let behind = Arc::clone(&stage);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&behind), life_s));
            }
        });
        Scene { stage, gateway: gateway(&url) }
    }

    /// The requests but for logins, such as `GET /v2/checkout/orders/5O1`. The script must be at its end.
    pub(super) fn lines(&self) -> Vec<String> {
        let stage = self.stage.lock().expect("a stage");
        assert!(stage.script.is_empty(), "{} answers are left", stage.script.len());
        stage.requests.iter().filter(|request| !is_login(request)).map(|request| request.line.clone()).collect()
    }

    /// The requests but for logins.
    pub(super) fn requests(&self) -> Vec<Request> {
        let stage = self.stage.lock().expect("a stage");
        stage.requests.iter().filter(|request| !is_login(request)).cloned().collect()
    }

    pub(super) fn logins(&self) -> Vec<Request> {
        let stage = self.stage.lock().expect("a stage");
        stage.requests.iter().filter(|request| is_login(request)).cloned().collect()
    }
}

/// A client of whatever is there.
pub(super) fn gateway(url: &str) -> PayPalGateway {
    try_gateway(url).expect("a gateway")
}

pub(super) fn try_gateway(url: &str) -> Result<PayPalGateway, ConfigError> {
    let webhook_ids = ["1JE4291016473214C", "8PT597110X687430L"].map(str::to_owned).to_vec();
    PayPalGateway::new(url, "our-id".to_owned(), SecretString::from("our-secret"), webhook_ids, CLIENT.clone())
}

pub(super) fn key_of(request: &Request) -> Uuid {
    let key = request.header("PayPal-Request-Id").expect("a key");
    assert!(key.len() <= 108, "{key}");
    key.parse().expect("a UUID")
}

fn is_login(request: &Request) -> bool {
    request.line == "POST /v1/oauth2/token"
}

async fn serve(mut stream: TcpStream, stage: Arc<Mutex<Stage>>, life_s: u64) {
    let Some(request) = receive(&mut stream).await else { return };
    let reply = {
        let mut stage = stage.lock().expect("a stage");
        let is_login = is_login(&request);
        stage.requests.push(request);
        let planned = if is_login { stage.logins.pop_front() } else { stage.script.pop_front() };
        match planned {
            Some(reply) => reply,
            None if is_login => {
                stage.tokens += 1;
                let token = format!("token-{}", stage.tokens);
                say(200, &json!({ "access_token": token, "token_type": "Bearer", "expires_in": life_s }))
            }
            None => Reply::HangUp,
        }
    };
    match reply {
        Reply::Say { status, headers, body } => respond(&mut stream, status, headers, &body).await,
        Reply::HangUp => (),
        Reply::Silence => std::future::pending().await,
    }
}

pub(super) const KEY: Uuid = Uuid::from_u128(7);
pub(super) const REFUND: Uuid = Uuid::from_u128(9);
pub(super) const ORDER: &str = "01900000-0000-7000-8000-000000000001";

pub(super) fn order_id() -> OrderId {
    ORDER.parse().expect("an id")
}

pub(super) fn money(amount: &str, currency: &str) -> Money {
    Money::new(amount.parse().expect("a number"), currency.parse().expect("a currency")).expect("an amount")
}

pub(super) fn usd(value: &str) -> Value {
    json!({ "currency_code": "USD", "value": value })
}

pub(super) fn payment_request(capture: Capture) -> PaymentRequest {
    PaymentRequest {
        order_id: order_id(),
        order_number: "ORD-1001".to_owned(),
        attempt: 2,
        amount: money("590.50", "USD"),
        capture,
        method: PaymentMethod::Wallet,
        token: None,
        return_url: "https://shop.example/api/payments/return/1".to_owned(),
        email: None,
        phone: None,
    }
}

pub(super) fn lookup(known: &[&str]) -> Lookup {
    let since = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
    Lookup { order_id: order_id(), known: known.iter().map(|id| (*id).to_owned()).collect(), lost: false, since }
}

pub(super) fn proceeding(capture: Capture) -> Proceeding {
    Proceeding { order_id: order_id(), gateway_payment_id: "5O1".to_owned(), amount: money("590.50", "USD"), capture }
}

pub(super) fn refund_order() -> RefundOrder {
    RefundOrder {
        refund_id: REFUND,
        order_id: order_id(),
        gateway_payment_id: "5O1".to_owned(),
        amount: money("100.00", "USD"),
    }
}

/// An order as PayPal shows it whole.
pub(super) fn order(status: &str, intent: &str, payments: &Value) -> Value {
    let mut unit = json!({
        "reference_id": "default", "custom_id": ORDER, "invoice_id": "ORD-1001-2", "amount": usd("590.50"),
    });
    if payments.as_object().is_some_and(|payments| !payments.is_empty()) {
        unit["payments"] = payments.clone();
    }
    json!({
        "id": "5O1", "status": status, "intent": intent, "purchase_units": [unit],
        "links": [
            { "href": "https://api-m.paypal.com/v2/checkout/orders/5O1", "rel": "self", "method": "GET" },
            { "href": "https://www.paypal.com/checkoutnow?token=5O1", "rel": "payer-action", "method": "GET" },
        ],
    })
}

pub(super) fn captured(status: &str) -> Value {
    json!({ "captures": [{ "id": "3C6", "status": status, "amount": usd("590.50"), "final_capture": true }] })
}

pub(super) fn authorized(status: &str) -> Value {
    json!({ "authorizations": [{ "id": "0AW", "status": status, "amount": usd("590.50") }] })
}
