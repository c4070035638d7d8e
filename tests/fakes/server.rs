//! Serves until standard input ends. Connections are hyper's, so that one can end without an answer.

use std::{fmt, io, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, body::Body, response::Response};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tower::ServiceExt as _;

use crate::{arguments::Arguments, control, fake::Fake, gateway::Gateway, webhooks::Outbox};

/// Says of an answer that nobody is to get it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is lost")
    }
}

impl std::error::Error for Lost {}

/// Opens an account with a provider and serves it.
///
/// # Errors
/// The address cannot be bound, or a document cannot be read.
pub(crate) async fn run<G: Gateway>(arguments: Arguments) -> anyhow::Result<()> {
    // Webhooks go over plain HTTP; the client wants to know all the same whose TLS it would be.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind(arguments.listen).await.context("the address cannot be bound")?;
    let base = format!("http://{}", listener.local_addr()?);
    let outbox = Outbox::start(arguments.webhook_url.clone(), arguments.webhook_secret.clone(), G::sign, G::write)?;
    let fake = Arc::new(Fake::new(G::open(&arguments, &base), G::contract()?, outbox));
    announce(&base);
    tokio::select! {
        () = serve(listener, control::router(fake)) => {}
        () = input_ended() => {}
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the one line that whoever started it waits for")]
fn announce(base: &str) {
    println!("listening on {base}");
}

/// Standard input is read by a thread of its own, which nobody waits for.
async fn input_ended() {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Whether it ends well or badly, it ends.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(ended);
    });
    let _ = end.await;
}

async fn serve(listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, router.clone()))),
            // Out of files, or gone before it was taken.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    // Answers are small: without this each would wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let answer: Response<Body> = match router.oneshot(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            };
            if answer.extensions().get::<Lost>().is_some() { Err(Lost) } else { Ok(answer) }
        }
    });
    // Ends with an error whenever an answer was lost or a client went away.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
