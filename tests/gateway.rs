//! A gateway and a mailbox in memory: they keep their promises however often they are called, and
//! remember everything, so that a test can count the money.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::{
    ids::OrderId,
    money::Money,
    payment::PaymentMethod,
    ports::{
        Capture, Email, GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, GatewayRefundStatus,
        ListedPayment, ListedRefund, Lookup, MailError, Mailer, NextAction, Operation, PaymentGateway, PaymentPage,
        PaymentRequest, Proceeding, RefundOrder, Unsupported, Webhook, WebhookError, Window,
    },
};
use futures::future::BoxFuture;
use rust_decimal::Decimal;
use uuid::Uuid;

/// Payments of one page of its list.
const PAGE: usize = 3;

/// How reachable the gateway is.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub enum Weather {
    /// It answers.
    #[default]
    Fair,
    /// It does as it is told, and its answer is lost.
    Deaf,
    /// Nobody hears of the call.
    Away,
    /// Somebody else answers at its address.
    Elsewhere,
    /// It is asked too much, and does nothing.
    Busy,
    /// It can do nothing just now.
    Locked,
}

/// Happens inside a call: after its effect, before its answer.
pub type Meanwhile = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
struct Ledger {
    by_key: HashMap<Uuid, String>,
    payments: BTreeMap<String, GatewayPayment>,
    /// By our ids of them.
    refunds: HashMap<Uuid, (GatewayRefund, String)>,
    refund_keys: HashMap<Uuid, Uuid>,
    /// Those that somebody has made in its own dashboard, and of which payments they are.
    elsewhere: Vec<(GatewayRefund, String)>,
    refunds_pend: bool,
    /// Payments that are only approved when the shopper agrees.
    asks_first: HashSet<String>,
    calls: usize,
    looks: usize,
    weather: Weather,
    /// Calls since the weather changed that nobody heard.
    in_vain: usize,
    /// Orders of which nothing is to be heard.
    mute_about: HashSet<OrderId>,
    /// When each payment was made, by the gateway's clock.
    made_at: BTreeMap<String, DateTime<Utc>>,
    clock: Option<DateTime<Utc>>,
    refuses_refunds: bool,
    refunds_asked: Vec<Uuid>,
    meanwhile: Option<Meanwhile>,
}

/// Decides by token: `tok_ok` captures, `tok_declined` fails, `tok_3ds` wants the shopper first,
/// `tok_approve` likewise and then the shop, `tok_hold` sets aside, `tok_at_once` captures what was to be set aside, `tok_slow` captures when it pleases, `tok_wrong_amount` captures a paisa too few,
/// `tok_unknown_once` captures but loses its first answer.
#[derive(Default)]
pub struct ScriptedGateway(Mutex<Ledger>);

impl ScriptedGateway {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is as reachable as this.
    pub fn set_weather(&self, weather: Weather) {
        let mut ledger = self.ledger();
        (ledger.weather, ledger.in_vain) = (weather, 0);
    }

    /// How often it was called while it was away this time.
    pub fn asked_in_vain(&self) -> usize {
        self.ledger().in_vain
    }

    /// It does not answer about this order, whoever asks; about others it does.
    pub fn be_mute_about(&self, order_id: OrderId) {
        self.ledger().mute_about.insert(order_id);
    }

    /// Its clock stands at this.
    pub fn set_time(&self, now: DateTime<Utc>) {
        self.ledger().clock = Some(now);
    }

    /// It answers about every order.
    pub fn be_mute_no_more(&self) {
        self.ledger().mute_about.clear();
    }

    /// Somebody pays who never asked the shop: for this order, if it is one.
    pub fn charge_unasked(&self, order_id: OrderId, amount: Money) -> String {
        self.ledger().charge(Uuid::now_v7(), &request(order_id, amount, "tok_ok")).0.gateway_payment_id
    }

    /// Gives a payment another id.
    pub fn rename(&self, gateway_payment_id: &str, to: &str) {
        let mut ledger = self.ledger();
        let mut payment = ledger.payments.remove(gateway_payment_id).expect("a payment");
        to.clone_into(&mut payment.gateway_payment_id);
        ledger.payments.insert(to.to_owned(), payment);
        let made_at = ledger.made_at.remove(gateway_payment_id).expect("a payment");
        ledger.made_at.insert(to.to_owned(), made_at);
    }

