//! A schema that is compiled when it is first needed: few tests need all of them.

use std::sync::OnceLock;

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

/// What kind of mistake it is, as far as providers tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlawKind {
    Unknown,
    Missing,
    Length,
    Value,
    Other,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) kind: FlawKind,
    /// A JSON pointer.
    pub(crate) at: String,
    pub(crate) what: String,
}

impl Flaw {
    pub(crate) fn new(kind: FlawKind, at: &str, what: impl Into<String>) -> Flaw {
        Flaw { kind, at: at.to_owned(), what: what.into() }
    }

    pub(crate) fn other(what: &str) -> Flaw {
        Flaw::new(FlawKind::Other, "", what)
    }

    fn of(error: &ValidationError<'_>) -> Flaw {
        let (kind, named) = mistake(error.kind());
        let mut at = error.instance_path().as_str().to_owned();
        if let Some(name) = named {
            at = format!("{at}/{name}");
        }
        Flaw { kind, at, what: error.to_string() }
    }
}

/// A property counts as unknown, too, when the part of the schema that names it has failed.
fn may_follow(error: &ValidationError<'_>) -> bool {
    matches!(error.kind(), ValidationErrorKind::UnevaluatedProperties { .. })
}

/// What kind of mistake it is, and the property that is missing or too many.
fn mistake(kind: &ValidationErrorKind) -> (FlawKind, Option<&str>) {
    if let ValidationErrorKind::Required { property } = kind {
        (FlawKind::Missing, property.as_str())
    } else if let ValidationErrorKind::AdditionalProperties { unexpected }
    | ValidationErrorKind::UnevaluatedProperties { unexpected } = kind
    {
        (FlawKind::Unknown, unexpected.first().map(String::as_str))
    } else if matches!(kind, ValidationErrorKind::MaxLength { .. } | ValidationErrorKind::MinLength { .. }) {
        (FlawKind::Length, None)
    } else if matches!(kind, ValidationErrorKind::Enum { .. }) {
        (FlawKind::Value, None)
    } else {
        (FlawKind::Other, None)
    }
}

/// A schema with all that it refers to.
#[derive(Debug)]
pub(crate) struct Checked {
    schema: Value,
    compiled: OnceLock<Result<Validator, String>>,
}

impl Checked {
    pub(crate) fn new(schema: Value) -> Checked {
        Checked { schema, compiled: OnceLock::new() }
    }

    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    /// What is wrong with a value. A schema that cannot be compiled is a flaw of everything.
    pub(crate) fn check(&self, value: &Value) -> Vec<Flaw> {
        let compile = || jsonschema::draft202012::options().build(&self.schema).map_err(|error| error.to_string());
        match self.compiled.get_or_init(compile) {
            Ok(validator) => {
                let (consequences, mistakes): (Vec<_>, Vec<_>) = validator.iter_errors(value).partition(may_follow);
                let told = if mistakes.is_empty() { consequences } else { mistakes };
                told.iter().map(Flaw::of).collect()
            }
            Err(why) => vec![Flaw::new(FlawKind::Other, "", format!("the schema is no schema: {why}"))],
        }
    }
}

/// The description that a schema's list of issues has for one of them.
pub(super) fn described(schema: &Value, issue: &str) -> Option<String> {
    let only = |name: &str| schema.pointer(&format!("/properties/{name}/enum/0")).and_then(Value::as_str);
    if only("issue") == Some(issue) {
        return Some(only("description").unwrap_or(issue).to_owned());
    }
    match schema {
        Value::Array(items) => items.iter().find_map(|item| described(item, issue)),
        Value::Object(members) => members.values().find_map(|member| described(member, issue)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
