//! What can happen in a shop, and how often.

use domain::{address::Address, payment::PaymentMethod};
use rand::{RngExt as _, seq::IndexedRandom as _};
use rust_decimal::Decimal;
use workflows::{
    cart::{self, Owner},
    checkout::accept::{AddressChoice, Order, Refusal, Shopper},
};

use super::{
    bank,
    floor::{CODES, SKUS, user, variant},
    history::{Bought, History},
};
use crate::{
    gateway::Weather,
    world::{mumbai, order},
};

/// One kind of thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    AddItem,
    ChangeQuantity,
    UseCoupon,
    MergeCarts,
    Checkout,
    ClickAgain,
    GiveUp,
    GiveTurn,
    Sweep,
    ActAtTheBank,
    DeliverWebhook,
    TimePasses,
    Tick,
    CancelOrder,
    RefundPart,
    Pack,
    HearFromCourier,
    MoveOrder,
    BuryTheDead,
    LoseTicket,
    DoubleTicket,
    Restock,
    Reprice,
    LimitCoupon,
    WeatherTurns,
    LookAtTheBooks,
    PayAgain,
    AskToReturn,
    DecideOnReturn,
    HoldForService,
    ReleaseForService,
    LookAtDoubtful,
    BanksTurn,
    EndRefunds,
    HearOfRefund,
    DecideOnRefunds,
    Dispute,
    RefundElsewhere,
    RefundComesBack,
}

/// How often, relative to one another.
const ODDS: &[(Action, u32)] = &[
    (Action::AddItem, 14),
    (Action::ChangeQuantity, 3),
    (Action::UseCoupon, 4),
    (Action::MergeCarts, 3),
    (Action::Checkout, 13),
    (Action::ClickAgain, 5),
    (Action::GiveUp, 4),
    (Action::GiveTurn, 50),
    (Action::Sweep, 4),
    (Action::ActAtTheBank, 6),
    (Action::DeliverWebhook, 8),
    (Action::TimePasses, 6),
    (Action::Tick, 6),
    (Action::CancelOrder, 5),
    (Action::RefundPart, 3),
    (Action::Pack, 5),
    (Action::HearFromCourier, 6),
    (Action::MoveOrder, 2),
    (Action::BuryTheDead, 6),
    (Action::LoseTicket, 2),
    (Action::DoubleTicket, 2),
    (Action::Restock, 3),
    (Action::Reprice, 3),
    (Action::LimitCoupon, 2),
    (Action::WeatherTurns, 4),
    (Action::LookAtTheBooks, 1),
    (Action::PayAgain, 4),
    (Action::AskToReturn, 5),
    (Action::DecideOnReturn, 5),
    (Action::HoldForService, 2),
    (Action::ReleaseForService, 1),
    (Action::LookAtDoubtful, 6),
    (Action::BanksTurn, 3),
    (Action::EndRefunds, 3),
    (Action::HearOfRefund, 4),
    (Action::DecideOnRefunds, 3),
    (Action::Dispute, 4),
    (Action::RefundElsewhere, 2),
    (Action::RefundComesBack, 2),
];

/// How shoppers pay, and how often.
const TOKENS: &[(&str, u32)] = &[
    ("tok_ok", 5),
    ("tok_3ds", 4),
    ("tok_slow", 2),
    ("tok_declined", 2),
    ("tok_unknown_once", 2),
    ("tok_wrong_amount", 1),
    ("tok_approve", 3),
    ("tok_hold", 2),
    ("tok_at_once", 1),
    ("cash", 2),
];

pub fn draw<T: Copy>(history: &mut History, odds: &[(T, u32)]) -> T {
    odds.choose_weighted(&mut history.rng, |(_, weight)| *weight).expect("something to draw from").0
}

