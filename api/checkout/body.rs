//! What a shopper sends to check out, and the order it means.

use domain::{
    address::Address,
    fraud::Network,
    ids::{AddressId, CartId},
    payment::PaymentMethod,
    phone::phone_problem,
    pricing::ShippingMethod,
    text::line_problem,
};
use garde::rules::email::parse_email;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use workflows::checkout::accept::{AddressChoice, Order, Shopper};

use super::Buyer;
use crate::{
    error::{ApiError, FieldError},
    valid::optional_decimal,
};

/// Longest token a gateway may give, in characters.
const MAX_TOKEN_CHARS: usize = 512;

/// Longest code of a coupon, in characters.
const MAX_CODE_CHARS: usize = 50;

/// Most codes typed at one checkout.
const MAX_CODES: usize = 10;

/// What a checkout is asked for. Either an address is written out or a saved one is named; without a
/// billing address the shipping address counts.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CheckoutBody {
    /// The caller's open cart when left out.
    #[schema(value_type = Option<Uuid>)]
    #[serde(default)]
    cart_id: Option<CartId>,
    /// The total the shopper saw; a higher one is refused.
    #[schema(value_type = Option<String>, examples("59050.00"))]
    #[serde(default, deserialize_with = "optional_decimal")]
    expected_total: Option<Decimal>,
    #[schema(value_type = Option<AddressBody>)]
    #[serde(default)]
    shipping_address: Option<Address>,
    #[schema(value_type = Option<Uuid>)]
    #[serde(default)]
    shipping_address_id: Option<AddressId>,
    #[schema(value_type = Option<AddressBody>)]
    #[serde(default)]
    billing_address: Option<Address>,
    #[schema(value_type = Option<Uuid>)]
    #[serde(default)]
    billing_address_id: Option<AddressId>,
    /// STANDARD or EXPRESS.
    #[schema(value_type = String, examples("STANDARD"))]
    shipping_method: ShippingMethod,
    /// CREDIT_CARD, DEBIT_CARD, UPI, NET_BANKING, WALLET or COD.
    #[schema(value_type = String, examples("CREDIT_CARD"))]
    payment_method: PaymentMethod,
    /// stripe, razorpay, paypal or sandbox; the shop's own choice when left out.
    #[schema(max_length = 50)]
    #[serde(default)]
    payment_gateway: Option<String>,
    /// What the gateway gave the shopper's browser; never a card number.
    #[schema(max_length = 512)]
    #[serde(default)]
    payment_token: Option<String>,
    #[serde(default)]
    coupon_codes: Option<Vec<String>>,
    /// How to reach a guest; a user is reached as his account says.
    #[serde(default)]
    contact: Option<Contact>,
}

/// How to reach a guest.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Contact {
    #[schema(format = "email", max_length = 255)]
    email: String,
    #[schema(max_length = 20)]
    phone_number: String,
}

/// A postal address.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddressBody {
    #[schema(max_length = 100)]
    recipient_name: String,
    #[schema(max_length = 255)]
    address_line1: String,
    #[schema(max_length = 255)]
    address_line2: Option<String>,
    #[schema(max_length = 100)]
    city: String,
    #[schema(max_length = 100)]
    state: String,
    #[schema(max_length = 20)]
    postal_code: String,
    #[schema(max_length = 100)]
    country: String,
    #[schema(max_length = 20)]
    phone_number: String,
}

