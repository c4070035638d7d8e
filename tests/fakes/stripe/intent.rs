//! PaymentIntents: made, confirmed, captured, cancelled, read.

use serde_json::{Value, json};

use super::{
    Stripe, error, expands, invalid, missing,
    objects::{Charge, DECLINED, Intent, Status},
    page,
    token::Course,
};
use crate::{
    books::Outcome,
    call::{Call, Reply},
    gateway::Desk,
    ids,
};

impl Stripe {
    pub(super) fn create_intent(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let (amount, currency) = (call.number("/amount").unwrap_or_default(), call.text("/currency"));
        if let Err(refused) = fits(amount, currency) {
            return refused.unbegun();
        }
        let id = ids::mixed("pi_3", 23);
        let optional = |pointer: &str| call.body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        self.intents.push(Intent {
            amount,
            received: 0,
            currency: currency.to_owned(),
            is_manual: call.text("/capture_method") == "manual",
            status: Status::RequiresPaymentMethod,
            course: None,
            payment_method: None,
            metadata: call.body.get("metadata").cloned().unwrap_or(json!({})),
            receipt_email: optional("/receipt_email"),
            return_url: optional("/return_url"),
            latest_charge: None,
            last_error: Value::Null,
            cancellation_reason: None,
            canceled_at: None,
            client_secret: format!("{id}_secret_{}", ids::mixed("", 25)),
            created: desk.now,
            id: id.clone(),
        });
        if let Some(token) = optional("/payment_method")
            && let Err(refused) = self.attach(&id, &token)
        {
            self.intents.retain(|intent| intent.id != id);
            return refused.unbegun();
        }
        self.tell_of_intent(desk, "payment_intent.created", &id);
        if call.body["confirm"] == true { self.confirm(&id, call, desk) } else { self.shown(&id, call) }
    }

    pub(super) fn confirm_intent(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let id = call.id().to_owned();
        let Some(intent) = self.intent(&id) else { return missing("payment_intent", &id, "intent") };
        if !matches!(intent.status, Status::RequiresPaymentMethod | Status::RequiresConfirmation) {
            return self.unexpected(&id, "confirm");
        }
        if let Some(url) = call.body["return_url"].as_str() {
            intent.return_url = Some(url.to_owned());
        }
        if let Some(token) = call.body["payment_method"].as_str()
            && let Err(refused) = self.attach(&id, token)
        {
            return refused.unbegun();
        }
        self.confirm(&id, call, desk)
    }

    pub(super) fn capture_intent(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let id = call.id().to_owned();
        let Some(intent) = self.intent(&id) else { return missing("payment_intent", &id, "intent") };
        let (status, held) = (intent.status, intent.amount);
        if status != Status::RequiresCapture {
            return self.unexpected(&id, "capture");
        }
        let amount = call.number("/amount_to_capture").unwrap_or(held);
        if !(1..=held).contains(&amount) {
            let message = "The amount_to_capture must be positive and not more than the amount that is held.";
            return invalid(Some("amount_too_large"), message, "amount_to_capture");
        }
        self.take(&id, amount, desk);
        self.shown(&id, call)
    }

    pub(super) fn cancel_intent(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let id = call.id().to_owned();
        let Some(intent) = self.intent(&id) else { return missing("payment_intent", &id, "intent") };
        match intent.status {
            Status::Processing | Status::Canceled | Status::Succeeded => return self.unexpected(&id, "cancel"),
            Status::RequiresPaymentMethod
            | Status::RequiresConfirmation
            | Status::RequiresAction
            | Status::RequiresCapture => {}
        }
        let reason = call.body["cancellation_reason"].as_str().map(str::to_owned);
        self.let_go(&id, reason, desk);
        self.shown(&id, call)
    }

    pub(super) fn get_intent(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let with_charge = expands(call.parameters.get("expand"), "latest_charge");
        match self.intents.iter().find(|intent| intent.id == call.id()) {
            Some(intent) => Reply::new(200, self.show(intent, with_charge)),
            None => missing("payment_intent", call.id(), "intent"),
        }
    }

