//! What one shopper does, and what must come of it.

use rust_decimal::Decimal;
use tokio::time::Instant;
use workflows::checkout::status::Shown;

use super::{
    outcome::{Ending, Outcome},
    shelf::Basket,
    storefront::{Accepted, Money, Placed, Storefront, Surprise, Visit, expect, sorted},
};

/// A shopper who has not come yet.
#[derive(Debug)]
pub(crate) struct Shopper {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) outcome: Outcome,
    pub(crate) basket: Basket,
}

/// How a visit went.
#[derive(Debug)]
pub(crate) struct Visited {
    pub(crate) number: usize,
    /// What was played.
    pub(crate) outcome: Outcome,
    /// What came of it: in a rush one cannot know before.
    pub(crate) came: Result<Outcome, Surprise>,
    /// From the first item in the cart to the end.
    pub(crate) seconds: f64,
}

/// A shopper whose payment will not come before the clock is moved.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    number: usize,
    outcome: Outcome,
    begun: Instant,
    placed: Result<Left<'a>, Surprise>,
}

/// What waits for the clock.
#[derive(Debug)]
enum Left<'a> {
    Placement(Placement<'a>),
    Cart(Visit<'a>, Basket),
}

/// An accepted checkout, and what its shopper remembers of it.
#[derive(Debug)]
struct Placement<'a> {
    shop: &'a Storefront,
    visit: Visit<'a>,
    basket: Basket,
    total: String,
    accepted: Accepted,
}

/// What becomes of a confirmed order.
struct Aftermath {
    /// The order's status, and its payment's.
    statuses: (&'static str, &'static str),
    refunded: Decimal,
}

/// A visit from the door to the end.
pub(crate) async fn play(shop: &Storefront, shopper: Shopper) -> Visited {
    let Shopper { number, outcome, basket } = shopper;
    let mut begun = Instant::now();
    let came = async {
        if outcome == Outcome::AbandonedCart {
            let visit = shop.guest(number).await?;
            begun = Instant::now();
            leave_cart(&visit, &basket).await?;
            return Ok(Outcome::AbandonedCart);
        }
        let visit = if outcome == Outcome::MergedCart {
            shop.come_as_guest(number, &basket).await?
        } else {
            shop.register(number).await?
        };
        begun = Instant::now();
        let Some(placement) = place(shop, visit, outcome, basket).await? else { return Ok(Outcome::SoldOut) };
        placement.pay(outcome).await?;
        placement.end(outcome).await
    }
    .await;
    Visited { number, outcome, came, seconds: begun.elapsed().as_secs_f64() }
}

/// A visit up to the wait for a payment.
pub(crate) async fn play_until_waiting(shop: &Storefront, shopper: Shopper) -> Waiting<'_> {
    let Shopper { number, outcome, basket } = shopper;
    let mut begun = Instant::now();
    let placed = async {
        let visit = shop.register(number).await?;
        begun = Instant::now();
        if outcome == Outcome::Reminded {
            leave_cart(&visit, &basket).await?;
            return Ok(Left::Cart(visit, basket));
        }
        let placement = place(shop, visit, outcome, basket).await?;
        let placement = placement.ok_or_else(|| surprise("the checkout", "accepted", "out-of-stock"))?;
        placement.pay(outcome).await?;
        Ok(Left::Placement(placement))
    }
    .await;
    Waiting { number, outcome, begun, placed }
}

impl Waiting<'_> {
    /// Whether more than the payment window must pass.
    pub(crate) fn is_reminded(&self) -> bool {
        self.outcome == Outcome::Reminded
    }

    /// The rest of it, once the payment window, or an hour of idleness, has passed.
    pub(crate) async fn play_on(self) -> Visited {
        let Waiting { number, outcome, begun, placed } = self;
        let came = match placed {
            Ok(Left::Placement(placement)) => placement.end(outcome).await,
            Ok(Left::Cart(visit, basket)) => is_reminded(&visit, &basket).await,
            Err(surprise) => Err(surprise),
        };
        Visited { number, outcome, came, seconds: begun.elapsed().as_secs_f64() }
    }
}

fn surprise(what: &str, expected: &str, actual: &str) -> Surprise {
    Surprise::Other { what: what.to_owned(), expected: expected.to_owned(), actual: actual.to_owned() }
}

async fn is_reminded(visit: &Visit<'_>, basket: &Basket) -> Result<Outcome, Surprise> {
    expect("the first e-mail about the cart", visit.first_mail().await?.as_deref(), Some("cart.abandoned.1"))?;
    let cart = visit.cart().await?;
    expect("the cart's status", cart.status(), "ABANDONED")?;
    expect("the cart's lines", cart.lines(), sorted(&basket.lines))?;
    Ok(Outcome::Reminded)
}

