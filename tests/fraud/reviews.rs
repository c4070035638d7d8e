//! A review ends once: by the first who decides, by its time, or with its order.

use chrono::TimeDelta;
use domain::{
    address::Address,
    fraud::{Decision, Kind},
    ids::OrderId,
    payment::PaymentMethod,
};
use engine::{
    Flow, Result, Start, Workflow,
    testing::{TestWorker, advance_clock},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;
use workflows::{
    checkout::{
        accept::{AddressChoice, Order},
        status,
    },
    fraud::{self, ReviewRefusal, ScreenOrder, StaffDecision, refusal},
    store::fraud::reviews::{self, ReviewStatus},
};

use super::{rule, screen, set_rules, stranger};
use crate::world::{World, mumbai, order};

/// What is left of a checkout that comes under review.
#[derive(Debug, Clone)]
struct Reviewed;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Input {
    order_id: OrderId,
    deadline_s: i32,
}

impl Workflow for Reviewed {
    const NAME: &'static str = "reviewed";
    const QUEUE: &'static str = "reviewed";
    type Input = Input;
    type Output = ();

    async fn run(&self, flow: &mut Flow, Input { order_id, deadline_s }: Input) -> Result<()> {
        let opened = fraud::open_review(flow, order_id, deadline_s).await?;
        fraud::review(flow, order_id, opened).await
    }
}

const DEADLINE_S: i32 = 3_600;

struct Desk {
    world: World,
    worker: TestWorker,
}

/// An order under review, and the run that waits.
#[derive(Clone, Copy)]
struct Held {
    order_id: OrderId,
    run_id: Uuid,
}

impl Desk {
    async fn open() -> Desk {
        let world = World::new().await;
        set_rules(&world.pool, vec![rule("abroad", Kind::CountryMismatch, 60, json!({}))]).await;
        let registry = workflows::registry(&world.shop).with(Reviewed);
        let worker = TestWorker::new(&world.pool, registry, true, None).await.expect("a worker");
        Desk { world, worker }
    }

    /// An order that nobody is to look at.
    async fn order(&self) -> OrderId {
        let (user, cart) = self.world.shopper(&[("MOU-001", 1)]).await;
        let accepted = self.world.checkout(user, cart, "tok_ok").await.expect("accepted");
        self.world.carry_on(64).await;
        accepted.order_id
    }

    async fn held(&self) -> Held {
        self.hold(self.order().await).await
    }

    /// This order comes under review.
    async fn hold(&self, order_id: OrderId) -> Held {
        let now = self.now().await;
        // Its checkout was screened, and let through.
        sqlx::query("delete from order_screenings where order_id = $1")
            .bind(Uuid::from(order_id))
            .execute(&self.world.pool)
            .await
            .expect("forgotten");
        let checkout = ScreenOrder { order_id, billing_country: "France".to_owned(), ..stranger() };
        let got = screen(&self.world.pool, &[checkout], now).await.remove(0);
        assert_eq!((got.decision, got.review_deadline_s), (Decision::Review, DEADLINE_S));
        let input = Input { order_id, deadline_s: got.review_deadline_s };
        let start = Start::<Reviewed>::new(order_id.to_string(), &input).expect("an input");
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
        tx.commit().await.expect("committed");
        self.turn(run_id).await;
        assert_eq!(self.world.status(run_id).await, "WAITING");
        Held { order_id, run_id }
    }

    async fn now(&self) -> chrono::DateTime<chrono::Utc> {
        engine::now(&mut *self.world.pool.acquire().await.expect("a connection")).await.expect("the time")
    }

    async fn turn(&self, run_id: Uuid) {
        self.worker.turn(run_id).await.expect("a turn");
    }

    async fn decide(&self, order_id: OrderId, decision: StaffDecision) -> std::result::Result<Uuid, ReviewRefusal> {
        let now = self.now().await;
        decide(&self.world, order_id, decision, now).await
    }

    async fn deadline_passes(&self) {
        let time = TimeDelta::seconds(DEADLINE_S.into()).to_std().expect("forwards");
        advance_clock(&self.world.pool, time).await.expect("later");
    }

    async fn review(&self, held: Held) -> (String, Option<String>) {
        sqlx::query_as("select status, reason from order_reviews where order_id = $1")
            .bind(Uuid::from(held.order_id))
            .fetch_one(&self.world.pool)
            .await
            .expect("a review")
    }

    /// Lines of the audit log about the order.
    async fn log(&self, held: Held) -> Vec<(String, String, Option<String>)> {
        sqlx::query_as("select actor, action, reason from audit_log where subject = $1")
            .bind(format!("order:{}", held.order_id))
            .fetch_all(&self.world.pool)
            .await
            .expect("the log")
    }

    async fn queue(&self) -> Vec<OrderId> {
        let mut conn = self.world.pool.acquire().await.expect("a connection");
        let found = reviews::list(&mut conn, None, 200).await.expect("the queue");
        found.into_iter().map(|waiting| waiting.order_id).collect()
    }

    /// The run has ended as the review has, and told nobody why.
    async fn assert_ended(&self, held: Held, status: ReviewStatus) {
        assert_eq!(self.review(held).await.0, status.as_str());
        let mut conn = self.world.pool.acquire().await.expect("a connection");
        let run = engine::run::glance(&mut conn, held.run_id).await.expect("an answer").expect("a run");
        if status == ReviewStatus::Approved {
            assert_eq!(run.status.as_str(), "COMPLETED");
        } else {
            assert_eq!(run.status.as_str(), "FAILED");
            assert_eq!(run.failure, Some(json!(refusal())));
        }
        assert!(self.queue().await.is_empty());
    }
}

async fn decide(
    world: &World,
    order_id: OrderId,
    decision: StaffDecision,
    now: chrono::DateTime<chrono::Utc>,
) -> std::result::Result<Uuid, ReviewRefusal> {
    let mut tx = world.pool.begin().await?;
    let reason = format!("{decision:?} by the book");
    let decided = fraud::decide(&mut tx, order_id, decision, &reason, "user:asha", now).await?;
    tx.commit().await?;
    Ok(decided)
}

#[tokio::test]
async fn the_staffs_word_ends_a_review_and_is_written_down() {
    let desk = Desk::open().await;
    for (decision, status) in
        [(StaffDecision::Approve, ReviewStatus::Approved), (StaffDecision::Reject, ReviewStatus::Rejected)]
    {
        let held = desk.held().await;
        assert_eq!(desk.queue().await, [held.order_id]);
        assert_eq!(desk.decide(held.order_id, decision).await.expect("decided"), held.run_id);
        desk.turn(held.run_id).await;
        desk.assert_ended(held, status).await;
        let reason = format!("{decision:?} by the book");
        assert_eq!(desk.review(held).await.1.as_ref(), Some(&reason));
        assert_eq!(desk.log(held).await, [("user:asha".to_owned(), "order.review".to_owned(), Some(reason))]);
        for decision in [StaffDecision::Approve, StaffDecision::Reject] {
            let refused = desk.decide(held.order_id, decision).await;
            assert!(matches!(refused, Err(ReviewRefusal::Ended { .. })), "{refused:?}");
        }
        assert_eq!(desk.log(held).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_decide_at_once_one_is_heard() {
    let desk = Desk::open().await;
    for _ in 0..10 {
        let held = desk.held().await;
        let now = desk.now().await;
        let (approved, rejected) = tokio::join!(
            decide(&desk.world, held.order_id, StaffDecision::Approve, now),
            decide(&desk.world, held.order_id, StaffDecision::Reject, now),
        );
        desk.turn(held.run_id).await;
        let status = match (approved, rejected) {
            (Ok(_), Err(ReviewRefusal::Ended { .. })) => ReviewStatus::Approved,
            (Err(ReviewRefusal::Ended { .. }), Ok(_)) => ReviewStatus::Rejected,
            both => panic!("{both:?}"),
        };
        desk.assert_ended(held, status).await;
        assert_eq!(desk.log(held).await.len(), 1);
    }
}

#[tokio::test]
async fn a_review_that_nobody_has_looked_at_in_time_expires() {
    let desk = Desk::open().await;
    let held = desk.held().await;
    desk.deadline_passes().await;
    let late = desk.decide(held.order_id, StaffDecision::Approve).await;
    assert!(matches!(late, Err(ReviewRefusal::Late { .. })), "{late:?}");
    desk.turn(held.run_id).await;
    desk.assert_ended(held, ReviewStatus::Expired).await;
    let ended = desk.decide(held.order_id, StaffDecision::Approve).await;
    assert!(matches!(ended, Err(ReviewRefusal::Ended { status: ReviewStatus::Expired })), "{ended:?}");
    assert!(desk.log(held).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_at_the_last_moment_is_heard_or_refused() {
    let desk = Desk::open().await;
    for _ in 0..10 {
        let held = desk.held().await;
        let in_time = desk.now().await;
        desk.deadline_passes().await;
        let (decided, _) =
            tokio::join!(decide(&desk.world, held.order_id, StaffDecision::Approve, in_time), desk.turn(held.run_id));
        // If the turn came first, it has found nothing and has ended; else it may have found the word already.
        desk.turn(held.run_id).await;
        let status = if decided.is_ok() { ReviewStatus::Approved } else { ReviewStatus::Expired };
        desk.assert_ended(held, status).await;
        assert_eq!(desk.log(held).await.len(), usize::from(decided.is_ok()));
    }
}

#[tokio::test]
async fn a_review_ends_with_an_order_that_is_given_up() {
    let desk = Desk::open().await;
    let held = desk.held().await;
    let mut tx = desk.world.pool.begin().await.expect("a transaction");
    engine::run::cancel(&mut tx, held.run_id, "the shopper has changed their mind").await.expect("asked");
    tx.commit().await.expect("committed");
    let refused = desk.decide(held.order_id, StaffDecision::Approve).await;
    assert!(matches!(refused, Err(ReviewRefusal::NobodyWaits)), "{refused:?}");
    desk.turn(held.run_id).await;
    assert_eq!(desk.world.status(held.run_id).await, "CANCELLED");
    assert_eq!(desk.review(held).await.0, "WITHDRAWN");
    assert!(desk.queue().await.is_empty());
    let refused = desk.decide(held.order_id, StaffDecision::Approve).await;
    assert!(matches!(refused, Err(ReviewRefusal::Ended { status: ReviewStatus::Withdrawn })), "{refused:?}");
}

#[tokio::test]
async fn an_order_that_is_not_under_review_is_not_decided() {
    let desk = Desk::open().await;
    let order_id = desk.order().await;
    let refused = desk.decide(order_id, StaffDecision::Approve).await;
    assert!(matches!(refused, Err(ReviewRefusal::NotUnderReview)), "{refused:?}");
    let refused = desk.decide(OrderId::generate(), StaffDecision::Approve).await;
    assert!(matches!(refused, Err(ReviewRefusal::NotFound)), "{refused:?}");
}

#[tokio::test]
async fn the_queue_shows_the_most_urgent_first_page_by_page() {
    let desk = Desk::open().await;
    let orders = [desk.order().await, desk.order().await, desk.order().await];
    for order_id in orders {
        desk.hold(order_id).await;
        advance_clock(&desk.world.pool, std::time::Duration::from_secs(60)).await.expect("later");
    }
    let mut conn = desk.world.pool.acquire().await.expect("a connection");
    let (mut after, mut seen) = (None, Vec::new());
    while let Some(waiting) = reviews::list(&mut conn, after, 1).await.expect("the queue").pop() {
        assert_eq!(waiting.points, 60);
        assert_eq!(waiting.reasons.iter().map(|reason| reason.rule.as_str()).collect::<Vec<_>>(), ["abroad"]);
        after = Some((waiting.held_until, waiting.order_id));
        seen.push(waiting.order_id);
    }
    assert_eq!(seen, orders);
}

/// Neither cash nor a gateway that takes what it was to set aside is a way past the staff.
#[tokio::test]
async fn a_doubtful_order_waits_for_the_staff_however_it_is_paid() {
    let world = World::new().await;
    set_rules(&world.pool, vec![rule("abroad", Kind::CountryMismatch, 60, json!({}))]).await;
    for token in [None, Some("tok_at_once")] {
        for (decision, expected) in [(StaffDecision::Approve, "CONFIRMED"), (StaffDecision::Reject, "CANCELLED")] {
            let told = format!("{token:?}, {decision:?}");
            let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
            let abroad = Address { country: "France".to_owned(), ..mumbai() };
            let asked = Order {
                payment_method: if token.is_none() { PaymentMethod::Cod } else { PaymentMethod::CreditCard },
                payment_token: token.map(str::to_owned),
                billing: Some(AddressChoice::Inline(abroad)),
                ..order(user, cart)
            };
            let accepted = world.checkout_as(asked).await.expect("accepted");
            let worker = world.healthy().await;
            worker.turn(accepted.workflow_id).await.expect("a turn");
            assert_eq!(world.status(accepted.workflow_id).await, "WAITING", "{told}");
            assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("PENDING"), "{told}");
            world.assert_books(&told).await;
            let waits = status::settled(&world.pool, &[accepted.workflow_id]).await.expect("an answer");
            assert_eq!(waits, [(accepted.workflow_id, false)], "whoever polls hears of it at once");
            let mut tx = world.pool.begin().await.expect("a transaction");
            let now = engine::now(&mut *tx).await.expect("the time");
            fraud::decide(&mut tx, accepted.order_id, decision, "a look", "user:clerk", now).await.expect("decided");
            tx.commit().await.expect("committed");
            worker.turn(accepted.workflow_id).await.expect("a turn");
            assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some(expected), "{told}");
            world.carry_on(1).await;
            world.assert_books(&told).await;
            if decision == StaffDecision::Reject {
                assert_eq!(world.gateway.net(accepted.order_id), Decimal::ZERO, "{told}");
            }
        }
    }
}
