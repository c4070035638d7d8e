//! A server that gives prepared answers, one a call, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::net::TcpListener;

use crate::payments::script::{Request, receive, respond};

/// What it does when it is called.
#[derive(Debug, Clone)]
pub(super) enum Play {
    /// It answers, with these headers besides.
    Answer(u16, &'static [(&'static str, &'static str)], Value),
    /// It has heard, and the answer is lost.
    Lost,
}

/// A call as it came.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// `POST /v1/refunds`, without the query.
    pub(super) line: String,
    /// The query's names and values, decoded.
    pub(super) query: Vec<(String, String)>,
    /// The body's names and values, decoded.
    pub(super) form: Vec<(String, String)>,
    request: Request,
}

impl Call {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.request.header(name)
    }
}

/// The server.
pub(super) struct Scripted {
    /// Its address.
    pub(super) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    plays: usize,
}

impl Scripted {
    /// One that plays these, and is gone after the last.
    pub(super) async fn playing(plays: Vec<Play>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (calls, count) = (Arc::new(Mutex::new(Vec::new())), plays.len());
        let heard = Arc::clone(&calls);
        tokio::spawn(async move {
            for play in plays {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let request = receive(&mut stream).await.expect("a request");
                heard.lock().expect("no panic before").push(parse(&request));
                if let Play::Answer(status, headers, body) = play {
                    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                    respond(&mut stream, status, &headers, &body.to_string()).await;
                }
            }
        });
        Scripted { url, calls, plays: count }
    }

    /// The calls, of which there were as many as were prepared for.
    pub(super) fn calls(&self) -> Vec<Call> {
        let calls = self.calls.lock().expect("no panic before").clone();
        assert_eq!(calls.len(), self.plays, "{calls:#?}");
        calls
    }
}

/// What Stripe is told is forms: in the query, and in the body.
fn parse(request: &Request) -> Call {
    let (line, query) = request.line.split_once('?').unwrap_or((&request.line, ""));
    Call {
        line: line.to_owned(),
        query: decoded(query.as_bytes()),
        form: decoded(&request.body),
        request: request.clone(),
    }
}

fn decoded(pairs: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(pairs).into_owned().collect()
}
