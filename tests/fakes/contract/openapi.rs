//! Reads OpenAPI 3.0 documents: their dialect becomes JSON Schema 2020-12, and each operation's schemas are cut
//! out with what they refer to.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{Body, Checked, Encoding, Place, Shape};

/// A document in the dialect of the validator.
#[derive(Debug)]
pub(crate) struct Document(Value);

impl Document {
    /// # Errors
    /// It is no JSON.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Document> {
        let mut document = serde_json::from_str(text).context("a provider's document is no JSON")?;
        translate(&mut document);
        Ok(Document(document))
    }

    /// One of its schemas with what it refers to, closed: it allows no property that it does not name.
    pub(crate) fn schema(&self, schema: Value) -> Arc<Checked> {
        let mut whole = schema;
        self.attach(&mut whole);
        close(&mut whole, true);
        Arc::new(Checked::new(whole))
    }

    /// The same left open.
    pub(crate) fn open_schema(&self, schema: Value) -> Arc<Checked> {
        let mut whole = schema;
        self.attach(&mut whole);
        Arc::new(Checked::new(whole))
    }

    /// What the document says of an operation; none if it does not have it.
    pub(crate) fn shape(&self, place: Place) -> Option<Shape> {
        let item = self.0.get("paths")?.get(place.path)?;
        let operation = item.get(place.method.to_ascii_lowercase())?;
        let parameters = self.parameters(item, operation);
        let sent_in = |part: &str| {
            let part = json!(part);
            parameters.iter().copied().filter(move |one| one.get("in") == Some(&part))
        };
        let mut shape = Shape {
            query: Some(self.schema(named(sent_in("query"), true))),
            headers: Some(self.open_schema(named(sent_in("header"), false))),
            body: operation.get("requestBody").and_then(|body| self.body(self.resolved(body))),
            ..Shape::default()
        };
        for (status, answer) in operation.get("responses").and_then(Value::as_object)? {
            let content = self.resolved(answer).pointer("/content/application~1json/schema");
            shape.answers.insert(status.clone(), content.map(|schema| self.schema(schema.clone())));
        }
        Some(shape)
    }

    fn parameters<'a>(&'a self, item: &'a Value, operation: &'a Value) -> Vec<&'a Value> {
        let lists = [item.get("parameters"), operation.get("parameters")];
        lists.into_iter().flatten().filter_map(Value::as_array).flatten().map(|one| self.resolved(one)).collect()
    }

    fn body(&self, body: &Value) -> Option<Body> {
        let (encoding, content) =
            [(Encoding::Form, "application/x-www-form-urlencoded"), (Encoding::Json, "application/json")]
                .into_iter()
                .find_map(|(encoding, name)| Some((encoding, body.get("content")?.get(name)?)))?;
        let is_required = body.get("required") == Some(&Value::Bool(true));
        Some(Body { encoding, is_required, schema: self.schema(content.get("schema")?.clone()) })
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let target = value.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#'));
        target.and_then(|pointer| self.0.pointer(pointer)).unwrap_or(value)
    }

    /// Puts everything that a schema refers to beside it, where the references expect it.
    fn attach(&self, schema: &mut Value) {
        let (mut open, mut done) = (references(schema), Vec::new());
        while let Some(reference) = open.pop() {
            if done.contains(&reference) {
                continue;
            }
            if let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.0.pointer(pointer)) {
                open.extend(references(target));
                place(schema, &reference, target);
            }
            done.push(reference);
        }
    }
}

/// A schema of an object that has these parameters.
fn named<'a>(parameters: impl Iterator<Item = &'a Value>, is_strict: bool) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for parameter in parameters {
        let Some(name) = parameter.get("name").and_then(Value::as_str) else { continue };
        let name = if is_strict { name.to_owned() } else { name.to_ascii_lowercase() };
        if parameter.get("required") == Some(&Value::Bool(true)) {
            required.push(name.clone());
        }
        properties.insert(name, parameter.get("schema").cloned().unwrap_or(Value::Bool(true)));
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": !is_strict })
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(members.values().flat_map(references)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Puts `target` where a reference such as `#/components/schemas/money` expects it.
fn place(root: &mut Value, reference: &str, target: &Value) {
    let mut at = root;
    for segment in reference.split('/').skip(1) {
        let Some(members) = at.as_object_mut() else { return };
        at = members.entry(segment).or_insert_with(|| json!({}));
    }
    at.clone_from(target);
}

/// OpenAPI 3.0 has `nullable`, and booleans for `exclusiveMinimum` and its sister. Prose and examples only cost time.
fn translate(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(translate),
        Value::Object(members) => {
            members.retain(|name, member| match name.as_str() {
                "description" | "title" | "externalDocs" => !member.is_string() && name != "externalDocs",
                "example" | "examples" => member.get("$ref").is_some() || member.get("type").is_some(),
                "default" => member.is_object(),
                "exclusiveMinimum" | "exclusiveMaximum" => !member.is_boolean(),
                _ => true,
            });
            members.values_mut().for_each(translate);
            if members.remove("nullable") == Some(Value::Bool(true)) {
                let own = Value::Object(std::mem::take(members));
                members.insert("anyOf".to_owned(), json!([own, { "type": "null" }]));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Properties that a schema does not name are let through by JSON Schema; a misspelt one would never be seen. Schemas
/// that stand for themselves are closed, members of an `allOf` are not: there, each knows a part only.
fn close(schema: &mut Value, stands_alone: bool) {
    let Some(members) = schema.as_object_mut() else { return };
    for (name, member) in members.iter_mut() {
        match (name.as_str(), member) {
            ("properties" | "schemas" | "$defs", Value::Object(own)) => {
                let is_definition = name != "properties";
                own.values_mut().for_each(|schema| close(schema, !is_definition));
            }
            ("components", member) => close(member, false),
            ("items" | "additionalProperties", member) => close(member, true),
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => parts.iter_mut().for_each(|part| close(part, false)),
            _ => {}
        }
    }
    let has_parts = ["$ref", "properties", "allOf", "anyOf", "oneOf"].iter().any(|key| members.contains_key(*key));
    if stands_alone && has_parts && !members.contains_key("additionalProperties") {
        members.insert("unevaluatedProperties".to_owned(), Value::Bool(false));
    }
}
