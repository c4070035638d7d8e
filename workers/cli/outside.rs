//! The shop's ways to the outside, from what is configured or what a development shop says.

use std::{sync::Arc, time::Duration};

use adapters::{
    notify::{DevMailbox, SmtpMailer},
    payments::{PayPalGateway, RazorpayGateway, SandboxGateway, StripeGateway},
    redis::Redis,
};
use domain::ports::{Mailer, PaymentGateway};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use url::{Host, Url};
use workflows::{Rules, Shop};

use crate::{
    config::{
        Config,
        gateways::{list, secrets},
    },
    dev::DevSettings,
    failure::Failure,
};

/// How long connecting to a service outside may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// The shop by its configured rules. What the configuration names wins; else what the development shop
/// behind `pool` has; else there is none of it: checkouts through that gateway are refused, and
/// messages recorded as skipped.
///
/// # Errors
/// A configured address or secret that makes no sense.
pub(crate) fn shop(config: &Config, dev: Option<&DevSettings>, pool: &PgPool) -> Result<Arc<Shop>, Failure> {
    let mut rules = config.shop.clone();
    if let Some(url) = dev.and_then(|dev| dev.public_url.clone())
        && rules.public_url == Rules::default().public_url
    {
        rules.public_url = url;
    }
    Ok(Shop::new(rules, gateways(config, dev)?, mailer(config, dev, pool)?))
}

fn gateways(config: &Config, dev: Option<&DevSettings>) -> Result<Vec<Arc<dyn PaymentGateway>>, Failure> {
    let mut gateways: Vec<Arc<dyn PaymentGateway>> = Vec::new();
    if let Some(url) = sandbox_url(config, dev) {
        let secret = webhook_secret(config, dev)?;
        gateways.push(Arc::new(SandboxGateway::new(&url, &secret, client(&url)?)?));
    }
    let Config { stripe, razorpay, paypal, .. } = config;
    if let (Some(key), Some(webhooks)) = (&stripe.secret_key, &stripe.webhook_secret) {
        let url = address(stripe.url.as_deref(), STRIPE);
        gateways.push(Arc::new(StripeGateway::new(url, key.clone(), secrets(webhooks), client(url)?)?));
    }
    if let (Some(id), Some(secret), Some(webhooks)) = (&razorpay.key_id, &razorpay.key_secret, &razorpay.webhook_secret)
    {
        let url = address(razorpay.url.as_deref(), RAZORPAY);
        let gateway = RazorpayGateway::new(url, id.clone(), secret.clone(), secrets(webhooks), client(url)?)?;
        gateways.push(Arc::new(gateway));
    }
    if let (Some(id), Some(secret), Some(webhooks)) = (&paypal.client_id, &paypal.client_secret, &paypal.webhook_id) {
        let url = address(paypal.url.as_deref(), PAYPAL);
        let gateway = PayPalGateway::new(url, id.clone(), secret.clone(), list(webhooks), client(url)?)?;
        gateways.push(Arc::new(gateway));
    }
    Ok(gateways)
}

/// Where the gateways are reached, by their own documents.
const STRIPE: &str = "https://api.stripe.com";
const RAZORPAY: &str = "https://api.razorpay.com";
const PAYPAL: &str = "https://api-m.paypal.com";

fn address<'a>(configured: Option<&'a str>, own: &'a str) -> &'a str {
    configured.map_or(own, |url| url.trim_end_matches('/'))
}

fn mailer(config: &Config, dev: Option<&DevSettings>, pool: &PgPool) -> Result<Option<Arc<dyn Mailer>>, Failure> {
    let from = &config.shop.mail_from;
    if let Some(url) = &config.mail.smtp_url {
        return Ok(Some(Arc::new(SmtpMailer::from_url(url.expose_secret(), from)?)));
    }
    if dev.is_some() {
        return Ok(Some(Arc::new(DevMailbox::new(pool.clone(), from)?)));
    }
    Ok(None)
}