impl History {
    /// One thing happens.
    pub async fn act(&mut self) -> Result<(), String> {
        let plot = self.plot;
        let odds = ODDS.choose_weighted(&mut self.rng, |(action, weight)| weight * plot.urge(*action));
        match odds.expect("something to draw from").0 {
            Action::AddItem => self.add_item().await,
            Action::ChangeQuantity => self.change_quantity().await,
            Action::UseCoupon => self.use_coupon().await,
            Action::MergeCarts => self.merge_carts().await,
            Action::Checkout => {
                let who = self.somebody();
                return self.check_out(who).await;
            }
            Action::ClickAgain => return self.click_again().await,
            Action::GiveUp => self.give_up().await,
            Action::GiveTurn => {
                let runs = self.live_runs().await;
                match runs.choose(&mut self.rng).cloned() {
                    Some(run) => return self.give_turn(&run).await,
                    None => self.add_item().await,
                }
            }
            Action::Sweep => self.sweep().await,
            Action::ActAtTheBank => self.act_at_the_bank(),
            Action::DeliverWebhook => self.deliver_webhook().await,
            Action::TimePasses => self.time_passes().await,
            Action::Tick => self.tick().await,
            Action::CancelOrder => return self.cancel_order().await,
            Action::RefundPart => return self.refund_part().await,
            Action::Pack => return self.pack().await,
            Action::HearFromCourier => return self.hear_from_courier().await,
            Action::MoveOrder => return self.move_order().await,
            Action::BuryTheDead => self.bury_one().await,
            Action::LoseTicket => self.lose_ticket().await,
            Action::DoubleTicket => {
                let runs = self.live_runs().await;
                if let Some(run) = runs.choose(&mut self.rng).cloned() {
                    self.give_turn(&run).await?;
                    return self.give_turn(&run).await;
                }
            }
            Action::Restock => self.restock().await,
            Action::Reprice => self.reprice().await,
            Action::LimitCoupon => self.limit_coupon().await,
            Action::WeatherTurns => {
                let weather = [
                    (Weather::Fair, 4),
                    (Weather::Deaf, 2),
                    (Weather::Away, 1),
                    (Weather::Busy, 1),
                    (Weather::Locked, 1),
                ];
                let weather = draw(self, &weather);
                self.diary.note(format!("the gateway is {weather:?}"));
                self.world.gateway.set_weather(weather);
            }
            Action::LookAtTheBooks => return self.books_balance_midway().await,
            Action::PayAgain => return self.pay_again().await,
            Action::AskToReturn => return self.ask_to_return().await,
            Action::DecideOnReturn => return self.decide_on_return().await,
            Action::HoldForService => return self.hold_for_service().await,
            Action::ReleaseForService => return self.release_for_service().await,
            Action::LookAtDoubtful => return self.look_at_doubtful().await,
            Action::BanksTurn => self.banks_turn(),
            Action::EndRefunds => self.end_refunds(),
            Action::HearOfRefund => self.hear_of_refund().await,
            Action::DecideOnRefunds => return self.decide_on_refunds().await.map(drop),
            Action::Dispute => self.dispute().await,
            Action::RefundElsewhere => self.refund_elsewhere().await,
            Action::RefundComesBack => self.refund_comes_back().await,
        }
        Ok(())
    }

    fn somebody(&mut self) -> usize {
        self.rng.random_range(0..self.people.len())
    }

    async fn add_item(&mut self) {
        let (who, what, many) = (self.somebody(), self.rng.random_range(0..SKUS.len()), self.rng.random_range(1..=3));
        self.put_into_cart(who, what, many).await;
    }

    pub async fn put_into_cart(&mut self, who: usize, what: usize, many: i64) {
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let owner = self.people[who].owner.clone();
        let added = cart::add_item(&mut tx, &self.world.shop, &owner, History::sku(what), None, many).await;
        let told = match added {
            Ok(_) => {
                tx.commit().await.expect("committed");
                "done".to_owned()
            }
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!("{} adds {many} {}: {told}", self.people[who].name, History::sku(what)));
    }

    async fn change_quantity(&mut self) {
        let (who, what, many) = (self.somebody(), self.rng.random_range(0..SKUS.len()), self.rng.random_range(0..=4));
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let owner = self.people[who].owner.clone();
        let changed = cart::update_quantity(&mut tx, &self.world.shop, &owner, History::sku(what), many).await;
        let told = match changed {
            Ok(_) => {
                tx.commit().await.expect("committed");
                "done".to_owned()
            }
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!("{} wants {many} {}: {told}", self.people[who].name, History::sku(what)));
    }

    async fn use_coupon(&mut self) {
        let (who, code, on) = (self.somebody(), CODES[self.rng.random_range(0..3)], self.rng.random_bool(0.8));
        let owner = self.people[who].owner.clone();
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let used = if on {
            cart::apply_coupon(&mut tx, &self.world.shop, &owner, code).await
        } else {
            cart::remove_coupon(&mut tx, &self.world.shop, &owner, code).await
        };
        let told = match used {
            Ok(_) => {
                tx.commit().await.expect("committed");
                "done".to_owned()
            }
            Err(refusal) => refusal.to_string(),
        };
        let verb = if on { "uses" } else { "drops" };
        self.diary.note(format!("{} {verb} {code}: {told}", self.people[who].name));
    }

    /// The guest logs in as the first user, and takes the cart along.
    async fn merge_carts(&mut self) {
        let guest = self.people.iter().find_map(|somebody| match &somebody.owner {
            Owner::Guest { session_hash } => Some(session_hash.clone()),
            Owner::User(_) => None,
        });
        let Some(session_hash) = guest else { return self.add_item().await };
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let told = match cart::merge(&mut tx, &self.world.shop, user(0).into(), &session_hash).await {
            Ok(_) => {
                tx.commit().await.expect("committed");
                "done".to_owned()
            }
            Err(refusal) => refusal.to_string(),
        };
        self.diary.note(format!("the guest logs in as user 0, with the cart: {told}"));
    }

