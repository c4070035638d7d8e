//! As much of JSON Schema 2020-12 as the document uses. A keyword it does not know is a breach, so that
//! nothing is passed over.

use chrono::DateTime;
use serde_json::{Map, Value};
use uuid::Uuid;

/// What an answer's body has that the document does not promise, or lacks.
pub fn breaches_of_answer(document: &Value, operation: &Value, status: u16, kind: &str, body: &Value) -> Vec<String> {
    let Some(response) = operation["responses"].get(status.to_string()) else {
        return vec![format!("{status} is not documented")];
    };
    let Some(content) = response.get("content") else {
        return if body.is_null() { Vec::new() } else { vec![format!("{status} has a body: {body}")] };
    };
    match content.get(kind) {
        Some(content) => breaches(document, &content["schema"], body),
        None => vec![format!("{status} has the content type {kind}")],
    }
}

pub fn breaches(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Check { document, found: &mut found }.check(schema, value, "");
    found
}

struct Check<'a> {
    document: &'a Value,
    found: &'a mut Vec<String>,
}

impl Check<'_> {
    fn expect(&mut self, holds: bool, at: &str, what: impl std::fmt::Display, value: &Value) {
        if !holds {
            self.found.push(format!("{at} is {value}, not {what}"));
        }
    }

    fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        let Some(schema) = schema.as_object() else {
            self.expect(schema == &Value::Bool(true), at, "of any schema", value);
            return;
        };
        for (keyword, rule) in schema {
            self.keyword(schema, keyword, rule, value, at);
        }
    }

    fn keyword(&mut self, schema: &Map<String, Value>, keyword: &str, rule: &Value, value: &Value, at: &str) {
        let length = || value.as_str().map(|text| text.chars().count() as f64);
        let count = || value.as_array().map(|items| items.len() as f64);
        let bound = rule.as_f64().unwrap_or(f64::NAN);
        match keyword {
            "$ref" => {
                let target = rule.as_str().and_then(|target| self.document.pointer(target.trim_start_matches('#')));
                let target = target.unwrap_or_else(|| panic!("{rule} points nowhere")).clone();
                self.check(&target, value, at);
            }
            "type" => {
                let is_one = match rule {
                    Value::Array(types) => types.iter().any(|kind| is_of(kind, value)),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                        is_of(rule, value)
                    }
                };
                self.expect(is_one, at, rule, value);
            }
            "enum" => self.expect(rule.as_array().is_some_and(|all| all.contains(value)), at, rule, value),
            "const" => self.expect(rule == value, at, rule, value),
            "minimum" => {
                self.expect(value.as_f64().is_none_or(|number| number >= bound), at, format!(">= {rule}"), value)
            }
            "maximum" => {
                self.expect(value.as_f64().is_none_or(|number| number <= bound), at, format!("<= {rule}"), value)
            }
            "minLength" => {
                self.expect(length().is_none_or(|length| length >= bound), at, format!("{rule} long"), value)
            }
            "maxLength" => {
                self.expect(length().is_none_or(|length| length <= bound), at, format!("{rule} long"), value)
            }
            "minItems" => self.expect(count().is_none_or(|count| count >= bound), at, format!("{rule} items"), value),
            "maxItems" => self.expect(count().is_none_or(|count| count <= bound), at, format!("{rule} items"), value),
            "format" => self.expect(value.as_str().is_none_or(|text| has_format(rule, text)), at, rule, value),
            "required" => {
                for name in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    let has = value.as_object().is_none_or(|object| object.contains_key(name));
                    self.expect(has, at, format!("with {name}"), value);
                }
            }
            "properties" => {
                for (name, schema) in rule.as_object().into_iter().flatten() {
                    if let Some(member) = value.get(name) {
                        self.check(schema, member, &format!("{at}/{name}"));
                    }
                }
            }
            "additionalProperties" => {
                let declared = |name: &String| schema.get("properties").is_some_and(|all| all.get(name).is_some());
                for (name, member) in value.as_object().into_iter().flatten().filter(|(name, _)| !declared(name)) {
                    self.check(rule, member, &format!("{at}/{name}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(rule, item, &format!("{at}/{index}"));
                }
            }
            "allOf" => {
                for part in rule.as_array().into_iter().flatten() {
                    self.check(part, value, at);
                }
            }
            "oneOf" | "anyOf" => {
                let parts = rule.as_array().into_iter().flatten();
                let fits = parts.filter(|part| breaches(self.document, part, value).is_empty()).count();
                self.expect(fits == 1 || (fits > 1 && keyword == "anyOf"), at, format!("{keyword} {rule}"), value);
            }
            "description" | "title" | "example" | "examples" | "default" | "deprecated" | "propertyNames" => {}
            // The last word on a pattern is the handler's.
            "pattern" => {}
            unknown => self.found.push(format!("{at}: {unknown} is not known to this test")),
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        unknown => panic!("{unknown} is no type"),
    }
}

fn has_format(format: &Value, text: &str) -> bool {
    match format.as_str().expect("a format") {
        "uuid" => Uuid::try_parse(text).is_ok(),
        "date-time" => DateTime::parse_from_rfc3339(text).is_ok_and(|time| time.offset().local_minus_utc() == 0),
        "date" => chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok(),
        "uri" => text.contains(':'),
        "email" => text.contains('@'),
        "password" | "int32" | "int64" => true,
        unknown => panic!("{unknown} is not known to this test"),
    }
}

#[test]
fn a_body_that_breaks_its_schema_is_noticed() {
    use serde_json::json;
    let document = json!({ "Name": { "type": "string", "minLength": 2 } });
    let schema = json!({
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "count": { "type": ["integer", "null"], "minimum": 0 },
            "names": { "type": "array", "items": { "$ref": "#/Name" } },
            "what": { "oneOf": [{ "type": "null" }, { "enum": ["A"] }] }
        },
        "additionalProperties": false
    });
    let id = "0198c6a2-7b1c-7000-8000-1234567890ab";
    for (value, fine) in [
        (json!({ "id": id, "count": null, "names": ["ab"], "what": "A" }), true),
        (json!({ "id": "x" }), false),
        (json!({}), false),
        (json!([]), false),
        (json!({ "id": id, "count": -1 }), false),
        (json!({ "id": id, "count": 1.5 }), false),
        (json!({ "id": id, "names": ["ab", "a"] }), false),
        (json!({ "id": id, "what": "B" }), false),
        (json!({ "id": id, "more": 1 }), false),
    ] {
        assert_eq!(breaches(&document, &schema, &value).is_empty(), fine, "{value}");
    }
    assert_eq!(breaches(&document, &json!({ "multipleOf": 2 }), &json!(1)).len(), 1, "an unknown keyword");
}
