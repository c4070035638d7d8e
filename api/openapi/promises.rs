//! The document's promises, held against each answer.
//!
//! A refusal is written where it happens, and promised where its route is described; nothing in the types
//! keeps the two together. So each answer is held against the document: a debug build, and with it every
//! test that provokes a refusal, fails on one that is not promised; elsewhere it is logged and counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use utoipa::openapi::{OpenApi as Document, RefOr};

use super::operations;
use crate::error::Refused;

/// What any request may be refused with, whatever it is for; the document's description says so.
pub(crate) const ANYWHERE: [&str; 10] = [
    "body-too-large",
    "card-data-refused",
    "headers-too-large",
    "internal",
    "malformed-body",
    "malformed-framing",
    "malformed-host",
    "method-not-allowed",
    "request-timeout",
    "uri-too-long",
];

/// By method and path, then by status: the codes that are promised.
pub(crate) struct Promises(BTreeMap<(String, String), BTreeMap<u16, BTreeSet<String>>>);

impl Promises {
    pub(crate) fn of(document: &mut Document) -> Arc<Self> {
        let mut promises = BTreeMap::new();
        for (method, path, operation) in operations(document) {
            let mut by_status = BTreeMap::new();
            for (status, response) in &operation.responses.responses {
                let (Ok(status), RefOr::T(response)) = (status.parse(), response) else { continue };
                let codes = response.description.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                by_status.insert(status, codes);
            }
            promises.insert((method.to_uppercase(), path), by_status);
        }
        Arc::new(Promises(promises))
    }

    fn has(&self, method: &Method, path: &str, status: u16, code: &str) -> bool {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let route = (method.as_str().to_owned(), path.to_owned());
        ANYWHERE.contains(&code)
            || self.0.get(&route).is_none_or(|by| by.get(&status).is_some_and(|codes| codes.contains(code)))
    }
}

/// Lets each answer pass, and notices one that breaks a promise.
pub(crate) async fn keep(State(promises): State<Arc<Promises>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (Some(path), Some(Refused(code))) = (path, response.extensions().get::<Refused>()) else { return response };
    let status = response.status().as_u16();
    if !promises.has(&method, path.as_str(), status, code) {
        metrics::counter!("cart_engine_http_unpromised_refusals_total").increment(1);
        tracing::error!(%method, path = path.as_str(), status, %code, "a refusal that the document does not promise");
        debug_assert!(false, "{method} {} refuses with {status} {code}, which is not promised", path.as_str());
    }
    response
}
