//! One HTTP call to a gateway, and what can be told of its outcome without knowing the gateway: an answer, a
//! refusal, a request to come again, not knowing, and not having spoken to the gateway at all.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::ports::GatewayError;
use reqwest::{
    RequestBuilder, StatusCode,
    header::{self, AsHeaderName, HeaderMap},
};
use serde::de::DeserializeOwned;
use url::Url;

use super::ConfigError;

/// How long a call may take from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read; no gateway's object is near it.
const MAX_ANSWER: usize = 1024 * 1024;

/// How long to stay away from a gateway that says it has too much to do, and not how long.
const PEACE_S: u64 = 5;

/// A gateway's address.
///
/// # Errors
/// [`ConfigError`]: it is no http URL, or says more than where that is.
pub(super) fn base(url: &str) -> Result<Url, ConfigError> {
    let base = Url::parse(url)?;
    if !["http", "https"].contains(&base.scheme()) {
        return Err(ConfigError::NotHttp);
    }
    let says_more =
        !base.username().is_empty() || base.password().is_some() || base.query().is_some() || base.fragment().is_some();
    if says_more { Err(ConfigError::NotAnAddress) } else { Ok(base) }
}

/// The address of a resource below it; each segment is escaped.
pub(super) fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // Only a URL without a host has no segments, and `base` takes none.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// What came back, whatever it means.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// What an answer that is not a success means, going by its status alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// No, if the gateway says so in its own words; else somebody else has answered.
    Refusal,
    /// Everybody is to come again later.
    Busy,
    /// It may or may not have happened.
    Unknown,
    /// Whoever answered is not the gateway, or does not know us.
    Misconfigured,
}

/// Sends `request`. The client must not follow redirects: an address that has moved is for an operator to
/// look at, not for a payment to be sent to.
///
/// # Errors
/// [`GatewayError::Unknown`]: no connection (it may have been lost after the request left), time-out, an
/// answer without end.
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, GatewayError> {
    let mut response = request.timeout(TIMEOUT).send().await.map_err(unknown)?;
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    Ok(Answer { status, headers, body: read(response).await? })
}

impl Answer {
    /// A success, read as `T`.
    ///
    /// # Errors
    /// [`GatewayError::Misconfigured`] when it is a page, [`GatewayError::Unknown`] when it makes no sense.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, GatewayError> {
        serde_json::from_slice(&self.body).map_err(|error| match self.is_page() {
            true => self.misconfigured("a page"),
            false => GatewayError::Unknown(format!("an answer that makes no sense: {error}")),
        })
    }

    /// What a gateway says of an error, if these are its words.
    pub(super) fn problem<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Only what is said about the payment itself is a refusal. 408 and 425 pass by themselves (RFC 9110
    /// 15.5.9, RFC 8470 5.2).
    pub(super) fn meaning(&self) -> Meaning {
        match self.status.as_u16() {
            400 | 402 | 409 | 410 | 422 => Meaning::Refusal,
            429 => Meaning::Busy,
            503 if self.retry_after().is_some() => Meaning::Busy,
            408 | 425 => Meaning::Unknown,
            501 | 505 | 511 => Meaning::Misconfigured,
            500.. => Meaning::Unknown,
            _ => Meaning::Misconfigured,
        }
    }

    /// The error that the status alone makes of it; in the gateway's words, if it has said something.
    pub(super) fn error(&self, words: Option<(String, String)>) -> GatewayError {
        match (self.meaning(), words) {
            (Meaning::Refusal, Some((code, detail))) => GatewayError::Refused { code, detail },
            (Meaning::Refusal, None) => self.misconfigured("no reason that a gateway would give"),
            (Meaning::Busy, _) => {
                GatewayError::Busy { why: self.status.to_string(), after_s: self.retry_after().unwrap_or(PEACE_S) }
            }
            (Meaning::Unknown, _) => GatewayError::Unknown(format!("the gateway answered {}", self.status)),
            (Meaning::Misconfigured, _) => self.misconfigured("that is nothing about a payment"),
        }
    }

    /// The shop must be set up otherwise.
    pub(super) fn misconfigured(&self, what: &str) -> GatewayError {
        GatewayError::Misconfigured(format!("its address gave {} and {what}", self.status))
    }

    /// A header, if it is text.
    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// When to come again, in seconds, if it says.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.header(header::RETRY_AFTER).and_then(|value| seconds(value, Utc::now()))
    }

    fn is_page(&self) -> bool {
        self.header(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"))
    }
}