/// The configured Redis, if any. One that cannot be reached now may come later.
///
/// # Errors
/// An address that makes no sense.
pub(crate) async fn redis(config: &Config) -> Result<Option<Redis>, Failure> {
    let Some(url) = &config.redis.url else { return Ok(None) };
    let redis = Redis::at(url.expose_secret()).map_err(|error| Failure::caused_by("REDIS_URL", &error))?;
    // Looked for now, so that the first requests find it.
    redis.is_up().await;
    Ok(Some(redis))
}

/// Where the sandbox gateway is reached, without a trailing slash.
pub(crate) fn sandbox_url(config: &Config, dev: Option<&DevSettings>) -> Option<String> {
    let url = config.sandbox.url.clone().or_else(|| dev?.sandbox_url.clone())?;
    Some(url.trim_end_matches('/').to_owned())
}

/// What the sandbox signs its webhooks with.
///
/// # Errors
/// None configured, outside of development.
pub(crate) fn webhook_secret(config: &Config, dev: Option<&DevSettings>) -> Result<SecretString, Failure> {
    config.sandbox.webhook_secret.clone().or_else(|| Some(dev?.webhook_secret.clone())).ok_or_else(|| {
        Failure::new("SANDBOX_WEBHOOK_SECRET is not set")
            .hint("set it to whsec_ followed by base64, the same for the sandbox and the shop")
    })
}

/// An HTTP client for the service at `url`. A proxy is for the world outside: a service on this
/// machine is spoken to directly.
///
/// # Errors
/// None is expected.
pub(crate) fn client(url: &str) -> Result<reqwest::Client, Failure> {
    // A service that has moved is for an operator to look at: a payment is not sent after it.
    let client = reqwest::Client::builder().connect_timeout(CONNECT_PATIENCE).redirect(Policy::none());
    let client = if is_loopback(url) { client.no_proxy() } else { client };
    Ok(client.build()?)
}

pub(crate) fn is_loopback(url: &str) -> bool {
    let parsed = Url::parse(url).ok();
    parsed.as_ref().and_then(Url::host).is_some_and(|host| match host {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> DevSettings {
        DevSettings {
            sandbox_url: Some("http://127.0.0.1:1/".to_owned()),
            public_url: None,
            jwt_secret: "j".into(),
            webhook_secret: "whsec_ZA==".into(),
        }
    }

    #[test]
    fn what_is_configured_wins_over_what_the_development_shop_says() {
        let mut config = Config::default();
        assert_eq!(sandbox_url(&config, None), None);
        assert_eq!(sandbox_url(&config, Some(&said())).as_deref(), Some("http://127.0.0.1:1"));
        config.sandbox.url = Some("https://sandbox.example".to_owned());
        assert_eq!(sandbox_url(&config, Some(&said())).as_deref(), Some("https://sandbox.example"));
    }

    #[test]
    fn a_sandbox_outside_development_needs_its_secret() {
        let config = Config::default();
        assert!(webhook_secret(&config, None).is_err());
        assert!(webhook_secret(&config, Some(&said())).is_ok());
    }

    #[test]
    fn a_gateway_is_on_when_its_secrets_are_set() {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let names = |config: &Config| {
            gateways(config, None).expect("gateways").iter().map(|gateway| gateway.name()).collect::<Vec<_>>()
        };
        let mut config = Config::default();
        assert!(names(&config).is_empty());
        config.stripe.secret_key = Some("sk_test_1".into());
        config.stripe.webhook_secret = Some("whsec_new, whsec_old".into());
        assert_eq!(names(&config), ["stripe"]);
        config.razorpay.key_id = Some("rzp_test_1".to_owned());
        config.razorpay.key_secret = Some("secret".into());
        config.razorpay.webhook_secret = Some("secret".into());
        config.paypal.client_id = Some("client".to_owned());
        config.paypal.client_secret = Some("secret".into());
        config.paypal.webhook_id = Some("webhook".to_owned());
        assert_eq!(names(&config), ["stripe", "razorpay", "paypal"]);
    }

    #[test]
    fn only_this_machine_is_reached_without_a_proxy() {
        for (url, direct) in [
            ("http://127.0.0.1:9", true),
            ("http://[::1]:9", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(url), direct, "{url}");
        }
    }
}