    /// From now on a refund is under way until it is [ended](ScriptedGateway::end_refunds), or not any more.
    pub fn keep_refunds_pending(&self, keeps: bool) {
        self.ledger().refunds_pend = keeps;
    }

    /// Refunds that are under way end so. What fails was never given back.
    pub fn end_refunds(&self, status: GatewayRefundStatus) {
        let Ledger { refunds, payments, .. } = &mut *self.ledger();
        for (refund, payment_id) in refunds.values_mut() {
            if refund.status != GatewayRefundStatus::Pending {
                continue;
            }
            refund.status = status;
            if status == GatewayRefundStatus::Failed {
                refund.failure = Some("account_closed".to_owned());
                payments.get_mut(payment_id).expect("its payment").refunded -= refund.amount.amount();
            }
        }
    }

    /// A refund that had arrived comes back: the customer does not get it.
    pub fn send_back(&self, refund_id: Uuid) -> (Uuid, GatewayRefund, String) {
        let Ledger { refunds, payments, .. } = &mut *self.ledger();
        let (refund, payment_id) = refunds.get_mut(&refund_id).expect("a refund");
        refund.status = GatewayRefundStatus::Failed;
        refund.failure = Some("account_closed".to_owned());
        payments.get_mut(payment_id).expect("its payment").refunded -= refund.amount.amount();
        (refund_id, refund.clone(), payment_id.clone())
    }

    /// What it makes of refunds of this order: our ids of them, how they stand, and of which payments they are.
    pub fn refunds(&self, order_id: OrderId) -> Vec<(Uuid, GatewayRefund, String)> {
        let Ledger { refunds, payments, .. } = &*self.ledger();
        let of_order = refunds.iter().filter(|(_, (_, payment))| payments[payment].order_id == order_id);
        let mut found: Vec<_> =
            of_order.map(|(id, (refund, payment))| (*id, refund.clone(), payment.clone())).collect();
        found.sort_by_key(|(id, _, _)| *id);
        found
    }

    /// From now on it gives nothing back, or does again.
    pub fn refuse_refunds(&self, refuses: bool) {
        self.ledger().refuses_refunds = refuses;
    }

    /// The keys under which refunds were asked for, each once.
    pub fn refund_keys(&self) -> Vec<Uuid> {
        self.ledger().refunds_asked.clone()
    }

    /// Lets this happen inside the next call that is heard.
    pub fn meanwhile(&self, meanwhile: Option<Meanwhile>) {
        self.ledger().meanwhile = meanwhile;
    }

    fn heard(&self) -> Result<(), GatewayError> {
        let mut ledger = self.ledger();
        match ledger.weather {
            Weather::Fair | Weather::Deaf => Ok(()),
            Weather::Away => {
                ledger.in_vain += 1;
                Err(GatewayError::Unknown("the gateway is away".to_owned()))
            }
            Weather::Elsewhere => Err(GatewayError::Misconfigured("404, and not from the gateway".to_owned())),
            Weather::Busy => Err(GatewayError::Busy { why: "too many requests".to_owned(), after_s: 30 }),
            Weather::Locked => {
                let (code, detail) = ("lock-timeout".to_owned(), "another call has it in hand".to_owned());
                Err(GatewayError::NotNow { code, detail, after_s: 30 })
            }
        }
    }

    async fn answer<T>(&self, answer: T) -> Result<T, GatewayError> {
        let (weather, meanwhile) = {
            let mut ledger = self.ledger();
            (ledger.weather, ledger.meanwhile.take())
        };
        if let Some(meanwhile) = meanwhile {
            // On a stack of its own: two turns do not fit on one.
            tokio::spawn(meanwhile()).await.expect("no panic");
        }
        match weather {
            Weather::Fair | Weather::Away | Weather::Elsewhere | Weather::Busy | Weather::Locked => Ok(answer),
            Weather::Deaf => Err(GatewayError::Unknown("the answer was lost".to_owned())),
        }
    }

