//! The workflows of the schedules, killed, failed and repeated at every point: with the next tick at the
//! latest, each has done its work once.

use std::{fmt, marker::PhantomData};

use domain::ids::CartId;
use engine::testing::Fault;
use workflows::{
    abandoned_cart::AbandonedCarts, cart_expiry::CartExpiry, checkout::accept::Accepted,
    low_stock_alerts::LowStockAlerts, payment_reconciliation::PaymentReconciliation,
    reservation_expiry::ReservationExpiry, retention::Retention, stuck_run_rescue::StuckRunRescue,
};

use super::*;
use crate::misfortune::{self, alone};

/// What there is to do, what does it, and what it looks like when it was done once.
trait Chore: Sized {
    type Flow: Workflow<Input: Default>;
    /// The steps of its own flow: what fails for good there is done by the next tick.
    const STEPS: &'static [&'static str];

    async fn prepare(world: &World) -> Self;
    async fn check(&self, world: &World, when: &str);
}

/// A tick of its schedule, and the next after it.
struct Ticks<C>(PhantomData<C>);

impl<C> fmt::Debug for Ticks<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<C>())
    }
}

impl<C: Chore> misfortune::Story for Ticks<C> {
    type Begun = C;

    async fn world(&self) -> World {
        World::with(rules()).await
    }

    async fn begin(&self, world: &World, _: usize) -> Vec<C> {
        let chore = C::prepare(world).await;
        start::<C::Flow>(&world.pool).await;
        vec![chore]
    }

    async fn afterwards(&self, world: &World) {
        start::<C::Flow>(&world.pool).await;
        world.carry_on(1).await;
    }

    async fn judge(&self, world: &World, begun: &[C], when: &str) -> Vec<bool> {
        begun[0].check(world, when).await;
        vec![true]
    }

    fn may_fail(&self, step: &str) -> bool {
        C::STEPS.contains(&step)
    }
}

macro_rules! ticks {
    ($($name:ident: $chore:ident),+ $(,)?) => {
        alone! { $($name: Ticks::<$chore>(PhantomData)),+ }

        mod leaves_to_the_next_tick_what_fails_for_good {
            use super::*;
            use crate::misfortune::{ALONE, Misfortune, every_point};

            $(#[tokio::test]
            async fn $name() {
                for way in ALONE {
                    every_point(&Ticks::<$chore>(PhantomData), way, Misfortune::ForGood).await;
                }
            })+
        }
    };
}
ticks! {
    leaving_carts_behind: LeftCart,
    expiring_carts: OldCarts,
    expiring_holds: DeadHold,
    reporting_low_stock: LowStock,
    rescuing_parked_runs: ParkedRun,
    reconciling_payments: LostWebhook,
    deleting_what_is_spent: OldRun,
}

/// A cart left two hours ago.
struct LeftCart {
    cart: CartId,
    address: String,
}

impl Chore for LeftCart {
    type Flow = AbandonedCarts;
    const STEPS: &'static [&'static str] = &["AbandonIdleCarts"];

    async fn prepare(world: &World) -> Self {
        let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
        sqlx::query("update carts set last_activity_at = engine.now() - interval '2 hours' where id = $1")
            .bind(Uuid::from(cart))
            .execute(&world.pool)
            .await
            .expect("left");
        LeftCart { cart, address: format!("{}@example.com", Uuid::from(user)) }
    }

    async fn check(&self, world: &World, when: &str) {
        assert_eq!(world.cart_status(self.cart).await, "ABANDONED", "{when}");
        let told = "select count(*) from outbox_events where event_type = 'cart.abandoned' and subject = $1::text";
        assert_eq!(world.count(told, self.cart.into()).await, 1, "{when}: the event");
        let mut reminders: Vec<String> = world.mails.to(&self.address).into_iter().map(|mail| mail.event).collect();
        reminders.sort();
        assert_eq!(reminders, ["cart.abandoned.1", "cart.abandoned.2", "cart.abandoned.3"], "{when}");
        let runs = "select count(*) from engine.finished_runs where workflow = 'abandoned_cart' and starts_with(run_key, $1::text)";
        assert_eq!(world.count(runs, self.cart.into()).await, 1, "{when}: one run an abandonment");
    }
}

/// A user's cart and a guest's past their time, and one in use.
struct OldCarts {
    over: [CartId; 2],
    in_use: CartId,
}

impl Chore for OldCarts {
    type Flow = CartExpiry;
    const STEPS: &'static [&'static str] = &["ExpireCarts"];

    async fn prepare(world: &World) -> Self {
        let (_, users) = world.shopper(&[("MOU-001", 1)]).await;
        let (_, guests) = world.shopper(&[("MOU-001", 1)]).await;
        let (_, in_use) = world.shopper(&[("MOU-001", 1)]).await;
        sqlx::query(
            "update carts set last_activity_at = engine.now() - case id when $1 then interval '31 days' else interval '0' end,
                    expires_at = case id when $2 then engine.now() when $3 then engine.now() + interval '30 days' end
              where id in ($1, $2, $3)",
        )
        .bind(Uuid::from(users))
        .bind(Uuid::from(guests))
        .bind(Uuid::from(in_use))
        .execute(&world.pool)
        .await
        .expect("old");
        OldCarts { over: [users, guests], in_use }
    }

    async fn check(&self, world: &World, when: &str) {
        for cart in self.over {
            assert_eq!(world.cart_status(cart).await, "EXPIRED", "{when}");
            let version = "select version from carts where id = $1";
            assert_eq!(world.count(version, cart.into()).await, 2, "{when}: once");
        }
        assert_eq!(world.cart_status(self.in_use).await, "ACTIVE", "{when}");
    }
}

