//! Orders: made, found, read.

use serde_json::{Value, json};

use super::{Razorpay, bad, missing, objects::Order, page};
use crate::{
    call::{Call, Reply},
    gateway::Desk,
    ids,
};

impl Razorpay {
    pub(super) fn create_order(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let (amount, currency) = (call.number("/amount").unwrap_or_default(), call.text("/currency"));
        if let Err(refused) = fits(amount, currency) {
            return refused;
        }
        let notes = call.body.get("notes").cloned().unwrap_or(json!({}));
        if notes.as_object().is_some_and(|notes| notes.len() > 15) {
            return bad("The notes may not have more than 15 items.");
        }
        let order = Order {
            id: ids::mixed("order_", 14),
            amount,
            currency: currency.to_owned(),
            receipt: call.body["receipt"].as_str().map(str::to_owned),
            notes,
            is_automatic: call.text("/payment/capture") == "automatic",
            created: desk.now,
        };
        let reply = Reply::new(200, self.show_order(&order));
        self.orders.push(order);
        reply
    }

    pub(super) fn list_orders(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let receipt = call.parameters.get("receipt").and_then(Value::as_str);
        let asked =
            self.orders.iter().filter(|order| receipt.is_none_or(|asked| order.receipt.as_deref() == Some(asked)));
        page(call, asked.map(|order| (order.created.timestamp(), self.show_order(order))))
    }

    pub(super) fn get_order(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let found = self.orders.iter().find(|order| order.id == call.id());
        found.map_or_else(missing, |order| Reply::new(200, self.show_order(order)))
    }

    pub(super) fn list_order_payments(&mut self, call: &Call, _: &mut Desk) -> Reply {
        if self.order(call.id()).is_none() {
            return missing();
        }
        let own = self.payments.iter().filter(|payment| payment.order == call.id());
        let mut items: Vec<Value> = own.map(|payment| payment.to_json()).collect();
        items.reverse();
        Reply::new(200, json!({ "entity": "collection", "count": items.len(), "items": items }))
    }
}

fn fits(amount: i64, currency: &str) -> Result<(), Reply> {
    let is_code = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_code {
        return Err(bad("Currency is not supported"));
    }
    let least = if currency == "INR" { 100 } else { 1 };
    if amount < least {
        return Err(bad("Order amount less than minimum amount allowed"));
    }
    if matches!(currency, "BHD" | "KWD" | "OMR") && amount % 10 != 0 {
        return Err(bad("The last digit of the amount must be zero for three-decimal currencies"));
    }
    Ok(())
}
