//! What each payment token makes the gateway do. Pure: the rest of the crate only carries it out.

use std::time::Duration;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::payment::Status;

/// How long a captures-late payment leaves the shop before it captures unasked: longer than the
/// eight minutes in which the shop waits for a payment.
const LATE_CAPTURE: Duration = Duration::from_secs(9 * 60);

/// A clock that is advanced in one leap makes the shop's payment window and the late capture due at
/// once. The close then has this long to come first, or "late" would be a race.
const LATE_PATIENCE: Duration = Duration::from_secs(15);

/// How long a close is ahead of the money that arrives in spite of it.
pub(crate) const AFTER_CLOSE: Duration = Duration::from_secs(2);

/// When the HTTP answer to a new charge leaves. A repeated key is always answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    AtOnce,
    /// Late enough for webhooks to overtake it.
    After(Duration),
    /// The connection is held until the caller gives up.
    Never,
}

/// What the shop wants done with the money once the shopper has agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Capture {
    #[default]
    Take,
    Hold,
}

/// How long a refund is under way that does not succeed at once.
pub(crate) const REFUND_PENDS: Duration = Duration::from_secs(2);

/// A charge's whole future, decided when it is made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) status: Status,
    pub(crate) failure: Option<&'static str>,
    /// What is captured when it comes to that.
    pub(crate) capture_amount: Decimal,
    /// Gateway time from creation to capture; `None`: not by itself.
    pub(crate) capture_after: Option<Duration>,
    /// What a due capture still waits for a close to come first.
    pub(crate) patience: Duration,
    /// Captures [`AFTER_CLOSE`] although it was closed.
    pub(crate) captures_closed: bool,
    /// `payment.authorized` follows `payment.captured`.
    pub(crate) authorized_last: bool,
    /// How many times each webhook is sent; 0: never.
    pub(crate) webhook_copies: i32,
    /// How many refund calls fail before one works.
    pub(crate) refund_failures: i32,
    /// The first call under a key is told to come again.
    pub(crate) is_refused_once: bool,
    /// Where it gets to by itself: CAPTURED, AUTHORIZED or APPROVED.
    pub(crate) goes_to: Status,
    /// Refunds are PENDING for [`REFUND_PENDS`].
    pub(crate) refunds_pend: bool,
    /// How many refunds fail after they were PENDING.
    pub(crate) refunds_fail: i32,
    /// The shopper's bank wants the money back as soon as it is captured.
    pub(crate) is_disputed: bool,
    pub(crate) answer: Answer,
}

impl Plan {
    /// The plan for `token`; any token that is not in the table fails as `invalid_token`.
    pub(crate) fn of(token: Option<&str>, amount: Decimal, capture: Capture) -> Plan {
        let goes_to = match capture {
            Capture::Take => Status::Captured,
            Capture::Hold => Status::Authorized,
        };
        let captured = Plan {
            status: goes_to,
            failure: None,
            capture_amount: amount,
            capture_after: None,
            patience: Duration::ZERO,
            captures_closed: false,
            authorized_last: false,
            webhook_copies: 1,
            refund_failures: 0,
            is_refused_once: false,
            goes_to,
            refunds_pend: false,
            refunds_fail: 0,
            is_disputed: false,
            answer: Answer::AtOnce,
        };
        let pending = |seconds| Plan {
            status: Status::Pending,
            capture_after: Some(Duration::from_secs(seconds)),
            ..captured.clone()
        };
        let failed = |reason| Plan { status: Status::Failed, failure: Some(reason), ..captured.clone() };
        match token {
            Some("tok_ok") => captured,
            Some("tok_declined") => failed("card_declined"),
            Some("tok_3ds") => Plan { status: Status::RequiresAction, ..captured },
            Some("tok_approve") => Plan { status: Status::RequiresAction, goes_to: Status::Approved, ..captured },
            Some("tok_hold") => Plan { status: Status::Authorized, goes_to: Status::Authorized, ..captured },
            Some("tok_rate_limited") => Plan { is_refused_once: true, ..captured },
            Some("tok_refund_pending") => Plan { refunds_pend: true, ..captured },
            Some("tok_refund_later_fails") => Plan { refunds_pend: true, refunds_fail: 1, ..captured },
            Some("tok_dispute") => Plan { is_disputed: true, ..captured },
            Some("tok_timeout") => Plan { answer: Answer::Never, ..captured },
            Some("tok_slow") => pending(2),
            Some("tok_late") => {
                Plan { capture_after: Some(LATE_CAPTURE), patience: LATE_PATIENCE, captures_closed: true, ..pending(0) }
            }
            Some("tok_duplicate_webhook") => Plan { webhook_copies: 3, ..captured },
            Some("tok_reordered_webhooks") => {
                Plan { authorized_last: true, answer: Answer::After(Duration::from_millis(600)), ..pending(0) }
            }
            Some("tok_no_webhook") => Plan { webhook_copies: 0, ..pending(1) },
            Some("tok_wrong_amount") => Plan { capture_amount: wrong(amount), ..pending(1) },
            Some("tok_refund_fails_once") => Plan { refund_failures: 1, ..captured },
            Some(_) | None => failed("invalid_token"),
        }
    }

