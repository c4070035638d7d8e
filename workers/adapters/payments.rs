//! Payment gateways behind [`domain::ports::PaymentGateway`].

mod exchange;
mod paypal;
mod razorpay;
mod reading;
mod sandbox;
#[cfg(test)]
mod script;
mod standard_webhooks;
mod stripe;

pub use paypal::PayPalGateway;
pub use razorpay::RazorpayGateway;
pub use sandbox::SandboxGateway;
pub use stripe::StripeGateway;

/// Whether webhooks can be checked with that secret.
pub fn is_webhook_secret(secret: &str) -> bool {
    standard_webhooks::VerifyingKey::parse(&secret.into()).is_ok()
}

/// A gateway cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The address is no absolute URL.
    #[error("the gateway's address is not a URL")]
    Url(#[from] url::ParseError),
    /// The address is a URL that cannot carry paths (`mailto:` and the like).
    #[error("the gateway's address must be an http or https URL")]
    NotHttp,
    /// The address says more than where the gateway is.
    #[error("the gateway's address must have no user, password, query or fragment")]
    NotAnAddress,
    /// The webhook secret is not in the form that the gateway's scheme wants. Says nothing of its text.
    #[error("the gateway's webhook secret is malformed")]
    WebhookSecret,
    /// The id that the gateway knows a webhook by is missing, or empty.
    #[error("the gateway's webhook id is missing")]
    WebhookId,
}
