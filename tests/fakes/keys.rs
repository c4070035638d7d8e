//! Idempotency keys: who has been here before, and what they were told.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::call::Reply;

/// What a key and all that shares it hangs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyId {
    /// Empty if one key is for all operations.
    pub(crate) scope: &'static str,
    pub(crate) key: String,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// Nothing; from now on it is in flight.
    Never,
    /// Its first call has not been answered yet.
    InFlight,
    /// It was answered with this.
    Answered(Reply),
    /// It was for another call, which was answered with this.
    Otherwise(Reply),
}

#[derive(Debug)]
struct Entry {
    likeness: (String, Value),
    since: DateTime<Utc>,
    reply: Option<Reply>,
}

/// All keys of an account.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<KeyId, Entry>);

impl Keys {
    /// Looks a key up that lives for so long, and takes it if it is free.
    pub(crate) fn begin(
        &mut self,
        id: &KeyId,
        likeness: (String, Value),
        now: DateTime<Utc>,
        lifetime: TimeDelta,
    ) -> Seen {
        let known = self.0.get(id).filter(|entry| entry.reply.is_none() || now - entry.since < lifetime);
        match known {
            None => {
                self.0.insert(id.clone(), Entry { likeness, since: now, reply: None });
                Seen::Never
            }
            Some(Entry { reply: None, .. }) => Seen::InFlight,
            Some(Entry { reply: Some(reply), likeness: first, .. }) if *first == likeness => {
                Seen::Answered(reply.clone())
            }
            Some(Entry { reply: Some(reply), .. }) => Seen::Otherwise(reply.clone()),
        }
    }

    /// The call is over: what was answered is kept, or the key is free again.
    pub(crate) fn end(&mut self, id: &KeyId, reply: Option<Reply>) {
        match (self.0.get_mut(id), reply) {
            (Some(entry), Some(reply)) => entry.reply = Some(reply),
            (Some(_), None) => drop(self.0.remove(id)),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_is_free_in_flight_answered_or_anothers() {
        let id = KeyId { scope: "", key: "k".to_owned() };
        let reply = Reply::new(402, json!({ "error": {} }));
        let call = |amount: i64| ("/v1/refunds".to_owned(), json!({ "amount": amount }));
        let other_path = ("/v1/payment_intents".to_owned(), json!({ "amount": 1 }));
        let (noon, day) = (DateTime::UNIX_EPOCH, TimeDelta::hours(24));
        let (soon, late) = (noon + TimeDelta::hours(23), noon + TimeDelta::hours(24));
        let table = [
            ("unknown", None, call(1), noon, Seen::Never),
            ("in flight", Some(None), call(1), late, Seen::InFlight),
            ("in flight, another body", Some(None), call(2), noon, Seen::InFlight),
            ("answered", Some(Some(reply.clone())), call(1), soon, Seen::Answered(reply.clone())),
            ("another body", Some(Some(reply.clone())), call(2), soon, Seen::Otherwise(reply.clone())),
            ("another path", Some(Some(reply.clone())), other_path, soon, Seen::Otherwise(reply.clone())),
            ("forgotten", Some(Some(reply)), call(2), late, Seen::Never),
        ];
        for (name, before, likeness, now, seen) in table {
            let mut keys = Keys::default();
            if let Some(answered) = before {
                assert_eq!(keys.begin(&id, call(1), noon, day), Seen::Never);
                if answered.is_some() {
                    keys.end(&id, answered);
                }
            }
            assert_eq!(keys.begin(&id, likeness, now, day), seen, "{name}");
        }
    }

    #[test]
    fn a_key_whose_answer_is_not_kept_is_free_again() {
        let id = KeyId { scope: "refund", key: "k".to_owned() };
        let likeness = ("/v1".to_owned(), json!({}));
        let mut keys = Keys::default();
        keys.begin(&id, likeness.clone(), DateTime::UNIX_EPOCH, TimeDelta::hours(1));
        keys.end(&id, None);
        assert_eq!(keys.begin(&id, likeness, DateTime::UNIX_EPOCH, TimeDelta::hours(1)), Seen::Never);
    }
}
