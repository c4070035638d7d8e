//! The OpenAPI document, as it is served.

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
