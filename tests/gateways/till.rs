//! A course at one gateway: what shopper, staff and gateway do, and how it must have ended.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{
    address::Address,
    fraud::Kind,
    ids::{CartId, OrderId, UserId},
    order::{Actor, OrderStatus},
    returns::ReturnStatus,
};
use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;
use workflows::{
    Rules, Shop,
    cancellation::{self, CancelRequest},
    checkout::{
        accept::{Accepted, AddressChoice, Order},
        attempt::{self, Offer},
    },
    fraud::{self, StaffDecision},
    fulfilment::{self, LineName},
    order_return::desk::{self, Decision},
    pay_back,
    store::{orders, orders::By, returns},
};

use super::account::Account;
use crate::{
    fraud::{rule, set_rules},
    misfortune::Story,
    patience::until,
    provider::Provider,
    world::{World, mumbai, order},
};

/// What shopper, staff and gateway do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// The shopper pays at once, or as soon as they are asked.
    Paid,
    /// The shopper's bank asks first.
    Asked,
    /// The gateway begins the payment, and its answer is lost.
    AnswerLost,
    /// The bank says no; where a gateway leaves the shopper another try, they give up.
    Declined,
    /// The bank says no, and then yes.
    TriedAgain,
    /// The shopper never comes back.
    Abandoned,
    /// The same, and when the order has been given up, the money comes.
    PaidLate,
    /// The rules find the order doubtful, and the staff decide.
    Reviewed(StaffDecision),
    /// Paid, and then the customer changes their mind.
    Cancelled,
    /// Paid, and then the staff give back a part.
    PartlyRefunded,
    /// Paid and delivered, and then it comes back.
    Returned,
}

/// What the staff give back.
const PART: Decimal = Decimal::ONE_HUNDRED;

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
    pub accepted: Accepted,
    pub cart: CartId,
    /// What comes back.
    return_id: Option<Uuid>,
}

impl Bought {
    fn order_id(&self) -> OrderId {
        self.accepted.order_id
    }
}

impl Till {
    /// Without webhooks, unless the course begins with one: each play passes the same points.
    pub fn new(provider: Provider, course: Course) -> Till {
        Till { is_told: course == Course::PaidLate, ..Till::with(provider, course, "USD") }
    }

    /// The same in this currency, and with webhooks.
    pub fn with(provider: Provider, course: Course, currency: &'static str) -> Till {
        Till { provider, course, currency, is_told: true, account: Mutex::default() }
    }

    pub fn account(&self) -> Arc<Account> {
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(account.as_ref().expect("a world first"))
    }

