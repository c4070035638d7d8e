//! The house rules that a test can hold.

use std::{collections::BTreeMap, path::Path, process::Command};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Each crate may depend on these of ours, and no others: the arrows point downwards.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("fakes", &[]),
    ("engine", &[]),
    ("embedded", &[]),
    ("sandbox", &["serving"]),
    ("serving", &[]),
    ("migrations", &["embedded"]),
    ("adapters", &["domain"]),
    ("store", &["domain", "engine"]),
    ("workflows", &["domain", "engine", "store"]),
    ("workers", &["engine"]),
    ("schedules", &["engine", "workflows"]),
    ("api", &["adapters", "domain", "engine", "migrations", "serving", "workflows"]),
    ("bench", &["adapters", "api", "domain", "engine", "migrations", "schedules", "workers", "workflows"]),
    ("demo", &["engine", "workflows"]),
    (
        "cart-engine",
        &[
            "adapters",
            "api",
            "bench",
            "demo",
            "domain",
            "embedded",
            "engine",
            "fakes",
            "migrations",
            "sandbox",
            "schedules",
            "serving",
            "workers",
            "workflows",
        ],
    ),
];

#[test]
fn crates_depend_downwards_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let is_program = |target: &&serde_json::Value| target["kind"] == serde_json::json!(["bin"]);
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let programs: Vec<_> = targets.filter(is_program).map(|target| target["name"].clone()).collect();
    assert_eq!(programs, ["cart-engine"], "`cargo run` means the one binary");
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    assert_eq!(ours.len(), allowed.len(), "every crate has its row in ARROWS");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} has no row in ARROWS"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let dependency = dependency["name"].as_str().expect("a name");
            assert!(
                !ours.contains(&dependency) || allowed.contains(&dependency),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

/// Modules of a crate, the lowest floor first: each may use those of the floors below, and no others.
const FLOORS: &[(&str, &[&[&str]])] = &[
    (
        "workflows",
        &[
            &["audit", "fraud", "hold_mirror", "reservation_expiry", "rules"],
            &["shop"],
            &["cart", "cart_expiry", "notification", "retention"],
            &["abandoned_cart", "desk", "low_stock_alerts", "stuck_run_rescue"],
            &["refund"],
            &["cancellation", "order_return"],
            &["fulfilment", "pay_back"],
            &["checkout"],
            &["operations", "payment_reconciliation"],
        ],
    ),
    (
        "workflows/engine",
        &[
            &["backlog", "clock", "fence", "limits", "retire", "retry", "silence", "status", "ticket"],
            &["legible", "outside", "pools", "start"],
            &["error"],
            &["exit", "fault", "incarnation", "journal", "payload", "step"],
            &["claim", "commit", "cursor", "rows", "signal", "sweep"],
            &["cohort", "park", "run"],
            &["means"],
            &["carrier"],
            &["seat"],
            &["work"],
            &["group", "undo"],
            &["flow"],
            &["call", "registry"],
            &["turn", "wait"],
            &["forward", "rehearse"],
            &["inspect"],
            &["testing"],
        ],
    ),
    (
        "workflows/store",
        &[
            &[
                "alone",
                "attempts",
                "audit_log",
                "catalogue",
                "coupons",
                "disputes",
                "events",
                "fraud",
                "login_failures",
                "messages",
                "payments",
                "preferences",
                "reconciliation",
                "retention",
                "returns",
                "schedules",
                "users",
                "webhook_inbox",
            ],
            &["addresses", "inventory"],
            &["cancellations", "carts"],
            &["orders"],
            &["refunds", "shipments"],
        ],
    ),
    (
        "api",
        &[
            &["error", "etag", "origins", "tokens"],
            &["accounts", "backlog", "buckets", "door", "idempotency", "observe", "throttle", "valid"],
            &["accepts", "page"],
            &["state"],
            &["caller", "cors", "extract", "health", "openapi", "watch"],
            &[
                "admission",
                "auth",
                "cart",
                "checkout",
                "dev",
                "events",
                "preferences",
                "rate",
                "schedules",
                "webhooks",
                "write",
            ],
            &["addresses", "categories", "coupons", "inventory", "keys", "orders", "refunds", "users"],
            &["fraud", "payments", "products", "returns", "shipments"],
        ],
    ),
];

/// The members of a group of names, from behind its brace: `a::B, c::{D, E}}` has `a::B` and `c::{D, E}`.
fn members(group: &str) -> Vec<&str> {
    let (mut members, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(group[begin..at].trim());
                begin = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.into_iter().filter(|member| !member.is_empty()).collect()
}

/// The first names of all paths from the crate's root: `crate::{a::B, c}` names `a` and `c`.
fn named(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        let rest = &text[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(members(group)),
            None => names.push(rest),
        }
    }
    let first = |path: &'_ str| path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    names.into_iter().map(|path| &path[..first(path)]).filter(|name| !name.is_empty()).collect()
}

/// Where the names are at home that a crate's root hands on: `pub use rules::{Rules, terms::{A, B as C}};` makes
/// `crate::Rules`, `crate::A` and `crate::C` names of `rules`.
fn homes(lib: &str) -> BTreeMap<&str, &str> {
    fn learn<'a>(tree: &'a str, home: Option<&'a str>, homes: &mut BTreeMap<&'a str, &'a str>) {
        if let Some(group) = tree.strip_prefix('{') {
            members(group).into_iter().for_each(|member| learn(member, home, homes));
        } else if let Some((first, rest)) = tree.split_once("::") {
            let is_here = matches!(first, "crate" | "self");
            learn(rest, home.or((!is_here).then_some(first)), homes);
        } else {
            assert_ne!(tree, "*", "what is handed on is named");
            let (item, name) = tree.split_once(" as ").unwrap_or((tree, tree));
            homes.insert(name, home.unwrap_or(item));
        }
    }
    let mut homes = BTreeMap::new();
    for (at, found) in lib.match_indices("\npub use ") {
        let rest = &lib[at + found.len()..];
        learn(rest.split(';').next().unwrap_or(rest), None, &mut homes);
    }
    homes
}

