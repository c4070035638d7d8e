//! The layers of the configuration, and who wins.

use std::{collections::BTreeMap, path::Path};

use config::{File, FileFormat, Map, Source, Value, ValueKind, builder::DefaultState};

use super::{
    Config, agreement,
    ranges::{self, Range},
};
use crate::failure::Failure;

/// The file that is read when it is there and none is named.
const DEFAULT_FILE: &str = "cart-engine.toml";

/// Any key can come from the environment: `CART_ENGINE__API__LISTEN` is `api.listen`.
const PREFIX: &str = "CART_ENGINE__";

/// Variables with names of their own, which win over the prefixed ones.
const NAMED: [(&str, &str); 20] = [
    ("DATABASE_URL", "database.url"),
    ("CART_ENGINE_PG_DISCOVERY", "database.discovery"),
    ("CART_ENGINE_RATE_LIMIT", "api.rate_limit"),
    ("JWT_SECRET", "auth.jwt_secret"),
    ("JWT_SECRET_PREVIOUS", "auth.jwt_secret_previous"),
    ("REDIS_URL", "redis.url"),
    ("PAYPAL_CLIENT_ID", "paypal.client_id"),
    ("PAYPAL_CLIENT_SECRET", "paypal.client_secret"),
    ("PAYPAL_URL", "paypal.url"),
    ("PAYPAL_WEBHOOK_ID", "paypal.webhook_id"),
    ("RAZORPAY_KEY_ID", "razorpay.key_id"),
    ("RAZORPAY_KEY_SECRET", "razorpay.key_secret"),
    ("RAZORPAY_URL", "razorpay.url"),
    ("RAZORPAY_WEBHOOK_SECRET", "razorpay.webhook_secret"),
    ("SANDBOX_URL", "sandbox.url"),
    ("SANDBOX_WEBHOOK_SECRET", "sandbox.webhook_secret"),
    ("SMTP_URL", "mail.smtp_url"),
    ("STRIPE_SECRET_KEY", "stripe.secret_key"),
    ("STRIPE_URL", "stripe.url"),
    ("STRIPE_WEBHOOK_SECRET", "stripe.webhook_secret"),
];

/// Keys whose value in the environment is a list with commas.
const LISTS: [&str; 3] = ["api.allowed_origins", "shop.abandonment.reminders_s", "worker.queues"];

/// What the command line says, by key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags(Layer);

impl Flags {
    /// Adds what `flag` says about `key`, if it was given.
    #[must_use]
    pub(crate) fn with(mut self, flag: &'static str, key: &str, value: Option<impl Into<ValueKind>>) -> Self {
        if let Some(value) = value {
            self.0.set(flag, key, value);
        }
        self
    }
}

/// The configuration and where each value came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    origins: BTreeMap<String, String>,
}

impl Loaded {
    /// Every value as `key = value  # origin`, secrets masked.
    ///
    /// # Errors
    /// None is expected: every part of the configuration can be written as JSON.
    pub(crate) fn describe(&self) -> Result<String, Failure> {
        let mut lines = Vec::new();
        flatten("", &serde_json::to_value(&self.config)?, &mut |key, value| {
            lines.push(format!("{key} = {value}  # {}\n", self.origin(key)));
        });
        Ok(lines.concat())
    }

    fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("default", String::as_str)
    }
}

/// Calls `leaf` for each value below `value` that is no table, in order.
pub(super) fn flatten(prefix: &str, value: &serde_json::Value, leaf: &mut impl FnMut(&str, &serde_json::Value)) {
    match value.as_object() {
        Some(table) => {
            for (name, value) in table {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&key, value, leaf);
            }
        }
        None => leaf(prefix, value),
    }
}

/// Reads all layers. `environment` is the process' own, or a test's.
///
/// # Errors
/// A file that cannot be read; or every key that nobody knows, every value outside of its range and all that do
/// not agree with each other, each in one line with where it came from.
pub(crate) fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: Flags,
) -> Result<Loaded, Failure> {
    let (variables, mut problems) = from_environment(environment);
    let read = config::ConfigBuilder::<DefaultState>::default()
        .add_source(match file {
            Some(path) => File::from(path).format(FileFormat::Toml).required(true),
            None => File::new(DEFAULT_FILE, FileFormat::Toml).required(false),
        })
        .add_source(variables)
        .add_source(flags.0)
        .build()
        .map_err(|error| Failure::caused_by("the configuration cannot be read", &error))?;

    let mut origins = BTreeMap::new();
    for (name, value) in read.collect().unwrap_or_default() {
        check(&name, &value, &mut origins, &mut problems);
    }
    if !problems.is_empty() {
        return Err(wrong(problems));
    }
    let config = read.try_deserialize().map_err(|error| Failure::caused_by("the configuration is wrong", &error))?;
    let loaded = Loaded { config, origins };
    let problems = agreement::problems(&loaded.config, |key| loaded.origin(key).to_owned());
    if problems.is_empty() { Ok(loaded) } else { Err(wrong(problems)) }
}

