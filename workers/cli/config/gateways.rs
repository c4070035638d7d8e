//! Payment gateways, each on when its secret is set.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Config, masked};

/// `[stripe]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Stripe {
    /// `sk_live_…` or `sk_test_…`; or `rk_…`, a restricted one.
    #[serde(serialize_with = "masked")]
    pub(crate) secret_key: Option<SecretString>,
    /// `whsec_…`, of the endpoint that Stripe sends its events to; several while one is replaced by another.
    #[serde(serialize_with = "masked")]
    pub(crate) webhook_secret: Option<SecretString>,
    /// In the place of Stripe's own address: scheme, host and port.
    pub(crate) url: Option<String>,
}

/// `[razorpay]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Razorpay {
    /// `rzp_live_…` or `rzp_test_…`; shoppers' browsers see it.
    pub(crate) key_id: Option<String>,
    /// Its secret.
    #[serde(serialize_with = "masked")]
    pub(crate) key_secret: Option<SecretString>,
    /// What Razorpay signs its webhooks with; several while one is replaced by another.
    #[serde(serialize_with = "masked")]
    pub(crate) webhook_secret: Option<SecretString>,
    /// In the place of Razorpay's own address: scheme, host and port.
    pub(crate) url: Option<String>,
}

/// `[paypal]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PayPal {
    /// Of the app that is used.
    pub(crate) client_id: Option<String>,
    /// Its secret.
    #[serde(serialize_with = "masked")]
    pub(crate) client_secret: Option<SecretString>,
    /// PayPal's id of the webhook that it sends its events to; several while one is replaced by another.
    pub(crate) webhook_id: Option<String>,
    /// In the place of PayPal's own address: scheme, host and port.
    pub(crate) url: Option<String>,
}

/// Each gateway's name, and the keys that turn it on, all or none, with whether they are set.
pub(super) fn secrets_of(config: &Config) -> [(&'static str, Vec<(&'static str, bool)>); 3] {
    let Config { stripe, razorpay, paypal, .. } = config;
    [
        (
            "stripe",
            vec![
                ("stripe.secret_key", stripe.secret_key.is_some()),
                ("stripe.webhook_secret", stripe.webhook_secret.is_some()),
            ],
        ),
        (
            "razorpay",
            vec![
                ("razorpay.key_id", razorpay.key_id.is_some()),
                ("razorpay.key_secret", razorpay.key_secret.is_some()),
                ("razorpay.webhook_secret", razorpay.webhook_secret.is_some()),
            ],
        ),
        (
            "paypal",
            vec![
                ("paypal.client_id", paypal.client_id.is_some()),
                ("paypal.client_secret", paypal.client_secret.is_some()),
                ("paypal.webhook_id", paypal.webhook_id.is_some()),
            ],
        ),
    ]
}

/// The parts of a list with commas, of which none may be empty.
pub(crate) fn list(values: &str) -> Vec<String> {
    values.split(',').map(|value| value.trim().to_owned()).collect()
}

/// The same of secrets.
pub(crate) fn secrets(values: &SecretString) -> Vec<SecretString> {
    list(values.expose_secret()).into_iter().map(SecretString::from).collect()
}
