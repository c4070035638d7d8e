//! Refunds: made, read, and how they end.

use serde_json::{Value, json};

use super::{Stripe, error, invalid, missing, objects::Refund, page, token::Course};
use crate::{
    books::Outcome,
    call::{Call, Reply},
    gateway::{Desk, RefundCourse, RefundTurn, Told},
    ids,
};

impl Stripe {
    pub(super) fn create_refund(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let charge = match self.refunded_charge(call) {
            Ok(charge) => charge,
            Err(refused) => return refused,
        };
        let is_disputed = self.disputes.iter().any(|one| one.charge == charge && one.outcome != Outcome::Won);
        let Some(found) = self.charge(&charge) else { return missing("charge", &charge, "charge") };
        let left = found.captured - found.refunded.min(found.captured);
        if is_disputed {
            let message = format!("Charge {charge} has been charged back; cannot issue a refund.");
            return invalid(Some("charge_disputed"), &message, "charge");
        }
        if left == 0 {
            let message = format!("Charge {charge} has already been refunded.");
            return error(400, "invalid_request_error", Some("charge_already_refunded"), &message, json!({}));
        }
        let amount = call.number("/amount").unwrap_or(left);
        if amount < 1 {
            return invalid(Some("parameter_invalid_integer"), "Invalid positive integer", "amount").unbegun();
        }
        if amount > left {
            let message = format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left})");
            return invalid(None, &message, "amount");
        }
        let metadata = call.body.get("metadata").filter(|given| given.is_object()).cloned().unwrap_or(json!({}));
        let reason = call.body["reason"].as_str().map(str::to_owned);
        let id = self.give_back(&charge, amount, metadata, reason, desk);
        let found = self.refunds.iter().find(|refund| refund.id == id);
        found.map_or_else(|| missing("refund", &id, "refund"), |refund| Reply::new(200, refund.to_json()))
    }

    fn refunded_charge(&self, call: &Call) -> Result<String, Reply> {
        let (intent, charge) = (call.text("/payment_intent"), call.text("/charge"));
        if !charge.is_empty() {
            return Ok(charge.to_owned());
        }
        if intent.is_empty() {
            let message = "One of the following params should be provided for this request: payment_intent or charge.";
            return Err(error(400, "invalid_request_error", Some("parameter_missing"), message, json!({})).unbegun());
        }
        let found = self.intents.iter().find(|one| one.id == intent);
        let found = found.ok_or_else(|| missing("payment_intent", intent, "payment_intent"))?;
        let paid = found.latest_charge.clone().filter(|_| found.received > 0);
        paid.ok_or_else(|| {
            let message = format!("This PaymentIntent ({intent}) does not have a successful charge to refund.");
            invalid(None, &message, "payment_intent")
        })
    }

    /// Money goes back; by itself, or when it is told to.
    pub(super) fn give_back(
        &mut self,
        charge: &str,
        amount: i64,
        metadata: Value,
        reason: Option<String>,
        desk: &mut Desk,
    ) -> String {
        let id = ids::mixed("re_3", 23);
        let Some(found) = self.charge(charge) else { return id };
        found.refunded += amount;
        let (intent, currency) = (found.intent.clone(), found.currency.clone());
        let course = self.intent(&intent).and_then(|intent| intent.course);
        let status = match (desk.refunds, course) {
            (RefundCourse::Succeeded, Some(Course::PendingRefund)) | (RefundCourse::Pending, _) => "pending",
            (RefundCourse::Succeeded | RefundCourse::Failed, _) => "succeeded",
        };
        let (is_of_hold, key, created) = (false, desk.key.clone(), desk.now);
        let charge = charge.to_owned();
        let refund = Refund {
            id: id.clone(),
            intent,
            charge,
            amount,
            currency,
            status,
            reason,
            metadata,
            key,
            is_of_hold,
            created,
        };
        let (object, charge) = (refund.to_json(), refund.charge.clone());
        self.refunds.push(refund);
        self.tell(desk, "refund.created", "refund", object);
        self.tell_of_charge(desk, "charge.refunded", &charge);
        if desk.refunds == RefundCourse::Failed {
            // It is there, and has not failed yet.
            let _ = self.end_refund(&id, RefundTurn::Fail, desk);
        }
        id
    }

    pub(super) fn end_refund(&mut self, id: &str, turn: RefundTurn, desk: &mut Desk) -> Told {
        let found = self.refunds.iter_mut().find(|refund| refund.id == id);
        let refund = found.ok_or_else(|| format!("there is no refund {id}"))?;
        match (refund.status, turn) {
            ("pending", RefundTurn::Succeed) => refund.status = "succeeded",
            // A bank may send back what had arrived.
            ("pending" | "succeeded", RefundTurn::Fail) => refund.status = "failed",
            (status, RefundTurn::Succeed | RefundTurn::Fail) => return Err(format!("the refund is {status}")),
        }
        let (object, charge, amount) = (refund.to_json(), refund.charge.clone(), refund.amount);
        self.tell(desk, "refund.updated", "refund", object.clone());
        self.tell(desk, "charge.refund.updated", "refund", object.clone());
        if turn == RefundTurn::Fail {
            if let Some(charge) = self.charge(&charge) {
                charge.refunded -= amount;
            }
            self.tell(desk, "refund.failed", "refund", object.clone());
        }
        Ok(object)
    }

    pub(super) fn get_refund(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let found = self.refunds.iter().find(|refund| refund.id == call.id());
        found.map_or_else(|| missing("refund", call.id(), "refund"), |refund| Reply::new(200, refund.to_json()))
    }

    pub(super) fn list_refunds(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let asked = |name: &str| call.parameters.get(name).and_then(Value::as_str);
        let (intent, charge) = (asked("payment_intent"), asked("charge"));
        let is_asked = |refund: &&Refund| {
            intent.is_none_or(|id| refund.intent == id) && charge.is_none_or(|id| refund.charge == id)
        };
        let rows = self.refunds.iter().filter(is_asked);
        page(call, "/v1/refunds", rows.map(|refund| (refund.id.clone(), refund.created.timestamp(), refund.to_json())))
    }
}
