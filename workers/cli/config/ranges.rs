//! What each key may be. A key that is not here does not exist, and a value outside of its range keeps every
//! command from starting: a shop never runs by a setting that it would stumble over later.

use std::{fmt, path::Path};

use adapters::notify::check_sender;
use api::tokens::LEAST_SECRET_BYTES;
use config::Value;
use domain::money::Currency;
use engine::inspect::COUNTED;
use rust_decimal::Decimal;
use url::Url;

use super::gateways;

/// A day, in seconds.
const DAY_S: u64 = 24 * 3600;
/// A year, in seconds: no plan of a shop is longer.
const YEAR_S: u64 = 365 * DAY_S;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Range {
    /// A whole number, both ends included.
    Whole(u64, u64),
    /// So many whole numbers at most, each in that range.
    Wholes(usize, u64, u64),
    /// An amount of money, not negative and below a thousand million, as prices are.
    Amount,
    /// A tax rate.
    Percent,
    /// On or off.
    Switch,
    /// One line of so many printable characters at most.
    Text(usize),
    /// So many names at most.
    Names(usize),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// ISO 4217.
    Currency,
    /// A folder.
    Folder,
    /// `host:port`.
    Address,
    /// A URL of one of these schemes, with nobody's name or password in it.
    Url(&'static [&'static str]),
    /// The same, with a password in it perhaps.
    SecretUrl(&'static [&'static str]),
    /// Scheme, host and port of a service that is reached over HTTP.
    Origin,
    /// At least so many bytes that nobody is shown.
    Secret(usize),
    /// A secret of letters, digits and underscores that begins with one of these.
    SecretKey(&'static [&'static str]),
    /// Secrets with commas between them, each of which begins with this.
    Secrets(&'static str),
    /// What an account or an app is known by: it begins with this, and has so many characters at most.
    Id(&'static str, usize),
    /// Ids of letters and digits with commas between them, each with so many characters at most.
    Ids(usize),
    /// `whsec_` and base64.
    WebhookSecret,
    /// An e-mail address, with a name before it perhaps.
    Sender,
    /// So many web origins at most.
    Origins(usize),
}

/// Over HTTP, encrypted or not.
const HTTP: Range = Range::Url(&["http", "https"]);

/// The same, with a password perhaps.
pub(super) const SECRET_HTTP: Range = Range::SecretUrl(&["http", "https"]);

/// Longest secret, or list of them, in bytes.
const MOST_SECRET_BYTES: usize = 1_024;

/// Every key there is.
#[rustfmt::skip]
pub(super) const RANGES: &[(&str, Range)] = &[
    ("database.url", Range::SecretUrl(&["postgres", "postgresql"])),
    ("database.data_dir", Range::Folder),
    ("database.bin_dir", Range::Folder),
    ("database.discovery", Range::Switch),
    ("database.offline", Range::Switch),
    ("api.listen", Range::Address),
    ("api.connections", Range::Whole(2, 1_000)),
    ("api.max_concurrency", Range::Whole(1, 100_000)),
    ("api.max_polls", Range::Whole(1, 100_000)),
    ("api.max_connections", Range::Whole(1, 1_000_000)),
    ("api.max_connections_per_address", Range::Whole(1, 1_000_000)),
    ("api.max_backlog", Range::Whole(1, COUNTED.unsigned_abs())),
    ("api.rate_limit", Range::Switch),
    ("api.allowed_origins", Range::Origins(100)),
    ("api.trusted_proxies", Range::Whole(0, 16)),
    ("auth.jwt_secret", Range::Secret(LEAST_SECRET_BYTES)),
    ("auth.jwt_secret_previous", Range::Secret(LEAST_SECRET_BYTES)),
    ("worker.concurrency", Range::Whole(1, 1_000)),
    ("worker.connections", Range::Whole(2, 1_000)),
    ("worker.queues", Range::Names(32)),
    ("worker.lease_ms", Range::Whole(100, 600_000)),
    ("worker.beat_ms", Range::Whole(10, 200_000)),
    ("worker.watchdog_ms", Range::Whole(110, 3_600_000)),
    ("worker.metrics_listen", Range::Address),
    ("stripe.secret_key", Range::SecretKey(&["sk_", "rk_"])),
    ("stripe.webhook_secret", Range::Secrets("whsec_")),
    ("stripe.url", Range::Origin),
    ("razorpay.key_id", Range::Id("rzp_", 100)),
    ("razorpay.key_secret", Range::Secret(1)),
    ("razorpay.webhook_secret", Range::Secrets("")),
    ("razorpay.url", Range::Origin),
    ("paypal.client_id", Range::Id("", 200)),
    ("paypal.client_secret", Range::Secret(1)),
    ("paypal.webhook_id", Range::Ids(50)),
    ("paypal.url", Range::Origin),
    ("sandbox.url", Range::Origin),
    ("sandbox.webhook_secret", Range::WebhookSecret),
    ("sandbox.webhook_url", HTTP),
    ("sandbox.public_url", HTTP),
    ("mail.smtp_url", Range::SecretUrl(&["smtp", "smtps"])),
    ("redis.url", Range::SecretUrl(&["redis", "redis+unix"])),
    ("shop.pricing.currency", Range::Currency),
    ("shop.pricing.seller_country", Range::Text(100)),
    ("shop.pricing.seller_state", Range::Text(100)),
    ("shop.pricing.shipping.standard", Range::Amount),
    ("shop.pricing.shipping.express", Range::Amount),
    ("shop.pricing.free_shipping_above", Range::Amount),
    ("shop.pricing.minimum_order_value", Range::Amount),
    ("shop.pricing.tax.kind", Range::OneOf(&["GST", "FLAT_RATE"])),
    ("shop.pricing.tax.rate", Range::Percent),
    ("shop.hold_s", Range::Whole(2, 7 * DAY_S)),
    ("shop.payment_window_s", Range::Whole(1, 7 * DAY_S - 1)),
    ("shop.payment_max_attempts", Range::Whole(1, 20)),
    ("shop.cancel_deadline_s", Range::Whole(0, YEAR_S)),
    ("shop.default_gateway", Range::OneOf(&["sandbox", "stripe", "razorpay", "paypal"])),
    ("shop.cod_limit", Range::Amount),
    ("shop.auto_process_after_s", Range::Whole(0, YEAR_S)),
    ("shop.return_patience_s", Range::Whole(1, YEAR_S)),
    ("shop.return_refunds_shipping", Range::Switch),
    ("shop.allow_guest_checkout", Range::Switch),
    ("shop.guest_cart_ttl_s", Range::Whole(1, YEAR_S)),
    ("shop.user_cart_ttl_s", Range::Whole(1, YEAR_S)),
    ("shop.standard_delivery_days", Range::Whole(0, 365)),
    ("shop.express_delivery_days", Range::Whole(0, 365)),
    ("shop.mail_from", Range::Sender),
    ("shop.public_url", HTTP),
    ("shop.staff_email", Range::Sender),
    ("shop.abandonment.after_s", Range::Whole(1, YEAR_S)),
    ("shop.abandonment.reminders_s", Range::Wholes(10, 1, YEAR_S)),
    ("shop.reconciliation.open_after_s", Range::Whole(1, 30 * DAY_S)),
    ("shop.reconciliation.settled_after_s", Range::Whole(1, 30 * DAY_S)),
    ("shop.retention.finished_runs_days", Range::Whole(1, 3_650)),
    ("shop.retention.run_keys_days", Range::Whole(1, 3_650)),
    ("shop.retention.webhooks_days", Range::Whole(30, 3_650)),
];

/// The range of a key; none if there is no such key.
pub(super) fn of(key: &str) -> Option<Range> {
    RANGES.iter().find(|(known, _)| *known == key).map(|(_, range)| *range)
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Whole(least, most) => write!(f, "a whole number from {least} to {most}"),
            Range::Wholes(count, least, most) => {
                write!(f, "a list of at most {count} whole numbers from {least} to {most}")
            }
            Range::Amount => f.write_str("an amount from 0 to 999999999.999"),
            Range::Percent => f.write_str("a percentage from 0 to 100"),
            Range::Switch => f.write_str("on or off"),
            Range::Text(most) => write!(f, "1 to {most} printable characters"),
            Range::Names(count) => write!(f, "a list of at most {count} names"),
            Range::OneOf(names) => write!(f, "one of {}", names.join(", ")),
            Range::Currency => f.write_str("an ISO 4217 currency, such as INR"),
            Range::Folder => f.write_str("a folder"),
            Range::Address => f.write_str("host:port, such as 127.0.0.1:8080"),
            Range::Url(schemes) => {
                write!(f, "a URL that starts with {}://, without a user or password", schemes.join(":// or "))
            }
            Range::SecretUrl(schemes) => write!(f, "a URL that starts with {}://", schemes.join(":// or ")),
            Range::Origin => f.write_str("http or https, a host and perhaps a port, as https://gateway.example:8443"),
            Range::Secret(least) => write!(f, "{least} to {MOST_SECRET_BYTES} bytes"),
            Range::SecretKey(starts) => {
                write!(f, "a secret key: {}, then letters, digits and underscores", starts.join(" or "))
            }
            Range::Secrets("") => f.write_str("a secret, or several with a comma between each two"),
            Range::Secrets(start) => {
                write!(f, "{start} and more, or several such secrets with a comma between each two")
            }
            Range::Id("", most) => write!(f, "1 to {most} letters, digits, dots, dashes and underscores"),
            Range::Id(start, most) => {
                write!(f, "{start} and more: up to {most} letters, digits, dots, dashes and underscores")
            }
            Range::Ids(most) => {
                write!(f, "an id of 1 to {most} letters and digits, or several with a comma between each two")
            }
            Range::WebhookSecret => f.write_str("whsec_ followed by base64"),
            Range::Sender => f.write_str("an e-mail address"),
            Range::Origins(count) => {
                write!(f, "a list of at most {count} origins, each like https://shop.example, or * for all")
            }
        }
    }
}

