//! Whether two places that people typed are the same.

use serde::{Deserialize, Serialize};

/// Where a parcel goes, as far as tax cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The country's name or ISO 3166-1 code.
    pub country: String,
    /// The state's name or ISO 3166-2 code.
    pub state: String,
}

/// Whether two names mean the same country: "India", "IN" and "ind" do.
pub fn same_country(left: &str, right: &str) -> bool {
    country_key(left) == country_key(right)
}

/// Whether two names mean the same state: "Maharashtra", " maharashtra", "MH" and "IN-MH" do.
pub fn same_state(left: &str, right: &str) -> bool {
    state_key(left) == state_key(right)
}

fn country_key(name: &str) -> String {
    let name = name.trim().to_lowercase();
    match name.as_str() {
        "in" | "ind" | "bharat" => "india".to_owned(),
        _ => name,
    }
}

fn state_key(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let code = name.strip_prefix("in-").unwrap_or(&name);
    INDIAN_STATES.iter().find(|(known, _)| *known == code).map_or(name.clone(), |(_, state)| (*state).to_owned())
}

/// ISO 3166-2:IN, with the codes it replaced in 2023 beside the new ones, since people still use both.
const INDIAN_STATES: [(&str, &str); 40] = [
    ("an", "andaman and nicobar islands"),
    ("ap", "andhra pradesh"),
    ("ar", "arunachal pradesh"),
    ("as", "assam"),
    ("br", "bihar"),
    ("cg", "chhattisgarh"),
    ("ch", "chandigarh"),
    ("ct", "chhattisgarh"),
    ("dh", "dadra and nagar haveli and daman and diu"),
    ("dl", "delhi"),
    ("ga", "goa"),
    ("gj", "gujarat"),
    ("hp", "himachal pradesh"),
    ("hr", "haryana"),
    ("jh", "jharkhand"),
    ("jk", "jammu and kashmir"),
    ("ka", "karnataka"),
    ("kl", "kerala"),
    ("la", "ladakh"),
    ("ld", "lakshadweep"),
    ("mh", "maharashtra"),
    ("ml", "meghalaya"),
    ("mn", "manipur"),
    ("mp", "madhya pradesh"),
    ("mz", "mizoram"),
    ("nl", "nagaland"),
    ("od", "odisha"),
    ("or", "odisha"),
    ("pb", "punjab"),
    ("py", "puducherry"),
    ("rj", "rajasthan"),
    ("sk", "sikkim"),
    ("tg", "telangana"),
    ("tn", "tamil nadu"),
    ("tr", "tripura"),
    ("ts", "telangana"),
    ("uk", "uttarakhand"),
    ("up", "uttar pradesh"),
    ("ut", "uttarakhand"),
    ("wb", "west bengal"),
];
