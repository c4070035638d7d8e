//! Fulfilment and returns, killed, failed and repeated at every point: goods and money come back once.

use std::sync::Arc;

use domain::{
    ids::OrderId,
    notification::ParcelLabel,
    order::{OrderStatus, ShipmentStatus},
    payment::PaymentMethod,
    returns::ReturnStatus,
};
use engine::testing::{Everything, Fault, Faults, Once, Recorder};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    Rules,
    checkout::accept::Order,
    fulfilment::{self, LineName},
    order_return::desk::{self, Decision, ReturnRefusal},
    store::{orders, orders::By, returns},
};

use crate::{
    misfortune::{self, Always, Story as _, alone},
    world::{STOCK, World, order},
};

/// What becomes of a return.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Story {
    /// One of two mice comes back.
    Part,
    /// Everything comes back.
    Whole,
    /// Everything of a cash order comes back.
    Cash,
    /// The staff say no.
    Rejected,
    /// What arrives is not what was sent.
    RejectedAtTheDoor,
    /// Nobody says anything.
    Forgotten,
    /// Of many, each in its own way.
    Mixed,
}

impl Story {
    fn decisions(self) -> &'static [Decision] {
        match self {
            Story::Part | Story::Whole | Story::Cash => &[Decision::Approve, Decision::Receive],
            Story::Rejected => &[Decision::Reject],
            Story::RejectedAtTheDoor => &[Decision::Approve, Decision::Reject],
            Story::Forgotten | Story::Mixed => &[],
        }
    }

    fn comes_back(self) -> bool {
        self.decisions().contains(&Decision::Receive)
    }

    /// That of one of many.
    fn of(self, number: usize) -> Story {
        let all = [Story::Part, Story::Whole, Story::Cash, Story::Rejected, Story::RejectedAtTheDoor, Story::Forgotten];
        if self == Story::Mixed { all[number % all.len()] } else { self }
    }
}

/// A laptop and two mice, bought and delivered.
pub async fn delivered(world: &World, cash: bool) -> OrderId {
    all_delivered(world, [cash]).await.remove(0)
}

/// The same so many times, some paid in cash.
async fn all_delivered(world: &World, cash: impl IntoIterator<Item = bool>) -> Vec<OrderId> {
    let mut orders = Vec::new();
    for cash in cash {
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
        let method = if cash { PaymentMethod::Cod } else { PaymentMethod::Upi };
        let order = Order { payment_method: method, ..order(user, cart) };
        orders.push(world.checkout_as(order).await.expect("accepted").order_id);
    }
    world.carry_on(orders.len()).await;
    for order_id in &orders {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let mut order = orders::lock(&mut tx, *order_id).await.expect("an answer").expect("an order");
        for to in [OrderStatus::Processing, OrderStatus::Shipped, OrderStatus::Delivered] {
            let by = By { actor: "a test", reason: None, metadata: None };
            fulfilment::staff_move(&mut tx, &mut order, to, by, now).await.expect("moved");
        }
        tx.commit().await.expect("committed");
    }
    world.carry_on(orders.len()).await;
    orders
}

pub struct Begun {
    story: Story,
    order_id: OrderId,
    return_id: Uuid,
    run_id: Uuid,
    /// When all of them had been delivered.
    mice_before: i32,
}

impl misfortune::Story for Story {
    type Begun = Begun;

    async fn begin(&self, world: &World, many: usize) -> Vec<Begun> {
        let stories = || (0..many).map(|number| self.of(number));
        let orders = all_delivered(world, stories().map(|story| story == Story::Cash)).await;
        let mice_before = world.stock("MOU-001").await.0;
        let mut begun = Vec::with_capacity(many);
        for (story, order_id) in stories().zip(orders) {
            let mice = if story == Story::Part { 1 } else { 2 };
            let mut items = vec![(LineName::Variant("MOU-001".to_owned()), mice)];
            if story != Story::Part {
                items.push((LineName::Variant("LAP-001".to_owned()), 1));
            }
            let mut tx = world.pool.begin().await.expect("a transaction");
            let now = engine::now(&mut *tx).await.expect("the time");
            let order = orders::lock(&mut tx, order_id).await.expect("an answer").expect("an order");
            let return_id = desk::request(&mut tx, &world.shop.rules, &order, &items, "too heavy", now);
            let return_id = return_id.await.expect("asked for");
            let run_id = returns::find(&mut tx, return_id).await.expect("an answer").expect("a return").run_id;
            tx.commit().await.expect("committed");
            begun.push(Begun { story, order_id, return_id, run_id, mice_before });
        }
        begun
    }

