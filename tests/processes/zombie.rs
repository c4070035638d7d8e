//! A worker is frozen in the middle of its turns until others have taken its runs over; then it wakes
//! up and writes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, sync::watch};

use super::{
    deployment::{Deployment, client},
    shoppers::{Way, check_out, with_full_carts},
    stage::stage,
};
use crate::patience::eventually;

/// Turns that are frozen: at least ten late writes.
const FROZEN: usize = 12;

/// A line to the gateway that is slow on the way back: it hands each request on at once, and holds the
/// answer until the gate is opened.
#[derive(Clone)]
struct SlowLine {
    sandbox_url: String,
    client: reqwest::Client,
    held: Arc<AtomicUsize>,
    gate: watch::Receiver<bool>,
}

async fn hand_on(
    State(mut line): State<SlowLine>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = line.client.request(method, format!("{}{path}", line.sandbox_url)).body(body);
    for name in ["content-type", "idempotency-key"] {
        request = request.headers(
            headers.get(name).map(|value| (name.parse().expect("a name"), value.clone())).into_iter().collect(),
        );
    }
    let answer = request.send().await.expect("the gateway answers");
    let (status, body) = (answer.status(), answer.bytes().await.expect("a body"));
    line.held.fetch_add(1, Ordering::SeqCst);
    line.gate.wait_for(|open| *open).await.expect("the test holds the gate");
    (StatusCode::from_u16(status.as_u16()).expect("a status"), [("content-type", "application/json")], body)
        .into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_wakes_up_after_its_lease_is_refused_every_late_write() {
    let stage = stage().await;
    let deployment = Deployment::open(&stage).await;
    let (open, gate) = watch::channel(false);
    let held = Arc::new(AtomicUsize::new(0));
    let line =
        SlowLine { sandbox_url: deployment.sandbox_url.clone(), client: client(), held: Arc::clone(&held), gate };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let line_url = format!("http://{}", listener.local_addr().expect("an address"));
    let serving =
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(hand_on).with_state(line)).await });

    // Half of its turns may be inside the gateway: all of the frozen ones are to be.
    let wide = ("CART_ENGINE__WORKER__CONCURRENCY", "32");
    let zombie = deployment.worker_with(&[("SANDBOX_URL", &line_url), wide]).await;
    let shoppers = with_full_carts(&deployment.pool, FROZEN).await;
    check_out(&deployment, &shoppers, |_| Way::Pays, &AtomicUsize::new(0)).await;
    eventually("every payment is made", async || held.load(Ordering::SeqCst) == FROZEN).await;

    zombie.process.signal("STOP");
    // The answers arrive while it is frozen: the first thing it does when it wakes up is to write them.
    open.send(true).expect("the line listens");
    // As if its lease had run out: a busy machine may freeze for longer than any lease worth waiting for.
    let dead = sqlx::query("update engine.workers set beat_at = now() - interval '1 hour'").execute(&deployment.pool);
    assert_eq!(dead.await.expect("written").rows_affected(), 1, "there is no other");
    let healthy = deployment.worker().await;
    deployment.all_ended().await;
    assert_eq!(healthy.checkouts().await, FROZEN as u64);

    zombie.process.signal("CONT");
    let refused = "cart_engine_refused_late_writes_total";
    let all = async || zombie.counted(refused).await >= FROZEN as u64;
    eventually("every late write is refused", all).await;
    assert_eq!(zombie.counted(refused).await, FROZEN as u64, "one late write a run");
    assert_eq!(zombie.checkouts().await, 0);
    deployment.assert_sound("after the zombie has woken up").await;
    assert_eq!(deployment.orders().await["CONFIRMED"], FROZEN as i64);

    // Under its new id it is a worker like any other.
    healthy.process.kill().await;
    let shoppers = with_full_carts(&deployment.pool, 3).await;
    check_out(&deployment, &shoppers, |_| Way::Pays, &AtomicUsize::new(0)).await;
    deployment.all_ended().await;
    assert_eq!(zombie.checkouts().await, 3);
    serving.abort();
}