fn wrong(problems: Vec<String>) -> Failure {
    Failure::several(format!("{} settings are wrong", problems.len()), problems)
}

/// Notes where each value below `value` comes from, and what is wrong with it.
fn check(key: &str, value: &Value, origins: &mut BTreeMap<String, String>, problems: &mut Vec<String>) {
    if let ValueKind::Table(table) = &value.kind {
        let mut names: Vec<_> = table.iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        for (name, value) in names {
            check(&format!("{key}.{name}"), value, origins, problems);
        }
        return;
    }
    let origin = value.origin().unwrap_or("default");
    match ranges::of(key) {
        None => problems.push(format!("there is no key {key} ({origin})")),
        Some(range) if !range.holds(value) => {
            problems.push(format!("{key} = {} ({origin}): must be {range}", range.shown(value)));
        }
        Some(_) => {}
    }
    origins.insert(key.to_owned(), origin.to_owned());
}

/// Variables of ours that are read elsewhere than here, and what they may be.
const READ_ELSEWHERE: [(&str, Range); 1] = [("CART_ENGINE_PG_MIRROR", ranges::SECRET_HTTP)];

/// What the environment says, and which of our variables say nothing. An empty one is most likely a mistake, such
/// as a secret that was not found: to go on as if it were unset could mean to work on another database.
fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> (Layer, Vec<String>) {
    let elsewhere = |name: &str| READ_ELSEWHERE.iter().find(|(named, _)| *named == name).map(|(_, range)| *range);
    let is_named = |name: &str| NAMED.iter().any(|(named, _)| *named == name) || elsewhere(name).is_some();
    let (variables, empty): (BTreeMap<String, String>, BTreeMap<String, String>) = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) || is_named(name))
        .partition(|(_, value)| !value.trim().is_empty());
    let mut problems: Vec<String> =
        empty.keys().map(|name| format!("{name} is empty: give it a value, or unset it")).collect();
    for (name, value) in &variables {
        if let Some(range) = elsewhere(name)
            && !range.holds(&value.as_str().into())
        {
            problems.push(format!("{name} = {}: must be {range}", range.shown(&value.as_str().into())));
        }
    }
    let prefixed = variables
        .iter()
        .filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?.to_lowercase().replace("__", "."), value)));
    let named = NAMED.into_iter().filter_map(|(name, key)| {
        let (name, value) = variables.get_key_value(name)?;
        Some((name, key.to_owned(), value))
    });
    let mut layer = Layer::default();
    for (name, key, value) in prefixed.chain(named) {
        if LISTS.contains(&&*key) {
            layer.set(name, &key, value.split(',').map(|item| item.trim().to_owned()).collect::<Vec<String>>());
        } else {
            // As text, which the reader turns into what the key wants: a secret of digits stays
            // what it is.
            layer.set(name, &key, value.clone());
        }
    }
    (layer, problems)
}

/// One source whose every value knows its own origin.
#[derive(Debug, Clone, Default)]
struct Layer(Map<String, Value>);

