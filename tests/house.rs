//! The house rules that a test can hold.

use std::{collections::BTreeMap, path::Path, process::Command};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Each crate may depend on these of ours, and no others: the arrows point downwards.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("engine", &[]),
    ("embedded", &[]),
    ("sandbox", &["serving"]),
    ("serving", &[]),
    ("migrations", &["embedded"]),
    ("adapters", &["domain"]),
    ("workflows", &["domain", "engine"]),
    ("workers", &["engine"]),
    ("schedules", &["engine", "workflows"]),
    ("api", &["adapters", "domain", "engine", "migrations", "serving", "workflows"]),
    (
        "cart-engine",
        &[
            "adapters",
            "api",
            "domain",
            "embedded",
            "engine",
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
