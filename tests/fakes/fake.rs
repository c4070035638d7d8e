//! How a call lives, from its arrival to its answer: the same for all providers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Method;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::{
    books::CallRow,
    call::{Call, Reply},
    contract::{Breach, Contract, Flaw},
    gateway::{Desk, Gateway, KeyRule, Operation, RefundCourse, Refusal},
    keys::{KeyId, Keys, Seen},
    misfortune::{Kind, Misfortune, Misfortunes},
    webhooks::Outbox,
};

/// Most breaches that are remembered.
const MOST_BREACHES: usize = 1_000;

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Answered(Reply),
    /// The connection ends without an answer.
    Lost,
}

/// One account with a provider.
pub(crate) struct Fake<G> {
    pub(crate) gateway: Mutex<G>,
    pub(crate) misfortunes: Mutex<Misfortunes>,
    pub(crate) breaches: Mutex<Vec<Breach>>,
    pub(crate) calls: Mutex<Vec<CallRow>>,
    pub(crate) refunds: Mutex<RefundCourse>,
    pub(crate) outbox: Arc<Outbox>,
    contract: Contract,
    keys: Mutex<Keys>,
}

/// Whoever panicked had not begun to write.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<G: Gateway> Fake<G> {
    pub(crate) fn new(gateway: G, contract: Contract, outbox: Arc<Outbox>) -> Fake<G> {
        Fake {
            gateway: Mutex::new(gateway),
            misfortunes: Mutex::default(),
            breaches: Mutex::default(),
            calls: Mutex::default(),
            refunds: Mutex::default(),
            outbox,
            contract,
            keys: Mutex::default(),
        }
    }

    /// Lets something happen to the account, and sends the news of it.
    pub(crate) fn happen<T>(&self, key: Option<String>, what: impl FnOnce(&mut G, &mut Desk) -> T) -> T {
        let mut desk = Desk { now: self.outbox.now(), key, refunds: *lock(&self.refunds), news: Vec::new() };
        let mut gateway = lock(&self.gateway);
        let done = what(&mut gateway, &mut desk);
        // In the order of what happened: nobody else is at it before the news is out.
        for message in desk.news {
            for (name, object) in &message.objects {
                self.remember("webhook", &message.kind, &self.contract.judge_object(name, object));
            }
            self.outbox.post(message);
        }
        done
    }

    /// Remembers what the documents do not allow.
    pub(crate) fn remember(&self, side: &'static str, of: &str, flaws: &[Flaw]) {
        let mut breaches = lock(&self.breaches);
        let room = MOST_BREACHES.saturating_sub(breaches.len());
        breaches.extend(flaws.iter().take(room).map(|flaw| Breach::new(side, of, flaw)));
    }

    /// What becomes of a call, and what is remembered of it.
    pub(crate) async fn take(self: Arc<Self>, method: Method, path: String, mut call: Call) -> Outcome {
        let known = G::OPERATIONS.iter().find_map(|one| Some((one, one.parts(method.as_str(), &path)?)));
        let Some((operation, parts)) = known else {
            self.remember("request", &format!("{method} {path}"), &[Flaw::other("there is no such call")]);
            return Outcome::Answered(G::refuse(None, Refusal::NoSuchCall));
        };
        call.parts = parts;
        call.key = operation.key.map(|rule| call.header(rule.header).to_owned()).filter(|key| !key.is_empty());
        // Whatever befalls it, this is what was sent.
        let flaws = self.contract.read(operation.place, &mut call);
        let misfortune = lock(&self.misfortunes).deal(operation.class, call.key.is_some());
        let row = CallRow {
            method: method.to_string(),
            path,
            operation: operation.class,
            key: call.key.clone(),
            reference: call.reference(),
            status: None,
            misfortune: misfortune.map(|dealt| dealt.kind),
        };
        let at = {
            let mut calls = lock(&self.calls);
            calls.push(row);
            calls.len() - 1
        };
        let outcome = self.go_through(operation, call, &flaws, misfortune).await;
        if let (Outcome::Answered(reply), Some(row)) = (&outcome, lock(&self.calls).get_mut(at)) {
            row.status = Some(reply.status);
        }
        outcome
    }

    async fn go_through(
        &self,
        operation: &Operation<G>,
        call: Call,
        flaws: &[Flaw],
        fate: Option<Misfortune>,
    ) -> Outcome {
        let kind = fate.map(|dealt| dealt.kind);
        if kind == Some(Kind::LoseRequest) {
            return Outcome::Lost;
        }
        let refused = |refusal: Refusal<'_>| {
            let reply = G::polish(&self.contract, operation.place, G::refuse(Some(operation), refusal));
            self.judge(operation, &reply);
            Outcome::Answered(reply)
        };
        if let Some(refusal) = kind.and_then(at_the_door) {
            return refused(refusal);
        }
        if !lock(&self.gateway).admits(operation, &call) {
            return refused(Refusal::WrongCredentials);
        }
        self.remember("request", &of(operation), &G::oddities(&call));
        if !flaws.is_empty() {
            self.remember("request", &of(operation), flaws);
            return refused(Refusal::Malformed(flaws));
        }
        let id = key_id(operation, &call);
        if let (Some((id, rule)), seen) = (&id, self.seen(id.as_ref(), &call)) {
            match seen {
                Seen::Never => {}
                Seen::InFlight => return refused(Refusal::InFlight),
                Seen::Answered(first) => return self.repeated(operation, &call, first, kind),
                Seen::Otherwise(first) => match G::reused() {
                    Some(reply) => {
                        self.judge(operation, &reply);
                        return Outcome::Answered(reply);
                    }
                    None => {
                        let what = format!("{} {} is for another call", rule.header, id.key);
                        self.remember("request", &of(operation), &[Flaw::other(&what)]);
                        return self.repeated(operation, &call, first, kind);
                    }
                },
            }
        }
        if let Some(Misfortune { kind: Kind::Delay, delay }) = fate {
            tokio::time::sleep(delay).await;
        }
        let reply = self.perform(operation, &call, kind);
        let error = || G::polish(&self.contract, operation.place, G::refuse(Some(operation), Refusal::ServerError));
        let said = if kind == Some(Kind::ServerErrorAfterEffect) { error() } else { reply.clone() };
        if let Some((id, _)) = &id {
            let kept = [&said, &reply].into_iter().find(|reply| G::keeps(reply)).cloned();
            lock(&self.keys).end(id, kept);
        }
        self.judge(operation, &said);
        if kind == Some(Kind::LoseAnswer) { Outcome::Lost } else { Outcome::Answered(said) }
    }

    /// Carries a call out, unless something else comes of it.
    fn perform(&self, operation: &Operation<G>, call: &Call, kind: Option<Kind>) -> Reply {
        let reply = match kind {
            Some(Kind::ServerError) => G::refuse(Some(operation), Refusal::ServerError),
            Some(Kind::NoBalance) => G::refuse(Some(operation), Refusal::NoBalance),
            Some(
                Kind::LoseAnswer
                | Kind::LoseRequest
                | Kind::Delay
                | Kind::ServerErrorAfterEffect
                | Kind::RateLimit
                | Kind::InFlight
                | Kind::WrongCredentials,
            )
            | None => self.happen(call.key.clone(), |gateway, desk| (operation.perform)(gateway, call, desk)),
        };
        G::polish(&self.contract, operation.place, reply)
    }

    fn repeated(&self, operation: &Operation<G>, call: &Call, first: Reply, kind: Option<Kind>) -> Outcome {
        let reply = lock(&self.gateway).again(call, first);
        self.judge(operation, &reply);
        if kind == Some(Kind::LoseAnswer) { Outcome::Lost } else { Outcome::Answered(reply) }
    }

    fn seen(&self, id: Option<&(KeyId, KeyRule)>, call: &Call) -> Seen {
        let Some((id, rule)) = id else { return Seen::Never };
        lock(&self.keys).begin(id, call.likeness(), self.outbox.now(), TimeDelta::hours(rule.hours))
    }

    fn judge(&self, operation: &Operation<G>, reply: &Reply) {
        self.remember("answer", &of(operation), &self.contract.judge(operation.place, reply));
    }

    /// All that the account holds, and all calls.
    pub(crate) fn ledger(&self) -> Value {
        let books = lock(&self.gateway).books();
        books.ledger(G::native, &lock(&self.calls))
    }

    /// All that it has let out and that belongs in nobody's log.
    pub(crate) fn secrets(&self) -> Value {
        json!(lock(&self.gateway).secrets())
    }

    pub(crate) fn breaches(&self) -> Value {
        json!(*lock(&self.breaches))
    }
}

