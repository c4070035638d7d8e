//! Sends webhooks, as well or as badly as the script says; tries a few times where they are not taken.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};

use crate::fake::lock;

/// How long a receiver may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The pauses before the second and later tries.
const PAUSES_MS: [u64; 5] = [100, 200, 500, 1_000, 3_000];

/// How long messages wait for others to change places with.
const REORDER_WAIT: Duration = Duration::from_millis(500);

/// Something that a provider has to tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: String,
    /// In the provider's words.
    pub(crate) kind: String,
    pub(crate) body: Value,
    /// What of it is to be held against which schema.
    pub(crate) objects: Vec<(&'static str, Value)>,
    /// As it is sent.
    pub(crate) text: String,
}

impl Message {
    pub(crate) fn new(id: String, kind: &str, body: Value, objects: Vec<(&'static str, Value)>) -> Message {
        Message { id, kind: kind.to_owned(), body, objects, text: String::new() }
    }
}

/// How they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    #[default]
    Normal,
    /// Not at all.
    None,
    /// Several times at once.
    Duplicate,
    /// The last first.
    Reorder,
    /// After a while.
    Late,
}

/// How they are sent from now on; what is not said stays as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    mode: Option<Mode>,
    url: Option<String>,
    secret: Option<String>,
    /// How often each is sent when they are duplicated.
    copies: Option<usize>,
    /// How many change places.
    window: Option<usize>,
    delay_ms: Option<u64>,
}

/// One that was sent before, once more.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Resend {
    event: String,
    /// Signed as if so long ago.
    #[serde(default)]
    age_seconds: i64,
    /// With a secret that is not the right one.
    #[serde(default)]
    is_forged: bool,
}

/// Makes a message's headers of the secret and the time.
pub(crate) type Sign = fn(&str, &Message, DateTime<Utc>) -> Vec<(&'static str, String)>;

/// A body as the provider writes it.
pub(crate) type Write = fn(&Value) -> String;

#[derive(Debug)]
struct State {
    url: Option<String>,
    secret: String,
    mode: Mode,
    copies: usize,
    window: usize,
    delay: Duration,
    held: Vec<Message>,
    sent: Vec<Sent>,
}

#[derive(Debug, Clone)]
struct Sent {
    message: Message,
    /// The status of each try; 0 if there was no answer.
    tries: Vec<u16>,
}

#[derive(Debug)]
struct Burst {
    message: Message,
    copies: usize,
}

/// All that is to be sent, and was.
pub(crate) struct Outbox {
    state: Mutex<State>,
    queue: UnboundedSender<Burst>,
    /// Messages that are neither taken nor given up.
    pending: AtomicUsize,
    /// By how much the provider's clock is ahead, in milliseconds.
    pub(crate) ahead_ms: AtomicI64,
    client: reqwest::Client,
    sign: Sign,
    write: Write,
}

/// What the ledger of events shows of one.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    kind: String,
    tries: Vec<u16>,
    body: Value,
}

