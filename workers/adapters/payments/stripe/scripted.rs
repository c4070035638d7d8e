//! A server that gives prepared answers, one a call, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

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
    headers: Vec<(String, String)>,
}

impl Call {
    /// The header of that name, in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
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
                let call = read(&mut stream).await;
                heard.lock().expect("no panic before").push(call);
                if let Play::Answer(status, headers, body) = play {
                    stream.write_all(&answer(status, headers, &body)).await.expect("a listening client");
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

fn answer(status: u16, headers: &[(&str, &str)], body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn read(stream: &mut TcpStream) -> Call {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let call = parse(head, body);
            let length = call.header("content-length").map_or(0, |length| length.parse().expect("a length"));
            if body.len() >= length {
                return call;
            }
        }
        let read = stream.read(&mut buffer).await.expect("a request");
        assert_ne!(read, 0, "a request without end: {text}");
        bytes.extend_from_slice(&buffer[..read]);
    }
}

fn parse(head: &str, body: &str) -> Call {
    let mut lines = head.lines();
    let request = lines.next().expect("a request line");
    let [method, target, _] = request.split(' ').collect::<Vec<_>>()[..] else { panic!("{request}") };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Call {
        line: format!("{method} {path}"),
        query: decoded(query),
        form: decoded(body),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
    }
}

fn decoded(pairs: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(pairs.as_bytes()).into_owned().collect()
}
