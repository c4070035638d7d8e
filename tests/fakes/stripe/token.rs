//! What a test payment method does.

/// A payment's course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// The money is there.
    Charge,
    /// The bank says no: code, and why the bank did.
    Decline { code: &'static str, reason: &'static str },
    /// The shopper is asked first.
    Authenticate,
    /// It is paid, and disputed at once.
    Dispute,
    /// It is paid; its refunds are under way until they are told to end.
    PendingRefund,
    /// It is paid; its refunds succeed until they are told to fail.
    FailingRefund,
    /// The bank takes its time, as with a debit.
    Process,
}

impl Course {
    /// None: there is no such payment method.
    pub(super) fn of(token: &str) -> Option<Course> {
        let declined = |code, reason| Some(Course::Decline { code, reason });
        match token {
            "pm_card_visa" | "pm_card_mastercard" | "pm_card_amex" | "pm_card_in" | "pm_card_us" => {
                Some(Course::Charge)
            }
            "pm_card_chargeCustomerFail" | "pm_card_visa_chargeDeclined" | "pm_card_chargeDeclined" => {
                declined("card_declined", "generic_decline")
            }
            "pm_card_visa_chargeDeclinedInsufficientFunds" | "pm_card_chargeDeclinedInsufficientFunds" => {
                declined("card_declined", "insufficient_funds")
            }
            "pm_card_visa_chargeDeclinedLostCard" => declined("card_declined", "lost_card"),
            "pm_card_chargeDeclinedExpiredCard" => declined("expired_card", "expired_card"),
            "pm_card_chargeDeclinedIncorrectCvc" => declined("incorrect_cvc", "incorrect_cvc"),
            "pm_card_chargeDeclinedProcessingError" => declined("processing_error", "processing_error"),
            "pm_card_threeDSecure2Required" | "pm_card_threeDSecureRequired" | "pm_card_authenticationRequired" => {
                Some(Course::Authenticate)
            }
            "pm_card_createDispute" => Some(Course::Dispute),
            "pm_card_pendingRefund" => Some(Course::PendingRefund),
            "pm_card_refundFail" => Some(Course::FailingRefund),
            "pm_fake_processing" => Some(Course::Process),
            _ => None,
        }
    }
}
