//! What everything read from a gateway is held to before it is kept: an index holds its ids, and Postgres its
//! texts.

use serde_json::Value;
use uuid::Uuid;

/// Longest id of an event, a payment or a refund, in bytes.
pub(super) const MAX_ID: usize = 255;

/// An event's id; one that is too long for an index still names its event.
pub(super) fn event_id(id: &str) -> String {
    match id.len() {
        0..=MAX_ID => id.to_owned(),
        _ => Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).to_string(),
    }
}

/// The id of a listed payment. One without an id is somebody's money too.
pub(super) fn listed_id(item: &Value, name: &str) -> String {
    let id = item[name].as_str().filter(|id| id.len() <= MAX_ID).map(str::to_owned);
    id.unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, item.to_string().as_bytes()).to_string())
}

/// Whether Postgres can keep these; if not, why.
pub(super) fn check_texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<(), String> {
    match texts.into_iter().any(|text| text.contains('\0')) {
        true => Err("a text with a NUL".to_owned()),
        false => Ok(()),
    }
}

/// Whether an index can hold the id of `what`; if not, why.
pub(super) fn check_id(what: &str, id: &str) -> Result<(), String> {
    match id.len() {
        1..=MAX_ID => Ok(()),
        _ => Err(format!("a {what}'s id has 1 to {MAX_ID} bytes")),
    }
}
