//! A checkout at each gateway, killed at every point of its way; and what gateways do to shops.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{
    address::Address,
    fraud::Kind,
    ids::{CartId, UserId},
    order::Actor,
};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    Rules, Shop,
    cancellation::{self, CancelRequest},
    checkout::accept::{Accepted, AddressChoice, Order},
    fraud::{self, StaffDecision},
};

use super::account::Account;
use crate::{
    fraud::{rule, set_rules},
    misfortune::{Misfortune, Story, Way, astray, every_point, everything_twice, play},
    provider::{PROVIDERS, Provider, Site},
    world::{World, mumbai, order},
};

/// What shopper and gateway do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// The shopper pays at once, or as soon as they are asked.
    Paid,
    /// The shopper's bank asks first.
    Asked,
    /// The bank says no; where a gateway leaves the shopper another try, they give up.
    Declined,
    /// The shopper never comes back.
    Abandoned,
    /// Paid, and then the customer changes their mind.
    Cancelled,
    /// The rules find the order doubtful, and the staff decide.
    Reviewed(StaffDecision),
}

/// One course at one gateway.
pub struct Till {
    provider: Provider,
    course: Course,
    currency: &'static str,
    /// The gateway says by itself what happens. When it does, and when it is asked, is not for a test to say.
    is_told: bool,
    account: Mutex<Option<Arc<Account>>>,
}

impl fmt::Debug for Till {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.course, self.provider)
    }
}

pub struct Bought {
    accepted: Accepted,
    cart: CartId,
}

impl Till {
    /// Without webhooks: each play passes the same points.
    fn new(provider: Provider, course: Course) -> Till {
        Till { is_told: false, ..Till::with(provider, course, "USD") }
    }

    /// The same in this currency.
    pub fn with(provider: Provider, course: Course, currency: &'static str) -> Till {
        Till { provider, course, currency, is_told: true, account: Mutex::default() }
    }

    pub fn account(&self) -> Arc<Account> {
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(account.as_ref().expect("a world first"))
    }

    fn token(&self) -> &'static str {
        match self.course {
            Course::Paid | Course::Cancelled | Course::Reviewed(_) => self.provider.good_token(),
            Course::Asked | Course::Abandoned => self.provider.asking_token(),
            Course::Declined => self.provider.bad_token(),
        }
    }

    pub fn order(&self, user: UserId, cart: CartId) -> Order {
        // Billed abroad, which is what the rules of a review look at.
        let abroad = Address { country: "France".to_owned(), ..mumbai() };
        let is_doubtful = matches!(self.course, Course::Reviewed(_));
        Order {
            payment_token: Some(self.token().to_owned()),
            payment_method: self.provider.method(),
            billing: is_doubtful.then_some(AddressChoice::Inline(abroad)),
            ..order(user, cart)
        }
    }

    /// Payments that its orders have, by the books.
    async fn payments(&self, world: &World, bought: &Bought) -> Vec<String> {
        sqlx::query_scalar(
            "select a.gateway_payment_id from payment_attempts a join payments p on p.id = a.payment_id
              where p.order_id = $1 and a.status = 'PENDING'",
        )
        .bind(Uuid::from(bought.accepted.order_id))
        .fetch_all(&world.pool)
        .await
        .expect("payments")
    }
}

impl Story for Till {
    type Begun = Bought;

    async fn world(&self) -> World {
        let mut rules = Rules { default_gateway: self.provider.name().to_owned(), ..Rules::default() };
        rules.pricing.currency = self.currency.parse().expect("a currency");
        let world = World::with(rules.clone()).await;
        let currency = self.currency;
        for sold in [
            format!("update products set currency = '{currency}'"),
            format!("alter table carts alter column currency set default '{currency}'"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(sold)).execute(&world.pool).await.expect("sold in that currency");
        }
        if let Course::Reviewed(_) = self.course {
            set_rules(&world.pool, vec![rule("abroad", Kind::CountryMismatch, 60, serde_json::json!({}))]).await;
        }
        let account = Arc::new(Account::open(self.provider, &world.pool, self.is_told).await);
        let shop = Shop::new(rules, vec![Arc::clone(&account.gateway)], Some(Arc::clone(&world.mails) as _));
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = Some(account);
        World { shop, ..world }
    }

    async fn begin(&self, world: &World, many: usize) -> Vec<Bought> {
        let mut begun = Vec::with_capacity(many);
        for _ in 0..many {
            let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
            let order = self.order(user, cart);
            begun.push(Bought { accepted: world.checkout_as(order).await.expect("accepted"), cart });
        }
        begun
    }

