//! What happens to payments that nobody has asked for through the API.

use serde_json::{Value, json};

use super::{
    Stripe, exponent,
    objects::{Dispute, Refund, Status},
};
use crate::{
    books::Outcome,
    gateway::{Deed, Desk, Event, Shopping, Told, Turn},
    ids,
    money::Amount,
};

impl Stripe {
    /// The shopper stands before the bank's page of 3-D Secure.
    pub(super) fn stand_before_page(&mut self, shopping: &Shopping, desk: &mut Desk) -> Told {
        let id = shopping.payment.as_str();
        let status = self.status(id)?;
        if status != Status::RequiresAction {
            return Err(format!("nobody is asked anything: {}", status.word()));
        }
        match shopping.does {
            Deed::Approve | Deed::Authenticate => self.pay(id, desk),
            Deed::Decline => {
                let told = json!({
                    "type": "invalid_request_error", "code": "payment_intent_authentication_failure",
                    "message": "The provided PaymentMethod has failed authentication.",
                });
                self.fail(id, None, told);
                self.tell_of_intent(desk, "payment_intent.payment_failed", id);
            }
            Deed::Abandon => {}
        }
        Ok(self.returns(id))
    }

    /// How it stands, and where the shopper's browser goes now.
    fn returns(&mut self, id: &str) -> Value {
        let intent = self.show_by_id(id);
        let success = matches!(self.status(id), Ok(Status::Succeeded | Status::RequiresCapture));
        let outcome = if success { "succeeded" } else { "failed" };
        let secret = intent["client_secret"].as_str().unwrap_or_default();
        let query = format!("payment_intent={id}&payment_intent_client_secret={secret}&redirect_status={outcome}");
        let url = self.intent(id).and_then(|intent| intent.return_url.clone()).map(|url| {
            let joint = if url.contains('?') { '&' } else { '?' };
            format!("{url}{joint}{query}")
        });
        json!({ "status": intent["status"], "returns": { "method": "GET", "url": url } })
    }

    fn status(&mut self, id: &str) -> Result<Status, String> {
        self.intent(id).map(|intent| intent.status).ok_or_else(|| format!("there is no payment {id}"))
    }

    pub(super) fn take_turn(&mut self, id: &str, event: &Event, desk: &mut Desk) -> Told {
        let status = self.status(id)?;
        match (event.event, status) {
            (Turn::Capture, Status::RequiresCapture) => {
                let amount = self.intent(id).map_or(0, |intent| intent.amount);
                self.take(id, amount, desk);
            }
            (
                Turn::CaptureLate,
                Status::Canceled
                | Status::RequiresPaymentMethod
                | Status::RequiresConfirmation
                | Status::RequiresAction
                | Status::Processing
                | Status::RequiresCapture,
            ) => self.take_unasked(id, desk),
            (Turn::Settle, Status::Processing) => self.pay(id, desk),
            // The debit comes back: no charge was made of it.
            (Turn::Fail, Status::Processing) => drop(self.decline(id, "card_declined", "generic_decline", desk)),
            (Turn::Lapse, Status::RequiresCapture) => self.lapse(id, desk),
            (Turn::Refund, Status::Succeeded) => self.refund_by_hand(id, event, desk)?,
            (
                Turn::Capture | Turn::CaptureLate | Turn::Settle | Turn::Fail | Turn::Lapse | Turn::Refund,
                Status::RequiresPaymentMethod
                | Status::RequiresConfirmation
                | Status::RequiresAction
                | Status::Processing
                | Status::RequiresCapture
                | Status::Canceled
                | Status::Succeeded,
            ) => return Err(format!("the payment is {}", status.word())),
        }
        Ok(self.show_by_id(id))
    }

    fn take_unasked(&mut self, id: &str, desk: &mut Desk) {
        if let Some(intent) = self.intent(id) {
            intent.is_manual = false;
            (intent.canceled_at, intent.cancellation_reason) = (None, None);
        }
        self.pay(id, desk);
    }

    /// The hold is older than seven days.
    fn lapse(&mut self, id: &str, desk: &mut Desk) {
        let charge = self.intent(id).and_then(|intent| intent.latest_charge.clone()).unwrap_or_default();
        self.let_go(id, Some("automatic".to_owned()), desk);
        self.tell_of_charge(desk, "charge.expired", &charge);
        let Some(held) = self.charge(&charge) else { return };
        let refund = Refund {
            id: ids::mixed("re_3", 23),
            intent: id.to_owned(),
            amount: held.amount,
            currency: held.currency.clone(),
            charge,
            status: "succeeded",
            reason: Some("expired_uncaptured_charge".to_owned()),
            metadata: json!({}),
            key: None,
            is_of_hold: true,
            created: desk.now,
        };
        self.refunds.push(refund);
    }

    fn refund_by_hand(&mut self, id: &str, event: &Event, desk: &mut Desk) -> Result<(), String> {
        let charge = self.intent(id).and_then(|intent| intent.latest_charge.clone()).unwrap_or_default();
        let found = self.charge(&charge).ok_or("it has no charge")?;
        let left = found.captured - found.refunded;
        let asked = event.amount.map(|amount| Amount::of(amount, exponent(&found.currency)).ok_or("no such amount"));
        let amount = asked.transpose()?.map_or(left, |amount| amount.minor);
        if !(1..=left).contains(&amount) {
            return Err(format!("{left} is left"));
        }
        self.give_back(&charge, amount, json!({}), Some("requested_by_customer".to_owned()), desk);
        Ok(())
    }

    pub(super) fn dispute_intent(&mut self, id: &str, outcome: Outcome, desk: &mut Desk) -> Told {
        let charge = self.intent(id).and_then(|intent| intent.latest_charge.clone());
        let charge = charge.ok_or_else(|| format!("{id} has no charge"))?;
        let found = self.charge(&charge).ok_or("it has no charge")?;
        let (amount, currency) = (found.captured, found.currency.clone());
        let is_new = !found.is_disputed;
        found.is_disputed = true;
        if is_new {
            self.disputes.push(Dispute {
                id: ids::mixed("dp_1", 23),
                intent: id.to_owned(),
                charge: charge.clone(),
                amount,
                currency,
                outcome: Outcome::Open,
                created: desk.now,
            });
            self.tell_of_dispute(desk, "charge.dispute.created", &charge, Outcome::Open);
            self.tell_of_dispute(desk, "charge.dispute.funds_withdrawn", &charge, Outcome::Open);
        }
        match outcome {
            Outcome::Open => {}
            Outcome::Won => {
                self.tell_of_dispute(desk, "charge.dispute.closed", &charge, outcome);
                self.tell_of_dispute(desk, "charge.dispute.funds_reinstated", &charge, outcome);
            }
            Outcome::Lost => self.tell_of_dispute(desk, "charge.dispute.closed", &charge, outcome),
        }
        let live = self.is_live();
        let dispute = self.disputes.iter().find(|dispute| dispute.charge == charge);
        dispute.map(|dispute| dispute.to_json(live)).ok_or_else(|| "there is no dispute".to_owned())
    }

    fn tell_of_dispute(&mut self, desk: &mut Desk, kind: &str, charge: &str, outcome: Outcome) {
        let live = self.is_live();
        let Some(dispute) = self.disputes.iter_mut().find(|dispute| dispute.charge == charge) else { return };
        dispute.outcome = outcome;
        let object = dispute.to_json(live);
        self.tell(desk, kind, "dispute", object);
    }
}
