//! The ways a visit to the shop can end, and how many shoppers go each way.

use engine::codes;
use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use workflows::checkout::status::Shown;

/// How often each outcome is played in a demo that is large enough.
const LEAST_OF_EACH: usize = 5;

/// How many shoppers get the last pieces of a limited variant, see [`super::shelf`]; one in a small
/// demo.
const LAST_PIECES: usize = 6;

/// How a visit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    /// Paid by card at once.
    Paid,
    /// The same, with the coupon SAVE20.
    PaidWithCoupon,
    /// To be paid on delivery.
    CashOnDelivery,
    /// The card was refused.
    Declined,
    /// Paid after 3-D Secure.
    SecureApproved,
    /// Refused on the 3-D Secure page.
    SecureDeclined,
    /// The 3-D Secure page was closed, and the payment window passed.
    SecureAbandoned,
    /// The gateway took the charge and never answered.
    GatewayTimeout,
    /// The gateway captured a while later.
    SlowCapture,
    /// The gateway captured and never said so.
    NoWebhook,
    /// The gateway captured after it had closed the payment.
    LateCapture,
    /// The gateway said everything several times.
    DuplicateWebhooks,
    /// The gateway's messages overtook its answer and each other.
    ReorderedWebhooks,
    /// The gateway captured another amount.
    WrongAmount,
    /// The order was placed in two browser tabs at once.
    TwoTabs,
    /// Got a piece of what many wanted.
    LastPieces,
    /// Came too late for one.
    SoldOut,
    /// Filled a cart and left.
    AbandonedCart,
    /// Gave the checkout up while it waited for the payment.
    GivenUp,
    /// The bank took the money of a refused payment after all, and giving it back failed once.
    RefundFailsOnce,
    /// Paid with the coupon FLAT500.
    PaidWithFixed,
    /// Paid with the coupon FREESHIP.
    PaidWithFreeShipping,
    /// Paid with the coupon BUY2GET1.
    PaidWithOneFree,
    /// Filled a cart as a guest, logged in, and paid.
    MergedCart,
    /// Paid, to be sent to an address saved before.
    SavedAddress,
    /// Paid, then called off.
    CancelledLater,
    /// Paid, sent and arrived.
    Delivered,
    /// Sent, and paid to the courier.
    CashDelivered,
    /// Paid, and the staff gave a part back.
    PartlyRefunded,
    /// Filled a cart with an account, left, and was reminded.
    Reminded,
    /// Agreed to pay on the gateway's page, and the shop took the money.
    TakenByShop,
    /// The money was set aside, and the shop took it.
    SetAside,
    /// The gateway asked to come again later.
    RateLimited,
    /// Paid, then called off; the money took its time.
    RefundOnItsWay,
    /// Paid, and the bank wanted the money back.
    Disputed,
}

/// What an order and its checkout look like in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// COMPLETED, with a CONFIRMED order.
    Confirmed {
        /// The order's payment status.
        payment: &'static str,
    },
    /// Unwound, with a CANCELLED order and the cart as it was.
    Unwound {
        /// FAILED or CANCELLED.
        status: Shown,
        /// The failure's code.
        code: &'static str,
        /// The order's payment status.
        payment: &'static str,
    },
    /// No order came about.
    NoOrder,
}

impl Outcome {
    /// All, in the order in which they are told.
    pub(crate) const ALL: [Outcome; 35] = [
        Outcome::Paid,
        Outcome::PaidWithCoupon,
        Outcome::CashOnDelivery,
        Outcome::Declined,
        Outcome::SecureApproved,
        Outcome::SecureDeclined,
        Outcome::SecureAbandoned,
        Outcome::GatewayTimeout,
        Outcome::SlowCapture,
        Outcome::NoWebhook,
        Outcome::LateCapture,
        Outcome::DuplicateWebhooks,
        Outcome::ReorderedWebhooks,
        Outcome::WrongAmount,
        Outcome::TwoTabs,
        Outcome::LastPieces,
        Outcome::SoldOut,
        Outcome::AbandonedCart,
        Outcome::GivenUp,
        Outcome::RefundFailsOnce,
        Outcome::PaidWithFixed,
        Outcome::PaidWithFreeShipping,
        Outcome::PaidWithOneFree,
        Outcome::MergedCart,
        Outcome::SavedAddress,
        Outcome::CancelledLater,
        Outcome::Delivered,
        Outcome::CashDelivered,
        Outcome::PartlyRefunded,
        Outcome::Reminded,
        Outcome::TakenByShop,
        Outcome::SetAside,
        Outcome::RateLimited,
        Outcome::RefundOnItsWay,
        Outcome::Disputed,
    ];

