//! The bench of carts measures every phase, and answers every request.

use serde_json::Value;

use super::{child::binary, stage::stage};
use crate::patience::not_run;

#[tokio::test]
async fn a_small_bench_of_carts_fails_no_request_whatever_happens_to_redis() {
    let stage = stage().await;
    let (_pool, url) = stage.empty_database().await;
    let arguments =
        "bench cart --carts 200 --skus 50 --orders 100 --seconds 1 --concurrency 4 --rate 20 --json".split(' ');
    let mut command = binary(&arguments.collect::<Vec<_>>(), &[("DATABASE_URL", &url)]);
    let output = command.kill_on_drop(true).output().await.expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    let found: Value = serde_json::from_str(&out).expect("one JSON object");
    assert_eq!(found["books_balanced"], true);
    let phases = found["phases"].as_array().expect("phases");
    let left_out = found["left_out"].as_array().expect("phases");
    assert_eq!(phases.len() + left_out.len(), 3, "{out}");
    for phase in phases {
        assert_eq!(phase["failed"], 0, "{phase}");
        for what in ["adds", "reads"] {
            assert!(phase["saturated"][what]["per_s"].as_f64().expect("a rate") > 0.0, "{phase}");
        }
    }
    if left_out.is_empty() {
        assert!(phases[1]["copies_in_redis"].as_u64().is_some_and(|copies| copies > 100), "{out}");
    } else {
        not_run("the bench of carts with Redis", format!("it left out {left_out:?}"));
    }
}
