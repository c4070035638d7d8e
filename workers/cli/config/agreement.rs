//! What settings must be to each other, when each of them is in its own range.

use domain::money::Money;
use rust_decimal::Decimal;
use workflows::Shop;

use super::{Config, gateways};

/// Every disagreement, in one line each. `origin` says where a key's value comes from.
pub(super) fn problems(config: &Config, origin: impl Fn(&str) -> String) -> Vec<String> {
    let Config { worker, shop, .. } = config;
    let mut problems = Vec::new();
    let mut complain = |agrees: bool, key: &str, value: &dyn std::fmt::Display, must: String| {
        if !agrees {
            problems.push(format!("{key} = {value} ({}): must be {must}", origin(key)));
        }
    };
    let named = |key: &str, value: &dyn std::fmt::Display| format!("{key}, {value} ({})", origin(key));
    complain(
        shop.payment_window_s < shop.hold_s,
        "shop.payment_window_s",
        &shop.payment_window_s,
        format!("less than {}, so that a payment in time still finds its stock", named("shop.hold_s", &shop.hold_s)),
    );
    complain(
        worker.beat_ms.saturating_mul(3) <= worker.lease_ms,
        "worker.beat_ms",
        &worker.beat_ms,
        format!(
            "at most a third of {}, so that two lost beats bury nobody",
            named("worker.lease_ms", &worker.lease_ms)
        ),
    );
    complain(
        worker.watchdog_ms >= worker.lease_ms.saturating_add(worker.beat_ms),
        "worker.watchdog_ms",
        &worker.watchdog_ms,
        format!(
            "at least {} and worker.beat_ms together: a beat that hangs takes a lease, and the next must have its time",
            named("worker.lease_ms", &worker.lease_ms)
        ),
    );
    for (gateway, keys) in gateways::secrets_of(config) {
        let is_on = keys.iter().any(|(_, is_set)| *is_set);
        for (key, is_set) in keys {
            complain(is_set || !is_on, key, &"unset", format!("set: {gateway} needs all of its secrets, or none"));
        }
        complain(
            is_on || shop.default_gateway != gateway,
            "shop.default_gateway",
            &shop.default_gateway,
            "a gateway whose secrets are set, or sandbox".to_owned(),
        );
    }
    let urls = [
        ("stripe.url", &config.stripe.url),
        ("razorpay.url", &config.razorpay.url),
        ("paypal.url", &config.paypal.url),
    ];
    for (key, url) in urls.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?))) {
        let is_safe = url.starts_with("https://") || crate::outside::is_loopback(url);
        complain(is_safe, key, url, "https, unless it is this machine: secrets travel there".to_owned());
    }
    let registry = workflows::registry(&Shop::new(shop.clone(), Vec::new(), None));
    for queue in worker.queues.iter().filter(|queue| !registry.queues().contains(&queue.as_str())) {
        complain(false, "worker.queues", queue, format!("some of {}", registry.queues().join(", ")));
    }
    let kept = &shop.retention;
    complain(
        kept.finished_runs_days <= kept.run_keys_days,
        "shop.retention.run_keys_days",
        &kept.run_keys_days,
        format!("at least {}", named("shop.retention.finished_runs_days", &kept.finished_runs_days)),
    );
    let currency = shop.pricing.currency;
    let mut amount = |key: &str, amount: Option<Decimal>| {
        let Some(amount) = amount else { return };
        let must = format!(
            "an amount with at most {} decimals, as {} has",
            currency.exponent(),
            named("shop.pricing.currency", &currency)
        );
        complain(Money::new(amount, currency).is_ok(), key, &amount, must);
    };
    amount("shop.pricing.shipping.standard", Some(shop.pricing.shipping.standard));
    amount("shop.pricing.shipping.express", Some(shop.pricing.shipping.express));
    amount("shop.pricing.free_shipping_above", shop.pricing.free_shipping_above);
    amount("shop.pricing.minimum_order_value", shop.pricing.minimum_order_value);
    amount("shop.cod_limit", shop.cod_limit);
    problems
}
