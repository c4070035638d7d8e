//! Waiting for what happens. How long a busy machine takes says nothing about the shop: a test fails when
//! a thing does not happen at all, and shows that it happened at once by what has not happened yet.

use std::{
    fmt::Display,
    future::ready,
    io::Write as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::FutureExt as _;

/// Where nothing has changed for so long, nothing will.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What comes nearer all the time and never comes does not come.
const AGES: Duration = Duration::from_secs(3_600);

/// Between two looks at something that is about to happen.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until there is something to be seen. Patience begins anew whenever what is there instead changes.
pub async fn until<T, E: Display, F: Future<Output = Result<T, E>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    let (mut last, mut since) = (String::new(), begun);
    loop {
        let instead = match look().await {
            Ok(seen) => return seen,
            Err(instead) => instead.to_string(),
        };
        if instead != last {
            (last, since) = (instead, Instant::now());
        }
        let is_over = since.elapsed() > PATIENCE || begun.elapsed() > AGES;
        assert!(!is_over, "not within {:?}: {what}: {last}", begun.elapsed());
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks until it has `happened`.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut happened: impl FnMut() -> F) {
    until(what, || happened().map(|happened| if happened { Ok(()) } else { Err("it has not") })).await;
}

/// Looks until it has been counted so far.
pub async fn counted(what: &str, count: &AtomicUsize, wanted: usize) {
    until(what, || {
        let so_far = count.load(Ordering::Relaxed);
        ready(if so_far >= wanted { Ok(()) } else { Err(format!("{so_far} of {wanted}")) })
    })
    .await;
}

/// Waits for what ends by itself.
pub async fn in_time<T>(what: &str, ends: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, ends).await;
    ended.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Says that a test could not run here, past the runner, which keeps to itself what a test that passes says.
pub fn not_run(what: &str, why: impl Display) {
    writeln!(std::io::stderr(), "\nNOT RUN: {what}: {why}").expect("somebody listens");
}
