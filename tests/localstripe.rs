//! Stripe's adapter before a server that nobody here has written, so that our fakes are not its only judges.
//!
//! localstripe (<https://github.com/adrienverge/localstripe>, 1.15.10) plays a Stripe of years ago, in memory and in
//! `/tmp/localstripe.pickle`. What it does not understand is not held against us: of a new payment it refuses
//! `return_url`, `description` and `receipt_email`, of a cancelled one `cancellation_reason`, of a list `created[…]`;
//! its errors have no codes; it keeps no idempotency keys, and says nothing of `amount_received`. So payments are made
//! and confirmed by hand here, the adapter looks at one before it is paid, and sends money back, whose form, metadata
//! and lists are judged.

use std::process::Stdio;

use adapters::payments::StripeGateway;
use chrono::Utc;
use domain::{
    ids::OrderId,
    money::Money,
    ports::{GatewayError, GatewayPaymentStatus, GatewayRefundStatus, Lookup, PaymentGateway as _, RefundOrder},
};
use rust_decimal::Decimal;
use serde_json::Value;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::patience::{eventually, in_time, not_run};

const SECRET_KEY: &str = "sk_test_localstripe";

/// It ends with the test.
struct LocalStripe {
    url: String,
    client: reqwest::Client,
    _process: Child,
}

impl LocalStripe {
    /// None, told loudly, where it is not installed.
    async fn start(test: &str) -> Option<LocalStripe> {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port().to_string();
        drop(listener);
        let started = Command::new("localstripe")
            .args(["--from-scratch", "--port", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                not_run(test, format!("localstripe is not installed (pip install localstripe==1.15.10): {error}"));
                return None;
            }
        };
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let server = LocalStripe { url: format!("http://127.0.0.1:{port}"), client, _process: process };
        eventually("localstripe answers", async || server.client.get(&server.url).send().await.is_ok()).await;
        Some(server)
    }

    fn gateway(&self) -> StripeGateway {
        let webhooks = vec!["whsec_none".into()];
        StripeGateway::new(&self.url, SECRET_KEY.into(), webhooks, self.client.clone()).expect("an adapter")
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let request = self.client.post(format!("{}/v1/{path}", self.url)).bearer_auth(SECRET_KEY).form(form);
        let answer = in_time(path, request.send()).await.expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// A payment of ten dollars that waits for a confirmation.
    async fn payment(&self, order_id: OrderId) -> String {
        let card = [
            ("type", "card"),
            ("card[number]", "4242424242424242"),
            ("card[exp_month]", "12"),
            ("card[exp_year]", "2040"),
            ("card[cvc]", "123"),
        ];
        let card = self.post("payment_methods", &card).await;
        let order = order_id.to_string();
        let payment = [
            ("amount", "1000"),
            ("currency", "usd"),
            ("payment_method", card["id"].as_str().expect("an id")),
            ("metadata[order_id]", &order),
        ];
        self.post("payment_intents", &payment).await["id"].as_str().expect("an id").to_owned()
    }
}

fn dollars(minor: i64) -> Money {
    Money::new(Decimal::new(minor, 2), "USD".parse().expect("a currency")).expect("an amount")
}

#[tokio::test]
async fn a_server_of_others_finds_a_payment_and_gives_a_part_of_it_back() {
    let test = "a_server_of_others_finds_a_payment_and_gives_a_part_of_it_back";
    let Some(server) = LocalStripe::start(test).await else { return };
    let (gateway, order_id) = (server.gateway(), OrderId::generate());
    let payment = server.payment(order_id).await;
    let lookup = |order_id| Lookup { order_id, known: vec![payment.clone()], lost: false, since: Utc::now() };

    let found = gateway.find(&lookup(order_id)).await.expect("payments");
    let [found] = &*found else { panic!("one payment: {found:?}") };
    assert_eq!((&found.gateway_payment_id, &found.amount), (&payment, &dollars(1_000)));
    assert_eq!(found.status, GatewayPaymentStatus::Pending);
    let another = gateway.find(&lookup(OrderId::generate())).await;
    assert!(matches!(another, Err(GatewayError::Unknown(_))), "it is another order's: {another:?}");

    server.post(&format!("payment_intents/{payment}/confirm"), &[]).await;
    let refund = |minor| RefundOrder {
        refund_id: Uuid::now_v7(),
        order_id,
        gateway_payment_id: payment.clone(),
        amount: dollars(minor),
    };
    let (part, never_sent) = (refund(299), refund(1));
    assert_eq!(gateway.find_refund(&part).await, Ok(None));
    let sent = gateway.refund(Uuid::now_v7(), &part).await.expect("sent");
    assert_eq!((&sent.amount, sent.status), (&dollars(299), GatewayRefundStatus::Succeeded));
    assert_eq!(gateway.find_refund(&part).await, Ok(Some(sent)));
    assert_eq!(gateway.find_refund(&never_sent).await, Ok(None));
}