/// A shopper at the bank's page whose hold is over, because the clock was moved.
struct DeadHold {
    accepted: Accepted,
    before: (i32, i32),
}

impl Chore for DeadHold {
    type Flow = ReservationExpiry;
    const STEPS: &'static [&'static str] = &["ExpireReservations"];

    async fn prepare(world: &World) -> Self {
        let before = world.stock("LAP-001").await;
        let accepted = world.waiting().await;
        advance_clock(&world.pool, Duration::from_secs(11 * MINUTE)).await.expect("later");
        DeadHold { accepted, before }
    }

    async fn check(&self, world: &World, when: &str) {
        assert_eq!(world.stock("LAP-001").await, self.before, "{when}: the stock is back, once");
        assert_eq!(world.order_status(self.accepted.order_id.into()).await.as_deref(), Some("CANCELLED"), "{when}");
    }
}

/// A crossing that nobody has reported.
struct LowStock {
    mails_before: usize,
}

impl Chore for LowStock {
    type Flow = LowStockAlerts;
    const STEPS: &'static [&'static str] = &["ReportLowStock"];

    async fn prepare(world: &World) -> Self {
        let mails_before = world.mails.to(STAFF).len();
        world.set_threshold(1).await;
        world.sell_mice(1).await;
        world.settle().await;
        world.events_are_readable().await;
        LowStock { mails_before }
    }

    async fn check(&self, world: &World, when: &str) {
        assert_eq!(world.mails.to(STAFF).len(), self.mails_before + 1, "{when}: one digest");
    }
}

/// A run parked by what has passed.
struct ParkedRun {
    accepted: Accepted,
}

impl Chore for ParkedRun {
    type Flow = StuckRunRescue;
    const STEPS: &'static [&'static str] = &["WakeLostRuns", "RescueParkedRuns"];

    async fn prepare(world: &World) -> Self {
        let accepted = world.parked(Fault::Retry).await;
        advance_clock(&world.pool, Duration::from_secs(MINUTE)).await.expect("later");
        ParkedRun { accepted }
    }

    async fn check(&self, world: &World, when: &str) {
        let run = inspect::run(&world.pool, self.accepted.workflow_id).await.expect("a run").expect("a run");
        assert_eq!(run.status.as_str(), "COMPLETED", "{when}");
        let lines = "select count(*) from audit_log where subject = 'run:' || $1::text";
        assert_eq!(world.count(lines, self.accepted.workflow_id).await, 1, "{when}: let go on once");
        assert_eq!(world.mails.about(self.accepted.order_id).len(), 1, "{when}: one e-mail");
    }
}

/// A payment that was approved, and whose webhook was lost.
struct LostWebhook {
    accepted: Accepted,
}

impl Chore for LostWebhook {
    type Flow = PaymentReconciliation;
    const STEPS: &'static [&'static str] = &["PickPayments", "FindPayments", "CompareBooks"];

    async fn prepare(world: &World) -> Self {
        let accepted = world.waiting().await;
        world.gateway.approve(accepted.order_id).expect("approved");
        advance_clock(&world.pool, Duration::from_secs(3 * MINUTE)).await.expect("later");
        LostWebhook { accepted }
    }

    async fn check(&self, world: &World, when: &str) {
        let order_id = self.accepted.order_id;
        assert_eq!(world.order_status(order_id.into()).await.as_deref(), Some("CONFIRMED"), "{when}");
        let payments = world.gateway.payments(order_id);
        assert_eq!(payments.len(), 1, "{when}: charged once");
        assert_eq!(payments[0].refunded, rust_decimal::Decimal::ZERO, "{when}");
        assert_eq!(world.mails.about(order_id).len(), 1, "{when}: one e-mail");
    }
}

/// A run that ended a month ago.
struct OldRun {
    accepted: Accepted,
}

impl Chore for OldRun {
    type Flow = Retention;
    const STEPS: &'static [&'static str] = &["MakeDays", "FindDueDays", "RetireRuns", "DeleteSpentRows"];

    async fn prepare(world: &World) -> Self {
        let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
        let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
        world.settle().await;
        advance_clock(&world.pool, Duration::from_secs(31 * DAY)).await.expect("later");
        OldRun { accepted }
    }

    async fn check(&self, world: &World, when: &str) {
        let run_id = self.accepted.workflow_id;
        for (left, expected) in [
            ("select count(*) from engine.finished_runs where id = $1", 0),
            ("select count(*) from engine.journal where run_id = $1", 0),
            ("select count(*) from engine.run_keys where run_id = $1 and expires_at > engine.now()", 1),
        ] {
            assert_eq!(world.count(left, run_id).await, expected, "{when}: {left}");
        }
        assert_eq!(world.order_status(self.accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"), "{when}");
    }
}
