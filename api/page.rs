//! Lists: `?limit=` and an opaque `?cursor=` in, `{items, nextCursor}` out.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use domain::text::is_unfit;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    error::{ApiError, FieldError},
    valid::is_writable,
};

/// Most items of one page.
pub const MAX_LIMIT: i64 = 200;

/// Items of a page when the client does not say.
const DEFAULT_LIMIT: i64 = 50;

/// Which page a client asks for.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items wanted, 1 to 200; 50 when left out.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<i64>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Where the next page starts; null on the last one.
    pub next_cursor: Option<String>,
}

impl PageQuery {
    /// How many items.
    ///
    /// # Errors
    /// 422 `validation-failed` outside 1 to 200.
    pub fn limit(&self) -> Result<i64, ApiError> {
        match self.limit {
            None => Ok(DEFAULT_LIMIT),
            Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
            Some(_) => Err(ApiError::invalid(vec![FieldError::new("/limit", format!("must be 1 to {MAX_LIMIT}"))])),
        }
    }

    /// The position after which the page starts: what [`Page::cut`] put into the cursor.
    ///
    /// # Errors
    /// 422 `validation-failed` for a cursor that is none of ours.
    pub fn after<P: DeserializeOwned>(&self) -> Result<Option<P>, ApiError> {
        self.cursor.as_deref().map(|cursor| read_cursor(cursor, "/cursor")).transpose()
    }
}

/// The position a cursor stands for; `pointer` names the parameter it came in.
///
/// # Errors
/// 422 `validation-failed` for a cursor that is none of ours.
pub(crate) fn read_cursor<P: DeserializeOwned>(cursor: &str, pointer: &str) -> Result<P, ApiError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .filter(is_ours)
        .and_then(|position| serde_json::from_value(position).ok())
        .ok_or_else(|| ApiError::invalid(vec![FieldError::new(pointer, "is not a cursor of this list")]))
}

/// Whether every instant and text of a position is one that we could have put there.
fn is_ours(position: &Value) -> bool {
    match position {
        Value::String(text) => {
            let instant = text.parse::<DateTime<Utc>>();
            instant.map_or_else(|_| !text.chars().any(is_unfit), is_writable)
        }
        Value::Array(parts) => parts.iter().all(is_ours),
        Value::Object(parts) => parts.values().all(is_ours),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The cursor that stands for a position: a number, an id or a pair of them, which always has a JSON form.
pub(crate) fn write_cursor<P: Serialize>(position: P) -> Option<String> {
    serde_json::to_vec(&position).ok().map(|json| BASE64_URL_SAFE_NO_PAD.encode(json))
}

impl<T> Page<T> {
    /// Cuts `limit` items off a result that was fetched with `limit + 1` rows: the extra row tells that
    /// there is more. `position` of the last item kept becomes the cursor.
    pub fn cut<P: Serialize>(mut items: Vec<T>, limit: i64, position: impl FnOnce(&T) -> P) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).and_then(|last| write_cursor(position(last)));
        Page { items, next_cursor }
    }

    /// The same page of other items.
    pub fn map<U>(self, into: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(into).collect(), next_cursor: self.next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_to_the_position_it_was_made_from() {
        let page = Page::cut(vec![1, 2, 3], 2, |last| *last);
        assert_eq!(page.items, [1, 2]);
        let query = PageQuery { limit: None, cursor: page.next_cursor };
        assert_eq!(query.after::<i32>().expect("ours"), Some(2));
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        assert_eq!(Page::cut(vec![1, 2], 2, |last| *last).next_cursor, None);
        assert_eq!(Page::cut(Vec::<i32>::new(), 2, |last| *last).next_cursor, None);
    }

    #[test]
    fn limits_and_cursors_from_outside_are_checked() {
        let query = |limit, cursor: Option<&str>| PageQuery { limit, cursor: cursor.map(str::to_owned) };
        assert_eq!(query(None, None).limit().expect("the default"), 50);
        assert!(query(Some(0), None).limit().is_err());
        assert!(query(Some(201), None).limit().is_err());
        assert!(query(None, Some("!!")).after::<i32>().is_err());
        assert!(query(None, Some("e30")).after::<i32>().is_err());
        for (instant, fine) in [
            ("2026-01-01T00:00:00Z", true),
            ("1969-12-31T23:59:59Z", false),
            ("-0001-01-01T00:00:00Z", false),
            ("+10000-01-01T00:00:00Z", false),
            ("+262142-01-01T00:00:00Z", false),
        ] {
            let cursor = write_cursor((instant, 1));
            let position = query(None, cursor.as_deref()).after::<(DateTime<Utc>, i32)>();
            assert_eq!(position.is_ok(), fine, "{instant}");
        }
        assert!(query(None, write_cursor("a\0").as_deref()).after::<String>().is_err());
    }
}