/// Every Rust file below `folder` that belongs to its crate, by module. However a file climbs to the crate's root,
/// which from here is by `up`, it reads `crate::`.
fn modules(folder: &Path, module: Option<&str>, up: &str, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        if path.is_dir() {
            if !path.join("Cargo.toml").exists() {
                modules(&path, Some(module.unwrap_or(&name)), &format!("super::{up}"), found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a file").replace(up, "crate::");
            found.push((module.unwrap_or(&name).to_owned(), text));
        }
    }
}

#[test]
fn modules_use_downwards_only() {
    let mut arrows = 0;
    for (folder, floors) in FLOORS {
        let mut files = Vec::new();
        modules(&root().join(folder), None, "super::", &mut files);
        let is_module = |name: &str| files.iter().any(|(module, _)| module == name);
        for module in floors.iter().copied().flatten() {
            assert!(is_module(module), "{folder} has no {module}");
        }
        let floor = |module: &str| floors.iter().position(|floor| floor.contains(&module));
        let homes = homes(&files.iter().find(|(module, _)| module == "lib").expect("a lib.rs").1);
        let before = arrows;
        // The root stands above all floors, and so do its own tests.
        for (module, text) in files.iter().filter(|(module, _)| !matches!(module.as_str(), "lib" | "tests")) {
            let own = floor(module).unwrap_or_else(|| panic!("{folder}: {module} has no floor"));
            for name in named(text) {
                let used = homes.get(name).copied().unwrap_or(name);
                // Of itself, or of another crate.
                if used == *module || homes.contains_key(name) && !is_module(used) {
                    continue;
                }
                let below = floor(used).unwrap_or_else(|| panic!("{folder}: {module} uses {used}, which has no floor"));
                assert!(below < own, "{folder}: {module} must not use {used}");
                arrows += 1;
            }
        }
        assert!(arrows > before, "{folder} has no arrows");
    }
    assert!(arrows > 100, "{arrows} arrows");
}

/// The tables that are the engine's own.
const ENGINE_TABLES: &[&str] =
    &["engine.runs", "engine.finished_runs", "engine.journal", "engine.signals", "engine.run_keys"];

/// Whose SQL names them all the same: the engine, tests, what measures it, and statements that join them to
/// the shop's tables and must see both at the same moment.
const MAY_NAME_ENGINE_TABLES: &[&str] = &[
    "tests",
    "workers/bench",
    "workflows/checkout/status.rs",
    "workflows/engine",
    "workflows/store/reconciliation.rs",
    "workflows/store/refunds/held.rs",
];

#[test]
fn the_engines_tables_are_its_own() {
    let mut folders = ["api", "migrations", "schedules", "tests", "workers", "workflows"].map(str::to_owned).to_vec();
    let (mut files, mut found) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        if MAY_NAME_ENGINE_TABLES.contains(&folder.as_str()) {
            continue;
        }
        for entry in std::fs::read_dir(root().join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") && !MAY_NAME_ENGINE_TABLES.contains(&path.as_str()) {
                let text = std::fs::read_to_string(entry.path()).expect("a file");
                found.extend(
                    ENGINE_TABLES
                        .iter()
                        .filter(|table| text.contains(**table))
                        .map(|table| format!("{path} names {table}: ask `engine::run` or `engine::inspect`")),
                );
                files += 1;
            }
        }
    }
    assert!(files > 100, "{files} files");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_top_level_is_exactly_the_agreed_list() {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().expect("git ls-files");
    let text = String::from_utf8(output.stdout).expect("paths");
    let mut top: Vec<&str> =
        text.lines().filter_map(|path| path.split('/').next()).filter(|name| !name.starts_with('.')).collect();
    top.sort_unstable();
    top.dedup();
    if top.is_empty() {
        eprintln!("not a git checkout: the top level was not looked at");
        return;
    }
    assert_eq!(
        top,
        [
            "ARCHITECTURE.md",
            "Cargo.lock",
            "Cargo.toml",
            "LICENSE",
            "README.md",
            "api",
            "migrations",
            "schedules",
            "tests",
            "workers",
            "workflows"
        ]
    );
}

#[test]
fn the_documents_name_only_paths_and_tests_that_exist() {
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(root().join(document)).expect(document);
        let mut named = 0;
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = ["workflows/", "workers/", "api/", "migrations/", "schedules/", "tests/", ".ci/"]
                .iter()
                .any(|folder| word.starts_with(folder));
            if is_path && !word.contains(['*', '{', ' ', '<']) {
                let (path, item) = word.split_once("::").unwrap_or((word, ""));
                assert!(root().join(path).exists(), "{document} names {word}, which does not exist");
                let names_a_test = path.ends_with(".rs") && item.starts_with(|first: char| first.is_ascii_lowercase());
                if names_a_test {
                    let source = std::fs::read_to_string(root().join(path)).expect(word);
                    assert!(source.contains(&format!("fn {item}(")), "{document} names {word}, which is not there");
                }
                named += 1;
            }
        }
        assert!(named > 5, "{document} names {named} paths");
    }
}
