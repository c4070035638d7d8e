//! Who may do what: every route of the served document, asked by everybody. The table is the whole truth;
//! a route that is not in it fails the test.
//!
//! The requests are the document's own examples, about things that exist and belong to the owner. The
//! callers of a row come in the table's order, so that those who are refused find the thing untouched.

mod cast;

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::Value;

use self::cast::Cast;
use crate::{
    contract::{breaches_of_answer, operations},
    server::{Answer, Server},
};

/// `yes`: the route does what it is for, or says why it cannot in the state things are in (400, 409, 412,
/// 422). Where a row ends with a status, that is what even the first who may gets, since the thing asked
/// for cannot be done by an example; all other rows end well for him.
const TABLE: &str = "
route                                              anonymous guest other service owner staff admin
GET    /api/addresses                              401       401   yes   401     yes   yes   yes
POST   /api/addresses                              401       401   yes   401     yes   yes   yes
GET    /api/addresses/{id}                         401       401   404   401     yes   404   404
PATCH  /api/addresses/{id}                         401       401   404   401     yes   404   404
DELETE /api/addresses/{id}                         401       401   404   401     yes   404   404
GET    /api/api-keys                               401       401   403   403     403   403   yes
POST   /api/api-keys                               401       401   403   403     403   403   yes
DELETE /api/api-keys/{id}                          401       401   403   403     403   403   yes
POST   /api/auth/login                             yes       yes   yes   yes     yes   yes   yes
POST   /api/auth/logout                            yes       yes   yes   yes     yes   yes   yes
POST   /api/auth/refresh                           yes       yes   yes   yes     yes   yes   yes
POST   /api/auth/register                          yes       yes   yes   yes     yes   yes   yes
GET    /api/brands                                 yes       yes   yes   yes     yes   yes   yes
POST   /api/brands                                 401       401   403   403     403   yes   yes
GET    /api/cart                                   yes       yes   yes   403     yes   yes   yes
DELETE /api/cart                                   yes       yes   yes   403     yes   yes   yes
POST   /api/cart/coupons                           yes       yes   yes   403     yes   yes   yes
DELETE /api/cart/coupons/{code}                    yes       yes   yes   403     yes   yes   yes
POST   /api/cart/items                             yes       yes   yes   403     yes   yes   yes
PATCH  /api/cart/items/{variantId}                 404       yes   yes   403     yes   yes   yes
DELETE /api/cart/items/{variantId}                 404       yes   yes   403     yes   yes   yes
POST   /api/cart/merge                             401       401   yes   403     yes   yes   yes
GET    /api/categories                             yes       yes   yes   yes     yes   yes   yes
POST   /api/categories                             401       401   403   403     403   yes   yes
PATCH  /api/categories/{id}                        401       401   403   403     403   yes   yes
POST   /api/checkout                               401       401   yes   401     yes   yes   yes
GET    /api/checkout/{workflowId}                  401       404   404   401     yes   yes   yes
DELETE /api/checkout/{workflowId}                  401       404   404   401     yes   403   403
GET    /api/coupons                                401       401   403   403     403   yes   yes
POST   /api/coupons                                401       401   403   403     403   yes   yes
POST   /api/coupons/validate                       yes       yes   yes   403     yes   yes   yes
GET    /api/coupons/{code}                         401       401   403   403     403   yes   yes
PATCH  /api/coupons/{code}                         401       401   403   403     403   yes   yes
POST   /api/dev/clock                              yes       yes   yes   yes     yes   yes   yes
GET    /api/dev/gateway/payments                   yes       yes   yes   yes     yes   yes   yes
GET    /api/dev/mailbox                            yes       yes   yes   yes     yes   yes   yes
GET    /api/events                                 401       401   403   yes     403   yes   yes
GET    /api/fraud/reviews                          401       401   403   403     403   yes   yes
GET    /api/fraud/rules                            401       401   403   403     403   403   yes
PUT    /api/fraud/rules                            401       401   403   403     403   403   yes
POST   /api/fraud/rules/dry-run                    401       401   403   403     403   403   yes
GET    /api/inventory/check                        yes       yes   yes   yes     yes   yes   yes
POST   /api/inventory/release                      401       401   403   yes     403   403   403
POST   /api/inventory/reserve                      401       401   403   yes     403   403   403
GET    /api/inventory/{variantId}                  401       401   403   403     403   yes   yes
POST   /api/inventory/{variantId}/adjust           401       401   403   403     403   yes   yes
GET    /api/inventory/{variantId}/movements        401       401   403   403     403   yes   yes
POST   /api/inventory/{variantId}/restock          401       401   403   403     403   yes   yes
GET    /api/me                                     401       401   yes   401     yes   yes   yes
PATCH  /api/me                                     401       401   yes   401     yes   yes   yes
DELETE /api/me                                     401       401   yes   401     yes   yes   yes
GET    /api/me/preferences                         401       401   yes   401     yes   yes   yes
PUT    /api/me/preferences                         401       401   yes   401     yes   yes   yes
GET    /api/orders                                 401       401   yes   401     yes   yes   yes
GET    /api/orders/{id}                            401       404   404   401     yes   yes   yes
POST   /api/orders/{id}/call-off                   401       401   403   403     403   yes   yes   409
POST   /api/orders/{id}/cancel                     401       404   404   401     yes   yes   yes
GET    /api/orders/{id}/history                    401       404   404   401     yes   yes   yes
GET    /api/orders/{id}/returns                    401       404   404   401     yes   yes   yes
POST   /api/orders/{id}/returns                    401       404   404   401     yes   yes   yes
POST   /api/orders/{id}/review                     401       401   403   403     403   yes   yes   409
POST   /api/orders/{id}/shipments                  401       401   403   403     403   yes   yes
POST   /api/orders/{id}/status                     401       401   403   403     403   yes   yes
POST   /api/payments/process                       401       404   404   401     yes   yes   yes   409
POST   /api/payments/refund                        401       401   403   403     403   yes   yes
GET    /api/payments/return/{orderId}              yes       yes   yes   yes     yes   yes   yes
POST   /api/payments/return/{orderId}              yes       yes   yes   yes     yes   yes   yes
GET    /api/products                               yes       yes   yes   yes     yes   yes   yes
POST   /api/products                               401       401   403   403     403   yes   yes
GET    /api/products/{id}                          yes       yes   yes   yes     yes   yes   yes
PATCH  /api/products/{id}                          401       401   403   403     403   yes   yes
POST   /api/products/{id}/variants                 401       401   403   403     403   yes   yes
GET    /api/refunds                                401       401   403   403     403   yes   yes
POST   /api/refunds/{id}/resend                    401       401   403   403     403   yes   yes   409
POST   /api/refunds/{id}/settle                    401       401   403   403     403   403   yes   409
POST   /api/returns/{id}/approve                   401       401   403   403     403   yes   yes
POST   /api/returns/{id}/receive                   401       401   403   403     403   yes   yes
POST   /api/returns/{id}/reject                    401       401   403   403     403   yes   yes
GET    /api/schedules                              401       401   403   403     403   yes   yes
POST   /api/schedules/{name}/pause                 401       401   403   403     403   403   yes
POST   /api/schedules/{name}/resume                401       401   403   403     403   403   yes
POST   /api/schedules/{name}/run                   401       401   403   403     403   403   yes
POST   /api/shipments/{id}/status                  401       401   403   403     403   yes   yes
GET    /api/users                                  401       401   403   403     403   yes   yes
PATCH  /api/users/{id}                             401       401   403   403     403   403   yes
DELETE /api/users/{id}                             401       401   403   403     403   403   yes
PATCH  /api/variants/{id}                          401       401   403   403     403   yes   yes
POST   /api/webhooks/{gateway}                     yes       yes   yes   yes     yes   yes   yes   400
";

