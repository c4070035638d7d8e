//! Money to the last unit, in every kind of currency: what a gateway cannot take is refused before anything is
//! reserved.

use domain::money::Money;
use rust_decimal::Decimal;
use workflows::checkout::accept::Refusal;

use super::till::{Course, Till};
use crate::{
    misfortune::{Story as _, Way, astray, play},
    provider::{PROVIDERS, Provider},
    world::STOCK,
};

/// With two decimals, none, three, and those that gateways count in ways of their own.
const CURRENCIES: [&str; 6] = ["INR", "USD", "JPY", "KWD", "UGX", "ISK"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_captured_refunded_and_booked_is_the_same_to_the_last_unit() {
    let mut taken = Vec::new();
    for provider in PROVIDERS {
        for currency in CURRENCIES {
            let till = Till::with(provider, Course::Cancelled, currency);
            let (world, when) = (till.world().await, format!("{provider:?} in {currency}"));
            let some = Money::new(Decimal::from(999), currency.parse().expect("a currency")).expect("an amount");
            if till.account().gateway.accepts(provider.method(), &some).is_ok() {
                let begun = play(&till, &world, Way::Fused, None, &when).await;
                assert_eq!(astray(&till, &world, &begun, &when).await, 0, "{when}");
                taken.push((provider, currency));
                continue;
            }
            let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
            let refused = world.checkout_as(till.order(user, cart)).await;
            assert!(matches!(refused, Err(Refusal::PaymentUnsupported(_))), "{when}: {refused:?}");
            assert_eq!(world.stock("MOU-001").await, (STOCK, 0), "{when}: nothing is reserved");
        }
    }
    let of =
        |provider: Provider| taken.iter().filter(|(by, _)| *by == provider).map(|(_, what)| *what).collect::<Vec<_>>();
    assert_eq!(of(Provider::Sandbox), CURRENCIES);
    assert_eq!(of(Provider::Stripe), CURRENCIES);
    assert_eq!(of(Provider::PayPal), ["USD", "JPY"]);
    assert!(of(Provider::Razorpay).contains(&"INR") && of(Provider::Razorpay).contains(&"KWD"), "{taken:?}");
}
