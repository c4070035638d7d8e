//! Text and JSON made such that the engine's tables can keep them.

use std::borrow::Cow;

use serde_json::Value;

use crate::limits;

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_made_legible_and_cut_between_characters() {
        assert_eq!(legible("as it is"), "as it is");
        assert_eq!(legible("a\0b"), "a\u{fffd}b");
        let long = "€".repeat(limits::TEXT_BYTES);
        assert!(legible(&long).len() <= limits::TEXT_BYTES + "…".len() && legible(&long).ends_with("€…"));
        assert_eq!(without_nul(json!({ "a\0": ["\0"] })), json!({ "a\u{fffd}": ["\u{fffd}"] }));
    }
}