    /// Its name in the report; scripts read it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Paid => "paid",
            Outcome::PaidWithCoupon => "paid-save20",
            Outcome::CashOnDelivery => "cash-on-delivery",
            Outcome::Declined => "declined",
            Outcome::SecureApproved => "3ds-approved",
            Outcome::SecureDeclined => "3ds-declined",
            Outcome::SecureAbandoned => "3ds-abandoned",
            Outcome::GatewayTimeout => "gateway-timeout",
            Outcome::SlowCapture => "slow-capture",
            Outcome::NoWebhook => "no-webhook",
            Outcome::LateCapture => "late-capture",
            Outcome::DuplicateWebhooks => "duplicate-webhooks",
            Outcome::ReorderedWebhooks => "reordered-webhooks",
            Outcome::WrongAmount => "wrong-amount",
            Outcome::TwoTabs => "two-tabs",
            Outcome::LastPieces => "last-pieces",
            Outcome::SoldOut => "sold-out",
            Outcome::AbandonedCart => "abandoned-cart",
            Outcome::GivenUp => "given-up",
            Outcome::RefundFailsOnce => "refund-fails-once",
            Outcome::PaidWithFixed => "paid-flat500",
            Outcome::PaidWithFreeShipping => "paid-freeship",
            Outcome::PaidWithOneFree => "paid-buy2get1",
            Outcome::MergedCart => "merged-cart",
            Outcome::SavedAddress => "saved-address",
            Outcome::CancelledLater => "cancelled-later",
            Outcome::Delivered => "delivered",
            Outcome::CashDelivered => "cash-delivered",
            Outcome::PartlyRefunded => "partly-refunded",
            Outcome::Reminded => "reminded",
            Outcome::TakenByShop => "taken-by-shop",
            Outcome::SetAside => "set-aside",
            Outcome::RateLimited => "rate-limited",
            Outcome::RefundOnItsWay => "refund-on-its-way",
            Outcome::Disputed => "disputed",
        }
    }

    /// What the shopper pays with; `None` is cash on delivery.
    pub(crate) fn token(self) -> Option<&'static str> {
        match self {
            Outcome::Paid
            | Outcome::PaidWithCoupon
            | Outcome::TwoTabs
            | Outcome::LastPieces
            | Outcome::SoldOut
            | Outcome::AbandonedCart
            | Outcome::Reminded
            | Outcome::PaidWithFixed
            | Outcome::PaidWithFreeShipping
            | Outcome::PaidWithOneFree
            | Outcome::MergedCart
            | Outcome::SavedAddress
            | Outcome::CancelledLater
            | Outcome::Delivered
            | Outcome::PartlyRefunded => Some("tok_ok"),
            Outcome::CashOnDelivery | Outcome::CashDelivered => None,
            Outcome::Declined | Outcome::RefundFailsOnce => Some("tok_declined"),
            Outcome::SecureApproved | Outcome::SecureDeclined | Outcome::SecureAbandoned | Outcome::GivenUp => {
                Some("tok_3ds")
            }
            Outcome::GatewayTimeout => Some("tok_timeout"),
            Outcome::SlowCapture => Some("tok_slow"),
            Outcome::NoWebhook => Some("tok_no_webhook"),
            Outcome::LateCapture => Some("tok_late"),
            Outcome::DuplicateWebhooks => Some("tok_duplicate_webhook"),
            Outcome::ReorderedWebhooks => Some("tok_reordered_webhooks"),
            Outcome::WrongAmount => Some("tok_wrong_amount"),
            Outcome::TakenByShop => Some("tok_approve"),
            Outcome::SetAside => Some("tok_hold"),
            Outcome::RateLimited => Some("tok_rate_limited"),
            Outcome::RefundOnItsWay => Some("tok_refund_pending"),
            Outcome::Disputed => Some("tok_dispute"),
        }
    }

    /// What must have become of the order when all is over.
    pub(crate) fn ending(self) -> Ending {
        match self {
            Outcome::Paid
            | Outcome::PaidWithCoupon
            | Outcome::SecureApproved
            | Outcome::GatewayTimeout
            | Outcome::SlowCapture
            | Outcome::NoWebhook
            | Outcome::DuplicateWebhooks
            | Outcome::ReorderedWebhooks
            | Outcome::TwoTabs
            | Outcome::LastPieces
            | Outcome::PaidWithFixed
            | Outcome::PaidWithFreeShipping
            | Outcome::PaidWithOneFree
            | Outcome::MergedCart
            | Outcome::SavedAddress
            | Outcome::CancelledLater
            | Outcome::Delivered
            | Outcome::PartlyRefunded
            | Outcome::TakenByShop
            | Outcome::SetAside
            | Outcome::RateLimited
            | Outcome::RefundOnItsWay
            | Outcome::Disputed => Ending::Confirmed { payment: "CAPTURED" },
            Outcome::CashOnDelivery | Outcome::CashDelivered => Ending::Confirmed { payment: "PENDING" },
            Outcome::Declined | Outcome::SecureDeclined => {
                Ending::Unwound { status: Shown::Failed, code: "payment-declined", payment: "FAILED" }
            }
            Outcome::SecureAbandoned => {
                Ending::Unwound { status: Shown::Failed, code: "payment-expired", payment: "FAILED" }
            }
            Outcome::LateCapture => {
                Ending::Unwound { status: Shown::Failed, code: "payment-expired", payment: "REFUNDED" }
            }
            Outcome::WrongAmount | Outcome::RefundFailsOnce => {
                Ending::Unwound { status: Shown::Failed, code: "payment-declined", payment: "REFUNDED" }
            }
            Outcome::GivenUp => Ending::Unwound { status: Shown::Cancelled, code: codes::CANCELLED, payment: "FAILED" },
            Outcome::SoldOut | Outcome::AbandonedCart | Outcome::Reminded => Ending::NoOrder,
        }
    }

    /// Whether it comes about only once the payment window has passed. The clock is moved for these,
    /// when all the others are over.
    pub(crate) fn needs_clock(self) -> bool {
        matches!(self, Outcome::SecureAbandoned | Outcome::LateCapture | Outcome::Reminded)
    }

    /// The coupon that is used.
    pub(crate) fn coupon(self) -> Option<&'static str> {
        match self {
            Outcome::PaidWithCoupon => Some("SAVE20"),
            Outcome::PaidWithFixed => Some("FLAT500"),
            Outcome::PaidWithFreeShipping => Some("FREESHIP"),
            Outcome::PaidWithOneFree => Some("BUY2GET1"),
            Outcome::Paid
            | Outcome::CashOnDelivery
            | Outcome::Declined
            | Outcome::SecureApproved
            | Outcome::SecureDeclined
            | Outcome::SecureAbandoned
            | Outcome::GatewayTimeout
            | Outcome::SlowCapture
            | Outcome::NoWebhook
            | Outcome::LateCapture
            | Outcome::DuplicateWebhooks
            | Outcome::ReorderedWebhooks
            | Outcome::WrongAmount
            | Outcome::TwoTabs
            | Outcome::LastPieces
            | Outcome::SoldOut
            | Outcome::AbandonedCart
            | Outcome::GivenUp
            | Outcome::RefundFailsOnce
            | Outcome::MergedCart
            | Outcome::SavedAddress
            | Outcome::CancelledLater
            | Outcome::Delivered
            | Outcome::CashDelivered
            | Outcome::PartlyRefunded
            | Outcome::Reminded
            | Outcome::TakenByShop
            | Outcome::SetAside
            | Outcome::RateLimited
            | Outcome::RefundOnItsWay
            | Outcome::Disputed => None,
        }
    }

    /// Whether these shoppers want the same few pieces.
    pub(crate) fn is_rush(self) -> bool {
        matches!(self, Outcome::LastPieces | Outcome::SoldOut)
    }

    /// How likely a shopper beyond the least of each goes this way.
    fn weight(self) -> u32 {
        match self {
            Outcome::Paid => 40,
            Outcome::PaidWithCoupon => 16,
            Outcome::AbandonedCart => 12,
            Outcome::CashOnDelivery | Outcome::SecureApproved => 8,
            Outcome::Declined => 6,
            Outcome::SecureDeclined
            | Outcome::SecureAbandoned
            | Outcome::SlowCapture
            | Outcome::NoWebhook
            | Outcome::LateCapture
            | Outcome::DuplicateWebhooks
            | Outcome::ReorderedWebhooks
            | Outcome::WrongAmount
            | Outcome::TwoTabs
            | Outcome::SoldOut
            | Outcome::GivenUp
            | Outcome::RefundFailsOnce => 2,
            // Each holds a worker until the gateway's silence is noticed; these others take dear things.
            Outcome::GatewayTimeout
            | Outcome::PaidWithFixed
            | Outcome::PaidWithFreeShipping
            | Outcome::PaidWithOneFree
            | Outcome::MergedCart
            | Outcome::SavedAddress
            | Outcome::CancelledLater
            | Outcome::Delivered
            | Outcome::CashDelivered
            | Outcome::PartlyRefunded
            | Outcome::Reminded
            | Outcome::TakenByShop
            | Outcome::SetAside
            | Outcome::RateLimited
            | Outcome::RefundOnItsWay
            | Outcome::Disputed => 1,
            // There are only so many pieces.
            Outcome::LastPieces => 0,
        }
    }
}