    /// How often it was asked how a payment stands.
    pub fn looks(&self) -> usize {
        self.ledger().looks
    }

    /// Captured minus refunded for an order.
    pub fn net(&self, order_id: OrderId) -> Decimal {
        self.ledger().payments.values().filter(|p| p.order_id == order_id).map(|p| p.captured - p.refunded).sum()
    }

    /// The same for all orders.
    pub fn holds(&self) -> Decimal {
        self.ledger().payments.values().map(|p| p.captured - p.refunded).sum()
    }

    /// Payments ever made for an order.
    pub fn payments(&self, order_id: OrderId) -> Vec<GatewayPayment> {
        self.ledger().payments.values().filter(|p| p.order_id == order_id).cloned().collect()
    }

    /// The shopper approves what waits for them.
    pub fn approve(&self, order_id: OrderId) -> Option<GatewayPayment> {
        let mut ledger = self.ledger();
        let Ledger { payments, asks_first, .. } = &mut *ledger;
        let payment = payments.values_mut().find(|p| p.order_id == order_id && waits(p.status))?;
        if asks_first.contains(&payment.gateway_payment_id) {
            payment.status = GatewayPaymentStatus::Approved;
        } else {
            payment.status = GatewayPaymentStatus::Captured;
            payment.captured = payment.amount.amount();
        }
        Some(payment.clone())
    }

    /// Takes the money of a payment that it had closed: no gateway may, and some do.
    pub fn capture_closed(&self, order_id: OrderId) {
        for payment in self.ledger().payments.values_mut().filter(|p| p.order_id == order_id) {
            payment.status = GatewayPaymentStatus::Captured;
            payment.captured = payment.amount.amount();
        }
    }

    /// Money goes of which it has no refund to show.
    pub fn lose_money(&self, order_id: OrderId, amount: Decimal) {
        for payment in self.ledger().payments.values_mut().filter(|p| p.order_id == order_id) {
            payment.refunded += amount;
        }
    }

    /// Somebody gives money back of an order in the gateway's own dashboard.
    pub fn refund_by_hand(&self, order_id: OrderId, amount: Decimal) {
        for payment in self.payments(order_id) {
            self.give_back_elsewhere(&payment.gateway_payment_id, amount);
        }
    }

    /// The same of one payment.
    pub fn give_back_elsewhere(&self, gateway_payment_id: &str, amount: Decimal) -> GatewayRefund {
        let Ledger { payments, elsewhere, .. } = &mut *self.ledger();
        let payment = payments.get_mut(gateway_payment_id).expect("a payment");
        payment.refunded += amount;
        let refund = GatewayRefund {
            gateway_refund_id: format!("re_elsewhere_{}", elsewhere.len()),
            amount: Money::rounded(amount, payment.amount.currency()),
            status: GatewayRefundStatus::Succeeded,
            failure: None,
        };
        elsewhere.push((refund.clone(), gateway_payment_id.to_owned()));
        refund
    }

    /// The shopper's bank says no to what waits for them.
    pub fn decline(&self, order_id: OrderId) -> Option<GatewayPayment> {
        let mut ledger = self.ledger();
        let payment = ledger.payments.values_mut().find(|p| p.order_id == order_id && waits(p.status))?;
        payment.status = GatewayPaymentStatus::Failed;
        payment.failure = Some("declined".to_owned());
        Some(payment.clone())
    }

    /// The gateway breaks its word: it captures what it has said was closed.
    pub fn capture_late(&self, order_id: OrderId) -> Option<GatewayPayment> {
        let mut ledger = self.ledger();
        let closed = |p: &&mut GatewayPayment| p.order_id == order_id && p.status == GatewayPaymentStatus::Closed;
        let payment = ledger.payments.values_mut().find(closed)?;
        payment.status = GatewayPaymentStatus::Captured;
        payment.captured = payment.amount.amount();
        Some(payment.clone())
    }

