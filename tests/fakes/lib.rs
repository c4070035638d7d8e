//! Stateful fakes of payment gateways, for tests that count the money: a process that speaks HTTP as the
//! provider does, written from the provider's documents and checked against them by machine.
//!
//! The core is the same for all: how a call lives (`fake`), what goes wrong by script (`misfortune`), which
//! requests and answers the documents allow (`contract`), idempotency keys (`keys`), webhooks, the books and the
//! routes by which a test plays fate (`control`). A module for each provider says what it does and in which words;
//! it implements `gateway::Gateway`. Nothing here knows the product.

mod arguments;
mod books;
mod call;
mod contract;
mod control;
mod fake;
mod gateway;
mod ids;
mod keys;
mod misfortune;
mod money;
mod paypal;
mod razorpay;
mod server;
mod signing;
mod stripe;
mod webhooks;

pub use arguments::{Arguments, Provider};

/// Serves until standard input ends, so that it never outlives whoever started it. Prints one line once it
/// listens.
///
/// # Errors
/// The address cannot be bound, or a document cannot be read.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.provider {
        Provider::Stripe => server::run::<stripe::Stripe>(arguments).await,
        Provider::Razorpay => server::run::<razorpay::Razorpay>(arguments).await,
        Provider::Paypal => server::run::<paypal::Paypal>(arguments).await,
    }
}
