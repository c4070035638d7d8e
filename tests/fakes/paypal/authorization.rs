//! Authorizations: read, captured, voided.

use super::{
    Paypal, amount, missing,
    objects::{Capture, Order},
    representation, unprocessable,
};
use crate::{
    call::{Call, Reply},
    gateway::Desk,
    ids,
    money::Amount,
};

impl Paypal {
    fn authorized(&mut self, id: &str) -> Option<&mut Order> {
        self.orders.iter_mut().find(|order| order.authorization.as_ref().is_some_and(|held| held.id == id))
    }

    fn show_part(&self, id: &str) -> Option<serde_json::Value> {
        self.orders.iter().find_map(|order| order.part(id, &self.base))
    }

    pub(super) fn get_authorization(&mut self, call: &Call, _: &mut Desk) -> Reply {
        match self.authorized(call.id()) {
            Some(_) => self.show_part(call.id()).map_or_else(missing, |shown| Reply::new(200, shown)),
            None => missing(),
        }
    }

    pub(super) fn capture_authorization(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let Some(order) = self.authorized(call.id()) else { return missing() };
        let left = Amount { minor: order.held(), exponent: order.amount.exponent };
        let (asked, currency) = match call.body.get("amount").map(amount).transpose() {
            Ok(asked) => asked.unwrap_or_else(|| (left, order.currency.clone())),
            Err(issue) => return unprocessable(issue),
        };
        if let Some(issue) = refusal(order, asked, &currency) {
            return unprocessable(issue);
        }
        let is_final = call.body["final_capture"] == true;
        let id = self.take_authorized(call.id(), asked, is_final, desk);
        self.show_part(&id).map_or_else(missing, |shown| representation(call, 201, shown))
    }

    /// So much of a hold is taken; returns the capture's id.
    pub(super) fn take_authorized(&mut self, id: &str, amount: Amount, is_final: bool, desk: &mut Desk) -> String {
        let base = self.base.clone();
        let own = ids::capital(17);
        let Some(order) = self.authorized(id) else { return own };
        let (created, updated, of) = (desk.now, desk.now, Some(id.to_owned()));
        let capture =
            Capture { id: own.clone(), status: "COMPLETED", why: None, amount, is_final, of, created, updated };
        order.captures.push(capture.clone());
        let taken: i64 = order.captures.iter().map(|capture| capture.amount.minor).sum();
        if let Some(held) = order.authorization.as_mut() {
            held.status = if taken >= held.amount.minor { "CAPTURED" } else { "PARTIALLY_CAPTURED" };
            held.is_closed = is_final || taken >= held.amount.minor;
            held.updated = desk.now;
        }
        let shown = capture.to_json(order, true, &base);
        Self::tell(desk, "PAYMENT.CAPTURE.COMPLETED", "capture", Some("capture"), &shown);
        own
    }

    pub(super) fn void_authorization(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let Some(order) = self.authorized(call.id()) else { return missing() };
        match order.authorization.as_ref().map(|held| held.status) {
            Some("VOIDED") => return unprocessable("PREVIOUSLY_VOIDED"),
            Some("CAPTURED" | "PARTIALLY_CAPTURED") => return unprocessable("PREVIOUSLY_CAPTURED"),
            Some(_) | None => {}
        }
        self.void(call.id(), desk);
        if call.header("prefer").contains("return=representation") {
            self.show_part(call.id()).map_or_else(missing, |shown| Reply::new(200, shown))
        } else {
            Reply::empty(204)
        }
    }

    /// A hold is let go.
    pub(super) fn void(&mut self, id: &str, desk: &mut Desk) {
        let base = self.base.clone();
        let Some(order) = self.authorized(id) else { return };
        if let Some(held) = order.authorization.as_mut() {
            (held.status, held.is_closed, held.updated) = ("VOIDED", true, desk.now);
        }
        if let Some(shown) = order.part(id, &base) {
            Self::tell(desk, "PAYMENT.AUTHORIZATION.VOIDED", "authorization", Some("authorization"), &shown);
        }
    }
}

/// Why so much of a hold cannot be taken.
fn refusal(order: &Order, asked: Amount, currency: &str) -> Option<&'static str> {
    let held = order.authorization.as_ref()?;
    let taken: i64 = order.captures.iter().map(|capture| capture.amount.minor).sum();
    match held.status {
        "VOIDED" if held.is_expired => Some("AUTHORIZATION_EXPIRED"),
        "VOIDED" => Some("AUTHORIZATION_VOIDED"),
        "DENIED" => Some("AUTHORIZATION_DENIED"),
        "PENDING" => Some("TRANSACTION_REFUSED"),
        _ if held.is_closed => Some("AUTHORIZATION_ALREADY_CAPTURED"),
        _ if currency != order.currency => Some("AUTH_CAPTURE_CURRENCY_MISMATCH"),
        _ if (taken + asked.minor) * 100 > held.amount.minor * 115 => Some("MAX_CAPTURE_AMOUNT_EXCEEDED"),
        _ => None,
    }
}
