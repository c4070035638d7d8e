//! From a request to types: every rejection is a problem, and says where.

use std::fmt;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::IntoResponse,
};
use domain::{
    card_data::{find_card_data, find_card_number, mentions_card_number},
    text,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::{Path as ErrorPath, Segment};

use crate::{
    error::{ApiError, FieldError},
    state::AppState,
};

/// A JSON body of ours. Malformed → 400 `malformed-json`; another media type → 415; wrong, missing or
/// unknown fields, and texts that no field may have → 422 `validation-failed` with a pointer; a card number
/// anywhere → 422 `card-data-refused`, neither echoed nor logged. Nesting is bounded by the parser (128).
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// The same for bodies that may tempt a client to send a card: fields that are named after card data are
/// refused, too, whatever they hold. Cards are the gateway's business: only tokens reach us.
#[derive(Debug, Clone, Copy)]
pub struct CheckedJson<T>(pub T);

/// The same for bodies with a password or a token of ours in them, which may be anything: they are hashed, and
/// never shown.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<T>(pub T);

/// Query parameters; anything unexpected → 422 `validation-failed`, a card number → 422 `card-data-refused`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

/// Path parameters; one that cannot be an id of ours → 404 `not-found`.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let body = json_bytes(request, state).await?;
        refuse_card_data(find_card_number(&parse_value(&body)?))?;
        parse_typed(&body).map(Json)
    }
}

impl<T: DeserializeOwned> FromRequest<AppState> for Credentials<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let body = json_bytes(request, state).await?;
        let mut value = parse_value(&body)?;
        if let Value::Object(fields) = &mut value {
            fields.retain(|name, _| !SECRET_FIELDS.contains(&name.as_str()));
        }
        refuse_card_data(find_card_number(&value))?;
        parse_typed(&body).map(Credentials)
    }
}

impl<T: DeserializeOwned> OptionalFromRequest<AppState> for Credentials<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Option<Self>, ApiError> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            return no_body(request, state).await.map(|()| None);
        }
        <Self as FromRequest<AppState>>::from_request(request, state).await.map(Some)
    }
}

impl<T: DeserializeOwned> FromRequest<AppState> for CheckedJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let body = json_bytes(request, state).await?;
        refuse_card_data(find_card_data(&parse_value(&body)?))?;
        parse_typed(&body).map(CheckedJson)
    }
}

/// No body at all is `None`; anything else must be what it should.
impl<T: DeserializeOwned> OptionalFromRequest<AppState> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Option<Self>, ApiError> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            return no_body(request, state).await.map(|()| None);
        }
        <Self as FromRequest<AppState>>::from_request(request, state).await.map(Some)
    }
}

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

async fn no_body(request: Request, state: &AppState) -> Result<(), ApiError> {
    if read_body(request, state).await?.is_empty() { Ok(()) } else { Err(unsupported_media_type()) }
}

async fn json_bytes(request: Request, state: &AppState) -> Result<Bytes, ApiError> {
    if !is_json(request.headers()) {
        return Err(unsupported_media_type());
    }
    read_body(request, state).await
}

fn unsupported_media_type() -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Send the body as application/json.")
}

/// The whole body, up to the configured limit.
///
/// # Errors
/// 413 `body-too-large`, or 400 `malformed-body` when the connection broke within it.
pub(crate) async fn read_body(request: Request, state: &AppState) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::body_too_large(state.config.max_body_bytes)
        } else {
            ApiError::bad_request("malformed-body", "The body could not be read.").caused_by(rejection)
        }
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse_value(body: &[u8]) -> Result<Value, ApiError> {
    let value = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(
            "malformed-json",
            format!("The body is not JSON: line {}, column {}.", error.line(), error.column()),
        )
    })?;
    match find_unfit(&value) {
        Some((pointer, unfit)) => Err(ApiError::invalid(vec![FieldError::new(pointer, unfit.to_string())])),
        None => Ok(value),
    }
}

/// Reads the type from the text and not from the value, so that a field given twice is noticed.
fn parse_typed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let message = error.inner().to_string();
        ApiError::invalid(vec![field_error(error.path(), &message)])
    })
}

/// Fields of [`Credentials`] that may look like anything.
const SECRET_FIELDS: [&str; 2] = ["password", "refreshToken"];

/// Refuses what was found at a place.
pub(crate) fn refuse_card_data(found: Option<String>) -> Result<(), ApiError> {
    match found {
        Some(pointer) => {
            let refusal = ApiError::unprocessable(
                "card-data-refused",
                "Card data must never be sent here; send the payment token that the gateway gave you.",
            );
            Err(refusal.with_errors(vec![FieldError::new(pointer, "looks like card data")]))
        }
        None => Ok(()),
    }
}

/// Why a text is taken in by no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    /// It contains this character.
    Character(char),
    /// It has more characters than this.
    Longer(usize),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Character(character) => write!(f, "contains the character U+{:04X}", u32::from(*character)),
            Unfit::Longer(most) => write!(f, "must have at most {most} characters"),
        }
    }
}

fn unfit(text: &str) -> Option<Unfit> {
    let too_long = || (text.chars().count() > text::MAX_CHARS).then_some(Unfit::Longer(text::MAX_CHARS));
    text.chars().find(|character| text::is_unfit(*character)).map(Unfit::Character).or_else(too_long)
}