    fn token(&self) -> &'static str {
        match self.course {
            Course::Paid
            | Course::AnswerLost
            | Course::Cancelled
            | Course::PartlyRefunded
            | Course::Returned
            | Course::Reviewed(_) => self.provider.good_token(),
            Course::Asked | Course::Abandoned => self.provider.asking_token(),
            Course::Declined | Course::TriedAgain => self.provider.bad_token(),
            Course::PaidLate => self.provider.late_token(),
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

    async fn buy(&self, world: &World, many: usize) -> Vec<Bought> {
        let mut bought = Vec::with_capacity(many);
        for _ in 0..many {
            let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
            let accepted = world.checkout_as(self.order(user, cart)).await.expect("accepted");
            bought.push(Bought { accepted, cart, return_id: None });
        }
        bought
    }

    /// What was bought is carried to its end, and whoever is asked to pay, pays.
    async fn sell(&self, world: &World, bought: &[Bought]) {
        let worker = world.worker_of(bought.len(), None).await;
        while worker.drain_together(1).await.expect("a round") > 0 {
            for one in bought {
                self.pay(world, one.order_id()).await;
            }
        }
        worker.die().await.expect("gone");
    }

    /// Whoever is asked to pay, pays.
    pub async fn pay(&self, world: &World, order_id: OrderId) {
        for payment in payments(world, order_id).await {
            self.account().site.agree(&payment).await;
        }
    }

    /// Nobody pays, the order is given up, and the gateway takes the money all the same.
    async fn pay_late(&self, world: &World, bought: &[Bought]) {
        let account = self.account();
        if self.provider == Provider::Razorpay {
            // What it says yes to later, it said no to first.
            let worker = world.worker_of(bought.len(), None).await;
            worker.drain_together(1).await.expect("a round");
            for one in bought {
                self.decline(world, one.order_id()).await;
            }
            worker.die().await.expect("gone");
        }
        world.carry_on(bought.len()).await;
        engine::testing::advance_clock(&world.pool, Duration::from_secs(60)).await.expect("a minute passes");
        for one in bought {
            account.site.capture_late(&first_payment(world, one.order_id()).await).await;
        }
        until("word of the late payments", async || {
            let begun: i64 = sqlx::query_scalar("select count(*) from engine.runs where workflow = 'refund'")
                .fetch_one(&world.pool)
                .await
                .expect("runs");
            if begun == i64::try_from(bought.len()).expect("few") { Ok(()) } else { Err(begun) }
        })
        .await;
    }

    /// The shopper's bank says no.
    async fn decline(&self, world: &World, order_id: OrderId) {
        for payment in payments(world, order_id).await {
            self.account().site.decline(&payment).await;
        }
    }

    /// The bank says no to the first try; what comes after it is paid.
    async fn try_again(&self, world: &World, one: &Bought) {
        let account = self.account();
        for payment in payments(world, one.order_id()).await {
            if payment != first_payment(world, one.order_id()).await || !account.site.decline_once(&payment).await {
                account.site.agree(&payment).await;
            }
        }
        let run = engine::inspect::run(&world.pool, one.accepted.workflow_id).await.expect("an answer");
        let waits = run
            .is_some_and(|run| run.waiting_for.as_deref() == Some(attempt::SIGNAL) && run.status.as_str() == "WAITING");
        if waits {
            let offer = Offer {
                order_id: one.order_id(),
                amount: total(world, one.order_id()).await.expect("an order"),
                method: self.provider.method(),
                token: Some(self.provider.good_token().to_owned()),
            };
            let mut tx = world.pool.begin().await.expect("a transaction");
            // Somebody was quicker if it is refused.
            if attempt::offer(&mut tx, &world.shop, offer).await.is_ok() {
                tx.commit().await.expect("committed");
            }
        }
    }

    /// Returns how much is promised back.
    pub async fn cancel(&self, world: &World, order_id: OrderId) -> Decimal {
        let (by, reason) = ("user:asha".to_owned(), "a change of mind".to_owned());
        let request = CancelRequest { order_id, actor: Actor::Customer, by, reason };
        let mut tx = world.pool.begin().await.expect("a transaction");
        let accepted = cancellation::accept::accept(&mut tx, &world.shop.rules, &request, |_| true).await;
        tx.commit().await.expect("committed");
        accepted.expect("accepted").refund_amount
    }

    async fn send_back(&self, world: &World, one: &mut Bought) {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let mut order = orders::lock(&mut tx, one.order_id()).await.expect("an answer").expect("an order");
        for to in [OrderStatus::Processing, OrderStatus::Shipped, OrderStatus::Delivered] {
            let by = By { actor: "a test", reason: None, metadata: None };
            fulfilment::staff_move(&mut tx, &mut order, to, by, now).await.expect("moved");
        }
        tx.commit().await.expect("committed");
        world.carry_on(1).await;
        let mouse = [(LineName::Variant("MOU-001".to_owned()), 1)];
        let mut tx = world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let order = orders::lock(&mut tx, one.order_id()).await.expect("an answer").expect("an order");
        let asked = desk::request(&mut tx, &world.shop.rules, &order, &mouse, "too heavy", now).await;
        one.return_id = Some(asked.expect("asked for"));
        tx.commit().await.expect("committed");
    }
}

/// Payments of an order that are open by the books.
async fn payments(world: &World, order_id: OrderId) -> Vec<String> {
    sqlx::query_scalar(
        "select a.gateway_payment_id from payment_attempts a join payments p on p.id = a.payment_id
          where p.order_id = $1 and a.status = 'PENDING'",
    )
    .bind(Uuid::from(order_id))
    .fetch_all(&world.pool)
    .await
    .expect("payments")
}

/// The gateway's id of the first attempt to pay.
pub async fn first_payment(world: &World, order_id: OrderId) -> String {
    sqlx::query_scalar(
        "select a.gateway_payment_id from payment_attempts a join payments p on p.id = a.payment_id
          where p.order_id = $1 and a.attempt = 1",
    )
    .bind(Uuid::from(order_id))
    .fetch_one(&world.pool)
    .await
    .expect("an attempt")
}

pub async fn total(world: &World, order_id: OrderId) -> Option<Decimal> {
    sqlx::query_scalar("select total_amount from orders where id = $1")
        .bind(Uuid::from(order_id))
        .fetch_optional(&world.pool)
        .await
        .expect("a total")
}

/// What the shop's own books say it has of an order's money.
async fn booked(world: &World, order_id: OrderId) -> Decimal {
    sqlx::query_scalar("select coalesce(sum(captured_amount - refund_amount), 0) from payments where order_id = $1")
        .bind(Uuid::from(order_id))
        .fetch_one(&world.pool)
        .await
        .expect("the books")
}

async fn staff_decide(world: &World, order_id: OrderId, decision: StaffDecision) {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let now = engine::now(&mut *tx).await.expect("the time");
    // Before it waits, and once it is decided, there is nothing to decide.
    if fraud::decide(&mut tx, order_id, decision, "a look", "user:clerk", now).await.is_ok() {
        tx.commit().await.expect("committed");
    }
}

/// The staff take back what arrives.
async fn take_back(world: &World, return_id: Uuid) {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let now = engine::now(&mut *tx).await.expect("the time");
    let found = returns::find(&mut tx, return_id).await.expect("an answer").expect("a return");
    let decision = match found.status {
        ReturnStatus::Requested => Decision::Approve,
        ReturnStatus::Approved => Decision::Receive,
        ReturnStatus::Received | ReturnStatus::Refunded | ReturnStatus::Rejected => return,
    };
    desk::decide(&mut tx, return_id, decision, None, now).await.expect("decided");
    tx.commit().await.expect("committed");
}

impl Story for Till {
    type Begun = Bought;

