//! What a provider's documents allow: every request and every answer is held against them.

mod form;
mod openapi;
mod schema;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use openapi::Document;
pub(crate) use schema::{Checked, Flaw, FlawKind};

use crate::call::{Call, Reply};

/// What is in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Form,
    Json,
}

/// A request's body.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) encoding: Encoding,
    pub(crate) is_required: bool,
    pub(crate) schema: Arc<Checked>,
}

/// What one operation takes and answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    /// An object of the query's parameters.
    pub(crate) query: Option<Arc<Checked>>,
    /// An object of the headers that the document names, in lower case.
    pub(crate) headers: Option<Arc<Checked>>,
    pub(crate) body: Option<Body>,
    /// By status or `default`; none is an empty body.
    pub(crate) answers: BTreeMap<String, Option<Arc<Checked>>>,
}

/// Statuses that come from what stands before the provider's programs: documents leave them out.
const UNDOCUMENTED: &[u16] = &[429, 500];

/// An operation as a document names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) method: &'static str,
    /// With braces where an id stands.
    pub(crate) path: &'static str,
}

/// Everything that a provider's documents say.
#[derive(Debug, Default)]
pub(crate) struct Contract {
    shapes: HashMap<Place, Shape>,
    /// What webhooks carry, by name.
    objects: HashMap<&'static str, Arc<Checked>>,
}

impl Contract {
    pub(crate) fn allow(&mut self, place: Place, shape: Shape) {
        self.shapes.insert(place, shape);
    }

    /// Takes from the documents what they say of operations that are not allowed yet.
    ///
    /// # Errors
    /// None of them has an operation.
    pub(crate) fn learn(&mut self, documents: &[Document], places: impl Iterator<Item = Place>) -> anyhow::Result<()> {
        for place in places.filter(|place| !self.shapes.contains_key(place)).collect::<Vec<_>>() {
            let shape = documents.iter().find_map(|document| document.shape(place));
            let shape = shape.with_context(|| format!("{} {} is in no document", place.method, place.path))?;
            self.allow(place, shape);
        }
        Ok(())
    }

    pub(crate) fn name(&mut self, name: &'static str, schema: Arc<Checked>) {
        self.objects.insert(name, schema);
    }

    /// Decodes a call's query and body by the document's types; returns what is wrong with them and its headers.
    pub(crate) fn read(&self, place: Place, call: &mut Call) -> Vec<Flaw> {
        let Some(shape) = self.shapes.get(&place) else {
            return vec![Flaw::new(FlawKind::Other, "", format!("{} {} is in no document", place.method, place.path))];
        };
        let mut flaws = Vec::new();
        match form::decode(&call.query) {
            Ok(mut parameters) => {
                match &shape.query {
                    Some(schema) => {
                        form::convert(&mut parameters, schema.schema());
                        flaws.extend(schema.check(&parameters));
                    }
                    None if parameters.as_object().is_some_and(Map::is_empty) => {}
                    None => flaws.push(Flaw::new(FlawKind::Unknown, "", "it takes no query")),
                }
                call.parameters = parameters;
            }
            Err(why) => flaws.push(Flaw::new(FlawKind::Other, "", why)),
        }
        if let Some(schema) = &shape.headers {
            let named = call.headers.iter().map(|(name, value)| {
                (name.as_str().to_owned(), Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned()))
            });
            flaws.extend(schema.check(&Value::Object(named.collect())));
        }
        match read_body(shape.body.as_ref(), call) {
            Ok(body) => {
                if let Some(Body { schema, is_required, .. }) = &shape.body
                    && (*is_required || !call.raw.is_empty())
                {
                    flaws.extend(schema.check(&body));
                }
                call.body = body;
            }
            Err(flaw) => flaws.push(flaw),
        }
        flaws
    }

    /// What is wrong with an answer.
    pub(crate) fn judge(&self, place: Place, reply: &Reply) -> Vec<Flaw> {
        let Some(shape) = self.shapes.get(&place) else { return Vec::new() };
        let documented = shape.answers.get(&reply.status.to_string()).or_else(|| {
            let is_open = UNDOCUMENTED.contains(&reply.status);
            shape.answers.get("default").filter(|_| !is_open)
        });
        match (documented, &reply.body) {
            (Some(Some(schema)), Some(body)) => schema.check(body),
            (Some(Some(_)), None) => vec![Flaw::new(FlawKind::Missing, "", "the body is missing")],
            (Some(None), _) => Vec::new(),
            (None, _) if UNDOCUMENTED.contains(&reply.status) => Vec::new(),
            (None, _) => vec![Flaw::new(FlawKind::Value, "", format!("the document has no {}", reply.status))],
        }
    }

    /// What is wrong with an object that a webhook carries.
    pub(crate) fn judge_object(&self, name: &'static str, object: &Value) -> Vec<Flaw> {
        match self.objects.get(name) {
            Some(schema) => schema.check(object),
            None => vec![Flaw::new(FlawKind::Other, "", format!("{name} is in no document"))],
        }
    }

    /// What the document says of an issue, for the answers that list them.
    pub(crate) fn issue(&self, place: Place, status: u16, issue: &str) -> Option<String> {
        let answer = self.shapes.get(&place)?.answers.get(&status.to_string())?.as_ref()?;
        schema::described(answer.schema(), issue)
    }
}

fn read_body(shape: Option<&Body>, call: &Call) -> Result<Value, Flaw> {
    let empty = || Value::Object(Map::new());
    let Some(shape) = shape else {
        let is_nothing = call.raw.is_empty() || call.raw.as_ref() == b"{}";
        return if is_nothing { Ok(empty()) } else { Err(Flaw::new(FlawKind::Unknown, "", "it takes no body")) };
    };
    if call.raw.is_empty() {
        return Ok(empty());
    }
    let expected = match shape.encoding {
        Encoding::Form => "application/x-www-form-urlencoded",
        Encoding::Json => "application/json",
    };
    if !call.header("content-type").starts_with(expected) {
        return Err(Flaw::new(FlawKind::Other, "", format!("the content type is not {expected}")));
    }
    match shape.encoding {
        Encoding::Form => {
            let text = std::str::from_utf8(&call.raw).map_err(|_| Flaw::new(FlawKind::Other, "", "it is no text"))?;
            let mut body = form::decode(text).map_err(|why| Flaw::new(FlawKind::Other, "", why))?;
            form::convert(&mut body, shape.schema.schema());
            Ok(body)
        }
        Encoding::Json => serde_json::from_slice(&call.raw)
            .map_err(|error| Flaw::new(FlawKind::Other, "", format!("it is no JSON: {error}"))),
    }
}

/// Something that the documents do not allow, or that no careful caller does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Breach {
    /// `request`, `answer` or `webhook`.
    pub(crate) side: &'static str,
    /// Which operation or event.
    pub(crate) of: String,
    /// Where in it, as a JSON pointer.
    pub(crate) at: String,
    /// What is wrong.
    pub(crate) what: String,
}

impl Breach {
    pub(crate) fn new(side: &'static str, of: &str, flaw: &Flaw) -> Breach {
        Breach { side, of: of.to_owned(), at: flaw.at.clone(), what: flaw.what.clone() }
    }
}
