//! The access token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::ports::{Capture, GatewayError, PaymentGateway as _};
use serde_json::json;

use super::super::PayPalGateway;
use super::scene::{KEY, Reply, Scene, gateway, key_of, lookup, order, payment_request, refuse, say, try_gateway};
use crate::payments::{ConfigError, script::CLIENT};

fn approved() -> Reply {
    say(200, &order("APPROVED", "CAPTURE", &json!({})))
}

#[tokio::test]
async fn one_login_serves_many_calls() {
    let scene = Scene::of([approved(), approved()]).await;
    for _ in 0..2 {
        scene.gateway.find(&lookup(&["5O1"])).await.expect("payments");
    }
    let logins = scene.logins();
    assert_eq!(logins.len(), 1);
    let basic = format!("Basic {}", BASE64.encode("our-id:our-secret"));
    assert_eq!(logins[0].header("authorization"), Some(basic.as_str()));
    assert_eq!(logins[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(logins[0].body, b"grant_type=client_credentials");
}

#[tokio::test]
async fn many_calls_at_once_make_one_login() {
    let scene = Scene::of((0..20).map(|_| approved())).await;
    let calls = (0..20).map(|_| {
        let gateway = scene.gateway.clone();
        tokio::spawn(async move { gateway.find(&lookup(&["5O1"])).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("a call").expect("payments");
    }
    assert_eq!((scene.lines().len(), scene.logins().len()), (20, 1));
}

#[tokio::test]
async fn a_token_at_its_end_is_replaced_before_it_is_used_again() {
    let scene = Scene::with([approved(), approved()], [], 0).await;
    for _ in 0..2 {
        scene.gateway.find(&lookup(&["5O1"])).await.expect("payments");
    }
    let used: Vec<_> =
        scene.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect();
    assert_eq!(used, ["Bearer token-1", "Bearer token-2"].map(|token| Some(token.to_owned())));
}

#[tokio::test]
async fn a_token_that_is_refused_in_between_is_replaced_once() {
    let made = say(201, &order("PAYER_ACTION_REQUIRED", "CAPTURE", &json!({})));
    let scene = Scene::of([refuse(401, "TOKEN_EXPIRED"), made]).await;
    scene.gateway.initiate(KEY, &payment_request(Capture::Take)).await.expect("a payment");
    let requests = scene.requests();
    let used: Vec<_> = requests.iter().map(|request| request.header("authorization")).collect();
    assert_eq!(used, [Some("Bearer token-1"), Some("Bearer token-2")]);
    assert_eq!((key_of(&requests[0]), &requests[0].body), (key_of(&requests[1]), &requests[1].body));
}

#[tokio::test]
async fn a_new_token_that_is_refused_too_means_that_the_shop_is_set_up_wrongly() {
    for status in [401, 403] {
        let scene = Scene::of([refuse(status, "PERMISSION_DENIED"), refuse(status, "PERMISSION_DENIED")]).await;
        let refused = scene.gateway.initiate(KEY, &payment_request(Capture::Take)).await;
        assert!(matches!(refused, Err(GatewayError::Misconfigured(_))), "{refused:?}");
        assert_eq!((scene.lines().len(), scene.logins().len()), (2, 2), "{status}");
    }
}

#[tokio::test]
async fn a_login_that_fails_says_nothing_of_the_payment() {
    let denied = json!({ "error": "invalid_client", "error_description": "Client Authentication failed" });
    let busy = Reply::Say { status: 429, headers: "Retry-After: 17\r\n", body: String::new() };
    for (reply, is_expected) in [
        (say(401, &denied), (|error| matches!(error, GatewayError::Misconfigured(_))) as fn(&GatewayError) -> bool),
        (say(400, &denied), |error| matches!(error, GatewayError::Misconfigured(_))),
        (refuse(422, "ORDER_ALREADY_CAPTURED"), |error| matches!(error, GatewayError::Misconfigured(_))),
        (busy, |error| matches!(error, GatewayError::Busy { after_s: 17, .. })),
        (say(503, &json!({})), |error| matches!(error, GatewayError::Unknown(_))),
        (say(200, &json!({ "token_type": "Bearer" })), |error| matches!(error, GatewayError::Unknown(_))),
        (Reply::HangUp, |error| matches!(error, GatewayError::Unknown(_))),
    ] {
        let scene = Scene::with([approved()], [reply], 32_400).await;
        let error = scene.gateway.find(&lookup(&["5O1"])).await.expect_err("no token");
        assert!(is_expected(&error), "{error:?}");
        assert!(scene.requests().is_empty(), "nothing was asked without a token");
        scene.gateway.find(&lookup(&["5O1"])).await.expect("the next call logs in anew");
    }
}

#[tokio::test]
async fn no_error_tells_a_secret() {
    let denied = json!({ "error": "invalid_client", "error_description": "our-secret" });
    let scene = Scene::with([], [say(401, &denied)], 32_400).await;
    let error = scene.gateway.find(&lookup(&["5O1"])).await.expect_err("no token");
    assert!(!format!("{error} {error:?}").contains("our-secret"), "{error:?}");
    let scene = Scene::of([refuse(401, "X"), refuse(401, "X")]).await;
    let error = scene.gateway.find(&lookup(&["5O1"])).await.expect_err("refused");
    assert!(!format!("{error} {error:?}").contains("token-"), "{error:?}");
}

#[test]
fn only_an_http_address_is_taken() {
    assert!(["http://127.0.0.1:9", "https://api-m.paypal.com/"].into_iter().all(|url| gateway(url).base.has_host()));
    assert!(matches!(try_gateway("mailto:x@y").err(), Some(ConfigError::NotHttp)));
    assert!(matches!(try_gateway("paypal").err(), Some(ConfigError::Url(_))));
    assert!(matches!(try_gateway("https://a:b@paypal.example").err(), Some(ConfigError::NotAnAddress)));
}

#[test]
fn a_gateway_needs_a_webhook_id() {
    for ids in [vec![], vec![""], vec!["WH1", ""]] {
        let ids = ids.into_iter().map(str::to_owned).collect();
        let made = PayPalGateway::new("https://paypal.example", "id".to_owned(), "secret".into(), ids, CLIENT.clone());
        assert!(matches!(made.err(), Some(ConfigError::WebhookId)));
    }
}