    /// The gateway breaks its word: it captures what it has said was declined.
    pub fn capture_declined(&self, gateway_payment_id: &str) {
        let mut ledger = self.ledger();
        let payment = ledger.payments.get_mut(gateway_payment_id).expect("a payment");
        assert_eq!(payment.status, GatewayPaymentStatus::Failed);
        payment.status = GatewayPaymentStatus::Captured;
        payment.captured = payment.amount.amount();
    }

    /// It has been longer than it remembers idempotency keys.
    pub fn forget_keys(&self) {
        let mut ledger = self.ledger();
        ledger.by_key.clear();
        ledger.refund_keys.clear();
    }
}

impl Ledger {
    /// The payment under this key, and whether it was made just now.
    fn charge(&mut self, key: Uuid, request: &PaymentRequest) -> (GatewayPayment, bool) {
        self.calls += 1;
        if let Some(id) = self.by_key.get(&key) {
            return (self.payments[id].clone(), false);
        }
        let id = format!("pay_{}", Uuid::now_v7());
        let (zero, all) = (Decimal::ZERO, request.amount.amount());
        if request.token.as_deref() == Some("tok_approve") {
            self.asks_first.insert(id.clone());
        }
        let (status, captured, failure) = match request.token.as_deref().unwrap_or_default() {
            "tok_declined" => (GatewayPaymentStatus::Failed, zero, Some("card_declined".to_owned())),
            "tok_3ds" | "tok_approve" => (GatewayPaymentStatus::RequiresAction, zero, None),
            "tok_hold" => (GatewayPaymentStatus::Authorized, zero, None),
            "tok_slow" => (GatewayPaymentStatus::Pending, zero, None),
            "tok_wrong_amount" => (GatewayPaymentStatus::Captured, all - Decimal::new(1, 2), None),
            "tok_at_once" => (GatewayPaymentStatus::Captured, all, None),
            _ if request.capture == Capture::Hold => (GatewayPaymentStatus::Authorized, zero, None),
            _ => (GatewayPaymentStatus::Captured, all, None),
        };
        let next_action = (status == GatewayPaymentStatus::RequiresAction)
            .then(|| NextAction::Redirect { url: "http://127.0.0.1/pay".to_owned() });
        let payment = GatewayPayment {
            gateway_payment_id: id.clone(),
            order_id: request.order_id,
            status,
            amount: request.amount.clone(),
            captured,
            refunded: zero,
            next_action,
            failure,
        };
        self.by_key.insert(key, id.clone());
        self.made_at.insert(id.clone(), self.clock.unwrap_or_else(Utc::now));
        self.payments.insert(id, payment.clone());
        (payment, true)
    }

    /// Whether so much is left that somebody may have given back elsewhere. That we ask for more than that ourselves
    /// is a fault.
    fn has_left(&self, key: Uuid, order: &RefundOrder) -> bool {
        let payment = &self.payments[&order.gateway_payment_id];
        let here = self.elsewhere.iter().filter(|(_, payment)| *payment == order.gateway_payment_id);
        let elsewhere: Decimal = here.map(|(refund, _)| refund.amount.amount()).sum();
        self.refund_keys.contains_key(&key)
            || elsewhere.is_zero()
            || payment.refunded + order.amount.amount() <= payment.captured
    }

    /// The refund under this key, made if it is new.
    fn give_back(&mut self, key: Uuid, order: &RefundOrder) -> GatewayRefund {
        let RefundOrder { refund_id, gateway_payment_id, amount, .. } = order;
        if let Some(known) = self.refund_keys.get(&key) {
            assert_eq!(known, refund_id, "a key is of one refund");
            return self.refunds[known].0.clone();
        }
        let payment = self.payments.get_mut(gateway_payment_id).expect("a payment to refund");
        assert!(payment.refunded + amount.amount() <= payment.captured, "more refunded than captured");
        payment.refunded += amount.amount();
        let status = if self.refunds_pend { GatewayRefundStatus::Pending } else { GatewayRefundStatus::Succeeded };
        let refund =
            GatewayRefund { gateway_refund_id: format!("re_{key}"), amount: amount.clone(), status, failure: None };
        self.refund_keys.insert(key, *refund_id);
        self.refunds.insert(*refund_id, (refund.clone(), gateway_payment_id.clone()));
        refund
    }
}

