//! Every bench measures what it says, in small, and leaves balanced books.

use serde_json::Value;

use super::{child::binary, stage::stage};
use crate::patience::not_run;

/// What a bench finds.
async fn found(arguments: &str) -> Value {
    let stage = stage().await;
    let (_pool, url) = stage.empty_database().await;
    let mut command = binary(&arguments.split(' ').collect::<Vec<_>>(), &[("DATABASE_URL", &url)]);
    let output = command.kill_on_drop(true).output().await.expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    let found: Value = serde_json::from_str(&out).expect("one JSON object");
    assert_eq!(found["books_balanced"], true);
    found
}

#[tokio::test]
async fn what_postgres_could_do_is_measured_for_one_checkout_and_for_sets() {
    let found = found("bench limit --quick --orders 100 --seconds 1 --json").await;
    for name in ["limit_per_s", "set_limit_per_s", "set_ratio", "ratio", "checkouts_per_s"] {
        assert!(found[name].as_f64().is_some_and(|figure| figure > 0.0), "{name}: {found}");
    }
    assert_eq!(found["settings"]["quick"], "not for quoting");
}

#[tokio::test]
async fn a_small_crowd_comes_to_its_end_at_every_moment() {
    let found = found("bench moment --orders 100 --holds 20 --reminders 20 --cancellations 10 --json").await;
    assert_eq!(found["holds"]["reservations"], 60);
    assert!(found["holds"]["meanwhile"]["p50_ms"].as_f64().is_some_and(|p50| p50 > 0.0), "{found}");
    assert_eq!(found["reminders"]["carts"], 20);
    assert_eq!(found["cancellations"]["orders"], 10);
}

#[tokio::test]
async fn a_small_bench_of_carts_fails_no_request_whatever_happens_to_redis() {
    let found =
        found("bench cart --carts 200 --skus 50 --orders 100 --seconds 1 --concurrency 4 --rate 20 --json").await;
    let phases = found["phases"].as_array().expect("phases");
    let left_out = found["left_out"].as_array().expect("phases");
    assert_eq!(phases.len() + left_out.len(), 3, "{found}");
    for phase in phases {
        assert_eq!(phase["failed"], 0, "{phase}");
        for what in ["adds", "reads"] {
            assert!(phase["saturated"][what]["per_s"].as_f64().expect("a rate") > 0.0, "{phase}");
        }
    }
    if left_out.is_empty() {
        assert!(phases[1]["copies_in_redis"].as_u64().is_some_and(|copies| copies > 100), "{found}");
    } else {
        not_run("the bench of carts with Redis", format!("it left out {left_out:?}"));
    }
}
