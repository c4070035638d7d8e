//! What the engine's tables can keep: JSON of a bounded size, and text without the one character that
//! Postgres refuses.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::{Failure, error::codes, limits};

/// The value as it is kept, or why it cannot be.
pub(crate) fn encode<T: Serialize>(name: &str, value: &T) -> Result<Value, Failure> {
    let json = serde_json::to_value(value)
        .map_err(|error| Failure::new(codes::PAYLOAD_INVALID, format!("{name}: JSON cannot hold it: {error}")))?;
    if holds_nul(&json) {
        return Err(Failure::new(
            codes::PAYLOAD_INVALID,
            format!("{name}: a text with a NUL, which Postgres cannot keep"),
        ));
    }
    if rough_size(&json) > limits::PAYLOAD_BYTES {
        return Err(Failure::new(codes::PAYLOAD_TOO_LARGE, format!("{name}: more than 1 MiB")));
    }
    Ok(json)
}

/// Whether a text can be a key: without a NUL, and small enough for an index.
pub(crate) fn is_key(text: &str) -> bool {
    text.len() <= limits::KEY_BYTES && !text.contains('\0')
}

/// The text without the one character that Postgres cannot keep, and not without end: a failure that
/// could not be journalled would not be counted, and its run would fail for ever.
pub fn legible(text: &str) -> Cow<'_, str> {
    let end = (0..=limits::TEXT_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    if end == text.len() && !text.contains('\0') {
        return Cow::Borrowed(text);
    }
    let kept = text[..end].replace('\0', "\u{fffd}");
    Cow::Owned(if end < text.len() { kept + "…" } else { kept })
}

/// The same for JSON, whose size is not cut.
pub(crate) fn without_nul(value: Value) -> Value {
    let clean = |text: String| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (clean(key), without_nul(value))).collect())
        }
    }
}

pub(crate) fn rough_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(rough_size).sum::<usize>() + items.len(),
        Value::Object(fields) => fields.iter().map(|(key, value)| key.len() + 4 + rough_size(value)).sum(),
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_postgres_cannot_keep_is_refused_by_name() {
        for (value, code) in [
            (json!({ "a": ["x\0y"] }), Some("payload-invalid")),
            (json!({ "x\0y": 1 }), Some("payload-invalid")),
            (json!("x".repeat(limits::PAYLOAD_BYTES)), Some("payload-too-large")),
            (json!({ "a": ["x"] }), None),
        ] {
            assert_eq!(encode("It", &value).err().map(|failure| failure.code), code.map(str::to_owned));
        }
    }

    #[test]
    fn a_text_is_made_legible_and_cut_between_characters() {
        assert_eq!(legible("as it is"), "as it is");
        assert_eq!(legible("a\0b"), "a\u{fffd}b");
        let long = "€".repeat(limits::TEXT_BYTES);
        assert!(legible(&long).len() <= limits::TEXT_BYTES + "…".len() && legible(&long).ends_with("€…"));
        assert_eq!(without_nul(json!({ "a\0": ["\0"] })), json!({ "a\u{fffd}": ["\u{fffd}"] }));
    }
}