    /// The staff say what comes next.
    async fn meanwhile(&self, world: &World, begun: &[Begun]) {
        for one in begun {
            let next = match status(world, one).await {
                ReturnStatus::Requested => one.story.decisions().first(),
                ReturnStatus::Approved => one.story.decisions().get(1),
                ReturnStatus::Received | ReturnStatus::Refunded | ReturnStatus::Rejected => None,
            };
            if let Some(decision) = next {
                decide(world, one, *decision).await;
            }
        }
    }

    async fn judge(&self, world: &World, begun: &[Begun], when: &str) -> Vec<bool> {
        let (mut as_planned, mut mice) = (Vec::with_capacity(begun.len()), 0);
        for one in begun {
            let has_failed = world.status(one.run_id).await == "FAILED";
            mice += assert_settled(world, one, has_failed, when).await;
            as_planned.push(!has_failed);
        }
        let before = begun.first().map_or(STOCK, |one| one.mice_before);
        assert_eq!(world.stock("MOU-001").await, (before + mice, 0), "{when}: the stock");
        as_planned
    }
}

async fn decide(world: &World, begun: &Begun, decision: Decision) {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let now = engine::now(&mut *tx).await.expect("the time");
    desk::decide(&mut tx, begun.return_id, decision, None, now).await.expect("decided");
    tx.commit().await.expect("committed");
}

async fn status(world: &World, begun: &Begun) -> ReturnStatus {
    let mut conn = world.pool.acquire().await.expect("a connection");
    returns::find(&mut conn, begun.return_id).await.expect("an answer").expect("a return").status
}

/// What cash the shop has for an order.
async fn cash(world: &World, order_id: OrderId) -> Decimal {
    sqlx::query_scalar("select captured_amount - refund_amount from payments where order_id = $1")
        .bind(Uuid::from(order_id))
        .fetch_one(&world.pool)
        .await
        .expect("a payment")
}

/// Goods and money are where they belong; one that failed owes nothing. Answers how many mice came back.
async fn assert_settled(world: &World, begun: &Begun, has_failed: bool, when: &str) -> i32 {
    let Begun { story, order_id, .. } = begun;
    let comes_back = story.comes_back() && !has_failed;
    // 50000.00 and 2 × 999.00, each line with 18 % on it, and 50.00 for the delivery.
    let (all, mouse, shipping) = (Decimal::new(6_140_764, 2), Decimal::new(117_882, 2), Decimal::from(50));
    let (kept, returned, end) = match story {
        Story::Part if comes_back => (all - mouse, 1, "DELIVERED"),
        Story::Whole | Story::Cash if comes_back => (shipping, 2, "REFUNDED"),
        Story::Part | Story::Whole | Story::Cash => (all, 0, "DELIVERED"),
        Story::Rejected | Story::RejectedAtTheDoor | Story::Forgotten | Story::Mixed => (all, 0, "DELIVERED"),
    };
    let net = if *story == Story::Cash { cash(world, *order_id).await } else { world.gateway.net(*order_id) };
    assert_eq!(net, kept, "{when}: the money");
    assert_eq!(world.order_status((*order_id).into()).await.as_deref(), Some(end), "{when}");
    let settled = if comes_back { ReturnStatus::Refunded } else { ReturnStatus::Rejected };
    assert_eq!(status(world, begun).await, settled, "{when}");
    let mails = world.mails.about(*order_id);
    let told = |event: &str| mails.iter().filter(|mail| mail.event == event).count();
    assert_eq!(told("payment.refunded"), usize::from(comes_back), "{when}: told of the money");
    assert_eq!(told("return.rejected"), usize::from(!comes_back && !has_failed), "{when}: told of the refusal");
    returned
}

