//! What processes have said, and what they must not have.

use std::{collections::BTreeSet, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use tempfile::NamedTempFile;

use super::{
    super::{child::Child, deployment::JWT_SECRET, shoppers::Shopper},
    crowd,
};
use crate::provider::{Provider, Site};

/// Everything that nobody may read in a log.
pub async fn secrets(sites: &[Site], shoppers: &[Shopper]) -> BTreeSet<String> {
    let mut secrets: BTreeSet<String> = crowd::tokens().map(str::to_owned).collect();
    secrets.insert(JWT_SECRET.to_owned());
    secrets.extend(shoppers.iter().map(|shopper| shopper.token.clone()));
    for site in sites {
        let own = &site.credentials;
        // PayPal's webhook is known by an id, which is none.
        if site.provider != Provider::PayPal {
            secrets.insert(own.webhook.clone());
            secrets.extend(own.webhook.strip_prefix("whsec_").map(str::to_owned));
        }
        if site.provider != Provider::Sandbox {
            secrets.insert(own.secret.clone());
            secrets.insert(BASE64.encode(format!("{}:{}", own.key, own.secret)));
            let let_out = site.get("/_fake/secrets").await;
            let let_out = let_out.as_array().expect("secrets");
            assert!(!let_out.is_empty(), "{:?} has let nothing out", site.provider);
            secrets.extend(let_out.iter().map(|secret| secret.as_str().expect("text").to_owned()));
        }
    }
    secrets
}

/// What a process has said from its beginning to its end.
pub async fn all_of(process: &mut Child) -> String {
    if process.lives() {
        process.signal("TERM");
        process.ended().await;
    }
    process.last_words().await
}

/// Fails with the lines that hold a secret.
pub fn assert_clean(name: &str, said: &str, secrets: &BTreeSet<String>) {
    assert!(!said.is_empty(), "{name} has said nothing");
    let file = |text: &str| {
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        file
    };
    let wanted = file(&secrets.iter().map(|secret| format!("{secret}\n")).collect::<String>());
    let searched = file(said);
    // Thousands of patterns in a hundred megabytes: faster than anything that is built without optimisation.
    let mut grep = Command::new("grep");
    grep.args(["-F", "-a", "-m", "5", "-f"]).arg(wanted.path()).arg(searched.path()).env("LC_ALL", "C");
    let found = grep.output().expect("grep");
    let lines = String::from_utf8_lossy(&found.stdout);
    assert!(found.status.code() == Some(1), "{name} has let out a secret ({}): {lines}", found.status);
}