    async fn world(&self) -> World {
        let tries = if self.course == Course::TriedAgain { 3 } else { 1 };
        let default_gateway = self.provider.name().to_owned();
        let mut rules = Rules { default_gateway, payment_max_attempts: tries, ..Rules::default() };
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
            set_rules(&world.pool, vec![rule("abroad", Kind::CountryMismatch, 60, json!({}))]).await;
        }
        let account = Arc::new(Account::open(self.provider, &world.pool, self.is_told).await);
        let shop = Shop::new(rules, vec![Arc::clone(&account.gateway)], Some(Arc::clone(&world.mails) as _));
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = Some(account);
        World { shop, ..world }
    }

    /// What is only about what comes after the payment begins when it is paid.
    async fn begin(&self, world: &World, many: usize) -> Vec<Bought> {
        let account = self.account();
        let mut bought = self.buy(world, many).await;
        match self.course {
            Course::Paid
            | Course::Asked
            | Course::Declined
            | Course::TriedAgain
            | Course::Abandoned
            | Course::Reviewed(_) => {}
            Course::AnswerLost => {
                account.site.befalls("initiate", "lose-answer", u32::try_from(many).expect("few")).await;
            }
            Course::PaidLate => self.pay_late(world, &bought).await,
            Course::Cancelled | Course::PartlyRefunded | Course::Returned => self.sell(world, &bought).await,
        }
        for one in &mut bought {
            let order_id = one.order_id();
            if world.order_status(order_id.into()).await.as_deref() != Some("CONFIRMED") {
                continue;
            }
            match self.course {
                Course::Cancelled => drop(self.cancel(world, order_id).await),
                Course::PartlyRefunded => {
                    let mut tx = world.pool.begin().await.expect("a transaction");
                    pay_back::accept(&mut tx, order_id, PART, "user:clerk", "a scratch").await.expect("promised");
                    tx.commit().await.expect("committed");
                }
                Course::Returned => self.send_back(world, one).await,
                Course::Paid
                | Course::Asked
                | Course::AnswerLost
                | Course::Declined
                | Course::TriedAgain
                | Course::Abandoned
                | Course::PaidLate
                | Course::Reviewed(_) => {}
            }
        }
        bought
    }

