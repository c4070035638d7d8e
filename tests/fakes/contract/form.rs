//! Form bodies and queries: brackets become objects and arrays, then texts become what the schema says.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// `a=1&b[c]=2&d[]=3` becomes `{"a":"1","b":{"c":"2"},"d":["3"]}`.
pub(super) fn decode(text: &str) -> Result<Value, String> {
    let mut decoded = Value::Object(Map::new());
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (plain(name)?, plain(value)?);
        let path = segments(&name)?;
        put(&mut decoded, &path, value).ok_or_else(|| format!("{name} stands twice, or as two things"))?;
    }
    Ok(decoded)
}

fn plain(text: &str) -> Result<String, String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(Into::into).map_err(|_| format!("{text} is no UTF-8"))
}

/// `a[b][]` is `a`, `b` and an empty one.
fn segments(name: &str) -> Result<Vec<&str>, String> {
    let Some((first, mut rest)) = name.find('[').map(|at| name.split_at(at)) else { return Ok(vec![name]) };
    let mut segments = vec![first];
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (segment, after) = inner.ok_or_else(|| format!("{name} has a bracket too many"))?;
        segments.push(segment);
        rest = after;
    }
    Ok(segments)
}

/// None if something else is there already.
fn put(target: &mut Value, path: &[&str], text: String) -> Option<()> {
    let Some((first, rest)) = path.split_first() else {
        *target = target.is_null().then_some(Value::String(text))?;
        return Some(());
    };
    let is_index = first.is_empty() || first.bytes().all(|byte| byte.is_ascii_digit());
    if target.is_null() {
        *target = if is_index { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
    }
    if let Value::Array(items) = target {
        let at = if first.is_empty() { items.len() } else { first.parse().ok()? };
        if at == items.len() {
            items.push(Value::Null);
        }
        put(items.get_mut(at)?, rest, text)
    } else {
        put(target.as_object_mut()?.entry(*first).or_insert(Value::Null), rest, text)
    }
}

/// Makes texts the numbers and booleans that the schema asks for, if that is what they say.
pub(super) fn convert(value: &mut Value, schema: &Value) {
    for key in ["anyOf", "oneOf", "allOf"] {
        for part in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
            convert(value, part);
        }
    }
    match value {
        Value::String(text) => {
            let converted = match schema.get("type").and_then(Value::as_str) {
                Some("integer") => text.parse::<i64>().ok().map(Value::from),
                Some("number") => text.parse::<f64>().ok().map(Value::from),
                Some("boolean") => text.parse::<bool>().ok().map(Value::from),
                Some(_) | None => None,
            };
            if let Some(converted) = converted {
                *value = converted;
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| convert(item, schema));
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let own = schema.get("properties").and_then(|properties| properties.get(name));
                if let Some(schema) = own.or_else(|| schema.get("additionalProperties")) {
                    convert(member, schema);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn brackets_become_objects_and_arrays() {
        let text = "amount=100&metadata[order%5Fid]=a+b%26&expand[]=x&expand[]=y&items[0][id]=1&empty=";
        let decoded = json!({ "amount": "100", "metadata": { "order_id": "a b&" }, "expand": ["x", "y"],
                              "items": [{ "id": "1" }], "empty": "" });
        assert_eq!(decode(text), Ok(decoded));
        assert_eq!(decode("metadata%5Bid%5D=1"), Ok(json!({ "metadata": { "id": "1" } })));
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for text in ["a=1&a=2", "a[=1", "a=1&a[b]=2", "a=%ff", "a[5]=1"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_the_schema_types_is_converted() {
        let schema = json!({ "properties": {
            "amount": { "type": "integer" }, "confirm": { "type": "boolean" },
            "created": { "anyOf": [{ "properties": { "gte": { "type": "integer" } } }, { "type": "integer" }] },
            "metadata": { "additionalProperties": { "type": "string" } } } });
        let mut value = json!({ "amount": "7", "confirm": "true", "created": { "gte": "9" },
                                "metadata": { "attempt": "1" } });
        convert(&mut value, &schema);
        let converted =
            json!({ "amount": 7, "confirm": true, "created": { "gte": 9 }, "metadata": { "attempt": "1" } });
        assert_eq!(value, converted);
        let mut wrong = json!({ "amount": "7.5" });
        convert(&mut wrong, &schema);
        assert_eq!(wrong, json!({ "amount": "7.5" }));
    }
}