impl Range {
    /// Whether the value is in it, as it came from a file, a variable or a flag.
    pub(super) fn holds(self, value: &Value) -> bool {
        match self {
            Range::Wholes(count, least, most) => list(value).is_some_and(|items| {
                items.len() <= count && items.iter().all(|item| Range::Whole(least, most).holds_text(item))
            }),
            Range::Names(count) => list(value).is_some_and(|items| {
                items.len() <= count && items.iter().all(|item| Range::Text(100).holds_text(item))
            }),
            Range::Origins(count) => {
                list(value).is_some_and(|items| items.len() <= count && api::AllowedOrigins::new(items).is_ok())
            }
            Range::Switch => value.clone().into_bool().is_ok(),
            Range::Whole(..)
            | Range::Amount
            | Range::Percent
            | Range::Text(_)
            | Range::OneOf(_)
            | Range::Currency
            | Range::Folder
            | Range::Address
            | Range::Url(_)
            | Range::SecretUrl(_)
            | Range::Origin
            | Range::Secret(_)
            | Range::SecretKey(_)
            | Range::Secrets(_)
            | Range::Id(..)
            | Range::Ids(_)
            | Range::WebhookSecret
            | Range::Sender => value.clone().into_string().is_ok_and(|text| self.holds_text(&text)),
        }
    }