    /// What is captured when the charge is made.
    pub(crate) fn captured_now(&self) -> Decimal {
        if self.status == Status::Captured { self.capture_amount } else { Decimal::ZERO }
    }
}

/// One unit of the currency less than asked, or more where that would leave nothing.
fn wrong(amount: Decimal) -> Decimal {
    if amount > Decimal::ONE { amount - Decimal::ONE } else { amount + Decimal::ONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(token: &str) -> Plan {
        Plan::of(Some(token), Decimal::new(5_905_000, 2), Capture::Take)
    }

    #[test]
    fn every_token_starts_in_its_own_status() {
        let table = [
            ("tok_ok", Status::Captured),
            ("tok_declined", Status::Failed),
            ("tok_3ds", Status::RequiresAction),
            ("tok_approve", Status::RequiresAction),
            ("tok_hold", Status::Authorized),
            ("tok_rate_limited", Status::Captured),
            ("tok_refund_pending", Status::Captured),
            ("tok_refund_later_fails", Status::Captured),
            ("tok_dispute", Status::Captured),
            ("tok_timeout", Status::Captured),
            ("tok_slow", Status::Pending),
            ("tok_late", Status::Pending),
            ("tok_duplicate_webhook", Status::Captured),
            ("tok_reordered_webhooks", Status::Pending),
            ("tok_no_webhook", Status::Pending),
            ("tok_wrong_amount", Status::Pending),
            ("tok_refund_fails_once", Status::Captured),
            ("tok_of_somebody_else", Status::Failed),
        ];
        for (token, status) in table {
            assert_eq!(plan(token).status, status, "{token}");
        }
    }

    #[test]
    fn what_is_to_be_held_is_never_captured_by_itself() {
        for token in ["tok_ok", "tok_3ds", "tok_slow", "tok_hold", "tok_no_webhook", "tok_late"] {
            let plan = Plan::of(Some(token), Decimal::ONE, Capture::Hold);
            assert_eq!(plan.goes_to, Status::Authorized, "{token}");
            assert_eq!(plan.captured_now(), Decimal::ZERO, "{token}");
        }
    }

    #[test]
    fn a_pending_charge_always_has_a_capture_to_come() {
        for token in ["tok_slow", "tok_late", "tok_reordered_webhooks", "tok_no_webhook", "tok_wrong_amount"] {
            assert!(plan(token).capture_after.is_some(), "{token}");
        }
    }

    #[test]
    fn only_failures_carry_a_reason() {
        assert_eq!(plan("tok_declined").failure, Some("card_declined"));
        assert_eq!(plan("nonsense").failure, Some("invalid_token"));
        assert_eq!(Plan::of(None, Decimal::ONE, Capture::Take).failure, Some("invalid_token"));
        assert_eq!(plan("tok_ok").failure, None);
    }

    #[test]
    fn the_late_capture_comes_after_the_payment_window_of_eight_minutes() {
        let late = plan("tok_late");
        assert!(late.capture_after.is_some_and(|after| after > Duration::from_secs(8 * 60)));
        assert!(late.captures_closed);
        assert!(late.patience > Duration::ZERO);
    }

    #[test]
    fn the_wrong_amount_differs_and_is_never_nothing() {
        assert_eq!(plan("tok_wrong_amount").capture_amount, Decimal::new(5_904_900, 2));
        for amount in [Decimal::new(1, 2), Decimal::ONE, Decimal::new(101, 2)] {
            let wrong = Plan::of(Some("tok_wrong_amount"), amount, Capture::Take).capture_amount;
            assert!(wrong > Decimal::ZERO && wrong != amount, "{amount} became {wrong}");
        }
    }

    #[test]
    fn the_time_out_hangs_although_the_charge_was_captured() {
        let plan = plan("tok_timeout");
        assert_eq!((plan.status, plan.answer), (Status::Captured, Answer::Never));
    }
}