    async fn meanwhile(&self, world: &World, begun: &[Bought]) {
        let account = self.account();
        let site = &account.site;
        for bought in begun {
            let order_id = bought.accepted.order_id;
            match self.course {
                Course::Abandoned => {}
                Course::Declined => {
                    for payment in self.payments(world, bought).await {
                        let how = serde_json::json!({ "payment": payment, "does": "decline", "with": "card" });
                        if self.provider != Provider::Sandbox {
                            site.fate("shopper", how).await;
                        }
                    }
                }
                Course::Paid | Course::Asked | Course::Cancelled | Course::Reviewed(_) => {
                    for payment in self.payments(world, bought).await {
                        site.agree(&payment).await;
                    }
                }
            }
            if let Course::Reviewed(decision) = self.course {
                let mut tx = world.pool.begin().await.expect("a transaction");
                let now = engine::now(&mut *tx).await.expect("the time");
                // Before it waits, and once it is decided, there is nothing to decide.
                if fraud::decide(&mut tx, order_id, decision, "a look", "user:clerk", now).await.is_ok() {
                    tx.commit().await.expect("committed");
                }
            }
            let status = world.order_status(order_id.into()).await;
            if self.course == Course::Cancelled && status.as_deref() == Some("CONFIRMED") {
                let request = CancelRequest {
                    order_id,
                    actor: Actor::Customer,
                    by: "user:asha".to_owned(),
                    reason: "a change of mind".to_owned(),
                };
                let mut tx = world.pool.begin().await.expect("a transaction");
                let asked = cancellation::accept::accept(&mut tx, &world.shop.rules, &request, |_| true).await;
                asked.expect("accepted");
                tx.commit().await.expect("committed");
            }
        }
    }

    /// Confirmed with exactly its money, or without any of it; and the gateway was spoken to as its documents want.
    async fn judge(&self, world: &World, begun: &[Bought], when: &str) -> Vec<bool> {
        let account = self.account();
        let site = &account.site;
        site.assert_well_spoken(when).await;
        site.holds_lapse().await;
        let mut as_planned = Vec::with_capacity(begun.len());
        for Bought { accepted, cart } in begun {
            let order_id = accepted.order_id;
            let status = world.order_status(order_id.into()).await;
            let total: Option<Decimal> = sqlx::query_scalar("select total_amount from orders where id = $1")
                .bind(Uuid::from(order_id))
                .fetch_optional(&world.pool)
                .await
                .expect("a total");
            let holds = site.holds(order_id).await;
            assert!(holds.captures <= 1, "{when}: charged more than once: {holds:?}");
            assert_eq!(holds.held, Decimal::ZERO, "{when}: money is set aside for nothing");
            let is_confirmed = status.as_deref() == Some("CONFIRMED");
            if is_confirmed {
                assert_eq!(Some(holds.net), total, "{when}: the money of a confirmed order");
                assert_eq!(world.cart_status(*cart).await, "CONVERTED", "{when}");
            } else {
                assert!(matches!(status.as_deref(), None | Some("CANCELLED")), "{when}: the order is {status:?}");
                assert_eq!(holds.net, Decimal::ZERO, "{when}: nobody pays for an order that is not to be had");
            }
            let is_wanted = match self.course {
                Course::Paid | Course::Asked => is_confirmed,
                Course::Declined | Course::Abandoned => !is_confirmed,
                Course::Reviewed(StaffDecision::Approve) => is_confirmed,
                Course::Reviewed(StaffDecision::Reject) => !is_confirmed && holds.captures == 0,
                Course::Cancelled => holds.captures == 1 && status.as_deref() == Some("CANCELLED"),
            };
            as_planned.push(is_wanted);
        }
        as_planned
    }
}

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

            #[tokio::test(flavor = "multi_thread")]
            async fn a_payment_survives_a_crash_before_and_after_every_step_call_and_commit() {
                every_point(&Till::new($provider, Course::Paid), Way::Fused, Misfortune::Death).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_payment_that_the_bank_asks_about_survives_them_too() {
                every_point(&Till::new($provider, Course::Asked), Way::Fused, Misfortune::Death).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_payment_that_is_declined_or_abandoned_takes_nothing() {
                for course in [Course::Declined, Course::Abandoned] {
                    every_point(&Till::new($provider, course), Way::Fused, Misfortune::Death).await;
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_is_cancelled_goes_back_once_whatever_dies() {
                every_point(&Till::new($provider, Course::Cancelled), Way::Fused, Misfortune::Death).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_is_held_for_the_staff_is_taken_or_let_go_whatever_dies() {
                for decision in [StaffDecision::Approve, StaffDecision::Reject] {
                    every_point(&Till::new($provider, Course::Reviewed(decision)), Way::Fused, Misfortune::Death).await;
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn everything_done_twice_is_done_once() {
                for course in [Course::Paid, Course::Asked, Course::Cancelled] {
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
