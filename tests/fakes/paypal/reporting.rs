//! The search of transactions, of which no document is at hand: captures of a stretch of time, by page.

use chrono::DateTime;
use serde_json::{Value, json};

use super::{Paypal, ill_formed, objects, written};
use crate::{
    call::{Call, Reply},
    contract::{Place, Shape},
    gateway::Desk,
};

pub(super) const PLACE: Place = Place { method: "GET", path: "/v1/reporting/transactions" };

impl Paypal {
    pub(super) fn list_transactions(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let bound = |name: &str| {
            let text = call.parameters.get(name).and_then(Value::as_str).unwrap_or_default();
            DateTime::parse_from_rfc3339(text).map_err(|_| ill_formed("INVALID_PARAMETER_SYNTAX", name))
        };
        let (from, to) = match (bound("start_date"), bound("end_date")) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(refused), _) | (_, Err(refused)) => return refused,
        };
        let all = self.orders.iter().flat_map(|order| order.captures.iter().map(move |capture| (order, capture)));
        let rows: Vec<Value> = all
            .filter(|(_, capture)| from <= capture.created && capture.created <= to)
            .map(|(order, capture)| {
                let amount = json!({ "currency_code": order.currency, "value": capture.amount.decimal() });
                let at = objects::time(capture.created);
                json!({ "transaction_info": {
                    "transaction_id": capture.id, "transaction_event_code": "T0006", "transaction_initiation_date": at,
                    "transaction_updated_date": at, "transaction_amount": amount, "paypal_reference_id": order.id,
                    "paypal_reference_id_type": "ODR",
                    "transaction_status": if capture.has_money() { "S" } else { "P" },
                    "invoice_id": order.invoice_id, "custom_field": order.custom_id,
                } })
            })
            .collect();
        let size = usize::try_from(call.parameter("/page_size").unwrap_or(100)).unwrap_or(1).clamp(1, 500);
        let page = usize::try_from(call.parameter("/page").unwrap_or(1)).unwrap_or(1).max(1);
        let (total, pages) = (rows.len(), rows.len().div_ceil(size));
        let details: Vec<Value> = rows.into_iter().skip((page - 1) * size).take(size).collect();
        let answer = json!({
            "transaction_details": details, "page": page, "total_items": total, "total_pages": pages,
            "start_date": objects::time(from.to_utc()), "end_date": objects::time(to.to_utc()),
            "last_refreshed_datetime": objects::time(desk.now), "links": [],
        });
        Reply::new(200, answer)
    }
}

pub(super) fn shape() -> Shape {
    let text = json!({ "type": "string" });
    let query = json!({
        "type": "object", "required": ["start_date", "end_date"], "additionalProperties": false,
        "properties": {
            "start_date": text, "end_date": text, "fields": text, "transaction_status": text, "transaction_type": text,
            "balance_affecting_records_only": { "enum": ["Y", "N"] },
            "page": { "type": "integer", "minimum": 1 },
            "page_size": { "type": "integer", "minimum": 1, "maximum": 500 },
        },
    });
    let answer = json!({ "type": "object", "required": ["transaction_details", "page", "total_pages"] });
    written(Some(query), None, answer)
}
