//! HTTP/1.1 to strangers: how many may be connected, and how long each may take over it.
//!
//! `axum::serve` waits for ever, for a head that never ends, for a body that trickles, for a client that
//! does not read. Here each of these has its time, connections are counted, in all and by address, and
//! what takes too long is closed. The rest is hyper's.

mod body;
mod places;
mod stream;

#[cfg(test)]
mod tests;

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use self::{
    body::{Answer, Arriving},
    places::Addresses,
    stream::{Pulse, Stream},
};

pub use body::TooSlow;
pub use places::network;

/// Most bytes of a head that are read; hyper refuses more with 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Open files left to everything but connections: the database's, the listener's, logs.
const OTHER_FILES: usize = 128;

/// How long the door rests when the system has no file left for a connection.
const REST: Duration = Duration::from_millis(100);

/// Who is one too many is told, if the answer gets through before the connection closes.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 150\r\n\r\n\
    {\"type\":\"urn:cart-engine:problem:overloaded\",\"title\":\"Overloaded\",\"status\":503,\
    \"detail\":\"Too many connections from your address.\",\"code\":\"overloaded\"}";

/// What strangers may use of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; whoever comes then waits in the system's queue until one ends. Fewer where the
    /// system lets the process open fewer files.
    pub connections: usize,
    /// Connections from one address at once, the next is turned away; an IPv6 network of 64 bits is one
    /// address. `None` where all come from a proxy, or from one machine that plays everybody.
    pub per_address: Option<usize>,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// From the end of a head to the end of its body.
    pub body: Duration,
    /// From one answer to the next request, and from connecting to the first.
    pub idle: Duration,
    /// How long a client may take over reading what has been written for it.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4_096,
            per_address: Some(256),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            // Longer than balancers keep a connection idle, so that it is they who close it.
            idle: Duration::from_secs(75),
            answer: Duration::from_secs(30),
        }
    }
}

/// Lets this process open as many files as the system allows it to: the usual soft limit of 1,024 is as
/// many connections.
pub fn allow_many_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, "the limit on open files stays as it is");
    }
}

/// Connections for which there are files.
fn affordable(connections: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    files.map_or(connections, |files| connections.min(files.saturating_sub(OTHER_FILES).max(1)))
}

/// Serves until `shutdown` resolves, then closes the listener and the idle connections and waits for the
/// answers in hand.
///
/// # Errors
/// None so far; a listener that fails for a moment is tried again.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(affordable(limits.connections)));
    let addresses = Arc::new(Addresses::new(limits.per_address));
    let (connections, closing) = (TaskTracker::new(), CancellationToken::new());
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            // Never closed, so this only waits.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, accept(&listener).await)
        };
        let (place, (stream, peer)) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        let Some(of_address) = addresses.take(peer.ip()) else {
            metrics::counter!("cart_engine_http_connections_refused_total").increment(1);
            // Whether it can be told does not matter.
            let _ = stream.try_write(BUSY);
            continue;
        };
        let connection = connection(stream, peer, router.clone(), limits, closing.clone());
        connections.spawn(async move {
            connection.await;
            drop((place, of_address));
        });
    }
    drop(listener);
    closing.cancel();
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client went away before it was served.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, limits: Limits, closing: CancellationToken) {
    // Answers are small: without this each would wait for the client's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let pulse = Arc::new(Pulse::default());
    let io = Stream::new(stream, Arc::clone(&pulse), limits);
    let service = service_fn(move |mut request: Request<Incoming>| {
        pulse.serving();
        request.extensions_mut().insert(ConnectInfo(peer));
        let request = request.map(|body| Arriving::new(body, limits.body));
        let (router, pulse) = (router.clone(), Arc::clone(&pulse));
        async move { router.oneshot(request).await.map(|answer| answer.map(|body| Answer::new(body, pulse))) }
    });
    let mut http = http1::Builder::new();
    // hyper counts from the end of an answer: to it, waiting for a head and reading it are one.
    http.max_buf_size(MAX_HEAD_BYTES).timer(TokioTimer::new()).header_read_timeout(limits.idle + limits.head);
    let mut connection = pin!(http.serve_connection(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}
