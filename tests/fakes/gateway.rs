//! What every provider has to say for itself.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    arguments::Arguments,
    books::{Books, Outcome},
    call::{Call, Reply},
    contract::{Contract, Flaw, Place},
    misfortune::Class,
    money::Amount,
    webhooks::Message,
};

/// One operation of a provider.
pub(crate) struct Operation<G: 'static> {
    pub(crate) place: Place,
    pub(crate) class: Class,
    pub(crate) key: Option<KeyRule>,
    pub(crate) perform: fn(&mut G, &Call, &mut Desk) -> Reply,
}

/// Where an operation's idempotency key stands, and how long it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRule {
    pub(crate) header: &'static str,
    /// Keys of one scope are one set.
    pub(crate) scope: &'static str,
    pub(crate) hours: i64,
}

impl<G> Operation<G> {
    pub(crate) const fn get(path: &'static str, perform: fn(&mut G, &Call, &mut Desk) -> Reply) -> Operation<G> {
        Operation { place: Place { method: "GET", path }, class: Class::Find, key: None, perform }
    }

    pub(crate) const fn post(
        path: &'static str,
        class: Class,
        key: Option<KeyRule>,
        perform: fn(&mut G, &Call, &mut Desk) -> Reply,
    ) -> Operation<G> {
        Operation { place: Place { method: "POST", path }, class, key, perform }
    }

    /// What stands where its path has braces; none if this is another path.
    pub(crate) fn parts(&self, method: &str, path: &str) -> Option<Vec<String>> {
        let (mut template, mut given) = (self.place.path.split('/'), path.split('/'));
        let mut parts = Vec::new();
        if self.place.method != method {
            return None;
        }
        loop {
            match (template.next(), given.next()) {
                (None, None) => return Some(parts),
                (Some(braced), Some(part)) if braced.starts_with('{') && !part.is_empty() => {
                    parts.push(part.to_owned())
                }
                (Some(expected), Some(part)) if expected == part => {}
                (_, _) => return None,
            }
        }
    }
}

/// Why a call comes to nothing, whatever it was about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal<'a> {
    NoSuchCall,
    WrongCredentials,
    Malformed(&'a [Flaw]),
    RateLimited,
    InFlight,
    ServerError,
    NoBalance,
}

/// How refunds begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RefundCourse {
    /// They are over at once.
    #[default]
    Succeeded,
    /// They are under way until they are told how they end.
    Pending,
    /// They fail at once.
    Failed,
}

/// What a call or a turn of fate finds on the table.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) now: DateTime<Utc>,
    pub(crate) key: Option<String>,
    pub(crate) refunds: RefundCourse,
    /// Webhooks to be sent, in their order.
    pub(crate) news: Vec<Message>,
}

/// Whoever stands before the provider's page.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Shopping {
    pub(crate) payment: String,
    pub(crate) does: Deed,
    /// What they pay with; what there is to choose differs.
    #[serde(default, rename = "with")]
    pub(crate) means: Option<String>,
}

/// What they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Deed {
    Approve,
    Decline,
    Authenticate,
    Abandon,
}

/// What happens to a payment that nobody has asked for through the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Turn {
    /// It is taken although it was not to be.
    CaptureLate,
    /// What was under way ends well.
    Settle,
    /// What was under way ends badly.
    Fail,
    /// What was set aside or agreed to is let go.
    Lapse,
    /// Somebody takes it on the provider's own site.
    Capture,
    /// Somebody gives it back there.
    Refund,
}

/// A turn, and how much it is about.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Event {
    pub(crate) event: Turn,
    /// Of a refund, in major units; the rest if there is none.
    #[serde(default)]
    pub(crate) amount: Option<Decimal>,
}

/// How a refund goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RefundTurn {
    Succeed,
    Fail,
}

/// What fate may do: the state of the thing afterwards, or why it cannot be.
pub(crate) type Told = Result<Value, String>;

/// A provider.
pub(crate) trait Gateway: Sized + Send + 'static {
    /// All that it can be asked.
    const OPERATIONS: &'static [Operation<Self>];

    /// An account without anything in it; `base` is where it is served.
    fn open(arguments: &Arguments, base: &str) -> Self;

    /// What its documents say.
    ///
    /// # Errors
    /// A document cannot be read, or lacks an operation.
    fn contract() -> anyhow::Result<Contract>;

    /// Whether the call has the right credentials.
    fn admits(&self, operation: &Operation<Self>, call: &Call) -> bool;

    /// What it says in such a case.
    fn refuse(operation: Option<&Operation<Self>>, refusal: Refusal<'_>) -> Reply;

    /// What is strange about a call that it carries out all the same.
    fn oddities(_: &Call) -> Vec<Flaw> {
        Vec::new()
    }

    /// Whether an answer is kept under the call's key.
    fn keeps(reply: &Reply) -> bool;

    /// What is answered to a repetition of a call.
    fn again(&self, _: &Call, first: Reply) -> Reply {
        first
    }

    /// What is answered to another call under the same key; none if it is taken for a repetition.
    fn reused() -> Option<Reply>;

    /// The last touch to an answer.
    fn polish(_: &Contract, _: Place, reply: Reply) -> Reply {
        reply
    }

    fn shopper(&mut self, shopping: &Shopping, desk: &mut Desk) -> Told;

    fn turn(&mut self, payment: &str, event: &Event, desk: &mut Desk) -> Told;

    fn turn_refund(&mut self, refund: &str, turn: RefundTurn, desk: &mut Desk) -> Told;

    fn dispute(&mut self, payment: &str, outcome: Outcome, desk: &mut Desk) -> Told;

    fn books(&self) -> Books;

    /// What it has let out and that belongs in nobody's log.
    fn secrets(&self) -> Vec<String>;

    /// An amount as it writes it.
    fn native(amount: Amount) -> Value {
        json!(amount.minor)
    }

    /// A webhook's body as it writes it.
    fn write(body: &Value) -> String;

    /// A webhook's headers.
    fn sign(secret: &str, message: &Message, now: DateTime<Utc>) -> Vec<(&'static str, String)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_its_template_only() {
        let operation: Operation<()> =
            Operation::get("/v1/payments/{payment}/refunds/{refund}", |(), _, _| Reply::empty(200));
        let parts = operation.parts("GET", "/v1/payments/pay_1/refunds/rfnd_1");
        assert_eq!(parts, Some(vec!["pay_1".to_owned(), "rfnd_1".to_owned()]));
        for path in ["/v1/payments/pay_1/refunds", "/v1/payments//refunds/rfnd_1", "/v1/payments/a/refunds/b/c"] {
            assert_eq!(operation.parts("GET", path), None, "{path}");
        }
        assert_eq!(operation.parts("POST", "/v1/payments/pay_1/refunds/rfnd_1"), None);
    }
}