impl Outbox {
    /// Starts sending to an address, if there is one.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub(crate) fn start(url: Option<String>, secret: String, sign: Sign, write: Write) -> anyhow::Result<Arc<Outbox>> {
        let (queue, receiver) = unbounded_channel();
        let (copies, window, delay) = (2, 2, Duration::from_secs(2));
        let (held, sent) = (Vec::new(), Vec::new());
        let state = Mutex::new(State { url, secret, mode: Mode::Normal, copies, window, delay, held, sent });
        let client = reqwest::Client::builder().timeout(SEND_TIMEOUT).no_proxy().build()?;
        let outbox = Arc::new(Outbox {
            state,
            queue,
            pending: AtomicUsize::new(0),
            ahead_ms: AtomicI64::new(0),
            client,
            sign,
            write,
        });
        tokio::spawn(Arc::clone(&outbox).run(receiver));
        Ok(outbox)
    }

    /// The provider's time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::milliseconds(self.ahead_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, settings: Settings) {
        let mut state = lock(&self.state);
        state.mode = settings.mode.unwrap_or(state.mode);
        state.url = settings.url.or_else(|| state.url.take());
        state.secret = settings.secret.unwrap_or_else(|| std::mem::take(&mut state.secret));
        state.copies = settings.copies.unwrap_or(state.copies);
        state.window = settings.window.unwrap_or(state.window);
        state.delay = settings.delay_ms.map_or(state.delay, Duration::from_millis);
    }

    /// Every event, those that were never sent too.
    pub(crate) fn events(&self) -> Value {
        let state = lock(&self.state);
        let rows = state.sent.iter().map(|sent| Row {
            id: sent.message.id.clone(),
            kind: sent.message.kind.clone(),
            tries: sent.tries.clone(),
            body: sent.message.body.clone(),
        });
        let rows: Vec<Row> = rows.collect();
        json!({ "pending": self.pending.load(Ordering::SeqCst), "events": rows })
    }

    /// Takes a message to be sent as the mode says.
    pub(crate) fn post(self: &Arc<Self>, mut message: Message) {
        message.text = (self.write)(&message.body);
        let mut state = lock(&self.state);
        state.sent.push(Sent { message: message.clone(), tries: Vec::new() });
        if state.url.is_none() {
            return;
        }
        match state.mode {
            Mode::Normal => self.enqueue(message, 1),
            Mode::None => {}
            Mode::Duplicate => self.enqueue(message, state.copies),
            Mode::Late => {
                self.pending.fetch_add(1, Ordering::SeqCst);
                let (outbox, delay) = (Arc::clone(self), state.delay);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    outbox.enqueue(message, 1);
                    outbox.pending.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Mode::Reorder => {
                state.held.push(message);
                self.pending.fetch_add(1, Ordering::SeqCst);
                if state.held.len() >= state.window {
                    self.release(&mut state);
                } else {
                    let outbox = Arc::clone(self);
                    tokio::spawn(async move {
                        tokio::time::sleep(REORDER_WAIT).await;
                        outbox.release(&mut lock(&outbox.state));
                    });
                }
            }
        }
    }

    fn release(&self, state: &mut State) {
        for message in state.held.drain(..).rev() {
            self.enqueue(message, 1);
            self.pending.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn enqueue(&self, message: Message, copies: usize) {
        self.pending.fetch_add(1, Ordering::SeqCst);
        // Its receiver lives as long as the outbox.
        if self.queue.send(Burst { message, copies }).is_err() {
            self.pending.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The first tries one after the other, so that the order is kept; the others by themselves.
    async fn run(self: Arc<Self>, mut queue: UnboundedReceiver<Burst>) {
        while let Some(Burst { message, copies }) = queue.recv().await {
            let mut tries = JoinSet::new();
            for _ in 0..copies {
                let (outbox, message) = (Arc::clone(&self), message.clone());
                tries.spawn(async move { outbox.attempt(&message, 0, false).await });
            }
            let taken = tries.join_all().await.into_iter().all(is_taken);
            if taken {
                self.pending.fetch_sub(1, Ordering::SeqCst);
            } else {
                tokio::spawn(Arc::clone(&self).retry(message));
            }
        }
    }

    async fn retry(self: Arc<Self>, message: Message) {
        for pause in PAUSES_MS {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if is_taken(self.attempt(&message, 0, false).await) {
                break;
            }
        }
        self.pending.fetch_sub(1, Ordering::SeqCst);
    }

    /// Sends an event once more; returns the status of the answer.
    ///
    /// # Errors
    /// There is no such event.
    pub(crate) async fn resend(&self, resend: &Resend) -> Result<u16, String> {
        let find = |sent: &&Sent| sent.message.id == resend.event;
        let message = lock(&self.state).sent.iter().find(find).map(|sent| sent.message.clone());
        let mut message = message.ok_or_else(|| format!("there is no event {}", resend.event))?;
        // Where no time is signed, the event itself says when it was.
        if let Some(created) = message.body.get_mut("created_at") {
            *created = json!(created.as_i64().unwrap_or_default() - resend.age_seconds);
            message.text = (self.write)(&message.body);
        }
        Ok(self.attempt(&message, resend.age_seconds, resend.is_forged).await)
    }

    /// One try; the status, or 0 if there was no answer.
    async fn attempt(&self, message: &Message, age_seconds: i64, is_forged: bool) -> u16 {
        let (url, secret) = {
            let state = lock(&self.state);
            (state.url.clone().unwrap_or_default(), state.secret.clone())
        };
        let secret = if is_forged { format!("not {secret}") } else { secret };
        let at = self.now() - TimeDelta::seconds(age_seconds);
        let mut request = self.client.post(url).header("content-type", "application/json");
        for (name, value) in (self.sign)(&secret, message, at) {
            request = request.header(name, value);
        }
        let status = match request.body(message.text.clone()).send().await {
            Ok(answer) => answer.status().as_u16(),
            Err(_) => 0,
        };
        if let Some(sent) = lock(&self.state).sent.iter_mut().find(|sent| sent.message.id == message.id) {
            sent.tries.push(status);
        }
        status
    }
}

fn is_taken(status: u16) -> bool {
    (200..300).contains(&status)
}
