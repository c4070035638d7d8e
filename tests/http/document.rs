//! The OpenAPI document, as it is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::server::Server;

/// Every path and status that is promised. A change here is a change of the contract.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_promises_these_paths_and_statuses() {
    let server = Server::open_idle().await;
    let document = server.door.get("/api/openapi.json").await.ok();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let mut promises = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let statuses: Vec<&str> =
                operation["responses"].as_object().expect("responses").keys().map(String::as_str).collect();
            promises.push(format!("{path} {} → {}", method.to_uppercase(), statuses.join(" ")));
        }
    }
    promises.sort();
    insta::assert_snapshot!(promises.join("\n"));
    server.stop().await;
}

/// Where codes are that a file of the API takes over from another; its routes promise them.
const TAKEN_OVER: [(&str, &str, &str); 3] = [
    ("cart.rs", "workflows/domain/cart.rs", "pub const fn code"),
    ("checkout.rs", "workflows/checkout/accept/refusal.rs", "pub fn code"),
    ("payments.rs", "workflows/store/refunds.rs", "pub fn code"),
];

/// Rules with a code that no route comes to: a change always finds an open cart; an amount that cannot be paid is
/// told as `validation-failed`.
const NOT_SPOKEN: [(&str, &str); 2] = [("cart.rs", "cart-not-active"), ("payments.rs", "amount-invalid")];

/// Refused by layers and extractors, for all routes; what they add to the document is derived from the route.
const COMMON: [&str; 11] = [
    "admission.rs",
    "caller.rs",
    "door.rs",
    "error.rs",
    "extract.rs",
    "idempotency.rs",
    "lib.rs",
    "health.rs",
    "valid.rs",
    "dev.rs",
    "write.rs",
];

fn source(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source");
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// Of a resource's own file and what stands in its folder.
fn sources(root: &Path) -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    for entry in std::fs::read_dir(root.join("api")).expect("a folder") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.extension().is_some_and(|kind| kind == "rs") && !COMMON.contains(&name.as_str()) {
            sources.entry(name).or_insert_with(String::new).push_str(&source(&path));
        } else if path.is_dir() && !["serving", "openapi", "idempotency"].contains(&name.as_str()) {
            for entry in std::fs::read_dir(&path).expect("a folder") {
                let text = source(&entry.expect("a file").path());
                sources.entry(format!("{name}.rs")).or_insert_with(String::new).push_str(&text);
            }
        }
    }
    sources
}

/// Texts in kebab case.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//") && !line.contains("description ="))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(|word| {
            let is_kebab = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            is_kebab && word.contains('-') && !word.starts_with('-')
        })
}

/// Of the routes described in this text.
fn paths_of(text: &str) -> BTreeSet<&str> {
    let starts = text.match_indices("path = \"").map(|(at, start)| &text[at + start.len()..]);
    starts.filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_code_in_the_source_is_promised_by_a_route_of_its_file() {
    let server = Server::open_idle().await;
    let document = server.door.get("/api/openapi.json").await.ok();
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut sources = sources(root);
    for (file, other, function) in TAKEN_OVER {
        let text = source(&root.join(other));
        let (_, body) = text.split_once(function).expect("a function");
        let body = body.split("\n    }\n").next().unwrap_or_default();
        sources.get_mut(file).expect("a file").push_str(body);
    }
    let mut broken = Vec::new();
    for (file, text) in &sources {
        let paths = paths_of(text);
        if paths.is_empty() {
            continue;
        }
        let promised: String = paths
            .iter()
            .flat_map(|path| document["paths"][path].as_object().into_iter().flatten())
            .map(|(_, operation)| operation["responses"].to_string())
            .collect();
        let is_spoken = |code: &&str| !NOT_SPOKEN.contains(&(file, code));
        for code in codes(text).filter(is_spoken).filter(|code| !promised.contains(&format!("`{code}`"))) {
            broken.push(format!("{file} refuses with {code}, and no route of it says so"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    server.stop().await;
}

/// Every source below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let found = entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|kind| kind == "rs")).collect()
}

/// utoipa merges schemas by name: of two types with one name, one would be documented as the other.
#[test]
fn every_schema_of_the_api_has_a_name_of_its_own() {
    let mut schemas = BTreeMap::new();
    for file in below(&Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("api")) {
        let text = source(&file);
        let derived = text.split("#[derive(").skip(1).filter_map(|rest| rest.split_once(")]"));
        for (_, rest) in derived.filter(|(traits, _)| traits.contains("ToSchema")) {
            let item = rest.split_once("struct ").into_iter().chain(rest.split_once("enum "));
            let (_, item) = item.min_by_key(|(before, _)| before.len()).expect("a type");
            let name: String = item.chars().take_while(|c| c.is_alphanumeric()).collect();
            if let Some(other) = schemas.insert(name.clone(), file.clone()) {
                panic!("{name} is a schema in {} and in {}", file.display(), other.display());
            }
        }
    }
    assert!(schemas.len() > 50, "{} schemas were found", schemas.len());
}
