//! What the books say, what the gateway says, and what follows from the difference.

use domain::{
    ids::OrderId,
    money::Money,
    ports::{
        GatewayPayment, GatewayPaymentStatus, GatewayRefundStatus, ListedRefund, WebhookEvent, WebhookKind,
        WebhookSubject,
    },
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::store::reconciliation::Booked;

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    /// The gateway has told, or would have told, and nobody here knows: as if it told now.
    Untold(WebhookEvent),
    /// Nothing that a run could mend.
    Mismatch(Mismatch),
}

impl Finding {
    /// Another amount went back than the books say.
    pub(super) fn is_of_refunds(&self) -> bool {
        matches!(self, Finding::Mismatch(Mismatch { kind: MismatchKind::RefundedDiffers, .. }))
    }
}

/// Books and gateway say different things, and a person must find out why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mismatch {
    /// Of which kind.
    pub kind: MismatchKind,
    /// For people.
    pub detail: String,
}

/// How books and gateway differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MismatchKind {
    /// The books have money that the gateway has never heard of.
    UnknownToGateway,
    /// Another amount was taken than the books say.
    CapturedDiffers,
    /// Another amount went back than the books say.
    RefundedDiffers,
    /// The gateway would not say what it knows of the payment.
    Unanswered,
}

impl MismatchKind {
    /// As metrics and reports name it.
    pub fn as_str(self) -> &'static str {
        match self {
            MismatchKind::UnknownToGateway => "unknown-to-gateway",
            MismatchKind::CapturedDiffers => "captured-differs",
            MismatchKind::RefundedDiffers => "refunded-differs",
            MismatchKind::Unanswered => "unanswered",
        }
    }
}

/// Compares an order's books with every payment the gateway knows for it.
pub(super) fn compare(booked: &Booked, found: &[GatewayPayment]) -> Vec<Finding> {
    if found.is_empty() && booked.captured > Decimal::ZERO {
        let detail = format!("the books have {} captured, the gateway knows of no payment", booked.captured);
        return vec![Finding::Mismatch(Mismatch { kind: MismatchKind::UnknownToGateway, detail })];
    }
    found.iter().filter_map(|payment| compare_one(booked, payment)).collect()
}

fn compare_one(booked: &Booked, payment: &GatewayPayment) -> Option<Finding> {
    let id = &payment.gateway_payment_id;
    let mismatch =
        |kind, detail: String| Some(Finding::Mismatch(Mismatch { kind, detail: format!("payment {id}: {detail}") }));
    if booked.order_status == "PENDING" {
        // Its checkout run has it in hand.
        return match payment.status {
            GatewayPaymentStatus::Captured => Some(Finding::Untold(word(payment, WebhookKind::PaymentCaptured))),
            GatewayPaymentStatus::Failed => Some(Finding::Untold(word(payment, WebhookKind::PaymentFailed))),
            GatewayPaymentStatus::Pending
            | GatewayPaymentStatus::RequiresAction
            | GatewayPaymentStatus::Approved
            | GatewayPaymentStatus::Authorized
            | GatewayPaymentStatus::Closed => None,
        };
    }
    if booked.order_status == "CANCELLED" {
        match payment.status {
            // Nobody has a use for what is set aside.
            GatewayPaymentStatus::Approved | GatewayPaymentStatus::Authorized => {
                return Some(Finding::Untold(word(payment, WebhookKind::PaymentAuthorized)));
            }
            GatewayPaymentStatus::Pending
            | GatewayPaymentStatus::RequiresAction
            | GatewayPaymentStatus::Captured
            | GatewayPaymentStatus::Failed
            | GatewayPaymentStatus::Closed => {}
        }
    }
    let of_payment = booked.refunds.iter().find(|refunds| refunds.gateway_payment_id == *id);
    let by_hand = of_payment.map_or(Decimal::ZERO, |refunds| refunds.by_hand);
    let settled = of_payment.map_or(Decimal::ZERO, |refunds| refunds.settled) - by_hand;
    if booked.is_settling || of_payment.is_some_and(|refunds| refunds.pending > Decimal::ZERO) {
        return None;
    }
    let stands_for_order = booked.order_status != "CANCELLED" && booked.confirmed_by.as_ref() == Some(id);
    if stands_for_order && payment.captured != booked.captured {
        return mismatch(
            MismatchKind::CapturedDiffers,
            format!("captured {} by the books, {} at the gateway", booked.captured, payment.captured),
        );
    }
    // Money that stands for no order goes back, once; what is owed beyond that nobody knows.
    let is_owed = !stands_for_order && payment.captured - by_hand > payment.refunded.max(settled);
    if is_owed && !booked.refused.contains(id) {
        return Some(Finding::Untold(word(payment, WebhookKind::PaymentCaptured)));
    }
    if is_owed || payment.refunded != settled {
        return mismatch(
            MismatchKind::RefundedDiffers,
            format!(
                "captured {}, given back {settled} by the books, {} at the gateway",
                payment.captured, payment.refunded
            ),
        );
    }
    None
}

/// The gateway's word of a refund, as its webhook would have brought it.
pub(super) fn refund_word(order_id: OrderId, gateway_payment_id: &str, listed: &ListedRefund) -> WebhookEvent {
    let ListedRefund { refund_id, refund } = listed;
    let kind = match refund.status {
        GatewayRefundStatus::Pending => WebhookKind::RefundPending,
        GatewayRefundStatus::Succeeded => WebhookKind::RefundSucceeded,
        GatewayRefundStatus::Failed => WebhookKind::RefundFailed,
    };
    WebhookEvent {
        event_id: format!("reconciliation/{}", refund.gateway_refund_id),
        kind,
        gateway_payment_id: gateway_payment_id.to_owned(),
        order_id: Some(order_id),
        amount: Some(refund.amount.clone()),
        failure: refund.failure.clone(),
        about: Some(WebhookSubject { gateway_id: refund.gateway_refund_id.clone(), refund_id: *refund_id }),
        at: None,
    }
}

