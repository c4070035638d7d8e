//! Where an order goes and who pays for it. An order keeps its own copy, so that a later change
//! of the address book never moves a parcel.

use serde::{Deserialize, Serialize};

use crate::{phone::phone_problem, text::line_problem};

/// A postal address as clients send it and as orders keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Address {
    /// Who receives the parcel; at most 100 characters.
    pub recipient_name: String,
    /// House and street; at most 255 characters.
    pub address_line1: String,
    /// Flat, floor, landmark; at most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_line2: Option<String>,
    /// At most 100 characters.
    pub city: String,
    /// At most 100 characters. It decides how the tax is shown, never how much it is.
    pub state: String,
    /// At most 20 characters.
    pub postal_code: String,
    /// A name or an ISO 3166 code; at most 100 characters.
    pub country: String,
    /// For the courier.
    pub phone_number: String,
}

impl Address {
    /// Everything wrong with the address, as (JSON pointer within it, message); empty when it is
    /// good. Lengths are in characters and are those of the columns (seed: Addresses Table).
    #[must_use]
    pub fn validate(&self) -> Vec<(&'static str, String)> {
        let required = [
            ("/recipientName", &self.recipient_name, 100),
            ("/addressLine1", &self.address_line1, 255),
            ("/city", &self.city, 100),
            ("/state", &self.state, 100),
            ("/postalCode", &self.postal_code, 20),
            ("/country", &self.country, 100),
        ];
        let mut problems: Vec<_> = required
            .into_iter()
            .filter_map(|(pointer, text, longest)| line_problem(text, longest).map(|message| (pointer, message)))
            .collect();
        let second_line = self.address_line2.as_deref().filter(|text| !text.is_empty());
        let second_line = second_line.and_then(|text| line_problem(text, 255));
        problems.extend(second_line.map(|message| ("/addressLine2", message)));
        problems.extend(phone_problem(&self.phone_number).map(|message| ("/phoneNumber", message)));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn address() -> Address {
        Address {
            recipient_name: "Asha Rao".to_owned(),
            address_line1: "12 MG Road".to_owned(),
            address_line2: None,
            city: "Mumbai".to_owned(),
            state: "Maharashtra".to_owned(),
            postal_code: "400001".to_owned(),
            country: "India".to_owned(),
            phone_number: "+919876543210".to_owned(),
        }
    }

    #[test]
    fn a_complete_address_has_no_problems() {
        assert_eq!(address().validate(), []);
        let with_flat = Address { address_line2: Some("Flat 3".to_owned()), ..address() };
        assert_eq!(with_flat.validate(), []);
    }

    #[test]
    fn every_required_field_must_say_something() {
        let blank = String::from("  ");
        let empty = Address {
            recipient_name: String::new(),
            address_line1: blank.clone(),
            address_line2: None,
            city: blank.clone(),
            state: blank.clone(),
            postal_code: blank.clone(),
            country: blank.clone(),
            phone_number: blank,
        };
        let pointers: Vec<_> = empty.validate().into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(
            pointers,
            ["/recipientName", "/addressLine1", "/city", "/state", "/postalCode", "/country", "/phoneNumber"]
        );
    }

    #[test]
    fn lengths_are_counted_in_characters_and_the_limit_itself_is_allowed() {
        let fits = Address { city: "म".repeat(100), address_line2: Some("x".repeat(255)), ..address() };
        assert_eq!(fits.validate(), []);
        let long = Address { city: "म".repeat(101), address_line2: Some("x".repeat(256)), ..address() };
        assert_eq!(
            long.validate(),
            [
                ("/city", "must have at most 100 characters".to_owned()),
                ("/addressLine2", "must have at most 255 characters".to_owned()),
            ]
        );
    }

    #[test]
    fn a_line_break_cannot_hide_in_a_name() {
        let sly = Address { recipient_name: "Asha\r\nBcc: all".to_owned(), ..address() };
        assert_eq!(sly.validate(), [("/recipientName", "must not contain control characters".to_owned())]);
    }

    #[test]
    fn json_is_camel_case_and_unknown_fields_are_refused() {
        let mut json = serde_json::to_value(address()).expect("an object");
        assert_eq!(json["recipientName"], "Asha Rao");
        assert!(json.get("addressLine2").is_none());
        assert_eq!(serde_json::from_value::<Address>(json.clone()).expect("an address"), address());
        json["planet"] = json!("Earth");
        assert!(serde_json::from_value::<Address>(json).is_err());
    }
}
