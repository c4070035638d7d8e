//! Whatever becomes of an order's parcels, there is a way on: from every mixture of pieces that were delivered,
//! came back, were lost, were never sent or wait for their courier, an order comes to its end, and its books
//! balance wherever it stands.

use domain::{
    ids::OrderId,
    notification::ParcelLabel,
    order::{Actor, OrderStatus, ShipmentStatus},
    payment::PaymentMethod,
};
use engine::testing::TestWorker;
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    Rules,
    cancellation::{CancelRequest, accept},
    checkout::accept::Order,
    fulfilment::{self, LineName, ShipRefusal, call_off},
    order_return::desk::{self, Decision},
    store::{orders, returns},
};

use crate::world::{STOCK, World, order};

/// What has become of one piece.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    NeverSent,
    Ready,
    UnderWay,
    CameBack,
    Lost,
    Delivered,
}

const FATES: [Fate; 6] = [Fate::NeverSent, Fate::Ready, Fate::UnderWay, Fate::CameBack, Fate::Lost, Fate::Delivered];

impl Fate {
    /// What its courier reports; none for a piece that is in no parcel.
    fn reports(self) -> Option<&'static [ShipmentStatus]> {
        match self {
            Fate::NeverSent => None,
            Fate::Ready => Some(&[]),
            Fate::UnderWay => Some(&[ShipmentStatus::Shipped]),
            Fate::CameBack => Some(&[ShipmentStatus::InTransit, ShipmentStatus::Returned]),
            Fate::Lost => Some(&[ShipmentStatus::Shipped, ShipmentStatus::Lost]),
            Fate::Delivered => Some(&[ShipmentStatus::Delivered]),
        }
    }
}

struct Story<'w> {
    world: &'w World,
    worker: &'w TestWorker,
    order_id: OrderId,
    method: PaymentMethod,
    name: String,
}

/// A transaction with the order locked, and the time.
macro_rules! locked {
    ($story:expr => $tx:ident, $order:ident, $now:ident) => {
        let mut $tx = $story.world.pool.begin().await.expect("a transaction");
        #[allow(unused_mut)]
        let mut $order = orders::lock(&mut $tx, $story.order_id).await.expect("an answer").expect("an order");
        let $now = engine::now(&mut *$tx).await.expect("the time");
    };
}

impl Story<'_> {
    async fn settled(&self, when: &str) -> OrderStatus {
        let turns = self.worker.drain(200).await.expect("drained");
        assert!(turns < 200, "{}: the runs never end", self.name);
        self.world.assert_books(&format!("{}, {when}", self.name)).await;
        locked!(self => tx, order, _now);
        tx.rollback().await.expect("rolled back");
        order.status
    }

    async fn report(&self, parcel: Uuid, status: ShipmentStatus) {
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        match fulfilment::report(&mut tx, parcel, status, now).await {
            Ok(_) => tx.commit().await.expect("committed"),
            Err(refusal) => panic!("{}: {status}: {refusal}", self.name),
        }
    }

    /// Packs one piece, and hears what becomes of it.
    async fn send(&self, fate: Fate) {
        let Some(reports) = fate.reports() else { return };
        locked!(self => tx, order, now);
        let label = ParcelLabel { courier_service: "Blue Dart".to_owned(), tracking_number: "BD1".to_owned() };
        let one = [(LineName::Variant("MOU-001".to_owned()), 1)];
        let parcel = fulfilment::ship(&mut tx, &mut order, Some(&one), &label, "user:packer", now).await;
        let parcel = parcel.unwrap_or_else(|refusal| panic!("{}: {refusal}", self.name));
        tx.commit().await.expect("committed");
        for status in reports {
            self.report(parcel, *status).await;
        }
    }

    async fn parcels(&self, status: &str) -> Vec<Uuid> {
        sqlx::query_scalar("select id from shipments where order_id = $1 and status = $2 order by id")
            .bind(Uuid::from(self.order_id))
            .bind(status)
            .fetch_all(&self.world.pool)
            .await
            .expect("the parcels")
    }

    /// What the customer has goes back, as far as the shop lets it; the number of pieces.
    async fn return_what_arrived(&self) -> i32 {
        locked!(self => tx, order, now);
        let lines = returns::returnable(&mut tx, self.order_id).await.expect("the lines");
        let items: Vec<_> = lines
            .iter()
            .filter(|line| line.left > 0)
            .map(|line| (LineName::Item(line.order_item_id), line.left))
            .collect();
        if items.is_empty() {
            return 0;
        }
        let Ok(id) = desk::request(&mut tx, &self.world.shop.rules, &order, &items, "too heavy", now).await else {
            return 0;
        };
        for decision in [Decision::Approve, Decision::Receive] {
            desk::decide(&mut tx, id, decision, None, now).await.expect("decided");
        }
        tx.commit().await.expect("committed");
        items.iter().map(|(_, quantity)| quantity).sum()
    }

    /// What has not left is called off; if that is all there is, the order is cancelled.
    async fn call_off(&self, is_written_off: bool) {
        locked!(self => tx, order, now);
        match call_off::call_off(&mut tx, &mut order, None, is_written_off, "cannot be had", now).await {
            Ok(_) => return tx.commit().await.expect("committed"),
            Err(ShipRefusal::NothingLeft) => return,
            Err(ShipRefusal::IsCancellation) => tx.rollback().await.expect("rolled back"),
            Err(refusal) => panic!("{}: {refusal}", self.name),
        }
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let (actor, by, reason) = (Actor::Staff, "user:staff".to_owned(), "cannot be had".to_owned());
        let request = CancelRequest { order_id: self.order_id, actor, by, reason };
        accept::accept(&mut tx, &self.world.shop.rules, &request, |_| true).await.expect("accepted");
        tx.commit().await.expect("committed");
    }

    /// Money that the shop still has of it.
    async fn kept(&self) -> Decimal {
        if self.method != PaymentMethod::Cod {
            return self.world.gateway.net(self.order_id);
        }
        sqlx::query_scalar("select captured_amount - refund_amount from payments where order_id = $1")
            .bind(Uuid::from(self.order_id))
            .fetch_one(&self.world.pool)
            .await
            .expect("a payment")
    }
}

