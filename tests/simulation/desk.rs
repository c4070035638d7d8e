//! What happens beside the sale: another try to pay, goods that come back, stock that a service holds.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use domain::{ids::VariantId, payment::PaymentMethod};
use rand::{RngExt as _, seq::IndexedRandom as _};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    checkout::attempt::{Offer, OfferError, offer},
    fulfilment::LineName,
    order_return::desk::{self, Decision, ReturnRefusal},
    store::{
        inventory::services::{self, Let},
        orders,
    },
};

use super::{
    actions::draw,
    floor::{SERVICE, SKUS, variant},
    history::History,
};

impl History {
    /// A shopper whose card was declined sends another, or one who was not tries to.
    pub async fn pay_again(&mut self) -> Result<(), String> {
        let Some(bought) = self.an_order() else { return Ok(()) };
        let order_id = bought.accepted.order_id;
        let token =
            draw(self, &[("tok_ok", 4), ("tok_3ds", 2), ("tok_slow", 1), ("tok_declined", 2), ("tok_unknown_once", 1)]);
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let due: Option<Decimal> = sqlx::query_scalar("select total_amount from orders where id = $1")
            .bind(Uuid::from(order_id))
            .fetch_optional(&mut *tx)
            .await
            .expect("what is due");
        let (amount, method) = (due.unwrap_or_default(), PaymentMethod::CreditCard);
        let another = Offer { order_id, amount, method, token: Some(token.to_owned()) };
        let told = match offer(&mut tx, &self.world.shop, another).await {
            Ok(_) => {
                tx.commit().await.expect("committed");
                *self.promises.offers.entry(order_id).or_default() += 1;
                "taken".to_owned()
            }
            Err(OfferError::Database(error)) => return Err(format!("another try to pay: {error}")),
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!("order {} is to be paid with {token}: {told}", self.number_of(&bought)));
        Ok(())
    }

    /// A customer wants to send something back.
    pub async fn ask_to_return(&mut self) -> Result<(), String> {
        let Some(bought) = self.an_order() else { return Ok(()) };
        let many = self.rng.random_range(1..=2);
        let mut items: Vec<(LineName, i32)> = Vec::new();
        for (sku, _) in SKUS {
            if self.rng.random_bool(0.5) {
                items.push((LineName::Variant(sku.to_owned()), many));
            }
        }
        if items.is_empty() {
            return self.decide_on_return().await;
        }
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let order = orders::lock(&mut tx, bought.accepted.order_id).await.expect("an answer");
        let Some(order) = order else { return Ok(()) };
        let told = match desk::request(&mut tx, &self.world.shop.rules, &order, &items, "too loud", now).await {
            Ok(return_id) => {
                tx.commit().await.expect("committed");
                self.returns.push(return_id);
                format!("return {}", self.returns.len())
            }
            Err(ReturnRefusal::Database(error)) => return Err(format!("a return: {error}")),
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!(
            "{many} of {} lines of order {} come back: {told}",
            items.len(),
            self.number_of(&bought)
        ));
        Ok(())
    }

    /// The staff say what becomes of a return, in time or not, once or again.
    pub async fn decide_on_return(&mut self) -> Result<(), String> {
        let decision = draw(self, &[(Decision::Approve, 4), (Decision::Receive, 4), (Decision::Reject, 1)]);
        let Some(return_id) = self.returns.choose(&mut self.rng).copied() else {
            return self.hear_from_courier().await;
        };
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let told = match desk::decide(&mut tx, return_id, decision, Some("looked at"), now).await {
            Ok(found) => {
                tx.commit().await.expect("committed");
                found.status.to_string()
            }
            Err(ReturnRefusal::Database(error)) => return Err(format!("a decision: {error}")),
            Err(refusal) => refusal.to_string(),
        };
        let nth = self.returns.iter().position(|known| *known == return_id).map_or(0, |index| index + 1);
        self.diary.note(format!("the staff {decision:?} return {nth}: {told}"));
        Ok(())
    }

    /// Another service of the shop holds some stock for a while.
    pub async fn hold_for_service(&mut self) -> Result<(), String> {
        let ttl = TimeDelta::seconds([60, 600, 3_600][self.rng.random_range(0..3)]);
        let mut units: BTreeMap<VariantId, i32> = BTreeMap::new();
        for _ in 0..self.rng.random_range(1..=2) {
            units.insert(variant(self.rng.random_range(0..SKUS.len())).into(), self.rng.random_range(1..=2));
        }
        let (id, mut tx) = (Uuid::now_v7(), self.world.pool.begin().await.expect("a transaction"));
        let now = engine::now(&mut *tx).await.expect("the time");
        let short = services::reserve(&mut tx, id, SERVICE, &units, now, now + ttl).await;
        let told = match short.map_err(|error| format!("a service's hold: {error}"))?.is_empty() {
            true => {
                tx.commit().await.expect("committed");
                self.holds.push(id);
                format!("hold {}", self.holds.len())
            }
            false => "out of stock".to_owned(),
        };
        self.diary.note(format!("a service holds {:?} for {ttl}: {told}", units.values().collect::<Vec<_>>()));
        Ok(())
    }

    /// It lets go, once or again, in time or not.
    pub async fn release_for_service(&mut self) -> Result<(), String> {
        if self.holds.is_empty() {
            return self.hold_for_service().await;
        }
        let index = self.rng.random_range(0..self.holds.len());
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        let left = services::release(&mut tx, self.holds[index], SERVICE, now).await;
        let told = match left.map_err(|error| format!("a service lets go: {error}"))? {
            Some(Let::Released) => "done",
            Some(Let::Expired) => "too late",
            None => return Err("a service's hold is gone".to_owned()),
        };
        tx.commit().await.expect("committed");
        self.diary.note(format!("the service lets go of hold {}: {told}", index + 1));
        Ok(())
    }
}
