//! The door over real sockets: whoever dawdles holds a connection and nothing else, and what is no HTTP/1.1
//! as we read it is refused.

use std::time::Duration;

use api::ApiConfig;
use futures::stream::{FuturesUnordered, StreamExt as _};
use reqwest::{Method, RequestBuilder};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    patience::in_time,
    server::{Answer, Front, Server},
    world::database,
};

/// What the door waits for dawdlers: longer than any test.
const AN_HOUR: Duration = Duration::from_secs(3_600);

const ENDLESS_HEAD: &str = "GET /api/products HTTP/1.1\r\nhost: shop\r\nx-endless: ";
const SLOW_BODY: &str = "POST /api/cart/items HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n\
    content-length: 100\r\n\r\n{";

/// Nobody is limited but by what this is about, and nothing times out before the test is over.
fn config() -> ApiConfig {
    let defaults = ApiConfig::default();
    let connections = serving::Limits { per_address: None, head: AN_HOUR, body: AN_HOUR, ..defaults.connections };
    ApiConfig { connections, rate_limits: None, request_timeout: AN_HOUR, ..defaults }
}

async fn say(front: &Front, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(front.door.address()).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("said");
    stream
}

async fn hear(mut stream: TcpStream) -> String {
    let mut heard = Vec::new();
    let all = stream.read_to_end(&mut heard);
    in_time("an answer", all).await.expect("heard");
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_heads_and_slow_bodies_by_the_hundred_keep_nobody_waiting() {
    serving::allow_many_files();
    let pool = database().await;
    let front = Front::open(&pool, config(), None).await;
    let mut held = Vec::new();
    for (text, count) in [(ENDLESS_HEAD, 1_100), (SLOW_BODY, 600)] {
        for _ in 0..count {
            held.push(say(&front, text).await);
        }
    }
    for _ in 0..20 {
        let look = front.door.get("/api/products");
        assert_eq!(in_time("a look meanwhile", look).await.status, 200);
    }
    drop(held);
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_told_so() {
    let pool = database().await;
    let limits = serving::Limits { body: Duration::from_millis(100), ..config().connections };
    let front = Front::open(&pool, ApiConfig { connections: limits, ..config() }, None).await;
    let heard = hear(say(&front, SLOW_BODY).await).await;
    assert!(heard.starts_with("HTTP/1.1 408") && heard.contains("\"request-timeout\""), "{heard}");
    front.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_polls_are_counted_apart() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_ok").await;
    let front = Front::open(&server.pool, ApiConfig { max_concurrency: 2, max_polls: 20, ..config() }, None).await;
    let (asha, staff) = (asha.at(&front.door), server.staff().await.at(&front.door));
    let path = checkout.path();
    let polls = [
        asha.request(Method::GET, &format!("{path}?wait=30")),
        asha.request(Method::HEAD, &format!("{path}?wait=30&for=end")),
        asha.request(Method::GET, &format!("{path}?%77ait=30")),
        staff.request(Method::GET, "/api/events?type=nothing&wait=30"),
    ];
    // Twenty of them wait; the first that is answered is one too many.
    let again = |poll: &RequestBuilder| Answer::to(poll.try_clone().expect("no body"));
    let mut polls: FuturesUnordered<_> = polls.iter().cycle().take(40).map(again).collect();
    assert_eq!(polls.next().await.expect("an answer").status, 503);
    for _ in 0..10 {
        assert_eq!(asha.get(&checkout.path()).await.ok()["status"], "RUNNING", "who does not wait is served");
    }
    drop(polls);
    front.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_could_be_read_in_two_ways_is_refused() {
    let pool = database().await;
    let front = Front::open(&pool, config(), None).await;
    let chunked = "2\r\n{}\r\n0\r\n\r\n";
    for (head, body, status, code) in [
        ("GET /healthz HTTP/1.1", "", 400, "malformed-host"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b", "", 400, "malformed-host"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a", "", 400, "malformed-host"),
        ("GET /healthz HTTP/1.1\r\nhost: a b", "", 400, "malformed-host"),
        ("GET /healthz HTTP/1.1\r\nhost: ", "", 400, "malformed-host"),
        ("GET /healthz HTTP/1.1\r\nhost: a:8080", "", 200, ""),
        ("GET /healthz HTTP/1.0", "", 200, ""),
        ("POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3", "{}", 400, ""),
        ("POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-length: -2", "{}", 400, ""),
        ("POST /api/auth/login HTTP/1.0\r\ntransfer-encoding: chunked", chunked, 400, ""),
        ("POST /api/auth/login HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip", chunked, 400, ""),
        (
            "POST /api/auth/login HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked",
            chunked,
            400,
            "malformed-framing",
        ),
        (
            "POST /api/auth/login HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            chunked,
            400,
            "malformed-framing",
        ),
        (
            "POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\ncontent-encoding: gzip",
            "{}",
            415,
            "unsupported-media-type",
        ),
        (
            "POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\ncontent-encoding: identity",
            "{}",
            422,
            "validation-failed",
        ),
        (
            "POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 2",
            "{}",
            415,
            "unsupported-media-type",
        ),
        ("POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-length: 2", "{}", 415, "unsupported-media-type"),
    ] {
        let heard = hear(say(&front, &format!("{head}\r\nconnection: close\r\n\r\n{body}")).await).await;
        let found = heard.split_whitespace().nth(1).unwrap_or_default();
        assert_eq!(found, status.to_string(), "{head}: {heard}");
        assert!(code.is_empty() || heard.contains(&format!("\"{code}\"")), "{head}: {heard}");
    }
    front.close().await;
}