/// Two pieces with these fates; what is still under way then comes to `last`. `returns_first` is whether what
/// has arrived is returned before the rest is decided.
async fn play(
    world: &World,
    worker: &TestWorker,
    method: PaymentMethod,
    fates: [Fate; 2],
    last: ShipmentStatus,
    returns_first: bool,
) {
    let name = format!("{method:?}, {fates:?}, then {last}, returns first: {returns_first}");
    let before = world.stock("MOU-001").await.0;
    let (user, cart) = world.shopper(&[("MOU-001", 2)]).await;
    let bought = world.checkout_as(Order { payment_method: method, ..order(user, cart) }).await.expect("accepted");
    let story = Story { world, worker, order_id: bought.order_id, method, name: name.clone() };
    worker.turn(bought.workflow_id).await.expect("a turn");
    for fate in fates {
        story.send(fate).await;
    }
    let mut status = story.settled("as it stands").await;
    let is_over = |status| matches!(status, OrderStatus::Delivered | OrderStatus::Cancelled | OrderStatus::Refunded);
    let mut kept = 0;
    if returns_first {
        kept += story.return_what_arrived().await;
        status = story.settled("after the first return").await;
    }
    if !is_over(status) {
        story.call_off(false).await;
        story.settled("after what has not left was called off").await;
        for parcel in story.parcels("SHIPPED").await {
            story.report(parcel, last).await;
            story.settled("after the courier's last word").await;
        }
        locked!(story => tx, order, _now);
        tx.rollback().await.expect("rolled back");
        if !is_over(order.status) {
            story.call_off(true).await;
        }
        status = story.settled("at its end").await;
    }
    assert!(is_over(status), "{name}: {status} is no end");

    // What the customer still has may be returned, and then nobody has anything of the other.
    kept += story.return_what_arrived().await;
    let status = story.settled("after everything").await;
    let expected = if kept > 0 { OrderStatus::Refunded } else { OrderStatus::Cancelled };
    assert_eq!(status, expected, "{name}: {kept} pieces had arrived");
    // The charge for a delivery that was returned before the rest was called off is kept.
    let shipping: Decimal = sqlx::query_scalar("select shipping_amount from orders where id = $1")
        .bind(Uuid::from(story.order_id))
        .fetch_one(&world.pool)
        .await
        .expect("an order");
    let money = story.kept().await;
    assert!(money.is_zero() || returns_first && money == shipping, "{name}: {money} for nothing");
    let written_off: i64 = sqlx::query_scalar("select sum(written_off) from order_items where order_id = $1")
        .bind(Uuid::from(story.order_id))
        .fetch_one(&world.pool)
        .await
        .expect("a sum");
    let gone = i64::from(before - world.stock("MOU-001").await.0);
    assert_eq!(gone, written_off, "{name}: what is not back on the shelf is written off");
}

async fn every_mixture(method: PaymentMethod) {
    let rules = Rules { default_gateway: "scripted".to_owned(), return_refunds_shipping: true, ..Rules::default() };
    let world = World::with(rules).await;
    let worker = TestWorker::new(&world.pool, workflows::registry(&world.shop), true, None).await.expect("a worker");
    assert_eq!(world.stock("MOU-001").await.0, STOCK);
    for (nth, first) in FATES.into_iter().enumerate() {
        for second in FATES.into_iter().skip(nth) {
            let fates = [first, second];
            let lasts: &[_] = if fates.contains(&Fate::UnderWay) {
                &[ShipmentStatus::Delivered, ShipmentStatus::Returned, ShipmentStatus::Lost]
            } else {
                &[ShipmentStatus::Delivered]
            };
            for last in lasts {
                for returns_first in [false, true] {
                    if !returns_first || fates.contains(&Fate::Delivered) {
                        play(&world, &worker, method, fates, *last, returns_first).await;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_paid_order_comes_to_an_end_from_every_mixture_of_its_parcels() {
    every_mixture(PaymentMethod::Upi).await;
}

#[tokio::test]
async fn a_cash_order_comes_to_an_end_from_every_mixture_of_its_parcels() {
    every_mixture(PaymentMethod::Cod).await;
}
