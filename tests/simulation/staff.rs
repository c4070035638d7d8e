//! What the staff and the clock do: cancel, refund, pack, hear from couriers, and tidy up.

use domain::{
    notification::ParcelLabel,
    order::{Actor, OrderStatus, ShipmentStatus},
};
use engine::Start;
use rand::{RngExt as _, seq::IndexedRandom as _};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    abandoned_cart::AbandonedCarts,
    cancellation::{
        CancelRequest,
        accept::{CancelError, accept},
    },
    cart_expiry::CartExpiry,
    fulfilment::{self, LineName, ShipRefusal, StaffRefusal},
    low_stock_alerts::LowStockAlerts,
    pay_back,
    payment_reconciliation::PaymentReconciliation,
    reservation_expiry::ReservationExpiry,
    retention::Retention,
    store::{
        orders::{self, By, MoveError},
        refunds::ClaimError,
    },
    stuck_run_rescue::StuckRunRescue,
};

use super::{
    floor::SKUS,
    history::{Bought, History},
};

pub const CLERK: &str = "user:a clerk";

impl History {
    pub fn an_order(&mut self) -> Option<Bought> {
        self.bought.choose(&mut self.rng).cloned()
    }

    /// The shopper or the staff call an order off.
    pub async fn cancel_order(&mut self) -> Result<(), String> {
        let Some(bought) = self.an_order() else { return Ok(()) };
        let actor = if self.rng.random_bool(0.3) { Actor::Staff } else { Actor::Customer };
        let order_id = bought.accepted.order_id;
        let request = CancelRequest { order_id, actor, by: CLERK.to_owned(), reason: "changed minds".to_owned() };
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let told = match accept(&mut tx, &self.world.shop.rules, &request, |_| true).await {
            Ok(accepted) => {
                tx.commit().await.expect("committed");
                self.promises.cancelled.push((order_id, accepted.workflow_id));
                format!("{}, {} goes back", accepted.status, accepted.refund_amount)
            }
            Err(CancelError::Database(error)) => return Err(format!("a cancellation: {error}")),
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!("{actor:?} cancels order {}: {told}", self.number_of(&bought)));
        Ok(())
    }

    /// The staff give a part of the money back.
    pub async fn refund_part(&mut self) -> Result<(), String> {
        let Some(bought) = self.an_order() else { return Ok(()) };
        let amount = Decimal::new([100, 50_000, 117_882, 5_905_000][self.rng.random_range(0..4)], 2);
        let order_id = bought.accepted.order_id;
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let told = match pay_back::accept(&mut tx, order_id, amount, CLERK, "goodwill").await {
            Ok(_) => {
                tx.commit().await.expect("committed");
                *self.promises.refunds.entry(order_id).or_default() += amount;
                "promised".to_owned()
            }
            Err(ClaimError::Database(error)) => return Err(format!("a refund: {error}")),
            Err(refusal) => refusal.code().to_owned(),
        };
        self.diary.note(format!("{amount} of order {} is to go back: {told}", self.number_of(&bought)));
        Ok(())
    }

    /// A parcel is packed with all that is left, or with one piece of something.
    pub async fn pack(&mut self) -> Result<(), String> {
        let Some(bought) = self.an_order() else { return Ok(()) };
        let piece = (LineName::Variant(SKUS[self.rng.random_range(0..SKUS.len())].0.to_owned()), 1);
        let items = self.rng.random_bool(0.4).then(|| vec![piece]);
        self.pack_of(&bought, items).await
    }

    pub async fn pack_of(&mut self, bought: &Bought, items: Option<Vec<(LineName, i32)>>) -> Result<(), String> {
        let label = ParcelLabel { courier_service: "Blue Dart".to_owned(), tracking_number: "BD1".to_owned() };
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let order = orders::lock(&mut tx, bought.accepted.order_id).await.expect("an answer");
        let Some(mut order) = order else { return Ok(()) };
        let told = match fulfilment::ship(&mut tx, &mut order, items.as_deref(), &label, CLERK, now).await {
            Ok(parcel) => {
                tx.commit().await.expect("committed");
                self.parcels.push(parcel);
                format!("parcel {}", self.parcels.len())
            }
            Err(ShipRefusal::Database(error)) => return Err(format!("a parcel: {error}")),
            Err(refusal) => refusal.to_string(),
        };
        let what = if items.is_some() { "one piece" } else { "the rest" };
        self.diary.note(format!("{what} of order {} is packed: {told}", self.number_of(bought)));
        Ok(())
    }

    /// A courier says where a parcel is: late, twice or out of order.
    pub async fn hear_from_courier(&mut self) -> Result<(), String> {
        if self.parcels.is_empty() {
            return self.pack().await;
        }
        let index = self.rng.random_range(0..self.parcels.len());
        let seen = [
            ShipmentStatus::Shipped,
            ShipmentStatus::Shipped,
            ShipmentStatus::InTransit,
            ShipmentStatus::Delivered,
            ShipmentStatus::Delivered,
            ShipmentStatus::Returned,
        ];
        let to = *seen.choose(&mut self.rng).expect("a status");
        self.report(index, to).await
    }

    pub async fn report(&mut self, index: usize, to: ShipmentStatus) -> Result<(), String> {
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let told = match fulfilment::report(&mut tx, self.parcels[index], to, now).await {
            Ok(reported) => {
                tx.commit().await.expect("committed");
                reported.map_or_else(|| "unknown".to_owned(), |r| format!("the order is {}", r.order.status))
            }
            Err(ShipRefusal::Database(error)) => return Err(format!("a courier's report: {error}")),
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!("parcel {} is {to}: {told}", index + 1));
        Ok(())
    }

    /// The staff move an order by hand.
    pub async fn move_order(&mut self) -> Result<(), String> {
        let Some(bought) = self.an_order() else { return Ok(()) };
        let to = OrderStatus::ALL[self.rng.random_range(0..OrderStatus::ALL.len())];
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let order = orders::lock(&mut tx, bought.accepted.order_id).await.expect("an answer");
        let Some(mut order) = order else { return Ok(()) };
        let by = By { actor: CLERK, reason: None, metadata: None };
        let told = match fulfilment::staff_move(&mut tx, &mut order, to, by, now).await {
            Ok(()) => {
                tx.commit().await.expect("committed");
                "done".to_owned()
            }
            Err(StaffRefusal::Move(MoveError::Database(error))) => return Err(format!("a move: {error}")),
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!("order {} is moved to {to}: {told}", self.number_of(&bought)));
        Ok(())
    }

    /// Some schedule's tick.
    pub async fn tick(&mut self) {
        match self.rng.random_range(0..9) {
            0..3 => self.start::<ReservationExpiry>().await,
            3 => self.start::<AbandonedCarts>().await,
            4 => self.start::<CartExpiry>().await,
            5 => self.start::<LowStockAlerts>().await,
            6 => self.start::<StuckRunRescue>().await,
            7 => self.start::<PaymentReconciliation>().await,
            _ => self.start::<Retention>().await,
        };
    }

    /// The tick of the schedule that starts this workflow.
    pub async fn start<W: engine::Workflow<Input: Default>>(&mut self) -> Uuid {
        self.ticks += 1;
        let start = Start::<W>::new(format!("tick {}", self.ticks), &W::Input::default()).expect("a start");
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let started = engine::start(&mut tx, &start).await.expect("started");
        tx.commit().await.expect("committed");
        self.diary.note(format!("{} is due", W::NAME));
        started.run_id
    }
}