    fn holds_text(self, text: &str) -> bool {
        // U+FFFD stands for what was no Unicode.
        let is_printable = !text.trim().is_empty() && !text.chars().any(|c| c.is_control() || c == '\u{fffd}');
        is_printable
            && match self {
                Range::Whole(least, most) => text.parse().is_ok_and(|number: u64| (least..=most).contains(&number)),
                Range::Amount => text.parse().is_ok_and(|amount: Decimal| {
                    !amount.is_sign_negative() && amount < Decimal::from(1_000_000_000) && amount.scale() <= 3
                }),
                Range::Percent => text.parse().is_ok_and(|rate: Decimal| {
                    !rate.is_sign_negative() && rate <= Decimal::ONE_HUNDRED && rate.scale() <= 2
                }),
                Range::Text(most) => text.chars().count() <= most,
                Range::OneOf(names) => names.contains(&text),
                Range::Currency => text.parse::<Currency>().is_ok(),
                Range::Folder => text.len() <= 4_096 && !Path::new(text).is_file(),
                Range::Address => text.rsplit_once(':').is_some_and(|(host, port)| {
                    !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
                }),
                Range::Url(schemes) => Range::SecretUrl(schemes).holds_text(text) && !super::names_user(text),
                Range::SecretUrl(schemes) => {
                    text.len() <= 2_048 && Url::parse(text).is_ok_and(|url| schemes.contains(&url.scheme()))
                }
                Range::Origin => {
                    HTTP.holds_text(text)
                        && !text.contains(['?', '#'])
                        && Url::parse(text).is_ok_and(|url| url.path() == "/" && url.has_host())
                }
                Range::Secret(least) => (least..=MOST_SECRET_BYTES).contains(&text.len()),
                Range::SecretKey(starts) => {
                    let is_key =
                        |rest: &str| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                    text.len() <= MOST_SECRET_BYTES
                        && starts.iter().any(|start| text.strip_prefix(start).is_some_and(is_key))
                }
                Range::Secrets(start) => {
                    let is_secret = |rest: &str| !rest.is_empty();
                    text.len() <= MOST_SECRET_BYTES
                        && gateways::list(text).iter().all(|secret| secret.strip_prefix(start).is_some_and(is_secret))
                }
                Range::Id(start, most) => {
                    let is_id = |rest: &str| {
                        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                    };
                    text.len() <= most && text.strip_prefix(start).is_some_and(is_id)
                }
                Range::Ids(most) => gateways::list(text)
                    .iter()
                    .all(|id| (1..=most).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric())),
                Range::WebhookSecret => adapters::payments::is_webhook_secret(text),
                Range::Sender => text.len() <= 320 && check_sender(text).is_ok(),
                Range::Wholes(..) | Range::Names(_) | Range::Switch | Range::Origins(_) => false,
            }
    }

    /// The value as it may be shown.
    pub(super) fn shown(self, value: &Value) -> String {
        let text = match list(value) {
            Some(items) => items.join(", "),
            None => value.clone().into_string().unwrap_or_default(),
        };
        match self {
            Range::Secret(_) | Range::SecretKey(_) | Range::Secrets(_) | Range::WebhookSecret => super::MASK.to_owned(),
            Range::SecretUrl(_) => super::without_password(&text),
            Range::Url(_) | Range::Origin if text.contains(['@', '?', '#']) => super::without_secrets(&text),
            Range::Whole(..)
            | Range::Wholes(..)
            | Range::Amount
            | Range::Percent
            | Range::Switch
            | Range::Text(_)
            | Range::Names(_)
            | Range::OneOf(_)
            | Range::Currency
            | Range::Folder
            | Range::Address
            | Range::Url(_)
            | Range::Origin
            | Range::Id(..)
            | Range::Ids(_)
            | Range::Sender
            | Range::Origins(_) => text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        }
    }
}

