//! The served OpenAPI document: complete, with examples that are true to it. Whether the answers are true
//! to it as well is checked of every route, for every caller, in `authorisation`.

mod schema;

use serde_json::Value;

use self::schema::breaches;
pub use self::schema::breaches_of_answer;
use crate::server::Server;

/// Every operation as (method, path, operation).
pub fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("operations") {
            operations.push((method.to_uppercase(), path.clone(), operation));
        }
    }
    assert!(operations.len() > 25, "{}", operations.len());
    operations
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_has_an_example_that_its_schema_allows() {
    let server = Server::open_idle().await;
    let document = server.door.get("/api/openapi.json").await.ok();
    let mut wrong = Vec::new();
    for (method, path, operation) in operations(&document) {
        let mut bodies = vec![("request".to_owned(), &operation["requestBody"])];
        bodies.extend(operation["responses"].as_object().expect("responses").iter().map(|(s, r)| (s.clone(), r)));
        for (body, described) in bodies {
            for (kind, content) in described["content"].as_object().into_iter().flatten() {
                if !kind.ends_with("json") {
                    continue;
                }
                let Some(example) = content.get("example") else {
                    wrong.push(format!("{method} {path} {body}: no example"));
                    continue;
                };
                let at = format!("{method} {path} {body} {example}");
                wrong
                    .extend(breaches(&document, &content["schema"], example).into_iter().map(|b| format!("{at}: {b}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_named_sorted_and_complete() {
    let server = Server::open_idle().await;
    let document = server.door.get("/api/openapi.json").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    let schemes = document["components"]["securitySchemes"].as_object().expect("schemes");
    let mut wrong = Vec::new();
    let mut names = Vec::new();
    for (method, path, operation) in operations(&document) {
        let mut expect = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{method} {path}: {what}"));
            }
        };
        let is_webhook = path.starts_with("/api/webhooks/");
        let has = |status: &str| operation["responses"].get(status).is_some();
        let security = operation["security"].as_array().cloned().unwrap_or_default();
        let needed = security.iter().flat_map(|one| one.as_object().into_iter().flatten()).map(|(name, _)| name);
        for scheme in needed {
            expect(schemes.contains_key(scheme), "a security scheme that is not declared");
        }
        expect(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "one tag");
        expect(operation["summary"].as_str().is_some_and(|text| text.len() > 5), "a summary");
        expect(has("503"), "503");
        expect(is_webhook || has("429"), "429");
        expect(security.is_empty() || has("401"), "401");
        if operation.get("requestBody").is_some() {
            expect(has("413") && has("400"), "400 and 413");
            expect(is_webhook || (has("415") && has("422")), "415 and 422");
        }
        let is_good = |status: &String| status.starts_with('2') || status == "303";
        expect(operation["responses"].as_object().is_some_and(|all| all.keys().any(is_good)), "2xx or 303");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let said = parameter["description"].as_str().is_some_and(|text| !text.is_empty());
            expect(said, &format!("what {} is", parameter["name"]));
        }
        names.push(operation["operationId"].as_str().expect("an id").to_owned());
    }
    let count = names.len();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    names.dedup();
    assert_eq!(names.len(), count, "operationIds used twice: {twice:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop().await;
}