    pub(super) fn list_intents(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let with_charge = expands(call.parameters.get("expand"), "data.latest_charge");
        let rows = self
            .intents
            .iter()
            .map(|intent| (intent.id.clone(), intent.created.timestamp(), self.show(intent, with_charge)));
        page(call, "/v1/payment_intents", rows)
    }

    fn shown(&self, id: &str, call: &Call) -> Reply {
        let with_charge = expands(call.body.get("expand"), "latest_charge");
        let found = self.intents.iter().find(|intent| intent.id == id);
        found.map_or_else(
            || missing("payment_intent", id, "intent"),
            |intent| Reply::new(200, self.show(intent, with_charge)),
        )
    }

    fn unexpected(&self, id: &str, verb: &str) -> Reply {
        let intent = self.show_by_id(id);
        let status = intent["status"].as_str().unwrap_or_default().to_owned();
        let message = format!("You cannot {verb} this PaymentIntent because it has a status of {status}.");
        let more = json!({ "payment_intent": intent });
        error(400, "invalid_request_error", Some("payment_intent_unexpected_state"), &message, more)
    }

    fn attach(&mut self, id: &str, token: &str) -> Result<(), Reply> {
        let Some(course) = Course::of(token) else {
            let message = format!("No such PaymentMethod: '{token}'");
            return Err(invalid(Some("resource_missing"), &message, "payment_method"));
        };
        if let Some(intent) = self.intent(id) {
            intent.course = Some(course);
            intent.payment_method = Some(ids::mixed("pm_1", 23));
            intent.status = Status::RequiresConfirmation;
        }
        Ok(())
    }

    fn confirm(&mut self, id: &str, call: &Call, desk: &mut Desk) -> Reply {
        let course = self.intent(id).and_then(|intent| intent.course);
        match course {
            None => {
                let message = "You cannot confirm this PaymentIntent because it's missing a payment method.";
                let more = json!({ "payment_intent": self.show_by_id(id) });
                let code = Some("payment_intent_unexpected_state");
                return error(400, "invalid_request_error", code, message, more);
            }
            Some(Course::Decline { code, reason }) => return self.decline(id, code, reason, desk),
            Some(Course::Authenticate) => {
                self.stand(id, Status::RequiresAction);
                self.tell_of_intent(desk, "payment_intent.requires_action", id);
            }
            Some(Course::Process) => {
                self.stand(id, Status::Processing);
                self.tell_of_intent(desk, "payment_intent.processing", id);
            }
            Some(Course::Charge | Course::PendingRefund | Course::FailingRefund) => self.pay(id, desk),
            Some(Course::Dispute) => {
                self.pay(id, desk);
                // It has a charge now, and no dispute yet.
                let _ = self.dispute_intent(id, Outcome::Open, desk);
            }
        }
        self.shown(id, call)
    }

    pub(super) fn stand(&mut self, id: &str, status: Status) {
        if let Some(intent) = self.intent(id) {
            intent.status = status;
        }
    }

    /// The bank has said yes: the money is taken or set aside.
    pub(super) fn pay(&mut self, id: &str, desk: &mut Desk) {
        let charge = self.add_charge(id, None, desk);
        let Some(intent) = self.intent(id) else { return };
        intent.latest_charge = Some(charge.clone());
        intent.last_error = Value::Null;
        let (is_manual, amount) = (intent.is_manual, intent.amount);
        if is_manual {
            self.stand(id, Status::RequiresCapture);
            self.tell_of_charge(desk, "charge.succeeded", &charge);
            self.tell_of_intent(desk, "payment_intent.amount_capturable_updated", id);
        } else {
            self.mark_taken(id, amount);
            self.tell_of_charge(desk, "charge.succeeded", &charge);
            self.tell_of_intent(desk, "payment_intent.succeeded", id);
        }
    }

    /// What is held is taken.
    pub(super) fn take(&mut self, id: &str, amount: i64, desk: &mut Desk) {
        self.mark_taken(id, amount);
        if let Some(charge) = self.intent(id).and_then(|intent| intent.latest_charge.clone()) {
            self.tell_of_charge(desk, "charge.captured", &charge);
        }
        self.tell_of_intent(desk, "payment_intent.succeeded", id);
    }

