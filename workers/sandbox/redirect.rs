//! The page a shopper is sent to for 3-D Secure: two buttons, and no way to press both.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use crate::Gateway;
use crate::payment::{self, Payment, Status};
use crate::refusal::Refusal;
use crate::settle;

/// The page's own style and form, and nothing else.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

pub(crate) async fn show(State(gateway): State<Gateway>, Path(payment_id): Path<String>) -> Result<Response, Refusal> {
    let payment = payment::by_id(&gateway.pool, &payment_id).await?.ok_or(Refusal::NotFound)?;
    Ok(page(&payment, None))
}

pub(crate) async fn approve(
    State(gateway): State<Gateway>,
    Path(payment_id): Path<String>,
) -> Result<Response, Refusal> {
    // Approval makes the capture due; it is then made where every capture is made.
    let order_id: Option<String> = sqlx::query_scalar(
        "update sandbox.payments set status = 'PENDING', capture_at = sandbox.now()
         where payment_id = $1 and status = 'REQUIRES_ACTION' returning order_id",
    )
    .bind(&payment_id)
    .fetch_optional(&gateway.pool)
    .await?;
    if let Some(order_id) = order_id {
        settle::due(&gateway.pool, Some(&order_id)).await?;
    }
    let payment = payment::by_id(&gateway.pool, &payment_id).await?.ok_or(Refusal::NotFound)?;
    Ok(page(&payment, Some(Choice::Approve)))
}

pub(crate) async fn decline(
    State(gateway): State<Gateway>,
    Path(payment_id): Path<String>,
) -> Result<Response, Refusal> {
    sqlx::query(
        "update sandbox.payments set status = 'FAILED', failure = 'authentication_declined'
         where payment_id = $1 and status = 'REQUIRES_ACTION'",
    )
    .bind(&payment_id)
    .execute(&gateway.pool)
    .await?;
    let payment = payment::by_id(&gateway.pool, &payment_id).await?.ok_or(Refusal::NotFound)?;
    Ok(page(&payment, Some(Choice::Decline)))
}

/// A button.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Approve,
    Decline,
}

/// The page for where the payment stands; `pressed` is the button that led there.
fn page(payment: &Payment, pressed: Option<Choice>) -> Response {
    let (mut status, text, decided) = match payment.status {
        Status::RequiresAction => (StatusCode::OK, "The shop asks you to approve this payment.", None),
        Status::Pending => (StatusCode::OK, "Your approval was received; the payment is being captured.", None),
        Status::Approved | Status::Authorized | Status::Captured => {
            (StatusCode::OK, "You approved this payment.", Some(Choice::Approve))
        }
        Status::Failed => (StatusCode::OK, "You declined this payment.", Some(Choice::Decline)),
        Status::Closed => (StatusCode::GONE, "The shop has closed this payment. Nothing was charged.", None),
    };
    if decided.is_some() && pressed.is_some() && pressed != decided {
        status = StatusCode::CONFLICT;
    }
    let headers = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, Html(html(payment, text))).into_response()
}

fn html(payment: &Payment, text: &str) -> String {
    let id = escaped(&payment.payment_id);
    let buttons = if payment.status == Status::RequiresAction {
        // Relative, so that the page also works behind a proxy's prefix.
        format!(
            "<form method=\"post\" action=\"{id}/approve\"><button>Approve</button></form>\n\
             <form method=\"post\" action=\"{id}/decline\"><button>Decline</button></form>\n"
        )
    } else {
        String::new()
    };
    let back = match payment.return_url.as_deref() {
        Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
            format!("<p><a href=\"{}\">Back to the shop</a></p>\n", escaped(url))
        }
        Some(_) | None => String::new(),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Sandbox bank</title>\n\
         <style>body{{font:1.1rem system-ui;max-width:28rem;margin:15vh auto;padding:0 1rem}}\
         form{{display:inline}}button{{font:inherit;padding:.5rem 1.5rem;margin-right:.5rem}}</style>\n\
         <h1>Sandbox bank</h1>\n<p>Order {order}: <strong>{amount} {currency}</strong></p>\n\
         <p>{text}</p>\n{buttons}{back}</html>\n",
        order = escaped(&payment.order_id),
        amount = payment.amount,
        currency = escaped(&payment.currency),
    )
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            plain => out.push(plain),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rust_decimal::Decimal;

    fn payment(status: Status) -> Payment {
        Payment {
            payment_id: "sbx_1".into(),
            order_id: "<script>".into(),
            attempt: 1,
            amount: Decimal::new(10_000, 2),
            currency: "INR".into(),
            method: "CREDIT_CARD".into(),
            return_url: Some("javascript:alert(1)".into()),
            status,
            failure: None,
            captured_amount: Decimal::ZERO,
            refunded_amount: Decimal::ZERO,
        }
    }

    #[test]
    fn only_an_undecided_payment_shows_buttons() {
        assert!(html(&payment(Status::RequiresAction), "").contains("sbx_1/approve"));
        let others = [Status::Pending, Status::Approved, Status::Authorized, Status::Captured, Status::Failed];
        for status in others.into_iter().chain([Status::Closed]) {
            assert!(!html(&payment(status), "").contains("<button>"), "{status:?}");
        }
    }

    #[test]
    fn repeating_a_choice_is_harmless_and_changing_it_is_refused() {
        let answer = |stands, wanted| page(&payment(stands), Some(wanted)).status();
        for approved in [Status::Approved, Status::Authorized, Status::Captured] {
            assert_eq!(answer(approved, Choice::Approve), StatusCode::OK);
            assert_eq!(answer(approved, Choice::Decline), StatusCode::CONFLICT);
        }
        assert_eq!(answer(Status::Failed, Choice::Decline), StatusCode::OK);
        assert_eq!(answer(Status::Closed, Choice::Approve), StatusCode::GONE);
    }

    #[test]
    fn what_the_shop_sent_cannot_become_markup_or_script() {
        let page = html(&payment(Status::RequiresAction), "");
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert!(!page.contains("javascript:"));
    }
}