/// The shopper, or time, has not decided yet.
fn waits(status: GatewayPaymentStatus) -> bool {
    matches!(status, GatewayPaymentStatus::RequiresAction | GatewayPaymentStatus::Pending)
}

/// As a checkout would ask.
pub fn request(order_id: OrderId, amount: Money, token: &str) -> PaymentRequest {
    PaymentRequest {
        order_id,
        order_number: "ORD0".to_owned(),
        attempt: 1,
        amount,
        capture: Capture::Take,
        method: PaymentMethod::Upi,
        token: Some(token.to_owned()),
        return_url: "http://127.0.0.1/back".to_owned(),
        email: None,
        phone: None,
    }
}

#[async_trait]
impl PaymentGateway for ScriptedGateway {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn key_lifetime(&self, _: Operation) -> Duration {
        Duration::from_secs(24 * 3600)
    }

    fn accepts(&self, _: PaymentMethod, _: &Money) -> Result<(), Unsupported> {
        Ok(())
    }

    async fn initiate(&self, key: Uuid, request: &PaymentRequest) -> Result<GatewayPayment, GatewayError> {
        self.heard()?;
        let (payment, is_new) = self.ledger().charge(key, request);
        if is_new && request.token.as_deref() == Some("tok_unknown_once") {
            return Err(GatewayError::Unknown("the answer was lost".to_owned()));
        }
        self.answer(payment).await
    }

    async fn find(&self, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let order_id = lookup.order_id;
        self.heard()?;
        if self.ledger().mute_about.contains(&order_id) {
            return Err(GatewayError::Unknown("it does not say".to_owned()));
        }
        self.ledger().looks += 1;
        self.answer(self.payments(order_id)).await
    }

    async fn list(&self, window: Window, page: Option<&str>) -> Result<PaymentPage, GatewayError> {
        self.heard()?;
        let mut payments: Vec<ListedPayment> = {
            let ledger = self.ledger();
            let is_in = |id: &String| ledger.made_at.get(id).is_some_and(|at| window.from <= *at && *at < window.until);
            let past = |id: &String| page.is_none_or(|page| id.as_str() > page);
            let listed = ledger.payments.iter().filter(|(id, _)| is_in(id) && past(id)).map(|(id, payment)| {
                let captured = Money::rounded(payment.captured, payment.amount.currency());
                ListedPayment {
                    gateway_payment_id: id.clone(),
                    order_id: Some(payment.order_id),
                    reference: Some(payment.order_id.to_string()),
                    captured: Some(captured),
                }
            });
            listed.take(PAGE + 1).collect()
        };
        let has_more = payments.len() > PAGE;
        payments.truncate(PAGE);
        let next = payments.last().filter(|_| has_more).map(|last| last.gateway_payment_id.clone());
        self.answer(PaymentPage { payments, next }).await
    }

    async fn proceed(&self, _: Uuid, proceeding: &Proceeding) -> Result<GatewayPayment, GatewayError> {
        self.heard()?;
        let payment = {
            let mut ledger = self.ledger();
            let payment = ledger.payments.get_mut(&proceeding.gateway_payment_id).expect("a payment to proceed with");
            assert_eq!(payment.amount, proceeding.amount, "all of it");
            match (payment.status, proceeding.capture) {
                (GatewayPaymentStatus::Approved | GatewayPaymentStatus::Authorized, Capture::Take) => {
                    payment.status = GatewayPaymentStatus::Captured;
                    payment.captured = payment.amount.amount();
                }
                (GatewayPaymentStatus::Approved, Capture::Hold) => payment.status = GatewayPaymentStatus::Authorized,
                (_, Capture::Take | Capture::Hold) => {}
            }
            payment.clone()
        };
        self.answer(payment).await
    }

    async fn close(&self, _: Uuid, lookup: &Lookup) -> Result<Vec<GatewayPayment>, GatewayError> {
        let order_id = lookup.order_id;
        self.heard()?;
        for payment in self.ledger().payments.values_mut().filter(|p| p.order_id == order_id) {
            if payment.status.is_open() {
                payment.status = GatewayPaymentStatus::Closed;
            }
        }
        self.answer(self.payments(order_id)).await
    }