    /// What of a hold is not taken counts as refunded, as Stripe counts it.
    fn mark_taken(&mut self, id: &str, amount: i64) {
        let Some(intent) = self.intent(id) else { return };
        (intent.status, intent.received) = (Status::Succeeded, amount);
        let charge = intent.latest_charge.clone().unwrap_or_default();
        if let Some(charge) = self.charge(&charge) {
            charge.is_captured = true;
            charge.captured = amount;
            charge.refunded = charge.amount - amount;
        }
    }

    /// It is cancelled; what was held is let go, and its charge says that it was refunded.
    pub(super) fn let_go(&mut self, id: &str, reason: Option<String>, desk: &mut Desk) {
        let now = desk.now.timestamp();
        let Some(intent) = self.intent(id) else { return };
        let held = (intent.status == Status::RequiresCapture).then(|| intent.latest_charge.clone()).flatten();
        intent.status = Status::Canceled;
        intent.canceled_at = Some(now);
        intent.cancellation_reason = reason;
        if let Some(held) = held {
            if let Some(charge) = self.charge(&held) {
                charge.refunded = charge.amount;
            }
            self.tell_of_charge(desk, "charge.refunded", &held);
        }
        self.tell_of_intent(desk, "payment_intent.canceled", id);
    }

    /// The bank has said no.
    pub(super) fn decline(&mut self, id: &str, code: &'static str, reason: &'static str, desk: &mut Desk) -> Reply {
        let charge = self.add_charge(id, Some((code, reason)), desk);
        let mut told = json!({ "charge": charge, "code": code, "decline_code": reason, "message": DECLINED,
                               "type": "card_error", "doc_url": "https://stripe.com/docs/error-codes" });
        self.fail(id, Some(charge.clone()), told.clone());
        self.tell_of_charge(desk, "charge.failed", &charge);
        self.tell_of_intent(desk, "payment_intent.payment_failed", id);
        told["payment_intent"] = self.show_by_id(id);
        error(402, "card_error", Some(code), DECLINED, told)
    }

    pub(super) fn fail(&mut self, id: &str, charge: Option<String>, told: Value) {
        if let Some(intent) = self.intent(id) {
            intent.status = Status::RequiresPaymentMethod;
            intent.latest_charge = charge.or(intent.latest_charge.take());
            intent.last_error = told;
            intent.payment_method = None;
            intent.course = None;
        }
    }

    fn add_charge(&mut self, id: &str, failure: Option<(&'static str, &'static str)>, desk: &Desk) -> String {
        let charge = ids::mixed("ch_3", 23);
        let Some(intent) = self.intent(id) else { return charge };
        let made = Charge {
            id: charge.clone(),
            intent: id.to_owned(),
            amount: intent.amount,
            captured: 0,
            refunded: 0,
            currency: intent.currency.clone(),
            is_captured: false,
            is_disputed: false,
            failure,
            payment_method: intent.payment_method.clone(),
            receipt_email: intent.receipt_email.clone(),
            metadata: intent.metadata.clone(),
            created: desk.now,
        };
        self.charges.push(made);
        charge
    }
}

/// Whether Stripe takes such an amount at all.
fn fits(amount: i64, currency: &str) -> Result<(), Reply> {
    let is_code = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_lowercase());
    if !is_code {
        return Err(invalid(None, &format!("Invalid currency: {currency}."), "currency"));
    }
    if amount < 1 {
        let code = Some("parameter_invalid_integer");
        return Err(invalid(code, "This value must be greater than or equal to 1.", "amount"));
    }
    let step = match currency {
        "isk" | "ugx" => 100,
        "bhd" | "jod" | "kwd" | "omr" | "tnd" => 10,
        _ => 1,
    };
    if amount % step != 0 {
        let message = format!("Invalid amount. {currency} amounts must be divisible by {step}.");
        return Err(invalid(None, &message, "amount"));
    }
    Ok(())
}