/// `Retry-After`: seconds, or a date.
fn seconds(retry_after: &str, now: DateTime<Utc>) -> Option<u64> {
    retry_after.trim().parse().ok().or_else(|| {
        let until = DateTime::parse_from_rfc2822(retry_after).ok()?;
        u64::try_from((until.to_utc() - now).num_seconds()).ok()
    })
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, GatewayError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unknown)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(GatewayError::Unknown("an answer without end".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The cause goes along, the address does not: it may carry ids that do not belong in a log.
fn unknown(error: reqwest::Error) -> GatewayError {
    let error = error.without_url();
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection was lost"
    };
    GatewayError::Unknown(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::payments::script::CLIENT;

    #[derive(serde::Deserialize)]
    struct Problem {
        code: String,
    }

    /// As an adapter whose gateway has nothing special about it.
    async fn exchange(request: RequestBuilder) -> Result<serde_json::Value, GatewayError> {
        let answer = send(request).await?;
        if answer.status.is_success() {
            return answer.read();
        }
        Err(answer.error(answer.problem::<Problem>().map(|problem| (problem.code, String::new()))))
    }

    /// Asks a server that gives this answer.
    async fn asked(answer: &str) -> Result<serde_json::Value, GatewayError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let answer = format!("{answer}\r\n");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.expect("a request");
            stream.write_all(answer.as_bytes()).await.expect("a listening client");
        });
        exchange(CLIENT.post(url)).await
    }

    fn said(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len() + 2)
    }

    #[tokio::test]
    async fn only_the_gateways_own_word_on_the_payment_refuses_it() {
        let problem = r#"{"code":"card_declined","detail":"no"}"#;
        for status in ["400", "402", "409", "410", "422"] {
            let refused = asked(&said(status, "", problem)).await;
            assert!(
                matches!(refused, Err(GatewayError::Refused { ref code, .. }) if code == "card_declined"),
                "{status}"
            );
            let page = asked(&said(status, "Content-Type: text/html\r\n", "<html>")).await;
            assert!(matches!(page, Err(GatewayError::Misconfigured(_))), "{status}: {page:?}");
        }
    }

    #[tokio::test]
    async fn a_wrong_address_or_login_is_no_refusal() {
        let problem = r#"{"code":"not-found"}"#;
        for status in ["301", "302", "307", "308", "401", "403", "404", "405", "407", "413", "415", "421", "426", "511"]
        {
            let headers = "Location: http://127.0.0.1:9/\r\n";
            let heard = asked(&said(status, headers, problem)).await;
            assert!(matches!(heard, Err(GatewayError::Misconfigured(_))), "{status}: {heard:?}");
        }
        let page = asked(&said("200", "Content-Type: text/html; charset=utf-8\r\n", "<html>welcome</html>")).await;
        assert!(matches!(page, Err(GatewayError::Misconfigured(_))), "{page:?}");
    }

    #[tokio::test]
    async fn what_passes_by_itself_is_unknown() {
        for status in ["408", "425", "500", "502", "503", "504", "520"] {
            let heard = asked(&said(status, "", "<html>")).await;
            assert!(matches!(heard, Err(GatewayError::Unknown(_))), "{status}: {heard:?}");
        }
        let garbage = asked(&said("200", "Content-Type: application/json\r\n", "{")).await;
        assert!(matches!(garbage, Err(GatewayError::Unknown(_))), "{garbage:?}");
        let cut_off = asked("HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n{").await;
        assert!(matches!(cut_off, Err(GatewayError::Unknown(_))), "{cut_off:?}");
    }

    #[tokio::test]
    async fn who_asks_to_come_again_says_when() {
        for (status, headers, expected) in
            [("429", "Retry-After: 17\r\n", 17), ("429", "", PEACE_S), ("503", "Retry-After: 3\r\n", 3)]
        {
            let busy = asked(&said(status, headers, "")).await;
            assert!(
                matches!(busy, Err(GatewayError::Busy { after_s, .. }) if after_s == expected),
                "{status}: {busy:?}"
            );
        }
    }

    #[test]
    fn a_date_to_come_again_is_read_as_seconds() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let date = (now + chrono::TimeDelta::seconds(90)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        assert_eq!(seconds(&date, now), Some(90));
        assert_eq!(seconds("120", now), Some(120));
        assert_eq!(seconds("soon", now), None);
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT", now), None);
    }
}