/// The gateway's word, as its webhook would have brought it.
fn word(payment: &GatewayPayment, kind: WebhookKind) -> WebhookEvent {
    WebhookEvent {
        event_id: format!("reconciliation/{}", payment.gateway_payment_id),
        gateway_payment_id: payment.gateway_payment_id.clone(),
        order_id: Some(payment.order_id),
        amount: (kind == WebhookKind::PaymentCaptured)
            .then(|| Money::rounded(payment.captured, payment.amount.currency())),
        failure: payment.failure.clone(),
        about: None,
        at: None,
        kind,
    }
}

#[cfg(test)]
mod tests {
    use domain::{ids::OrderId, money::Currency};

    use super::*;
    use crate::store::reconciliation::BookedRefunds;

    fn payment(status: GatewayPaymentStatus, captured: i64, refunded: i64) -> GatewayPayment {
        GatewayPayment {
            gateway_payment_id: "pay".to_owned(),
            order_id: OrderId::generate(),
            status,
            amount: Money::rounded(Decimal::from(100), Currency::INR),
            captured: captured.into(),
            refunded: refunded.into(),
            next_action: None,
            failure: None,
        }
    }

    fn booked(order_status: &str, captured: i64) -> Booked {
        Booked {
            order_status: order_status.to_owned(),
            confirmed_by: Some("pay".to_owned()),
            asked_for: Some("pay".to_owned()),
            captured: captured.into(),
            refunds: Vec::new(),
            is_settling: false,
            refused: Vec::new(),
        }
    }

    fn refunded(settled: i64, pending: i64) -> Vec<BookedRefunds> {
        vec![BookedRefunds {
            gateway_payment_id: "pay".to_owned(),
            settled: settled.into(),
            by_hand: Decimal::ZERO,
            pending: pending.into(),
        }]
    }

    fn by_hand(settled: i64) -> Vec<BookedRefunds> {
        refunded(settled, 0).into_iter().map(|refunds| BookedRefunds { by_hand: settled.into(), ..refunds }).collect()
    }

    /// `told` for a word that is passed on, the mismatch's kind, or nothing.
    fn finding(booked: &Booked, found: &[GatewayPayment]) -> &'static str {
        match compare(booked, found).as_slice() {
            [] => "",
            [Finding::Untold(event)] if event.kind == WebhookKind::PaymentFailed => "told failed",
            [Finding::Untold(_)] => "told captured",
            [Finding::Mismatch(mismatch)] => mismatch.kind.as_str(),
            several => panic!("{several:?}"),
        }
    }

    #[test]
    fn each_difference_has_its_consequence() {
        use GatewayPaymentStatus::{Captured, Closed, Failed, RequiresAction};
        let pending = booked("PENDING", 0);
        let confirmed = booked("CONFIRMED", 100);
        let cancelled = Booked { confirmed_by: None, ..booked("CANCELLED", 0) };
        let given_back = Booked { refunds: refunded(100, 0), ..booked("CANCELLED", 100) };
        for (case, booked, found, follows) in [
            ("a lost capture", &pending, payment(Captured, 100, 0), "told captured"),
            ("a lost refusal", &pending, payment(Failed, 0, 0), "told failed"),
            ("a shopper who takes time", &pending, payment(RequiresAction, 0, 0), ""),
            ("all is well", &confirmed, payment(Captured, 100, 0), ""),
            ("less was taken", &confirmed, payment(Captured, 90, 0), "captured-differs"),
            ("somebody gave back by hand", &confirmed, payment(Captured, 100, 10), "refunded-differs"),
            (
                "a part went back",
                &Booked { refunds: refunded(10, 0), ..confirmed.clone() },
                payment(Captured, 100, 10),
                "",
            ),
            (
                "a part is on its way",
                &Booked { refunds: refunded(0, 10), ..confirmed.clone() },
                payment(Captured, 100, 10),
                "",
            ),
            (
                "paid twice",
                &Booked { confirmed_by: Some("other".to_owned()), ..confirmed.clone() },
                payment(Captured, 100, 0),
                "told captured",
            ),
            ("never paid", &cancelled, payment(Closed, 0, 0), ""),
            ("money came late", &cancelled, payment(Captured, 100, 0), "told captured"),
            (
                "money came late, and a run gives it back",
                &Booked { is_settling: true, ..cancelled.clone() },
                payment(Captured, 100, 0),
                "",
            ),
            (
                "money came late, and the run that gave it back is over",
                &Booked { refused: vec!["pay".to_owned()], ..cancelled.clone() },
                payment(Captured, 100, 0),
                "refunded-differs",
            ),
            ("all went back", &given_back, payment(Captured, 100, 100), ""),
            (
                "it was paid back by hand",
                &Booked { refunds: by_hand(100), ..booked("CANCELLED", 100) },
                payment(Captured, 100, 0),
                "",
            ),
            ("a part of it was", &Booked { refunds: by_hand(10), ..confirmed.clone() }, payment(Captured, 100, 0), ""),
            ("it never arrived", &given_back, payment(Captured, 100, 0), "refunded-differs"),
        ] {
            assert_eq!(finding(booked, &[found]), follows, "{case}");
        }
        assert_eq!(finding(&confirmed, &[]), "unknown-to-gateway");
        assert_eq!(finding(&cancelled, &[]), "");
    }
}