const CALLERS: [&str; 7] = ["anonymous", "guest", "other", "service", "owner", "staff", "admin"];

#[tokio::test(flavor = "multi_thread")]
async fn every_route_opens_to_whom_it_should_and_to_nobody_else() {
    let server = Server::open().await;
    let document = server.door.get("/api/openapi.json").await.ok();
    let mut table: BTreeMap<String, String> = TABLE
        .lines()
        .skip(2)
        .map(|line| {
            let mut words = line.split_whitespace();
            let route = [words.next(), words.next()].map(|word| word.unwrap_or_default()).join(" ");
            (route, words.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let mut wrong = Vec::new();
    for (method, path, operation) in operations(&document) {
        let found = ask_everybody(&server, &document, &method, &path, operation, &mut wrong).await;
        let expected = table.remove(&format!("{method} {path}"));
        if expected.as_deref() != Some(&found) {
            wrong.push(line(&method, &path, &found));
        }
    }
    wrong.extend(table.into_keys().map(|route| format!("{route} is in the table, and nowhere else")));
    assert!(wrong.is_empty(), "the table should say:\n{}", wrong.join("\n"));
    server.stop().await;
}

/// As it would stand in the table.
fn line(method: &str, path: &str, cells: &str) -> String {
    let mut line = format!("{method:<6} {path:<43} ");
    let mut cells = cells.split(' ');
    for caller in CALLERS {
        line.push_str(&format!("{:<width$} ", cells.next().unwrap_or_default(), width = caller.len().max(3)));
    }
    line.push_str(cells.next().unwrap_or_default());
    line.trim_end().to_owned()
}

/// The cells of one row.
async fn ask_everybody(
    server: &Server,
    document: &Value,
    method: &str,
    path: &str,
    operation: &Value,
    wrong: &mut Vec<String>,
) -> String {
    let cast = Cast::gather(server, path).await;
    let mut cells = Vec::new();
    let mut first_yes = None;
    for (index, caller) in CALLERS.into_iter().enumerate() {
        let method_type: Method = method.parse().expect("a method");
        let target = cast.target(path);
        let mut request = match cast.caller(caller) {
            Some(shopper) => shopper.request(method_type, &target),
            None => server.door.request(method_type, &target),
        };
        if method == "POST" {
            request = request.header("idempotency-key", format!("{path} {caller}"));
        }
        if let Some((name, value)) = cast.session(path, caller) {
            request = request.header(name, value);
        }
        if let Some(body) = cast.body(path, operation, index) {
            request = request.json(&body);
        }
        let answer = Answer::to(request).await;
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        let Answer { status, body, .. } = answer;
        for breach in breaches_of_answer(document, operation, status, &kind, &body) {
            wrong.push(format!("{method} {path} answers {caller}: {breach}"));
        }
        cells.push(match status {
            401 | 403 | 404 => status.to_string(),
            200..=303 | 400 | 409 | 412 | 422 => {
                first_yes.get_or_insert_with(|| {
                    if status >= 400 {
                        eprintln!("{method} {path} answers {caller} {body}");
                    }
                    status
                });
                "yes".to_owned()
            }
            _ => format!("{status}!"),
        });
    }
    cells.extend(first_yes.filter(|status| *status >= 400).map(|status| status.to_string()));
    cells.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_document_is_for_everybody() {
    let server = Server::open_idle().await;
    for (path, status) in [
        ("/", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/docs/", 200),
        ("/api/openapi.json", 200),
        ("/dev/mailbox", 200),
        // This process was given no recorder.
        ("/metrics", 404),
    ] {
        assert_eq!(server.door.get(path).await.status, status, "{path}");
    }
    server.stop().await;
}
