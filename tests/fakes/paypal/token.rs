//! Access tokens, which every other call bears.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;

use super::{Paypal, written};
use crate::{
    call::{Call, Reply},
    contract::{Encoding, Shape},
    gateway::Desk,
    ids,
};

/// Seconds that a token is good for; here it is good for as long as the process lives.
const LIFETIME_S: i64 = 32_400;

impl Paypal {
    pub(super) fn create_token(&mut self, _: &Call, _: &mut Desk) -> Reply {
        let token = ids::mixed("A21AA", 92);
        self.tokens.push(token.clone());
        let answer = json!({
            "scope": "https://uri.paypal.com/services/payments/payment", "access_token": token, "token_type": "Bearer",
            "app_id": "APP-80W284485P519543T", "expires_in": LIFETIME_S, "nonce": ids::mixed("", 43),
        });
        Reply::new(200, answer)
    }

    pub(super) fn knows_client(&self, call: &Call) -> bool {
        let pair = BASE64.encode(format!("{}:{}", self.client, self.secret));
        call.header("authorization") == format!("Basic {pair}")
    }

    pub(super) fn knows_token(&self, call: &Call) -> bool {
        let token = call.header("authorization").strip_prefix("Bearer ");
        token.is_some_and(|token| self.tokens.iter().any(|known| known == token))
    }
}

pub(super) fn shape() -> Shape {
    let body = json!({
        "type": "object", "required": ["grant_type"], "additionalProperties": false,
        "properties": { "grant_type": { "const": "client_credentials" } },
    });
    let answer = json!({
        "type": "object", "required": ["access_token", "token_type", "expires_in"],
        "properties": { "access_token": { "type": "string" }, "token_type": { "const": "Bearer" },
                        "expires_in": { "type": "integer" } },
    });
    written(None, Some((Encoding::Form, body)), answer)
}