async fn leave_cart(visit: &Visit<'_>, basket: &Basket) -> Result<(), Surprise> {
    for line in &basket.lines {
        visit.add(line).await?;
    }
    let cart = visit.cart().await?;
    expect("the cart's status", cart.status(), "ACTIVE")?;
    expect("the cart's lines", cart.lines(), sorted(&basket.lines))
}

/// Fills the cart and checks out; `None` when something was sold out.
async fn place<'a>(
    shop: &'a Storefront,
    visit: Visit<'a>,
    outcome: Outcome,
    basket: Basket,
) -> Result<Option<Placement<'a>>, Surprise> {
    let mut cart = None;
    if outcome == Outcome::MergedCart {
        let merged = visit.cart().await?;
        expect("the merged cart's lines", merged.lines(), sorted(&basket.lines))?;
        cart = Some(merged);
    }
    for line in basket.lines.iter().filter(|_| outcome != Outcome::MergedCart) {
        cart = visit.add(line).await?;
        if cart.is_none() {
            return sold_out(outcome);
        }
    }
    if let Some(code) = outcome.coupon() {
        cart = Some(visit.apply_coupon(code).await?);
    }
    let cart = cart.ok_or_else(|| surprise("the basket", "something to buy", "nothing"))?;
    if let Some(total) = basket.total {
        expect("the cart's total", cart.total(), total)?;
    }
    let total = cart.total().to_owned();
    let address = if outcome == Outcome::SavedAddress { Some(visit.save_address().await?) } else { None };
    let placed = if outcome == Outcome::TwoTabs {
        let (one, other) = tokio::join!(
            visit.check_out(&total, outcome.token(), "tab-1", address),
            visit.check_out(&total, outcome.token(), "tab-2", address),
        );
        let (one, other) = (one?, other?);
        expect("the other tab's checkout", &other, &one)?;
        one
    } else {
        visit.check_out(&total, outcome.token(), "tab-1", address).await?
    };
    match placed {
        Placed::Accepted(accepted) => Ok(Some(Placement { shop, visit, basket, total, accepted })),
        Placed::OutOfStock => sold_out(outcome),
    }
}

/// Only in a rush may something be sold out: the others' baskets were chosen so that there is enough.
fn sold_out<T>(outcome: Outcome) -> Result<Option<T>, Surprise> {
    if outcome.is_rush() { Ok(None) } else { Err(surprise("the basket", "in stock", "out-of-stock")) }
}