    async fn meanwhile(&self, world: &World, begun: &[Bought]) {
        for one in begun {
            let order_id = one.order_id();
            match self.course {
                Course::Abandoned | Course::PaidLate => {}
                Course::Declined => self.decline(world, order_id).await,
                Course::TriedAgain => self.try_again(world, one).await,
                Course::Paid
                | Course::Asked
                | Course::AnswerLost
                | Course::Cancelled
                | Course::PartlyRefunded
                | Course::Returned => self.pay(world, order_id).await,
                Course::Reviewed(decision) => {
                    self.pay(world, order_id).await;
                    staff_decide(world, order_id, decision).await;
                }
            }
            if let Some(return_id) = one.return_id {
                take_back(world, return_id).await;
            }
        }
    }

    /// With exactly its money, or without any of it; and the gateway was spoken to as its documents want.
    async fn judge(&self, world: &World, begun: &[Bought], when: &str) -> Vec<bool> {
        let account = self.account();
        account.site.assert_well_spoken(when).await;
        account.site.holds_lapse().await;
        let mut as_planned = Vec::with_capacity(begun.len());
        for one in begun {
            let order_id = one.order_id();
            let status = world.order_status(order_id.into()).await;
            let holds = account.site.holds(order_id).await;
            assert!(holds.captures <= 1, "{when}: charged more than once: {holds:?}");
            assert_eq!(holds.held, Decimal::ZERO, "{when}: money is set aside for nothing");
            assert_eq!(holds.net, booked(world, order_id).await, "{when}: the gateway's money and ours");
            let (total, part) = (total(world, order_id).await.unwrap_or_default(), holds.net);
            let is_sold = matches!(status.as_deref(), Some("CONFIRMED" | "DELIVERED" | "REFUNDED"));
            if is_sold {
                let expected = match self.course {
                    Course::PartlyRefunded => total - PART,
                    // The delivery is not paid back.
                    Course::Returned => {
                        assert!(Decimal::ZERO < part && part < total, "{when}: {part} of {total}");
                        part
                    }
                    Course::Paid
                    | Course::Asked
                    | Course::AnswerLost
                    | Course::Declined
                    | Course::TriedAgain
                    | Course::Abandoned
                    | Course::PaidLate
                    | Course::Reviewed(_)
                    | Course::Cancelled => total,
                };
                assert_eq!(holds.net, expected, "{when}: the money of an order that is {status:?}");
                assert_eq!(world.cart_status(one.cart).await, "CONVERTED", "{when}");
            } else {
                assert!(matches!(status.as_deref(), None | Some("CANCELLED")), "{when}: the order is {status:?}");
                assert_eq!(holds.net, Decimal::ZERO, "{when}: nobody pays for an order that is not to be had");
            }
            as_planned.push(match self.course {
                Course::Paid | Course::Asked | Course::AnswerLost | Course::TriedAgain | Course::PartlyRefunded => {
                    is_sold
                }
                Course::Declined | Course::Abandoned => !is_sold,
                Course::Reviewed(StaffDecision::Approve) => is_sold,
                Course::Reviewed(StaffDecision::Reject) => !is_sold && holds.captures == 0,
                Course::Cancelled | Course::PaidLate => holds.captures == 1 && status.as_deref() == Some("CANCELLED"),
                Course::Returned => status.as_deref() == Some("REFUNDED"),
            });
        }
        as_planned
    }
}