impl CheckoutBody {
    /// The order this means for `buyer`.
    ///
    /// # Errors
    /// 422 `validation-failed` with every place that is wrong.
    pub(super) fn into_order(self, buyer: Buyer, network: Option<Network>) -> Result<Order, ApiError> {
        let mut errors = self.complaints();
        let fingerprint = self.fingerprint().map_err(ApiError::internal)?;
        let shipping = choose("shipping", self.shipping_address, self.shipping_address_id, &mut errors);
        let billing = choose("billing", self.billing_address, self.billing_address_id, &mut errors);
        if shipping.is_none() && errors.is_empty() {
            errors.push(FieldError::new("/shippingAddress", "or shippingAddressId is required"));
        }
        let shopper = match (buyer, self.contact) {
            (Buyer::User(user_id), _) => Some(Shopper::User(user_id)),
            (Buyer::Guest { session_hash }, Some(contact)) => {
                let Contact { email, phone_number } = contact;
                Some(Shopper::Guest {
                    session_hash,
                    email: email.trim().to_lowercase(),
                    phone: Some(phone_number.trim().to_owned()),
                })
            }
            (Buyer::Guest { .. }, None) => {
                errors.push(FieldError::new("/contact", "is required of a guest"));
                None
            }
        };
        match (shipping, shopper) {
            (Some(shipping), Some(shopper)) if errors.is_empty() => Ok(Order {
                shopper,
                cart_id: self.cart_id,
                expected_total: self.expected_total,
                shipping,
                billing,
                shipping_method: self.shipping_method,
                payment_method: self.payment_method,
                payment_gateway: self.payment_gateway,
                payment_token: self.payment_token,
                client_network: network,
                coupon_codes: self.coupon_codes.unwrap_or_default(),
                fingerprint,
            }),
            (Some(_) | None, Some(_) | None) => Err(ApiError::invalid(errors)),
        }
    }

    fn complaints(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut complain = |wrong: bool, pointer: &str, detail: &str| {
            if wrong {
                errors.push(FieldError::new(pointer, detail));
            }
        };
        let negative = self.expected_total.is_some_and(|total| total.is_sign_negative() && !total.is_zero());
        complain(negative, "/expectedTotal", "must not be negative");
        let gateway = self.payment_gateway.as_deref();
        let problem = gateway.and_then(|name| line_problem(name, 50));
        complain(problem.is_some(), "/paymentGateway", problem.as_deref().unwrap_or_default());
        let token = self.payment_token.as_deref();
        let problem = token.and_then(|token| line_problem(token, MAX_TOKEN_CHARS));
        complain(problem.is_some(), "/paymentToken", problem.as_deref().unwrap_or_default());
        let codes = self.coupon_codes.as_deref().unwrap_or_default();
        complain(codes.len() > MAX_CODES, "/couponCodes", "must have at most 10 codes");
        for (index, code) in codes.iter().enumerate() {
            let problem = line_problem(code.trim(), MAX_CODE_CHARS);
            complain(problem.is_some(), &format!("/couponCodes/{index}"), problem.as_deref().unwrap_or_default());
        }
        if let Some(Contact { email, phone_number }) = &self.contact {
            let email = email.trim();
            complain(
                line_problem(email, 255).is_some() || parse_email(email).is_err(),
                "/contact/email",
                "is not an e-mail address",
            );
            let phone = phone_problem(phone_number.trim());
            complain(phone.is_some(), "/contact/phoneNumber", phone.as_deref().unwrap_or_default());
        }
        errors
    }

    /// Equal requests have equal fingerprints, however they were written: fields in any order, codes in
    /// any case, amounts with any number of zeros. The cart is left out: what is compared are requests
    /// for one cart, and one of them may not name it.
    fn fingerprint(&self) -> Result<String, serde_json::Error> {
        let mut codes: Vec<String> =
            self.coupon_codes.iter().flatten().map(|code| code.trim().to_uppercase()).collect();
        codes.sort();
        codes.dedup();
        let canonical = CheckoutBody {
            cart_id: None,
            expected_total: self.expected_total.map(|total| total.normalize()),
            coupon_codes: Some(codes),
            ..self.clone()
        };
        Ok(hex::encode(Sha256::digest(serde_json::to_vec(&canonical)?)))
    }
}