impl Placement<'_> {
    /// What the shopper does while the checkout waits for the payment, if it is to wait.
    async fn pay(&self, outcome: Outcome) -> Result<(), Surprise> {
        let button = match outcome {
            Outcome::SecureApproved | Outcome::TakenByShop => Some("approve"),
            Outcome::SecureDeclined => Some("decline"),
            Outcome::SecureAbandoned | Outcome::GivenUp | Outcome::LateCapture => None,
            Outcome::Paid
            | Outcome::PaidWithCoupon
            | Outcome::CashOnDelivery
            | Outcome::Declined
            | Outcome::GatewayTimeout
            | Outcome::SlowCapture
            | Outcome::NoWebhook
            | Outcome::DuplicateWebhooks
            | Outcome::ReorderedWebhooks
            | Outcome::WrongAmount
            | Outcome::TwoTabs
            | Outcome::LastPieces
            | Outcome::SoldOut
            | Outcome::AbandonedCart
            | Outcome::RefundFailsOnce
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
            | Outcome::SetAside
            | Outcome::RateLimited
            | Outcome::RefundOnItsWay
            | Outcome::Disputed => return Ok(()),
        };
        let workflow_id = self.accepted.workflow_id;
        let checkout = self.visit.awaits_payment(workflow_id).await?;
        expect("the checkout's status before it is paid", checkout.status, Shown::WaitingPayment)?;
        let page = checkout.next_action.map(|action| action.url);
        expect("whether the shopper is sent to the bank", page.is_some(), outcome != Outcome::LateCapture)?;
        if let (Some(button), Some(page)) = (button, page) {
            self.visit.press(&page, button).await?;
        }
        if outcome == Outcome::GivenUp {
            self.visit.give_up(workflow_id).await?;
            // Impatient people click twice.
            self.visit.give_up(workflow_id).await?;
        }
        Ok(())
    }

    /// How it ended, compared with how it had to.
    async fn end(self, outcome: Outcome) -> Result<Outcome, Surprise> {
        let checkout = self.visit.ended(self.accepted.workflow_id).await?;
        let code = checkout.failure.map(|failure| failure.code);
        let came = match (outcome.is_rush(), checkout.status, code.as_deref()) {
            (true, Shown::Failed, Some("out-of-stock")) => return self.missed().await,
            (true, _, _) => Outcome::LastPieces,
            (false, _, _) => outcome,
        };
        let found = (checkout.status, code.as_deref());
        match came.ending() {
            Ending::Confirmed { payment } => {
                expect("the checkout", found, (Shown::Completed, None))?;
                self.owns_order(payment).await?;
                self.afterwards(came).await?;
            }
            Ending::Unwound { status, code, payment } => {
                expect("the checkout", found, (status, Some(code)))?;
                self.lost_order(outcome, payment).await?;
            }
            Ending::NoOrder => expect("the checkout", Some(found), None)?,
        }
        Ok(came)
    }

    async fn owns_order(&self, payment: &str) -> Result<(), Surprise> {
        let order_id = self.accepted.order_id;
        let order = self.visit.order(order_id).await?;
        expect("the order's status", (&*order.status, &*order.payment_status), ("CONFIRMED", payment))?;
        expect("the order's total", &order.total_amount, &self.total)?;
        expect("the order's lines", sorted(&order.items), sorted(&self.basket.lines))?;
        let due = if payment == "CAPTURED" { amount(&self.total)? } else { Decimal::ZERO };
        let money = Money { captures: usize::from(!due.is_zero()), captured: due, refunded: Decimal::ZERO };
        expect("the gateway's money", self.shop.money(order_id).await?, money)?;
        expect("the new cart's lines", self.visit.cart().await?.lines(), Vec::new())
    }

    /// What becomes of the order after it was confirmed, for those with whom something does.
    async fn afterwards(&self, outcome: Outcome) -> Result<(), Surprise> {
        let (order_id, total) = (self.accepted.order_id, amount(&self.total)?);
        let none = Decimal::ZERO;
        let Aftermath { statuses, refunded } = match outcome {
            Outcome::CancelledLater | Outcome::RefundOnItsWay => {
                self.visit.cancel(order_id).await?;
                Aftermath { statuses: ("CANCELLED", "REFUNDED"), refunded: total }
            }
            Outcome::Delivered | Outcome::CashDelivered => {
                self.shop.deliver(order_id).await?;
                Aftermath { statuses: ("DELIVERED", "CAPTURED"), refunded: none }
            }
            Outcome::PartlyRefunded => {
                self.shop.refund_part(order_id, "10.00").await?;
                Aftermath { statuses: ("CONFIRMED", "PARTIALLY_REFUNDED"), refunded: Decimal::TEN }
            }
            Outcome::Disputed => {
                expect("the dispute", self.shop.dispute(order_id).await?.as_deref(), Some("OPENED"))?;
                Aftermath { statuses: ("CONFIRMED", "CAPTURED"), refunded: none }
            }
            Outcome::Paid
            | Outcome::PaidWithCoupon
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
            | Outcome::PaidWithFixed
            | Outcome::PaidWithFreeShipping
            | Outcome::PaidWithOneFree
            | Outcome::MergedCart
            | Outcome::SavedAddress
            | Outcome::Reminded
            | Outcome::TakenByShop
            | Outcome::SetAside
            | Outcome::RateLimited => return Ok(()),
        };
        // Money may take its time.
        let order = self.visit.order_with_payment(order_id, statuses.1).await?;
        expect("the order's status in the end", (&*order.status, &*order.payment_status), statuses)?;
        let charged = outcome.token().is_some();
        let captured = if charged { total } else { none };
        let money = Money { captures: usize::from(charged), captured, refunded };
        expect("the gateway's money in the end", self.shop.money(order_id).await?, money)
    }

    async fn lost_order(&self, outcome: Outcome, payment: &str) -> Result<(), Surprise> {
        let order_id = self.accepted.order_id;
        self.has_cart_again().await?;
        if outcome == Outcome::RefundFailsOnce {
            self.shop.charge_again(order_id, &self.total, "tok_refund_fails_once").await?;
        }
        // A refund is a run of its own and may take its time; the cart has been free since.
        let order = self.visit.order_with_payment(order_id, payment).await?;
        expect("the order's status", (&*order.status, &*order.payment_status), ("CANCELLED", payment))?;
        expect("the order's total", &order.total_amount, &self.total)?;
        let money = self.shop.money(order_id).await?;
        expect("payments that were captured", money.captures, usize::from(payment == "REFUNDED"))?;
        expect("what was refunded", money.refunded, money.captured)
    }

    /// The run found that somebody else was quicker.
    async fn missed(&self) -> Result<Outcome, Surprise> {
        self.has_cart_again().await?;
        Ok(Outcome::SoldOut)
    }

    async fn has_cart_again(&self) -> Result<(), Surprise> {
        let cart = self.visit.cart().await?;
        expect("the cart's status", cart.status(), "ACTIVE")?;
        expect("the cart's lines", cart.lines(), sorted(&self.basket.lines))
    }
}

fn amount(text: &str) -> Result<Decimal, Surprise> {
    text.parse().map_err(|_| surprise("an amount", "a decimal", text))
}
