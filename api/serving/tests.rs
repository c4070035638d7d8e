//! Each limit over real sockets, with short times; order is what is asserted, never how long it took.

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::JoinHandle,
};

use super::*;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(150);

const GET: &[u8] = b"GET /small HTTP/1.1\r\nhost: shop\r\n\r\n";

fn patient() -> Limits {
    Limits { connections: 8, per_address: None, head: PATIENCE, body: PATIENCE, idle: PATIENCE, answer: PATIENCE }
}

struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

async fn read_all(body: Body) -> StatusCode {
    match axum::body::to_bytes(body, 1 << 20).await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::REQUEST_TIMEOUT,
    }
}

async fn open(limits: Limits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new()
        .route("/small", get(|| async { "here" }))
        .route("/large", get(|| async { Bytes::from(vec![b'x'; 64 << 20]) }))
        .route("/read", post(read_all));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, router, limits, async move {
        let _ = stopped.await;
    }));
    Served { address, stop, task }
}

impl Served {
    async fn connect(&self, first: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(first).await.expect("written");
        stream
    }

    async fn close(self) {
        let _ = self.stop.send(());
        within(self.task).await.expect("no panic").expect("a graceful end");
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// Reads until the server has nothing more to say on this connection.
async fn to_end(mut stream: TcpStream) -> String {
    let mut heard = Vec::new();
    // A reset is an end as well.
    let _ = within(stream.read_to_end(&mut heard)).await;
    String::from_utf8_lossy(&heard).into_owned()
}

async fn hear(stream: &mut TcpStream) -> String {
    let mut heard = vec![0; 4096];
    let read = within(stream.read(&mut heard)).await.expect("an answer");
    String::from_utf8_lossy(&heard[..read]).into_owned()
}

#[tokio::test]
async fn a_head_that_never_ends_is_closed_and_makes_room() {
    let served = open(Limits { connections: 1, head: SHORT, ..patient() }).await;
    let mut endless = served.connect(b"GET /small HTTP/1.1\r\n").await;
    let waiting = served.connect(GET).await;
    let mut trickle = async || endless.write_all(b"x: y\r\n").await.is_ok();
    let trickling = async {
        while trickle().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(trickling).await;
    let mut waiting = waiting;
    assert!(hear(&mut waiting).await.starts_with("HTTP/1.1 200"), "the next is served");
    drop(waiting);
    served.close().await;
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed_before_and_after_a_request() {
    let served = open(Limits { idle: SHORT, head: SHORT, ..patient() }).await;
    assert_eq!(to_end(served.connect(b"").await).await, "");
    let mut kept = served.connect(GET).await;
    assert!(hear(&mut kept).await.starts_with("HTTP/1.1 200"));
    assert_eq!(to_end(kept).await, "");
    served.close().await;
}

#[tokio::test]
async fn a_kept_connection_serves_one_request_after_the_other() {
    let served = open(Limits { head: SHORT * 3, ..patient() }).await;
    let mut kept = served.connect(GET).await;
    for _ in 0..3 {
        assert!(hear(&mut kept).await.ends_with("here"));
        // The time of a head that has come is not held against the next one.
        tokio::time::sleep(SHORT * 4).await;
        kept.write_all(GET).await.expect("written");
    }
    assert!(hear(&mut kept).await.ends_with("here"));
    drop(kept);
    served.close().await;
}

#[tokio::test]
async fn a_body_that_trickles_fails_as_a_whole() {
    let served = open(Limits { body: SHORT, ..patient() }).await;
    let mut slow = served.connect(b"POST /read HTTP/1.1\r\nhost: shop\r\ncontent-length: 100000\r\n\r\n").await;
    let trickling = async {
        while slow.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // It fails to write once the server has closed; what it was told came before.
    tokio::select! {
        () = trickling => {}
        () = tokio::time::sleep(SHORT * 4) => {}
    }
    let heard = to_end(slow).await;
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 408"), "{heard}");
    served.close().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_makes_room() {
    let served = open(Limits { connections: 1, answer: SHORT, ..patient() }).await;
    let deaf = served.connect(b"GET /large HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let mut waiting = served.connect(GET).await;
    assert!(hear(&mut waiting).await.starts_with("HTTP/1.1 200"));
    drop((deaf, waiting));
    served.close().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_the_next_is_told() {
    let served = open(Limits { per_address: Some(2), ..patient() }).await;
    let mut held = [served.connect(GET).await, served.connect(GET).await];
    for stream in &mut held {
        assert!(hear(stream).await.starts_with("HTTP/1.1 200"));
    }
    let refused = to_end(TcpStream::connect(served.address).await.expect("a connection")).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    let (head, body) = refused.split_once("\r\n\r\n").expect("a body");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head} {}", body.len());
    drop(held);
    served.close().await;
}

#[tokio::test]
async fn a_stop_closes_what_is_idle_and_finishes_what_is_not() {
    let served = open(patient()).await;
    let mut idle = served.connect(GET).await;
    assert!(hear(&mut idle).await.starts_with("HTTP/1.1 200"));
    let head = b"POST /read HTTP/1.1\r\nhost: shop\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    let mut asking = served.connect(head).await;
    assert!(hear(&mut asking).await.starts_with("HTTP/1.1 100"), "the body is being read");
    let Served { address, stop, task } = served;
    let _ = stop.send(());
    assert_eq!(to_end(idle).await, "");
    asking.write_all(b"1234").await.expect("written");
    assert!(to_end(asking).await.starts_with("HTTP/1.1 200"));
    within(task).await.expect("no panic").expect("a graceful end");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