/// What each of `shoppers` does, in the order in which they come. Whoever wants the limited pieces
/// comes first, because a rush is a rush only when all come at once.
pub(crate) fn cast(shoppers: usize, random: &mut StdRng) -> Vec<Outcome> {
    let least = LEAST_OF_EACH.min(shoppers.saturating_sub(1) / Outcome::ALL.len());
    let last_pieces = if least == LEAST_OF_EACH { LAST_PIECES } else { least.min(1) };
    let mut cast: Vec<Outcome> = Outcome::ALL
        .into_iter()
        .flat_map(|outcome| {
            let times = if outcome == Outcome::LastPieces { last_pieces } else { least };
            std::iter::repeat_n(outcome, times)
        })
        .collect();
    // Nothing sells out when nobody buys the last piece.
    let weight = |outcome: Outcome| if outcome.is_rush() && last_pieces == 0 { 0 } else { outcome.weight() };
    let weights: u32 = Outcome::ALL.into_iter().map(weight).sum();
    while cast.len() < shoppers {
        let mut drawn = random.random_range(0..weights);
        cast.extend(Outcome::ALL.into_iter().find(|outcome| {
            let weight = weight(*outcome);
            let found = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            found
        }));
    }
    cast.shuffle(random);
    cast.sort_by_key(|outcome| !outcome.is_rush());
    cast
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::SeedableRng as _;

    use super::*;

    fn counted(shoppers: usize, seed: u64) -> BTreeMap<Outcome, usize> {
        let mut counts = BTreeMap::new();
        for outcome in cast(shoppers, &mut StdRng::seed_from_u64(seed)) {
            *counts.entry(outcome).or_default() += 1;
        }
        counts
    }

    #[test]
    fn three_hundred_shoppers_play_each_outcome_five_times_at_least() {
        for seed in 0..20 {
            let counts = counted(300, seed);
            for outcome in Outcome::ALL {
                assert!(counts.get(&outcome).is_some_and(|count| *count >= 5), "seed {seed}: {}", outcome.name());
            }
            assert_eq!(counts[&Outcome::LastPieces], LAST_PIECES);
        }
    }

    #[test]
    fn there_are_as_many_shoppers_as_were_asked_for() {
        for shoppers in [1, 2, 34, 35, 36, 50, 175, 176, 177, 300, 1000] {
            assert_eq!(counted(shoppers, 7).values().sum::<usize>(), shoppers);
        }
    }

    #[test]
    fn nothing_sells_out_unless_somebody_buys_the_last_piece() {
        for seed in 0..200 {
            for shoppers in [3, 15, 35] {
                let counts = counted(shoppers, seed);
                assert!(!counts.contains_key(&Outcome::SoldOut) || counts.contains_key(&Outcome::LastPieces));
            }
        }
    }

    #[test]
    fn the_same_seed_casts_the_same_and_another_does_not() {
        let of = |seed| cast(300, &mut StdRng::seed_from_u64(seed));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn every_outcome_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Outcome::ALL.into_iter().map(Outcome::name).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
    }
}
