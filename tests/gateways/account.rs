//! A provider's account together with the shop's adapter of it.

use std::sync::Arc;

use adapters::payments::{PayPalGateway, RazorpayGateway, SandboxGateway, StripeGateway};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use chrono::Utc;
use domain::ports::{PaymentGateway, Webhook};
use serde_json::json;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use workflows::checkout::webhook;

use crate::{
    patience::until,
    provider::{Provider, Site},
};

/// An account with a provider, as the shop's adapter and a test see it.
pub struct Account {
    pub gateway: Arc<dyn PaymentGateway>,
    pub site: Site,
    /// The shop's database, on which the sandbox keeps its books too.
    pool: PgPool,
    is_told: bool,
    stop: CancellationToken,
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
        let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let webhooks = sends.then(|| format!("http://{}", listener.local_addr().expect("an address")));
        let site = match provider {
            Provider::Sandbox => serve_sandbox(pool, webhooks, &stop, &mut parts).await,
            Provider::Stripe | Provider::Razorpay | Provider::PayPal => {
                let site = Site::start(provider).await;
                if let Some(url) = webhooks {
                    assert!(site.fate("webhooks", json!({ "url": url })).await.is_success());
                }
                site
            }
        };
        let gateway = adapter(&site);
        let hears = Router::new().fallback(post(hear)).with_state((Arc::clone(&gateway), pool.clone()));
        parts.spawn(async move { axum::serve(listener, hears).await.expect("served") });
        Account { gateway, site, pool: pool.clone(), is_told: sends, stop, _parts: parts }
    }

    /// Waits until the shop has heard all that the provider has to say.
    pub async fn all_told(&self) {
        if !self.is_told {
            return;
        }
        until("every webhook has arrived", async || {
            let left = match self.site.provider {
                Provider::Sandbox => {
                    let left = "select count(*) from sandbox.webhooks where send_at is not null";
                    sqlx::query_scalar(left).fetch_one(&self.pool).await.expect("the sandbox's books")
                }
                Provider::Stripe | Provider::Razorpay | Provider::PayPal => {
                    self.site.get("/_fake/events").await["pending"].as_i64().expect("a number")
                }
            };
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
    }
}

fn adapter(site: &Site) -> Arc<dyn PaymentGateway> {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
    let (url, client) = (&site.url, client.expect("a client"));
    let (key, secret) = (site.credentials.key.clone(), site.credentials.secret.as_str().into());
    let webhook = site.credentials.webhook.as_str();
    let webhooks = || vec![webhook.into()];
    match site.provider {
        Provider::Sandbox => Arc::new(SandboxGateway::new(url, &webhook.into(), client).expect("an adapter")),
        Provider::Stripe => Arc::new(StripeGateway::new(url, secret, webhooks(), client).expect("an adapter")),
        Provider::Razorpay => Arc::new(RazorpayGateway::new(url, key, secret, webhooks(), client).expect("an adapter")),
        Provider::PayPal => {
            Arc::new(PayPalGateway::new(url, key, secret, vec![webhook.to_owned()], client).expect("an adapter"))
        }
    }
}

async fn serve_sandbox(
    pool: &PgPool,
    webhook_url: Option<String>,
    stop: &CancellationToken,
    parts: &mut JoinSet<()>,
) -> Site {
    sandbox::setup(pool).await.expect("the sandbox's schema");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let site = Site::of_sandbox(url.clone());
    let config = sandbox::Config { webhook_url, webhook_secret: site.credentials.webhook.clone(), public_url: url };
    let (pool, stopped) = (pool.clone(), stop.clone().cancelled_owned());
    parts.spawn(async move { sandbox::serve(listener, pool, config, stopped).await.expect("served") });
    site
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
