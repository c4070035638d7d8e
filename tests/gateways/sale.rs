//! One order at one gateway, carried on step by step.

use std::sync::Arc;

use domain::ids::OrderId;
use engine::testing::TestWorker;
use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

use super::{
    account::Account,
    till::{Bought, Course, Till, first_payment, total},
};
use crate::{misfortune::Story as _, provider::Provider, world::World};

/// Those that are not ours.
pub const STRANGERS: [Provider; 3] = [Provider::Stripe, Provider::Razorpay, Provider::PayPal];

pub struct Sale {
    pub till: Till,
    pub world: World,
    pub account: Arc<Account>,
    pub worker: TestWorker,
    pub bought: Bought,
}

impl Sale {
    pub async fn begin(provider: Provider, course: Course) -> Sale {
        Sale::of(Till::with(provider, course, "USD")).await
    }

    pub async fn of(till: Till) -> Sale {
        let world = till.world().await;
        let account = till.account();
        let bought = till.begin(&world, 1).await.remove(0);
        let worker = world.healthy().await;
        Sale { till, world, account, worker, bought }
    }

    pub fn order_id(&self) -> OrderId {
        self.bought.accepted.order_id
    }

    pub async fn turn(&self) {
        self.worker.turn(self.bought.accepted.workflow_id).await.expect("a turn");
    }

    /// Until nothing is left to do.
    pub async fn drain(&self) {
        assert!(self.worker.drain(200).await.expect("drained") < 200, "it never ends");
    }

    /// The first turn, after which it waits for the shopper, who agrees; and the shop hears of it.
    pub async fn pays(&self) -> String {
        self.turn().await;
        let payment = first_payment(&self.world, self.order_id()).await;
        self.account.site.agree(&payment).await;
        self.account.all_told().await;
        payment
    }

    pub async fn status(&self) -> Option<String> {
        self.world.order_status(self.order_id().into()).await
    }

    pub async fn total(&self) -> Decimal {
        total(&self.world, self.order_id()).await.expect("an order")
    }

    /// How often something is written about the order.
    pub async fn count(&self, query: &'static str) -> i64 {
        let counted = sqlx::query_scalar(query).bind(Uuid::from(self.order_id()));
        counted.fetch_one(&self.world.pool).await.expect("a count")
    }

    /// The end: as the course wants it, and in balance.
    pub async fn judge(&self, when: &str) {
        self.account.all_told().await;
        self.drain().await;
        self.world.assert_books(when).await;
        let judged = self.till.judge(&self.world, std::slice::from_ref(&self.bought), when).await;
        assert_eq!(judged, [true], "{when}: {:?}", self.status().await);
    }

    /// Sold once: one capture, one confirmation, one e-mail of it.
    pub async fn assert_sold_once(&self, when: &str) {
        assert_eq!(self.status().await.as_deref(), Some("CONFIRMED"), "{when}");
        let holds = self.account.site.holds(self.order_id()).await;
        assert_eq!((holds.captures, holds.net), (1, self.total().await), "{when}");
        let confirmed = "select count(*) from order_state_history where order_id = $1 and to_status = 'CONFIRMED'";
        assert_eq!(self.count(confirmed).await, 1, "{when}");
        let mails = self.world.mails.about(self.order_id());
        assert_eq!(mails.iter().filter(|mail| mail.event == "order.confirmed").count(), 1, "{when}");
    }

    /// The events that the provider has sent, by kind.
    pub async fn events(&self, kind: &str) -> Vec<String> {
        let events = self.account.site.events().await;
        let of_kind = events.iter().filter(|event| event["kind"] == kind);
        of_kind.map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
    }

    pub async fn calls(&self, operation: &str) -> Vec<Value> {
        let ledger = self.account.site.ledger().await;
        ledger.of("calls").iter().filter(|call| call["operation"] == operation).cloned().collect()
    }

    /// The keys under which an operation was called, each once.
    pub async fn keys(&self, operation: &str) -> Vec<String> {
        let calls = self.calls(operation).await;
        let mut keys: Vec<_> = calls.iter().filter_map(|call| call["key"].as_str()).map(str::to_owned).collect();
        keys.sort();
        keys.dedup();
        keys
    }
}