    /// What somebody sees in their cart.
    async fn total_seen(&mut self, owner: &Owner) -> Decimal {
        let copies = adapters::carts::LocalCarts::default();
        cart::view(&self.world.pool, &self.world.shop, &copies, owner).await.expect("a cart").quote.total
    }

    /// Everybody comes at once, before anybody is at work.
    pub async fn rush(&mut self) -> Result<(), String> {
        for who in 0..self.people.len() {
            let (what, many) = (self.rng.random_range(0..SKUS.len()), self.rng.random_range(1..=2));
            self.put_into_cart(who, what, many).await;
            self.check_out(who).await?;
        }
        Ok(())
    }

    async fn check_out(&mut self, who: usize) -> Result<(), String> {
        let token = draw(self, TOKENS);
        let owner = self.people[who].owner.clone();
        let seen = self.total_seen(&owner).await;
        let expected_total = match self.rng.random_range(0..6) {
            0 => Some(seen),
            1 => Some(seen - Decimal::ONE),
            2 => Some(seen + Decimal::ONE),
            _ => None,
        };
        let coupon_codes = match self.rng.random_range(0..6) {
            0 => vec![CODES[self.rng.random_range(0..3)].to_owned()],
            1 => vec!["SAVE20".to_owned(), "FLAT500".to_owned()],
            _ => Vec::new(),
        };
        let is_abroad = self.screens && self.rng.random_bool(0.3);
        self.buy(who, token, expected_total, coupon_codes, is_abroad).await
    }

    /// Somebody checks out with what is in the cart.
    pub async fn buy(
        &mut self,
        who: usize,
        token: &str,
        expected_total: Option<Decimal>,
        coupon_codes: Vec<String>,
        is_abroad: bool,
    ) -> Result<(), String> {
        let shopper = match &self.people[who].owner {
            Owner::User(user_id) => Shopper::User(*user_id),
            Owner::Guest { session_hash } => Shopper::Guest {
                session_hash: session_hash.clone(),
                email: "guest@example.com".to_owned(),
                phone: Some("+919876543210".to_owned()),
            },
        };
        let is_cash = token == "cash";
        let billed = if is_abroad { "billed abroad" } else { "billed here" };
        let fingerprint = format!("{token} {expected_total:?} {coupon_codes:?} {billed}");
        let abroad = || AddressChoice::Inline(Address { country: "France".to_owned(), ..mumbai() });
        let wanted = Order {
            shopper,
            cart_id: None,
            expected_total,
            payment_method: if is_cash { PaymentMethod::Cod } else { PaymentMethod::CreditCard },
            payment_token: (!is_cash).then(|| token.to_owned()),
            billing: is_abroad.then(abroad),
            coupon_codes,
            fingerprint: fingerprint.clone(),
            ..order(variant(0).into(), variant(0).into())
        };
        self.people[who].asked = Some(wanted.clone());
        let told = self.ask(wanted).await?;
        self.diary.note(format!("{} checks out ({fingerprint}): {told}", self.people[who].name));
        Ok(())
    }

    async fn click_again(&mut self) -> Result<(), String> {
        let who = self.somebody();
        let Some(mut again) = self.people[who].asked.clone() else { return Ok(()) };
        if self.rng.random_bool(0.2) {
            again.fingerprint.push_str(", but differently");
        }
        let told = self.ask(again).await?;
        self.diary.note(format!("{} clicks again: {told}", self.people[who].name));
        Ok(())
    }

    async fn ask(&mut self, wanted: Order) -> Result<String, String> {
        let (expected_total, is_cash) = (wanted.expected_total, wanted.payment_method == PaymentMethod::Cod);
        let accepted = match self.world.checkout_as(wanted).await {
            Ok(accepted) => accepted,
            Err(refusal @ (Refusal::Database(_) | Refusal::Failure(_))) => {
                return Err(format!("a checkout: {refusal}"));
            }
            Err(refusal) => return Ok(refusal.code().to_owned()),
        };
        let known = self.bought.iter().position(|bought| bought.accepted.workflow_id == accepted.workflow_id);
        if let Some(known) = known {
            return match self.bought[known].accepted.order_id == accepted.order_id {
                true => Ok(format!("that is checkout {} ({})", known + 1, accepted.status)),
                false => Err("one run answers with two orders".to_owned()),
            };
        }
        self.bought.push(Bought { accepted, expected_total, is_cash });
        Ok(format!("checkout {}", self.bought.len()))
    }

