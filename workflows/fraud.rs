//! Fraud screening: a checkout is scored, and what is doubtful waits for somebody of the staff.
//!
//! [`screen()`] is the checkout's step, and [`review()`] its wait; [`decide()`] is the staff's word, and [`dry_run()`] says
//! what other rules would have made of past checkouts. The rules themselves are `domain::fraud`'s.
//!
//! Why a checkout is denied is never told to whoever asked for it: there is one [`refusal`] for all.

mod book;
mod dry_run;
mod review;
mod screen;

use engine::Failure;

pub use self::{
    dry_run::{Change, DryRun, DryRunError, MOST_CHANGES, MOST_CHECKOUTS, dry_run},
    review::{
        CloseReview, ExpireReview, OpenReview, ReviewRefusal, SIGNAL, StaffDecision, Verdict, decide, open_review,
        passed, review,
    },
    screen::{ScreenOrder, Screening, screen, screen_all},
};

/// The code of every checkout that is not let through.
pub const DENIED: &str = "fraud-denied";

/// How a checkout fails that is denied, or whose review did not end well: the same words, whatever the reason.
pub fn refusal() -> Failure {
    Failure::new(DENIED, "this order cannot be accepted")
}
