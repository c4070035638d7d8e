//! For tests: HTTP/1.1 by hand, so that a connection can be lost wherever a test wants it.

use std::sync::LazyLock;

use reqwest::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One for all tests, as making one reads the system's certificates; it keeps no connection, since each test has a
/// runtime of its own.
pub(super) static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    client.pool_max_idle_per_host(0).build().expect("a client")
});

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// Method, path and query.
    pub(super) line: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body; null if there is none.
    pub(super) fn json(&self) -> Value {
        if self.body.is_empty() { Value::Null } else { serde_json::from_slice(&self.body).expect("a JSON body") }
    }
}

/// The request on a connection; none if whoever called has gone.
pub(super) async fn receive(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let mut lines = head.lines();
            let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let mut request = Request { line, headers, body: bytes[end + 4..].to_vec() };
            let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
            let missing = usize::saturating_sub(length, request.body.len());
            let mut rest = vec![0; missing];
            stream.read_exact(&mut rest).await.ok()?;
            request.body.extend(rest);
            return Some(request);
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Answers, in JSON unless `headers`, whole lines, say otherwise. Whoever has gone hears nothing.
pub(super) async fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &str) {
    let (kind, length) =
        (if headers.contains("Content-Type:") { "" } else { "Content-Type: application/json\r\n" }, body.len());
    let text =
        format!("HTTP/1.1 {status} X\r\n{kind}{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let _ = stream.write_all(text.as_bytes()).await;
}