    async fn give_up(&mut self) {
        let Some(bought) = self.bought.choose(&mut self.rng).cloned() else { return };
        let mut tx = self.world.pool.begin().await.expect("a transaction");
        let asked =
            engine::run::cancel(&mut tx, bought.accepted.workflow_id, "the shopper gave up").await.expect("an answer");
        tx.commit().await.expect("committed");
        self.diary.note(format!("checkout {} is given up: {asked:?}", self.number_of(&bought)));
    }

    pub fn number_of(&self, bought: &Bought) -> usize {
        let same = |other: &Bought| other.accepted.workflow_id == bought.accepted.workflow_id;
        self.bought.iter().position(same).map_or(0, |index| index + 1)
    }

    /// The shopper approves or declines at the bank; or the gateway captures what it had closed.
    fn act_at_the_bank(&mut self) {
        let Some(bought) = self.bought.choose(&mut self.rng).cloned() else { return };
        let order = bought.accepted.order_id;
        let (what, done) = match self.rng.random_range(0..8) {
            0..5 => ("approved", self.world.gateway.approve(order)),
            5..7 => ("declined", self.world.gateway.decline(order)),
            _ => {
                let captured = self.world.gateway.capture_late(order);
                self.late.extend(captured.iter().map(|payment| payment.order_id));
                ("captured though closed", captured)
            }
        };
        if done.is_some() {
            self.diary.note(format!("the payment of checkout {} is {what}", self.number_of(&bought)));
        }
    }

    async fn deliver_webhook(&mut self) {
        let Some(bought) = self.bought.choose(&mut self.rng).cloned() else { return };
        let payments = self.world.gateway.payments(bought.accepted.order_id);
        let Some(payment) = payments.choose(&mut self.rng) else { return };
        let (is_another, times) = (self.rng.random_bool(0.12), self.rng.random_range(1..=2));
        let event = if is_another { bank::word_of_another(payment) } else { bank::word_of(payment) };
        for _ in 0..times {
            let outcome = bank::deliver(&self.world.pool, &event).await;
            let other = if is_another { "another payment than that" } else { "the payment" };
            let number = self.number_of(&bought);
            self.diary.note(format!("word of {other} of checkout {number}: {:?}, {outcome}", event.kind));
        }
    }

    /// In steps that no deadline of the shop (480, 600, …) lies next to: real time passes too. After a
    /// leap of days many timers are due at once.
    async fn time_passes(&mut self) {
        let leaps = [(60, 6), (300, 6), (540, 6), (700, 6), (4_000, 3), (90_000, 2), (300_000, 2), (2_700_000, 1)];
        let seconds = draw(self, &leaps);
        self.later(seconds).await;
        self.diary.note(format!("{seconds} s pass"));
        if self.rng.random_bool(0.5) {
            self.sweep().await;
        }
    }

    async fn lose_ticket(&mut self) {
        let lose = "delete from apalis.jobs where id = (select id from apalis.jobs order by id limit 1)";
        let lost = sqlx::query(lose).execute(&self.world.pool).await.expect("lost").rows_affected();
        self.diary.note(format!("the queue loses {lost} ticket"));
    }

    async fn restock(&mut self) {
        let what = self.rng.random_range(0..SKUS.len());
        let delta = [-1, 1, 2, 3][self.rng.random_range(0..4)];
        let done = sqlx::query(
            "with changed as (
                update inventory set available_quantity = available_quantity + $2, version = version + 1
                 where variant_id = $1 and available_quantity + $2 >= 0 returning variant_id)
             insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
             select variant_id, case when $2 > 0 then 'RESTOCK' else 'ADJUST' end, $2, 0, engine.now() from changed",
        )
        .bind(variant(what))
        .bind(delta)
        .execute(&self.world.pool)
        .await
        .expect("restocked")
        .rows_affected();
        if done == 1 {
            self.stocked[what] += i64::from(delta);
        }
        self.diary.note(format!("{delta:+} {} in stock: {done}", History::sku(what)));
    }

    async fn reprice(&mut self) {
        let (what, percent) = (self.rng.random_range(0..SKUS.len()), self.rng.random_range(90..=115));
        sqlx::query("update product_variants set price = round($2::numeric / 100, 2) where id = $1")
            .bind(variant(what))
            .bind(Decimal::new(SKUS[what].1, 2) * Decimal::from(percent))
            .execute(&self.world.pool)
            .await
            .expect("repriced");
        self.diary.note(format!("{} costs {percent} %", History::sku(what)));
    }

    async fn limit_coupon(&mut self) {
        let (code, spare) = (CODES[self.rng.random_range(0..CODES.len())], self.rng.random_range(0..=2));
        sqlx::query("update coupons set usage_limit = held_count + current_usage_count + $2 where code = $1")
            .bind(code)
            .bind(spare)
            .execute(&self.world.pool)
            .await
            .expect("limited");
        self.diary.note(format!("{code} may be used {spare} times more"));
    }
}