    async fn refund(&self, key: Uuid, refund: &RefundOrder) -> Result<GatewayRefund, GatewayError> {
        self.heard()?;
        let refund = {
            let mut ledger = self.ledger();
            if !ledger.refunds_asked.contains(&key) {
                ledger.refunds_asked.push(key);
            }
            if ledger.refuses_refunds {
                let (code, detail) = ("charge-too-old".to_owned(), "it was long ago".to_owned());
                return Err(GatewayError::Refused { code, detail });
            }
            if !ledger.has_left(key, refund) {
                let (code, detail) = ("exceeds-captured".to_owned(), "somebody has given it back".to_owned());
                return Err(GatewayError::Refused { code, detail });
            }
            ledger.give_back(key, refund)
        };
        self.answer(refund).await
    }

    async fn find_refund(&self, refund: &RefundOrder) -> Result<Option<GatewayRefund>, GatewayError> {
        self.heard()?;
        let found = self.ledger().refunds.get(&refund.refund_id).map(|(refund, _)| refund.clone());
        self.answer(found).await
    }

    async fn refunds(&self, gateway_payment_id: &str) -> Result<Vec<ListedRefund>, GatewayError> {
        self.heard()?;
        let listed: Vec<_> = {
            let Ledger { refunds, elsewhere, .. } = &*self.ledger();
            let ours = refunds.iter().map(|(id, (refund, payment))| (Some(*id), refund, payment));
            let all = ours.chain(elsewhere.iter().map(|(refund, payment)| (None, refund, payment)));
            let of_payment = all.filter(|(_, _, payment)| *payment == gateway_payment_id);
            of_payment.map(|(refund_id, refund, _)| ListedRefund { refund_id, refund: refund.clone() }).collect()
        };
        self.answer(listed).await
    }

    async fn verify_webhook(
        &self,
        _: &[(String, String)],
        _: &[u8],
        _: DateTime<Utc>,
    ) -> Result<Webhook, WebhookError> {
        Err(WebhookError::BadSignature)
    }
}

/// How a mail server takes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// It does not have it.
    Unreachable,
    /// It has it, and does not say so.
    Silent,
}

/// Every message handed over, by Message-ID: a second copy is the same message.
#[derive(Default)]
pub struct Mails(Mutex<Post>);

#[derive(Default)]
struct Post {
    mails: BTreeMap<String, Email>,
    copies: HashMap<String, usize>,
    ahead: VecDeque<Relay>,
}

impl Mails {
    fn post(&self) -> MutexGuard<'_, Post> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next sends come to; those after them are taken.
    pub fn expect(&self, ahead: impl IntoIterator<Item = Relay>) {
        self.post().ahead.extend(ahead);
    }

    /// How often a message was handed over.
    pub fn copies(&self, message_id: &str) -> usize {
        self.post().copies.get(message_id).copied().unwrap_or_default()
    }

    /// Messages to an address.
    pub fn to(&self, address: &str) -> Vec<Email> {
        self.post().mails.values().filter(|mail| mail.to == address).cloned().collect()
    }

    /// Messages about an order.
    pub fn about(&self, order_id: OrderId) -> Vec<Email> {
        self.post().mails.values().filter(|mail| mail.order_id == Some(order_id)).cloned().collect()
    }
}

#[async_trait]
impl Mailer for Mails {
    fn name(&self) -> &'static str {
        "mails"
    }

    async fn send(&self, email: &Email) -> Result<(), MailError> {
        let mut post = self.post();
        let next = post.ahead.pop_front();
        if next == Some(Relay::Unreachable) {
            return Err(MailError::Unreachable("nobody is there".to_owned()));
        }
        post.mails.insert(email.message_id.clone(), email.clone());
        *post.copies.entry(email.message_id.clone()).or_default() += 1;
        if next == Some(Relay::Silent) { Err(MailError::Unanswered("no answer".to_owned())) } else { Ok(()) }
    }
}
