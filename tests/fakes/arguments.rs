//! The command line.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

/// Whose part is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provider {
    /// Stripe.
    Stripe,
    /// Razorpay.
    Razorpay,
    /// PayPal.
    Paypal,
}

/// Plays a payment gateway until standard input ends.
#[derive(Debug, Clone, Parser)]
#[command(name = "fake-gateway")]
pub struct Arguments {
    /// Whose part is played.
    pub provider: Provider,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where webhooks go; without it none are sent until one is set.
    #[arg(long)]
    pub webhook_url: Option<String>,
    /// What webhooks are signed with. Of PayPal it is the webhook's id.
    #[arg(long, default_value = "whsec_fake")]
    pub webhook_secret: String,
    /// The public half of the credentials: Razorpay's key id, PayPal's client id.
    #[arg(long, default_value = "fake_key")]
    pub key: String,
    /// The secret half: Stripe's secret key, Razorpay's key secret, PayPal's client secret.
    #[arg(long, default_value = "sk_test_fake")]
    pub secret: String,
}
