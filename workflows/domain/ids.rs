//! Identifiers: one type for each kind of thing, so that a cart's id cannot be passed for an order's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh identifier (UUID version 7: later ones sort after earlier ones).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )+};
}

uuid_ids! {
    /// A registered customer or member of staff.
    UserId;
    /// A product: what the catalogue page shows.
    ProductId;
    /// A variant of a product: the thing with a SKU, a price and a stock.
    VariantId;
    /// A shopping cart, of a guest or of a user.
    CartId;
    /// An order.
    OrderId;
    /// One line of an order.
    OrderItemId;
    /// A coupon.
    CouponId;
    /// A saved address.
    AddressId;
    /// A hold on stock.
    ReservationId;
}

/// The number a customer reads out on the phone: `ORD`, at least nine digits, and a check digit.
///
/// At most 20 characters (seed: `OrderNumber VARCHAR(20)`). The last digit is a Luhn check digit
/// (ISO/IEC 7812-1), so one mistyped digit is noticed before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderNumber(String);

/// Why a text is not an order number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderNumberError {
    /// Not `ORD` followed by 10 to 17 digits.
    #[error("an order number is ORD followed by 10 to 17 digits")]
    Shape,
    /// The last digit does not match the others: a typing error.
    #[error("the order number's check digit is wrong")]
    CheckDigit,
}

const PREFIX: &str = "ORD";
/// `ORD` and 17 digits fill the seed's 20 characters; the last digit is the check digit.
const MAX_DIGITS: usize = 17;
const MIN_DIGITS: usize = 10;
const LARGEST_SEQUENCE: u64 = 9_999_999_999_999_999;

impl OrderNumber {
    /// The number of the `sequence`-th order.
    ///
    /// # Panics
    /// Above 9,999,999,999,999,999 (16 digits): no column could hold it, and at a million orders a
    /// second it would take 300 years to get there.
    pub fn from_sequence(sequence: u64) -> Self {
        assert!(sequence <= LARGEST_SEQUENCE, "order sequence {sequence} does not fit an order number");
        let digits = format!("{sequence:09}");
        let check = luhn_check_digit(&digits);
        Self(format!("{PREFIX}{digits}{check}"))
    }

    /// The text, as printed on an invoice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Luhn: from the right, every second digit counts double (its digits summed); the check digit
/// brings the sum to a multiple of ten.
fn luhn_check_digit(digits: &str) -> u32 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0');
            let weighted = if place % 2 == 0 { digit * 2 } else { digit };
            if weighted > 9 { weighted - 9 } else { weighted }
        })
        .sum();
    (10 - sum % 10) % 10
}

impl fmt::Display for OrderNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for OrderNumber {
    type Err = OrderNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(PREFIX).ok_or(OrderNumberError::Shape)?;
        let length_ok = (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len());
        if !length_ok || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(OrderNumberError::Shape);
        }
        let (body, check) = digits.split_at(digits.len() - 1);
        if luhn_check_digit(body).to_string() != check {
            return Err(OrderNumberError::CheckDigit);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for OrderNumber {
    type Error = OrderNumberError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<OrderNumber> for String {
    fn from(number: OrderNumber) -> Self {
        number.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_number_is_padded_and_ends_in_its_check_digit() {
        // 7992739871 -> 3 is the textbook example of the Luhn algorithm.
        assert_eq!(OrderNumber::from_sequence(7_992_739_871).to_string(), "ORD79927398713");
        assert_eq!(OrderNumber::from_sequence(1).as_str(), "ORD0000000018");
    }

    #[test]
    fn every_order_number_made_is_read_back() {
        for sequence in [0, 1, 9, 10, 999_999_999, 1_000_000_000, LARGEST_SEQUENCE] {
            let number = OrderNumber::from_sequence(sequence);
            assert!(number.as_str().len() <= 20);
            assert_eq!(number.as_str().parse(), Ok(number.clone()));
            let json = serde_json::to_string(&number).unwrap();
            assert_eq!(serde_json::from_str::<OrderNumber>(&json).unwrap(), number);
        }
    }

    #[test]
    fn any_single_mistyped_digit_is_noticed() {
        let right = OrderNumber::from_sequence(123_456_789).to_string();
        for place in PREFIX.len()..right.len() {
            for digit in '0'..='9' {
                let mut typed = right.clone();
                typed.replace_range(place..=place, &digit.to_string());
                if typed != right {
                    assert_eq!(typed.parse::<OrderNumber>(), Err(OrderNumberError::CheckDigit));
                }
            }
        }
    }

    #[test]
    fn what_does_not_look_like_an_order_number_is_refused() {
        for text in ["", "ORD", "ORD123", "ord0000000018", "ORD00000000018000000000", "ORD00000000١8", "0000000018"] {
            assert_eq!(text.parse::<OrderNumber>(), Err(OrderNumberError::Shape), "{text}");
        }
    }

    #[test]
    fn ids_are_plain_uuids_on_the_wire_and_sort_by_age() {
        let older = CartId::generate();
        let newer = CartId::generate();
        assert!(older < newer);
        assert_eq!(serde_json::to_string(&older).unwrap(), format!("\"{older}\""));
        assert_eq!(older.to_string().parse(), Ok(older));
        assert_eq!(CartId::from(Uuid::from(older)), older);
    }
}