alone! {
    part: Story::Part,
    whole: Story::Whole,
    cash_back: Story::Cash,
    rejected: Story::Rejected,
    rejected_at_the_door: Story::RejectedAtTheDoor,
    forgotten: Story::Forgotten,
}

/// Before the goods are here a step that cannot be done ends the return; afterwards it parks the run.
#[tokio::test]
async fn a_step_that_fails_for_good_owes_nothing_or_parks() {
    for (story, step, ends) in [
        (Story::Forgotten, "LapseReturn", "FAILED"),
        (Story::Rejected, "ReadNote", "FAILED"),
        (Story::Whole, "AcceptGoods", "STUCK"),
        (Story::Whole, "AssessGoods", "STUCK"),
        (Story::Whole, "ClaimWorth", "STUCK"),
        (Story::Whole, "Restock", "STUCK"),
        (Story::Whole, "CloseReturn", "STUCK"),
    ] {
        for fusion in [true, false] {
            let world = World::new().await;
            let begun = story.begin(&world, 1).await.remove(0);
            let worker = world.worker(fusion, Some(Arc::new(Always(step)))).await;
            for decision in story.decisions() {
                decide(&world, &begun, *decision).await;
            }
            worker.drain(60).await.expect("drained");
            assert_eq!(world.status(begun.run_id).await, ends, "{step}, fusion {fusion}");
            if ends == "FAILED" {
                assert_eq!(status(&world, &begun).await, ReturnStatus::Rejected, "{step}, fusion {fusion}");
                world.assert_books(step).await;
            }
        }
    }
}

#[tokio::test]
async fn an_order_is_packed_by_itself_when_its_customers_time_is_over() {
    let rules =
        || Rules { default_gateway: "scripted".to_owned(), auto_process_after_s: Some(3600), ..Rules::default() };
    for fusion in [true, false] {
        let world = World::with(rules()).await;
        let recorder = Arc::new(Recorder::default());
        let recorded = packed(&world, fusion, Some(Arc::clone(&recorder) as _)).await;
        assert_eq!(recorded.as_deref(), Some("PROCESSING"));
        let points = recorder.points();
        assert!(points.iter().any(|(_, step)| step == "BeginProcessing"), "{points:?}");
        for (point, step) in points {
            let when = format!("fusion {fusion}, a crash at {point:?} {step}");
            let once = Once::new(point, &step, Fault::Crash);
            assert_eq!(
                packed(&world, fusion, Some(Arc::clone(&once) as _)).await.as_deref(),
                Some("PROCESSING"),
                "{when}"
            );
            assert!(once.has_struck(), "{when}");
            world.assert_books(&when).await;
        }
        assert_eq!(packed(&world, fusion, Some(Arc::new(Everything))).await.as_deref(), Some("PROCESSING"));
        world.assert_books("everything twice").await;
    }
}

/// An order is bought, an hour passes, and so it stands.
async fn packed(world: &World, fusion: bool, faults: Option<Arc<dyn Faults>>) -> Option<String> {
    let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    let first = world.worker(fusion, None).await;
    first.turn(accepted.workflow_id).await.expect("a turn");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    first.die().await.expect("dead");
    let faulty = world.worker(fusion, faults).await;
    faulty.drain(6).await.expect("drained");
    faulty.die().await.expect("dead");
    let healthy = world.worker(fusion, None).await;
    healthy.drain(50).await.expect("drained");
    let mails = world.mails.about(accepted.order_id);
    assert_eq!(mails.iter().filter(|mail| mail.event == "order.processing").count(), 1, "told once");
    world.order_status(accepted.order_id.into()).await
}

