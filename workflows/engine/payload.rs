//! What of a caller's the engine's tables can keep: JSON of a bounded size and short keys, without the one
//! character that Postgres refuses.

use serde::Serialize;
use serde_json::Value;

use crate::{Failure, error::codes, legible::rough_size, limits};

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
}