/// The items of a list, as text.
fn list(value: &Value) -> Option<Vec<String>> {
    let items = value.clone().into_array().ok()?;
    items.into_iter().map(|item| item.into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, Flags, layers::flatten, load};

    /// What a range takes at its ends, and what is just beyond them.
    fn extremes(range: Range) -> (Vec<String>, Vec<String>) {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (mut good, mut bad) = match range {
            Range::Whole(least, most) => {
                let beyond = [Some(most + 1), least.checked_sub(1)].into_iter().flatten();
                let mut bad: Vec<String> = beyond.map(|number| number.to_string()).collect();
                bad.extend(texts(&["-1", "1.5", "many", "99999999999999999999999", "18446744073709551615"]));
                (vec![least.to_string(), most.to_string()], bad)
            }
            Range::Wholes(count, least, most) => {
                let many = vec![least.to_string(); count + 1].join(",");
                let bad = vec![(most + 1).to_string(), format!("{least},x"), "-1".to_owned(), many];
                (vec![least.to_string(), format!("{least}, {most}")], bad)
            }
            Range::Amount => (texts(&["0", "999999999"]), texts(&["-5", "1000000000", "0.0001", "NaN", "much"])),
            Range::Percent => (texts(&["GST"]), texts(&["-1", "100.01", "much"])),
            Range::Switch => (texts(&["on", "off", "true", "false"]), texts(&["2", "maybe"])),
            Range::Text(most) => (vec!["x".to_owned(), "म".repeat(most)], vec!["म".repeat(most + 1)]),
            Range::Names(count) => (texts(&["checkout,refund"]), vec![vec!["x"; count + 1].join(","), "x".repeat(101)]),
            Range::OneOf(names) => (texts(&names[..1]), vec![names[0].to_lowercase() + "?", "other".to_owned()]),
            Range::Currency => (texts(&["INR", "JPY"]), texts(&["XXX", "inr", "RUPEE", "ABC"])),
            Range::Folder => (texts(&["/tmp/shop"]), texts(&["/proc/version"])),
            Range::Address => (
                texts(&["127.0.0.1:0", "[::1]:65535", "localhost:80"]),
                texts(&["80", ":80", "a b:80", "localhost:65536", "localhost:"]),
            ),
            Range::Url(schemes) | Range::SecretUrl(schemes) => {
                let url = |scheme: &str| format!("{scheme}://127.0.0.1/x");
                let long = format!("{}{}", url(schemes[0]), "x".repeat(2_048));
                let good = schemes.iter().map(|scheme| url(scheme)).collect();
                let mut bad = vec!["127.0.0.1".to_owned(), url("gopher"), long];
                if matches!(range, Range::Url(_)) {
                    bad.extend([format!("{}://user:hunter2@shop.example", schemes[0])]);
                }
                (good, bad)
            }
            Range::Origin => (
                texts(&["https://gateway.example", "http://127.0.0.1:4001/", "https://[::1]:8443"]),
                texts(&[
                    "gateway.example",
                    "https:",
                    "ftp://gateway.example",
                    "https://gateway.example/v1",
                    "https://gateway.example?key=hunter2",
                    "https://gateway.example?",
                    "https://gateway.example#hunter2",
                    "https://user:hunter2@gateway.example",
                    "https://hunter2@gateway.example",
                    "https://@gateway.example",
                ]),
            ),
            Range::Secret(least) => {
                (vec!["s".repeat(least), "s".repeat(1_024)], vec!["s".repeat(least - 1), "s".repeat(1_025)])
            }
            Range::SecretKey(starts) => (
                starts
                    .iter()
                    .flat_map(|start| [format!("{start}live_1"), format!("{start}{}", "x".repeat(1_021))])
                    .collect(),
                texts(&[
                    "pk_live_hunter2",
                    "whsec_hunter2",
                    "sk_",
                    "rk_",
                    "sk_live_…",
                    "sk_live 1",
                    "SK_live_1",
                    "sk_1,sk_2",
                ]),
            ),
            Range::Secrets(start) => {
                let named = |list: &str| list.replace('s', &format!("{start}s"));
                let good = ["s", "s,s2", " s , s2 ", "s+/=:@"].map(named).to_vec();
                let mut bad: Vec<String> = [",", "s,", ",s", "s,,s2", "s, ,s2"].map(named).to_vec();
                bad.push(format!("{start}{}", "s".repeat(1_025)));
                if !start.is_empty() {
                    bad.extend([start.to_owned(), format!("{start}1,hunter2hunter2"), "hunter2hunter2".to_owned()]);
                }
                (good, bad)
            }
            Range::Id(start, most) => {
                let mut bad = vec![format!("{start}{}", "x".repeat(most)), format!("{start}…"), format!("{start}a b")];
                bad.extend(texts(&["https://provider.example/a", "a:b"]));
                if start.is_empty() {
                    bad.remove(0);
                    bad.push("x".repeat(most + 1));
                } else {
                    bad.extend([start.to_owned(), format!("x{start}1")]);
                }
                (vec![format!("{start}live_a-B.9"), format!("{start}{}", "x".repeat(most - start.len()))], bad)
            }
            Range::Ids(most) => (
                vec!["1JE4291016473214C".to_owned(), "WH1, WH2".to_owned(), "x".repeat(most)],
                texts(&[
                    "https://shop.example/api/webhooks/paypal",
                    ",",
                    "WH1,,WH2",
                    "WH1,",
                    "WH-1",
                    &"x".repeat(most + 1),
                ]),
            ),
            Range::WebhookSecret => (texts(&["whsec_ZGV2LXNlY3JldA=="]), texts(&["whsec_", "whsec_***"])),
            Range::Sender => (texts(&["a@shop.example", "A shop <a@shop.example>"]), texts(&["shop", "@", "a@b@c"])),
            Range::Origins(count) => (
                texts(&["*", "https://a.example,http://localhost:3000"]),
                vec!["shop.example".to_owned(), vec!["https://a.example"; count + 1].join(",")],
            ),
        };
        bad.extend(texts(&["", " ", "\t", "a\u{7}b", "\u{fffd}"]));
        good.dedup();
        (good, bad)
    }

    fn told(key: &str, value: &str) -> Result<(), String> {
        let variable = format!("CART_ENGINE__{}", key.to_uppercase().replace('.', "__"));
        let nothing = tempfile::NamedTempFile::new().expect("a file");
        // What would not agree with the extremes of the key that is asked about.
        let mut environment = vec![(variable, value.to_owned())];
        let agreeing: &[(&str, &str)] = match key {
            "shop.hold_s" => &[("shop.payment_window_s", "1")],
            "shop.payment_window_s" => &[("shop.hold_s", "604800")],
            "worker.lease_ms" => &[("worker.beat_ms", "10"), ("worker.watchdog_ms", "3600000")],
            "worker.beat_ms" => &[("worker.lease_ms", "600000"), ("worker.watchdog_ms", "3600000")],
            "worker.watchdog_ms" => &[("worker.lease_ms", "100"), ("worker.beat_ms", "10")],
            "shop.retention.finished_runs_days" => &[("shop.retention.run_keys_days", "3650")],
            "shop.retention.run_keys_days" => &[("shop.retention.finished_runs_days", "1")],
            "shop.pricing.tax.kind" => &[("shop.pricing.tax.rate", "5")],
            // A gateway has all of its secrets, or none.
            "stripe.secret_key" => &[("stripe.webhook_secret", "whsec_1")],
            "stripe.webhook_secret" => &[("stripe.secret_key", "sk_test_1")],
            "razorpay.key_id" => &[("razorpay.key_secret", "a secret"), ("razorpay.webhook_secret", "a secret")],
            "razorpay.key_secret" => &[("razorpay.key_id", "rzp_test_1"), ("razorpay.webhook_secret", "a secret")],
            "razorpay.webhook_secret" => &[("razorpay.key_id", "rzp_test_1"), ("razorpay.key_secret", "a secret")],
            "paypal.client_id" => &[("paypal.client_secret", "a secret"), ("paypal.webhook_id", "WH1")],
            "paypal.client_secret" => &[("paypal.client_id", "app"), ("paypal.webhook_id", "WH1")],
            "paypal.webhook_id" => &[("paypal.client_id", "app"), ("paypal.client_secret", "a secret")],
            _ => &[],
        };
        let spell = |key: &str| format!("CART_ENGINE__{}", key.to_uppercase().replace('.', "__"));
        environment.extend(agreeing.iter().map(|(key, value)| (spell(key), (*value).to_owned())));
        load(Some(nothing.path()), environment, Flags::default()).map(drop).map_err(|failure| failure.report())
    }

    #[test]
    fn every_key_takes_its_extremes_and_refuses_what_is_beyond_them_in_one_line() {
        for (key, range) in RANGES {
            let (good, bad) = extremes(*range);
            for value in good {
                // A rate stands beside its kind of tax, which alone is not there.
                let key = if matches!(range, Range::Percent) { "shop.pricing.tax.kind" } else { key };
                assert_eq!(told(key, &value), Ok(()), "{key} = {value}");
            }
            for value in bad {
                // The top of one key may not agree with another; beyond it is out of range in any case.
                let report = told(key, &value).expect_err(&format!("{key} = {value:?}"));
                let variable = format!("CART_ENGINE__{}", key.to_uppercase().replace('.', "__"));
                assert!(report.contains(&variable) && report.lines().count() == 1, "{key} = {value:?}: {report}");
                let is_secret =
                    matches!(range, Range::Secret(_) | Range::SecretKey(_) | Range::Secrets(_) | Range::WebhookSecret);
                assert!(!(is_secret && value.len() > 8 && report.contains(&value)), "{report}");
                assert!(!report.contains("hunter2"), "{report}");
            }
        }
    }

    #[test]
    fn every_key_has_a_range_and_every_range_a_key() {
        let mut keys = BTreeSet::from(["shop.pricing.tax.rate".to_owned()]);
        flatten("", &serde_json::to_value(Config::default()).expect("JSON"), &mut |key, _| {
            keys.insert(key.to_owned());
        });
        let ranges: BTreeSet<String> = RANGES.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(keys, ranges);
        assert_eq!(ranges.len(), RANGES.len(), "a key has two ranges");
    }

    #[test]
    fn the_defaults_are_in_their_ranges_and_agree() {
        let nothing = tempfile::NamedTempFile::new().expect("a file");
        load(Some(nothing.path()), [], Flags::default()).expect("the defaults");
        flatten("", &serde_json::to_value(Config::default()).expect("JSON"), &mut |key, value| {
            if !value.is_null() {
                let value: Value = serde_json::from_value(value.clone()).expect("a value");
                assert!(of(key).is_some_and(|range| range.holds(&value)), "{key} = {value}");
            }
        });
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shop.toml");
        std::fs::write(&path, "[shop]\nhold_s = 0\nholds = 3\n[shop.pricing]\ncurrency = 'XXX'\n").expect("a file");
        let environment = [("JWT_SECRET", "hunter2"), ("DATABASE_URL", " "), ("CART_ENGINE__SHOP__COD_LIMIT", "-5")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let listen = Flags::default().with("--listen", "api.listen", Some("nowhere"));
        let report = load(Some(&path), environment, listen).expect_err("mistakes").report();
        let lines: Vec<&str> = report.lines().collect();
        assert_eq!(lines[0], "cart-engine: 7 settings are wrong");
        for told in [
            "  DATABASE_URL is empty: give it a value, or unset it",
            "  api.listen = nowhere (--listen): must be host:port, such as 127.0.0.1:8080",
            "  auth.jwt_secret = *** (JWT_SECRET): must be 32 to 1024 bytes",
            "  shop.cod_limit = -5 (CART_ENGINE__SHOP__COD_LIMIT): must be an amount from 0 to 999999999.999",
        ] {
            assert!(lines.contains(&told), "{told}: {report}");
        }
        for told in ["  there is no key shop.holds (", "  shop.hold_s = 0 (", "  shop.pricing.currency = XXX ("] {
            assert!(lines.iter().any(|line| line.starts_with(told) && line.contains("shop.toml")), "{told}: {report}");
        }
        assert!(!report.contains("hunter2"), "{report}");
    }
}