#[tokio::test]
async fn nobody_can_stop_a_return_whose_goods_were_received_and_one_that_is_stopped_takes_no_decision() {
    let world = World::new().await;
    let received = Story::Whole.begin(&world, 1).await.remove(0);
    decide(&world, &received, Decision::Approve).await;
    decide(&world, &received, Decision::Receive).await;
    let mut conn = world.pool.acquire().await.expect("a connection");
    let stopped = engine::run::cancel(&mut conn, received.run_id, "an operator").await.expect("an answer");
    assert_eq!(stopped, engine::run::Delivery::Refused, "its goods are ours, and paid back");

    let asked = Story::Part.begin(&world, 1).await.remove(0);
    engine::run::cancel(&mut conn, asked.run_id, "an operator").await.expect("an answer");
    let mut tx = world.pool.begin().await.expect("a transaction");
    let now = engine::now(&mut *tx).await.expect("the time");
    let refused = desk::decide(&mut tx, asked.return_id, Decision::Approve, None, now).await.expect_err("withdrawn");
    assert!(matches!(refused, ReturnRefusal::Withdrawn), "{refused}");
    tx.rollback().await.expect("rolled back");

    world.healthy().await.drain(100).await.expect("drained");
    for (played, status) in [(&received, "REFUNDED"), (&asked, "REJECTED")] {
        let found = returns::find(&mut conn, played.return_id).await.expect("an answer").expect("a return");
        assert_eq!(found.status.as_str(), status);
    }
    world.assert_books("after both").await;
}

#[tokio::test]
async fn of_an_order_with_parcels_only_pieces_that_arrived_may_be_returned() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
    let order_id = world.checkout(user, cart, "tok_ok").await.expect("accepted").order_id;
    world.healthy().await.drain(50).await.expect("drained");
    let mut tx = world.pool.begin().await.expect("a transaction");
    let now = engine::now(&mut *tx).await.expect("the time");
    let mut order = orders::lock(&mut tx, order_id).await.expect("an answer").expect("an order");
    let label = ParcelLabel { courier_service: "Blue Dart".to_owned(), tracking_number: "BD1".to_owned() };
    let mouse = [(LineName::Variant("MOU-001".to_owned()), 1)];
    let parcel = fulfilment::ship(&mut tx, &mut order, Some(&mouse), &label, "user:staff", now).await.expect("packed");
    for (status, mice) in [(None, 0), (Some(ShipmentStatus::Shipped), 0), (Some(ShipmentStatus::Delivered), 1)] {
        if let Some(status) = status {
            fulfilment::report(&mut tx, parcel, status, now).await.expect("reported");
        }
        let lines = returns::returnable(&mut tx, order_id).await.expect("the lines");
        let mut left: Vec<_> = lines.iter().map(|line| (line.sku.as_str(), line.left)).collect();
        left.sort_unstable();
        assert_eq!(left, [("LAP-001", 0), ("MOU-001", mice)], "{status:?}");
    }
}

#[tokio::test]
async fn two_returns_of_one_order_that_meet_give_back_each_piece_once() {
    let world = World::with(Rules {
        default_gateway: "scripted".to_owned(),
        return_refunds_shipping: true,
        ..Rules::default()
    })
    .await;
    let order_id = delivered(&world, false).await;
    let ask = async |sku: &str, quantity| {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let order = orders::lock(&mut tx, order_id).await.expect("an answer").expect("an order");
        let items = [(LineName::Variant(sku.to_owned()), quantity)];
        let id = desk::request(&mut tx, &world.shop.rules, &order, &items, "too heavy", now).await.expect("asked for");
        for decision in [Decision::Approve, Decision::Receive] {
            desk::decide(&mut tx, id, decision, None, now).await.expect("decided");
        }
        let run_id = returns::find(&mut tx, id).await.expect("an answer").expect("a return").run_id;
        tx.commit().await.expect("committed");
        run_id
    };
    let runs = [ask("MOU-001", 1).await, ask("MOU-001", 1).await, ask("LAP-001", 1).await];
    let workers = [world.healthy().await, world.healthy().await, world.healthy().await];
    let turns = futures::future::join_all(workers.iter().zip(runs).map(|(worker, run)| worker.turn(run))).await;
    assert!(turns.iter().all(Result::is_ok), "{turns:?}");
    workers[0].drain(60).await.expect("drained");
    assert_eq!(world.gateway.net(order_id), Decimal::ZERO, "with the last piece the shipping charge goes back");
    assert_eq!((world.stock("MOU-001").await.0, world.stock("LAP-001").await.0), (STOCK, STOCK));
    assert_eq!(world.order_status(order_id.into()).await.as_deref(), Some("REFUNDED"));
    world.assert_books("after three returns").await;
}