/// The first text that no field here may have, and where it is.
fn find_unfit(value: &Value) -> Option<(String, Unfit)> {
    match value {
        Value::String(text) => unfit(text).map(|why| (String::new(), why)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_unfit(item).map(|(rest, why)| (format!("/{index}{rest}"), why))),
        Value::Object(members) => members.iter().find_map(|(name, member)| match unfit(name) {
            Some(why) => Some((String::new(), why)),
            None => find_unfit(member).map(|(rest, why)| (format!("/{}{rest}", escape(name)), why)),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// serde says *what*, the path says *where*; for a missing or unknown field the name is only in serde's
/// sentence.
fn field_error(path: &ErrorPath, message: &str) -> FieldError {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escape(key))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    // serde_json appends its position, which the pointer replaces.
    let message = message.rsplit_once(" at line ").map_or(message, |(sentence, _)| sentence);
    if let Some(name) = named_field(message)
        && (message.starts_with("missing") || !pointer.ends_with(&name))
    {
        pointer.push_str(&name);
    }
    FieldError::new(pointer, message)
}

/// The pointer to the field that serde's sentence is about.
fn named_field(message: &str) -> Option<String> {
    ["missing field `", "unknown field `", "duplicate field `"]
        .into_iter()
        .find_map(|prefix| message.strip_prefix(prefix)?.split('`').next())
        .map(|name| format!("/{}", escape(name)))
}

/// RFC 6901 §3.
fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        check_query(&parts.uri)?;
        let axum::extract::Query(query) = axum::extract::Query::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let message = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, message)| message);
            ApiError::invalid(vec![parameter_error(message)])
        })?;
        Ok(Query(query))
    }
}

/// What is asked for in a query obeys the rule for texts of one line, as everything that is typed.
fn check_query(uri: &Uri) -> Result<(), ApiError> {
    let Ok(axum::extract::Query(pairs)) = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Ok(());
    };
    for (name, value) in pairs {
        let pointer = || format!("/{}", escape(&name));
        if mentions_card_number(&value) || mentions_card_number(&name) {
            return refuse_card_data(Some(String::new()));
        }
        let control = value.chars().find(|character| character.is_control()).map(Unfit::Character);
        if let Some(why) = control.or_else(|| unfit(&value)) {
            return Err(ApiError::invalid(vec![FieldError::new(pointer(), why.to_string())]));
        }
    }
    Ok(())
}

/// The parser says `name: sentence`, or names a missing parameter in the sentence.
fn parameter_error(message: &str) -> FieldError {
    match message.split_once(": ") {
        Some((name, detail)) if !name.contains(' ') => FieldError::new(format!("/{}", escape(name)), detail),
        Some(_) | None => FieldError::new(named_field(message).unwrap_or_default(), message),
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Path(path)),
            Err(_) => Err(ApiError::not_found("not-found", "There is nothing here.")),
        }
    }
}

/// For a field of a change: left out is `None` and stays as it is, null is `Some(None)` and empties it.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Order {
        order_lines: Vec<Line>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Line {
        sku: String,
        quantity: u32,
    }

    fn pointer_of(body: &str) -> String {
        let mut reader = serde_json::Deserializer::from_str(body);
        let error = serde_path_to_error::deserialize::<_, Order>(&mut reader).expect_err("invalid");
        field_error(error.path(), &error.inner().to_string()).pointer
    }

    #[test]
    fn an_invalid_field_is_pointed_at() {
        for (body, pointer) in [
            (r#"{}"#, "/orderLines"),
            (r#"{"orderLines":[{"sku":"A","quantity":"two"}]}"#, "/orderLines/0/quantity"),
            (r#"{"orderLines":[{"sku":"A","quantity":1},{"sku":"B"}]}"#, "/orderLines/1/quantity"),
            (r#"{"orderLines":[{"sku":"A","quantity":1,"x/y":0}]}"#, "/orderLines/0/x~1y"),
            (r#"{"orderLines":[{"sku":"A","sku":"B","quantity":1}]}"#, "/orderLines/0/sku"),
        ] {
            assert_eq!(pointer_of(body), pointer, "{body}");
        }
    }

    #[test]
    fn an_invalid_parameter_is_pointed_at() {
        assert_eq!(parameter_error("limit: invalid digit found in string").pointer, "/limit");
        assert_eq!(parameter_error("missing field `sku`").pointer, "/sku");
        assert_eq!(parameter_error("something else: entirely").pointer, "");
    }

    #[test]
    fn a_character_that_cannot_be_stored_or_deceives_is_found_wherever_it_is() {
        for (value, found) in [
            (json!({"a": [{"b": "x\0y"}]}), Some(("/a/0/b", Unfit::Character('\0')))),
            (json!({"a": "\u{1b}[2J"}), Some(("/a", Unfit::Character('\u{1b}')))),
            (json!({"a/b": "cod.\u{202e}exe"}), Some(("/a~1b", Unfit::Character('\u{202e}')))),
            (json!({"\u{2066}": 1}), Some(("", Unfit::Character('\u{2066}')))),
            (json!({"a": "x".repeat(5_001)}), Some(("/a", Unfit::Longer(5_000)))),
            (json!({"a": "several\r\n\tlines"}), None),
            (json!({"a": ["नमस्ते \u{200d}", "👩\u{200d}🚀", 1, null]}), None),
        ] {
            let place = find_unfit(&value);
            assert_eq!(place.as_ref().map(|(pointer, why)| (pointer.as_str(), *why)), found, "{value}");
        }
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().expect("a header value"));
            is_json(&headers)
        };
        assert!(check("application/json; charset=utf-8"));
        assert!(check("application/merge-patch+json"));
        assert!(!check("text/plain"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
