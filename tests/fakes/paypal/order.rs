//! Orders: made, read, captured, authorized.

use serde_json::{Value, json};

use super::{
    Paypal, amount, ill_formed, missing,
    objects::{Authorization, Capture, Funding, Order, OrderStatus},
    representation, unprocessable,
};
use crate::{
    call::{Call, Reply},
    gateway::Desk,
    ids,
};

impl Paypal {
    pub(super) fn create_order(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let has_source = call.body.get("payment_source").is_some();
        if has_source && call.key.is_none() {
            return ill_formed("PAYPAL_REQUEST_ID_REQUIRED", "/payment_source");
        }
        let (amount, currency) = match amount(call.body.pointer("/purchase_units/0/amount").unwrap_or(&Value::Null)) {
            Ok(read) => read,
            Err(issue) => return unprocessable(issue),
        };
        let optional = |pointer: &str| call.body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let context = |name: &str| {
            let wallet = optional(&format!("/payment_source/paypal/experience_context/{name}"));
            wallet.or_else(|| optional(&format!("/application_context/{name}")))
        };
        let order = Order {
            id: ids::capital(17),
            is_capture: call.text("/intent") == "CAPTURE",
            status: if has_source { OrderStatus::PayerActionRequired } else { OrderStatus::Created },
            reference_id: optional("/purchase_units/0/reference_id").unwrap_or_else(|| "default".to_owned()),
            custom_id: optional("/purchase_units/0/custom_id"),
            invoice_id: optional("/purchase_units/0/invoice_id"),
            currency,
            amount,
            has_source,
            return_url: context("return_url"),
            cancel_url: context("cancel_url"),
            funding: Funding::Balance,
            is_expired: false,
            authorization: None,
            captures: Vec::new(),
            refunds: Vec::new(),
            created: desk.now,
            updated: desk.now,
        };
        let whole = order.to_json(&self.base);
        self.orders.push(order);
        representation(call, 201, whole)
    }

    pub(super) fn get_order(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let found = self.orders.iter().find(|order| order.id == call.id() && !order.is_expired);
        found.map_or_else(missing, |order| Reply::new(200, order.to_json(&self.base)))
    }

    pub(super) fn capture_order(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        if let Err(refused) = self.may_complete(call.id(), true) {
            return refused;
        }
        if let Err(refused) = self.fund(call.id(), desk) {
            return refused;
        }
        self.take_order(call.id(), desk);
        self.completed(call)
    }

    pub(super) fn authorize_order(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        if let Err(refused) = self.may_complete(call.id(), false) {
            return refused;
        }
        // What an authorization may be refused for does not have INSTRUMENT_DECLINED.
        if self.fund(call.id(), desk).is_err() {
            return unprocessable("PAYER_ACTION_REQUIRED");
        }
        let base = self.base.clone();
        let Some(order) = self.order(call.id()) else { return missing() };
        let status = match order.funding {
            Funding::Review => "PENDING",
            Funding::Denied => "DENIED",
            Funding::Balance | Funding::Echeck | Funding::Declined => "CREATED",
        };
        let held = Authorization {
            id: ids::capital(17),
            status,
            amount: order.amount,
            is_closed: false,
            is_expired: false,
            created: desk.now,
            updated: desk.now,
        };
        let shown = held.to_json(order, true, &base);
        order.authorization = Some(held);
        (order.status, order.updated) = (OrderStatus::Completed, desk.now);
        if status != "DENIED" {
            Self::tell(desk, "PAYMENT.AUTHORIZATION.CREATED", "authorization", Some("authorization"), &shown);
        }
        self.completed(call)
    }

    fn completed(&self, call: &Call) -> Reply {
        let found = self.orders.iter().find(|order| order.id == call.id());
        found.map_or_else(missing, |order| representation(call, 201, order.to_json(&self.base)))
    }

    /// Whether an order may be captured, or authorized, at all.
    fn may_complete(&self, id: &str, by_capture: bool) -> Result<(), Reply> {
        let order = self.orders.iter().find(|order| order.id == id).ok_or_else(missing)?;
        if order.is_expired {
            return Err(if by_capture { missing() } else { unprocessable("ORDER_EXPIRED") });
        }
        if order.is_capture != by_capture {
            return Err(unprocessable("ACTION_DOES_NOT_MATCH_INTENT"));
        }
        match order.status {
            OrderStatus::Completed if by_capture => Err(unprocessable("ORDER_ALREADY_CAPTURED")),
            OrderStatus::Completed => Err(unprocessable("ORDER_ALREADY_AUTHORIZED")),
            OrderStatus::Created | OrderStatus::PayerActionRequired => Err(unprocessable("ORDER_NOT_APPROVED")),
            OrderStatus::Approved => {
                let is_same = |other: &&Order| other.id != id && other.invoice_id == order.invoice_id;
                let is_paid = |other: &&Order| other.status == OrderStatus::Completed;
                let twice =
                    order.invoice_id.is_some() && self.orders.iter().filter(is_same).any(|other| is_paid(&other));
                if twice { Err(unprocessable("DUPLICATE_INVOICE_ID")) } else { Ok(()) }
            }
        }
    }

    /// What the payer pays with says no: they are to choose another.
    fn fund(&mut self, id: &str, desk: &Desk) -> Result<(), Reply> {
        let order = self.order(id).ok_or_else(missing)?;
        if order.funding != Funding::Declined {
            return Ok(());
        }
        (order.status, order.updated) = (OrderStatus::PayerActionRequired, desk.now);
        Err(unprocessable("INSTRUMENT_DECLINED"))
    }

    /// The order's money is taken, if it is there.
    pub(super) fn take_order(&mut self, id: &str, desk: &mut Desk) {
        let base = self.base.clone();
        let Some(order) = self.order(id) else { return };
        let (status, why, kind) = match order.funding {
            Funding::Balance | Funding::Declined => ("COMPLETED", None, "PAYMENT.CAPTURE.COMPLETED"),
            Funding::Echeck => ("PENDING", Some("ECHECK"), "PAYMENT.CAPTURE.PENDING"),
            Funding::Review => ("PENDING", Some("PENDING_REVIEW"), "PAYMENT.CAPTURE.PENDING"),
            Funding::Denied => ("DECLINED", None, "PAYMENT.CAPTURE.DENIED"),
        };
        let (of, is_final) = (order.authorization.as_ref().map(|held| held.id.clone()), true);
        let (id, amount, created, updated) = (ids::capital(17), order.amount, desk.now, desk.now);
        let capture = Capture { id, status, why, amount, is_final, of, created, updated };
        let shown = capture.to_json(order, true, &base);
        order.captures.push(capture);
        (order.status, order.updated) = (OrderStatus::Completed, desk.now);
        Self::tell(desk, kind, "capture", Some("capture"), &shown);
        let shown = order.to_json(&base);
        if status == "COMPLETED" {
            Self::tell(desk, "CHECKOUT.ORDER.COMPLETED", "checkout-order", Some("order"), &shown);
        }
    }

    /// Where the payer's browser goes, with what.
    pub(super) fn returns(url: Option<&String>, query: &str) -> Value {
        let url = url.map(|url| {
            let joint = if url.contains('?') { '&' } else { '?' };
            format!("{url}{joint}{query}")
        });
        json!({ "method": "GET", "url": url })
    }
}