/// What is said before anybody has looked at the call.
fn at_the_door(kind: Kind) -> Option<Refusal<'static>> {
    match kind {
        Kind::RateLimit => Some(Refusal::RateLimited),
        Kind::InFlight => Some(Refusal::InFlight),
        Kind::WrongCredentials => Some(Refusal::WrongCredentials),
        Kind::LoseAnswer
        | Kind::LoseRequest
        | Kind::Delay
        | Kind::ServerError
        | Kind::ServerErrorAfterEffect
        | Kind::NoBalance => None,
    }
}

fn of<G>(operation: &Operation<G>) -> String {
    format!("{} {}", operation.place.method, operation.place.path)
}

fn key_id<G>(operation: &Operation<G>, call: &Call) -> Option<(KeyId, KeyRule)> {
    let (rule, key) = (operation.key?, call.key.clone()?);
    Some((KeyId { scope: rule.scope, key }, rule))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use clap::Parser as _;

    use super::*;
    use crate::{arguments::Arguments, misfortune::Script, stripe::Stripe};

    fn account() -> Arc<Fake<Stripe>> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let arguments = Arguments::parse_from(["fake-gateway", "stripe", "--secret", "sk_test_1"]);
        let outbox = Outbox::start(None, "whsec_1".to_owned(), Stripe::sign, Stripe::write).expect("an outbox");
        let contract = Stripe::contract().expect("a contract");
        Arc::new(Fake::new(Stripe::open(&arguments, "http://fake"), contract, outbox))
    }

    async fn post(fake: &Arc<Fake<Stripe>>, path: &str, key: &str, form: &str) -> Option<(u16, Value)> {
        let headers = [
            ("authorization", "Bearer sk_test_1"),
            ("stripe-version", "2023-08-16"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("idempotency-key", key),
        ];
        let headers = headers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        let call = Call {
            path: path.to_owned(),
            query: String::new(),
            headers: HeaderMap::from_iter(headers),
            raw: form.as_bytes().to_vec().into(),
            parts: Vec::new(),
            parameters: Value::Null,
            body: Value::Null,
            key: None,
        };
        match Arc::clone(fake).take(Method::POST, path.to_owned(), call).await {
            Outcome::Answered(reply) => Some((reply.status, reply.body.unwrap_or_default())),
            Outcome::Lost => None,
        }
    }

    async fn paid(fake: &Arc<Fake<Stripe>>) -> String {
        let form = "amount=1000&currency=usd&confirm=true&payment_method=pm_card_visa";
        let (_, payment) = post(fake, "/v1/payment_intents", "pay", form).await.expect("an answer");
        payment["id"].as_str().expect("an id").to_owned()
    }

    #[tokio::test]
    async fn a_misfortune_shows_at_once_under_its_key_and_in_the_books() {
        // What comes of the call, of its repetition under the same key, and how much went back in the end.
        let table = [
            ("lose-answer", None, Some(200), "1.00"),
            ("lose-request", None, Some(200), "1.00"),
            ("server-error", Some(500), Some(500), "0.00"),
            ("server-error-after-effect", Some(500), Some(500), "1.00"),
            ("no-balance", Some(400), Some(400), "0.00"),
            ("rate-limit", Some(429), Some(200), "1.00"),
            ("in-flight", Some(409), Some(200), "1.00"),
            ("wrong-credentials", Some(401), Some(200), "1.00"),
        ];
        for (kind, first, second, refunded) in table {
            let fake = account();
            let form = format!("payment_intent={}&amount=100", paid(&fake).await);
            let script = json!({ "operation": "refund", "kind": kind });
            lock(&fake.misfortunes).plan(serde_json::from_value::<Script>(script).expect("a script"));
            let refund = async || post(&fake, "/v1/refunds", "refund", &form).await.map(|(status, _)| status);
            assert_eq!((refund().await, refund().await), (first, second), "{kind}");
            assert_eq!(fake.ledger()["sums"]["USD"]["refunded"], refunded, "{kind}");
            assert_eq!(fake.breaches(), json!([]), "{kind}");
        }
    }

    #[tokio::test]
    async fn what_the_documents_do_not_allow_is_refused_and_remembered() {
        let fake = account();
        let refused = post(&fake, "/v1/refunds", "key", "payment_intent=pi_1&amount=much&order=1").await;
        assert_eq!(refused.map(|(status, _)| status), Some(400));
        assert_eq!(post(&fake, "/v1/tokens", "key", "").await.map(|(status, _)| status), Some(404));
        let breaches = fake.breaches();
        let found: Vec<_> = breaches.as_array().into_iter().flatten().map(|one| (&one["of"], &one["at"])).collect();
        let refund = json!("POST /v1/refunds");
        let expected =
            [(&refund, &json!("/amount")), (&refund, &json!("/order")), (&json!("POST /v1/tokens"), &json!(""))];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(expected.iter().all(|breach| found.contains(breach)), "{found:?}");
    }
}
