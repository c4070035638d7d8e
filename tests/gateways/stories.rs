//! A checkout at each gateway, killed at every point of its way; and what gateways do to shops.

use workflows::fraud::StaffDecision;

use super::till::{Course, Till};
use crate::{
    misfortune::{Misfortune, Story as _, Way, astray, every_point, everything_twice, play},
    provider::{PROVIDERS, Provider, Site},
};

/// Plays a course once, without misfortune in the shop, after `fate` has been arranged with the gateway. Whether it ended
/// as it should; whole it ended in any case.
async fn through(provider: Provider, course: Course, fate: impl AsyncFnOnce(&Site), when: &str) -> bool {
    let till = Till::with(provider, course, "USD");
    let world = till.world().await;
    fate(&till.account().site).await;
    let begun = play(&till, &world, Way::Fused, None, when).await;
    astray(&till, &world, &begun, when).await == 0
}

macro_rules! at_each_gateway {
    ($($name:ident: $provider:expr),+ $(,)?) => {$(
        mod $name {
            use super::*;

            async fn whatever_dies(courses: impl IntoIterator<Item = Course>) {
                for course in courses {
                    every_point(&Till::new($provider, course), Way::Fused, Misfortune::Death).await;
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_is_paid_is_sold_whatever_dies() {
                whatever_dies([Course::Paid]).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_the_bank_asks_about_is_sold_whatever_dies() {
                whatever_dies([Course::Asked]).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_is_declined_or_abandoned_takes_nothing_whatever_dies() {
                whatever_dies([Course::Declined, Course::Abandoned]).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_is_declined_and_tried_again_is_sold_whatever_dies() {
                whatever_dies([Course::TriedAgain]).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_is_cancelled_returned_or_paid_too_late_goes_back_once_whatever_dies() {
                whatever_dies([Course::Cancelled, Course::PartlyRefunded, Course::Returned, Course::PaidLate]).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_is_held_for_the_staff_is_taken_or_let_go_whatever_dies() {
                whatever_dies([StaffDecision::Approve, StaffDecision::Reject].map(Course::Reviewed)).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn everything_done_twice_is_done_once() {
                let courses = [
                    Course::Paid,
                    Course::Asked,
                    Course::TriedAgain,
                    Course::Cancelled,
                    Course::PartlyRefunded,
                    Course::Returned,
                    Course::PaidLate,
                ];
                for course in courses {
                    everything_twice(&Till::new($provider, course), Way::Fused).await;
                }
            }
        }
    )+};
}

at_each_gateway! {
    sandbox: Provider::Sandbox,
    stripe: Provider::Stripe,
    razorpay: Provider::Razorpay,
    paypal: Provider::PayPal,
}

/// The sandbox answers none, and takes a minute for it: the same befalls the gateway in memory elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_answer_is_lost_is_found_whatever_dies_besides() {
    for provider in [Provider::Stripe, Provider::Razorpay, Provider::PayPal] {
        every_point(&Till::new(provider, Course::AnswerLost), Way::Fused, Misfortune::Death).await;
    }
}

/// Answers that are lost, requests that never come, failures with and without effect, and being told to wait.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_gateway_does_with_one_call_nothing_is_charged_or_given_back_twice() {
    let kinds = [
        "lose-answer",
        "lose-request",
        "delay",
        "server-error",
        "server-error-after-effect",
        "rate-limit",
        "in-flight",
    ];
    for provider in PROVIDERS.into_iter().filter(|provider| *provider != Provider::Sandbox) {
        for operation in ["initiate", "capture", "find", "refund"] {
            for kind in kinds {
                let when = format!("{provider:?}, {operation}: {kind}");
                let fate = async |site: &Site| site.befalls(operation, kind, 2).await;
                let is_sold = through(provider, Course::Cancelled, fate, &when).await;
                // Stripe gives a failure again as long as it knows its key: nothing was charged, and nothing is bought.
                let is_stuck = (provider, operation, kind) == (Provider::Stripe, "initiate", "server-error");
                assert!(is_sold || is_stuck, "{when}");
            }
        }
    }
}

/// Word that comes twice, in the wrong order, late, or never.
#[tokio::test(flavor = "multi_thread")]
async fn however_webhooks_come_each_story_ends_the_same() {
    for provider in PROVIDERS.into_iter().filter(|provider| *provider != Provider::Sandbox) {
        for mode in ["none", "duplicate", "reorder", "late"] {
            for course in [Course::Asked, Course::Cancelled] {
                let when = format!("{provider:?}, {course:?}, webhooks: {mode}");
                let how = serde_json::json!({ "mode": mode, "copies": 3, "window": 2, "delayMs": 200 });
                let fate = async |site: &Site| assert!(site.fate("webhooks", how).await.is_success());
                assert!(through(provider, course, fate, &when).await, "{when}");
            }
        }
    }
}