/// The address of that kind, if one is given; what is wrong with it goes to `errors`.
fn choose(
    kind: &str,
    inline: Option<Address>,
    saved: Option<AddressId>,
    errors: &mut Vec<FieldError>,
) -> Option<AddressChoice> {
    match (inline, saved) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::new(format!("/{kind}AddressId"), format!("cannot be given beside {kind}Address")));
            None
        }
        (Some(address), None) => {
            let problems = address.validate();
            errors.extend(
                problems.into_iter().map(|(place, detail)| FieldError::new(format!("/{kind}Address{place}"), detail)),
            );
            Some(AddressChoice::Inline(address))
        }
        (None, Some(id)) => Some(AddressChoice::Saved(id)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::UserId;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn request() -> Value {
        json!({
            "expectedTotal": "59050.00",
            "shippingAddress": {
                "recipientName": "Asha Rao", "addressLine1": "12 MG Road", "city": "Mumbai", "state": "Maharashtra",
                "postalCode": "400001", "country": "India", "phoneNumber": "+919876543210"
            },
            "shippingMethod": "STANDARD", "paymentMethod": "CREDIT_CARD", "paymentToken": "tok_ok",
            "couponCodes": ["SAVE20"]
        })
    }

    fn body(change: impl FnOnce(&mut Value)) -> CheckoutBody {
        let mut request = request();
        change(&mut request);
        serde_json::from_value(request).expect("a body")
    }

    fn order(body: CheckoutBody) -> Result<Order, Vec<u8>> {
        body.into_order(Buyer::User(UserId::generate()), None).map_err(|error| error.to_string().into_bytes())
    }

    #[test]
    fn equal_requests_have_equal_fingerprints_however_they_are_written() {
        let plain = body(|_| {}).fingerprint().expect("a digest");
        let same = body(|request| {
            request["expectedTotal"] = json!("59050.0");
            request["couponCodes"] = json!([" save20 ", "SAVE20"]);
            request["cartId"] = json!(Uuid::now_v7());
            request["billingAddress"] = Value::Null;
        });
        assert_eq!(plain, same.fingerprint().expect("a digest"));
        let other = body(|request| request["paymentToken"] = json!("tok_declined"));
        assert_ne!(plain, other.fingerprint().expect("a digest"));
    }

    #[test]
    fn a_good_request_is_an_order() {
        let order = order(body(|_| {})).expect("an order");
        assert!(order.billing.is_none());
        assert_eq!(order.coupon_codes, ["SAVE20"]);
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let wrong = body(|request| {
            request["shippingAddress"]["city"] = json!("");
            request["billingAddress"] = request["shippingAddress"].clone();
            request["billingAddressId"] = json!(Uuid::now_v7());
            request["couponCodes"] = json!(["SAVE20", ""]);
            request["expectedTotal"] = json!("-1");
        });
        let mut errors = wrong.complaints();
        choose("shipping", wrong.shipping_address, wrong.shipping_address_id, &mut errors);
        choose("billing", wrong.billing_address, wrong.billing_address_id, &mut errors);
        let pointers: Vec<_> = errors.into_iter().map(|error| error.pointer).collect();
        assert_eq!(pointers, ["/expectedTotal", "/couponCodes/1", "/shippingAddress/city", "/billingAddressId"]);
    }

    #[test]
    fn a_shipping_address_is_needed_and_unknown_fields_are_refused() {
        assert!(order(body(|request| request["shippingAddress"] = Value::Null)).is_err());
        let mut request = request();
        request["cartID"] = json!("x");
        assert!(serde_json::from_value::<CheckoutBody>(request).is_err());
    }

    #[test]
    fn a_guest_says_how_to_reach_him() {
        let guest = || Buyer::Guest { session_hash: vec![1] };
        assert!(body(|_| {}).into_order(guest(), None).is_err());
        let with_contact = body(|request| {
            request["contact"] = json!({ "email": "Guest@Example.com", "phoneNumber": "+919876543210" });
        });
        let order = with_contact.into_order(guest(), None).expect("an order");
        assert!(matches!(order.shopper, Shopper::Guest { email, .. } if email == "guest@example.com"));
    }
}