impl Layer {
    fn set(&mut self, origin: &str, key: &str, value: impl Into<ValueKind>) {
        self.0.insert(key.to_owned(), Value::new(Some(&origin.to_owned()), value));
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn loaded(file: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Loaded, Failure> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shop.toml");
        std::fs::write(&path, file).expect("a file");
        load(Some(&path), environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())), flags)
    }

    fn listen(value: &str) -> Flags {
        Flags::default().with("--listen", "api.listen", Some(value))
    }

    #[test]
    fn a_later_layer_wins() {
        let (file, variable) = ("api.listen = 'file:1'", [("CART_ENGINE__API__LISTEN", "variable:1")]);
        let none = Flags::default;
        for (file, environment, flags, wins) in [
            ("", &[][..], none(), "127.0.0.1:8080"),
            (file, &[], none(), "file:1"),
            (file, &variable, none(), "variable:1"),
            (file, &variable, listen("flag:1"), "flag:1"),
        ] {
            assert_eq!(loaded(file, environment, flags).expect("a configuration").config.api.listen, wins);
        }
    }

    #[test]
    fn a_variable_becomes_what_its_key_wants() {
        let environment = [
            ("CART_ENGINE__WORKER__CONCURRENCY", "7"),
            ("CART_ENGINE__WORKER__QUEUES", "checkout, refund"),
            ("CART_ENGINE__SHOP__HOLD_S", "900"),
            ("CART_ENGINE__SHOP__ABANDONMENT__REMINDERS_S", "60, 120"),
            ("CART_ENGINE_PG_DISCOVERY", "off"),
            ("CART_ENGINE_RATE_LIMIT", "off"),
            ("JWT_SECRET", "00000000000000000000000000000042"),
        ];
        let config = loaded("", &environment, Flags::default()).expect("a configuration").config;
        assert_eq!((config.worker.concurrency, config.shop.hold_s, config.database.discovery), (7, 900, false));
        assert!(!config.api.rate_limit);
        assert_eq!(config.worker.queues, ["checkout", "refund"]);
        assert_eq!(config.shop.abandonment.reminders_s, [60, 120]);
        let secret = config.auth.jwt_secret.expect("a secret");
        assert_eq!(secret.expose_secret(), "00000000000000000000000000000042");
    }

    #[test]
    fn what_is_wrong_is_named_in_one_line() {
        for (file, environment, named) in [
            ("api.lisen = 'x'", &[][..], "lisen"),
            ("[shop]\nhold = 3", &[], "hold"),
            ("worker.concurrency = 'many'", &[], "worker.concurrency"),
            ("api = [", &[], "shop.toml"),
            ("", &[("CART_ENGINE__API__LISEN", "x")], "lisen"),
            ("", &[("DATABASE_URL", "")], "DATABASE_URL"),
            ("", &[("CART_ENGINE__API__LISTEN", " ")], "CART_ENGINE__API__LISTEN"),
            ("", &[("CART_ENGINE_PG_MIRROR", "")], "CART_ENGINE_PG_MIRROR"),
            ("", &[("CART_ENGINE_PG_MIRROR", "/srv/npm")], "CART_ENGINE_PG_MIRROR = ***: must be a URL"),
            ("shop.default_gateway = 'stripe'", &[], "shop.default_gateway = stripe"),
            ("shop.default_gateway = 'cash'", &[], "shop.default_gateway = cash"),
            ("", &[("STRIPE_SECRET_KEY", "sk_test_1")], "stripe.webhook_secret = unset"),
            ("", &[("RAZORPAY_KEY_ID", "rzp_test_1"), ("RAZORPAY_WEBHOOK_SECRET", "w")], "razorpay.key_secret = unset"),
            (
                "",
                &[
                    ("PAYPAL_CLIENT_ID", "c"),
                    ("PAYPAL_CLIENT_SECRET", "s"),
                    ("PAYPAL_WEBHOOK_ID", "w"),
                    ("PAYPAL_URL", "http://paypal.example"),
                ],
                "paypal.url",
            ),
            (
                "",
                &[("STRIPE_WEBHOOK_SECRET", ",")],
                "stripe.webhook_secret = *** (STRIPE_WEBHOOK_SECRET): must be whsec_",
            ),
            (
                "",
                &[("STRIPE_SECRET_KEY", "pk_live_1")],
                "stripe.secret_key = *** (STRIPE_SECRET_KEY): must be a secret key",
            ),
            (
                "",
                &[("STRIPE_URL", "https://user:hunter2@api.stripe.com/v1?key=hunter2")],
                "stripe.url = https://***:***@api.stripe.com/v1?*** (STRIPE_URL): must be http or https, a host",
            ),
            ("", &[("RAZORPAY_KEY_ID", "key_1")], "razorpay.key_id = key_1 (RAZORPAY_KEY_ID): must be rzp_"),
            ("", &[("RAZORPAY_WEBHOOK_SECRET", "a,,b")], "razorpay.webhook_secret = *** (RAZORPAY_WEBHOOK_SECRET)"),
            (
                "",
                &[("PAYPAL_WEBHOOK_ID", "https://shop.example/api/webhooks/paypal")],
                "paypal.webhook_id = https://shop.example/api/webhooks/paypal (PAYPAL_WEBHOOK_ID): must be an id",
            ),
            ("api.max_backlog = 20001", &[], "must be a whole number from 1 to 20000"),
            ("worker.queues = ['checkout', 'refunds']", &[], "worker.queues = refunds"),
            ("", &[("JWT_SECRET", "short")], "auth.jwt_secret = *** (JWT_SECRET): must be 32 to 1024 bytes"),
            ("shop.hold_s = 99999999999999", &[], "shop.hold_s"),
            ("shop.hold_s = 480", &[], "shop.payment_window_s"),
            ("shop.pricing.shipping.standard = -5", &[], "shop.pricing.shipping.standard"),
            ("shop.pricing.currency = 'XXX'", &[], "shop.pricing.currency"),
            ("worker.beat_ms = 3000", &[], "worker.beat_ms"),
        ] {
            let report = loaded(file, environment, Flags::default()).expect_err("a mistake").report();
            assert!(report.contains(named), "{report}");
            assert_eq!(report.lines().count(), 1, "{report}");
        }
    }

    #[test]
    fn the_description_tells_origins_and_no_secrets() {
        let environment = [("JWT_SECRET", "hunter2hunter2hunter2hunter2hunter2")];
        let text = loaded("worker.beat_ms = 1000", &environment, listen("flag:1"))
            .expect("a configuration")
            .describe()
            .expect("a description");
        assert!(text.contains("api.listen = \"flag:1\"  # --listen\n"), "{text}");
        assert!(text.contains("auth.jwt_secret = \"***\"  # JWT_SECRET\n"), "{text}");
        assert!(text.contains("worker.concurrency = 256  # default\n"), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("worker.beat_ms = 1000  # ") && line.ends_with("shop.toml")),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}
