//! A request as a provider reads it, and what is answered.

use axum::{body::Bytes, http::HeaderMap};
use serde_json::Value;

/// One request to a provider.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) raw: Bytes,
    /// What stands in the path where its template has braces.
    pub(crate) parts: Vec<String>,
    /// The query, decoded by the document's types.
    pub(crate) parameters: Value,
    /// The body, likewise; an empty object if there is none.
    pub(crate) body: Value,
    /// Its idempotency key, if the operation takes one.
    pub(crate) key: Option<String>,
}

impl Call {
    /// A header's text; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The id that the path names.
    pub(crate) fn id(&self) -> &str {
        self.parts.first().map_or("", String::as_str)
    }

    /// A text of the body; empty if there is none.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A whole number of the body.
    pub(crate) fn number(&self, pointer: &str) -> Option<i64> {
        self.body.pointer(pointer).and_then(Value::as_i64)
    }

    /// A whole number of the query.
    pub(crate) fn parameter(&self, pointer: &str) -> Option<i64> {
        self.parameters.pointer(pointer).and_then(Value::as_i64)
    }

    /// Our name for what it makes, wherever a provider has a place for one.
    pub(crate) fn reference(&self) -> Option<String> {
        let places =
            ["/metadata/refund_id", "/metadata/order_id", "/receipt", "/purchase_units/0/custom_id", "/custom_id"];
        places.into_iter().map(|place| self.text(place)).find(|text| !text.is_empty()).map(str::to_owned)
    }

    /// What makes a repetition of it the same call.
    pub(crate) fn likeness(&self) -> (String, Value) {
        (self.path.clone(), self.body.clone())
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// None is an empty body.
    pub(crate) body: Option<Value>,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The operation was begun: its parameters were right, and nobody else was at it.
    pub(crate) begun: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: Value) -> Reply {
        Reply { status, body: Some(body), headers: Vec::new(), begun: true }
    }

    pub(crate) fn empty(status: u16) -> Reply {
        Reply { status, body: None, headers: Vec::new(), begun: true }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    /// The operation was never begun.
    pub(crate) fn unbegun(mut self) -> Reply {
        self.begun = false;
        self
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}
